//! API keys: issued, read, changed, rotated, revoked, verified.
//!
//! Every method takes the [`Owner`] it acts for, and the owner is part of
//! every look-up: another user's key looks exactly like none.

use std::{borrow::Cow, sync::Arc};

use chrono::{DateTime, TimeDelta, Utc};

use super::{
    CredentialCache, LimitService, UsageService,
    key_input::{self, FieldError, KeyChange},
    limits::LimitError,
    usage::{KeyUsage, Saturated},
};
/// What keys can be listed by.
pub use crate::repositories::KeyFilter;
use crate::{
    domain::{
        api_key::{ApiKey, KeyRefusal},
        clock::SharedClock,
        id::{ApiKeyId, LogPlace, RecordId, UserId},
        limit::TierState,
        page::{Page, PageRequest},
        route,
        token::{PlainToken, TokenHash},
        usage::{Outcome, UsageRecord},
    },
    repositories::{Database, Repositories as _, StoreError, Tx},
};

/// Longest grace after a rotation.
pub const MAX_GRACE: TimeDelta = TimeDelta::days(30);
/// How often a change is tried again when another one came first.
const RETRIES: usize = 5;

/// For whom keys are managed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// That user's keys and no others.
    User(UserId),
    /// An admin: every key.
    Anyone,
}

impl Owner {
    fn may_touch(self, key: &ApiKey) -> bool {
        match self {
            Self::User(id) => key.user_id == id,
            Self::Anyone => true,
        }
    }
}

/// A key together with the one chance to read its text.
#[derive(Debug)]
pub struct IssuedKey {
    pub key: ApiKey,
    pub token: PlainToken,
}

