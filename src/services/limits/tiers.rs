//! Under which limits a request is.
//!
//! Of two limits with the same subject and window only the smaller can refuse,
//! so only that is asked for, and both share a counter: whoever gives a limit
//! another name gets nothing back by it. While the shared counters cannot be
//! reached, the stricter policy of the two holds.

use std::net::IpAddr;

use crate::{
    cache::Cap,
    config::{LimitsConfig, UpstreamConfig},
    domain::{
        address::network_of,
        api_key::ApiKey,
        id::{ChatSessionId, UserId},
        limit::{Per, Subject, Tier, Window},
        origin::OriginHost,
        pass::Pass,
        principal::{Credential, Principal},
        rates::{NamedLimit, OnStoreLoss, Rates},
    },
};

/// Whose request it is, and where it goes.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    pub principal: Option<&'a Principal>,
    pub address: IpAddr,
    pub upstream: &'a UpstreamConfig,
    /// Of the page that sends it, where that is counted.
    pub origin: Option<OriginHost>,
}

/// Enough for most requests.
const USUAL: usize = 8;

pub(super) struct Tiers(Vec<Tier>);

impl Tiers {
    /// Of a request that goes to an upstream. The most particular subject is the
    /// last one (see [`crate::cache::Limiter`]).
    pub fn of_request(scope: Scope<'_>, config: &LimitsConfig) -> Vec<Tier> {
        let Scope { principal, address, upstream, origin } = scope;
        let mut tiers = Self(Vec::with_capacity(USUAL));
        let name = upstream.name;
        tiers.rates(Subject::Upstream(name), &config.upstream.overridden(&upstream.limits.all));
        if let Some(host) = origin {
            tiers.rates(Subject::Origin(host), &config.origin);
        }
        let Some(principal) = principal else {
            tiers.rates(Subject::Address(network_of(address)), &config.address);
            return tiers.0;
        };
        let user = principal.user_id();
        tiers.rates(Subject::User(user), &config.user);
        tiers.rates(Subject::UserAt { user, upstream: name }, &upstream.limits.user);
        match &principal.credential {
            Credential::ApiKey(key) => tiers.key(key, config),
            Credential::Pass(pass) => tiers.pass(pass, config),
            Credential::Login(_) => {}
        }
        tiers.0
    }

    /// Of a request to a route of ours.
    pub fn of_ours(user: Option<UserId>, address: IpAddr, config: &LimitsConfig) -> Vec<Tier> {
        let mut tiers = Self(Vec::with_capacity(USUAL));
        match user {
            Some(user) => tiers.rates(Subject::User(user), &config.user),
            None => tiers.rates(Subject::Address(network_of(address)), &config.address),
        }
        tiers.0
    }

    /// Of a message in a conversation; with the address it comes from where that
    /// was not counted before.
    pub fn of_chat(
        session: ChatSessionId,
        origin: Option<OriginHost>,
        address: Option<IpAddr>,
        config: &LimitsConfig,
    ) -> Vec<Tier> {
        let mut tiers = Self(Vec::with_capacity(USUAL));
        if let Some(address) = address {
            tiers.rates(Subject::Address(network_of(address)), &config.address);
        }
        if let Some(host) = origin {
            tiers.rates(Subject::Origin(host), &config.origin);
        }
        tiers.rates(Subject::Chat(session), &config.session);
        tiers.0
    }

    /// Of a key that is used elsewhere.
    pub fn of_key(key: &ApiKey, config: &LimitsConfig) -> Vec<Tier> {
        let mut tiers = Self(Vec::with_capacity(USUAL));
        tiers.rates(Subject::User(key.user_id), &config.user);
        tiers.key(key, config);
        tiers.0
    }

    fn key(&mut self, key: &ApiKey, config: &LimitsConfig) {
        let subject = Subject::Key { id: key.id, owner: key.user_id };
        let mut rates = config.key;
        let own = [
            (Per::Minute, key.rate_limit_per_minute.map(u64::from)),
            (Per::Hour, key.rate_limit.map(u64::from)),
            (Per::Month, key.monthly_quota),
        ];
        for (per, own) in own {
            let limit = &mut rates.limits[per as usize];
            *limit = own.unwrap_or(*limit);
        }
        self.rates(subject, &rates);
        for NamedLimit { name, limit, window, on_store_loss } in &key.limits {
            let on_loss = on_store_loss.unwrap_or(rates.on_loss);
            let tier = Tier::new(subject, window.window(), *limit).on_loss(on_loss);
            self.merge(Tier { name: Some(name.clone()), ..tier });
        }
    }

    fn pass(&mut self, pass: &Pass, config: &LimitsConfig) {
        const DAY: u32 = 86_400;
        let subject = Subject::Pass { id: pass.id, owner: pass.user_id };
        self.rates(subject, &config.pass);
        let total = config.pass_totals.iter().find(|(hours, _)| *hours == pass.duration_hours);
        let total = total.map_or(0, |(_, total)| *total);
        let whole = pass.duration_hours.saturating_mul(3600);
        for (limit, seconds) in [(config.pass_own_day, DAY), (total, whole)] {
            if limit > 0 {
                let window = Window::Anchored { since: pass.activated_at.into(), seconds };
                self.merge(Tier::new(subject, window, limit).on_loss(config.pass.on_loss));
            }
        }
    }

    fn rates(&mut self, subject: Subject, rates: &Rates) {
        for (per, limit) in rates.iter() {
            self.0.push(Tier::new(subject, per.window(), limit).on_loss(rates.on_loss));
        }
    }

    fn merge(&mut self, tier: Tier) {
        let Some(same) = self.0.iter_mut().find(|same| same.counts_as(&tier)) else {
            self.0.push(tier);
            return;
        };
        let on_loss: OnStoreLoss = same.on_loss.max(tier.on_loss);
        if tier.limit < same.limit {
            *same = tier;
        }
        same.on_loss = on_loss;
    }
}

/// How many of the scope's requests may be under way at once, by subject: the
/// upstream's first, since that is not the caller's doing.
pub(super) fn caps_of<'a>(
    scope: Scope<'a>,
    config: &LimitsConfig,
) -> impl Iterator<Item = Cap> + use<'a> {
    let Scope { principal, upstream, .. } = scope;
    let most = config.concurrent;
    let cap = |subject, most: u32| (most > 0).then_some(Cap { subject, most });
    let own = upstream.limits.max_concurrent.unwrap_or(most.upstream);
    let of_upstream = cap(Subject::Upstream(upstream.name), own);
    let of_user = principal.and_then(|it| cap(Subject::User(it.user_id()), most.user));
    let of_credential = principal.and_then(|it| match &it.credential {
        Credential::ApiKey(key) => {
            let subject = Subject::Key { id: key.id, owner: key.user_id };
            cap(subject, key.max_concurrent.unwrap_or(most.key))
        }
        Credential::Pass(pass) => {
            cap(Subject::Pass { id: pass.id, owner: pass.user_id }, most.pass)
        }
        Credential::Login(_) => None,
    });
    [of_upstream, of_user, of_credential].into_iter().flatten()
}
