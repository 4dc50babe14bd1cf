//! Sums usage up.
//!
//! Counts and latencies lie in two tables but are read in one statement, and
//! therefore as of one instant.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::QueryBuilder;

use super::{GroupValue, Usage, UsageFilter, UsageGroup, UsageOf, UsageRow};
use crate::{
    domain::{
        id::{ApiKeyId, UserId},
        usage::Totals,
    },
    repositories::{
        StoreError, StoreResult,
        connection::{LONG_DEADLINE, on_conn},
        row::count,
    },
};

/// The sums, and beside them what the other table would have there. Postgres
/// sums bigints to numerics, hence the casts; each is null without rows.
const COUNTS: &str = "
    NULL AS bucket,
    CAST(COALESCE(SUM(requests), 0) AS bigint) AS requests,
    CAST(COALESCE(SUM(rejected), 0) AS bigint) AS rejected,
    CAST(COALESCE(SUM(aborted), 0) AS bigint) AS aborted,
    CAST(COALESCE(SUM(bytes_in), 0) AS bigint) AS bytes_in,
    CAST(COALESCE(SUM(bytes_out), 0) AS bigint) AS bytes_out,
    CAST(COALESCE(SUM(duration_us), 0) AS bigint) AS duration_us,
    CAST(COALESCE(SUM(CASE WHEN status_class < 4 THEN requests END), 0) AS bigint) AS succeeded,
    CAST(COALESCE(SUM(CASE WHEN status_class = 4 THEN requests END), 0) AS bigint)
        AS client_errors,
    CAST(COALESCE(SUM(CASE WHEN status_class > 4 THEN requests END), 0) AS bigint)
        AS server_errors
    FROM usage_hourly WHERE TRUE";
const LATENCIES: &str = "
    bucket, CAST(SUM(count) AS bigint), 0, 0, 0, 0, 0, 0, 0, 0
    FROM usage_latency WHERE TRUE";

/// The sums of a group, or the requests in one bucket of its latencies.
#[derive(sqlx::FromRow)]
struct SumRow {
    by_hour: Option<DateTime<Utc>>,
    by_user: Option<UserId>,
    by_key: Option<ApiKeyId>,
    by_upstream: Option<String>,
    by_status: Option<i16>,
    bucket: Option<i16>,
    requests: i64,
    rejected: i64,
    aborted: i64,
    bytes_in: i64,
    bytes_out: i64,
    duration_us: i64,
    succeeded: i64,
    client_errors: i64,
    server_errors: i64,
}

impl SumRow {
    fn group(&self) -> Option<GroupValue> {
        let key = self.by_key.map(|id| GroupValue::Key(id.non_nil()));
        let user = self.by_user.map(|id| GroupValue::User(id.non_nil()));
        key.or(user)
            .or_else(|| self.by_upstream.clone().map(GroupValue::Upstream))
            .or_else(|| self.by_status.map(GroupValue::Status))
    }

    fn add_to(&self, totals: &mut Totals) {
        totals.succeeded += count(self.succeeded);
        totals.client_errors += count(self.client_errors);
        totals.server_errors += count(self.server_errors);
        let rollup = &mut totals.sum;
        if let Some(bucket) = self.bucket {
            rollup.latency.add(bucket, count(self.requests));
            return;
        }
        rollup.requests += count(self.requests);
        rollup.rejected += count(self.rejected);
        rollup.aborted += count(self.aborted);
        rollup.bytes_in += count(self.bytes_in);
        rollup.bytes_out += count(self.bytes_out);
        rollup.duration_us += count(self.duration_us);
    }
}

/// What is summed: the filter with open ends, and how rows are told apart.
#[derive(Clone, Copy, Default)]
struct Sums<'f> {
    user_id: Option<UserId>,
    key_id: Option<ApiKeyId>,
    upstream: Option<&'f str>,
    from: Option<DateTime<Utc>>,
    to: Option<DateTime<Utc>>,
    by_hour: bool,
    group: Option<UsageGroup>,
}

impl Sums<'_> {
    /// Each dimension with its name in the answer, `NULL` where not asked for.
    fn columns(self) -> [(&'static str, &'static str); 5] {
        let group = |wanted| self.group == Some(wanted);
        let column = |asked, name| if asked { name } else { "NULL" };
        [
            (column(self.by_hour, "hour"), "by_hour"),
            (column(group(UsageGroup::User), "user_id"), "by_user"),
            (column(group(UsageGroup::Key), "key_id"), "by_key"),
            (column(group(UsageGroup::Upstream), "upstream"), "by_upstream"),
            (column(group(UsageGroup::Status), "status_class"), "by_status"),
        ]
    }
}

