//! Sums usage up.
//!
//! A span is made of months, days and hours, as coarse as its question allows and
//! as was rolled up, all read in one statement and therefore as of one instant.
//! The engine adds up what one group has in one unit of time, and puts its
//! latencies one behind the other: a row costs more on its way here than it does
//! there. What comes is added up further: what is in memory is the answer.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt as _;
use sqlx::QueryBuilder;

use super::{
    GroupValue, Usage, UsageFilter, UsageGroup, UsageOf, UsageRow,
    cells::{Detail, parts, table},
    latency,
};
use crate::{
    domain::{
        id::{ApiKeyId, PassId, UserId},
        span::Grain,
        usage::{Histogram, Rollup, Totals},
    },
    repositories::{
        DbConn, StoreResult,
        connection::{LONG_DEADLINE, on_conn},
        row::count,
    },
};

/// The sums of one group in one unit of time, or in a whole part of the span.
#[derive(sqlx::FromRow)]
struct SumRow {
    start: DateTime<Utc>,
    by_id: Option<uuid::Uuid>,
    by_upstream: Option<String>,
    by_route: Option<String>,
    by_class: Option<i16>,
    succeeded: i64,
    client_errors: i64,
    server_errors: i64,
    rejected: i64,
    aborted: i64,
    bytes_in: i64,
    bytes_out: i64,
    duration_us: i64,
    stream_us: i64,
    messages: i64,
    latency: String,
}

/// Their sums, as both engines have them.
const SUMS: &str = "
    CAST(SUM(CASE WHEN status_class < 4 THEN requests ELSE 0 END) AS bigint) AS succeeded,
    CAST(SUM(CASE WHEN status_class = 4 THEN requests ELSE 0 END) AS bigint) AS client_errors,
    CAST(SUM(CASE WHEN status_class > 4 THEN requests ELSE 0 END) AS bigint) AS server_errors,
    CAST(SUM(rejected) AS bigint) AS rejected, CAST(SUM(aborted) AS bigint) AS aborted,
    CAST(SUM(bytes_in) AS bigint) AS bytes_in, CAST(SUM(bytes_out) AS bigint) AS bytes_out,
    CAST(SUM(duration_us) AS bigint) AS duration_us,
    CAST(SUM(stream_us) AS bigint) AS stream_us, CAST(SUM(messages) AS bigint) AS messages, ";

impl SumRow {
    fn group(&mut self, group: UsageGroup) -> GroupValue {
        let id = self.by_id.unwrap_or_default();
        let upstream = self.by_upstream.take().unwrap_or_default();
        match group {
            UsageGroup::Key => GroupValue::Key(ApiKeyId::from(id).non_nil()),
            UsageGroup::User => GroupValue::User(UserId::from(id).non_nil()),
            UsageGroup::Pass => GroupValue::Pass(PassId::from(id).non_nil()),
            UsageGroup::Upstream => GroupValue::Upstream(upstream),
            UsageGroup::Route => {
                GroupValue::Route(upstream, self.by_route.take().unwrap_or_default())
            }
            UsageGroup::Status => GroupValue::Status(self.by_class.unwrap_or_default()),
        }
    }

    fn add_to(&self, totals: &mut Totals) -> StoreResult<()> {
        let by_class = [self.succeeded, self.client_errors, self.server_errors].map(count);
        let [succeeded, client_errors, server_errors] = by_class;
        totals.succeeded += succeeded;
        totals.client_errors += client_errors;
        totals.server_errors += server_errors;
        totals.sum.merge(&Rollup {
            requests: by_class.iter().sum(),
            rejected: count(self.rejected),
            aborted: count(self.aborted),
            bytes_in: count(self.bytes_in),
            bytes_out: count(self.bytes_out),
            duration_us: count(self.duration_us),
            stream_us: count(self.stream_us),
            messages: count(self.messages),
            latency: Histogram::default(),
        });
        latency::add(&self.latency, &mut totals.sum.latency)
    }
}

/// The columns that a group is made of, if it is made of them.
#[derive(Clone, Copy, Default)]
struct Columns {
    id: Option<&'static str>,
    upstream: bool,
    route: bool,
    class: bool,
}

impl Columns {
    fn of(group: Option<UsageGroup>) -> Self {
        let none = Self::default();
        match group {
            None => none,
            Some(UsageGroup::User) => Self { id: Some("user_id"), ..none },
            Some(UsageGroup::Key) => Self { id: Some("key_id"), ..none },
            Some(UsageGroup::Pass) => Self { id: Some("pass_id"), ..none },
            Some(UsageGroup::Upstream) => Self { upstream: true, ..none },
            Some(UsageGroup::Route) => Self { upstream: true, route: true, ..none },
            Some(UsageGroup::Status) => Self { class: true, ..none },
        }
    }

