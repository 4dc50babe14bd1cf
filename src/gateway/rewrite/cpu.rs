//! How much processor time work on one body may take.
//!
//! Not time on the clock: a machine that is busy with other things must not
//! decide how much of a body is rewritten.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Processor time that the calling thread has used since it began.
pub fn used_by_thread() -> Duration {
    // It is never before the thread's start.
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// For work that stays on one thread.
#[derive(Debug)]
pub struct CpuTime {
    end: Duration,
    /// Before this it cannot be over: a thread uses at most the time that passes.
    /// The clock is read without a system call.
    not_before: Instant,
}

impl CpuTime {
    pub fn of(allowed: Duration) -> Self {
        Self { end: used_by_thread() + allowed, not_before: Instant::now() + allowed }
    }

    pub fn is_over(&mut self) -> bool {
        let now = Instant::now();
        if now < self.not_before {
            return false;
        }
        let left = self.end.saturating_sub(used_by_thread());
        self.not_before = now + left;
        left.is_zero()
    }
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use super::*;

    #[test]
    fn a_thread_that_stands_still_uses_none() {
        let allowed = Duration::from_millis(50);
        let mut time = CpuTime::of(allowed);
        for _ in 0..3 {
            std::thread::sleep(allowed);
            assert!(!time.is_over());
        }
        let before = used_by_thread();
        while !time.is_over() {
            black_box(before);
        }
        let used = used_by_thread().saturating_sub(before);
        assert!(used <= allowed + Duration::from_millis(10), "{used:?}");
        assert!(used >= allowed / 2, "{used:?}");
        assert!(time.is_over());
    }
}
