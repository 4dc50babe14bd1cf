//! Cached copies of what proves an identity, and how they become stale.
//!
//! Four things are cached, each by the key it is looked up with: an API key and
//! a time pass by the digest of its text, an account by its id, a login session
//! by its `sid`. (Sessions of chats are [`super::chat::visitors`]' business, which
//! are heard of the same way.) Whoever changes one calls the matching `*_changed` after the commit,
//! with the version the row has now; a copy read before the change loses
//! against it (RELIABILITY G-85, G-86).

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{chat::Visit, pass_copy::CachedPass};
use crate::{
    cache::{Cache, CacheHub, Cached, LoadFailed, Peek},
    domain::{
        api_key::ApiKey,
        change::{CredentialChange, Subject},
        clock::SharedClock,
        id::{SessionId, UserId},
        login::LoginSession,
        pass::Pass,
        principal::Account,
        token::TokenHash,
    },
    repositories::{Database, Repositories as _, StoreError, StoreResult},
};

/// How long a copy is used without looking again. This is also the longest a
/// revoked credential can work where no invalidation arrives at all, so it is
/// a security setting (RELIABILITY, defaults: 10 s).
const FRESH: Duration = Duration::from_secs(10);
/// How long "there is no such credential" is remembered.
const NEGATIVE: Duration = Duration::from_secs(5);

/// An API key as one of its texts opens it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CachedKey {
    /// The key's, once more: a copy begins with it.
    version: i64,
    pub key: Arc<ApiKey>,
    /// The end of this text's grace after a rotation.
    pub secret_expires_at: Option<DateTime<Utc>>,
}

/// What of a login session decides whether its JWTs work.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CachedSession {
    pub version: i64,
    pub id: SessionId,
    pub user_id: UserId,
    pub expires_at: DateTime<Utc>,
    pub ended: bool,
}

impl Cached for CachedKey {
    type Key = TokenHash;
    const NAMESPACE: &'static str = "key:3";
    const FRESH: Duration = FRESH;
    const SHARED: Duration = FRESH;
    const NEGATIVE: Duration = NEGATIVE;

    fn version(&self) -> i64 {
        self.version
    }
}

impl Cached for Account {
    type Key = UserId;
    const NAMESPACE: &'static str = "account:2";
    const FRESH: Duration = FRESH;
    const SHARED: Duration = FRESH;
    const NEGATIVE: Duration = NEGATIVE;

    fn version(&self) -> i64 {
        self.version
    }
}

impl Cached for CachedSession {
    type Key = SessionId;
    const NAMESPACE: &'static str = "session:2";
    const FRESH: Duration = FRESH;
    const SHARED: Duration = FRESH;
    const NEGATIVE: Duration = NEGATIVE;

    fn version(&self) -> i64 {
        self.version
    }
}

impl From<LoginSession> for CachedSession {
    fn from(session: LoginSession) -> Self {
        let LoginSession { id, user_id, expires_at, ended_at, version, .. } = session;
        Self { id, user_id, expires_at, ended: ended_at.is_some(), version }
    }
}

impl From<LoadFailed> for StoreError {
    fn from(_: LoadFailed) -> Self {
        Self::timed_out()
    }
}

/// The caches over the database.
#[derive(Clone)]
pub struct CredentialCache {
    db: Database,
    clock: SharedClock,
    keys: Cache<CachedKey>,
    passes: Cache<CachedPass>,
    accounts: Cache<Account>,
    sessions: Cache<CachedSession>,
    visits: Cache<Visit>,
}

impl CredentialCache {
    pub fn new(db: Database, hub: &CacheHub, clock: SharedClock) -> Self {
        Self {
            db,
            clock,
            keys: hub.cache(),
            passes: hub.cache(),
            accounts: hub.cache(),
            sessions: hub.cache(),
            visits: hub.cache(),
        }
    }

    /// The key that this text opens, usable or not.
    pub async fn key(&self, hash: &TokenHash) -> StoreResult<Option<Arc<CachedKey>>> {
        match self.keys.peek(hash) {
            Peek::Hit(key) => Ok(Some(key)),
            Peek::Absent => Ok(None),
            // Boxed, here and below: a query's future takes kilobytes, and a
            // future is moved whole at every level of the calls above it, also
            // when memory had the answer.
            Peek::Miss => Box::pin(self.load_key(hash)).await,
        }
    }

