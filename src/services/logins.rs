//! Login sessions: begun with a password, kept alive by refresh tokens, ended
//! by their owner.

use std::{net::IpAddr, sync::Arc, time::Duration};

use chrono::TimeDelta;
use secrecy::SecretString;
use serde_json::json;

use super::{
    AuditService, CredentialCache, Keyring, Passwords,
    audit::Refused,
    claims::Claims,
    login_throttle::LoginThrottle,
    passwords::PasswordError,
    refresh::{self, Refreshed},
};
use crate::{
    cache::Limiter,
    domain::{
        audit::{Action, Actor, ActorKind, Event, Origin, SYSTEM},
        clock::SharedClock,
        id::{JwtId, RefreshTokenId, SessionId, UserId},
        limit::TierState,
        login::{LoginSession, REFRESH_IDLE, RefreshToken, SESSION_LIFE},
        page::{Page, PageRequest},
        text::{clean, fold},
        token::{PlainToken, TokenHash},
        user::{Role, User},
    },
    repositories::{Database, Repositories as _, StoreError},
};

/// Live sessions per user; a login beyond them ends the oldest.
const MAX_SESSIONS: u32 = 50;
/// A login from an address within this span makes it a known one.
const KNOWN_FOR: TimeDelta = TimeDelta::days(30);

