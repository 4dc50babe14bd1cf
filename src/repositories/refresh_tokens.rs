//! Storage of refresh tokens. They go with their session.

use chrono::{DateTime, Utc};

use super::{DbConn, StoreError, StoreResult, connection::on_conn, row::token_hash};
use crate::domain::{
    id::{RefreshTokenId, SessionId},
    login::RefreshToken,
    token::TokenHash,
};

pub struct RefreshTokens<'c> {
    conn: DbConn<'c>,
}

#[derive(sqlx::FromRow)]
struct RefreshTokenRow {
    id: RefreshTokenId,
    session_id: SessionId,
    hash: Vec<u8>,
    created_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    spent_at: Option<DateTime<Utc>>,
    successor_id: Option<RefreshTokenId>,
}

impl TryFrom<RefreshTokenRow> for RefreshToken {
    type Error = StoreError;

    fn try_from(row: RefreshTokenRow) -> StoreResult<Self> {
        let RefreshTokenRow {
            id,
            session_id,
            hash,
            created_at,
            expires_at,
            spent_at,
            successor_id,
        } = row;
        let hash = token_hash(&hash)?;
        Ok(Self { id, session_id, hash, created_at, expires_at, spent_at, successor_id })
    }
}

impl<'c> RefreshTokens<'c> {
    pub(super) fn new(conn: DbConn<'c>) -> Self {
        Self { conn }
    }

    pub async fn insert(&mut self, token: &RefreshToken) -> StoreResult<()> {
        const SQL: &str = "
            INSERT INTO refresh_tokens
                (id, session_id, hash, created_at, expires_at, spent_at, successor_id)
            VALUES ($1, $2, $3, $4, $5, $6, $7)";

        on_conn!(self.conn, |conn| sqlx::query(SQL)
            .bind(token.id)
            .bind(token.session_id)
            .bind(token.hash.as_bytes())
            .bind(token.created_at)
            .bind(token.expires_at)
            .bind(token.spent_at)
            .bind(token.successor_id)
            .execute(conn)
            .await
            .map(drop))
    }

    /// Looks a token up by the digest of the presented text; returns spent and
    /// expired ones too, since their use says something.
    pub async fn find_by_hash(&mut self, hash: &TokenHash) -> StoreResult<Option<RefreshToken>> {
        const SQL: &str = "
            SELECT id, session_id, hash, created_at, expires_at, spent_at, successor_id
            FROM refresh_tokens
            WHERE hash = $1";

        let row: Option<RefreshTokenRow> = on_conn!(self.conn, |conn| sqlx::query_as(SQL)
            .bind(hash.as_bytes())
            .fetch_optional(conn)
            .await)?;
        row.map(RefreshToken::try_from).transpose()
    }

    pub async fn find(&mut self, id: RefreshTokenId) -> StoreResult<Option<RefreshToken>> {
        const SQL: &str = "
            SELECT id, session_id, hash, created_at, expires_at, spent_at, successor_id
            FROM refresh_tokens
            WHERE id = $1";

        let row: Option<RefreshTokenRow> =
            on_conn!(self.conn, |conn| sqlx::query_as(SQL).bind(id).fetch_optional(conn).await)?;
        row.map(RefreshToken::try_from).transpose()
    }

    /// Marks a token as exchanged for `successor`; `false` if it was before.
    ///
    /// Check and change are one statement: of callers that race, one wins.
    pub async fn spend(
        &mut self,
        id: RefreshTokenId,
        successor: RefreshTokenId,
        at: DateTime<Utc>,
    ) -> StoreResult<bool> {
        const SQL: &str = "
            UPDATE refresh_tokens SET spent_at = $3, successor_id = $2
            WHERE id = $1 AND spent_at IS NULL";

        on_conn!(self.conn, |conn| sqlx::query(SQL)
            .bind(id)
            .bind(successor)
            .bind(at)
            .execute(conn)
            .await
            .map(|done| done.rows_affected() == 1))
    }

    /// Replaces a successor that nobody used in all tokens of the session that
    /// name it; `false` if there is none such.
    pub async fn relink(
        &mut self,
        session: SessionId,
        old: RefreshTokenId,
        new: RefreshTokenId,
    ) -> StoreResult<bool> {
        const SQL: &str = "
            UPDATE refresh_tokens SET successor_id = $3
            WHERE session_id = $1 AND successor_id = $2";

        on_conn!(self.conn, |conn| sqlx::query(SQL)
            .bind(session)
            .bind(old)
            .bind(new)
            .execute(conn)
            .await
            .map(|done| done.rows_affected() > 0))
    }
}
