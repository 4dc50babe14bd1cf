//! What takes a while, as a span: at level DEBUG its start, its end and how long
//! it took are in the log.

use std::time::Instant;

use tracing::{Instrument as _, Level};

/// Does it, and tells of it where anybody listens; else it only does it.
pub async fn operation<F: Future>(kind: &'static str, name: &'static str, work: F) -> F::Output {
    if !tracing::enabled!(target: "operation", Level::DEBUG) {
        return work.await;
    }
    let span = tracing::debug_span!(target: "operation", "operation", kind, operation = name);
    async {
        tracing::debug!(target: "operation", "started");
        let started = Instant::now();
        let done = work.await;
        let duration_ms = started.elapsed().as_secs_f64() * 1000.0;
        tracing::debug!(target: "operation", duration_ms, "ended");
        done
    }
    .instrument(span)
    .await
}
