//! Counters of one process: synchronous, and without allocation once they
//! exist.
//!
//! Subjects are spread over shards by their bits. A decision locks all shards
//! it needs in ascending order, so two decisions cannot wait for each other,
//! charges tier by tier and takes everything back when a later tier refuses:
//! nobody can see the state in between (G-80).

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use chrono::{DateTime, Utc};

use super::{
    counter::{Periodic, Sliding},
    subjects::{is_transient, overflow_of, shard_of},
};
use crate::domain::{
    clock::SharedClock,
    limit::{Decision, Subject, Tier, TierState, Window},
};

pub(super) const SHARDS: usize = 16;
/// Subjects that anybody can make up (addresses, login names), per shard:
/// 200,000 in all. Those beyond share one counter per shard: strict, not open.
const TRANSIENT: usize = 200_000 / SHARDS;
/// The counter of a period that rested this long is dropped and seeded again;
/// where it cannot be, it is kept until the period ends.
const PERIOD_IDLE_US: u64 = 3_600_000_000;

/// The part of each limit that this process may use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    pub(super) instances: u64,
    /// Login tiers get half of that part.
    pub(super) halve_guesses: bool,
}

impl Share {
    pub(super) const WHOLE: Self = Self { instances: 1, halve_guesses: false };

    /// At least 1, unless the limit itself is 0.
    fn of(self, tier: &Tier) -> u64 {
        let halves = if self.halve_guesses && super::is_guess(&tier.subject) { 2 } else { 1 };
        let part = tier.limit / self.instances.max(1).saturating_mul(halves);
        part.max(1).min(tier.limit).min(Sliding::LARGEST)
    }
}

enum Counter {
    Sliding(Sliding),
    Periodic(Periodic),
}

/// What is asked of every tier of one decision.
struct Ask<'a> {
    now_us: u64,
    /// Only read where a period is involved.
    wall: Option<DateTime<Utc>>,
    cost: u64,
    /// One for each tier, in their order.
    seeds: Option<&'a [u64]>,
    share: Share,
    /// A tier has refused: look at the others, but charge nothing.
    look_only: bool,
}

enum Answer {
    Room { charged: bool, state: TierState },
    Full(TierState),
    Unseeded,
}

/// What the tiers that were asked so far have answered, in their order.
#[derive(Default)]
struct Heard {
    asked: usize,
    /// How many of the first tiers were charged.
    charged: usize,
    nearest: Option<TierState>,
    refusal: Option<TierState>,
}

impl Heard {
    /// Whether the tier could answer at all.
    fn take(&mut self, answer: Answer, ask: &mut Ask<'_>) -> bool {
        self.asked += 1;
        match answer {
            Answer::Room { charged, state } => {
                if charged {
                    self.charged = self.asked;
                }
                self.nearest = Some(super::nearer(self.nearest.take(), state));
            }
            // Of several full tiers the one that stays full longest is named: a
            // client that waits as told must get through.
            Answer::Full(state) => {
                ask.look_only = true;
                self.refusal = match self.refusal.take() {
                    Some(worst) if worst.reset_in_ms >= state.reset_in_ms => Some(worst),
                    _ => Some(state),
                };
            }
            Answer::Unseeded => return false,
        }
        true
    }
}

/// The counters of one subject: a handful, so a list beats a map.
#[derive(Default)]
struct Counters(Vec<(Window, Counter)>);

#[derive(Default)]
struct Shard {
    subjects: HashMap<Subject, Counters>,
    transient: usize,
}

pub(super) struct Memory {
    clock: SharedClock,
    shards: [Mutex<Shard>; SHARDS],
}

type Locked<'a> = [Option<MutexGuard<'a, Shard>>; SHARDS];

impl Memory {
    pub(super) fn new(clock: SharedClock) -> Self {
        Self { clock, shards: std::array::from_fn(|_| Mutex::default()) }
    }

