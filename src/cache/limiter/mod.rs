//! May this request pass? All tiers are asked at once, and all are charged or
//! none.
//!
//! The promise is [`crate::domain::limit`]'s: no window, wherever it begins,
//! holds more than its limit. With Redis it holds over all instances; without
//! it, the configured policy says what each instance may do alone. Who is
//! limited by what is the service's business.
//!
//! Redis is not asked about every request of a busy subject: it hands out
//! [leases](lease), and a refusal is remembered for a moment.

mod counter;
mod lease;
mod leases;
mod memory;
mod redis;
mod results;
mod subjects;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use self::{
    leases::{Leases, Queue, Turn},
    memory::{Memory, Share},
    redis::SharedCounters,
    results::Results,
};
pub(in crate::cache) use self::{redis::name_of, subjects::shard_of};
use super::redis::RedisStore;
use crate::domain::{
    clock::SharedClock,
    limit::{Decision, Subject, Tier, TierState},
    rates::OnStoreLoss,
};

/// What a client is told when Redis is away and the policy is to deny.
const RETRY_AFTER_LOSS_US: u64 = 1_000_000;
/// Nobody else may be known yet, or any more: some is left for them.
const FEWEST_PARTS: usize = 2;

/// How decisions over shared counters came about, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimiterStats {
    /// Redis was asked, and may have answered.
    pub asked: u64,
    /// By an answer of Redis.
    pub by_store: u64,
    /// By a permit that was leased.
    pub by_lease: u64,
    /// By a refusal that was remembered.
    pub by_refusal: u64,
    /// Alone, because Redis did not answer.
    pub in_memory: u64,
}

struct Shared {
    counters: SharedCounters,
    leases: Leases,
    asked: AtomicU64,
    answered: AtomicU64,
    alone: AtomicU64,
    instances: Box<dyn Fn() -> usize + Send + Sync>,
}

struct Inner {
    /// All there is without Redis; what is used in its place while it is away.
    memory: Memory,
    shared: Option<Shared>,
    results: Results,
}

/// Counters of this process, or of all instances. Cheap to clone.
#[derive(Clone)]
pub struct Limiter(Arc<Inner>);

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter")
            .field("shared", &self.0.shared.is_some())
            .field("subjects", &self.subjects())
            .finish_non_exhaustive()
    }
}

impl Limiter {
    pub fn memory(clock: SharedClock) -> Self {
        let results = Results::new();
        Self(Arc::new(Inner { memory: Memory::new(clock), shared: None, results }))
    }

    /// While Redis is away each tier's own policy holds; `instances` tells how
    /// many share a limit then. Login tiers are always shared and halved then,
    /// whatever theirs says: a guess too many costs more than a login refused.
    pub fn shared(
        clock: SharedClock,
        redis: Arc<RedisStore>,
        instances: impl Fn() -> usize + Send + Sync + 'static,
    ) -> Self {
        let counters = SharedCounters::new(Arc::clone(&clock), redis);
        let shared = Shared {
            counters,
            leases: Leases::new(),
            asked: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            alone: AtomicU64::new(0),
            instances: Box::new(instances),
        };
        let (memory, results) = (Memory::new(clock), Results::new());
        Self(Arc::new(Inner { memory, shared: Some(shared), results }))
    }

    /// Charges `cost` to every tier, or to none when one of them has no room.
    ///
    /// A refusal names the full tier; a client that waits for `reset_in_ms`
    /// and is alone will be admitted. With `cost` 0 nothing is charged, and the
    /// answer is the one that a cost of 1 would get. `seeds` are, one for each tier,
    /// what was counted of the [period](crate::domain::limit::Window::period) of a
    /// tier that has such, given at the second call after
    /// [`Decision::NeedsSeed`]. No two tiers have the same subject and window.
    pub async fn decide(&self, tiers: &[Tier], cost: u64, seeds: Option<&[u64]>) -> Decision {
        if tiers.is_empty() {
            return Decision::Admitted(None);
        }
        let decision = match &self.0.shared {
            None => self.0.memory.decide(tiers, cost, seeds, Share::WHOLE),
            Some(shared) => {
                if let Some(decision) = shared.decide(tiers, cost, seeds).await {
                    decision
                } else {
                    shared.alone.fetch_add(1, Ordering::Relaxed);
                    self.decide_alone(shared, tiers, cost, seeds)
                }
            }
        };
        self.0.results.count(&decision, cost);
        decision
    }

    /// [`Self::decide`] without waiting, where that is possible: `None` when
    /// Redis has to be asked.
    pub fn decide_in_memory(
        &self,
        tiers: &[Tier],
        cost: u64,
        seeds: Option<&[u64]>,
    ) -> Option<Decision> {
        let decision = match &self.0.shared {
            None => Some(self.0.memory.decide(tiers, cost, seeds, Share::WHOLE)),
            Some(shared) => shared.leases.take(tiers, cost),
        };
        if let Some(decision) = &decision {
            self.0.results.count(decision, cost);
        }
        decision
    }

    /// Whether a request would pass, and how near its end each tier is.
    pub async fn peek(&self, tiers: &[Tier], seeds: Option<&[u64]>) -> Decision {
        self.decide(tiers, 0, seeds).await
    }

