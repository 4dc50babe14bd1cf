//! Settings, read once at start-up and checked before anything else happens.
//!
//! Later layers win: built-in defaults, `tollgate.toml`, the environment,
//! command-line flags. Every problem is reported at once and none is repaired
//! silently; a value is never repeated in a message, it may be a secret.
//!
//! ```text
//! sources -> text -> settings (one text per key) -> reader + parsers -> Config
//! ```
//!
//! To add a setting: a field below, a line in [`table`], a line in `assemble`,
//! and `tollgate config example > .env.example`. Nothing outside this module
//! reads the environment.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use secrecy::SecretString;

mod addresses;
mod assemble;
mod chat;
mod example;
mod given;
pub mod keys;
mod limits;
mod output;
mod preset;
mod problem;
mod reader;
pub mod rewrite;
pub mod secrets;
mod server;
mod settings;
mod sources;
mod strength;
pub mod table;
mod tables;
mod text;
mod tls;
mod traces;
mod unsupported;
mod upstream;
mod upstreams;
mod values;

pub use crate::domain::rates::OnStoreLoss;
use crate::domain::{
    money::{Amount, Currency},
    pass::RefundPolicy,
    rates::Rates,
};
pub use chat::{ChatConfig, SameSite, VisitorConfig, WebhookConfig};
pub use example::env_example;
pub use given::Given;
pub use output::{LogConfig, LogFile, MetricsConfig};
pub use preset::Preset;
pub use problem::{ConfigError, Problem};
pub use reader::Effective;
pub use server::{MemoryLimit, Rgb, ServerConfig};
pub use settings::Origin;
pub use sources::Sources;
pub use tls::TlsFiles;
pub use traces::{Sampler, TracesConfig};
pub use upstream::{
    BasicAuth, HeaderChanges, HealthCheck, HostHeader, PathPolicy, TargetConfig, TlsConfig,
    UpstreamConfig, UpstreamLimits, Upstreams, WebSocketConfig,
};
pub use values::log_level;

/// Everything that can be configured.
#[derive(Clone, Debug)]
pub struct Config {
    pub server: ServerConfig,
    pub data_dir: PathBuf,
    pub database: DatabaseConfig,
    pub redis: Option<RedisConfig>,
    pub auth: AuthConfig,
    pub admin: AdminConfig,
    /// The default one first, if there is one.
    pub upstreams: Upstreams,
    pub limits: LimitsConfig,
    pub passes: PassesConfig,
    pub wallet: WalletConfig,
    pub secrets: SecretsConfig,
    pub chat: ChatConfig,
    pub usage: UsageConfig,
    pub audit: AuditConfig,
    pub log: LogConfig,
    pub metrics: MetricsConfig,
    /// `None`: there are no traces.
    pub traces: Option<TracesConfig>,
    /// Origins that browsers may call the API from (CORS); exact matches.
    pub allowed_origins: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct DatabaseConfig {
    /// `sqlite://<file>` or `postgres://…`.
    pub url: SecretString,
    pub max_connections: u32,
}

#[derive(Clone, Debug)]
pub struct RedisConfig {
    pub url: SecretString,
}

/// How JWTs are signed. Fixed by configuration, never taken from a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Hs256,
    Rs256,
    EdDsa,
}

/// Who may make an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    Open,
    Closed,
}

#[derive(Clone, Debug)]
pub struct AuthConfig {
    pub algorithm: Algorithm,
    /// HS256: at least 32 bytes. `None`: made once and kept in the data
    /// directory.
    pub secret_key: Option<SecretString>,
    /// RS256 and `EdDSA`: the private key, PEM (PKCS#8). `None`: an Ed25519 key is
    /// made once and kept in the data directory; RS256 must be given one.
    pub private_key: Option<SecretString>,
    /// HS256 secrets that no longer sign but still verify.
    pub previous_secret_keys: Vec<SecretString>,
    /// Public keys (PEM) that no longer sign but still verify.
    pub previous_public_keys: Vec<String>,
    pub issuer: String,
    pub audience: String,
    pub token_life: Duration,
    pub registration: Registration,
    /// Fewest characters of a password, 8..=64.
    pub password_min_length: usize,
    /// argon2id: memory in KiB, passes, lanes.
    pub argon2_memory_kib: u32,
    pub argon2_passes: u32,
    pub argon2_lanes: u32,
    /// How long credentials that are known here are good while the database does
    /// not answer.
    pub staleness: Duration,
}

/// The first admin, made at the first start only.
#[derive(Clone, Debug)]
pub struct AdminConfig {
    pub username: String,
    pub email: String,
    /// `None`: generated and printed once.
    pub password: Option<SecretString>,
}

/// Where an upstream appears.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Mount {
    /// Under this prefix, without trailing slash (`/api/v1/proxy`); then also
    /// under `/api/proxy` if it is the default.
    Prefix(String),
    /// Every path that is not ours.
    Root,
    /// Every path of a host name, lower case and without port.
    Host(String),
}

