//! Every metric of the process: its name, its labels and what it says.
//!
//! The one list of them. What is shown takes its `HELP` from here, the table of
//! `docs/metrics.md` is checked against it, and a test fails for a metric that
//! is shown and not listed.

use metrics::{describe_counter, describe_gauge, describe_histogram};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

#[derive(Clone, Copy, Debug)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    /// Separated by commas; each has few values, however many clients there are.
    pub labels: &'static str,
    pub help: &'static str,
}

impl Metric {
    /// Its row in the documentation.
    pub fn row(&self) -> String {
        let kind = match self.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let labels = match self.labels {
            "" => String::new(),
            labels => format!("`{}`", labels.replace(", ", "`, `")),
        };
        format!("| `{}` | {kind} | {labels} | {} |", self.name, self.help)
    }
}

/// Tells the recorder what each of them says.
pub(super) fn describe() {
    for Metric { name, kind, help, .. } in METRICS {
        match kind {
            Kind::Counter => describe_counter!(*name, *help),
            Kind::Gauge => describe_gauge!(*name, *help),
            Kind::Histogram => describe_histogram!(*name, *help),
        }
    }
}

const fn counter(name: &'static str, labels: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, labels, help }
}

const fn histogram(name: &'static str, labels: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Histogram, labels, help }
}