    /// The pass that this text opens, whatever state it is in.
    pub async fn pass(&self, hash: &TokenHash) -> StoreResult<Option<Arc<Pass>>> {
        match self.passes.peek(hash) {
            Peek::Hit(copy) => Ok(Some(Arc::clone(&copy.pass))),
            Peek::Absent => Ok(None),
            Peek::Miss => Box::pin(self.load_pass(hash)).await,
        }
    }

    pub async fn account(&self, id: UserId) -> StoreResult<Option<Arc<Account>>> {
        match self.accounts.peek(&id) {
            Peek::Hit(account) => Ok(Some(account)),
            Peek::Absent => Ok(None),
            Peek::Miss => Box::pin(self.load_account(id)).await,
        }
    }

    pub async fn session(&self, id: SessionId) -> StoreResult<Option<Arc<CachedSession>>> {
        match self.sessions.peek(&id) {
            Peek::Hit(session) => Ok(Some(session)),
            Peek::Absent => Ok(None),
            Peek::Miss => Box::pin(self.load_session(id)).await,
        }
    }

    async fn load_key(&self, hash: &TokenHash) -> StoreResult<Option<Arc<CachedKey>>> {
        let load = async || {
            let mut session = self.db.session().await?;
            let found = session.api_keys().find_by_hash(hash, self.clock.now()).await?;
            Ok(found.map(|(key, secret_expires_at)| CachedKey {
                version: key.version,
                key: Arc::new(key),
                secret_expires_at,
            }))
        };
        self.keys.get_or_load(hash, load).await
    }

    async fn load_pass(&self, hash: &TokenHash) -> StoreResult<Option<Arc<Pass>>> {
        let load = async || {
            let checked_at = self.clock.now();
            let found = self.db.session().await?.passes().find_by_hash(hash).await?;
            Ok(found.map(|pass| CachedPass { pass: Arc::new(pass), checked_at }))
        };
        let copy: StoreResult<_> = self.passes.get_or_load(hash, load).await;
        Ok(copy?.map(|copy: Arc<CachedPass>| Arc::clone(&copy.pass)))
    }

    async fn load_account(&self, id: UserId) -> StoreResult<Option<Arc<Account>>> {
        let load = async || self.db.session().await?.users().account(id).await;
        self.accounts.get_or_load(&id, load).await
    }

    async fn load_session(&self, id: SessionId) -> StoreResult<Option<Arc<CachedSession>>> {
        let load = async || {
            let found = self.db.session().await?.login_sessions().find(id).await?;
            Ok(found.map(CachedSession::from))
        };
        self.sessions.get_or_load(&id, load).await
    }

    /// Takes what the database says of a change. `false`: it is not known what
    /// changed.
    pub fn heard(&self, change: &CredentialChange) -> bool {
        let version = change.version;
        match &change.subject {
            Subject::Key(hash) => self.keys.heard(hash, version),
            Subject::Pass(hash) => self.passes.heard(hash, version),
            Subject::Account(id) => self.accounts.heard(id, version),
            Subject::Session(id) => self.sessions.heard(id, version),
            Subject::Chat(hash) => self.visits.heard(hash, version),
            Subject::Probe => {}
            Subject::Unknown => return false,
        }
        true
    }

    /// To be called after every committed change of a key, for each of its
    /// texts.
    pub async fn key_changed(&self, hashes: &[TokenHash], version: i64) {
        for hash in hashes {
            self.keys.invalidate(hash, version).await;
        }
    }

    /// To be called after every committed change of a pass.
    pub async fn pass_changed(&self, hash: &TokenHash, version: i64) {
        self.passes.invalidate(hash, version).await;
    }

    /// A pass was met in the database as of `version`: an older copy here is not
    /// used again.
    pub fn pass_met(&self, hash: &TokenHash, version: i64) {
        self.passes.outdate(hash, version);
    }

    pub async fn account_changed(&self, id: UserId, version: i64) {
        self.accounts.invalidate(&id, version).await;
    }

    pub async fn sessions_ended(&self, sessions: &[(SessionId, i64)]) {
        for (id, version) in sessions {
            self.sessions.invalidate(id, *version).await;
        }
    }
}