impl Mount {
    /// What a path to the upstream begins with.
    pub fn prefix(&self) -> &str {
        match self {
            Self::Prefix(prefix) => prefix,
            Self::Root | Self::Host(_) => "",
        }
    }
}

/// Limits that hold where nothing particular is said; 0 is none.
#[derive(Clone, Debug)]
pub struct LimitsConfig {
    /// Per address, for requests without a credential.
    pub address: Rates,
    pub user: Rates,
    /// For keys that set none of their own.
    pub key: Rates,
    pub pass: Rates,
    /// Per host of the page that sends a request.
    pub origin: Rates,
    /// Per chat session, for messages.
    pub session: Rates,
    /// Per upstream that sets none of its own.
    pub upstream: Rates,
    /// Per pass over its whole time: hours of a pass, requests.
    pub pass_totals: Vec<(u32, u64)>,
    /// Per pass and day, counted from its first use.
    pub pass_own_day: u64,
    pub concurrent: Concurrent,
}

/// Most requests under way at once, on one instance; 0 is any number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Concurrent {
    pub user: u32,
    /// For keys that set none of their own.
    pub key: u32,
    pub pass: u32,
    /// For upstreams that set none of their own.
    pub upstream: u32,
}

/// What time passes cost and what comes back of them.
#[derive(Clone, Debug)]
pub struct PassesConfig {
    /// Hours and price in minor units of what is sold, by length.
    pub prices: Vec<(u32, i64)>,
    pub refund: RefundPolicy,
    /// Hours of the pass that a new account begins with; 0: none.
    pub trial_hours: u32,
}

#[derive(Clone, Copy, Debug)]
pub struct WalletConfig {
    pub currency: Currency,
    /// What a new account begins with. `None`: nothing.
    pub starting_balance: Option<Amount>,
}

/// What seals texts that must be readable again.
#[derive(Clone, Debug)]
pub struct SecretsConfig {
    /// At least 32 bytes. `None`: made once and kept in the data directory.
    pub key: Option<SecretString>,
    /// No longer seal, but still open.
    pub previous: Vec<SecretString>,
}

#[derive(Clone, Debug)]
pub struct UsageConfig {
    pub retention_days: u32,
    /// Most recent requests kept in the request log.
    pub request_log_max: u32,
    pub journal: JournalConfig,
}

#[derive(Clone, Copy, Debug)]
pub struct AuditConfig {
    /// 0: for ever.
    pub retention_days: u32,
}

/// Where usage lies until the database has it.
#[derive(Clone, Debug)]
pub struct JournalConfig {
    /// Holds a folder for each process.
    pub folder: PathBuf,
    /// What may wait in it for the database, bytes of one process.
    pub max_bytes: u64,
    pub on_full: OnFull,
}

/// What becomes of requests that cannot be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFull {
    /// They are refused before they go upstream.
    Block,
    /// They are served, and not recorded.
    Unmetered,
}

impl OnFull {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Unmetered => "unmetered",
        }
    }
}

impl Config {
    /// Reads and checks everything. All problems are in the error.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        Self::load_with_origins(sources).map(|(config, _)| config)
    }

    /// As [`Config::load`], with what is in force and which layer said so, for
    /// people to look at: secrets are masked.
    pub fn load_with_origins(sources: &Sources) -> Result<(Self, Vec<Effective>), ConfigError> {
        let mut problems = sources.problems.clone();
        let (settings, tables) = settings::Settings::collect(sources, &mut problems);
        let mut reader = reader::Reader::new(&settings, problems);
        let config = assemble::config(&mut reader, tables);
        let (effective, mut problems) = reader.finish();
        if problems.is_empty() {
            return Ok((config, effective));
        }
        // A setting that two rules look at would be reported twice.
        let mut seen = std::collections::HashSet::new();
        problems.retain(|problem| seen.insert(problem.to_string()));
        Err(ConfigError::new(problems))
    }
}

impl Config {
    /// Origins whose pages may show the chat: those that may call, and our own.
    /// To try it these are also what a browser on this machine names us.
    pub fn chat_origins(&self) -> Vec<String> {
        let ServerConfig { host, port, tls, public_url, .. } = &self.server;
        let mut origins = self.allowed_origins.clone();
        origins.extend(public_url.clone());
        if self.chat.demo {
            let (scheme, usual) = if tls.is_some() { ("https", 443) } else { ("http", 80) };
            let port = if *port == usual { String::new() } else { format!(":{port}") };
            let named = (!host.is_unspecified()).then(|| match host {
                IpAddr::V4(address) => address.to_string(),
                IpAddr::V6(address) => format!("[{address}]"),
            });
            let local = ["127.0.0.1", "localhost", "[::1]"].map(str::to_owned);
            let hosts = local.into_iter().chain(named);
            origins.extend(hosts.map(|host| format!("{scheme}://{host}{port}")));
        }
        origins.sort_unstable();
        origins.dedup();
        origins
    }
}

impl ServerConfig {
    pub fn listen(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.port)
    }
}