impl Usage<'_> {
    /// Sums per hour, and per group within it if asked for, in that order.
    /// Hours without usage are left out.
    pub async fn hourly(
        &mut self,
        filter: &UsageFilter,
        group: Option<UsageGroup>,
    ) -> StoreResult<Vec<UsageRow>> {
        let sums = Sums {
            user_id: filter.user_id,
            key_id: filter.key_id,
            upstream: filter.upstream.as_deref(),
            from: Some(filter.from),
            to: Some(filter.to),
            by_hour: true,
            group,
        };
        let mut rows = BTreeMap::new();
        for sum in self.sum(sums).await? {
            let hour = sum.by_hour.ok_or_else(|| StoreError::corrupt("hour", "null"))?;
            let group = sum.group();
            let row = rows.entry((hour, group.clone())).or_insert_with(|| UsageRow {
                hour,
                group,
                totals: Totals::default(),
            });
            sum.add_to(&mut row.totals);
        }
        Ok(rows.into_values().collect())
    }

    /// All that a key used from the hour `from` (`None`: ever) until `to`,
    /// which is excluded.
    pub async fn key_totals(
        &mut self,
        key: ApiKeyId,
        from: Option<DateTime<Utc>>,
        to: DateTime<Utc>,
    ) -> StoreResult<Totals> {
        let sums = Sums { key_id: Some(key), from, to: Some(to), ..Sums::default() };
        let mut total = Totals::default();
        for sum in self.sum(sums).await? {
            sum.add_to(&mut total);
        }
        Ok(total)
    }

    /// How many requests were let through in the hours `from..to`: what a limit
    /// per month counts.
    pub async fn let_through(
        &mut self,
        of: &UsageOf<'_>,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> StoreResult<u64> {
        const SUM: &str = "SELECT CAST(COALESCE(SUM(requests), 0) AS bigint) FROM ";

        let requests: i64 = on_conn!(self.conn, |conn| {
            let mut sql = QueryBuilder::new(SUM);
            match *of {
                UsageOf::User(id) => sql.push("usage_hourly WHERE user_id = ").push_bind(id),
                UsageOf::Key(id) => sql.push("usage_hourly WHERE key_id = ").push_bind(id),
                UsageOf::Pass(id) => sql.push("usage_passes WHERE pass_id = ").push_bind(id),
                UsageOf::Upstream(name) => {
                    sql.push("usage_hourly WHERE upstream = ").push_bind(name)
                }
                UsageOf::UserAt(id, name) => {
                    sql.push("usage_hourly WHERE user_id = ").push_bind(id);
                    sql.push(" AND upstream = ").push_bind(name)
                }
            };
            sql.push(" AND hour >= ").push_bind(from).push(" AND hour < ").push_bind(to);
            sql.build_query_scalar().fetch_one(conn).await
        })?;
        Ok(count(requests))
    }

    async fn sum(&mut self, sums: Sums<'_>) -> StoreResult<Vec<SumRow>> {
        let columns = sums.columns();
        let named = columns.map(|(column, name)| format!("{column} AS {name}")).join(", ");
        let groups: Vec<_> =
            columns.iter().map(|(column, _)| *column).filter(|column| *column != "NULL").collect();

        on_conn!(self.conn, within LONG_DEADLINE, |conn| {
            let mut sql = QueryBuilder::new("SELECT ");
            for (table, bucket) in [(COUNTS, None), (LATENCIES, Some("bucket"))] {
                if bucket.is_some() {
                    sql.push(" UNION ALL SELECT ");
                }
                sql.push(&named).push(", ").push(table);
                if let Some(user_id) = sums.user_id {
                    sql.push(" AND user_id = ").push_bind(user_id);
                }
                if let Some(key_id) = sums.key_id {
                    sql.push(" AND key_id = ").push_bind(key_id);
                }
                if let Some(upstream) = sums.upstream {
                    sql.push(" AND upstream = ").push_bind(upstream);
                }
                if let Some(from) = sums.from {
                    sql.push(" AND hour >= ").push_bind(from);
                }
                if let Some(to) = sums.to {
                    sql.push(" AND hour < ").push_bind(to);
                }
                for (at, column) in groups.iter().copied().chain(bucket).enumerate() {
                    sql.push(if at == 0 { " GROUP BY " } else { ", " }).push(column);
                }
            }
            sql.build_query_as().fetch_all(conn).await
        })
    }
}