pub const METRICS: &[Metric] = &[
    gauge("tollgate_build_info", "version", "1, labelled with the version that runs."),
    gauge("tollgate_phase", "", "0 starting, 1 serving, 2 draining."),
    gauge("tollgate_instances", "", "Instances that this one knows of, itself included."),
    counter(
        "tollgate_http_requests_total",
        "surface, upstream, status",
        "Requests that ended, by surface (api, gateway), upstream and status class.",
    ),
    histogram(
        "tollgate_http_request_duration_seconds",
        "surface, upstream",
        "From the head of a request to the end of its answer.",
    ),
    counter(
        "tollgate_http_request_bytes_total",
        "surface, upstream",
        "Bytes of request bodies, those of sockets not among them.",
    ),
    counter(
        "tollgate_http_response_bytes_total",
        "surface, upstream",
        "Bytes of answers' bodies, those of sockets not among them.",
    ),
    gauge("tollgate_in_flight", "", "Requests under way."),
    gauge("tollgate_connections", "", "Open client connections."),
    gauge("tollgate_overloaded_workers", "", "Workers whose tasks run late."),
    gauge(
        "tollgate_memory_used_ratio",
        "",
        "Memory in use by what may be used; not there where nothing limits it.",
    ),
    counter(
        "tollgate_refused_total",
        "class, reason",
        "Requests refused for overload, by class of route and by what there was too much of.",
    ),
    counter(
        "tollgate_refused_connections_total",
        "",
        "Connections closed unread, since their address had too many.",
    ),
    counter("tollgate_tls_handshakes_total", "result", "Handshakes of TLS, by how they ended."),
    counter(
        "tollgate_tls_reloads_total",
        "result",
        "Times that a changed certificate was read, by whether it is shown now.",
    ),
    gauge(
        "tollgate_tls_certificate_expiry_timestamp_seconds",
        "",
        "When the certificate that is shown expires, seconds since 1970.",
    ),
    gauge(
        "tollgate_streams",
        "kind",
        "Open streams: sockets, event streams, long answers and uploads.",
    ),
    counter(
        "tollgate_streams_ended_total",
        "kind, reason",
        "Streams that ended, by kind and reason.",
    ),
    counter(
        "tollgate_limit_results_total",
        "tier, decision",
        "Decisions about limits (admitted, refused), by the tier nearest to its end.",
    ),
    counter(
        "tollgate_limit_decisions_total",
        "source",
        "Decisions over shared limits by where they came from: lease, refusal_cache, store, memory.",
    ),
    counter("tollgate_limit_store_calls_total", "", "Questions about limits put to Redis."),
    counter(
        "tollgate_cache_lookups_total",
        "cache, level",
        "Look-ups of credentials by kind and by what answered: memory, redis, database, stale.",
    ),
    histogram(
        "tollgate_invalidation_delay_seconds",
        "kind",
        "From a change of a credential (or a probe of it) until this instance knew.",
    ),
    gauge(
        "tollgate_credential_sync_age_seconds",
        "",
        "How long ago all changes of credentials were known here.",
    ),
    histogram(
        "tollgate_database_call_duration_seconds",
        "operation",
        "Calls to the database by repository, and begin, commit, snapshot and session; waiting for a connection is in the latter.",
    ),
    counter(
        "tollgate_database_errors_total",
        "operation, kind",
        "Calls that failed: unavailable, or defect; violated constraints are answers.",
    ),
    counter("tollgate_database_sessions_total", "", "Connections that requests asked for."),
    gauge(
        "tollgate_database_connections",
        "pool, state",
        "Connections by pool (postgres; writer and reader of SQLite) and state (idle, in_use).",
    ),
    gauge("tollgate_database_connections_max", "pool", "Most connections of a pool."),
    counter("tollgate_redis_calls_total", "", "Calls sent to Redis."),
    counter("tollgate_redis_failures_total", "", "Calls to Redis without a usable answer in time."),
    counter(
        "tollgate_redis_skipped_total",
        "",
        "Calls answered as a miss because the breaker was open.",
    ),
    counter("tollgate_redis_connections_total", "", "Connections made to Redis."),
    histogram(
        "tollgate_redis_call_duration_seconds",
        "",
        "Calls to Redis, those that failed included.",
    ),
    gauge("tollgate_redis_degraded", "", "1 while Redis is done without: its breaker is open."),
    gauge(
        "tollgate_upstream_available",
        "upstream, target",
        "1 while requests go to the target as usual: well, and its breaker closed.",
    ),
    gauge(
        "tollgate_upstream_healthy",
        "upstream, target",
        "1 while active checks, if any, find the target well.",
    ),
    gauge("tollgate_upstream_breaker_state", "upstream, target", "0 closed, 1 half-open, 2 open."),
    gauge(
        "tollgate_upstream_in_flight",
        "upstream, target",
        "Exchanges with the target under way.",
    ),
    gauge("tollgate_upstream_connections", "upstream, target", "Open connections to the target."),
    gauge(
        "tollgate_upstream_pending",
        "upstream, target",
        "Requests that wait for a connection to the target.",
    ),
    counter(
        "tollgate_upstream_failures_total",
        "upstream, target, reason",
        "Exchanges with the target that failed, by reason.",
    ),
    counter("tollgate_upstream_retries_total", "upstream", "Connections that were tried again."),
    gauge("tollgate_argon2_queue", "", "Passwords that wait to be hashed or checked."),
    counter(
        "tollgate_argon2_refused_total",
        "",
        "Passwords that found no place in the queue, or waited too long.",
    ),
    histogram(
        "tollgate_argon2_duration_seconds",
        "",
        "Hashing or checking one password, without its wait.",
    ),
    gauge("tollgate_usage_pending", "", "Records of usage that wait for the database."),
    counter(
        "tollgate_usage_dropped_total",
        "",
        "Records of usage that found no place in the journal.",
    ),
    counter("tollgate_journal_records_total", "", "Records written to the journal."),
    gauge("tollgate_journal_bytes", "", "Bytes of the journal that wait for the database."),
    gauge("tollgate_journal_full", "", "1 while the journal has no room."),
    gauge(
        "tollgate_journal_lag_seconds",
        "",
        "For how long something has waited for the database.",
    ),
    counter(
        "tollgate_journal_damaged_bytes_total",
        "",
        "Bytes of the journal that could not be read again.",
    ),
    counter(
        "tollgate_journal_sync_failures_total",
        "",
        "Times the journal could not be synced to its disk.",
    ),
    gauge(
        "tollgate_ledger_differences",
        "",
        "Differences that the last verification of the ledger found.",
    ),
    gauge("tollgate_ledger_verified_timestamp_seconds", "", "When the ledger was last verified."),
    counter(
        "tollgate_chat_answers_total",
        "end",
        "Answers of the chat's workflow, by how they ended.",
    ),
    gauge("tollgate_chat_answers_in_flight", "", "Answers of the chat's workflow under way."),
    counter(
        "tollgate_chat_messages_total",
        "result",
        "Messages of visitors: asked, or again, which the workflow is not asked twice.",
    ),
    counter(
        "tollgate_chat_sessions_total",
        "event",
        "Chat sessions that were created, renewed, ended and deleted.",
    ),
    counter(
        "tollgate_log_lines_dropped_total",
        "output",
        "Lines of the log that an output did not take in time.",
    ),
    counter("tollgate_trace_spans_exported_total", "", "Spans that the collector of traces took."),
    counter(
        "tollgate_trace_spans_dropped_total",
        "reason",
        "Spans that were lost: queue_full, failed (not taken in time), rejected.",
    ),
    counter("process_cpu_seconds_total", "", "User and system time."),
    gauge("process_resident_memory_bytes", "", "Resident memory."),
    gauge("process_virtual_memory_bytes", "", "Virtual memory."),
    gauge("process_threads", "", "Threads."),
    gauge("process_open_fds", "", "Open file descriptors."),
    gauge("process_max_fds", "", "Most file descriptors."),
    gauge("process_start_time_seconds", "", "Start of the process, seconds since 1970."),
];

#[cfg(test)]
mod tests {
    use super::METRICS;

    const DOCUMENT: &str = include_str!("../../docs/metrics.md");

    #[test]
    fn the_documentation_lists_exactly_what_there_is() {
        let rows = METRICS.iter().map(super::Metric::row).collect::<Vec<_>>();
        let written = DOCUMENT.lines().filter(|line| line.starts_with("| `"));
        assert_eq!(written.collect::<Vec<_>>(), rows);
    }
}
