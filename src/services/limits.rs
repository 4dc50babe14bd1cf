//! Which limits a request is under, and whether it may pass.

use std::{net::IpAddr, sync::Arc};

use arc_swap::ArcSwap;

use crate::{
    cache::{Limiter, LimiterStats},
    config::LimitsConfig,
    domain::{
        address::network_of,
        api_key::ApiKey,
        clock::SharedClock,
        id::UserId,
        limit::{Decision, Subject, Tier, TierState, Window, month_end, month_start},
        pass::Pass,
        principal::{Credential, Principal},
    },
    repositories::{Database, Repositories as _, StoreError},
};

#[derive(Debug, thiserror::Error)]
pub enum LimitError {
    /// The tier that had no room; nothing was charged.
    #[error("the limit of {} requests per {} for this {} is reached", .0.limit, .0.window.name(), .0.tier)]
    Exceeded(TierState),
    #[error(transparent)]
    Store(#[from] StoreError),
}

pub struct LimitService {
    limiter: Limiter,
    config: ArcSwap<LimitsConfig>,
    db: Database,
    clock: SharedClock,
}

impl LimitService {
    pub fn new(limiter: Limiter, config: LimitsConfig, db: Database, clock: SharedClock) -> Self {
        Self { limiter, config: ArcSwap::from_pointee(config), db, clock }
    }

    /// Holds for requests that come from now on; but for what holds without the
    /// shared counters, which those were made with.
    pub fn replace(&self, config: LimitsConfig) {
        self.config.store(Arc::new(config));
    }

    /// How decisions came about; `None` where limits are not shared.
    pub fn stats(&self) -> Option<LimiterStats> {
        self.limiter.stats()
    }

    /// Charges `cost` to every limit the request is under, or to none.
    ///
    /// The state is that of the limit nearest to its end; `None` when there is
    /// no limit at all. A cost of 0 only looks.
    pub async fn admit(
        &self,
        principal: Option<&Principal>,
        address: IpAddr,
        cost: u64,
    ) -> Result<Option<TierState>, LimitError> {
        let tiers = match principal {
            None => self.address_tiers(address),
            Some(principal) => match &principal.credential {
                Credential::ApiKey(key) => self.key_tiers(key),
                Credential::Pass(pass) => self.pass_tiers(pass),
                Credential::Login(_) => self.user_tiers(principal),
            },
        };
        let key = principal.and_then(Principal::key);
        self.decide(&tiers, cost, key).await
    }

    /// The limits of our own routes: the address's for a stranger, the user's
    /// for everybody else, never a key's.
    pub async fn admit_api(
        &self,
        principal: Option<&Principal>,
        address: IpAddr,
    ) -> Result<Option<TierState>, LimitError> {
        let tiers = match principal {
            None => self.address_tiers(address),
            Some(principal) => self.user_tiers(principal),
        };
        self.decide(&tiers, 1, None).await
    }

    /// The same for a key that is checked on behalf of another application.
    pub async fn admit_key(
        &self,
        key: &Arc<ApiKey>,
        cost: u64,
    ) -> Result<Option<TierState>, LimitError> {
        self.decide(&self.key_tiers(key), cost, Some(key)).await
    }

    async fn decide(
        &self,
        tiers: &[Tier],
        cost: u64,
        key: Option<&Arc<ApiKey>>,
    ) -> Result<Option<TierState>, LimitError> {
        if tiers.is_empty() {
            return Ok(None);
        }
        let decision = match self.limiter.decide_in_memory(tiers, cost, None) {
            Some(decision) => decision,
            // Boxed, so that the hot path does not move what it does not use.
            None => Box::pin(self.limiter.decide(tiers, cost, None)).await,
        };
        let decision = match (decision, key) {
            (Decision::NeedsSeed, Some(key)) => {
                let seed = Box::pin(self.month_so_far(key)).await?;
                Box::pin(self.limiter.decide(tiers, cost, Some(seed))).await
            }
            (decision, _) => decision,
        };
        match decision {
            Decision::Admitted(state) => Ok(state),
            Decision::Refused(state) => Err(LimitError::Exceeded(state)),
            Decision::NeedsSeed => unreachable!("only a key has a quota, and its seed was given"),
        }
    }

    /// What the usage records say of this month, for a counter that was lost.
    async fn month_so_far(&self, key: &ApiKey) -> Result<u64, StoreError> {
        let now = self.clock.now();
        let mut session = self.db.session().await?;
        session.usage().month_requests(key.id, month_start(now), month_end(now)).await
    }

    fn address_tiers(&self, address: IpAddr) -> Vec<Tier> {
        let subject = Subject::Address(network_of(address));
        let config = self.config.load();
        let mut tiers = Vec::with_capacity(2);
        push(&mut tiers, &subject, Window::MINUTE, config.address_per_minute);
        push(&mut tiers, &subject, Window::HOUR, config.address_per_hour);
        tiers
    }

    fn user_tiers(&self, principal: &Principal) -> Vec<Tier> {
        let mut tiers = Vec::with_capacity(2);
        push_user(&mut tiers, principal.user_id(), &self.config.load());
        tiers
    }

    fn key_tiers(&self, key: &ApiKey) -> Vec<Tier> {
        let subject = Subject::Key { id: key.id, owner: key.user_id };
        let mut tiers = Vec::with_capacity(5);
        let config = self.config.load();
        push_user(&mut tiers, key.user_id, &config);
        let or_default = |own: Option<u32>, default: u64| own.map_or(default, u64::from);
        let per_minute = or_default(key.rate_limit_per_minute, config.key_per_minute);
        push(&mut tiers, &subject, Window::MINUTE, per_minute);
        push(&mut tiers, &subject, Window::HOUR, or_default(key.rate_limit, config.key_per_hour));
        push(&mut tiers, &subject, Window::Month, key.monthly_quota.unwrap_or(0));
        tiers
    }

    fn pass_tiers(&self, pass: &Pass) -> Vec<Tier> {
        let subject = Subject::Pass { id: pass.id, owner: pass.user_id };
        let mut tiers = Vec::with_capacity(4);
        let config = self.config.load();
        push_user(&mut tiers, pass.user_id, &config);
        push(&mut tiers, &subject, Window::MINUTE, config.pass_per_minute);
        push(&mut tiers, &subject, Window::HOUR, config.pass_per_hour);
        tiers
    }
}

fn push_user(tiers: &mut Vec<Tier>, user: UserId, config: &LimitsConfig) {
    let subject = Subject::User(user);
    push(tiers, &subject, Window::MINUTE, config.user_per_minute);
    push(tiers, &subject, Window::HOUR, config.user_per_hour);
}

/// 0 is no limit.
fn push(tiers: &mut Vec<Tier>, subject: &Subject, window: Window, limit: u64) {
    if limit > 0 {
        tiers.push(Tier { subject: subject.clone(), window, limit });
    }
}
