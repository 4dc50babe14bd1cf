//! Makes the rows of days and months, and those of fewer details, of hours that
//! are over.
//!
//! A mark tells how far that went. Whoever adds usage holds it where it is; to
//! move it is to wait for them, and they for it. So an hour is rolled up in pieces,
//! each of whole callers and in a transaction of its own, and nobody waits for
//! longer than one takes. While an hour is under way the mark is behind it and says
//! of whom it is done: what comes late of those is added to every row, what comes of
//! the others is still to be read. No report reads a row that is half made: it takes
//! such an hour for one that is not rolled up.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

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
/// A piece has so many rows of an hour, and those that are left of its last caller.
pub const PIECE: usize = 256;

/// Who uses something: what the rows of an hour are ordered by first.
pub(super) type CallerIds = (Uuid, Uuid, Uuid);

/// How far usage is rolled up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// The end of the last hour that was begun.
    until: DateTime<Utc>,
    /// Of that hour, while it is not done: the last caller who is.
    done: Option<CallerIds>,
}

impl Mark {
    /// The end of the last hour that is done.
    fn rolled_until(self) -> DateTime<Utc> {
        if self.done.is_some() { self.until - TimeDelta::hours(1) } else { self.until }
    }

    /// Whether what comes of these must be added to all that was made of its hour.
    pub(super) fn is_late(self, hour: DateTime<Utc>, of: CallerIds) -> bool {
        hour < self.rolled_until() || hour < self.until && self.done.is_some_and(|done| of <= done)
    }
}

/// What became of an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RolledUp {
    /// Somebody else is at it.
    Elsewhere,
    /// More of it is to come.
    Partly,
    Wholly,
}

#[derive(sqlx::FromRow)]
struct MarkRow {
    until: DateTime<Utc>,
    done_user_id: Option<Uuid>,
    done_key_id: Option<Uuid>,
    done_pass_id: Option<Uuid>,
}

