//! What one tier counts, in memory: pure, single-threaded, time as a parameter.
//!
//! Instants are microseconds of the monotonic clock. Two threads may read the
//! clock in one order and get here in the other, so an instant earlier than
//! the newest one counts as the newest one: later, hence stricter.

use std::collections::VecDeque;

use crate::domain::limit::{BUCKETS, EXACT_UP_TO};

/// A power of two above `BUCKETS + 1`, the buckets that may hold something.
const SLOTS: usize = 64;

/// A sliding window.
///
/// It begins with the form that suits the limit. When a limit grows beyond
/// [`EXACT_UP_TO`] the log becomes buckets; it never turns back while anything
/// is counted, because a log could not tell when the requests of one bucket
/// came, and forgetting some would hand out quota twice (G-84).
#[derive(Debug)]
pub(super) struct Sliding {
    length_us: u64,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Log(VecDeque<u64>),
    Buckets(Box<Buckets>),
}

/// Counts per sub-bucket. Current plus previous [`BUCKETS`] together cover
/// every window that ends now, so their sum never exceeding the limit is
/// enough, and quota comes back at most one bucket late.
#[derive(Debug)]
struct Buckets {
    width_us: u64,
    counts: [u32; SLOTS],
    newest: u64,
    /// No earlier bucket holds anything.
    oldest: u64,
    sum: u64,
}

impl Sliding {
    /// Limits above this are held as if they were this.
    pub(super) const LARGEST: u64 = u32::MAX as u64;

    pub(super) fn new(seconds: u32) -> Self {
        Self { length_us: u64::from(seconds.max(1)) * 1_000_000, form: Form::Log(VecDeque::new()) }
    }

    /// What is counted at `now`, ready to be held against `limit`.
    pub(super) fn used(&mut self, now: u64, limit: u64) -> u64 {
        match &mut self.form {
            Form::Log(log) => {
                let now = log.back().map_or(now, |newest| now.max(*newest));
                while log.front().is_some_and(|at| at + self.length_us <= now) {
                    log.pop_front();
                }
                if limit > EXACT_UP_TO {
                    let buckets = Buckets::of(self.length_us, now, log);
                    let used = buckets.sum;
                    self.form = Form::Buckets(Box::new(buckets));
                    return used;
                }
                log.len() as u64
            }
            Form::Buckets(buckets) => {
                buckets.advance(now);
                if buckets.sum == 0 && limit <= EXACT_UP_TO {
                    self.form = Form::Log(VecDeque::new());
                    return 0;
                }
                buckets.sum
            }
        }
    }

    /// Counts `cost` at `now`. Only after [`Self::used`] at the same instant.
    pub(super) fn charge(&mut self, now: u64, cost: u64) {
        match &mut self.form {
            Form::Log(log) => {
                let at = log.back().map_or(now, |newest| now.max(*newest));
                log.extend((0..cost).map(|_| at));
            }
            Form::Buckets(buckets) => buckets.charge(cost),
        }
    }

    /// Takes the most recent `cost` back.
    pub(super) fn uncharge(&mut self, cost: u64) {
        match &mut self.form {
            Form::Log(log) => {
                let cost = usize::try_from(cost).unwrap_or(usize::MAX);
                log.truncate(log.len().saturating_sub(cost));
            }
            Form::Buckets(buckets) => buckets.uncharge(cost),
        }
    }

    /// Microseconds until the oldest `count` have left; the whole window when
    /// fewer than that are counted. 0 when `count` is 0.
    pub(super) fn frees_in_us(&self, now: u64, count: u64) -> u64 {
        let Some(last) = count.checked_sub(1) else { return 0 };
        let leaves_at = match &self.form {
            Form::Log(log) => usize::try_from(last)
                .ok()
                .and_then(|last| log.get(last))
                .map(|at| at + self.length_us),
            Form::Buckets(buckets) => buckets.leaves_at(count),
        };
        leaves_at.map_or(self.length_us, |at| at.saturating_sub(now))
    }
}

impl Buckets {
    fn of(length_us: u64, now: u64, log: &VecDeque<u64>) -> Self {
        let width_us = length_us.div_ceil(BUCKETS);
        let newest = now / width_us;
        let mut buckets =
            Self { width_us, counts: [0; SLOTS], newest, oldest: newest, sum: log.len() as u64 };
        for at in log {
            let bucket = at / width_us;
            buckets.counts[slot(bucket)] += 1;
            buckets.oldest = buckets.oldest.min(bucket);
        }
        buckets
    }

    fn advance(&mut self, now: u64) {
        let current = now / self.width_us;
        if current <= self.newest {
            return;
        }
        if current - self.newest > BUCKETS {
            self.counts = [0; SLOTS];
            self.sum = 0;
            self.oldest = current;
        }
        self.newest = current;
        while self.oldest + BUCKETS < current {
            let count = std::mem::take(&mut self.counts[slot(self.oldest)]);
            self.sum -= u64::from(count);
            self.oldest += 1;
        }
        while self.oldest < current && self.counts[slot(self.oldest)] == 0 {
            self.oldest += 1;
        }
    }

    fn charge(&mut self, cost: u64) {
        // The sum stays within the limit, which is at most `LARGEST`.
        let count = &mut self.counts[slot(self.newest)];
        *count = count.saturating_add(u32::try_from(cost).unwrap_or(u32::MAX));
        self.sum += cost;
    }

    fn uncharge(&mut self, mut cost: u64) {
        for bucket in (self.oldest..=self.newest).rev() {
            let count = &mut self.counts[slot(bucket)];
            let taken = u32::try_from(cost).unwrap_or(u32::MAX).min(*count);
            *count -= taken;
            self.sum -= u64::from(taken);
            cost -= u64::from(taken);
        }
    }

    fn leaves_at(&self, count: u64) -> Option<u64> {
        let mut seen = 0;
        (self.oldest..=self.newest).find_map(|bucket| {
            seen += u64::from(self.counts[slot(bucket)]);
            (seen >= count).then(|| (bucket + BUCKETS + 1) * self.width_us)
        })
    }
}

fn slot(bucket: u64) -> usize {
    usize::try_from(bucket % SLOTS as u64).expect("less than the slots")
}

/// What is counted within one period, and anew in the next.
#[derive(Debug)]
pub(super) struct Periodic {
    number: i64,
    /// Known when counting began here; made on any instance.
    seed: u64,
    /// Counted here since.
    used: u64,
    kept_until_us: u64,
}

impl Periodic {
    pub(super) fn seeded(number: i64, seed: u64) -> Self {
        Self { number, seed, used: 0, kept_until_us: 0 }
    }

    /// Begins anew unless it is this period already.
    pub(super) fn keep(&mut self, number: i64, until_us: u64) {
        if self.number != number {
            *self = Self::seeded(number, 0);
        }
        self.kept_until_us = until_us;
    }

    /// What is counted, and the limit to hold it against when this instance
    /// may use one part in `instances` of what was left at the seed.
    pub(super) fn used(&self, limit: u64, instances: u64) -> (u64, u64) {
        let left = limit.saturating_sub(self.seed);
        let share = left.div_ceil(instances.max(1));
        (self.seed + self.used, limit.min(self.seed.saturating_add(share)))
    }

    pub(super) fn charge(&mut self, cost: u64) {
        self.used += cost;
    }

    pub(super) fn uncharge(&mut self, cost: u64) {
        let own = cost.min(self.used);
        self.used -= own;
        self.seed = self.seed.saturating_sub(cost - own);
    }

    pub(super) fn is_kept(&self, now_us: u64) -> bool {
        now_us < self.kept_until_us
    }
}
