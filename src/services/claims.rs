//! What is said in the JWTs of ours, and the types that keep them apart.
//!
//! Each kind has a `typ` of its own (RFC 8725, 3.11): none is taken for
//! another, though one key signs them all.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::keyring::LEEWAY;
use crate::domain::{
    id::{ApiKeyId, JwtId, PassId, SessionId, UserId},
    user::Roles,
};

/// The kinds of tokens that the keyring signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A login's token for programs (RFC 9068, 2.1).
    Access,
    /// A browser's login cookie.
    Cookie,
    /// What an upstream is told about who asks. Nobody may ask with it.
    Assertion,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Access, Self::Cookie, Self::Assertion];

    /// The `typ` of the header.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Access => "at+jwt",
            Self::Cookie => "tgc+jwt",
            Self::Assertion => "tga+jwt",
        }
    }
}

/// Something that the keyring signs.
pub trait Signed: Serialize {
    const KIND: Kind;
}

/// Something that is presented to us and that the keyring verifies.
pub trait Presentable: Signed + DeserializeOwned {
    fn registered(&self) -> Registered<'_>;
}

/// The claims that every presented token is checked by.
#[derive(Clone, Copy, Debug)]
pub struct Registered<'c> {
    pub issued_at: i64,
    pub not_before: i64,
    pub expires_at: i64,
    pub issuer: &'c str,
    pub audience: &'c str,
}

/// What an access token says. Every claim is required; none is optional.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Claims {
    pub sub: UserId,
    pub username: String,
    pub roles: Vec<String>,
    /// The login session; ending it ends the token.
    pub sid: SessionId,
    pub jti: JwtId,
    pub iat: i64,
    pub nbf: i64,
    pub exp: i64,
    pub iss: String,
    pub aud: String,
}

impl Claims {
    /// From this instant on it is refused: its `exp` and [`LEEWAY`].
    pub fn good_until(&self) -> DateTime<Utc> {
        let end = self.exp.saturating_add(LEEWAY.num_seconds());
        DateTime::from_timestamp(end, 0).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }
}

/// What a login cookie says: less, since only we read it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CookieClaims {
    pub sub: UserId,
    /// Those that the account had. With others the cookie is good for nothing, so
    /// that nobody rises or falls by an old one.
    pub roles: Roles,
    pub sid: SessionId,
    pub iat: i64,
    pub exp: i64,
    pub iss: String,
    pub aud: String,
}

/// What an upstream is told. One of `sid`, `key_id` and `token_id` says by what
/// the user was proven.
#[derive(Clone, Debug, Serialize)]
pub struct AssertionClaims<'a> {
    pub sub: UserId,
    pub username: &'a str,
    pub roles: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sid: Option<SessionId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_id: Option<ApiKeyId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_id: Option<PassId>,
    pub jti: JwtId,
    pub iat: i64,
    pub nbf: i64,
    pub exp: i64,
    pub iss: &'a str,
    /// The upstream's name.
    pub aud: &'a str,
}

impl Signed for Claims {
    const KIND: Kind = Kind::Access;
}

impl Signed for CookieClaims {
    const KIND: Kind = Kind::Cookie;
}

impl Signed for AssertionClaims<'_> {
    const KIND: Kind = Kind::Assertion;
}

impl Presentable for Claims {
    fn registered(&self) -> Registered<'_> {
        Registered {
            issued_at: self.iat,
            not_before: self.nbf,
            expires_at: self.exp,
            issuer: &self.iss,
            audience: &self.aud,
        }
    }
}

impl Presentable for CookieClaims {
    fn registered(&self) -> Registered<'_> {
        Registered {
            issued_at: self.iat,
            not_before: self.iat,
            expires_at: self.exp,
            issuer: &self.iss,
            audience: &self.aud,
        }
    }
}
