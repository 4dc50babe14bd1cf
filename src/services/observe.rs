//! Figures that are looked up when somebody asks, not counted as they change.

use metrics::{counter, gauge};

use super::{
    Services,
    health::Phase,
    upstreams::{BreakerState, FailureKind, UpstreamState},
};
use crate::domain::stream::StreamKind;

impl Services {
    /// Brings the gauges up to date, before they are shown.
    #[expect(clippy::cast_precision_loss, reason = "gauges are floats")]
    pub fn observe(&self) {
        gauge!("tollgate_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        let phase = match self.health.phase() {
            Phase::Starting => 0.0,
            Phase::Serving => 1.0,
            Phase::Draining => 2.0,
        };
        gauge!("tollgate_phase").set(phase);
        gauge!("tollgate_instances").set(self.changes.instances() as f64);
        gauge!("tollgate_argon2_queue").set(self.passwords.waiting() as f64);
        for pool in self.health.database_pools() {
            let set = |state: &'static str, value: usize| {
                let labels = [("pool", pool.name), ("state", state)];
                gauge!("tollgate_database_connections", &labels).set(value as f64);
            };
            set("in_use", pool.in_use);
            set("idle", pool.idle);
            gauge!("tollgate_database_connections_max", "pool" => pool.name)
                .set(f64::from(pool.most));
        }
        let journal = self.usage.journal();
        counter!("tollgate_journal_records_total").absolute(journal.records());
        gauge!("tollgate_usage_pending").set(self.usage.pending() as f64);
        gauge!("tollgate_journal_bytes").set(journal.waiting() as f64);
        gauge!("tollgate_journal_full").set(f64::from(u8::from(journal.is_full())));
        let lag = self.usage.lag().num_milliseconds() as f64 / 1000.0;
        gauge!("tollgate_journal_lag_seconds").set(lag);
        counter!("tollgate_journal_damaged_bytes_total").absolute(journal.damaged());
        counter!("tollgate_journal_sync_failures_total").absolute(journal.sync_failures());
        counter!("tollgate_usage_dropped_total").absolute(journal.dropped());
        counter!("tollgate_database_sessions_total").absolute(self.health.database_sessions());
        if let Some(age) = self.changes.age() {
            gauge!("tollgate_credential_sync_age_seconds").set(age.as_secs_f64());
        }
        for kind in StreamKind::ALL {
            let open = self.streams.count(kind) as f64;
            gauge!("tollgate_streams", "kind" => kind.as_str()).set(open);
        }
        gauge!("tollgate_chat_answers_in_flight").set(self.chat.under_way() as f64);
        for upstream in &self.upstreams.current().upstreams {
            observe_upstream(upstream);
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
            counter!("tollgate_redis_connections_total").absolute(stats.connections);
            gauge!("tollgate_redis_degraded").set(f64::from(u8::from(stats.degraded)));
        }
        if let Some(stats) = self.limits.stats() {
            counter!("tollgate_limit_store_calls_total").absolute(stats.asked);
            for (source, count) in [
                ("lease", stats.by_lease),
                ("refusal_cache", stats.by_refusal),
                ("store", stats.by_store),
                ("memory", stats.in_memory),
            ] {
                counter!("tollgate_limit_decisions_total", "source" => source).absolute(count);
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "gauges are floats")]
fn observe_upstream(upstream: &UpstreamState) {
    let name = upstream.config.name;
    counter!("tollgate_upstream_retries_total", "upstream" => name).absolute(upstream.retried());
    for target in &upstream.targets {
        let labels = [("upstream", name.to_owned()), ("target", target.config.url.clone())];
        let set = |metric: &'static str, value: usize| gauge!(metric, &labels).set(value as f64);
        set("tollgate_upstream_available", usize::from(target.is_available()));
        set("tollgate_upstream_healthy", usize::from(target.is_healthy()));
        let breaker = match target.breaker() {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Open => 2,
        };
        set("tollgate_upstream_breaker_state", breaker);
        set("tollgate_upstream_in_flight", target.in_flight());
        set("tollgate_upstream_connections", target.connections());
        set("tollgate_upstream_pending", target.pending());
        for kind in FailureKind::ALL {
            let failures = target.failures(kind);
            if failures > 0 {
                let [upstream, target] = labels.clone();
                let labels = [upstream, target, ("reason", kind.as_str().to_owned())];
                counter!("tollgate_upstream_failures_total", &labels).absolute(failures);
            }
        }
    }
}
