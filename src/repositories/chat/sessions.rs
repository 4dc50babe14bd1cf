//! Storage of chat sessions. Every change of one counts its version up.

use chrono::{DateTime, Utc};
use sqlx::QueryBuilder;

use super::{
    super::{StoreResult, connection::on_conn, row::limit},
    Chat,
    rows::SessionRow,
};
use crate::domain::{
    chat::ChatSession,
    id::{ChatSessionId, UserId},
    page::{Page, PageRequest},
    token::TokenHash,
};

/// Which sessions are meant; all without anything.
#[derive(Clone, Debug, Default)]
pub struct ChatFilter {
    pub origin_domain: Option<String>,
    pub user_id: Option<UserId>,
    /// Live at this instant, or not.
    pub live: Option<(bool, DateTime<Utc>)>,
}

/// A literal, for `concat!`.
macro_rules! columns {
    () => {
        "id, hash, previous_hash, previous_until, origin, origin_domain, page_url, browser, \
         network, user_id, created_at, expires_at, ended_at, messages, version"
    };
}

impl Chat<'_> {
    pub async fn insert_session(&mut self, session: &ChatSession) -> StoreResult<()> {
        const SQL: &str = "
            INSERT INTO chat_sessions
                (id, hash, origin, origin_domain, page_url, browser, network, user_id, created_at,
                 expires_at, messages, version)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0, 1)";

        on_conn!(self.conn, |conn| sqlx::query(SQL)
            .bind(session.id)
            .bind(session.hash.as_bytes())
            .bind(&session.origin)
            .bind(&session.origin_domain)
            .bind(&session.page_url)
            .bind(&session.print.browser[..])
            .bind(&session.print.network[..])
            .bind(session.user_id)
            .bind(session.created_at)
            .bind(session.expires_at)
            .execute(conn)
            .await
            .map(drop))
    }

    /// Unless it is condemned.
    pub async fn session(&mut self, id: ChatSessionId) -> StoreResult<Option<ChatSession>> {
        const SQL: &str =
            concat!("SELECT ", columns!(), " FROM chat_sessions WHERE id = $1 AND expires_at > $2");

        let row: Option<SessionRow> = on_conn!(self.conn, |conn| sqlx::query_as(SQL)
            .bind(id)
            .bind(ChatSession::CONDEMNED)
            .fetch_optional(conn)
            .await)?;
        row.map(ChatSession::try_from).transpose()
    }

    /// Whose cookie holds, or held before its last renewal, what this is the hash
    /// of.
    pub async fn session_of(&mut self, hash: &TokenHash) -> StoreResult<Option<ChatSession>> {
        const SQL: &str = concat!(
            "SELECT ",
            columns!(),
            " FROM chat_sessions WHERE hash = $1 OR previous_hash = $1"
        );

        let row: Option<SessionRow> = on_conn!(self.conn, |conn| sqlx::query_as(SQL)
            .bind(hash.as_bytes())
            .fetch_optional(conn)
            .await)?;
        row.map(ChatSession::try_from).transpose()
    }

    /// Gives a live session a new cookie and a later end, if it is still of this
    /// version: of those who renew it at once, one does.
    pub async fn renew_session(
        &mut self,
        before: &ChatSession,
        after: &ChatSession,
    ) -> StoreResult<bool> {
        const SQL: &str = "
            UPDATE chat_sessions
            SET hash = $3, previous_hash = $4, previous_until = $5, expires_at = $6,
                version = version + 1
            WHERE id = $1 AND version = $2 AND ended_at IS NULL";

        let (previous_hash, previous_until) = after.previous.unzip();
        on_conn!(self.conn, |conn| sqlx::query(SQL)
            .bind(before.id)
            .bind(before.version)
            .bind(after.hash.as_bytes())
            .bind(previous_hash.as_ref().map(TokenHash::as_bytes))
            .bind(previous_until)
            .bind(after.expires_at)
            .execute(conn)
            .await
            .map(|done| done.rows_affected() == 1))
    }

    /// Its new version; `None` if it had ended, or is none.
    pub async fn end_session(
        &mut self,
        id: ChatSessionId,
        now: DateTime<Utc>,
    ) -> StoreResult<Option<i64>> {
        const SQL: &str = "
            UPDATE chat_sessions SET ended_at = $2, version = version + 1
            WHERE id = $1 AND ended_at IS NULL
            RETURNING version";

        on_conn!(self.conn, |conn| sqlx::query_scalar(SQL)
            .bind(id)
            .bind(now)
            .fetch_optional(conn)
            .await)
    }

    /// Newest first.
    pub async fn sessions(
        &mut self,
        filter: &ChatFilter,
        page: PageRequest,
    ) -> StoreResult<Page<ChatSession>> {
        let ChatFilter { origin_domain, user_id, live } = filter;
        let rows: Vec<SessionRow> = on_conn!(self.conn, |conn| {
            let mut sql = QueryBuilder::new("SELECT ");
            sql.push(columns!()).push(" FROM chat_sessions WHERE expires_at > ");
            sql.push_bind(ChatSession::CONDEMNED);
            if let Some(domain) = origin_domain {
                sql.push(" AND origin_domain = ").push_bind(domain.clone());
            }
            if let Some(user) = user_id {
                sql.push(" AND user_id = ").push_bind(*user);
            }
            match live {
                Some((true, now)) => {
                    sql.push(" AND ended_at IS NULL AND expires_at > ").push_bind(*now);
                }
                Some((false, now)) => {
                    sql.push(" AND (ended_at IS NOT NULL OR expires_at <= ").push_bind(*now);
                    sql.push(")");
                }
                None => {}
            }
            if let Some(after) = page.after {
                sql.push(" AND id < ").push_bind(after.0);
            }
            sql.push(" ORDER BY id DESC LIMIT ").push_bind(limit(page));
            sql.build_query_as().fetch_all(conn).await
        })?;
        let all = rows.into_iter().map(ChatSession::try_from).collect::<StoreResult<_>>()?;
        Ok(Page::from_rows(all, page.limit, |session| session.id.as_uuid()))
    }
}
