//! Notices that a worker has more to do than it can, and says what to leave.
//!
//! A worker's tasks run in turn, so under overload each waits for all the
//! others. A task of its own, the beat, is to run every [`BEAT`]; how late it
//! comes is how long the turn takes. Late by more than a limit for [`PERSISTENT`]
//! is overload; a burst or one long pause of the machine is not (the rule of
//! `CoDel`, RFC 8289).
//!
//! A worker that is overloaded begins proxied requests during the first part
//! of each turn only and refuses the rest of that turn, so that turns stay short
//! and what was begun is finished soon.
//!
//! Refusing, for whichever reason, costs about a quarter of serving, hence a
//! flood of a multiple of the capacity could not even be refused: while turns are
//! long, the connection of a refused request is not read from again for a while,
//! which grows with the number of connections such that refusing takes about a
//! tenth of the worker's time. What waits meanwhile waits at the client.
//!
//! All of one worker happens on one thread: the atomics are for the compiler.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::services::room::Class;

const BEAT: Duration = Duration::from_millis(5);
/// A turn that is too long for less than this is a burst.
const PERSISTENT: Duration = Duration::from_millis(100);
/// Nothing had to be refused for so long: the overload is over.
const CALM: Duration = Duration::from_secs(1);
/// A turn is long if it takes more than this part of the limit; so long an
/// overloaded worker begins requests in each.
const SHARE: u32 = 4;
/// For each connection of the worker a refused one pauses so long: ten times of
/// what refusing costs.
const PAUSE_PER_CONNECTION: Duration = Duration::from_micros(250);
/// As `Retry-After` tells it, so that nobody who heeds it notices.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Requests to routes of ours, and probes, that are begun in one turn of an
/// overloaded worker.
const OURS: u32 = 32;

/// How a worker fares.
#[derive(Debug)]
pub struct Pressure {
    /// How late the beat may be; `None`: as late as it likes.
    limit: Option<Duration>,
    epoch: Instant,
    /// All instants in microseconds after `epoch`, plus one.
    last_beat: AtomicU64,
    /// Whether the last turn was a long one.
    long: AtomicBool,
    /// Since when every beat is too late; 0: the last one was not.
    late_since: AtomicU64,
    last_refusal: AtomicU64,
    overloaded: AtomicBool,
    /// Requests of ours, and probes, that were begun in this turn.
    begun: [AtomicU32; 2],
    connections: AtomicU32,
}

impl Pressure {
    pub fn new(limit: Duration) -> Self {
        let never = || AtomicU64::new(0);
        Self {
            limit: Some(limit).filter(|limit| !limit.is_zero()),
            epoch: Instant::now(),
            last_beat: never(),
            long: AtomicBool::new(false),
            late_since: never(),
            last_refusal: never(),
            overloaded: AtomicBool::new(false),
            begun: Default::default(),
            connections: AtomicU32::new(0),
        }
    }

    /// Runs for as long as the worker does; says when overload begins and ends.
    pub async fn watch(&self, mut changed: impl FnMut(bool)) {
        if self.limit.is_none() {
            return;
        }
        loop {
            let due = Instant::now() + BEAT;
            sleep(BEAT).await;
            let now = Instant::now();
            if let Some(overloaded) = self.beat(now, now.saturating_duration_since(due)) {
                changed(overloaded);
            }
        }
    }

    /// A turn has ended, late by so much. Whether overload begins or ends.
    fn beat(&self, now: Instant, late: Duration) -> Option<bool> {
        let limit = self.limit?;
        let at = self.micros(now);
        self.last_beat.store(at, Relaxed);
        self.long.store(late > limit / SHARE, Relaxed);
        self.begun.iter().for_each(|begun| begun.store(0, Relaxed));
        let since = match (late > limit, self.late_since.load(Relaxed)) {
            (false, _) => 0,
            (true, 0) => at,
            (true, since) => since,
        };
        self.late_since.store(since, Relaxed);
        let was = self.overloaded.load(Relaxed);
        let is = if was {
            since > 0 || at.saturating_sub(self.last_refusal.load(Relaxed)) < micros(CALM)
        } else {
            since > 0 && at - since >= micros(PERSISTENT)
        };
        if is && !was {
            // It is not calm before anything could be refused.
            self.last_refusal.store(at, Relaxed);
        }
        self.overloaded.store(is, Relaxed);
        (is != was).then_some(is)
    }

    /// Whether a request that begins now is one too many.
    pub fn refuses(&self, class: Class, now: Instant) -> bool {
        if !self.overloaded.load(Relaxed) {
            return false;
        }
        let at = self.micros(now);
        let most = |begun: &AtomicU32| {
            let before = begun.load(Relaxed);
            begun.store(before.saturating_add(1), Relaxed);
            before >= OURS
        };
        let refuses = match class {
            Class::Proxied => {
                let part = self.limit.unwrap_or_default() / SHARE;
                at.saturating_sub(self.last_beat.load(Relaxed)) > micros(BEAT + part)
            }
            Class::Ours | Class::Chat => most(&self.begun[0]),
            Class::Probe => most(&self.begun[1]),
        };
        if refuses {
            self.last_refusal.store(at, Relaxed);
        }
        refuses
    }

