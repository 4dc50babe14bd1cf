//! How far each journal was taken into the sums.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::Usage;
use crate::repositories::{
    StoreResult,
    connection::on_conn,
    row::{count, narrow, stored},
};

impl Usage<'_> {
    /// Up to where each lane of a journal is in the sums; none for those that
    /// were never drained.
    pub async fn journal_positions(&mut self, journal: Uuid) -> StoreResult<Vec<(u16, u64)>> {
        const SQL: &str = "
            SELECT CAST(lane AS bigint), position FROM usage_journals WHERE journal = $1
            ORDER BY lane";

        let rows: Vec<(i64, i64)> =
            on_conn!(self.conn, |conn| sqlx::query_as(SQL).bind(journal).fetch_all(conn).await)?;
        rows.into_iter().map(|(lane, at)| Ok((narrow("lane", lane)?, count(at)))).collect()
    }

    /// Moves the mark of a lane from `from` to `to`. `false`: it is not at
    /// `from`, so somebody else, or this very call before, moved it; then
    /// nothing of what lies between may be added. Where there is no mark it is
    /// set.
    pub async fn advance_journal(
        &mut self,
        journal: Uuid,
        lane: u16,
        from: u64,
        to: u64,
        now: DateTime<Utc>,
    ) -> StoreResult<bool> {
        const SQL: &str = "
            INSERT INTO usage_journals (journal, lane, position, updated_at)
            VALUES ($1, $2, $4, $5)
            ON CONFLICT (journal, lane) DO UPDATE SET
                position = excluded.position, updated_at = excluded.updated_at
            WHERE usage_journals.position = $3";

        on_conn!(self.conn, |conn| sqlx::query(SQL)
            .bind(journal)
            .bind(i32::from(lane))
            .bind(stored(from))
            .bind(stored(to))
            .bind(now)
            .execute(conn)
            .await
            .map(|done| done.rows_affected() == 1))
    }

    /// Forgets the marks of a journal that is no more.
    pub async fn forget_journal(&mut self, journal: Uuid) -> StoreResult<()> {
        const SQL: &str = "DELETE FROM usage_journals WHERE journal = $1";

        on_conn!(self.conn, |conn| sqlx::query(SQL).bind(journal).execute(conn).await.map(drop))
    }

    /// Forgets marks that did not move since `before`; how many. A journal whose
    /// mark is forgotten would be added a second time.
    pub async fn prune_journals(&mut self, before: DateTime<Utc>) -> StoreResult<u64> {
        const SQL: &str = "DELETE FROM usage_journals WHERE updated_at < $1";

        on_conn!(self.conn, |conn| sqlx::query(SQL)
            .bind(before)
            .execute(conn)
            .await
            .map(|done| done.rows_affected()))
    }
}
