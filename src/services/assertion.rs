//! What an upstream is told about who asks, signed: it can be checked with our
//! key set, also where somebody else can reach the upstream.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Keyring, claims::AssertionClaims};
use crate::domain::{
    id::JwtId,
    principal::{Credential, Principal},
    user::Role,
};

/// How long one is good for.
pub const LIFE: TimeDelta = TimeDelta::seconds(60);

/// A token about `principal` for the upstream of this name.
pub fn assertion(
    keyring: &Keyring,
    principal: &Principal,
    upstream: &str,
    now: DateTime<Utc>,
) -> String {
    let sid = match principal.credential {
        Credential::Login(session) => Some(session),
        Credential::ApiKey(_) | Credential::Pass(_) => None,
    };
    keyring.sign(&AssertionClaims {
        sub: principal.user_id(),
        username: &principal.account.username,
        roles: principal.account.roles.iter().map(Role::as_str).collect(),
        sid,
        key_id: principal.key_id(),
        token_id: principal.pass_id(),
        jti: JwtId::new(now),
        iat: now.timestamp(),
        nbf: now.timestamp(),
        exp: (now + LIFE).timestamp(),
        iss: keyring.issuer(),
        aud: upstream,
    })
}
