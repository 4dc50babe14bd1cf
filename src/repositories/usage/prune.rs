//! Forgets usage that is kept no longer.
//!
//! Each call does a bounded amount of work, so that no statement runs into its
//! time limit or holds up writers: call until it removes nothing.

use chrono::{DateTime, TimeDelta, Utc};

use super::Usage;
use crate::repositories::{StoreResult, connection::on_conn};

impl Usage<'_> {
    /// Removes logged requests beyond the newest `keep`, oldest first, at most
    /// 5000 at once; returns how many.
    pub async fn prune_requests(&mut self, keep: u32) -> StoreResult<u64> {
        const SQL: &str = "
            DELETE FROM usage_requests WHERE id IN (
                SELECT id FROM usage_requests
                WHERE id <= (
                    SELECT id FROM usage_requests ORDER BY id DESC LIMIT 1 OFFSET $1)
                ORDER BY id LIMIT 5000)";

        on_conn!(self.conn, |conn| sqlx::query(SQL)
            .bind(i64::from(keep))
            .execute(conn)
            .await
            .map(|done| done.rows_affected()))
    }

    /// Removes logged requests that arrived before `before`, at most 5000 at
    /// once; returns how many.
    pub async fn prune_requests_before(&mut self, before: DateTime<Utc>) -> StoreResult<u64> {
        const SQL: &str = "
            DELETE FROM usage_requests WHERE id IN (
                SELECT id FROM usage_requests WHERE at < $1 ORDER BY at LIMIT 5000)";

        on_conn!(self.conn, |conn| sqlx::query(SQL)
            .bind(before)
            .execute(conn)
            .await
            .map(|done| done.rows_affected()))
    }

    /// Removes the sums of hours before `before`, beginning with the oldest, at
    /// most one day of them at once; returns how many rows.
    pub async fn prune_hourly_before(&mut self, before: DateTime<Utc>) -> StoreResult<u64> {
        const OLDEST: &str = "SELECT MIN(hour) FROM usage_hourly";
        const DELETE: [&str; 3] = [
            "DELETE FROM usage_hourly WHERE hour < $1",
            "DELETE FROM usage_latency WHERE hour < $1",
            "DELETE FROM usage_passes WHERE hour < $1",
        ];

        let oldest: Option<DateTime<Utc>> =
            on_conn!(self.conn, |conn| sqlx::query_scalar(OLDEST).fetch_one(conn).await)?;
        let Some(oldest) = oldest else { return Ok(0) };
        let end = before.min(oldest + TimeDelta::days(1));
        let mut removed = 0;
        for sql in DELETE {
            removed += on_conn!(self.conn, |conn| sqlx::query(sql)
                .bind(end)
                .execute(conn)
                .await
                .map(|done| done.rows_affected()))?;
        }
        Ok(removed)
    }
}
