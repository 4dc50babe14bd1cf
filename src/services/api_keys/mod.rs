//! API keys: issued, read, changed, rotated, revoked, verified.
//!
//! Every method takes the [`Owner`] it acts for, and the owner is part of
//! every look-up: another user's key looks exactly like none.

mod verify;

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

pub use self::verify::{Verification, VerifyOutcome};
use super::{
    AuditService, CredentialCache, LimitService, UsageService,
    key_input::{self, FieldError, KeyChange},
    usage::{KeyUsage, Saturated},
};
/// What keys can be listed by.
pub use crate::repositories::KeyFilter;
use crate::{
    domain::{
        api_key::ApiKey,
        audit::{Action, Actor, Event},
        clock::SharedClock,
        id::{ApiKeyId, UserId},
        page::{Page, PageRequest},
        token::PlainToken,
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

pub struct ApiKeyService {
    db: Database,
    clock: SharedClock,
    cache: CredentialCache,
    limits: Arc<LimitService>,
    usage: Arc<UsageService>,
    audit: Arc<AuditService>,
}

impl ApiKeyService {
    pub fn new(
        db: Database,
        clock: SharedClock,
        cache: CredentialCache,
        limits: Arc<LimitService>,
        usage: Arc<UsageService>,
        audit: Arc<AuditService>,
    ) -> Self {
        Self { db, clock, cache, limits, usage, audit }
    }

    /// Makes a key for `user`. Names need not be unique: the prefix tells keys
    /// apart.
    pub async fn issue(
        &self,
        by: &Actor,
        user: UserId,
        fields: KeyChange,
    ) -> Result<IssuedKey, ApiKeyError> {
        let now = self.clock.now();
        let token = PlainToken::api_key(&mut rand::rng());
        let mut key = blank(user, &token, now);
        key_input::apply(&mut key, fields, now).map_err(ApiKeyError::Invalid)?;

        let mut tx = self.db.begin().await?;
        if tx.users().find(user).await?.is_none() {
            return Err(ApiKeyError::NoSuchUser);
        }
        tx.api_keys().insert(&key, &token.hash()).await?;
        let event = Event::new(Action::KeyCreated, "key", key.id).after(state(&key));
        self.audit.commit(tx, by, event).await?;
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
        by: &Actor,
        owner: Owner,
        id: ApiKeyId,
        change: KeyChange,
    ) -> Result<ApiKey, ApiKeyError> {
        for _ in 0..RETRIES {
            let mut tx = self.db.begin().await?;
            let mut key = find(&mut tx, owner, id).await?;
            let (seen, before) = (key.version, key.clone());
            key_input::apply(&mut key, change.clone(), self.clock.now())
                .map_err(ApiKeyError::Invalid)?;
            if !tx.api_keys().update(&key, seen).await? {
                continue;
            }
            let hashes = tx.api_keys().secrets(id).await?;
            let mut after = state(&key);
            if key.metadata != before.metadata {
                after["metadata"] = "changed".into();
            }
            let event = Event::new(Action::KeyUpdated, "key", id).changed(state(&before), after);
            self.audit.commit(tx, by, event).await?;
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
        by: &Actor,
        owner: Owner,
        id: ApiKeyId,
        grace: TimeDelta,
    ) -> Result<IssuedKey, ApiKeyError> {
        let now = self.clock.now();
        let token = PlainToken::api_key(&mut rand::rng());
        let mut tx = self.db.begin().await?;
        let before = find(&mut tx, owner, id).await?;
        let rotated = tx.api_keys().rotate(id, &token.display_prefix(), now).await?;
        let version = rotated.ok_or(ApiKeyError::NotFound)?;
        let old = tx.api_keys().secrets(id).await?;
        tx.api_keys().add_secret(id, &token.hash(), now).await?;
        tx.api_keys().expire_secrets(id, &token.hash(), now + grace).await?;
        let key = tx.api_keys().find(id).await?.ok_or(ApiKeyError::NotFound)?;
        let event = Event::new(Action::KeyRotated, "key", id)
            .before(json!({ "prefix": before.prefix }))
            .after(json!({ "prefix": key.prefix, "old_one_ends_at": now + grace }));
        self.audit.commit(tx, by, event).await?;
        self.cache.key_changed(&old, version).await;
        Ok(IssuedKey { key, token })
    }

    /// Deletes the key; its usage stays.
    pub async fn delete(&self, by: &Actor, owner: Owner, id: ApiKeyId) -> Result<(), ApiKeyError> {
        let mut tx = self.db.begin().await?;
        let key = find(&mut tx, owner, id).await?;
        let hashes = tx.api_keys().secrets(id).await?;
        let last = tx.api_keys().delete(id).await?.ok_or(ApiKeyError::NotFound)?;
        let event = Event::new(Action::KeyDeleted, "key", id).before(state(&key));
        self.audit.commit(tx, by, event).await?;
        self.cache.key_changed(&hashes, last + 1).await;
        Ok(())
    }

    /// Drops texts whose grace is over.
    pub async fn prune(&self) -> Result<(), StoreError> {
        let mut tx = self.db.begin().await?;
        tx.api_keys().delete_expired_secrets(self.clock.now()).await?;
        tx.commit().await
    }
}

async fn find(tx: &mut Tx, owner: Owner, id: ApiKeyId) -> Result<ApiKey, ApiKeyError> {
    let key = tx.api_keys().find(id).await?;
    key.filter(|key| owner.may_touch(key)).ok_or(ApiKeyError::NotFound)
}

/// What may be told of a key. Its owner's notes are nobody's to repeat.
fn state(key: &ApiKey) -> serde_json::Value {
    let mut state = serde_json::to_value(key).expect("plain fields are JSON");
    if let Some(fields) = state.as_object_mut() {
        fields.retain(|name, _| {
            !["id", "metadata", "last_used_at", "rotated_at", "version"].contains(&name.as_str())
        });
    }
    state
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
