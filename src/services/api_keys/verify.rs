//! Keys checked for an application that does so itself.

use std::{borrow::Cow, sync::Arc};

use chrono::{DateTime, Utc};

use super::{ApiKeyError, ApiKeyService};
use crate::{
    domain::{
        api_key::{ApiKey, KeyRefusal},
        id::{LogPlace, RecordId},
        limit::TierState,
        route,
        token::TokenHash,
        usage::{Outcome, UsageRecord},
    },
    services::limits::LimitError,
};

/// What [`ApiKeyService::verify`] found.
#[derive(Debug)]
pub struct Verification {
    pub outcome: VerifyOutcome,
    /// The key, unless there is none.
    pub key: Option<Arc<ApiKey>>,
    pub limit: Option<TierState>,
}

/// Why a key is good or not; the text is contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyOutcome {
    Valid,
    /// Not the shape of a key, or not one of ours.
    NotFound,
    Disabled,
    Expired,
    InsufficientScope,
    RateLimited,
    QuotaExceeded,
}

impl ApiKeyService {
    /// Checks a key for an application that does so itself, and charges `cost`
    /// to its limits when it is valid. A cost of 0 charges nothing.
    ///
    /// Networks, origins and upstreams are not checked: they are about a
    /// request, and there is none.
    pub async fn verify(
        &self,
        presented: &str,
        scope: Option<&str>,
        cost: u64,
        request_id: &str,
    ) -> Result<Verification, ApiKeyError> {
        let refuse = |outcome, key| Ok(Verification { outcome, key, limit: None });
        let now = self.clock.now();
        let Some(hash) = TokenHash::of_api_key(presented) else {
            return refuse(VerifyOutcome::NotFound, None);
        };
        let Some(cached) = self.cache.key(&hash).await? else {
            return refuse(VerifyOutcome::NotFound, None);
        };
        if cached.secret_expires_at.is_some_and(|at| at <= now) {
            return refuse(VerifyOutcome::NotFound, None);
        }
        let key = cached.key.clone();
        let account = self.cache.account(key.user_id).await?;
        if account.is_none_or(|account| !account.is_active) {
            return refuse(VerifyOutcome::Disabled, Some(key));
        }
        if let Err(refusal) = key.check_alive(now) {
            return refuse(refusal.into(), Some(key));
        }
        if let Some(Err(refusal)) = scope.map(|scope| key.check_scope(scope)) {
            return refuse(refusal.into(), Some(key));
        }
        // Before it is charged: what cannot be recorded must not happen.
        let slot = (cost > 0).then(|| self.usage.journal().reserve()).transpose()?;
        let (outcome, limit) = match self.limits.admit_key(&key, cost).await {
            Ok(state) => (VerifyOutcome::Valid, state),
            Err(LimitError::Exceeded(exceeded)) => {
                let quota = exceeded.is_quota();
                let outcome =
                    if quota { VerifyOutcome::QuotaExceeded } else { VerifyOutcome::RateLimited };
                (outcome, Some(exceeded.state))
            }
            Err(LimitError::Store(error)) => return Err(error.into()),
        };
        if let Some(slot) = slot {
            slot.record_many(verification(&key, outcome, request_id, now), cost);
        }
        Ok(Verification { outcome, key: Some(key), limit })
    }
}

/// A verification is usage of the key, of the upstream `verify`. It counts as
/// many requests as were charged, or a quota seeded from usage would be too
/// large.
fn verification(
    key: &ApiKey,
    outcome: VerifyOutcome,
    request_id: &str,
    at: DateTime<Utc>,
) -> UsageRecord {
    let admitted = outcome == VerifyOutcome::Valid;
    UsageRecord {
        id: RecordId::new(at),
        request_id: request_id.to_owned(),
        at,
        method: Cow::Borrowed("POST"),
        path: "/api/v1/keys/verify".to_owned(),
        status: if admitted { 200 } else { 429 },
        outcome: if admitted { Outcome::Completed } else { Outcome::Rejected },
        duration_us: 0,
        bytes_in: 0,
        bytes_out: 0,
        user_id: Some(key.user_id),
        key_id: Some(key.id),
        pass_id: None,
        upstream: Cow::Borrowed("verify"),
        route: Cow::Borrowed(route::OTHER),
        is_stream: false,
        messages: 0,
        place: LogPlace::NIL,
    }
}

impl VerifyOutcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::NotFound => "not_found",
            Self::Disabled => "disabled",
            Self::Expired => "expired",
            Self::InsufficientScope => "insufficient_scope",
            Self::RateLimited => "rate_limited",
            Self::QuotaExceeded => "quota_exceeded",
        }
    }
}

impl From<KeyRefusal> for VerifyOutcome {
    fn from(refusal: KeyRefusal) -> Self {
        match refusal {
            KeyRefusal::Disabled => Self::Disabled,
            KeyRefusal::Expired => Self::Expired,
            KeyRefusal::Scope | KeyRefusal::Address | KeyRefusal::Origin | KeyRefusal::Upstream => {
                Self::InsufficientScope
            }
        }
    }
}