#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// Unknown name, wrong password and disabled account are one answer.
    #[error("the username or password is wrong")]
    Invalid,
    #[error("the refresh token is unknown, expired or used")]
    InvalidRefresh,
    #[error("too many login attempts")]
    Throttled(TierState),
    #[error("no such session")]
    NoSession,
    #[error(transparent)]
    Hashing(#[from] PasswordError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// From where and with what a login was made.
#[derive(Clone, Debug)]
pub struct Device {
    pub address: IpAddr,
    pub user_agent: Option<String>,
    /// Of the request that asks for it.
    pub request_id: Option<String>,
}

impl Device {
    /// The same for the audit log.
    pub fn origin(&self) -> Origin {
        let Self { address, user_agent, request_id } = self.clone();
        Origin { address: Some(address), user_agent, request_id }
    }
}

/// A pair of tokens and whom they are for.
pub struct TokenPair {
    pub access_token: String,
    /// Seconds that the access token is good for.
    pub expires_in: u64,
    pub refresh_token: PlainToken,
    pub user: User,
}

/// A user whose password was right.
struct Checked {
    user: User,
    /// What the password was compared with.
    hash: String,
    /// What to keep instead.
    renewed: Option<String>,
}

/// What the service is built from.
pub struct Parts {
    pub db: Database,
    pub clock: SharedClock,
    pub cache: CredentialCache,
    pub passwords: Arc<Passwords>,
    pub keyring: Arc<Keyring>,
    pub limiter: Limiter,
    pub audit: Arc<AuditService>,
    pub token_life: Duration,
}

pub struct LoginService {
    db: Database,
    clock: SharedClock,
    cache: CredentialCache,
    passwords: Arc<Passwords>,
    keyring: Arc<Keyring>,
    throttle: LoginThrottle,
    audit: Arc<AuditService>,
    token_life: Duration,
}

impl LoginService {
    pub fn new(parts: Parts) -> Self {
        let Parts { db, clock, cache, passwords, keyring, limiter, audit, token_life } = parts;
        let throttle = LoginThrottle::new(limiter);
        Self { db, clock, cache, passwords, keyring, throttle, audit, token_life }
    }

    /// Begins a session. `login` is a username or an e-mail address.
    pub async fn login(
        &self,
        login: &str,
        password: &SecretString,
        device: &Device,
    ) -> Result<TokenPair, LoginError> {
        let checked = self.check(login, password, device).await?;
        let token = PlainToken::refresh(&mut rand::rng());
        let session = self.begin_session(&checked, Some(&token), device).await?;
        Ok(self.pair(checked.user, session.id, token))
    }

    /// The same for a browser, whose cookie is kept alive otherwise.
    pub(super) async fn login_browser(
        &self,
        login: &str,
        password: &SecretString,
        device: &Device,
    ) -> Result<(UserId, LoginSession), LoginError> {
        let checked = self.check(login, password, device).await?;
        let session = self.begin_session(&checked, None, device).await?;
        Ok((checked.user.id, session))
    }

    /// Whose password it is.
    async fn check(
        &self,
        login: &str,
        password: &SecretString,
        device: &Device,
    ) -> Result<Checked, LoginError> {
        let login = fold(login);
        let (known_address, found) = {
            let since = self.clock.now() - KNOWN_FOR;
            let address = device.address.to_string();
            let mut session = self.db.session().await?;
            let known = session.login_sessions().has_login_from(&login, &address, since).await?;
            (known, session.users().find_by_login(&login).await?)
        };
        let owner = found.as_ref().map(|(user, _)| user.id);
        let refused = |why| self.audit.attempts().count(why, owner, device.address);
        let charged = self.throttle.charge(&login, device.address, known_address).await;
        let attempt = charged.map_err(|state| {
            refused(Refused::Throttled);
            LoginError::Throttled(state)
        })?;

        let hash = found.as_ref().map(|(_, hash)| hash.as_str());
        let verdict = self.passwords.verify(password, hash).await?;
        // A disabled account costs the same work before it is refused.
        let Some((user, hash)) = found.filter(|(user, _)| verdict.matches && user.is_active) else {
            refused(Refused::Wrong);
            return Err(LoginError::Invalid);
        };
        self.throttle.give_back(&attempt).await;
        // The parameters may have been raised since the password was set.
        let renewed =
            if verdict.outdated { Some(self.passwords.hash(password).await?) } else { None };
        Ok(Checked { user, hash, renewed })
    }

    /// Exchanges a refresh token for a new pair; see [`refresh`].
    pub async fn refresh(&self, presented: &str, device: &Device) -> Result<TokenPair, LoginError> {
        let hash = TokenHash::of_refresh(presented).ok_or(LoginError::InvalidRefresh)?;
        let now = self.clock.now();
        match refresh::exchange(&self.db, &hash, now, device.address).await? {
            Refreshed::New { user, session_id, token } => Ok(self.pair(*user, session_id, token)),
            Refreshed::Refused => Err(LoginError::InvalidRefresh),
            Refreshed::Reused { session_id } => {
                let mut tx = self.db.begin().await?;
                let Some(version) = tx.login_sessions().end_by_id(session_id, now).await? else {
                    return Err(LoginError::InvalidRefresh);
                };
                // By the program: who presented it is what nobody knows.
                let by = Actor { origin: device.origin(), ..SYSTEM.clone() };
                let event = Event::new(Action::SessionStolen, "session", session_id);
                self.audit.commit(tx, &by, event).await?;
                tracing::warn!(
                    session.id = %session_id,
                    "a spent refresh token was presented again: the login session is ended"
                );
                self.cache.sessions_ended(&[(session_id, version)]).await;
                Err(LoginError::InvalidRefresh)
            }
        }
    }

    /// Ends the session that asks for it. It may have ended meanwhile, which is
    /// as good.
    pub async fn log_out(
        &self,
        by: &Actor,
        user: UserId,
        session: SessionId,
    ) -> Result<(), LoginError> {
        match self.end(by, user, session).await {
            Err(LoginError::NoSession) => Ok(()),
            ended => ended,
        }
    }

    /// Ends one session of the user: its JWTs and refresh tokens stop working.
    pub async fn end(
        &self,
        by: &Actor,
        user: UserId,
        session: SessionId,
    ) -> Result<(), LoginError> {
        let mut tx = self.db.begin().await?;
        let ended = tx.login_sessions().end(session, user, self.clock.now()).await?;
        let version = ended.ok_or(LoginError::NoSession)?;
        let mut by = by.clone();
        if by.kind == ActorKind::User && by.name.is_empty() {
            // A cookie names its account by id alone.
            let owner = tx.users().find(user).await?;
            by.name = owner.map_or_else(String::new, |owner| owner.username).into();
        }
        let event = Event::new(Action::SessionEnded, "session", session);
        self.audit.commit(tx, &by, event.before(json!({ "user_id": user }))).await?;
        self.cache.sessions_ended(&[(session, version)]).await;
        Ok(())
    }

    /// Ends every session of the user.
    pub async fn end_all(&self, by: &Actor, user: UserId) -> Result<(), LoginError> {
        let mut tx = self.db.begin().await?;
        let ended = tx.login_sessions().end_all(user, None, self.clock.now()).await?;
        let event = Event::new(Action::SessionsEnded, "account", user);
        self.audit.commit(tx, by, event.after(json!({ "ended_sessions": ended.len() }))).await?;
        self.cache.sessions_ended(&ended).await;
        Ok(())
    }

    /// The user's live sessions, newest first.
    pub async fn sessions(
        &self,
        user: UserId,
        page: PageRequest,
    ) -> Result<Page<LoginSession>, LoginError> {
        let mut session = self.db.session().await?;
        Ok(session.login_sessions().list_live(user, self.clock.now(), page).await?)
    }

    /// Drops sessions that ended long enough ago to be of no interest.
    pub async fn prune(&self) -> Result<(), StoreError> {
        let before = self.clock.now() - KNOWN_FOR;
        loop {
            let mut tx = self.db.begin().await?;
            let dropped = tx.login_sessions().delete_ended_before(before).await?;
            tx.commit().await?;
            if dropped == 0 {
                return Ok(());
            }
        }
    }

    async fn begin_session(
        &self,
        checked: &Checked,
        refresh: Option<&PlainToken>,
        device: &Device,
    ) -> Result<LoginSession, LoginError> {
        let Checked { user, hash, renewed } = checked;
        let now = self.clock.now();
        let session = LoginSession {
            id: SessionId::new(now),
            user_id: user.id,
            device: device.user_agent.as_deref().map(|text| clean(text, 256)),
            address: Some(device.address.to_string()),
            created_at: now,
            last_used_at: now,
            expires_at: now + SESSION_LIFE,
            ended_at: None,
            version: 1,
        };
        let mut tx = self.db.begin().await?;
        // Written even if it is the same: a change of the password waits for
        // this transaction and then ends its session, or it came first and the
        // password that was checked is none any more.
        if !tx.users().replace_hash(user.id, hash, renewed.as_ref().unwrap_or(hash)).await? {
            return Err(LoginError::Invalid);
        }
        tx.login_sessions().insert(&session).await?;
        if let Some(token) = refresh {
            let record = RefreshToken {
                id: RefreshTokenId::new(now),
                session_id: session.id,
                hash: token.hash(),
                created_at: now,
                expires_at: now + REFRESH_IDLE,
                spent_at: None,
                successor_id: None,
            };
            tx.refresh_tokens().insert(&record).await?;
        }
        let ended = tx.login_sessions().end_oldest(user.id, MAX_SESSIONS, now).await?;
        let by = Actor::user(user.id, &user.username, device.origin());
        let event = Event::new(Action::LoginSucceeded, "session", session.id)
            .after(json!({ "expires_at": session.expires_at, "ended_sessions": ended.len() }));
        self.audit.commit(tx, &by, event).await?;
        self.cache.sessions_ended(&ended).await;
        Ok(session)
    }

    fn pair(&self, user: User, session_id: SessionId, refresh_token: PlainToken) -> TokenPair {
        let now = self.clock.now();
        let expires_in = self.token_life.as_secs();
        let claims = Claims {
            sub: user.id,
            username: user.username.clone(),
            roles: user.roles.iter().map(Role::as_str).map(str::to_owned).collect(),
            sid: session_id,
            jti: JwtId::new(now),
            iat: now.timestamp(),
            nbf: now.timestamp(),
            exp: now.timestamp() + i64::try_from(expires_in).unwrap_or(i64::MAX / 2),
            iss: self.keyring.issuer().to_owned(),
            aud: self.keyring.audience().to_owned(),
        };
        TokenPair { access_token: self.keyring.sign(&claims), expires_in, refresh_token, user }
    }
}
