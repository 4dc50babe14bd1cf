//! From what a request presents to who it acts for.
//!
//! The answer comes from memory when it is fresh there: a warm request touches
//! neither Redis nor the database.

use std::sync::Arc;

use super::{CredentialCache, Keyring};
use crate::{
    domain::{
        clock::SharedClock,
        id::UserId,
        principal::{Account, Credential, Principal},
        token::TokenHash,
    },
    repositories::StoreError,
};

/// The credentials of one request, as they were written. More than one: all
/// must be valid, and the first in the order of the fields decides.
#[derive(Clone, Copy, Default)]
pub struct Presented<'a> {
    /// A time pass, `tga_…`. None is ever valid in this version.
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
        if access_token.is_some() {
            return Err(AccessError::Invalid);
        }
        let login = match jwt {
            // Boxed, so that a key's way does not carry its size.
            Some(jwt) => Some(Box::pin(self.login(jwt)).await?),
            None => None,
        };
        match api_key {
            Some(key) => self.key(key).await.map(Some),
            None => Ok(login),
        }
    }

    async fn key(&self, presented: &str) -> Result<Principal, AccessError> {
        let hash = TokenHash::of_api_key(presented).ok_or(AccessError::Invalid)?;
        let cached = self.cache.key(&hash).await?.ok_or(AccessError::Invalid)?;
        let now = self.clock.now();
        let in_grace = cached.secret_expires_at.is_none_or(|at| now < at);
        if !in_grace || cached.key.check_alive(now).is_err() {
            return Err(AccessError::Invalid);
        }
        let account = self.account(cached.key.user_id).await?;
        Ok(Principal { account, credential: Credential::ApiKey(cached.key.clone()) })
    }

    async fn login(&self, presented: &str) -> Result<Principal, AccessError> {
        let now = self.clock.now();
        let claims = self.keyring.verify(presented, now).map_err(|_| AccessError::Invalid)?;
        let session = self.cache.session(claims.sid).await?.ok_or(AccessError::Invalid)?;
        if session.ended || session.expires_at <= now || session.user_id != claims.sub {
            return Err(AccessError::Invalid);
        }
        // Name and roles are the account's, not the token's: a role that was
        // taken away is gone at once.
        let account = self.account(claims.sub).await?;
        Ok(Principal { account, credential: Credential::Login(claims.sid) })
    }

    async fn account(&self, id: UserId) -> Result<Arc<Account>, AccessError> {
        let account = self.cache.account(id).await?;
        account.filter(|account| account.is_active).ok_or(AccessError::Invalid)
    }
}