impl From<MarkRow> for Mark {
    fn from(row: MarkRow) -> Self {
        let MarkRow { until, done_user_id, done_key_id, done_pass_id } = row;
        let done = done_user_id.zip(done_key_id).zip(done_pass_id);
        Self { until, done: done.map(|((user, key), pass)| (user, key, pass)) }
    }
}

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
        self.mark("").await.map(Mark::rolled_until)
    }

    /// How far that went; it stays there until the transaction ends.
    pub(super) async fn hold_mark(&mut self) -> StoreResult<Mark> {
        self.mark("FOR SHARE").await
    }

    async fn mark(&mut self, lock: &str) -> StoreResult<Mark> {
        // SQLite has one writer at a time anyway.
        let lock = if matches!(self.conn, DbConn::Postgres(_)) { lock } else { "" };
        let sql = format!(
            "SELECT until, done_user_id, done_key_id, done_pass_id FROM usage_rolled_up {lock}"
        );
        let row: MarkRow = on_conn!(self.conn, within LONG_DEADLINE, |conn| {
            sqlx::query_as(AssertSqlSafe(sql)).fetch_one(conn).await
        })?;
        Ok(row.into())
    }

    /// The first hour before `before` that has usage and is not rolled up.
    pub async fn hour_to_roll_up(
        &mut self,
        before: DateTime<Utc>,
    ) -> StoreResult<Option<DateTime<Utc>>> {
        let mark = self.mark("").await?;
        match mark.done {
            Some(_) => Ok(Some(mark.rolled_until()).filter(|hour| *hour < before)),
            None => self.first_hour(mark.until, before).await,
        }
    }

    async fn first_hour(
        &mut self,
        from: DateTime<Utc>,
        before: DateTime<Utc>,
    ) -> StoreResult<Option<DateTime<Utc>>> {
        const SQL: &str = "
            SELECT MIN(start) FROM usage_hourly WHERE detail = 0 AND start >= $1 AND start < $2";

        on_conn!(self.conn, within LONG_DEADLINE, |conn| {
            sqlx::query_scalar(SQL).bind(from).bind(before).fetch_one(conn).await
        })
    }

    /// Rolls up the next piece of `hour`, which [`Usage::hour_to_roll_up`] named.
    pub async fn roll_up(&mut self, hour: DateTime<Utc>) -> StoreResult<RolledUp> {
        let end = Grain::Hour.next(hour);
        let mark = self.mark("FOR UPDATE").await?;
        let is_next = match mark.done {
            Some(_) => mark.until == end,
            None => self.first_hour(mark.until, end).await? == Some(hour),
        };
        if !is_next {
            tracing::debug!(%hour, until = %mark.until, "this hour was rolled up elsewhere");
            return Ok(RolledUp::Elsewhere);
        }
        let Some(last) = self.end_of_piece(hour, mark.done).await? else {
            return self.move_mark(end, None).await.map(|()| RolledUp::Wholly);
        };
        let rows = self.piece(hour, mark.done, last).await?;
        let is_last = rows.len() < PIECE;
        let rollups: StoreResult<Vec<_>> =
            rows.into_iter().map(|row| row.into_rollup(hour)).collect();
        self.add_cells(derived(&rollups?), 0).await?;
        self.shorten(hour, mark.done, last).await?;
        self.move_mark(end, (!is_last).then_some(last)).await?;
        Ok(if is_last { RolledUp::Wholly } else { RolledUp::Partly })
    }

    /// The caller of the row where a piece that begins behind `after` ends; `None`
    /// when nothing is left.
    async fn end_of_piece(
        &mut self,
        hour: DateTime<Utc>,
        after: Option<CallerIds>,
    ) -> StoreResult<Option<CallerIds>> {
        let sql = format!(
            "SELECT user_id, key_id, pass_id FROM (
                SELECT user_id, key_id, pass_id FROM usage_hourly
                WHERE detail = 0 AND start = $1 AND {}
                ORDER BY user_id, key_id, pass_id LIMIT {PIECE}
             ) AS piece ORDER BY user_id DESC, key_id DESC, pass_id DESC LIMIT 1",
            behind(after)
        );
        on_conn!(self.conn, within LONG_DEADLINE, |conn| {
            let (user, key, pass) = after.unwrap_or_default();
            let query = sqlx::query_as(AssertSqlSafe(sql)).bind(hour).bind(user).bind(key);
            query.bind(pass).fetch_optional(conn).await
        })
    }

    /// The rows of an hour of those behind `after`, up to and with `last`.
    async fn piece(
        &mut self,
        hour: DateTime<Utc>,
        after: Option<CallerIds>,
        last: CallerIds,
    ) -> StoreResult<Vec<HourRow>> {
        let sql = format!(
            "SELECT user_id, key_id, pass_id, upstream, route, status_class, requests, rejected,
                aborted, bytes_in, bytes_out, duration_us, stream_us, messages, latency
             FROM usage_hourly
             WHERE detail = 0 AND start = $1 AND {}",
            between(after)
        );
        on_conn!(self.conn, within LONG_DEADLINE, |conn| {
            let (user, key, pass) = after.unwrap_or_default();
            let query = sqlx::query_as(AssertSqlSafe(sql)).bind(hour).bind(user).bind(key);
            query.bind(pass).bind(last.0).bind(last.1).bind(last.2).fetch_all(conn).await
        })
    }

    /// Merges what was put one behind the other in the rows of a piece.
    async fn shorten(
        &mut self,
        hour: DateTime<Utc>,
        after: Option<CallerIds>,
        last: CallerIds,
    ) -> StoreResult<()> {
        let merged = latency::merged(&self.conn, "usage_hourly.latency");
        let between = between(after);
        let sql = format!(
            "UPDATE usage_hourly SET latency = {merged}
             WHERE detail = 0 AND start = $1 AND {between} AND length(latency) > {SHORT}"
        );
        on_conn!(self.conn, within LONG_DEADLINE, |conn| {
            let (user, key, pass) = after.unwrap_or_default();
            let query = sqlx::query(AssertSqlSafe(sql)).bind(hour).bind(user).bind(key);
            let query = query.bind(pass).bind(last.0).bind(last.1).bind(last.2);
            query.execute(conn).await.map(drop)
        })
    }

    async fn move_mark(
        &mut self,
        until: DateTime<Utc>,
        done: Option<CallerIds>,
    ) -> StoreResult<()> {
        const MOVE: &str = "
            UPDATE usage_rolled_up
            SET until = $1, done_user_id = $2, done_key_id = $3, done_pass_id = $4";

        on_conn!(self.conn, within LONG_DEADLINE, |conn| {
            let query = sqlx::query(MOVE).bind(until).bind(done.map(|done| done.0));
            let query = query.bind(done.map(|done| done.1)).bind(done.map(|done| done.2));
            query.execute(conn).await.map(drop)
        })
    }
}

/// SQL for callers behind `$2, $3, $4`, or from the first one on.
fn behind(after: Option<CallerIds>) -> String {
    let from = if after.is_some() { ">" } else { ">=" };
    format!("(user_id, key_id, pass_id) {from} ($2, $3, $4)")
}

/// The same, up to `$5, $6, $7`.
fn between(after: Option<CallerIds>) -> String {
    behind(after) + " AND (user_id, key_id, pass_id) <= ($5, $6, $7)"
}
