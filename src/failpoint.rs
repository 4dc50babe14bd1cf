//! Places where a test stops the process for good, to see what a crash there
//! leaves behind (RELIABILITY G-03). Compiled out of releases.
//!
//! With `TOLLGATE_FAILPOINT=<name>` in the environment the first task that
//! comes to that place says so on standard error and never goes on; whoever
//! reads it kills the process. With `panic:<name>` whatever comes there panics
//! (G-142). The one setting that is not in the configuration: an operator has no
//! use for it.

/// Every place where money changes, in the order of its operation.
pub const ALL: &[&str] = &[
    "purchase.begun",
    "purchase.claimed",
    "purchase.charged",
    "purchase.inserted",
    "purchase.booked",
    "purchase.committed",
    "refund.begun",
    "refund.claimed",
    "refund.ended",
    "refund.credited",
    "refund.booked",
    "refund.committed",
    "redeem.begun",
    "redeem.claimed",
    "redeem.taken",
    "redeem.given",
    "redeem.recorded",
    "redeem.committed",
    "credit.begun",
    "credit.claimed",
    "credit.credited",
    "credit.booked",
    "credit.committed",
];

/// Those on the way of usage into the database.
pub const USAGE: &[&str] =
    &["usage.begun", "usage.marked", "usage.added", "usage.committed", "usage.adopted"];

/// Those of every change that the audit log has.
pub const AUDIT: &[&str] = &["audit.begun", "audit.appended", "audit.committed"];

/// Does nothing, unless this is the place that was asked for.
#[cfg(debug_assertions)]
pub async fn reach(name: &'static str) {
    use std::sync::OnceLock;

    static WANTED: OnceLock<Option<String>> = OnceLock::new();
    debug_assert!(
        [ALL, USAGE, AUDIT].iter().any(|list| list.contains(&name)),
        "{name} is not in the list"
    );
    let wanted = WANTED.get_or_init(|| std::env::var("TOLLGATE_FAILPOINT").ok());
    let panics = wanted.as_deref().and_then(|wanted| wanted.strip_prefix("panic:"));
    assert_ne!(panics, Some(name), "failpoint");
    if wanted.as_deref() == Some(name) {
        eprintln!("failpoint {name}");
        std::future::pending::<()>().await;
    }
}

/// Does nothing.
#[cfg(not(debug_assertions))]
#[expect(clippy::unused_async, reason = "the same signature as where it may wait")]
#[inline]
pub async fn reach(_name: &'static str) {}
