//! Logins of browsers: cookies issued, proven, renewed and ended.
//!
//! A login cookie is a token of a kind of its own that names a login session;
//! ending the session, from wherever, ends it. It lasts [`IDLE`] and is renewed
//! while it is used, never beyond its session. The other cookie holds the text
//! of an access token, for customers without a login.
//!
//! What a cookie may do is not decided here: it opens upstreams and nothing
//! else, which is the gateway's to hold.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use secrecy::{ExposeSecret as _, SecretString};

use super::{
    AccessService, AuditService, Keyring, LoginService,
    access::{AccessError, Presented, Proven},
    audit::Refused,
    claims::CookieClaims,
    forms::Forms,
    login_throttle::LoginThrottle,
    logins::{Device, LoginError},
};
use crate::{
    domain::{
        audit::{Actor, SYSTEM},
        clock::SharedClock,
        id::{SessionId, UserId},
        principal::Principal,
        user::Roles,
    },
    repositories::StoreError,
};

/// A login cookie that is not used for this long is dead.
pub const IDLE: TimeDelta = TimeDelta::hours(24);
/// How long a browser keeps an access token that was never used: as long as a
/// login lasts at most.
const UNUSED: TimeDelta = TimeDelta::days(30);

/// Our cookies of one request, unproven.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cookies<'h> {
    /// A login's.
    pub login: Option<&'h str>,
    /// The text of an access token.
    pub pass: Option<&'h str>,
}

/// A cookie's value for a browser to keep.
pub struct Issued {
    pub value: SecretString,
    pub life: TimeDelta,
}

/// Somebody proven by a cookie.
#[derive(Clone, Debug)]
pub struct Visitor {
    pub principal: Principal,
    /// `None`: an access token, which is not renewed.
    login: Option<Login>,
}

/// A proven login cookie.
#[derive(Clone, Debug)]
struct Login {
    user: UserId,
    session: SessionId,
    issued_at: i64,
    expires_at: i64,
    session_ends: DateTime<Utc>,
}

/// What the service is built from.
pub struct Parts {
    pub logins: Arc<LoginService>,
    pub access: Arc<AccessService>,
    pub keyring: Arc<Keyring>,
    pub throttle: LoginThrottle,
    pub forms: Forms,
    pub audit: Arc<AuditService>,
    pub clock: SharedClock,
}

pub struct BrowserService {
    logins: Arc<LoginService>,
    access: Arc<AccessService>,
    keyring: Arc<Keyring>,
    throttle: LoginThrottle,
    forms: Forms,
    audit: Arc<AuditService>,
    clock: SharedClock,
}

impl BrowserService {
    pub fn new(parts: Parts) -> Self {
        let Parts { logins, access, keyring, throttle, forms, audit, clock } = parts;
        Self { logins, access, keyring, throttle, forms, audit, clock }
    }

    pub fn forms(&self) -> &Forms {
        &self.forms
    }

    /// Begins a login session for a browser. The one that it had before ends:
    /// no id from before a login is good after it.
    pub async fn sign_in(
        &self,
        name: &str,
        password: &SecretString,
        device: &Device,
        before: Cookies<'_>,
    ) -> Result<(UserId, Issued), LoginError> {
        let (user, session) = self.logins.login_browser(name, password, device).await?;
        self.sign_out(device, before).await?;
        let roles = match self.access.session(user, session.id).await {
            Ok(Proven { principal, .. }) => principal.account.roles,
            // Ended or disabled since.
            Err(AccessError::Invalid) => return Err(LoginError::Invalid),
            Err(AccessError::Store(error)) => return Err(error.into()),
        };
        let issued = self.issue(user, roles, session.id, session.expires_at);
        Ok((user, issued))
    }

