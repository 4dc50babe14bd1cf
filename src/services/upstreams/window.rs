//! What happened in the last ten seconds, counted without a lock.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const SECONDS: usize = 10;
/// A slot holds the second that it counts (20 bits), all events and those that
/// failed (22 bits each): one addition counts one event.
const FIELD: u32 = 22;
const FIELD_MASK: u64 = (1 << FIELD) - 1;
const SECOND_MASK: u64 = (1 << 20) - 1;
const ONE: u64 = 1 << FIELD;
const ONE_FAILED: u64 = ONE | 1;

/// Events by second. Times are microseconds of one monotonic clock.
#[derive(Debug, Default)]
pub(super) struct Window([AtomicU64; SECONDS]);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub all: u64,
    pub failed: u64,
}

impl Window {
    pub fn add(&self, now: u64, failed: bool) {
        let (slot, second) = self.slot(now);
        let event = if failed { ONE_FAILED } else { ONE };
        let mut seen = slot.load(Relaxed);
        while seen >> (2 * FIELD) != second {
            let fresh = second << (2 * FIELD) | event;
            match slot.compare_exchange_weak(seen, fresh, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(other) => seen = other,
            }
        }
        slot.fetch_add(event, Relaxed);
    }

    pub fn counts(&self, now: u64) -> Counts {
        let (_, second) = self.slot(now);
        let mut counts = Counts::default();
        for slot in &self.0 {
            let slot = slot.load(Relaxed);
            let age = second.wrapping_sub(slot >> (2 * FIELD)) & SECOND_MASK;
            if age < SECONDS as u64 {
                counts.all += slot >> FIELD & FIELD_MASK;
                counts.failed += slot & FIELD_MASK;
            }
        }
        counts
    }

    pub fn clear(&self) {
        for slot in &self.0 {
            slot.store(0, Relaxed);
        }
    }

    fn slot(&self, now: u64) -> (&AtomicU64, u64) {
        let second = now / 1_000_000;
        let at = usize::try_from(second % SECONDS as u64).expect("below ten");
        (&self.0[at], second & SECOND_MASK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000;

    #[test]
    fn what_is_older_than_ten_seconds_does_not_count() {
        let window = Window::default();
        let start = 5_000_000 * S;
        for second in 0..10 {
            window.add(start + second * S, second % 2 == 0);
        }
        assert_eq!(window.counts(start + 9 * S), Counts { all: 10, failed: 5 });
        assert_eq!(window.counts(start + 10 * S), Counts { all: 9, failed: 4 });
        window.add(start + 12 * S, true);
        assert_eq!(window.counts(start + 12 * S), Counts { all: 8, failed: 4 });
        assert_eq!(window.counts(start + 40 * S), Counts::default());
        window.clear();
        assert_eq!(window.counts(start + 12 * S), Counts::default());
    }

    #[test]
    fn no_event_is_lost_among_threads() {
        let window = Window::default();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let window = &window;
                scope.spawn(move || (0..10_000).for_each(|_| window.add(3 * S, thread == 0)));
            }
        });
        assert_eq!(window.counts(3 * S), Counts { all: 40_000, failed: 10_000 });
    }
}
