//! What one instance may decide for one set of tiers without asking Redis:
//! permits that it was handed, and a refusal that it was told. Pure,
//! single-threaded, time as a parameter.
//!
//! A permit was charged in Redis when it was handed out, in every tier. It may
//! be used until the sub-bucket that it stands in ends, in whichever tier that
//! is first, and never longer than `LIFE_US` of `decide.lua`: so it is counted
//! for as long as if it had been charged at the last instant it could be used
//! (RELIABILITY G-78), and no charge needs to stand in the future. The life is
//! measured from before the call was sent: it ends here before it ends there.

use chrono::{DateTime, Utc};

use crate::domain::limit::{Decision, EXACT_UP_TO, Tier, TierState};

/// Demand is counted over this long; a lease is sized for it.
const SPAN_US: u64 = 50_000;
/// So many requests within one span make a set of tiers hot. A colder one is
/// decided in Redis, request by request.
const HOT: u64 = 10;
/// Permits of one lease: what an instance that is killed may cost.
const MOST: u64 = 256;
/// Longest that a refusal is repeated without asking: another instance may have
/// given something back.
const LONGEST_REFUSAL_US: u64 = 100_000;
/// A set of tiers that rested this long is forgotten.
const IDLE_US: u64 = 1_000_000;

/// What is asked of Redis beside the decision.
#[derive(Debug, Default)]
pub(super) struct Wish {
    /// Permits for requests that wait already.
    pub(super) waiting: u64,
    /// Permits for those that will come, by the demand so far.
    pub(super) expected: u64,
    pub(super) unused: Option<Unused>,
}

/// Permits of a lease that has ended.
#[derive(Debug)]
pub(super) struct Unused {
    permits: u64,
    /// Where they were charged.
    tiers: Box<[Tier]>,
    pub(super) taken: Taken,
}

/// When permits were charged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    /// By the clock of Redis.
    pub(super) at_us: u64,
    /// By ours, which names the period.
    pub(super) wall: DateTime<Utc>,
}

/// What Redis answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) decision: Decision,
    /// Permits beside those of the request itself; may be 0.
    pub(super) permits: u64,
    pub(super) life_us: u64,
    pub(super) taken: Taken,
    /// The tier that has no room left for the next request, or had none for
    /// this one, and when it will.
    pub(super) full: Option<(TierState, u64)>,
}

/// What a decision was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Lease,
    Refusal,
}

/// What is known about one set of tiers.
#[derive(Debug)]
pub(super) struct Entry {
    tiers: Box<[Tier]>,
    demand: Demand,
    /// What was last expected: it grows no faster than to the double.
    expected: u64,
    lease: Option<Lease>,
    /// From before the limits were changed.
    unused: Option<Unused>,
    refusal: Option<Refusal>,
}

#[derive(Debug)]
struct Lease {
    left: u64,
    ends_us: u64,
    taken: Taken,
    state: Option<Known>,
}

#[derive(Debug)]
struct Refusal {
    /// Holds for requests that cost as much or more.
    need: u64,
    ends_us: u64,
    state: Known,
}

/// A state, and since when.
#[derive(Clone, Debug)]
struct Known {
    state: TierState,
    at_us: u64,
}

/// Requests in the current span and in the one before.
#[derive(Debug, Default)]
struct Demand {
    since_us: u64,
    count: u64,
    before: u64,
}

impl Entry {
    /// In the place of another one, whose limits do not hold any more.
    pub(super) fn new(tiers: &[Tier], instead_of: Option<Self>) -> Self {
        Self {
            tiers: tiers.into(),
            demand: Demand::default(),
            expected: 0,
            lease: None,
            unused: instead_of.and_then(|mut other| other.take_unused(u64::MAX)),
            refusal: None,
        }
    }

    pub(super) fn is_for(&self, tiers: &[Tier]) -> bool {
        *self.tiers == *tiers
    }

    /// Decides without Redis, where that is possible. A cost of 0 only looks.
    pub(super) fn take(&mut self, now: u64, cost: u64) -> Option<(Decision, Source)> {
        let need = cost.max(1);
        if let Some(lease) = &mut self.lease
            && now < lease.ends_us
            && need <= lease.left
        {
            lease.left -= cost;
            let state = lease.state.as_ref().map(|known| {
                let remaining = known.state.remaining + lease.left;
                TierState { remaining, ..known.counted_down(now) }
            });
            return Some((Decision::Admitted(state), Source::Lease));
        }
        let refusal = self.refusal.as_ref()?;
        // What was not used of a lease is room, once it is given back.
        let holds = now < refusal.ends_us && refusal.need <= need && !self.has_unused(now);
        holds.then(|| (Decision::Refused(refusal.state.counted_down(now)), Source::Refusal))
    }