#[derive(Debug, thiserror::Error)]
pub enum ApiKeyError {
    #[error("no such key")]
    NotFound,
    #[error("no such user")]
    NoSuchUser,
    #[error("some fields are not valid")]
    Invalid(Vec<FieldError>),
    #[error("the key is being changed by somebody else")]
    Conflict,
    #[error(transparent)]
    Saturated(#[from] Saturated),
    #[error(transparent)]
    Store(#[from] StoreError),
}

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

pub struct ApiKeyService {
    db: Database,
    clock: SharedClock,
    cache: CredentialCache,
    limits: Arc<LimitService>,
    usage: Arc<UsageService>,
}

impl ApiKeyService {
    pub fn new(
        db: Database,
        clock: SharedClock,
        cache: CredentialCache,
        limits: Arc<LimitService>,
        usage: Arc<UsageService>,
    ) -> Self {
        Self { db, clock, cache, limits, usage }
    }

    /// Makes a key for `user`. Names need not be unique: the prefix tells keys
    /// apart.
    pub async fn issue(&self, user: UserId, fields: KeyChange) -> Result<IssuedKey, ApiKeyError> {
        let now = self.clock.now();
        let token = PlainToken::api_key(&mut rand::rng());
        let mut key = blank(user, &token, now);
        key_input::apply(&mut key, fields, now).map_err(ApiKeyError::Invalid)?;

        let mut tx = self.db.begin().await?;
        if tx.users().find(user).await?.is_none() {
            return Err(ApiKeyError::NoSuchUser);
        }
        tx.api_keys().insert(&key, &token.hash()).await?;
        tx.commit().await?;
        Ok(IssuedKey { key, token })
    }

    pub async fn list(
        &self,
        owner: Owner,
        mut filter: KeyFilter,
        page: PageRequest,
    ) -> Result<Page<ApiKey>, ApiKeyError> {
        if let Owner::User(id) = owner {
            filter.user_id = Some(id);
        }
        Ok(self.db.session().await?.api_keys().list(&filter, page).await?)
    }

    pub async fn get(&self, owner: Owner, id: ApiKeyId) -> Result<ApiKey, ApiKeyError> {
        let key = self.db.session().await?.api_keys().find(id).await?;
        key.filter(|key| owner.may_touch(key)).ok_or(ApiKeyError::NotFound)
    }

    /// One key with its usage.
    pub async fn get_with_usage(
        &self,
        owner: Owner,
        id: ApiKeyId,
    ) -> Result<(ApiKey, KeyUsage), ApiKeyError> {
        let key = self.get(owner, id).await?;
        let usage = self.usage.of_key(id).await?;
        Ok((key, usage))
    }

    pub async fn update(
        &self,
        owner: Owner,
        id: ApiKeyId,
        change: KeyChange,
    ) -> Result<ApiKey, ApiKeyError> {
        for _ in 0..RETRIES {
            let mut tx = self.db.begin().await?;
            let mut key = find(&mut tx, owner, id).await?;
            let seen = key.version;
            key_input::apply(&mut key, change.clone(), self.clock.now())
                .map_err(ApiKeyError::Invalid)?;
            if !tx.api_keys().update(&key, seen).await? {
                continue;
            }
            let hashes = tx.api_keys().secrets(id).await?;
            tx.commit().await?;
            key.version = seen + 1;
            self.cache.key_changed(&hashes, key.version).await;
            return Ok(key);
        }
        Err(ApiKeyError::Conflict)
    }

    /// Gives the key a new text. The old one works for `grace` more, not at
    /// all when that is zero; texts from earlier rotations end no later.
    pub async fn rotate(
        &self,
        owner: Owner,
        id: ApiKeyId,
        grace: TimeDelta,
    ) -> Result<IssuedKey, ApiKeyError> {
        let now = self.clock.now();
        let token = PlainToken::api_key(&mut rand::rng());
        let mut tx = self.db.begin().await?;
        find(&mut tx, owner, id).await?;
        let rotated = tx.api_keys().rotate(id, &token.display_prefix(), now).await?;
        let version = rotated.ok_or(ApiKeyError::NotFound)?;
        let old = tx.api_keys().secrets(id).await?;
        tx.api_keys().add_secret(id, &token.hash(), now).await?;
        tx.api_keys().expire_secrets(id, &token.hash(), now + grace).await?;
        let key = tx.api_keys().find(id).await?.ok_or(ApiKeyError::NotFound)?;
        tx.commit().await?;
        self.cache.key_changed(&old, version).await;
        Ok(IssuedKey { key, token })
    }

    /// Deletes the key; its usage stays.
    pub async fn delete(&self, owner: Owner, id: ApiKeyId) -> Result<(), ApiKeyError> {
        let mut tx = self.db.begin().await?;
        find(&mut tx, owner, id).await?;
        let hashes = tx.api_keys().secrets(id).await?;
        let last = tx.api_keys().delete(id).await?.ok_or(ApiKeyError::NotFound)?;
        tx.commit().await?;
        self.cache.key_changed(&hashes, last + 1).await;
        Ok(())
    }

    /// Drops texts whose grace is over.
    pub async fn prune(&self) -> Result<(), StoreError> {
        let mut tx = self.db.begin().await?;
        tx.api_keys().delete_expired_secrets(self.clock.now()).await?;
        tx.commit().await
    }

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

async fn find(tx: &mut Tx, owner: Owner, id: ApiKeyId) -> Result<ApiKey, ApiKeyError> {
    let key = tx.api_keys().find(id).await?;
    key.filter(|key| owner.may_touch(key)).ok_or(ApiKeyError::NotFound)
}

fn blank(user_id: UserId, token: &PlainToken, now: DateTime<Utc>) -> ApiKey {
    ApiKey {
        id: ApiKeyId::new(now),
        user_id,
        name: String::new(),
        prefix: token.display_prefix(),
        scopes: vec![],
        upstreams: vec![],
        allowed_ips: vec![],
        allowed_origins: vec![],
        rate_limit: None,
        rate_limit_per_minute: None,
        monthly_quota: None,
        limits: vec![],
        max_concurrent: None,
        metadata: serde_json::Map::new(),
        is_active: true,
        expires_at: None,
        last_used_at: None,
        created_at: now,
        rotated_at: None,
        version: 1,
    }
}
