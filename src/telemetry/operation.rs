//! What takes a while, as a span: at level DEBUG its start, its end and how long
//! it took are in the log, and in the trace of a request that is sampled.

use std::time::Instant;

use tracing::{Instrument as _, Level, Span};

use super::trace;

/// Does it, and tells of it where anybody listens; else it only does it.
pub async fn operation<T, E, F>(kind: &'static str, name: &'static str, work: F) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    let sampled = trace::current().filter(|trace| trace.is_sampled());
    let is_logged = tracing::enabled!(target: "operation", Level::DEBUG);
    if sampled.is_none() && !is_logged {
        return work.await;
    }
    let asking = sampled.and_then(|trace| trace.ask(format!("{kind} {name}")));
    let span = if is_logged {
        tracing::debug_span!(target: "operation", "operation", kind, operation = name)
    } else {
        Span::none()
    };
    let done = async {
        tracing::debug!(target: "operation", "started");
        let started = Instant::now();
        let done = work.await;
        let duration_ms = started.elapsed().as_secs_f64() * 1000.0;
        tracing::debug!(target: "operation", duration_ms, "ended");
        done
    };
    let done = done.instrument(span).await;
    if let Some(mut asking) = asking {
        asking.say("db.system.name", if kind == "redis" { kind } else { "other_sql" });
        asking.say("db.operation.name", name);
        if done.is_err() {
            asking.fail("_OTHER");
        }
        asking.finish();
    }
    done
}
