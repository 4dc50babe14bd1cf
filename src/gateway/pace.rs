//! How fast a client must send.
//!
//! It may pause, and may be slow, but not so slow that it holds the upstream's
//! connection for nothing: each time it was waited for as long as it may pause,
//! it must have sent [`LEAST_RATE`] on the average. Waiting for the upstream to
//! take what came does not count.

use std::time::Duration;

use tokio::time::Instant;

/// Bytes each second that a client must send while it is waited for.
const LEAST_RATE: u64 = 1024;

/// How fast a client sends while it is waited for.
#[derive(Debug, Default)]
pub struct Pace {
    waits_since: Option<Instant>,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// There is nothing from the client for now.
    pub fn waits(&mut self) {
        self.waits_since.get_or_insert_with(Instant::now);
    }

    /// Bytes came: whether they come too slowly, looked at each time that `idle` was waited.
    pub fn is_too_slow(&mut self, bytes: usize, idle: Duration) -> bool {
        self.bytes += bytes as u64;
        let Some(since) = self.waits_since.take() else { return false };
        self.waited += since.elapsed();
        if self.waited < idle {
            return false;
        }
        let Self { waited, bytes, .. } = std::mem::take(self);
        u128::from(bytes) * 1000 < u128::from(LEAST_RATE) * waited.as_millis()
    }
}