    /// See [`super::Limiter::decide`].
    pub(super) fn decide(
        &self,
        tiers: &[Tier],
        cost: u64,
        seeds: Option<&[u64]>,
        share: Share,
    ) -> Decision {
        let mut locked = self.lock(tiers);
        let periodic = tiers.iter().any(|tier| !tier.window.slides());
        let mut ask = Ask {
            now_us: self.clock.monotonic_us(),
            wall: periodic.then(|| self.clock.now()),
            cost,
            seeds,
            share,
            look_only: cost == 0,
        };
        let mut heard = Heard::default();
        // The tiers of one subject follow each other, and it is looked up once.
        for alike in tiers.chunk_by(|a, b| a.subject == b.subject) {
            let place = shard_in(&mut locked, &alike[0].subject);
            let seeded = if let Some(known) = place.subjects.get_mut(&alike[0].subject) {
                alike.iter().all(|tier| {
                    let answer = known.ask(tier, heard.asked, &ask);
                    heard.take(answer, &mut ask)
                })
            } else {
                alike.iter().all(|tier| {
                    let answer = place.ask(tier, heard.asked, &ask);
                    heard.take(answer, &mut ask)
                })
            };
            if !seeded {
                uncharge(&mut locked, &tiers[..heard.charged], cost);
                return Decision::NeedsSeed;
            }
        }
        if let Some(state) = heard.refusal {
            uncharge(&mut locked, &tiers[..heard.charged], cost);
            return Decision::Refused(state);
        }
        Decision::Admitted(heard.nearest)
    }

    pub(super) fn refund(&self, tiers: &[Tier], cost: u64) {
        uncharge(&mut self.lock(tiers), tiers, cost);
    }

    pub(super) fn forget(&self, subject: &Subject) {
        let mut shard = self.shard(shard_of(subject));
        if let Some(counters) = shard.subjects.get_mut(subject) {
            counters.0.retain(|(window, _)| !window.slides());
        }
    }

    /// Drops counters that count nothing any more, one shard at a time.
    pub(super) fn sweep(&self) {
        for index in 0..SHARDS {
            let mut shard = self.shard(index);
            let now_us = self.clock.monotonic_us();
            let Shard { subjects, transient } = &mut *shard;
            *transient = 0;
            subjects.retain(|subject, counters| {
                counters.0.retain_mut(|(_, counter)| counter.is_live(now_us));
                let keep = !counters.0.is_empty();
                *transient += usize::from(keep && is_transient(subject));
                keep
            });
            subjects.shrink_to(subjects.len() * 2);
        }
    }

    pub(super) fn subjects(&self) -> usize {
        (0..SHARDS).map(|index| self.shard(index).subjects.len()).sum()
    }

    fn shard(&self, index: usize) -> MutexGuard<'_, Shard> {
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self, tiers: &[Tier]) -> Locked<'_> {
        let wanted = tiers.iter().fold(0u32, |set, tier| set | 1 << shard_of(&tier.subject));
        let mut locked = [const { None }; SHARDS];
        let mut left = wanted;
        while left != 0 {
            let index = left.trailing_zeros() as usize;
            locked[index] = Some(self.shard(index));
            left &= left - 1;
        }
        locked
    }
}

fn shard_in<'a>(locked: &'a mut Locked<'_>, subject: &Subject) -> &'a mut Shard {
    locked[shard_of(subject)].as_mut().expect("every tier's shard was locked")
}

fn uncharge(locked: &mut Locked<'_>, tiers: &[Tier], cost: u64) {
    for tier in tiers {
        shard_in(locked, &tier.subject).uncharge(tier, cost);
    }
}

impl Shard {
    fn ask(&mut self, tier: &Tier, index: usize, ask: &Ask<'_>) -> Answer {
        if let Some(counters) = self.subjects.get_mut(&tier.subject) {
            return counters.ask(tier, index, ask);
        }
        let transient = is_transient(&tier.subject);
        if transient && self.transient >= TRANSIENT {
            let overflow = self.subjects.entry(overflow_of(&tier.subject)).or_default();
            return overflow.ask(tier, index, ask);
        }
        let mut counters = Counters::default();
        let answer = counters.ask(tier, index, ask);
        if !counters.0.is_empty() {
            self.subjects.insert(tier.subject, counters);
            self.transient += usize::from(transient);
        }
        answer
    }

