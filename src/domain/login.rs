//! Login sessions and the refresh tokens that keep them alive.

use chrono::{DateTime, TimeDelta, Utc};

use super::{
    id::{RefreshTokenId, SessionId, UserId},
    token::TokenHash,
};

/// A refresh token that is not used for this long is dead (RFC 9700, 4.14.2).
pub const REFRESH_IDLE: TimeDelta = TimeDelta::days(7);
/// A login ends after this long, however often it is refreshed
/// (NIST SP 800-63B, AAL1: 30 days).
pub const SESSION_LIFE: TimeDelta = TimeDelta::days(30);

/// One login: what `sid` in a JWT names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginSession {
    pub id: SessionId,
    pub user_id: UserId,
    /// The client's `User-Agent`, cut to 256 characters.
    pub device: Option<String>,
    pub address: Option<String>,
    pub created_at: DateTime<Utc>,
    /// Moves at login and at every refresh, not with every request.
    pub last_used_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
    pub version: i64,
}

impl LoginSession {
    /// Whether the session's tokens work at `now`; dead *at* its end.
    pub fn is_live(&self, now: DateTime<Utc>) -> bool {
        self.ended_at.is_none() && now < self.expires_at
    }
}

/// One link in a session's chain of refresh tokens.
#[derive(Clone, Debug)]
pub struct RefreshToken {
    pub id: RefreshTokenId,
    pub session_id: SessionId,
    pub hash: TokenHash,
    pub created_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
    /// Set once, when the token was exchanged (or replaced unused).
    pub spent_at: Option<DateTime<Utc>>,
    /// The token it was last exchanged for.
    pub successor_id: Option<RefreshTokenId>,
}
