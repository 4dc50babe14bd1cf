//! The leases of this instance: found without allocation, under one short lock,
//! and asked for by one request at a time, however many need one.
//!
//! They are kept by the last subject of a set of tiers, which is its most
//! particular one, and by where its requests come from and go to: a key that is
//! used for two upstreams has two. Another list of tiers or another limit takes
//! the place of what was held: a changed limit holds at once (G-84).

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::time;
use tokio_util::sync::CancellationToken;

use super::{
    lease::{Answer, Entry, Source, Wish},
    memory::SHARDS,
    subjects::shard_of,
};
use crate::domain::limit::{Decision, Subject, Tier};

/// Sets of tiers that are watched, per shard. Any beyond are decided in Redis,
/// request by request.
const MOST_HELD: usize = 1024;
/// A full shard is looked through for idle ones this often at the most.
const BETWEEN_PURGES_US: u64 = 100_000;
/// Whoever waited this long for others that ask does so itself next.
const PATIENCE: Duration = Duration::from_millis(20);
/// A little more than a call may take: only a stalled thread is given up.
const LONGEST_WAIT: Duration = Duration::from_millis(60);
/// Of the hash by Fowler, Noll and Vo.
const FNV_PRIME: u64 = 0x0100_0000_01b3;

pub(super) struct Leases {
    shards: [Mutex<Shard>; SHARDS],
    /// Not the clock that is passed around: Redis measures a lease by real
    /// time, which a clock that stands still does not.
    start: Instant,
}

#[derive(Default)]
struct Shard {
    held: HashMap<Spot, Held>,
    next_id: u64,
    purged_us: u64,
    leased: u64,
    refused: u64,
}

/// Under what a set of tiers is kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Spot {
    subject: Subject,
    among: u64,
}

struct Held {
    /// Not that of any entry that was held before.
    id: u64,
    entry: Entry,
    flight: Option<Arc<Flight>>,
    /// Permits wanted by those that wait.
    waiting: Arc<AtomicU64>,
}

/// One request asks; the others wait for it.
#[derive(Default)]
pub(super) struct Flight {
    landed: CancellationToken,
    failed: AtomicBool,
}

/// What a request is to do next.
pub(super) enum Turn<'a> {
    Decided(Decision),
    Ask(Ask<'a>),
    Wait(Arc<Flight>),
}

/// A request's memory of its earlier turns.
#[derive(Default)]
pub(super) struct Queue {
    counted: bool,
    since: Option<Instant>,
    place: Option<Place>,
}

struct Place {
    waiting: Arc<AtomicU64>,
    cost: u64,
}

/// The right to ask, possibly for others too, who take their turn again when
/// this is dropped: the asking one may leave at any time.
pub(super) struct Ask<'a> {
    leases: &'a Leases,
    tiers: &'a [Tier],
    cost: u64,
    sent_us: u64,
    pub(super) wish: Wish,
    /// What the answer is for, unless it is not watched.
    id: Option<u64>,
    flight: Option<Arc<Flight>>,
}

impl Leases {
    pub(super) fn new() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), start: Instant::now() }
    }

    /// Decides by a lease or a refusal that covers these tiers.
    pub(super) fn take(&self, tiers: &[Tier], cost: u64) -> Option<Decision> {
        let mut shard = self.shard(Spot::of(tiers)?.shard());
        let now = self.now_us();
        shard.take(tiers, cost, now, true)
    }

    /// What to do about a request. `queue` is to be the same at all its turns.
    pub(super) fn turn<'a>(&'a self, tiers: &'a [Tier], cost: u64, queue: &mut Queue) -> Turn<'a> {
        let mut shard = self.shard(Spot::of(tiers).map_or(0, |spot| spot.shard()));
        let now = self.now_us();
        if let Some(decision) = shard.take(tiers, cost, now, !queue.counted) {
            return Turn::Decided(decision);
        }
        let mut ask = Ask {
            leases: self,
            tiers,
            cost,
            sent_us: now,
            wish: Wish::default(),
            id: None,
            flight: None,
        };
        // Who only looks, or guesses, is told the truth of the moment.
        let watched = cost > 0 && !tiers.iter().any(|tier| super::is_guess(&tier.subject));
        let held = if watched { shard.hold(tiers, now) } else { None };
        let Some(held) = held else { return Turn::Ask(ask) };
        ask.id = Some(held.id);
        if !queue.counted {
            held.entry.count(now);
            queue.counted = true;
        }
        if !held.entry.wants_lease() {
            ask.wish = held.entry.give_back(now);
            return Turn::Ask(ask);
        }
        match &held.flight {
            Some(flight) if queue.is_patient() => {
                queue.wait_with(held, cost);
                Turn::Wait(Arc::clone(flight))
            }
            Some(_) => Turn::Ask(ask),
            None => {
                queue.place = None;
                ask.wish = held.entry.wish(held.waiting.load(Ordering::Relaxed));
                let flight = Arc::default();
                held.flight = Some(Arc::clone(&flight));
                ask.flight = Some(flight);
                Turn::Ask(ask)
            }
        }
    }

    /// Ends what is held for any set of tiers with such a subject. What is
    /// being asked meanwhile is not taken in.
    pub(super) fn end(&self, is_one: impl Fn(&Subject) -> bool) {
        for index in 0..SHARDS {
            let mut shard = self.shard(index);
            shard.held.retain(|_, held| !held.entry.has(|tier| is_one(&tier.subject)));
        }
    }

    /// Forgets what rested, one shard at a time.
    pub(super) fn sweep(&self) {
        for index in 0..SHARDS {
            let mut shard = self.shard(index);
            shard.purge(self.now_us());
            let held = &mut shard.held;
            held.shrink_to(held.len() * 2);
        }
    }

    /// Sets of tiers that are watched.
    pub(super) fn len(&self) -> usize {
        (0..SHARDS).map(|index| self.shard(index).held.len()).sum()
    }

    /// Decisions by a lease and by a refusal that was remembered.
    pub(super) fn decided(&self) -> (u64, u64) {
        (0..SHARDS).fold((0, 0), |(leased, refused), index| {
            let shard = self.shard(index);
            (leased + shard.leased, refused + shard.refused)
        })
    }

    fn shard(&self, index: usize) -> MutexGuard<'_, Shard> {
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