    /// How long the connection of a refused request is not read from; not at all
    /// where there is time enough for refusing.
    pub fn pause(&self) -> Duration {
        if !self.long.load(Relaxed) {
            return Duration::ZERO;
        }
        (PAUSE_PER_CONNECTION * self.connections.load(Relaxed)).min(LONGEST_PAUSE)
    }

    pub fn is_overloaded(&self) -> bool {
        self.overloaded.load(Relaxed)
    }

    pub fn opened(&self) {
        self.connections.fetch_add(1, Relaxed);
    }

    pub fn closed(&self) {
        self.connections.fetch_sub(1, Relaxed);
    }

    fn micros(&self, at: Instant) -> u64 {
        micros(at.saturating_duration_since(self.epoch)).saturating_add(1)
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(50);
    const MS: Duration = Duration::from_millis(1);

    /// A worker whose turns take so long, one after the other.
    struct Worker {
        pressure: Pressure,
        now: Instant,
    }

    impl Worker {
        fn new(limit: Duration) -> Self {
            let pressure = Pressure::new(limit);
            Self { now: pressure.epoch, pressure }
        }

        fn turn(&mut self, takes: Duration) -> Option<bool> {
            self.now += BEAT.max(takes);
            self.pressure.beat(self.now, takes.saturating_sub(BEAT))
        }

        fn refuses(&self, class: Class, into_the_turn: Duration) -> bool {
            self.pressure.refuses(class, self.now + into_the_turn)
        }
    }

    fn overloaded() -> Worker {
        let mut worker = Worker::new(LIMIT);
        worker.turn(80 * MS);
        worker.turn(80 * MS);
        assert_eq!(worker.turn(80 * MS), Some(true));
        worker
    }

    #[test]
    fn bursts_and_pauses_are_no_overload() {
        let mut worker = Worker::new(LIMIT);
        for turns in [&[10_000][..], &[80, 80, 5, 80, 80, 5], &[55; 100], &[5, 300, 5, 300, 5]] {
            for turn in turns {
                assert_eq!(worker.turn(*turn * MS), None, "{turns:?}");
            }
            worker.turn(MS);
            assert!(!worker.refuses(Class::Proxied, 10_000 * MS), "{turns:?}");
        }
    }

    #[test]
    fn an_overloaded_worker_begins_requests_early_in_a_turn_only() {
        let worker = overloaded();
        for (into_the_turn, refuses) in [(0, false), (17, false), (18, true), (500, true)] {
            assert_eq!(worker.refuses(Class::Proxied, into_the_turn * MS), refuses);
        }
    }

    #[test]
    fn our_own_routes_are_let_in_by_number_whenever_they_come() {
        let mut worker = overloaded();
        for _ in 0..2 {
            for class in [Class::Ours, Class::Probe] {
                let refused = (0..100).filter(|_| worker.refuses(class, 400 * MS)).count();
                assert_eq!(refused, 100 - OURS as usize, "{class:?}");
            }
            worker.turn(10 * MS);
        }
    }

    #[test]
    fn it_is_over_when_nothing_had_to_be_refused_for_a_while() {
        let mut worker = overloaded();
        for _ in 0..400 {
            assert_eq!(worker.turn(10 * MS), None);
            assert!(worker.refuses(Class::Proxied, 20 * MS));
        }
        let calm: Vec<_> = (0..110).filter_map(|_| worker.turn(10 * MS)).collect();
        assert_eq!(calm, [false]);
        assert!(!worker.refuses(Class::Proxied, 500 * MS));
    }

    #[test]
    fn without_a_limit_nothing_is_refused() {
        let mut worker = Worker::new(Duration::ZERO);
        (0..10).for_each(|_| assert_eq!(worker.turn(Duration::from_secs(1)), None));
        assert!(!worker.refuses(Class::Proxied, Duration::from_secs(1)));
    }

    #[test]
    fn a_pause_grows_with_the_number_of_connections() {
        let mut worker = Worker::new(LIMIT);
        worker.turn(20 * MS);
        let pressure = &worker.pressure;
        assert_eq!(pressure.pause(), Duration::ZERO);
        (0..400).for_each(|_| pressure.opened());
        assert_eq!(pressure.pause(), 100 * MS);
        (0..10_000).for_each(|_| pressure.opened());
        assert_eq!(pressure.pause(), LONGEST_PAUSE);
        (0..10_000).for_each(|_| pressure.closed());
        assert_eq!(pressure.pause(), 100 * MS);
        worker.turn(15 * MS);
        assert_eq!(worker.pressure.pause(), Duration::ZERO, "there is time to refuse all");
    }
}
