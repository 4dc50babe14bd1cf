//! Counters of one process: synchronous, and without allocation once they
//! exist.
//!
//! Subjects are spread over shards by their bits. A decision locks all shards
//! it needs in ascending order, so two decisions cannot wait for each other,
//! charges tier by tier and takes everything back when a later tier refuses:
//! nobody can see the state in between (G-80).

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use chrono::{DateTime, Utc};

use super::counter::{Month, Sliding};
use crate::domain::{
    clock::SharedClock,
    id::UserId,
    limit::{Decision, Subject, Tier, TierState, Window, month_end},
};

pub(super) const SHARDS: usize = 16;
/// Subjects that anybody can make up (addresses, login names), per shard:
/// 200,000 in all. Those beyond share one counter per shard: strict, not open.
const TRANSIENT: usize = 200_000 / SHARDS;
/// A month's counter that rested this long is dropped and seeded again.
const MONTH_IDLE_US: u64 = 3_600_000_000;

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
    Month(Month),
}

/// What is asked of every tier of one decision.
struct Ask {
    now_us: u64,
    /// Only read where a month is involved.
    wall: Option<DateTime<Utc>>,
    cost: u64,
    seed: Option<u64>,
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
    fn take(&mut self, answer: &Answer, ask: &mut Ask) -> bool {
        self.asked += 1;
        match *answer {
            Answer::Room { charged, state } => {
                if charged {
                    self.charged = self.asked;
                }
                self.nearest = Some(super::nearer(self.nearest, state));
            }
            // Of several full tiers the one that stays full longest is named: a
            // client that waits as told must get through.
            Answer::Full(state) => {
                ask.look_only = true;
                self.refusal = match self.refusal {
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
        seed: Option<u64>,
        share: Share,
    ) -> Decision {
        let mut locked = self.lock(tiers);
        let monthly = tiers.iter().any(|tier| tier.window == Window::Month);
        let mut ask = Ask {
            now_us: self.clock.monotonic_us(),
            wall: monthly.then(|| self.clock.now()),
            cost,
            seed,
            share,
            look_only: cost == 0,
        };
        let mut heard = Heard::default();
        // The tiers of one subject follow each other, and it is looked up once.
        for alike in tiers.chunk_by(|a, b| a.subject == b.subject) {
            let place = shard_in(&mut locked, &alike[0].subject);
            let seeded = if let Some(known) = place.subjects.get_mut(&alike[0].subject) {
                alike.iter().all(|tier| heard.take(&known.ask(tier, &ask), &mut ask))
            } else {
                alike.iter().all(|tier| heard.take(&place.ask(tier, &ask), &mut ask))
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
            counters.0.retain(|(window, _)| *window == Window::Month);
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
    fn ask(&mut self, tier: &Tier, ask: &Ask) -> Answer {
        if let Some(counters) = self.subjects.get_mut(&tier.subject) {
            return counters.ask(tier, ask);
        }
        let transient = is_transient(&tier.subject);
        if transient && self.transient >= TRANSIENT {
            return self.subjects.entry(overflow_of(&tier.subject)).or_default().ask(tier, ask);
        }
        let mut counters = Counters::default();
        let answer = counters.ask(tier, ask);
        if !counters.0.is_empty() {
            self.subjects.insert(tier.subject.clone(), counters);
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
            Some(Counter::Month(month)) => month.uncharge(cost),
            None => {}
        }
    }
}

impl Counters {
    fn get(&mut self, window: Window) -> Option<&mut Counter> {
        self.0.iter_mut().find(|(of, _)| *of == window).map(|(_, counter)| counter)
    }

    fn ask(&mut self, tier: &Tier, ask: &Ask) -> Answer {
        match tier.window {
            Window::Sliding { seconds } => self.ask_sliding(tier, seconds, ask),
            Window::Month => self.ask_month(tier, ask),
        }
    }

    fn ask_sliding(&mut self, tier: &Tier, seconds: u32, ask: &Ask) -> Answer {
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

    fn ask_month(&mut self, tier: &Tier, ask: &Ask) -> Answer {
        let wall = ask.wall.expect("read when any tier is a month");
        if self.get(Window::Month).is_none() {
            let Some(seed) = ask.seed else { return Answer::Unseeded };
            let month = Month::seeded(wall, seed, ask.now_us);
            self.0.push((Window::Month, Counter::Month(month)));
        }
        let Some(Counter::Month(month)) = self.get(Window::Month) else { return Answer::Unseeded };
        let (used, limit) = month.used(wall, ask.now_us, tier.limit, ask.share.instances);
        let left = (month_end(wall) - wall).num_microseconds().unwrap_or(i64::MAX).unsigned_abs();
        if used.saturating_add(ask.cost.max(1)) > limit {
            return Answer::Full(super::state(tier, limit, used, left));
        }
        if ask.look_only {
            return Answer::Room { charged: false, state: super::state(tier, limit, used, left) };
        }
        month.charge(ask.cost);
        let state = super::state(tier, limit, used + ask.cost, left);
        Answer::Room { charged: true, state }
    }
}

impl Sliding {
    fn ask(&mut self, tier: &Tier, limit: u64, ask: &Ask) -> Answer {
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
            Self::Month(month) => month.idle_us(now_us) < MONTH_IDLE_US,
        }
    }
}

fn is_transient(subject: &Subject) -> bool {
    !matches!(subject, Subject::User(_) | Subject::Key { .. } | Subject::Pass { .. })
}

/// Stands for all subjects of one kind that found no place of their own.
fn overflow_of(subject: &Subject) -> Subject {
    const NOBODY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
    match subject {
        Subject::LoginPair { .. } => Subject::LoginPair { account: 0, address: NOBODY },
        Subject::LoginAddress(_) => Subject::LoginAddress(NOBODY),
        Subject::LoginAccount(_) => Subject::LoginAccount(0),
        Subject::Redeem(_) => Subject::Redeem(UserId::NIL),
        Subject::RedeemAddress(_) => Subject::RedeemAddress(NOBODY),
        Subject::Address(_) | Subject::User(_) | Subject::Key { .. } | Subject::Pass { .. } => {
            Subject::Address(NOBODY)
        }
    }
}

/// From bits that differ between subjects; choosing them well only makes an
/// attacker wait for himself.
pub(super) fn shard_of(subject: &Subject) -> usize {
    let of_uuid = |id: uuid::Uuid| id.as_bytes()[15];
    let of_address = |address: &IpAddr| match address {
        IpAddr::V4(v4) => v4.octets().into_iter().fold(0, |all, byte| all ^ byte),
        IpAddr::V6(v6) => v6.octets().into_iter().fold(0, |all, byte| all ^ byte),
    };
    let bits = match subject {
        Subject::Address(address)
        | Subject::LoginAddress(address)
        | Subject::RedeemAddress(address) => of_address(address),
        Subject::User(id) | Subject::Redeem(id) => of_uuid(id.as_uuid()),
        Subject::Pass { id, .. } => of_uuid(id.as_uuid()),
        Subject::Key { id, .. } => of_uuid(id.as_uuid()),
        Subject::LoginPair { account, address } => account.to_le_bytes()[0] ^ of_address(address),
        Subject::LoginAccount(account) => account.to_le_bytes()[0],
    };
    usize::from(bits ^ bits >> 4) % SHARDS
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
