//! Which limits a request is under, and whether it may pass.

mod tiers;

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwap;
use chrono::{DateTime, Utc};

pub use self::tiers::Scope;
use self::tiers::{Tiers, caps_of};
/// Places among what is under way; given back when dropped.
pub use crate::cache::Permit;
use crate::{
    cache::{Asked, Cap, Limiter, LimiterStats, Refused, Slots},
    config::LimitsConfig,
    domain::{
        api_key::ApiKey,
        clock::SharedClock,
        id::ChatSessionId,
        limit::{Decision, Subject, Tier, TierState, Window},
        origin::OriginHost,
        principal::Principal,
        rates::LimitName,
    },
    repositories::{Database, Repositories as _, StoreError, UsageOf},
};

/// A limit, as those are told that are under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What it is about: `user`, `key`, ….
    pub of: &'static str,
    pub name: Option<LimitName>,
    pub window: Window,
    pub limit: u64,
}

/// A limit had no room; nothing was charged to any.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", told(state))]
pub struct Exceeded {
    pub state: TierState,
    /// What else the request was under.
    pub others: Vec<Rule>,
}

#[derive(Debug, thiserror::Error)]
pub enum LimitError {
    #[error("{0}")]
    Exceeded(Box<Exceeded>),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// As many as may be are under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the limit of {most} requests at once for this {of} is reached")]
pub struct Crowded {
    /// What the limit is about: `upstream`, `user`, `key` or `token`.
    pub of: &'static str,
    pub most: u32,
}

impl From<Cap> for Crowded {
    fn from(cap: Cap) -> Self {
        Self { of: cap.subject.tier(), most: cap.most }
    }
}

/// A place that was lent is looked for so often.
const LOOKS: usize = 16;

pub struct LimitService {
    limiter: Limiter,
    slots: Slots,
    config: ArcSwap<LimitsConfig>,
    /// How many requests each of [`Subject::TIERS`] has refused.
    refused: [AtomicU64; Subject::TIERS.len()],
    db: Database,
    clock: SharedClock,
}

impl LimitService {
    pub fn new(
        limiter: Limiter,
        slots: Slots,
        config: LimitsConfig,
        db: Database,
        clock: SharedClock,
    ) -> Self {
        let config = ArcSwap::from_pointee(config);
        let refused = [const { AtomicU64::new(0) }; _];
        Self { limiter, slots, config, refused, db, clock }
    }

    /// Holds for requests that come from now on.
    pub fn replace(&self, config: LimitsConfig) {
        self.config.store(Arc::new(config));
    }

    /// How decisions came about; `None` where limits are not shared.
    pub fn stats(&self) -> Option<LimiterStats> {
        self.limiter.stats()
    }

    /// How many requests each tier has refused, since the start.
    pub fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Subject::TIERS.into_iter().zip(self.refused.iter().map(|count| count.load(Relaxed)))
    }

    /// Subjects that are counted in this process.
    pub fn subjects(&self) -> usize {
        self.limiter.subjects()
    }

    /// The counts of what is under way.
    pub fn slots(&self) -> &Slots {
        &self.slots
    }

    /// By what a request from a page with this `Origin` is counted, if it is.
    pub fn origin_of(&self, origin: &[u8]) -> Option<OriginHost> {
        self.config.load().origin.iter().next()?;
        OriginHost::of(origin)
    }

    /// Takes a place among those that are under way, until the permit is
    /// dropped; `None` where their number does not matter. To be called before
    /// anything is charged.
    pub async fn enter(&self, scope: Scope<'_>) -> Result<Option<Permit>, Crowded> {
        let mut caps = caps_of(scope, &self.config.load()).peekable();
        if caps.peek().is_none() {
            return Ok(None);
        }
        let caps: Vec<_> = caps.collect();
        match self.slots.enter(&caps) {
            Ok(permit) => Ok(Some(permit)),
            Err(Refused::Full(cap)) => Err(cap.into()),
            // Boxed, so that the hot path does not move what it does not use.
            Err(Refused::Short(cap)) => Box::pin(self.borrow(&caps, cap)).await.map(Some),
        }
    }

    /// Takes places when there is none here that another instance could not want.
    async fn borrow(&self, caps: &[Cap], mut short: Cap) -> Result<Permit, Crowded> {
        // Whoever asked may come too late for what it got.
        for _ in 0..LOOKS {
            let entered = match self.slots.ask_for(&short).await {
                Asked::Full => return Err(short.into()),
                Asked::Away => self.slots.enter_alone(caps),
                Asked::Lent => self.slots.enter(caps),
            };
            match entered {
                Ok(permit) => return Ok(permit),
                Err(Refused::Full(cap)) => return Err(cap.into()),
                Err(Refused::Short(cap)) => short = cap,
            }
        }
        Err(short.into())
    }

    /// Renews the places that other instances lend this one. For a job, every
    /// second.
    pub async fn renew(&self) {
        self.slots.renew().await;
    }

    /// Charges `cost` to every limit the request is under, or to none.
    ///
    /// The state is that of the limit nearest to its end; `None` when there is
    /// no limit at all. A cost of 0 only looks.
    pub async fn admit(
        &self,
        scope: Scope<'_>,
        cost: u64,
    ) -> Result<Option<TierState>, LimitError> {
        let tiers = Tiers::of_request(scope, &self.config.load());
        self.decide(&tiers, cost).await
    }

