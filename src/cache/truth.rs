//! When this instance last knew that its copies are right.
//!
//! Whoever follows the changes of the truth says so after each look. While the
//! truth cannot be asked, copies are used on, for so long after the last look as
//! is allowed (RELIABILITY G-20, G-21).

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

/// How long copies may be used without the truth, unless set otherwise.
const BOUND: Duration = Duration::from_mins(1);
/// It was never asked.
const NEVER: u64 = u64::MAX;

#[derive(Debug)]
pub(super) struct Truth {
    /// Monotonic microseconds.
    asked_us: AtomicU64,
    away: AtomicBool,
    bound_us: AtomicU64,
}

impl Default for Truth {
    fn default() -> Self {
        Self {
            asked_us: AtomicU64::new(NEVER),
            away: AtomicBool::new(false),
            bound_us: AtomicU64::new(micros(BOUND)),
        }
    }
}

impl Truth {
    pub(super) fn bound(&self, bound: Duration) {
        self.bound_us.store(micros(bound), Ordering::Relaxed);
    }

    /// All that had changed at `at_us` is known here.
    pub(super) fn asked(&self, at_us: u64) {
        self.asked_us.store(at_us, Ordering::Release);
        self.away.store(false, Ordering::Release);
    }

    /// It did not answer.
    pub(super) fn lost(&self) {
        self.away.store(true, Ordering::Release);
    }

    pub(super) fn is_away(&self) -> bool {
        self.away.load(Ordering::Acquire)
    }

    /// How long ago it was asked; `None`: never.
    pub(super) fn age(&self, now_us: u64) -> Option<Duration> {
        let asked_us = self.asked_us.load(Ordering::Acquire);
        (asked_us != NEVER).then(|| Duration::from_micros(now_us.saturating_sub(asked_us)))
    }

    pub(super) fn bounded_by(&self) -> Duration {
        Duration::from_micros(self.bound_us.load(Ordering::Relaxed))
    }

    /// Whether a copy may stand for it at `now_us`.
    pub(super) fn allows_copies(&self, now_us: u64) -> bool {
        self.age(now_us).is_some_and(|age| age < self.bounded_by())
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_stand_for_it_up_to_the_bound_and_only_once_it_was_asked() {
        let truth = Truth::default();
        assert!(!truth.allows_copies(5) && truth.age(5).is_none());
        truth.bound(Duration::from_secs(10));
        truth.asked(1_000_000);
        assert!(truth.allows_copies(10_999_999) && !truth.allows_copies(11_000_000));
        truth.lost();
        assert!(truth.is_away() && truth.allows_copies(10_999_999));
        truth.asked(2_000_000);
        assert!(!truth.is_away() && truth.allows_copies(11_999_999));
        assert_eq!(truth.age(3_000_000), Some(Duration::from_secs(1)));
    }
}
