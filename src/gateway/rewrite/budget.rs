//! What all bodies that are rewritten at once may hold, together.
//!
//! One body is held small by its own limits, but a few bytes of an upstream may
//! stand for megabytes of window or of attributes, and it decides how long an
//! answer stays open. So each takes a share: what its codings need at least,
//! before its head is sent, and more as it grows. Where nothing is left, a body
//! is not begun (503) or is broken off; never passed on half rewritten.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Of one process, bytes. Estimates, not measurements: the allocator's own share
/// comes on top.
pub static ALL: Budget = Budget::new(256 << 20);
/// Shares grow by this, so that most pieces change nothing.
const STEP: usize = 64 << 10;

/// Bytes that may be held, and are.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    used: AtomicUsize,
}

/// No more may be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many answers are being rewritten")]
pub struct Overloaded;

/// What one body holds; given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    of: &'static Budget,
    held: usize,
}

impl Budget {
    pub const fn new(limit: usize) -> Self {
        Self { limit, used: AtomicUsize::new(0) }
    }

    pub fn share(&'static self, bytes: usize) -> Result<Share, Overloaded> {
        let mut share = Share { of: self, held: 0 };
        share.hold(bytes)?;
        Ok(share)
    }

    fn take(&self, bytes: usize) -> Result<(), Overloaded> {
        let more = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.limit);
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.map(drop).map_err(|_| Overloaded)
    }
}

impl Share {
    /// Makes it so many bytes, whatever it was.
    pub fn hold(&mut self, bytes: usize) -> Result<(), Overloaded> {
        let bytes = bytes.next_multiple_of(STEP);
        if bytes > self.held {
            self.of.take(bytes - self.held)?;
        } else if bytes < self.held {
            self.of.used.fetch_sub(self.held - bytes, Ordering::Relaxed);
        }
        self.held = bytes;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.used.fetch_sub(self.held, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_one_whole_and_come_back() {
        static BUDGET: Budget = Budget::new(4 * STEP);
        let mut one = BUDGET.share(1).unwrap();
        let two = BUDGET.share(2 * STEP).unwrap();
        assert_eq!(BUDGET.share(2 * STEP).err(), Some(Overloaded));
        assert_eq!(one.hold(3 * STEP), Err(Overloaded));
        drop(two);
        one.hold(3 * STEP).unwrap();
        one.hold(STEP).unwrap();
        assert!(BUDGET.share(3 * STEP).is_ok());
        drop(one);
        assert_eq!(BUDGET.used.load(Ordering::Relaxed), 0);
    }
}