impl Shard {
    fn take(&mut self, tiers: &[Tier], cost: u64, now: u64, count: bool) -> Option<Decision> {
        let held = self.held.get_mut(&Spot::of(tiers)?)?;
        if !held.entry.is_for(tiers) {
            return None;
        }
        let (decision, source) = held.entry.take(now, cost)?;
        if cost > 0 && count {
            held.entry.count(now);
        }
        match source {
            Source::Lease => self.leased += 1,
            Source::Refusal => self.refused += 1,
        }
        Some(decision)
    }

    fn hold(&mut self, tiers: &[Tier], now: u64) -> Option<&mut Held> {
        let spot = Spot::of(tiers)?;
        let known = self.held.get(&spot).map(|held| held.entry.is_for(tiers));
        if known.is_none() && self.held.len() >= MOST_HELD {
            if now < self.purged_us + BETWEEN_PURGES_US {
                return None;
            }
            self.purge(now);
            self.purged_us = now;
            if self.held.len() >= MOST_HELD {
                return None;
            }
        }
        if known != Some(true) {
            self.next_id += 1;
            let other = self.held.remove(&spot).map(|held| held.entry);
            let held = Held {
                id: self.next_id,
                entry: Entry::new(tiers, other),
                flight: None,
                waiting: Arc::default(),
            };
            self.held.insert(spot, held);
        }
        self.held.get_mut(&spot)
    }

    fn purge(&mut self, now: u64) {
        self.held.retain(|_, held| held.flight.is_some() || !held.entry.is_idle(now));
    }
}

impl Queue {
    fn is_patient(&self) -> bool {
        self.since.is_none_or(|since| since.elapsed() < PATIENCE)
    }

    fn wait_with(&mut self, held: &Held, cost: u64) {
        self.since.get_or_insert_with(Instant::now);
        let here = |place: &Place| Arc::ptr_eq(&place.waiting, &held.waiting);
        if !self.place.as_ref().is_some_and(here) {
            held.waiting.fetch_add(cost, Ordering::Relaxed);
            self.place = Some(Place { waiting: Arc::clone(&held.waiting), cost });
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.cost, Ordering::Relaxed);
    }
}

impl Flight {
    /// Waits for the answer; whether there was none.
    pub(super) async fn failed(&self) -> bool {
        let landed = time::timeout(LONGEST_WAIT, self.landed.cancelled()).await;
        landed.is_ok() && self.failed.load(Ordering::Acquire)
    }
}

impl Ask<'_> {
    /// `None`: Redis did not answer, and those who wait are not to find that
    /// out one after another.
    pub(super) fn settle(mut self, answer: Option<&Answer>) {
        match (answer, &self.flight) {
            (Some(answer), _) => self.close(Some(answer)),
            (None, Some(flight)) => flight.failed.store(true, Ordering::Release),
            (None, None) => {}
        }
    }

    fn close(&mut self, answer: Option<&Answer>) {
        let flight = self.flight.take();
        if let (Some(id), Some(spot)) = (self.id, Spot::of(self.tiers)) {
            let mut shard = self.leases.shard(spot.shard());
            let now = self.leases.now_us();
            if let Some(held) = shard.held.get_mut(&spot)
                && held.id == id
            {
                if let Some(answer) = answer {
                    held.entry.learn(now, self.sent_us, self.cost, answer);
                }
                if flight.is_some() {
                    held.flight = None;
                }
            }
        }
        if let Some(flight) = flight {
            flight.landed.cancel();
        }
    }
}

impl Drop for Ask<'_> {
    fn drop(&mut self) {
        if self.flight.is_some() {
            self.close(None);
        }
    }
}

impl Spot {
    fn of(tiers: &[Tier]) -> Option<Self> {
        // Which they are matters little: what is held is for equal tiers only.
        let among = tiers.iter().fold(0, |all: u64, tier| match tier.subject {
            Subject::Upstream(name) | Subject::UserAt { upstream: name, .. } => {
                name.bytes().fold(all, |all, b| (all ^ u64::from(b)).wrapping_mul(FNV_PRIME))
            }
            Subject::Origin(host) => all.rotate_left(1) ^ host.digest(),
            _ => all,
        });
        tiers.last().map(|tier| Self { subject: tier.subject, among })
    }

    fn shard(&self) -> usize {
        shard_of(&self.subject)
    }
}

#[cfg(test)]
#[path = "leases_tests.rs"]
mod tests;
