//! Logs, metrics and traces of the process.
//!
//! One event is one line, whatever a client sent: values are cut to
//! [`text::MOST_BYTES`] and control characters in them are escaped, in both
//! formats. `tracing-subscriber` alone escapes ANSI sequences, but lets line
//! breaks of `%value` through in its text format and never cuts.
//!
//! Lines go to standard output and, where one is configured, to a file, each by
//! a [`queue`] of its own: whoever logs waits for neither. What may be logged at
//! all is decided where it is logged.

pub mod catalog;
pub mod json;
pub mod level;
pub mod metrics;
pub mod operation;
mod process;
pub mod queue;
pub mod rotate;
pub mod text;
pub mod trace;
pub mod traffic;

use std::{
    io::{self, IsTerminal, Write},
    sync::Arc,
    time::Duration,
};

use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter, Layer, Registry, filter::ParseError, fmt::MakeWriter, layer::SubscriberExt,
    registry::LookupSpan, reload, util::SubscriberInitExt,
};

pub use self::{
    level::{LevelShown, LogLevel},
    metrics::{metrics_handle, metrics_text},
    operation::operation,
    traffic::{Exchange, Traffic},
};
use self::{
    queue::{Plain, Queue},
    rotate::Rotating,
};
use crate::config::LogConfig;

/// How long the end of the process waits for outputs to take what is left.
const LAST_LINES: Duration = Duration::from_millis(500);

#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("log level: {0}")]
    Level(#[from] ParseError),
    #[error("logging is already set up: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
    #[error("the log cannot be written: {0}")]
    Output(#[from] io::Error),
}

/// The outputs of the log. Dropping them waits a moment for what is not written
/// yet.
pub struct Logs {
    config: LogConfig,
    terminal: bool,
    stdout: Queue,
    file: Option<Queue>,
}

impl Logs {
    /// Opens the file, if there is to be one, and starts to write. `terminal`:
    /// whether `stdout` is one.
    pub fn open(
        config: &LogConfig,
        terminal: bool,
        stdout: impl Write + Send + 'static,
    ) -> io::Result<Self> {
        // What is dropped is counted, also before anybody asks for metrics.
        metrics_handle();
        let file = match &config.file {
            Some(file) => Some(Queue::start("file", Rotating::open(file)?)?),
            None => None,
        };
        let stdout = Queue::start("stdout", Plain(stdout))?;
        Ok(Self { config: config.clone(), terminal, stdout, file })
    }

    /// Waits until all is written, but not for longer; whether it is.
    pub fn flush(&self, patience: Duration) -> bool {
        let file = self.file.as_ref().is_none_or(|file| file.flush(patience));
        self.stdout.flush(patience) && file
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        self.flush(LAST_LINES);
    }
}

/// Sends the logs of this process to standard output and to the file that is
/// configured. An error the second time.
pub fn init(config: &LogConfig) -> Result<(Logs, Arc<LogLevel>), TelemetryError> {
    let logs = Logs::open(config, io::stdout().is_terminal(), io::stdout())?;
    let (filter, handle) = reload::Layer::new(EnvFilter::try_new(&config.level)?);
    Registry::default().with(filter).with(outputs(&logs)).try_init()?;
    let apply = move |filter: EnvFilter| {
        // It fails when there is no log any more.
        _ = handle.reload(filter);
    };
    Ok((logs, LogLevel::new(&config.level, Some(Box::new(apply)))))
}

/// Everything that is logged goes to all outputs.
fn outputs<S>(logs: &Logs) -> Vec<Box<dyn Layer<S> + Send + Sync>>
where
    S: Subscriber + for<'l> LookupSpan<'l>,
{
    let Logs { config, terminal, stdout, file } = logs;
    let json = config.json.unwrap_or(!terminal);
    let stdout = layer(json, *terminal, stdout.clone());
    // Nobody looks at it in colours.
    let file = file.clone().map(|file| layer(config.json.unwrap_or(true), false, file));
    std::iter::once(stdout).chain(file).collect()
}

fn layer<S, W>(json: bool, colours: bool, output: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'l> LookupSpan<'l>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    if json {
        Box::new(json::JsonLines::to(output))
    } else {
        Box::new(text::layer(output, colours))
    }
}

#[cfg(test)]
fn subscriber_to(logs: &Logs) -> impl Subscriber + Send + Sync {
    Registry::default().with(outputs(logs))
}

/// For one output that never makes anybody wait; `terminal` decides about
/// colours, and about JSON where the configuration does not.
pub fn subscriber<W>(
    config: &LogConfig,
    terminal: bool,
    output: W,
) -> Result<impl Subscriber + Send + Sync, TelemetryError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(&config.level)?;
    let json = config.json.unwrap_or(!terminal);
    Ok(Registry::default().with(filter).with(layer(json, terminal, output)))
}

#[cfg(test)]
mod tests;
