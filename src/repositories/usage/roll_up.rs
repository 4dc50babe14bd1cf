//! Makes the rows of days and months, and those of fewer details, of hours that
//! are over.
//!
//! A mark tells how far that went. Whoever adds usage holds it where it is; to
//! move it is to wait for them, and they for it. So each hour is either all rolled
//! up, and what comes late is added to every row, or not at all.

use chrono::{DateTime, Utc};
use sqlx::AssertSqlSafe;

use super::{Usage, cells::derived, latency};
use crate::{
    domain::{
        id::{ApiKeyId, PassId, UserId},
        span::Grain,
        usage::{Histogram, Rollup, RollupKey},
    },
    repositories::{
        DbConn, StoreResult,
        connection::{LONG_DEADLINE, on_conn},
        row::count,
    },
};

/// Latencies of up to this many characters are left as they are.
const SHORT: u32 = 128;

#[derive(sqlx::FromRow)]
struct HourRow {
    user_id: UserId,
    key_id: ApiKeyId,
    pass_id: PassId,
    upstream: String,
    route: String,
    status_class: i16,
    requests: i64,
    rejected: i64,
    aborted: i64,
    bytes_in: i64,
    bytes_out: i64,
    duration_us: i64,
    stream_us: i64,
    messages: i64,
    latency: String,
}

impl HourRow {
    fn into_rollup(self, hour: DateTime<Utc>) -> StoreResult<(RollupKey, Rollup)> {
        let mut histogram = Histogram::default();
        latency::add(&self.latency, &mut histogram)?;
        let key = RollupKey {
            hour,
            user_id: self.user_id.non_nil(),
            key_id: self.key_id.non_nil(),
            pass_id: self.pass_id.non_nil(),
            upstream: self.upstream,
            route: self.route,
            status_class: self.status_class,
        };
        let sum = Rollup {
            requests: count(self.requests),
            rejected: count(self.rejected),
            aborted: count(self.aborted),
            bytes_in: count(self.bytes_in),
            bytes_out: count(self.bytes_out),
            duration_us: count(self.duration_us),
            stream_us: count(self.stream_us),
            messages: count(self.messages),
            latency: histogram,
        };
        Ok((key, sum))
    }
}

impl Usage<'_> {
    /// The end of the last hour that is rolled up. Only ever moves on.
    pub async fn rolled_until(&mut self) -> StoreResult<DateTime<Utc>> {
        const SQL: &str = "SELECT until FROM usage_rolled_up";

        on_conn!(self.conn, |conn| sqlx::query_scalar(SQL).fetch_one(conn).await)
    }

    /// The same; it stays there until the transaction ends.
    pub(super) async fn hold_rolled_until(&mut self) -> StoreResult<DateTime<Utc>> {
        self.lock_rolled_until("FOR SHARE").await
    }

    async fn lock_rolled_until(&mut self, lock: &str) -> StoreResult<DateTime<Utc>> {
        // SQLite has one writer at a time anyway.
        let lock = if matches!(self.conn, DbConn::Postgres(_)) { lock } else { "" };
        let sql = format!("SELECT until FROM usage_rolled_up {lock}");
        on_conn!(self.conn, within LONG_DEADLINE, |conn| {
            sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(conn).await
        })
    }

    /// The first hour before `before` that has usage and is not rolled up.
    pub async fn hour_to_roll_up(
        &mut self,
        before: DateTime<Utc>,
    ) -> StoreResult<Option<DateTime<Utc>>> {
        const SQL: &str = "
            SELECT MIN(start) FROM usage_hourly
            WHERE detail = 0 AND start < $1 AND start >= (SELECT until FROM usage_rolled_up)";

        on_conn!(self.conn, within LONG_DEADLINE, |conn| {
            sqlx::query_scalar(SQL).bind(before).fetch_one(conn).await
        })
    }

    /// Rolls `hour` up, which [`Usage::hour_to_roll_up`] named. `false`: somebody
    /// else did.
    pub async fn roll_up(&mut self, hour: DateTime<Utc>) -> StoreResult<bool> {
        const HOUR: &str = "
            SELECT user_id, key_id, pass_id, upstream, route, status_class, requests, rejected,
                aborted, bytes_in, bytes_out, duration_us, stream_us, messages, latency
            FROM usage_hourly WHERE detail = 0 AND start = $1";
        const MOVE: &str = "UPDATE usage_rolled_up SET until = $1";

        let until = self.lock_rolled_until("FOR UPDATE").await?;
        if self.hour_to_roll_up(Grain::Hour.next(hour)).await? != Some(hour) {
            tracing::debug!(%hour, %until, "this hour was rolled up elsewhere");
            return Ok(false);
        }
        let rows: Vec<HourRow> = on_conn!(self.conn, within LONG_DEADLINE, |conn| {
            sqlx::query_as(HOUR).bind(hour).fetch_all(conn).await
        })?;
        let rollups: StoreResult<Vec<_>> =
            rows.into_iter().map(|row| row.into_rollup(hour)).collect();
        self.add_cells(derived(&rollups?), 0).await?;
        let merged = latency::merged(&self.conn, "usage_hourly.latency");
        let shorten = format!(
            "UPDATE usage_hourly SET latency = {merged}
             WHERE detail = 0 AND start = $1 AND length(latency) > {SHORT}"
        );
        on_conn!(self.conn, within LONG_DEADLINE, |conn| {
            sqlx::query(AssertSqlSafe(shorten)).bind(hour).execute(&mut *conn).await?;
            sqlx::query(MOVE).bind(Grain::Hour.next(hour)).execute(conn).await.map(drop)
        })?;
        Ok(true)
    }
}
