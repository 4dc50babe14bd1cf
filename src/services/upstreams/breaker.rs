//! Keeps requests from a server that fails.
//!
//! Closed, it counts; it opens when half of at least twenty exchanges within ten
//! seconds failed, or five connections in a row could not be made. Five seconds
//! later one exchange is let through: if that does well it closes, otherwise it
//! stays open for another five. No locks; while closed and all is well, asking
//! is one load and counting one addition.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::window::{Counts, Window};

const LEAST_EXCHANGES: u64 = 20;
const CONNECTS_IN_A_ROW: u32 = 5;
const PROBE_AFTER_US: u64 = 5_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    Closed,
    Open,
    /// One exchange is under way to see how it does.
    HalfOpen,
}

/// Times are microseconds of one monotonic clock.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// The state in the lowest two bits, above them since when.
    state: AtomicU64,
    /// Connections that could not be made, one after the other.
    in_a_row: AtomicU32,
    window: Window,
}

const CLOSED: u64 = 0;
const OPEN: u64 = 1;
const HALF_OPEN: u64 = 2;

impl Breaker {
    pub fn is_closed(&self) -> bool {
        self.state.load(Relaxed) == CLOSED
    }

    pub fn state(&self) -> BreakerState {
        match self.state.load(Relaxed) & 3 {
            CLOSED => BreakerState::Closed,
            OPEN => BreakerState::Open,
            _ => BreakerState::HalfOpen,
        }
    }

    /// Whether the caller is the one that may see how the server does. It has to
    /// say how that went.
    pub fn try_probe(&self, now: u64) -> bool {
        let seen = self.state.load(Relaxed);
        let due = seen & 3 == OPEN && now >= (seen >> 2) + PROBE_AFTER_US;
        due && self.state.compare_exchange(seen, now << 2 | HALF_OPEN, Relaxed, Relaxed).is_ok()
    }

    /// When the next exchange may be let through.
    pub fn retry_in(&self, now: u64) -> Duration {
        let seen = self.state.load(Relaxed);
        Duration::from_micros(((seen >> 2) + PROBE_AFTER_US).saturating_sub(now))
    }

    /// An exchange did well; whether that closed it.
    pub fn succeeded(&self, now: u64, probe: bool) -> bool {
        self.window.add(now, false);
        if self.in_a_row.load(Relaxed) != 0 {
            self.in_a_row.store(0, Relaxed);
        }
        if probe {
            self.window.clear();
            self.state.store(CLOSED, Relaxed);
        }
        probe
    }

    /// An exchange failed; `connecting`: before there was a connection. Whether
    /// that opened it.
    pub fn failed(&self, now: u64, connecting: bool, probe: bool) -> bool {
        self.window.add(now, true);
        let in_a_row = if connecting {
            self.in_a_row.fetch_add(1, Relaxed).saturating_add(1)
        } else {
            self.in_a_row.store(0, Relaxed);
            0
        };
        if probe {
            self.state.store(now << 2 | OPEN, Relaxed);
            return false;
        }
        let Counts { all, failed } = self.window.counts(now);
        let trips = in_a_row >= CONNECTS_IN_A_ROW || (all >= LEAST_EXCHANGES && failed * 2 >= all);
        trips && self.state.compare_exchange(CLOSED, now << 2 | OPEN, Relaxed, Relaxed).is_ok()
    }

    /// The one that was let through came to no end that says anything: the next
    /// may go at once.
    pub fn abandoned(&self) {
        self.state.store(OPEN, Relaxed);
    }

    /// Exchanges that ended lately.
    pub fn exchanges(&self, now: u64) -> u64 {
        self.window.counts(now).all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000;
    const T: u64 = 1_000 * S;

    #[test]
    fn half_of_twenty_opens_it_and_less_does_not() {
        for (good, bad, opens) in
            [(10, 10, true), (0, 20, true), (11, 9, false), (0, 19, false), (60, 59, false)]
        {
            let breaker = Breaker::default();
            for _ in 0..good {
                breaker.succeeded(T, false);
            }
            let opened = (0..bad).filter(|_| breaker.failed(T, false, false)).count();
            assert_eq!((opened == 1, breaker.is_closed()), (opens, !opens), "{good} {bad}");
        }
    }

    #[test]
    fn failures_that_are_long_ago_do_not_open_it() {
        let breaker = Breaker::default();
        for second in 0..100 {
            assert!(!breaker.failed(T + second * S, false, false));
        }
        assert!(breaker.is_closed());
    }

    #[test]
    fn five_connections_in_a_row_open_it() {
        let breaker = Breaker::default();
        for round in 0..3 {
            for _ in 0..4 {
                assert!(!breaker.failed(T + round * 20 * S, true, false));
            }
            breaker.succeeded(T + round * 20 * S, false);
        }
        let opened = (0..5).map(|_| breaker.failed(T + 80 * S, true, false)).collect::<Vec<_>>();
        assert_eq!(opened, [false, false, false, false, true]);
    }

    #[test]
    fn one_at_a_time_sees_how_it_does() {
        let breaker = Breaker::default();
        (0..5).for_each(|_| _ = breaker.failed(T, true, false));
        assert_eq!(breaker.state(), BreakerState::Open);
        assert_eq!(breaker.retry_in(T + 2 * S), Duration::from_secs(3));
        assert!(!breaker.try_probe(T + 5 * S - 1));
        assert!(breaker.try_probe(T + 5 * S) && !breaker.try_probe(T + 50 * S));
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        // What began before it opened says nothing now.
        breaker.succeeded(T + 5 * S, false);
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        breaker.failed(T + 6 * S, false, true);
        assert!(!breaker.try_probe(T + 10 * S) && breaker.try_probe(T + 11 * S));
        breaker.abandoned();
        assert!(breaker.try_probe(T + 11 * S));
        assert!(breaker.succeeded(T + 11 * S, true) && breaker.is_closed());
        // It begins anew: the failures of before do not count any more.
        assert!(!breaker.failed(T + 11 * S, true, false));
    }
}
