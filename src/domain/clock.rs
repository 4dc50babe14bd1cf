//! The only source of "now" in the crate.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use chrono::{DateTime, TimeDelta, Utc};

/// Tells the current time, truncated to microseconds.
///
/// Postgres keeps microseconds while SQLite keeps whatever text it was given;
/// truncating here makes a value equal to itself after a round trip on both.
pub trait Clock: Send + Sync {
    fn now(&self) -> DateTime<Utc>;

    /// Microseconds since some fixed instant of this process. Never goes back
    /// and does not follow a change of the wall clock: for windows and
    /// lifetimes in memory.
    fn monotonic_us(&self) -> u64;
}

pub type SharedClock = Arc<dyn Clock>;

pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        #[expect(clippy::disallowed_methods, reason = "the one place allowed to ask the system")]
        let now = SystemTime::now();
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        // In one step: `Utc::now` and truncating it would go through a calendar
        // date twice.
        i64::try_from(since.as_secs())
            .ok()
            .and_then(|seconds| DateTime::from_timestamp(seconds, since.subsec_micros() * 1000))
            .expect("system time is in range")
    }

    fn monotonic_us(&self) -> u64 {
        static START: OnceLock<Instant> = OnceLock::new();
        let elapsed = START.get_or_init(Instant::now).elapsed();
        u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
    }
}

/// A clock that stands still until a test moves it.
pub struct FakeClock(AtomicI64);

impl FakeClock {
    pub fn starting_at(at: DateTime<Utc>) -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(at.timestamp_micros())))
    }

    pub fn advance(&self, by: TimeDelta) {
        let micros = by.num_microseconds().expect("test steps are short");
        self.0.fetch_add(micros, Ordering::Relaxed);
    }
}

impl Clock for FakeClock {
    fn now(&self) -> DateTime<Utc> {
        let micros = self.0.load(Ordering::Relaxed);
        DateTime::from_timestamp_micros(micros).expect("fake time is in range")
    }

    fn monotonic_us(&self) -> u64 {
        self.0.load(Ordering::Relaxed).unsigned_abs()
    }
}
