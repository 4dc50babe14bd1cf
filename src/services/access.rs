//! From what a request presents to who it acts for.
//!
//! The answer comes from memory when it is fresh there: a warm request touches
//! neither Redis nor the database.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::{CredentialCache, Keyring, claims::Claims};
use crate::{
    domain::{
        clock::SharedClock,
        id::{SessionId, UserId},
        pass::Pass,
        principal::{Account, Credential, Principal, Proof},
        token::TokenHash,
    },
    repositories::StoreError,
};

/// Who was proven, and until when that is known to hold.
#[derive(Clone, Debug)]
pub struct Proven {
    pub principal: Principal,
    /// `None`: until something is changed.
    pub until: Option<DateTime<Utc>>,
}

/// The credentials of one request, as they were written. More than one: all
/// must be valid, and the first in the order of the fields decides.
#[derive(Clone, Copy, Default)]
pub struct Presented<'a> {
    /// A time pass, `tga_…`.
    pub access_token: Option<&'a str>,
    /// An API key, `tg_…`, in a field of its own or as a bearer token.
    pub api_key: Option<&'a str>,
    pub jwt: Option<&'a str>,
}

#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// Malformed, unknown, expired, revoked, disabled: never told apart.
    #[error("the credential is unknown, expired or revoked")]
    Invalid,
    #[error(transparent)]
    Store(#[from] StoreError),
}

pub struct AccessService {
    cache: CredentialCache,
    keyring: Arc<Keyring>,
    clock: SharedClock,
}

impl AccessService {
    pub fn new(cache: CredentialCache, keyring: Arc<Keyring>, clock: SharedClock) -> Self {
        Self { cache, keyring, clock }
    }

    /// Who the request acts for; `None` when it presents nothing.
    ///
    /// Where a key may be used from and what it may open is not decided here:
    /// that needs the route.
    pub async fn authenticate(
        &self,
        presented: Presented<'_>,
    ) -> Result<Option<Principal>, AccessError> {
        let Presented { access_token, api_key, jwt } = presented;
        let login = match jwt {
            // Boxed, so that a key's way does not carry its size.
            Some(jwt) => Some(Box::pin(self.login(jwt)).await?),
            None => None,
        };
        let key = match api_key {
            Some(key) => Some(self.key(key).await?),
            None => None,
        };
        match access_token {
            Some(token) => self.pass(token).await.map(Some),
            None => Ok(key.or(login)),
        }
    }

    /// The pass that this text is, in whatever state. Asking does not begin its
    /// time.
    pub async fn status(&self, access_token: &str) -> Result<Arc<Pass>, AccessError> {
        let hash = TokenHash::of_pass(access_token).ok_or(AccessError::Invalid)?;
        self.known_pass(hash).await.map(|(pass, _)| pass)
    }

    /// Whether what was proven by this holds still. From memory while the copies
    /// there are fresh, as for a request.
    pub async fn prove_again(&self, proof: &Proof) -> Result<Proven, AccessError> {
        match proof {
            Proof::Pass(hash) => self.by_pass(*hash).await,
            Proof::ApiKey(hash) => self.by_key(*hash).await,
            Proof::Login { session, user, until } => self.by_login(*session, *user, *until).await,
        }
    }

    async fn pass(&self, presented: &str) -> Result<Principal, AccessError> {
        let hash = TokenHash::of_pass(presented).ok_or(AccessError::Invalid)?;
        Ok(self.by_pass(hash).await?.principal)
    }

    async fn by_pass(&self, hash: TokenHash) -> Result<Proven, AccessError> {
        let (pass, account) = self.known_pass(hash).await?;
        if !pass.status(self.clock.now()).is_usable() {
            return Err(AccessError::Invalid);
        }
        let until = pass.expires_at();
        let credential = Credential::Pass(pass);
        Ok(Proven { principal: Principal { account, credential, proof: Proof::Pass(hash) }, until })
    }

    /// A pass and whose it is.
    async fn known_pass(&self, hash: TokenHash) -> Result<(Arc<Pass>, Arc<Account>), AccessError> {
        let pass = self.cache.pass(&hash).await?.ok_or(AccessError::Invalid)?;
        let account = self.account(pass.user_id).await?;
        Ok((pass, account))
    }

    async fn key(&self, presented: &str) -> Result<Principal, AccessError> {
        let hash = TokenHash::of_api_key(presented).ok_or(AccessError::Invalid)?;
        Ok(self.by_key(hash).await?.principal)
    }

    async fn by_key(&self, hash: TokenHash) -> Result<Proven, AccessError> {
        let cached = self.cache.key(&hash).await?.ok_or(AccessError::Invalid)?;
        let until = cached.secret_expires_at.into_iter().chain(cached.key.expires_at).min();
        // What has no end needs no clock.
        let now = until.map_or(DateTime::<Utc>::MIN_UTC, |_| self.clock.now());
        let in_grace = cached.secret_expires_at.is_none_or(|at| now < at);
        if !in_grace || cached.key.check_alive(now).is_err() {
            return Err(AccessError::Invalid);
        }
        let account = self.account(cached.key.user_id).await?;
        let credential = Credential::ApiKey(cached.key.clone());
        let principal = Principal { account, credential, proof: Proof::ApiKey(hash) };
        Ok(Proven { principal, until })
    }

    async fn login(&self, presented: &str) -> Result<Principal, AccessError> {
        let now = self.clock.now();
        let claims: Claims =
            self.keyring.verify(presented, now).map_err(|_| AccessError::Invalid)?;
        let until = claims.good_until();
        Ok(self.by_login(claims.sid, claims.sub, until).await?.principal)
    }

    /// The user of a live login session, and when that ends. Only for what a
    /// verified token says.
    pub(super) async fn session(
        &self,
        user: UserId,
        session: SessionId,
    ) -> Result<Proven, AccessError> {
        self.by_login(session, user, DateTime::<Utc>::MAX_UTC).await
    }

    async fn by_login(
        &self,
        session: SessionId,
        user: UserId,
        until: DateTime<Utc>,
    ) -> Result<Proven, AccessError> {
        let known = self.cache.session(session).await?.ok_or(AccessError::Invalid)?;
        let end = known.expires_at.min(until);
        if known.ended || end <= self.clock.now() || known.user_id != user {
            return Err(AccessError::Invalid);
        }
        // Name and roles are the account's, not the token's: a role that was
        // taken away is gone at once.
        let account = self.account(user).await?;
        let proof = Proof::Login { session, user, until };
        let credential = Credential::Login(session);
        Ok(Proven { principal: Principal { account, credential, proof }, until: Some(end) })
    }

    async fn account(&self, id: UserId) -> Result<Arc<Account>, AccessError> {
        let account = self.cache.account(id).await?;
        account.filter(|account| account.is_active).ok_or(AccessError::Invalid)
    }
}
