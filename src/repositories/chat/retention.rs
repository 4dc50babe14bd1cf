//! What ends answers that nobody writes any more, and forgets old conversations.

use chrono::{DateTime, Utc};

use super::{
    super::{StoreResult, connection::on_conn},
    Chat,
};
use crate::domain::{
    chat::ChatSession,
    id::{ChatMessageId, ChatSessionId, ChatWriterId},
};

impl Chat<'_> {
    /// Answers under way whose lease was over by `now`, up to `most`, and who had
    /// them.
    pub async fn abandoned(
        &mut self,
        now: DateTime<Utc>,
        most: u32,
    ) -> StoreResult<Vec<(ChatMessageId, ChatWriterId)>> {
        const SQL: &str = "
            SELECT id, writer FROM chat_messages
            WHERE status = 'streaming' AND lease_until <= $1
            ORDER BY lease_until LIMIT $2";

        on_conn!(self.conn, |conn| sqlx::query_as(SQL)
            .bind(now)
            .bind(i64::from(most))
            .fetch_all(conn)
            .await)
    }

    /// Takes an answer from who had it, if its lease is still over by `now`;
    /// whether that is `taker` now.
    pub async fn take_abandoned(
        &mut self,
        id: ChatMessageId,
        taker: ChatWriterId,
        now: DateTime<Utc>,
    ) -> StoreResult<bool> {
        const SQL: &str = "
            UPDATE chat_messages SET writer = $2
            WHERE id = $1 AND status = 'streaming' AND lease_until <= $3";

        on_conn!(self.conn, |conn| sqlx::query(SQL)
            .bind(id)
            .bind(taker)
            .bind(now)
            .execute(conn)
            .await
            .map(|done| done.rows_affected() == 1))
    }

    /// Ends a session for good: nobody sees it from now on, and it goes with what was
    /// said in it. Its new version; `None` if there is none.
    pub async fn condemn_session(
        &mut self,
        id: ChatSessionId,
        now: DateTime<Utc>,
    ) -> StoreResult<Option<i64>> {
        const SQL: &str = "
            UPDATE chat_sessions
            SET ended_at = coalesce(ended_at, $2), expires_at = $3, version = version + 1
            WHERE id = $1 AND expires_at > $3
            RETURNING version";

        on_conn!(self.conn, |conn| sqlx::query_scalar(SQL)
            .bind(id)
            .bind(now)
            .bind(ChatSession::CONDEMNED)
            .fetch_optional(conn)
            .await)
    }

    /// Forgets up to `most` messages of sessions that were over by `before`; how
    /// many.
    pub async fn prune_messages(&mut self, before: DateTime<Utc>, most: u32) -> StoreResult<u64> {
        const SQL: &str = "
            DELETE FROM chat_messages WHERE id IN (
                SELECT m.id FROM chat_sessions s
                JOIN chat_messages m ON m.session_id = s.id
                WHERE s.expires_at <= $1 LIMIT $2)";

        on_conn!(self.conn, |conn| sqlx::query(SQL)
            .bind(before)
            .bind(i64::from(most))
            .execute(conn)
            .await
            .map(|done| done.rows_affected()))
    }

    /// Forgets up to `most` sessions that were over by `before` and of which nothing
    /// else is left; how many.
    pub async fn prune_sessions(&mut self, before: DateTime<Utc>, most: u32) -> StoreResult<u64> {
        const SQL: &str = "
            DELETE FROM chat_sessions WHERE id IN (
                SELECT id FROM chat_sessions s WHERE expires_at <= $1
                AND NOT EXISTS (SELECT 1 FROM chat_messages WHERE session_id = s.id)
                ORDER BY expires_at LIMIT $2)";

        on_conn!(self.conn, |conn| sqlx::query(SQL)
            .bind(before)
            .bind(i64::from(most))
            .execute(conn)
            .await
            .map(|done| done.rows_affected()))
    }
}
