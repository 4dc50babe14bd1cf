//! How much was asked for, without latencies: of a row of sums these are what
//! costs most to read, and an overview has no use for them.

use chrono::{DateTime, Utc};
use sqlx::QueryBuilder;
use uuid::Uuid;

use super::{
    Usage,
    cells::{Detail, parts, table},
};
use crate::{
    domain::{
        id::{ApiKeyId, PassId, UserId},
        span::Grain,
    },
    repositories::{
        StoreResult,
        connection::{LONG_DEADLINE, on_conn},
        row::count,
    },
};

/// How many requests there were, and how many of them failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Let through, however they ended.
    pub requests: u64,
    /// Refused by a limit; not part of `requests`.
    pub rejected: u64,
    /// Of `requests`.
    pub client_errors: u64,
    /// Of `requests`.
    pub server_errors: u64,
}

/// Who asked: a login, a key, a pass, or nobody that is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asker {
    pub user_id: Option<UserId>,
    pub key_id: Option<ApiKeyId>,
    pub pass_id: Option<PassId>,
}

#[derive(sqlx::FromRow)]
struct VolumeRow {
    user_id: Uuid,
    key_id: Uuid,
    pass_id: Uuid,
    upstream: String,
    let_through: i64,
    turned_away: i64,
    client_errors: i64,
    server_errors: i64,
}

impl VolumeRow {
    fn volume(&self) -> Volume {
        Volume {
            requests: count(self.let_through),
            rejected: count(self.turned_away),
            client_errors: count(self.client_errors),
            server_errors: count(self.server_errors),
        }
    }

    fn asker(&self) -> Asker {
        Asker {
            user_id: UserId::from(self.user_id).non_nil(),
            key_id: ApiKeyId::from(self.key_id).non_nil(),
            pass_id: PassId::from(self.pass_id).non_nil(),
        }
    }
}

impl Usage<'_> {
    /// All requests of the hours `from..to`.
    pub async fn volume(&mut self, from: DateTime<Utc>, to: DateTime<Utc>) -> StoreResult<Volume> {
        let rows = self.volumes((from, to), Detail::Nothing, 1).await?;
        Ok(rows.first().map(VolumeRow::volume).unwrap_or_default())
    }

    /// Who asked most in the hours `from..to`, at most `most` of them.
    pub async fn busiest_askers(
        &mut self,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
        most: u32,
    ) -> StoreResult<Vec<(Asker, Volume)>> {
        let rows = self.volumes((from, to), Detail::Who, most).await?;
        Ok(rows.iter().map(|row| (row.asker(), row.volume())).collect())
    }

    /// The same of upstreams.
    pub async fn busiest_upstreams(
        &mut self,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
        most: u32,
    ) -> StoreResult<Vec<(String, Volume)>> {
        let rows = self.volumes((from, to), Detail::What, most).await?;
        Ok(rows
            .into_iter()
            .map(|row| {
                let volume = row.volume();
                (row.upstream, volume)
            })
            .collect())
    }

    /// By all that the detail tells apart but routes, the busiest first.
    async fn volumes(
        &mut self,
        (from, to): (DateTime<Utc>, DateTime<Utc>),
        detail: Detail,
        most: u32,
    ) -> StoreResult<Vec<VolumeRow>> {
        let until = self.rolled_until().await?;
        let parts = parts((from, to), until, Grain::Month, detail);
        if parts.is_empty() {
            return Ok(vec![]);
        }
        // A row of hours tells more apart than the detail that is asked for.
        let who = |name| if detail == Detail::Who { name } else { "nobody" };
        let group = match detail {
            Detail::Who => " GROUP BY user_id, key_id, pass_id",
            Detail::What => " GROUP BY upstream",
            Detail::Everything | Detail::Nothing => " HAVING COUNT(*) > 0",
        };
        let upstream = if detail == Detail::What { "upstream" } else { "''" };
        let columns = [who("user_id"), who("key_id"), who("pass_id")];
        let rows = on_conn!(self.conn, within LONG_DEADLINE, |conn| {
            let mut sql = QueryBuilder::new("SELECT ");
            for (column, name) in columns.into_iter().zip(["user_id", "key_id", "pass_id"]) {
                if column == "nobody" {
                    sql.push_bind(Uuid::nil());
                } else {
                    sql.push(column);
                }
                sql.push(format_args!(" AS {name}, "));
            }
            sql.push(upstream).push(" AS upstream,").push(SUMS);
            for (at, part) in parts.iter().enumerate() {
                sql.push(if at == 0 { "" } else { " UNION ALL " });
                sql.push("SELECT user_id, key_id, pass_id, upstream, status_class, requests,");
                sql.push(format_args!(" rejected FROM {}", table(part.grain)));
                sql.push(format_args!(" WHERE detail = {}", part.detail.number()));
                sql.push(" AND start >= ").push_bind(part.from);
                sql.push(" AND start < ").push_bind(part.to);
            }
            sql.push(") AS parts").push(group);
            sql.push(" ORDER BY let_through DESC, 1, 2, 3, 4 LIMIT ").push_bind(i64::from(most));
            sql.build_query_as().fetch_all(conn).await
        })?;
        Ok(rows)
    }
}

/// As both engines have them.
const SUMS: &str = "
    CAST(SUM(requests) AS bigint) AS let_through, CAST(SUM(rejected) AS bigint) AS turned_away,
    CAST(SUM(CASE WHEN status_class = 4 THEN requests ELSE 0 END) AS bigint) AS client_errors,
    CAST(SUM(CASE WHEN status_class > 4 THEN requests ELSE 0 END) AS bigint) AS server_errors
    FROM (";