    /// What a part is selected as, without its sums.
    fn selected(self, by_start: bool) -> String {
        let Self { id, upstream, route, class } = self;
        // Both engines must know what type each has, also where there is none.
        let start = if by_start { "start" } else { "MIN(start)" };
        let id = id.unwrap_or("CAST(NULL AS uuid)");
        let upstream = if upstream { "upstream" } else { "CAST(NULL AS text)" };
        let route = if route { "route" } else { "CAST(NULL AS text)" };
        let class = if class { "status_class" } else { "CAST(NULL AS smallint)" };
        format!(
            "{start} AS start, {id} AS by_id, {upstream} AS by_upstream, {route} AS by_route, \
             {class} AS by_class"
        )
    }

    /// What a part is grouped by; nothing where it is one row.
    fn grouped(self, by_start: bool) -> String {
        let Self { id, upstream, route, class } = self;
        let names = [
            by_start.then_some("start"),
            id,
            upstream.then_some("upstream"),
            route.then_some("route"),
            class.then_some("status_class"),
        ];
        let names: Vec<_> = names.into_iter().flatten().collect();
        // A part without any row is to give none.
        if names.is_empty() {
            " HAVING COUNT(*) > 0".to_owned()
        } else {
            format!(" GROUP BY {}", names.join(", "))
        }
    }
}

/// Whose rows are asked for; the index that finds them begins with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Everybodys,
    Users,
    Keys,
}

/// What a part is read from.
///
/// SQLite takes the order of the primary key for the best way, and would read
/// everybody's rows of a year to find those of one key: it is told.
fn source(conn: &DbConn<'_>, grain: Grain, whose: Whose) -> String {
    let table = table(grain);
    match (conn, whose) {
        (DbConn::Postgres(_), _) | (_, Whose::Everybodys) => table.to_owned(),
        (DbConn::Sqlite(_), Whose::Users) => format!("{table} INDEXED BY {table}_user_id_idx"),
        (DbConn::Sqlite(_), Whose::Keys) => format!("{table} INDEXED BY {table}_key_id_idx"),
    }
}

