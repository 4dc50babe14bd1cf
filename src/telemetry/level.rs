//! What is logged: as configured, or otherwise for a while.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use tracing_subscriber::EnvFilter;

type Apply = Box<dyn Fn(EnvFilter) + Send + Sync>;

/// The levels of this process.
pub struct LogLevel {
    configured: String,
    /// `None`: this process has no log.
    apply: Option<Apply>,
    state: Mutex<State>,
}

#[derive(Clone, Debug, Default)]
struct State {
    /// In place of what is configured, and until when.
    other: Option<(String, DateTime<Utc>)>,
    /// Which change this is.
    change: u64,
}

/// What is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LevelShown {
    pub level: String,
    pub configured: String,
    /// Then what is configured holds again.
    pub expires_at: Option<DateTime<Utc>>,
}

impl fmt::Debug for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogLevel").field(&self.shown()).finish()
    }
}

impl LogLevel {
    /// Of a process without a log: it is noted, and changes nothing.
    pub fn detached(configured: &str) -> Arc<Self> {
        Self::new(configured, None)
    }

    pub(super) fn new(configured: &str, apply: Option<Apply>) -> Arc<Self> {
        let configured = configured.to_owned();
        Arc::new(Self { configured, apply, state: Mutex::default() })
    }

    pub fn shown(&self) -> LevelShown {
        let configured = self.configured.clone();
        match &self.state().other {
            None => LevelShown { level: configured.clone(), configured, expires_at: None },
            Some((level, until)) => {
                LevelShown { level: level.clone(), configured, expires_at: Some(*until) }
            }
        }
    }

    /// Puts other levels in force; they were checked. To be called within a
    /// runtime, on which it is remembered when they end.
    pub fn set(self: &Arc<Self>, level: &str, until: DateTime<Utc>, span: Duration) {
        let change = self.change(Some((level.to_owned(), until)));
        let this = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(span).await;
            let is_last = this.state().change == change;
            if is_last {
                this.change(None);
                tracing::info!("the level of the log is as configured again");
            }
        });
    }

    fn change(&self, other: Option<(String, DateTime<Utc>)>) -> u64 {
        let mut state = self.state();
        let level = other.as_ref().map_or(&self.configured, |(level, _)| level);
        if let (Some(apply), Ok(filter)) = (&self.apply, EnvFilter::try_new(level)) {
            apply(filter);
        }
        state.other = other;
        state.change += 1;
        state.change
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
