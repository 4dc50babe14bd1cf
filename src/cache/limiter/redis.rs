//! Counters that all instances share: one script, one round trip.
//!
//! Keys carry a hash tag: everything that belongs to one user (its own tiers
//! and those of its keys) is one slot of a cluster, and so is everything of one
//! address, of one upstream, of one origin. A decision over tiers with different
//! tags, such as a login's account and address or an upstream and a user, works on
//! a single server; on a cluster it would have to be asked slot by slot.

use std::sync::{Arc, LazyLock};

use chrono::{DateTime, Utc};
use redis::{Script, ScriptInvocation};

use super::lease::{Answer, Taken, Unused, Wish};
use crate::{
    cache::redis::RedisStore,
    domain::{
        clock::SharedClock,
        limit::{Decision, Subject, Tier, Window},
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

/// The count of a period is seeded anew after this long, which heals what it
/// missed while Redis was away.
const SEEDED_MS: u64 = 86_400_000;
/// Where it cannot be, it is kept until then: a while after the period's end,
/// since clocks differ.
const BEHIND_MS: u64 = 3_600_000;

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
        seeds: Option<&[u64]>,
        wish: &Wish,
        parts: u64,
    ) -> Option<Answer> {
        let wall = self.clock.now();
        let mut script = DECIDE.prepare_invoke();
        script.arg(cost.min(LARGEST));
        script.arg(wish.waiting).arg(wish.expected).arg(parts.max(1));
        let unused = wish.unused.as_ref();
        script.arg(unused.map_or(0, |unused| unused.taken.at_us));
        for (index, tier) in tiers.iter().enumerate() {
            script.key(counter_of(tier, wall)).key(index_of(&tier.subject));
            let back = |unused: &Unused| unused.of(tier);
            let Some(period) = tier.window.period(wall) else {
                let window_us = u64::from(tier.window.seconds().max(1)) * 1_000_000;
                script.arg("s").arg(tier.limit.min(LARGEST)).arg(window_us);
                script.arg(unused.map_or(0, back)).arg("").arg("");
                continue;
            };
            // One that has ended takes nothing back, nor does the new one.
            let same = |unused: &&Unused| {
                let taken = tier.window.period(unused.taken.wall);
                taken.is_some_and(|taken| taken.number == period.number)
            };
            let left_us = period.left_us(wall);
            script.arg("p").arg(tier.limit.min(LARGEST)).arg(left_us);
            script.arg(unused.filter(same).map_or(0, back));
            if !tier.subject.is_recorded() {
                script.arg(0).arg(left_us / 1000 + BEHIND_MS);
            } else if let Some(seeds) = seeds {
                script.arg(seeds[index].min(LARGEST)).arg(SEEDED_MS);
            } else {
                script.arg("").arg(SEEDED_MS);
            }
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
            (0, Some(state)) => (Decision::Refused(state.clone()), Some((state, frees_us))),
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

/// The instance's clock only chooses the period; at its turn, two instances may
/// disagree for as long as their clocks do.
fn counter_of(tier: &Tier, wall: DateTime<Utc>) -> String {
    let subject = name_of(&tier.subject);
    match tier.window {
        Window::Sliding { seconds } => format!("{subject}:{seconds}"),
        Window::Month => format!("{subject}:{}", wall.format("%Y-%m")),
        Window::Anchored { seconds, .. } => {
            let number = tier.window.period(wall).map_or(0, |period| period.number);
            format!("{subject}:own-{seconds}:{number}")
        }
    }
}

fn index_of(subject: &Subject) -> String {
    format!("{}:windows", name_of(subject))
}

/// Of all that is counted of a subject; its tag is that of whom it belongs to.
pub(in crate::cache) fn name_of(subject: &Subject) -> String {
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
        Subject::UserAt { user, upstream } => {
            format!("tollgate:limit:{{u:{user}}}:{tier}:{upstream}")
        }
        Subject::Upstream(name) => format!("tollgate:limit:{{up:{name}}}:{tier}"),
        Subject::Origin(host) => format!("tollgate:limit:{{o:{:016x}}}:{tier}", host.digest()),
        Subject::Chat(id) => format!("tollgate:limit:{{c:{id}}}:{tier}"),
        Subject::LoginPair { account, address } => {
            format!("tollgate:limit:{{a:{address}}}:{tier}:{account:016x}")
        }
        Subject::LoginAccount(account) => format!("tollgate:limit:{{l:{account:016x}}}:{tier}"),
    }
}
