//! Storage of login sessions.
//!
//! Whether a session still works is [`LoginSession::is_live`]'s to say; a
//! query that is limited to live ones applies the same rule.

use chrono::{DateTime, Utc};
use sqlx::QueryBuilder;

use super::{DbConn, StoreResult, connection::on_conn, row};
use crate::domain::{
    id::{SessionId, UserId},
    login::LoginSession,
    page::{Page, PageRequest},
};

pub struct LoginSessions<'c> {
    conn: DbConn<'c>,
}

#[derive(sqlx::FromRow)]
struct LoginSessionRow {
    id: SessionId,
    user_id: UserId,
    device: Option<String>,
    address: Option<String>,
    created_at: DateTime<Utc>,
    last_used_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
    version: i64,
}

impl From<LoginSessionRow> for LoginSession {
    fn from(row: LoginSessionRow) -> Self {
        let LoginSessionRow {
            id,
            user_id,
            device,
            address,
            created_at,
            last_used_at,
            expires_at,
            ended_at,
            version,
        } = row;
        Self {
            id,
            user_id,
            device,
            address,
            created_at,
            last_used_at,
            expires_at,
            ended_at,
            version,
        }
    }
}

impl<'c> LoginSessions<'c> {
    pub(super) fn new(conn: DbConn<'c>) -> Self {
        Self { conn }
    }

    pub async fn insert(&mut self, session: &LoginSession) -> StoreResult<()> {
        const SQL: &str = "
            INSERT INTO login_sessions
                (id, user_id, device, address, created_at, last_used_at, expires_at, ended_at,
                 version)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";

        on_conn!(self.conn, |conn| sqlx::query(SQL)
            .bind(session.id)
            .bind(session.user_id)
            .bind(&session.device)
            .bind(&session.address)
            .bind(session.created_at)
            .bind(session.last_used_at)
            .bind(session.expires_at)
            .bind(session.ended_at)
            .bind(session.version)
            .execute(conn)
            .await
            .map(drop))
    }

    /// Returns ended and expired sessions too.
    pub async fn find(&mut self, id: SessionId) -> StoreResult<Option<LoginSession>> {
        const SQL: &str = "
            SELECT id, user_id, device, address, created_at, last_used_at, expires_at, ended_at,
                   version
            FROM login_sessions
            WHERE id = $1";

        let row: Option<LoginSessionRow> =
            on_conn!(self.conn, |conn| sqlx::query_as(SQL).bind(id).fetch_optional(conn).await)?;
        Ok(row.map(LoginSession::from))
    }

    /// The live sessions of a user, newest first.
    pub async fn list_live(
        &mut self,
        user: UserId,
        now: DateTime<Utc>,
        page: PageRequest,
    ) -> StoreResult<Page<LoginSession>> {
        const SQL: &str = "
            SELECT id, user_id, device, address, created_at, last_used_at, expires_at, ended_at,
                   version
            FROM login_sessions
            WHERE ended_at IS NULL AND user_id = ";

        let rows: Vec<LoginSessionRow> = on_conn!(self.conn, |conn| {
            let mut sql = QueryBuilder::new(SQL);
            sql.push_bind(user).push(" AND expires_at > ").push_bind(now);
            if let Some(after) = page.after {
                sql.push(" AND id < ").push_bind(after.0);
            }
            sql.push(" ORDER BY id DESC LIMIT ").push_bind(row::limit(page));
            sql.build_query_as().fetch_all(conn).await
        })?;
        let page = Page::from_rows(rows, page.limit, |row| row.id.as_uuid());
        Ok(page.map(LoginSession::from))
    }

    /// Notes a use. Without an address the last one stays; the version stays
    /// in any case, no decision depends on these.
    pub async fn touch(
        &mut self,
        id: SessionId,
        at: DateTime<Utc>,
        address: Option<&str>,
    ) -> StoreResult<()> {
        const SQL: &str = "
            UPDATE login_sessions SET last_used_at = $2, address = COALESCE($3, address)
            WHERE id = $1";

        on_conn!(self.conn, |conn| sqlx::query(SQL)
            .bind(id)
            .bind(at)
            .bind(address)
            .execute(conn)
            .await
            .map(drop))
    }

