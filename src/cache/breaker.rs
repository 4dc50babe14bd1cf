//! When to stop asking a store that does not answer, and when to look again.
//!
//! Pure bookkeeping: it neither waits nor connects nor logs. The store drives
//! it and owns the one task that probes.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

/// Failures in a row that open the breaker.
const FAILURES_TO_OPEN: u32 = 5;
/// Pause before the first probe; it doubles with every probe that fails.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause: a store that is back is found within this time.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// Which connection a call was made on. A failure that is reported late, after
/// the connection was replaced, says nothing about the new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(u64);

/// Open: no call is let through. It starts open, since nothing is connected.
#[derive(Debug)]
pub struct Breaker {
    open: AtomicBool,
    failures: AtomicU32,
    generation: AtomicU64,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            open: AtomicBool::new(true),
            failures: AtomicU32::new(0),
            generation: AtomicU64::new(0),
        }
    }
}

impl Breaker {
    /// The generation to report an outcome with; `None` while open.
    pub fn admit(&self) -> Option<Generation> {
        let generation = Generation(self.generation.load(Ordering::Acquire));
        (!self.is_open()).then_some(generation)
    }

    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    pub fn succeeded(&self, on: Generation) {
        // Read first: a store per call would bounce the line between cores.
        if self.failures.load(Ordering::Relaxed) != 0 && self.is_current(on) {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// Whether this failure opened the breaker: true for exactly one caller.
    pub fn failed(&self, on: Generation) -> bool {
        self.is_current(on)
            && self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES_TO_OPEN
            && !self.open.swap(true, Ordering::AcqRel)
    }

    /// Opens at once, for a connection that is known to be gone. Returns as
    /// [`Self::failed`].
    pub fn trip(&self, on: Generation) -> bool {
        self.is_current(on) && !self.open.swap(true, Ordering::AcqRel)
    }

    /// A probe succeeded. Failures of older generations no longer count.
    pub fn close(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.failures.store(0, Ordering::Relaxed);
        self.open.store(false, Ordering::Release);
    }

    fn is_current(&self, on: Generation) -> bool {
        on.0 == self.generation.load(Ordering::Acquire)
    }
}

/// How long to wait after `failed` unsuccessful probes. `jitter` in 0..=1
/// takes up to a quarter off, so that instances do not probe in step.
pub fn pause(failed: u32, jitter: f64) -> Duration {
    let full = FIRST_PAUSE.saturating_mul(1 << failed.min(16)).min(LONGEST_PAUSE);
    full.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 4.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed() -> Breaker {
        let breaker = Breaker::default();
        breaker.close();
        breaker
    }

    #[test]
    fn only_failures_in_a_row_open_it_and_only_one_caller_learns_of_it() {
        let breaker = closed();
        let on = breaker.admit().unwrap();
        for _ in 0..FAILURES_TO_OPEN - 1 {
            assert!(!breaker.failed(on));
        }
        breaker.succeeded(on);
        for _ in 0..FAILURES_TO_OPEN - 1 {
            assert!(!breaker.failed(on));
        }
        assert!(breaker.admit().is_some());
        assert!(breaker.failed(on));
        assert!(!breaker.failed(on) && !breaker.trip(on));
        assert!(breaker.admit().is_none());
    }

    #[test]
    fn late_reports_of_a_replaced_connection_are_ignored() {
        let breaker = closed();
        let old = breaker.admit().unwrap();
        assert!(breaker.trip(old));
        breaker.close();
        for _ in 0..2 * FAILURES_TO_OPEN {
            assert!(!breaker.failed(old));
        }
        assert!(!breaker.trip(old));
        assert!(breaker.admit().is_some());
    }

    #[test]
    fn pauses_double_up_to_the_bound_that_recovery_is_promised_by() {
        let seconds = |failed| pause(failed, 0.0).as_secs();
        assert_eq!([0, 1, 2, 3, 60].map(seconds), [1, 2, 4, 4, 4]);
        // At most two probes a second, however the dice fall.
        assert!(pause(0, 1.0) >= Duration::from_millis(500));
    }
}