    /// The limits of our own routes: the address's for a stranger, the user's
    /// for everybody else, never a key's.
    pub async fn admit_api(
        &self,
        principal: Option<&Principal>,
        address: IpAddr,
    ) -> Result<Option<TierState>, LimitError> {
        let user = principal.map(Principal::user_id);
        let tiers = Tiers::of_ours(user, address, &self.config.load());
        self.decide(&tiers, 1).await
    }

    /// The limits of a message in a conversation on pages of this origin. `address`:
    /// whence it comes, where [`Self::admit_api`] did not charge that.
    pub async fn admit_chat(
        &self,
        session: ChatSessionId,
        origin: &str,
        address: Option<IpAddr>,
    ) -> Result<Option<TierState>, LimitError> {
        let origin = OriginHost::of(origin.as_bytes());
        let tiers = Tiers::of_chat(session, origin, address, &self.config.load());
        self.decide(&tiers, 1).await
    }

    /// The address's limits for what is a stranger's business even where a login
    /// comes with it.
    pub async fn admit_address(&self, address: IpAddr) -> Result<Option<TierState>, LimitError> {
        let tiers = Tiers::of_ours(None, address, &self.config.load());
        self.decide(&tiers, 1).await
    }

    /// The same for a key that is checked on behalf of another application.
    pub async fn admit_key(
        &self,
        key: &ApiKey,
        cost: u64,
    ) -> Result<Option<TierState>, LimitError> {
        let tiers = Tiers::of_key(key, &self.config.load());
        self.decide(&tiers, cost).await
    }

    async fn decide(&self, tiers: &[Tier], cost: u64) -> Result<Option<TierState>, LimitError> {
        if tiers.is_empty() {
            return Ok(None);
        }
        let decision = match self.limiter.decide_in_memory(tiers, cost, None) {
            Some(decision) => decision,
            // Boxed, so that the hot path does not move what it does not use.
            None => Box::pin(self.limiter.decide(tiers, cost, None)).await,
        };
        let decision = match decision {
            Decision::NeedsSeed => {
                let seeds = Box::pin(self.used_so_far(tiers)).await?;
                Box::pin(self.limiter.decide(tiers, cost, Some(&seeds))).await
            }
            decision => decision,
        };
        match decision {
            Decision::Admitted(state) => Ok(state),
            Decision::Refused(state) => {
                let at = Subject::TIERS.iter().position(|tier| *tier == state.tier);
                if let Some(count) = at.and_then(|at| self.refused.get(at)) {
                    count.fetch_add(1, Relaxed);
                }
                let others = tiers.iter().filter(|tier| !is_of(&state, tier)).map(rule).collect();
                Err(LimitError::Exceeded(Box::new(Exceeded { state, others })))
            }
            Decision::NeedsSeed => unreachable!("every tier that needs one has its seed"),
        }
    }

    /// What the usage records say of the periods of these tiers, for counters
    /// that were lost: one number for each.
    async fn used_so_far(&self, tiers: &[Tier]) -> Result<Vec<u64>, StoreError> {
        let now = self.clock.now();
        let mut session = self.db.session().await?;
        let mut seeds = Vec::with_capacity(tiers.len());
        for tier in tiers {
            let period = tier.window.period(now);
            let seed = match (period, recorded_as(&tier.subject)) {
                (Some(period), Some(of)) => {
                    let (from, to) = (hour_of(period.begins), period.ends);
                    session.usage().let_through(&of, from, to).await?
                }
                _ => 0,
            };
            seeds.push(seed);
        }
        Ok(seeds)
    }
}

/// Usage is kept by the hour: a period that begins within one is counted from
/// the hour's beginning, which is strict.
fn hour_of(at: DateTime<Utc>) -> DateTime<Utc> {
    let seconds = at.timestamp().div_euclid(3600) * 3600;
    DateTime::from_timestamp(seconds, 0).expect("an instant before another")
}

fn recorded_as(subject: &Subject) -> Option<UsageOf<'static>> {
    Some(match *subject {
        Subject::User(id) => UsageOf::User(id),
        Subject::Key { id, .. } => UsageOf::Key(id),
        Subject::Pass { id, .. } => UsageOf::Pass(id),
        Subject::Upstream(name) => UsageOf::Upstream(name),
        Subject::UserAt { user, upstream } => UsageOf::UserAt(user, upstream),
        Subject::Address(_)
        | Subject::Origin(_)
        | Subject::Chat(_)
        | Subject::LoginPair { .. }
        | Subject::LoginAddress(_)
        | Subject::LoginAccount(_)
        | Subject::Redeem(_)
        | Subject::RedeemAddress(_) => return None,
    })
}

fn is_of(state: &TierState, tier: &Tier) -> bool {
    state.tier == tier.subject.tier() && state.window == tier.window
}

fn rule(tier: &Tier) -> Rule {
    let Tier { subject, window, limit, name, .. } = tier;
    Rule { of: subject.tier(), name: name.clone(), window: *window, limit: *limit }
}

fn told(state: &TierState) -> String {
    let TierState { tier, window, limit, name, .. } = state;
    let called = name.as_ref().map(|name| format!(" `{}`", name.as_str())).unwrap_or_default();
    let of = tier.replace('_', " ");
    match window {
        Window::Anchored { seconds: 86_400, .. } => {
            format!("the limit of {limit} requests per day of this {of} is reached")
        }
        Window::Anchored { .. } => {
            format!("the limit of {limit} requests of this {of} is reached")
        }
        _ => {
            let per = window.name();
            format!("the limit{called} of {limit} requests per {per} for this {of} is reached")
        }
    }
}

impl Exceeded {
    /// Whether it is one that only time over a whole period gives back.
    pub fn is_quota(&self) -> bool {
        !self.state.window.slides()
    }
}
