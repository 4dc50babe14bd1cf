//! Forgets usage that is kept no longer.
//!
//! Each call does a bounded amount of work, so that no statement runs into its
//! time limit or holds up writers: call until it removes nothing. On Postgres
//! whole months of the large tables go at once, by [`Usage::drop_months`]; what
//! is left for the others is little.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::AssertSqlSafe;

use super::{
    Usage,
    cells::{Detail, table},
};
use crate::{
    domain::{id::LogPlace, span::Grain},
    repositories::{
        DbConn, StoreResult,
        connection::{LONG_DEADLINE, on_conn},
        row::count,
    },
};

impl Usage<'_> {
    /// Sees to it that usage of the month of `at` finds a table to go to. Any
    /// number of instances may ask at once. Nothing on SQLite.
    pub async fn add_month(&mut self, at: DateTime<Utc>) -> StoreResult<()> {
        const SQL: &str = "SELECT usage_add_month($1)";

        if matches!(self.conn, DbConn::Sqlite(_)) {
            return Ok(());
        }
        on_conn!(self.conn, |conn| sqlx::query(SQL).bind(at).execute(conn).await.map(drop))
    }

    /// Drops months of hourly sums and of the request log that had ended by
    /// `before`; how many tables. Nothing on SQLite.
    pub async fn drop_months(&mut self, before: DateTime<Utc>) -> StoreResult<u64> {
        const SQL: &str = "SELECT usage_drop_months($1)";

        if matches!(self.conn, DbConn::Sqlite(_)) {
            return Ok(0);
        }
        let dropped: i64 = on_conn!(self.conn, within LONG_DEADLINE, |conn| {
            sqlx::query_scalar(SQL).bind(before).fetch_one(conn).await
        })?;
        Ok(count(dropped))
    }

    /// Removes logged requests beyond the newest `keep`, oldest first, at most
    /// 5000 at once; returns how many.
    pub async fn prune_requests(&mut self, keep: u32) -> StoreResult<u64> {
        const SQL: &str = "
            DELETE FROM usage_requests WHERE place IN (
                SELECT place FROM usage_requests
                WHERE place <= (
                    SELECT place FROM usage_requests ORDER BY place DESC LIMIT 1 OFFSET $1)
                ORDER BY place LIMIT 5000)";

        on_conn!(self.conn, |conn| sqlx::query(SQL)
            .bind(i64::from(keep))
            .execute(conn)
            .await
            .map(|done| done.rows_affected()))
    }

    /// Removes logged requests that ended before `before`, at most 5000 at once;
    /// returns how many.
    pub async fn prune_requests_before(&mut self, before: DateTime<Utc>) -> StoreResult<u64> {
        const SQL: &str = "
            DELETE FROM usage_requests WHERE place IN (
                SELECT place FROM usage_requests WHERE place < $1 ORDER BY place LIMIT 5000)";

        on_conn!(self.conn, |conn| sqlx::query(SQL)
            .bind(LogPlace::first_of(before))
            .execute(conn)
            .await
            .map(|done| done.rows_affected()))
    }

    /// Removes sums of before `before`, beginning with the oldest: of each table
    /// at most one day of hours, a month of days, a year of months. Returns how
    /// many rows. For all tables to tell the same, `before` begins a month.
    pub async fn prune_sums_before(&mut self, before: DateTime<Utc>) -> StoreResult<u64> {
        let mut removed = 0;
        for (grain, detail, days) in [
            // Every sum is there in these.
            (Grain::Hour, Detail::Everything, 1),
            (Grain::Day, Detail::Nothing, 31),
            (Grain::Month, Detail::Nothing, 366),
        ] {
            let (table, detail) = (table(grain), detail.number());
            let oldest = format!("SELECT MIN(start) FROM {table} WHERE detail = {detail}");
            let oldest: Option<DateTime<Utc>> = on_conn!(self.conn, |conn| {
                sqlx::query_scalar(AssertSqlSafe(oldest)).fetch_one(conn).await
            })?;
            let Some(oldest) = oldest else { continue };
            let end = before.min(oldest + TimeDelta::days(days));
            let delete =
                format!("DELETE FROM {table} WHERE detail IN (0, 1, 2, 3, 4) AND start < $1");
            removed += on_conn!(self.conn, within LONG_DEADLINE, |conn| {
                let done = sqlx::query(AssertSqlSafe(delete)).bind(end).execute(conn).await;
                done.map(|done| done.rows_affected())
            })?;
        }
        Ok(removed)
    }
}
