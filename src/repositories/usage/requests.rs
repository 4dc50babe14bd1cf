//! The log of recent requests.

use std::borrow::Borrow;

use chrono::{DateTime, Utc};
use sqlx::QueryBuilder;

use super::{RequestFilter, Usage};
use crate::{
    domain::{
        id::{ApiKeyId, RecordId, UserId},
        page::{Page, PageRequest},
        usage::{Outcome, UsageRecord},
    },
    repositories::{StoreError, StoreResult, connection::on_conn, row},
};

#[derive(sqlx::FromRow)]
struct UsageRecordRow {
    id: RecordId,
    request_id: String,
    at: DateTime<Utc>,
    method: String,
    path: String,
    status: i32,
    outcome: String,
    duration_us: i64,
    bytes_in: i64,
    bytes_out: i64,
    user_id: Option<UserId>,
    key_id: Option<ApiKeyId>,
    upstream: String,
}

impl TryFrom<UsageRecordRow> for UsageRecord {
    type Error = StoreError;

    fn try_from(row: UsageRecordRow) -> StoreResult<Self> {
        let outcome = Outcome::parse(&row.outcome)
            .ok_or_else(|| StoreError::corrupt("outcome", "unknown outcome"))?;
        Ok(Self {
            id: row.id,
            request_id: row.request_id,
            at: row.at,
            method: row.method.into(),
            path: row.path,
            status: row::narrow("status", row.status.into())?,
            outcome,
            duration_us: row::count(row.duration_us),
            bytes_in: row::count(row.bytes_in),
            bytes_out: row::count(row.bytes_out),
            user_id: row.user_id,
            key_id: row.key_id,
            pass_id: None,
            upstream: row.upstream.into(),
        })
    }
}

impl Usage<'_> {
    /// Writes requests to the log; one that is there already is left alone.
    pub async fn log_requests(&mut self, records: &[impl Borrow<UsageRecord>]) -> StoreResult<()> {
        /// 13 parameters each, where SQLite takes 32,766.
        const BATCH: usize = 1000;
        const INSERT: &str = "
            INSERT INTO usage_requests
                (id, request_id, at, method, path, status, outcome, duration_us, bytes_in,
                 bytes_out, user_id, key_id, upstream) ";

        for batch in records.chunks(BATCH) {
            on_conn!(self.conn, |conn| {
                let mut sql = QueryBuilder::new(INSERT);
                sql.push_values(batch, |mut tuple, record| {
                    let record: &UsageRecord = record.borrow();
                    tuple
                        .push_bind(record.id)
                        .push_bind(&record.request_id)
                        .push_bind(record.at)
                        .push_bind(&*record.method)
                        .push_bind(&record.path)
                        .push_bind(i32::from(record.status))
                        .push_bind(record.outcome.as_str())
                        .push_bind(row::stored(record.duration_us))
                        .push_bind(row::stored(record.bytes_in))
                        .push_bind(row::stored(record.bytes_out))
                        .push_bind(record.user_id)
                        .push_bind(record.key_id)
                        .push_bind(&*record.upstream);
                });
                sql.push(" ON CONFLICT (id) DO NOTHING");
                // Its text varies with the number of rows: not worth keeping.
                sql.build().persistent(false).execute(conn).await.map(drop)
            })?;
        }
        Ok(())
    }

    /// The log, newest first.
    pub async fn requests(
        &mut self,
        filter: &RequestFilter,
        page: PageRequest,
    ) -> StoreResult<Page<UsageRecord>> {
        const SQL: &str = "
            SELECT id, request_id, at, method, path, status, outcome, duration_us, bytes_in,
                   bytes_out, user_id, key_id, upstream
            FROM usage_requests
            WHERE TRUE";

        let rows: Vec<UsageRecordRow> = on_conn!(self.conn, |conn| {
            let mut sql = QueryBuilder::new(SQL);
            if let Some(user_id) = filter.user_id {
                sql.push(" AND user_id = ").push_bind(user_id);
            }
            if let Some(key_id) = filter.key_id {
                sql.push(" AND key_id = ").push_bind(key_id);
            }
            if let Some(after) = page.after {
                sql.push(" AND id < ").push_bind(after.0);
            }
            sql.push(" ORDER BY id DESC LIMIT ").push_bind(row::limit(page));
            sql.build_query_as().fetch_all(conn).await
        })?;
        let records = rows.into_iter().map(UsageRecord::try_from).collect::<StoreResult<_>>()?;
        Ok(Page::from_rows(records, page.limit, |record: &UsageRecord| record.id.as_uuid()))
    }
}