    /// One more request wants to be decided.
    pub(super) fn count(&mut self, now: u64) {
        self.demand.count(now);
    }

    /// Whether it is worth while to ask once for several requests.
    pub(super) fn wants_lease(&self) -> bool {
        // An exact log knows instants, which a lease does not.
        let exact = |tier: &Tier| tier.window.slides() && tier.limit <= EXACT_UP_TO;
        self.demand.is_hot() && !self.tiers.iter().any(exact)
    }

    /// What is asked for by the one that asks for all; ends the lease. Those
    /// who wait are a part of what was expected.
    pub(super) fn wish(&mut self, waiting: u64) -> Wish {
        let waiting = waiting.min(MOST);
        self.expected = self.demand.expected().min(2 * self.expected.max(HOT)).min(MOST);
        let expected = self.expected.saturating_sub(waiting);
        Wish { waiting, expected, unused: self.take_unused(u64::MAX) }
    }

    /// What is asked for by one that asks for itself.
    pub(super) fn give_back(&mut self, now: u64) -> Wish {
        Wish { unused: self.take_unused(now), ..Wish::default() }
    }

    fn has_unused(&self, now: u64) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.ends_us <= now && lease.left > 0)
    }

    fn take_unused(&mut self, now: u64) -> Option<Unused> {
        let over = self.lease.take_if(|lease| lease.ends_us <= now);
        let left = over.filter(|lease| lease.left > 0);
        let of_lease = left.map(|lease| Unused {
            permits: lease.left,
            tiers: self.tiers.clone(),
            taken: lease.taken,
        });
        let unused = of_lease.or_else(|| self.unused.take());
        if unused.is_some() {
            self.refusal = None;
        }
        unused
    }

    /// Takes in the answer for a request of `cost` that was asked at `sent`.
    pub(super) fn learn(&mut self, now: u64, sent: u64, cost: u64, answer: &Answer) {
        let refused = matches!(answer.decision, Decision::Refused(_));
        if let Decision::Admitted(state) = &answer.decision
            && answer.permits > 0
        {
            let known = state.clone().map(|state| {
                let remaining = state.remaining.saturating_sub(answer.permits);
                Known { state: TierState { remaining, ..state }, at_us: now }
            });
            self.lease = Some(Lease {
                left: answer.permits,
                ends_us: sent + answer.life_us,
                taken: answer.taken,
                state: known,
            });
        }
        if !self.demand.is_hot() {
            return;
        }
        self.refusal = answer.full.clone().map(|(state, frees_us)| Refusal {
            need: if refused { cost.max(1) } else { 1 },
            // Counted from before Redis did, so that who waits as told is
            // not met by it; the state from after, so that nobody is told
            // too short a time.
            ends_us: sent + frees_us.min(LONGEST_REFUSAL_US),
            state: Known { state, at_us: now },
        });
    }

    pub(super) fn is_idle(&self, now: u64) -> bool {
        self.demand.since_us + IDLE_US <= now
    }

    pub(super) fn has(&self, is_one: impl FnMut(&Tier) -> bool) -> bool {
        self.tiers.iter().any(is_one)
    }
}

impl Unused {
    /// How many of them were charged to this tier, whatever its limit was then.
    pub(super) fn of(&self, tier: &Tier) -> u64 {
        if self.tiers.iter().any(|of| of.counts_as(tier)) { self.permits } else { 0 }
    }
}

impl Known {
    fn counted_down(&self, now: u64) -> TierState {
        let passed_ms = now.saturating_sub(self.at_us) / 1000;
        let reset_in_ms = self.state.reset_in_ms.saturating_sub(passed_ms);
        TierState { reset_in_ms, ..self.state.clone() }
    }
}

impl Demand {
    fn count(&mut self, now: u64) {
        let passed = now.saturating_sub(self.since_us);
        if passed >= SPAN_US {
            self.before = if passed < 2 * SPAN_US { self.count } else { 0 };
            (self.count, self.since_us) = (0, now);
        }
        self.count += 1;
    }

    fn expected(&self) -> u64 {
        self.count.max(self.before)
    }

    fn is_hot(&self) -> bool {
        self.expected() >= HOT
    }
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
