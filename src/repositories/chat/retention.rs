//! What ends answers that nobody writes any more, and forgets old conversations.

use chrono::{DateTime, Utc};

use super::{
    super::{StoreResult, connection::on_conn},
    Chat,
};
use crate::domain::id::{ChatMessageId, ChatWriterId};

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

    /// Forgets up to `most` sessions that were over by `before`, with all that
    /// was said in them; how many.
    pub async fn prune_sessions(&mut self, before: DateTime<Utc>, most: u32) -> StoreResult<u64> {
        const SQL: &str = "
            DELETE FROM chat_sessions WHERE id IN (
                SELECT id FROM chat_sessions WHERE expires_at <= $1
                ORDER BY expires_at LIMIT $2)";

        on_conn!(self.conn, |conn| sqlx::query(SQL)
            .bind(before)
            .bind(i64::from(most))
            .execute(conn)
            .await
            .map(|done| done.rows_affected()))
    }
}
