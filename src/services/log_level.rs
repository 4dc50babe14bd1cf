//! What is logged, changed for a while by an operator.

use std::{sync::Arc, time::Duration};

use chrono::TimeDelta;
use serde_json::json;

use super::{AuditService, StoreError};
/// What is in force.
pub use crate::telemetry::LevelShown;
use crate::{
    domain::{
        audit::{Action, Actor, Event},
        clock::SharedClock,
    },
    telemetry::LogLevel,
};

/// The level of this instance's log.
pub struct LogLevelService {
    level: Arc<LogLevel>,
    audit: Arc<AuditService>,
    clock: SharedClock,
}

impl LogLevelService {
    pub fn new(level: Arc<LogLevel>, audit: Arc<AuditService>, clock: SharedClock) -> Self {
        Self { level, audit, clock }
    }

    pub fn shown(&self) -> LevelShown {
        self.level.shown()
    }

    /// Puts other levels, which were checked, in force for a while. Noted first:
    /// what is not on record is not done.
    pub async fn set(
        &self,
        by: &Actor,
        level: &str,
        span: Duration,
    ) -> Result<LevelShown, StoreError> {
        let before = self.shown().level;
        let until = self.clock.now() + TimeDelta::from_std(span).unwrap_or_default();
        let event = Event::of_all(Action::LogLevelChanged, "log_level")
            .before(json!({ "level": before }))
            .after(json!({ "level": level, "expires_at": until }));
        self.audit.note(by, event).await?;
        self.level.set(level, until, span);
        Ok(self.shown())
    }
}