    /// Takes back the most recent `cost` of every tier: it turned out not to
    /// count. Twice gives back twice; never below nothing.
    pub async fn refund(&self, tiers: &[Tier], cost: u64) {
        let taken = match &self.0.shared {
            Some(shared) => {
                let taken = shared.counters.refund(tiers, cost).await;
                shared.leases.end(|subject| tiers.iter().any(|tier| tier.subject == *subject));
                taken
            }
            None => false,
        };
        if !taken {
            self.0.memory.refund(tiers, cost);
        }
    }

    /// Starts the sliding windows of `subject` anew. Months stay.
    pub async fn forget(&self, subject: &Subject) {
        self.0.memory.forget(subject);
        if let Some(shared) = &self.0.shared {
            shared.counters.forget(subject).await;
            // After that: a lease from before is not counted any more.
            shared.leases.end(|other| other == subject);
        }
    }

    /// Frees the memory of counters that count nothing any more. For a job,
    /// every minute or so; each pass holds one shard at a time.
    pub fn sweep(&self) {
        self.0.memory.sweep();
        if let Some(shared) = &self.0.shared {
            shared.leases.sweep();
        }
    }

    /// Subjects counted in this process.
    pub fn subjects(&self) -> usize {
        let watched = self.0.shared.as_ref().map_or(0, |shared| shared.leases.len());
        self.0.memory.subjects() + watched
    }

    /// `None` without shared counters.
    pub fn stats(&self) -> Option<LimiterStats> {
        let shared = self.0.shared.as_ref()?;
        let (by_lease, by_refusal) = shared.leases.decided();
        Some(LimiterStats {
            asked: shared.asked.load(Ordering::Relaxed),
            by_store: shared.answered.load(Ordering::Relaxed),
            by_lease,
            by_refusal,
            in_memory: shared.alone.load(Ordering::Relaxed),
        })
    }

    fn decide_alone(
        &self,
        shared: &Shared,
        tiers: &[Tier],
        cost: u64,
        seeds: Option<&[u64]>,
    ) -> Decision {
        let instances = u64::try_from((shared.instances)().max(1)).unwrap_or(u64::MAX);
        let share = Share { instances, halve_guesses: true };
        let policy = |tier: &Tier| {
            if is_guess(&tier.subject) { OnStoreLoss::Share } else { tier.on_loss }
        };
        if let Some(tier) = tiers.iter().find(|tier| policy(tier) == OnStoreLoss::Deny) {
            return Decision::Refused(state(tier, tier.limit, tier.limit, RETRY_AFTER_LOSS_US));
        }
        let counts = |tier: &Tier| policy(tier) == OnStoreLoss::Share;
        if tiers.iter().all(counts) {
            return self.0.memory.decide(tiers, cost, seeds, share);
        }
        let left = || tiers.iter().enumerate().filter(|(_, tier)| counts(tier));
        let seeds: Option<Vec<u64>> =
            seeds.map(|seeds| left().map(|(index, _)| seeds[index]).collect());
        let tiers: Vec<Tier> = left().map(|(_, tier)| tier.clone()).collect();
        self.0.memory.decide(&tiers, cost, seeds.as_deref(), share)
    }
}

impl Shared {
    /// `None` when Redis does not answer.
    async fn decide(&self, tiers: &[Tier], cost: u64, seeds: Option<&[u64]>) -> Option<Decision> {
        let mut queue = Queue::default();
        loop {
            match self.leases.turn(tiers, cost, &mut queue) {
                Turn::Decided(decision) => return Some(decision),
                Turn::Wait(flight) => {
                    if flight.failed().await {
                        return None;
                    }
                }
                Turn::Ask(ask) => {
                    if !self.counters.are_away() {
                        self.asked.fetch_add(1, Ordering::Relaxed);
                    }
                    let parts = (self.instances)().max(FEWEST_PARTS) as u64;
                    let answer = self.counters.decide(tiers, cost, seeds, &ask.wish, parts).await;
                    ask.settle(answer.as_ref());
                    let decision = answer?.decision;
                    self.answered.fetch_add(1, Ordering::Relaxed);
                    return Some(decision);
                }
            }
        }
    }
}

/// Tries at a secret, which no policy lets through uncounted.
fn is_guess(subject: &Subject) -> bool {
    matches!(
        subject,
        Subject::LoginPair { .. }
            | Subject::LoginAddress(_)
            | Subject::LoginAccount(_)
            | Subject::Redeem(_)
            | Subject::RedeemAddress(_)
    )
}

/// `frees_us` is rounded up: whoever waits that long waits long enough.
fn state(tier: &Tier, limit: u64, used: u64, frees_us: u64) -> TierState {
    TierState {
        tier: tier.subject.tier(),
        name: tier.name.clone(),
        window: tier.window,
        limit,
        remaining: limit.saturating_sub(used),
        reset_in_ms: frees_us.div_ceil(1000),
    }
}

/// The one of which the smaller part is left; the first of equals.
fn nearer(held: Option<TierState>, new: TierState) -> TierState {
    let Some(held) = held else { return new };
    let left_of = |a: &TierState, b: &TierState| u128::from(a.remaining) * u128::from(b.limit);
    if left_of(&new, &held) < left_of(&held, &new) { new } else { held }
}