    /// Lets a browser in by an access token. Its time does not begin by that.
    pub async fn sign_in_with_token(
        &self,
        text: &SecretString,
        device: &Device,
        before: Cookies<'_>,
    ) -> Result<(UserId, Issued), LoginError> {
        let refused = |why| self.audit.attempts().count(why, None, device.address);
        let charged = self.throttle.charge_token(device.address).await;
        let attempt = charged.map_err(|state| {
            refused(Refused::Throttled);
            LoginError::Throttled(state)
        })?;
        let text = text.expose_secret().trim();
        let cookies = Cookies { pass: Some(text), login: None };
        let visitor = self.prove(cookies).await?.ok_or_else(|| {
            refused(Refused::Wrong);
            LoginError::Invalid
        })?;
        self.throttle.give_back(&attempt).await;
        self.sign_out(device, before).await?;
        let ends = visitor.principal.pass().and_then(|pass| pass.expires_at());
        let life = ends.map_or(UNUSED, |end| end - self.clock.now());
        Ok((visitor.principal.user_id(), Issued { value: text.into(), life }))
    }

    /// Ends the login session of these cookies, if there is one, on every
    /// instance. An access token stays what it is.
    pub async fn sign_out(&self, device: &Device, cookies: Cookies<'_>) -> Result<(), LoginError> {
        let claims = cookies.login.and_then(|text| self.claims(text));
        match claims {
            Some(claims) => {
                let by = Actor::user(claims.sub, "", device.origin());
                self.logins.log_out(&by, claims.sub, claims.sid).await
            }
            None => Ok(()),
        }
    }

    /// Who has these cookies; the access token first, as everywhere. A bad one
    /// counts as none.
    pub async fn prove(&self, cookies: Cookies<'_>) -> Result<Option<Visitor>, StoreError> {
        if let Some(text) = cookies.pass {
            let presented = Presented { access_token: Some(text), ..Presented::default() };
            match self.access.authenticate(presented).await {
                Ok(Some(principal)) => return Ok(Some(Visitor { principal, login: None })),
                Ok(None) | Err(AccessError::Invalid) => {}
                Err(AccessError::Store(error)) => return Err(error),
            }
        }
        let Some(claims) = cookies.login.and_then(|text| self.claims(text)) else {
            return Ok(None);
        };
        match self.access.session(claims.sub, claims.sid).await {
            // A change of privilege asks for a new login, and so for a new id
            // (RELIABILITY G-95).
            Ok(Proven { principal, .. }) if principal.account.roles != claims.roles => {
                match self.logins.log_out(&SYSTEM, claims.sub, claims.sid).await {
                    Err(LoginError::Store(error)) => Err(error),
                    _ => Ok(None),
                }
            }
            Ok(Proven { principal, until }) => {
                let session_ends = until.unwrap_or(DateTime::<Utc>::MAX_UTC);
                let CookieClaims { sub, sid, iat, exp, .. } = claims;
                let login = Login {
                    user: sub,
                    session: sid,
                    issued_at: iat,
                    expires_at: exp,
                    session_ends,
                };
                Ok(Some(Visitor { principal, login: Some(login) }))
            }
            Err(AccessError::Invalid) => Ok(None),
            Err(AccessError::Store(error)) => Err(error),
        }
    }

    /// A login cookie in place of one that is past half its life, unless it
    /// would not last longer.
    pub fn renewed(&self, visitor: &Visitor) -> Option<Issued> {
        let login = visitor.login.as_ref()?;
        let Login { user, session, issued_at, expires_at, session_ends } = login;
        let half = issued_at + (expires_at - issued_at) / 2;
        let would_last = self.end(*session_ends).timestamp();
        (self.clock.now().timestamp() >= half && would_last > *expires_at)
            .then(|| self.issue(*user, visitor.principal.account.roles, *session, *session_ends))
    }

    fn issue(
        &self,
        user: UserId,
        roles: Roles,
        session: SessionId,
        session_ends: DateTime<Utc>,
    ) -> Issued {
        let now = self.clock.now();
        let end = self.end(session_ends);
        let claims = CookieClaims {
            sub: user,
            roles,
            sid: session,
            iat: now.timestamp(),
            exp: end.timestamp(),
            iss: self.keyring.issuer().to_owned(),
            aud: self.keyring.audience().to_owned(),
        };
        Issued { value: self.keyring.sign(&claims).into(), life: end - now }
    }

    fn end(&self, session_ends: DateTime<Utc>) -> DateTime<Utc> {
        (self.clock.now() + IDLE).min(session_ends)
    }

    fn claims(&self, text: &str) -> Option<CookieClaims> {
        self.keyring.verify(text, self.clock.now()).ok()
    }
}
