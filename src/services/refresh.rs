//! Rotation of refresh tokens, with detection of reuse.
//!
//! Each token is exchanged once. One that was already exchanged is either a
//! thief's or the owner's whose answer was lost on the way. The two are told
//! apart by the successor: as long as that was never used, nobody has it for
//! sure, so it is replaced by another one (RELIABILITY G-88); once it was
//! used, two parties hold the chain and the whole session ends (RFC 9700,
//! 4.14.2).

use std::net::IpAddr;

use chrono::{DateTime, Utc};

use crate::{
    domain::{
        id::{RefreshTokenId, SessionId},
        login::{LoginSession, REFRESH_IDLE, RefreshToken},
        token::{PlainToken, TokenHash},
        user::User,
    },
    repositories::{Database, Repositories as _, StoreResult, Tx},
};

/// What became of a presented refresh token.
pub(super) enum Refreshed {
    New {
        user: Box<User>,
        session_id: SessionId,
        token: PlainToken,
    },
    /// Unknown, expired, or of a session that has ended.
    Refused,
    /// The session must end because of it.
    Reused {
        session_id: SessionId,
    },
}

/// Exchanges the token, deciding everything under the session's row, so that
/// any number of exchanges at once leave exactly one live successor.
pub(super) async fn exchange(
    db: &Database,
    hash: &TokenHash,
    now: DateTime<Utc>,
    address: IpAddr,
) -> StoreResult<Refreshed> {
    let Some(seen) = db.session().await?.refresh_tokens().find_by_hash(hash).await? else {
        return Ok(Refreshed::Refused);
    };
    let mut tx = db.begin().await?;
    // The write takes the row's lock: from here on this session is ours.
    tx.login_sessions().touch(seen.session_id, now, Some(&address.to_string())).await?;
    let Some((token, session, user)) = live_chain(&mut tx, hash, now).await? else {
        return Ok(Refreshed::Refused);
    };

    let plain = PlainToken::refresh(&mut rand::rng());
    let next = RefreshToken {
        id: RefreshTokenId::new(now),
        session_id: session.id,
        hash: plain.hash(),
        created_at: now,
        expires_at: (now + REFRESH_IDLE).min(session.expires_at),
        spent_at: None,
        successor_id: None,
    };
    tx.refresh_tokens().insert(&next).await?;
    if !succeed(&mut tx, &token, next.id, now).await? {
        // Rolls the new token back.
        return Ok(Refreshed::Reused { session_id: session.id });
    }
    tx.commit().await?;
    Ok(Refreshed::New { user: Box::new(user), session_id: session.id, token: plain })
}

/// The token with its session and user, if all three still count.
async fn live_chain(
    tx: &mut Tx,
    hash: &TokenHash,
    now: DateTime<Utc>,
) -> StoreResult<Option<(RefreshToken, LoginSession, User)>> {
    let Some(token) = tx.refresh_tokens().find_by_hash(hash).await? else { return Ok(None) };
    let Some(session) = tx.login_sessions().find(token.session_id).await? else { return Ok(None) };
    let Some(user) = tx.users().find(session.user_id).await? else { return Ok(None) };
    let counts = token.expires_at > now && session.is_live(now) && user.is_active;
    Ok(counts.then_some((token, session, user)))
}

/// Puts `next` into the chain after `token`; `false` when that is reuse.
async fn succeed(
    tx: &mut Tx,
    token: &RefreshToken,
    next: RefreshTokenId,
    now: DateTime<Utc>,
) -> StoreResult<bool> {
    if token.spent_at.is_none() {
        return tx.refresh_tokens().spend(token.id, next, now).await;
    }
    let Some(unheard) = token.successor_id else { return Ok(false) };
    // The lost answer's token dies, in one statement with the question whether
    // it was used. All that led to it lead to the new one, itself included: of
    // many exchanges at once a client may have kept any answer.
    Ok(tx.refresh_tokens().spend(unheard, next, now).await?
        && tx.refresh_tokens().relink(token.session_id, unheard, next).await?)
}
