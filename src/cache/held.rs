//! What one cache holds in memory, and what it must not take back.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use metrics::{Counter, counter};

use super::{
    flight::Flights,
    typed::{Cached, Peek},
};
use crate::domain::clock::SharedClock;

/// Entries in memory per cache, and tombstones per cache.
pub(super) const CAPACITY: usize = 100_000;
/// Locks that fills and invalidations of different keys spread over.
const STRIPES: usize = 64;
/// A tombstone outlives every copy that it may have to defeat by this much.
const TOMBSTONE_MARGIN: Duration = Duration::from_secs(30);

pub(super) struct Slot<T> {
    pub(super) value: Option<Arc<T>>,
    /// Not used from this instant on.
    until_us: u64,
}

// Derived, it would demand `T: Clone`.
impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        Self { value: self.value.clone(), until_us: self.until_us }
    }
}

#[derive(Clone, Copy)]
pub(super) struct Tombstone {
    pub(super) version: i64,
    tick: u64,
    set_us: u64,
}

/// How a fill ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fill {
    Kept,
    /// Changed while it was being loaded.
    Overtaken,
    /// Older than a change that came before the load: not from the truth.
    Outdated,
}

/// Which answered a look-up.
#[derive(Debug)]
pub(super) struct Levels {
    pub(super) memory: Counter,
    pub(super) redis: Counter,
    pub(super) database: Counter,
    /// A copy past its time, for a database that does not answer.
    pub(super) stale: Counter,
}

impl Levels {
    fn of(namespace: &'static str) -> Self {
        // Without the number of its shape.
        let cache = namespace.split(':').next().unwrap_or(namespace);
        let level =
            |level| counter!("tollgate_cache_lookups_total", "cache" => cache, "level" => level);
        Self {
            memory: level("memory"),
            redis: level("redis"),
            database: level("database"),
            stale: level("stale"),
        }
    }
}

pub(super) struct CacheInner<T: Cached> {
    pub(super) memory: quick_cache::sync::Cache<T::Key, Slot<T>>,
    pub(super) tombstones: quick_cache::sync::Cache<T::Key, Tombstone>,
    pub(super) flights: Flights<T::Key>,
    stripes: [Mutex<()>; STRIPES],
    hasher: RandomState,
    /// Orders loads and invalidations; a clock may stand still between them.
    ticks: AtomicU64,
    cleared: AtomicU64,
    pub(super) levels: Levels,
    pub(super) clock: SharedClock,
}

impl<T: Cached> CacheInner<T> {
    pub(super) fn new(clock: SharedClock) -> Self {
        Self {
            memory: quick_cache::sync::Cache::new(CAPACITY),
            tombstones: quick_cache::sync::Cache::new(CAPACITY),
            flights: Flights::default(),
            stripes: std::array::from_fn(|_| Mutex::new(())),
            hasher: RandomState::new(),
            ticks: AtomicU64::new(0),
            cleared: AtomicU64::new(0),
            levels: Levels::of(T::NAMESPACE),
            clock,
        }
    }

    pub(super) fn peek(&self, key: &T::Key) -> Peek<T> {
        let Some(slot) = self.memory.get(key) else { return Peek::Miss };
        if slot.until_us <= self.clock.monotonic_us() {
            return Peek::Miss;
        }
        slot.value.map_or(Peek::Absent, Peek::Hit)
    }

    fn age(&self, since_us: u64) -> Duration {
        Duration::from_micros(self.clock.monotonic_us().saturating_sub(since_us))
    }

    pub(super) fn tick(&self) -> u64 {
        self.ticks.load(Ordering::Acquire)
    }

    fn stripe(&self, key: &T::Key) -> &Mutex<()> {
        let hash = self.hasher.hash_one(key);
        &self.stripes[usize::try_from(hash % STRIPES as u64).expect("less than the stripes")]
    }

    /// Keeps what a load that began at tick `started` found, unless a change
    /// or a clearing overtook it.
    pub(super) fn fill(&self, key: &T::Key, value: Option<Arc<T>>, started: u64) -> Fill {
        let _stripe = self.stripe(key).lock().unwrap_or_else(PoisonError::into_inner);
        if self.cleared.load(Ordering::Acquire) > started {
            return Fill::Overtaken;
        }
        if let Some(tombstone) = self.tombstone(key) {
            // "Absent" has no version: only the order of events can tell.
            let is_newer = value.as_ref().is_some_and(|v| v.version() >= tombstone.version);
            if !is_newer && tombstone.tick > started {
                return Fill::Overtaken;
            }
            if !is_newer && value.is_some() {
                return Fill::Outdated;
            }
        }
        let life = match &value {
            Some(value) => {
                let age = value.age(self.clock.now()).unwrap_or_default();
                T::FRESH.saturating_sub(age)
            }
            None => T::NEGATIVE,
        };
        let life_us = u64::try_from(life.as_micros()).unwrap_or(u64::MAX);
        let until_us = self.clock.monotonic_us().saturating_add(life_us);
        self.memory.insert(key.clone(), Slot { value, until_us });
        Fill::Kept
    }

    pub(super) fn tombstone(&self, key: &T::Key) -> Option<Tombstone> {
        let life = T::FRESH.max(T::SHARED) + TOMBSTONE_MARGIN;
        self.tombstones.get(key).filter(|tombstone| self.age(tombstone.set_us) < life)
    }

    pub(super) fn evict(&self, key: &T::Key, version: i64) {
        let _stripe = self.stripe(key).lock().unwrap_or_else(PoisonError::into_inner);
        let version = self.tombstone(key).map_or(version, |old| old.version.max(version));
        let tick = self.ticks.fetch_add(1, Ordering::AcqRel) + 1;
        let set_us = self.clock.monotonic_us();
        self.tombstones.insert(key.clone(), Tombstone { version, tick, set_us });
        self.memory.remove(key);
    }

    /// Forgets every value; loads under way start again.
    pub(super) fn clear(&self) {
        let _stripes: Vec<_> = self
            .stripes
            .iter()
            .map(|stripe| stripe.lock().unwrap_or_else(PoisonError::into_inner))
            .collect();
        let tick = self.ticks.fetch_add(1, Ordering::AcqRel) + 1;
        self.cleared.store(tick, Ordering::Release);
        self.memory.clear();
    }
}
