//! Reads the settings of what is written about the process: its log and its
//! metrics.

use std::path::PathBuf;

use secrecy::SecretString;

use super::{
    ServerConfig,
    reader::Reader,
    strength, values,
    values::{number, truth},
};

#[derive(Clone, Debug)]
pub struct LogConfig {
    /// A `tracing_subscriber::EnvFilter` directive.
    pub level: String,
    /// `None`: JSON unless the output is a terminal.
    pub json: Option<bool>,
    /// Written besides standard output.
    pub file: Option<LogFile>,
}

/// A log file that begins anew when it is full.
#[derive(Clone, Debug)]
pub struct LogFile {
    pub path: PathBuf,
    pub max_bytes: u64,
    /// That are kept, the one that is written among them.
    pub max_files: usize,
}

#[derive(Clone, Debug)]
pub struct MetricsConfig {
    /// A listener of its own on this port; `None`: `/metrics` on the main one.
    pub port: Option<u16>,
    /// Demanded as a bearer token where set.
    pub token: Option<SecretString>,
}

pub(super) fn log(reader: &mut Reader) -> LogConfig {
    let max_megabytes = reader.required("LOG_MAX_SIZE_MB", number(1..=100_000_u64));
    let max_files = reader.required("LOG_MAX_FILES", number(1..=1000_usize));
    let file = reader.optional("LOG_FILE", values::folder);
    LogConfig {
        level: reader.required("LOG_LEVEL", values::log_level),
        json: reader.optional("LOG_JSON_OUTPUT", truth),
        file: file.map(|path| LogFile { path, max_bytes: max_megabytes * 1_000_000, max_files }),
    }
}

pub(super) fn metrics(reader: &mut Reader, server: &ServerConfig) -> MetricsConfig {
    let port = reader.optional("METRICS_PORT", number(1..=u16::MAX));
    if port == Some(server.port) {
        reader.refuse("METRICS_PORT", "expected another port than SERVER_PORT");
    }
    MetricsConfig { port, token: reader.secret("METRICS_TOKEN", strength::metrics_token) }
}
