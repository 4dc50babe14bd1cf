//! Logs and metrics of the process.
//!
//! One event is one line, whatever a client sent: values are cut to
//! [`text::MOST_BYTES`] and control characters in them are escaped, in both
//! formats. `tracing-subscriber` alone escapes ANSI sequences, but lets line
//! breaks of `%value` through in its text format and never cuts.
//!
//! Lines are written straight to standard output; nothing is buffered that a
//! crash could lose. What may be logged at all is decided where it is logged.

pub mod catalog;
pub mod json;
pub mod metrics;
mod process;
pub mod text;
pub mod traffic;

use std::io::{self, IsTerminal};

use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter, Layer, Registry, filter::ParseError, fmt::MakeWriter, layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::config::LogConfig;

pub use self::{
    metrics::{metrics_handle, metrics_text},
    traffic::{Exchange, Traffic},
};

#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("log level: {0}")]
    Level(#[from] ParseError),
    #[error("logging is already set up: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Sends the logs of this process to standard output. An error the second
/// time.
pub fn init(config: &LogConfig) -> Result<(), TelemetryError> {
    let terminal = io::stdout().is_terminal();
    subscriber(config, terminal, io::stdout)?.try_init()?;
    Ok(())
}

/// The same for any output; `terminal` decides about colours, and about JSON
/// where the configuration does not.
pub fn subscriber<W>(
    config: &LogConfig,
    terminal: bool,
    output: W,
) -> Result<impl Subscriber + Send + Sync, TelemetryError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let layer: Box<dyn Layer<Registry> + Send + Sync> = if config.json.unwrap_or(!terminal) {
        Box::new(json::JsonLines::to(output))
    } else {
        Box::new(text::layer(output, terminal))
    };
    let filter = EnvFilter::try_new(&config.level)?;
    Ok(tracing_subscriber::registry().with(layer.with_filter(filter)))
}

#[cfg(test)]
mod tests;
