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

impl Presented<'_> {
    /// By what the principal that these proved can be proven again. `None` would
    /// be another's.
    pub fn proof(self, principal: &Principal) -> Option<Proof> {
        match &principal.credential {
            Credential::Login(session) => Some(Proof::Login(*session)),
            Credential::ApiKey(_) => {
                self.api_key.and_then(TokenHash::of_api_key).map(Proof::ApiKey)
            }
            Credential::Pass(_) => self.access_token.and_then(TokenHash::of_pass).map(Proof::Pass),
        }
    }
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
            Some(key) => {
                let hash = TokenHash::of_api_key(key).ok_or(AccessError::Invalid)?;
                Some(self.key(&hash).await?)
            }
            None => None,
        };
        match access_token {
            Some(token) => {
                let hash = TokenHash::of_pass(token).ok_or(AccessError::Invalid)?;
                self.pass(&hash).await.map(Some)
            }
            None => Ok(key.or(login)),
        }
    }

    /// Whether what proved a principal once proves it still; who that is now.
    pub async fn prove_again(&self, proof: &Proof) -> Result<Principal, AccessError> {
        match proof {
            Proof::Login(session) => {
                self.session(*session, None).await.map(|(principal, _)| principal)
            }
            Proof::ApiKey(hash) => self.key(hash).await,
            Proof::Pass(hash) => self.pass(hash).await,
        }
    }

    /// The pass that this text is, in whatever state. Asking does not begin its
    /// time.
    pub async fn status(&self, access_token: &str) -> Result<Arc<Pass>, AccessError> {
        let hash = TokenHash::of_pass(access_token).ok_or(AccessError::Invalid)?;
        self.known_pass(&hash).await.map(|(pass, _)| pass)
    }

    async fn pass(&self, hash: &TokenHash) -> Result<Principal, AccessError> {
        let (pass, account) = self.known_pass(hash).await?;
        if !pass.status(self.clock.now()).is_usable() {
            return Err(AccessError::Invalid);
        }
        Ok(Principal { account, credential: Credential::Pass(pass) })
    }

    /// A pass and whose it is.
    async fn known_pass(&self, hash: &TokenHash) -> Result<(Arc<Pass>, Arc<Account>), AccessError> {
        let pass = self.cache.pass(hash).await?.ok_or(AccessError::Invalid)?;
        let account = self.account(pass.user_id).await?;
        Ok((pass, account))
    }

    async fn key(&self, hash: &TokenHash) -> Result<Principal, AccessError> {
        let cached = self.cache.key(hash).await?.ok_or(AccessError::Invalid)?;
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
        let claims: Claims =
            self.keyring.verify(presented, now).map_err(|_| AccessError::Invalid)?;
        self.session(claims.sid, Some(claims.sub)).await.map(|(principal, _)| principal)
    }

    /// Whose live login session this is, and when that ends; it must be that of
    /// `user` where one is given.
    pub(super) async fn session(
        &self,
        id: SessionId,
        user: Option<UserId>,
    ) -> Result<(Principal, DateTime<Utc>), AccessError> {
        let found = self.cache.session(id).await?.ok_or(AccessError::Invalid)?;
        let is_theirs = user.is_none_or(|user| found.user_id == user);
        if found.ended || found.expires_at <= self.clock.now() || !is_theirs {
            return Err(AccessError::Invalid);
        }
        // Name and roles are the account's, not the token's: a role that was
        // taken away is gone at once.
        let account = self.account(found.user_id).await?;
        Ok((Principal { account, credential: Credential::Login(id) }, found.expires_at))
    }

    async fn account(&self, id: UserId) -> Result<Arc<Account>, AccessError> {
        let account = self.cache.account(id).await?;
        account.filter(|account| account.is_active).ok_or(AccessError::Invalid)
    }
}
