//! Figures that are looked up when somebody asks, not counted as they change.

use metrics::{counter, gauge};

use super::Services;
use crate::domain::stream::StreamKind;

impl Services {
    /// Brings the gauges up to date, before they are shown.
    #[expect(clippy::cast_precision_loss, reason = "gauges are floats")]
    pub fn observe(&self) {
        gauge!("tollgate_usage_pending").set(self.usage.recorder().pending() as f64);
        counter!("tollgate_usage_dropped_total").absolute(self.usage.recorder().dropped());
        counter!("tollgate_database_sessions_total").absolute(self.health.database_sessions());
        for kind in StreamKind::ALL {
            let open = self.streams.count(kind) as f64;
            gauge!("tollgate_streams", "kind" => kind.as_str()).set(open);
        }
        if let Some(verified) = self.health.ledger() {
            gauge!("tollgate_ledger_differences").set(verified.differences as f64);
            let at = verified.at.map_or(0, |at| at.timestamp());
            gauge!("tollgate_ledger_verified_timestamp_seconds").set(at as f64);
        }
        if let Some(stats) = self.health.redis_stats() {
            counter!("tollgate_redis_calls_total").absolute(stats.calls);
            counter!("tollgate_redis_failures_total").absolute(stats.failures);
            counter!("tollgate_redis_skipped_total").absolute(stats.skipped);
            gauge!("tollgate_redis_degraded").set(f64::from(u8::from(stats.degraded)));
        }
    }
}