    /// Ends a session of `user` and returns its new version; `None` when there
    /// is none such or it has ended already.
    pub async fn end(
        &mut self,
        id: SessionId,
        user: UserId,
        at: DateTime<Utc>,
    ) -> StoreResult<Option<i64>> {
        const SQL: &str = "
            UPDATE login_sessions SET ended_at = $3, version = version + 1
            WHERE id = $1 AND user_id = $2 AND ended_at IS NULL
            RETURNING version";

        on_conn!(self.conn, |conn| sqlx::query_scalar(SQL)
            .bind(id)
            .bind(user)
            .bind(at)
            .fetch_optional(conn)
            .await)
    }

    /// As [`Self::end`], whoever the session belongs to.
    pub async fn end_by_id(
        &mut self,
        id: SessionId,
        at: DateTime<Utc>,
    ) -> StoreResult<Option<i64>> {
        const SQL: &str = "
            UPDATE login_sessions SET ended_at = $2, version = version + 1
            WHERE id = $1 AND ended_at IS NULL
            RETURNING version";

        on_conn!(self.conn, |conn| sqlx::query_scalar(SQL)
            .bind(id)
            .bind(at)
            .fetch_optional(conn)
            .await)
    }

    /// Ends every session of `user`, but for `except`; returns each that ended
    /// with its new version.
    pub async fn end_all(
        &mut self,
        user: UserId,
        except: Option<SessionId>,
        at: DateTime<Utc>,
    ) -> StoreResult<Vec<(SessionId, i64)>> {
        const SQL: &str = "
            UPDATE login_sessions SET ended_at = $3, version = version + 1
            WHERE user_id = $1 AND id <> $2 AND ended_at IS NULL
            RETURNING id, version";

        on_conn!(self.conn, |conn| sqlx::query_as(SQL)
            .bind(user)
            .bind(except.unwrap_or(SessionId::NIL))
            .bind(at)
            .fetch_all(conn)
            .await)
    }

    /// Ends the oldest live sessions of `user` so that at most `keep` remain;
    /// returns each that ended with its new version.
    pub async fn end_oldest(
        &mut self,
        user: UserId,
        keep: u32,
        now: DateTime<Utc>,
    ) -> StoreResult<Vec<(SessionId, i64)>> {
        const SQL: &str = "
            UPDATE login_sessions SET ended_at = $3, version = version + 1
            WHERE user_id = $1 AND ended_at IS NULL AND expires_at > $3
                AND id <= (
                    SELECT id FROM login_sessions
                    WHERE user_id = $1 AND ended_at IS NULL AND expires_at > $3
                    ORDER BY id DESC LIMIT 1 OFFSET $2)
            RETURNING id, version";

        on_conn!(self.conn, |conn| sqlx::query_as(SQL)
            .bind(user)
            .bind(i64::from(keep))
            .bind(now)
            .fetch_all(conn)
            .await)
    }

    /// Whether the account with this name or e-mail address, folded, opened a
    /// session from `address` after `since`.
    pub async fn has_login_from(
        &mut self,
        folded_login: &str,
        address: &str,
        since: DateTime<Utc>,
    ) -> StoreResult<bool> {
        const SQL: &str = "
            SELECT EXISTS (
                SELECT 1 FROM users u JOIN login_sessions s ON s.user_id = u.id
                WHERE (u.username_key = $1 OR u.email_key = $1)
                    AND s.address = $2 AND s.created_at > $3)";

        on_conn!(self.conn, |conn| sqlx::query_scalar(SQL)
            .bind(folded_login)
            .bind(address)
            .bind(since)
            .fetch_one(conn)
            .await)
    }

    /// Removes sessions that ended or expired before `before`, with their
    /// tokens: at most 1000 at once, so call it until it removes fewer.
    pub async fn delete_ended_before(&mut self, before: DateTime<Utc>) -> StoreResult<u64> {
        const SQL: &str = "
            DELETE FROM login_sessions WHERE id IN (
                SELECT id FROM login_sessions
                WHERE ended_at < $1 OR expires_at < $1
                LIMIT 1000)";

        on_conn!(self.conn, |conn| sqlx::query(SQL)
            .bind(before)
            .execute(conn)
            .await
            .map(|done| done.rows_affected()))
    }
}
