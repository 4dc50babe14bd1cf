//! What ends an answer that its client does not take.
//!
//! All timers of a body live in the body, and run only while it is polled. One
//! that nobody polls, since its client takes nothing, is looked at from outside.

use std::{sync::Weak, time::Duration};

use tokio::time::Instant;

use super::stream::Entry;

/// What whoever carries a body looks at while the body itself is not polled.
#[derive(Debug)]
pub struct Tether {
    /// Weak: a stream is in the registry for as long as its body lives.
    pub(super) stream: Option<Weak<Entry>>,
    /// When it is too old, and the reason.
    pub(super) until: Option<(Instant, &'static str)>,
    pub(super) deadline: Option<Instant>,
    pub(super) idle: Duration,
}

/// Recorded of what ends because its client took nothing, as of sockets.
pub const TOO_SLOW: &str = "too_slow";

impl Tether {
    /// Why the body must end now, if it must. Registers what is open for long.
    pub fn due(&self, now: Instant) -> Option<&'static str> {
        if let Some(stream) = self.stream.as_ref().and_then(Weak::upgrade) {
            stream.register_if_due(now);
            if let Some(reason) = stream.reason() {
                return Some(reason.code());
            }
        }
        let over = self.until.filter(|(at, _)| *at <= now).map(|(_, why)| why);
        over.or_else(|| self.deadline.filter(|at| *at <= now).map(|_| TOO_SLOW))
    }

    /// For how long the body itself waits for its upstream.
    pub fn idle(&self) -> Duration {
        self.idle
    }
}
