//! Counters that all instances share: one script, one round trip.
//!
//! Keys carry a hash tag: everything that belongs to one user (its own tiers
//! and those of its keys) is one slot of a cluster, and so is everything of one
//! address. A decision over tiers with different tags, such as a login's
//! account and address, works on a single server; on a cluster it would have to
//! be asked slot by slot.

use std::sync::{Arc, LazyLock};

use chrono::{DateTime, Utc};
use redis::{Script, ScriptInvocation};

use super::lease::{Answer, Taken, Unused, Wish};
use crate::{
    cache::redis::RedisStore,
    domain::{
        clock::SharedClock,
        limit::{Decision, Subject, Tier, Window, month_end, month_start},
    },
};

static DECIDE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("decide.lua")));
static REFUND: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("refund.lua")));
static FORGET: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        for _, key in ipairs(redis.call('SMEMBERS', KEYS[1])) do redis.call('DEL', key) end
        return redis.call('DEL', KEYS[1])",
    )
});

/// What [`decide.lua`](../decide.lua) returns.
type Reply = (u8, usize, u64, u64, u64, u64, u64, usize, u64);

/// Lua counts in doubles: above this, integers would have gaps.
const LARGEST: u64 = 1 << 53;

pub(super) struct SharedCounters {
    clock: SharedClock,
    redis: Arc<RedisStore>,
}

impl SharedCounters {
    pub(super) fn new(clock: SharedClock, redis: Arc<RedisStore>) -> Self {
        Self { clock, redis }
    }

    /// See [`super::Limiter::decide`]; `None` when Redis did not answer, in
    /// which case it may have charged all the same. What is expected may have
    /// one part in `parts` of what is left.
    pub(super) async fn decide(
        &self,
        tiers: &[Tier],
        cost: u64,
        seed: Option<u64>,
        wish: &Wish,
        parts: u64,
    ) -> Option<Answer> {
        let wall = self.clock.now();
        let mut script = DECIDE.prepare_invoke();
        script.arg(cost.min(LARGEST));
        match seed {
            Some(seed) => script.arg(seed.min(LARGEST)),
            None => script.arg(""),
        };
        script.arg(wish.waiting).arg(wish.expected).arg(parts.max(1));
        // A month that has ended takes nothing back, nor does the new one.
        let same_month = |unused: &&Unused| month_start(unused.taken.wall) == month_start(wall);
        let unused = wish.unused.as_ref().filter(same_month);
        script.arg(unused.map_or(0, |unused| unused.taken.at_us));
        for tier in tiers {
            let (kind, span_us) = match tier.window {
                Window::Sliding { seconds } => ("s", u64::from(seconds.max(1)) * 1_000_000),
                Window::Month => ("m", left_of_month_us(wall)),
            };
            script.key(counter_of(tier, wall)).key(index_of(&tier.subject));
            script.arg(kind).arg(tier.limit.min(LARGEST)).arg(span_us);
            script.arg(unused.map_or(0, |unused| unused.of(tier)));
        }
        let (code, index, used, frees_us, permits, life_us, at_us, full, full_us): Reply =
            self.run("limit", script).await?;
        let state = |index: usize, used: Option<u64>, frees_us| {
            let tier = tiers.get(index.checked_sub(1)?)?;
            let limit = tier.limit.min(LARGEST);
            Some(super::state(tier, limit, used.unwrap_or(limit), frees_us))
        };
        let full = state(full, None, full_us).map(|state| (state, full_us));
        let state = state(index, Some(used), frees_us);
        let (decision, full) = match (code, state) {
            (2, _) => (Decision::NeedsSeed, None),
            (0, Some(state)) => (Decision::Refused(state), Some((state, frees_us))),
            (_, state) => (Decision::Admitted(state), full),
        };
        Some(Answer { decision, permits, life_us, taken: Taken { at_us, wall }, full })
    }

    /// Redis is known not to answer, and is not asked.
    pub(super) fn are_away(&self) -> bool {
        self.redis.is_degraded()
    }

    /// Whether Redis did it.
    pub(super) async fn refund(&self, tiers: &[Tier], cost: u64) -> bool {
        let wall = self.clock.now();
        let mut script = REFUND.prepare_invoke();
        script.arg(cost.min(LARGEST));
        for tier in tiers {
            script.key(counter_of(tier, wall));
        }
        self.run::<()>("limit refund", script).await.is_some()
    }

    pub(super) async fn forget(&self, subject: &Subject) {
        let mut script = FORGET.prepare_invoke();
        script.key(index_of(subject));
        self.run::<()>("limit reset", script).await;
    }

    async fn run<T: redis::FromRedisValue>(
        &self,
        what: &'static str,
        script: ScriptInvocation<'static>,
    ) -> Option<T> {
        let invoke = |mut connection| async move { script.invoke_async(&mut connection).await };
        self.redis.call(what, invoke).await
    }
}

/// The instance's clock only chooses the month; at its turn, two instances may
/// disagree for as long as their clocks do.
fn counter_of(tier: &Tier, wall: DateTime<Utc>) -> String {
    let subject = name_of(&tier.subject);
    match tier.window {
        Window::Sliding { seconds } => format!("{subject}:{seconds}"),
        Window::Month => format!("{subject}:{}", wall.format("%Y-%m")),
    }
}

fn index_of(subject: &Subject) -> String {
    format!("{}:windows", name_of(subject))
}

fn name_of(subject: &Subject) -> String {
    let tier = subject.tier();
    match subject {
        Subject::Address(address)
        | Subject::LoginAddress(address)
        | Subject::RedeemAddress(address) => {
            format!("tollgate:limit:{{a:{address}}}:{tier}")
        }
        Subject::User(user) | Subject::Redeem(user) => {
            format!("tollgate:limit:{{u:{user}}}:{tier}")
        }
        Subject::Key { id, owner } => format!("tollgate:limit:{{u:{owner}}}:{tier}:{id}"),
        Subject::Pass { id, owner } => format!("tollgate:limit:{{u:{owner}}}:{tier}:{id}"),
        Subject::LoginPair { account, address } => {
            format!("tollgate:limit:{{a:{address}}}:{tier}:{account:016x}")
        }
        Subject::LoginAccount(account) => format!("tollgate:limit:{{l:{account:016x}}}:{tier}"),
    }
}

fn left_of_month_us(wall: DateTime<Utc>) -> u64 {
    (month_end(wall) - wall).num_microseconds().unwrap_or(i64::MAX).unsigned_abs()
}