impl Usage<'_> {
    /// Sums per `bucket` of time, `None` for all of the span, and per group within
    /// it if asked for, in that order. What is without usage is left out.
    pub async fn sums(
        &mut self,
        filter: &UsageFilter,
        bucket: Option<Grain>,
        group: Option<UsageGroup>,
    ) -> StoreResult<Vec<UsageRow>> {
        let detail = Detail::for_question(filter, group);
        let coarsest = bucket.unwrap_or(Grain::Month);
        let until = self.rolled_until().await?;
        let parts = parts((filter.from, filter.to), until, coarsest, detail);
        let start = Grain::Hour.floor(filter.from);
        // A day that is made of hours comes as these.
        let by_start = bucket.is_some();
        let columns = Columns::of(group);
        let (selected, grouped) = (columns.selected(by_start), columns.grouped(by_start));
        let latencies = match self.conn {
            DbConn::Postgres(_) => "string_agg(latency, ',') AS latency",
            DbConn::Sqlite(_) => "group_concat(latency, ',') AS latency",
        };
        let whose = match filter {
            UsageFilter { key_id: Some(_), .. } => Whose::Keys,
            UsageFilter { user_id: Some(_), .. } => Whose::Users,
            _ => Whose::Everybodys,
        };
        let sources: Vec<_> =
            parts.iter().map(|part| source(&self.conn, part.grain, whose)).collect();

        let mut rows: BTreeMap<(DateTime<Utc>, Option<GroupValue>), Totals> = BTreeMap::new();
        if parts.is_empty() {
            return Ok(vec![]);
        }
        let mut corrupt = Ok(());
        on_conn!(self.conn, within LONG_DEADLINE, |conn| {
            let mut sql = QueryBuilder::new("");
            for (at, (part, source)) in parts.iter().zip(&sources).enumerate() {
                sql.push(if at == 0 { "SELECT " } else { " UNION ALL SELECT " });
                sql.push(format_args!("{selected}, {SUMS} {latencies} FROM {source}"));
                sql.push(format_args!(" WHERE detail = {}", part.detail.number()));
                sql.push(" AND start >= ").push_bind(part.from);
                sql.push(" AND start < ").push_bind(part.to);
                if let Some(user_id) = filter.user_id {
                    sql.push(" AND user_id = ").push_bind(user_id);
                }
                if let Some(key_id) = filter.key_id {
                    sql.push(" AND key_id = ").push_bind(key_id);
                }
                if let Some(upstream) = filter.upstream.as_deref() {
                    sql.push(" AND upstream = ").push_bind(upstream);
                }
                sql.push(&grouped);
            }
            let mut found = sql.build_query_as::<SumRow>().fetch(conn);
            while let Some(mut row) = found.try_next().await? {
                let at = bucket.map_or(start, |bucket| bucket.floor(row.start));
                let totals = rows.entry((at, group.map(|group| row.group(group)))).or_default();
                if let Err(error) = row.add_to(totals) {
                    corrupt = Err(error);
                }
            }
            Ok(())
        })?;
        corrupt?;
        let rows = rows.into_iter();
        Ok(rows.map(|((start, group), totals)| UsageRow { start, group, totals }).collect())
    }

    /// All that a key used from the hour `from` (`None`: ever) until `to`,
    /// which is excluded.
    pub async fn key_totals(
        &mut self,
        key: ApiKeyId,
        from: Option<DateTime<Utc>>,
        to: DateTime<Utc>,
    ) -> StoreResult<Totals> {
        let from = from.unwrap_or(DateTime::UNIX_EPOCH);
        let filter = UsageFilter { user_id: None, key_id: Some(key), upstream: None, from, to };
        let whole = self.sums(&filter, None, None).await?;
        Ok(whole.into_iter().next().map(|row| row.totals).unwrap_or_default())
    }

    /// How many requests were let through in the hours `from..to`: what a limit
    /// per month counts.
    pub async fn let_through(
        &mut self,
        of: &UsageOf<'_>,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> StoreResult<u64> {
        let (detail, whose) = match of {
            UsageOf::Pass(pass) => return self.let_through_with(*pass, from, to).await,
            UsageOf::User(_) => (Detail::Who, Whose::Users),
            UsageOf::Key(_) => (Detail::Who, Whose::Keys),
            UsageOf::Upstream(_) => (Detail::What, Whose::Everybodys),
            UsageOf::UserAt(..) => (Detail::Everything, Whose::Users),
        };
        let until = self.rolled_until().await?;
        let parts = parts((from, to), until, Grain::Month, detail);
        if parts.is_empty() {
            return Ok(0);
        }
        let sources: Vec<_> =
            parts.iter().map(|part| source(&self.conn, part.grain, whose)).collect();
        let requests: i64 = on_conn!(self.conn, |conn| {
            let mut sql =
                QueryBuilder::new("SELECT CAST(COALESCE(SUM(requests), 0) AS bigint) FROM (");
            for (at, (part, source)) in parts.iter().zip(&sources).enumerate() {
                sql.push(if at == 0 { "SELECT " } else { " UNION ALL SELECT " });
                let detail = part.detail.number();
                sql.push(format_args!("requests FROM {source} WHERE detail = {detail}"));
                sql.push(" AND start >= ").push_bind(part.from);
                sql.push(" AND start < ").push_bind(part.to);
                if let UsageOf::User(id) | UsageOf::UserAt(id, _) = *of {
                    sql.push(" AND user_id = ").push_bind(id);
                }
                if let UsageOf::Key(id) = *of {
                    sql.push(" AND key_id = ").push_bind(id);
                }
                if let UsageOf::Upstream(name) | UsageOf::UserAt(_, name) = *of {
                    sql.push(" AND upstream = ").push_bind(name);
                }
            }
            sql.push(") AS parts").build_query_scalar().fetch_one(conn).await
        })?;
        Ok(count(requests))
    }

    /// The same with a pass: of hours, since its time begins with its first use
    /// and not with a day.
    async fn let_through_with(
        &mut self,
        pass: PassId,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> StoreResult<u64> {
        // The index is of those rows that are of a pass; the engines want to be
        // told that these are.
        let of_a_pass = match self.conn {
            DbConn::Postgres(_) => "pass_id <> '00000000-0000-0000-0000-000000000000'::uuid",
            DbConn::Sqlite(_) => "pass_id <> x'00000000000000000000000000000000'",
        };
        let requests: i64 = on_conn!(self.conn, |conn| {
            let mut sql = QueryBuilder::new(
                "SELECT CAST(COALESCE(SUM(requests), 0) AS bigint) FROM usage_hourly
                 WHERE detail IN (0, 3) AND ",
            );
            sql.push(of_a_pass).push(" AND pass_id = ").push_bind(pass);
            sql.push(" AND start >= ").push_bind(from).push(" AND start < ").push_bind(to);
            sql.build_query_scalar().fetch_one(conn).await
        })?;
        Ok(count(requests))
    }
}