    fn uncharge(&mut self, tier: &Tier, cost: u64) {
        let overflow = is_transient(&tier.subject) && !self.subjects.contains_key(&tier.subject);
        let counters = if overflow {
            self.subjects.get_mut(&overflow_of(&tier.subject))
        } else {
            self.subjects.get_mut(&tier.subject)
        };
        match counters.and_then(|counters| counters.get(tier.window)) {
            Some(Counter::Sliding(sliding)) => sliding.uncharge(cost),
            Some(Counter::Periodic(period)) => period.uncharge(cost),
            None => {}
        }
    }
}

impl Counters {
    fn get(&mut self, window: Window) -> Option<&mut Counter> {
        self.0.iter_mut().find(|(of, _)| *of == window).map(|(_, counter)| counter)
    }

    fn ask(&mut self, tier: &Tier, index: usize, ask: &Ask<'_>) -> Answer {
        match tier.window {
            Window::Sliding { seconds } => self.ask_sliding(tier, seconds, ask),
            Window::Month | Window::Anchored { .. } => self.ask_periodic(tier, index, ask),
        }
    }

    fn ask_sliding(&mut self, tier: &Tier, seconds: u32, ask: &Ask<'_>) -> Answer {
        let limit = ask.share.of(tier);
        let need = ask.cost.max(1);
        if let Some(Counter::Sliding(sliding)) = self.get(tier.window) {
            return sliding.ask(tier, limit, ask);
        }
        if need > limit {
            let window_us = u64::from(seconds) * 1_000_000;
            return Answer::Full(super::state(tier, limit, 0, window_us));
        }
        let mut sliding = Sliding::new(seconds);
        let answer = sliding.ask(tier, limit, ask);
        if matches!(answer, Answer::Room { charged: true, .. }) {
            self.0.push((tier.window, Counter::Sliding(sliding)));
        }
        answer
    }

    fn ask_periodic(&mut self, tier: &Tier, index: usize, ask: &Ask<'_>) -> Answer {
        let wall = ask.wall.expect("read when any tier has periods");
        let period = tier.window.period(wall).expect("it does not slide");
        let recorded = tier.subject.is_recorded();
        if self.get(tier.window).is_none() {
            let seed = if recorded { ask.seeds.map(|seeds| seeds[index]) } else { Some(0) };
            let Some(seed) = seed else { return Answer::Unseeded };
            let counter = Periodic::seeded(period.number, seed);
            self.0.push((tier.window, Counter::Periodic(counter)));
        }
        let Some(Counter::Periodic(counter)) = self.get(tier.window) else {
            return Answer::Unseeded;
        };
        let left = period.left_us(wall);
        let keep_us = if recorded { PERIOD_IDLE_US } else { left };
        counter.keep(period.number, ask.now_us + keep_us);
        let (used, limit) = counter.used(tier.limit, ask.share.instances);
        if used.saturating_add(ask.cost.max(1)) > limit {
            return Answer::Full(super::state(tier, limit, used, left));
        }
        if ask.look_only {
            return Answer::Room { charged: false, state: super::state(tier, limit, used, left) };
        }
        counter.charge(ask.cost);
        let state = super::state(tier, limit, used + ask.cost, left);
        Answer::Room { charged: true, state }
    }
}

impl Sliding {
    fn ask(&mut self, tier: &Tier, limit: u64, ask: &Ask<'_>) -> Answer {
        let used = self.used(ask.now_us, limit);
        let wanted = used.saturating_add(ask.cost.max(1));
        if wanted > limit {
            let frees = self.frees_in_us(ask.now_us, wanted - limit);
            return Answer::Full(super::state(tier, limit, used, frees));
        }
        if !ask.look_only {
            self.charge(ask.now_us, ask.cost);
        }
        let used = if ask.look_only { used } else { used + ask.cost };
        let frees = self.frees_in_us(ask.now_us, used.min(1));
        let state = super::state(tier, limit, used, frees);
        Answer::Room { charged: !ask.look_only, state }
    }
}

impl Counter {
    fn is_live(&mut self, now_us: u64) -> bool {
        match self {
            // The limit only chooses the form, which is kept with 0 counted.
            Self::Sliding(sliding) => sliding.used(now_us, 0) > 0,
            Self::Periodic(period) => period.is_kept(now_us),
        }
    }
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "tiers_tests.rs"]
mod tiers_tests;
