//! The log of recent requests.

use std::borrow::Borrow;

use chrono::{DateTime, Utc};
use sqlx::QueryBuilder;

use super::{RequestFilter, Usage};
use crate::{
    domain::{
        id::{ApiKeyId, LogPlace, PassId, RecordId, UserId},
        page::{Page, PageRequest},
        usage::{Outcome, UsageRecord},
    },
    repositories::{StoreError, StoreResult, connection::on_conn, row},
};

/// Rows of the log that one statement writes. Few, since its text and parameters
/// are memory that stays with the connection.
pub const LOGGED_TOGETHER: usize = 64;

const SELECT: &str = "
    SELECT id, request_id, at, method, path, status, outcome, duration_us, bytes_in, bytes_out,
           user_id, key_id, pass_id, upstream, route, is_stream, messages, place
    FROM usage_requests
    WHERE TRUE";

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
    pass_id: Option<PassId>,
    upstream: String,
    route: String,
    is_stream: bool,
    messages: i64,
    place: LogPlace,
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
            pass_id: row.pass_id,
            upstream: row.upstream.into(),
            route: row.route.into(),
            is_stream: row.is_stream,
            messages: row::count(row.messages),
            place: row.place,
        })
    }
}

impl Usage<'_> {
    /// Writes requests to the log; one that is there already is left alone.
    pub async fn log_requests(
        &mut self,
        records: &[impl Borrow<UsageRecord> + Sync],
    ) -> StoreResult<()> {
        const INSERT: &str = "
            INSERT INTO usage_requests
                (id, request_id, at, method, path, status, outcome, duration_us, bytes_in,
                 bytes_out, user_id, key_id, pass_id, upstream, route, is_stream, messages,
                 place) ";

        for batch in records.chunks(LOGGED_TOGETHER) {
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
                        .push_bind(record.pass_id)
                        .push_bind(&*record.upstream)
                        .push_bind(&*record.route)
                        .push_bind(record.is_stream)
                        .push_bind(row::stored(record.messages))
                        .push_bind(record.place);
                });
                sql.push(" ON CONFLICT (place) DO NOTHING");
                // Of a whole batch it is always the same text, which is parsed once;
                // that of a rest is not worth keeping.
                let is_whole = batch.len() == LOGGED_TOGETHER;
                sql.build().persistent(is_whole).execute(conn).await.map(drop)
            })?;
        }
        Ok(())
    }

    /// The log, what ended last first.
    pub async fn requests(
        &mut self,
        filter: &RequestFilter,
        page: PageRequest,
    ) -> StoreResult<Page<UsageRecord>> {
        let rows: Vec<UsageRecordRow> = on_conn!(self.conn, |conn| {
            let mut sql = QueryBuilder::new(SELECT);
            if let Some(user_id) = filter.user_id {
                sql.push(" AND user_id = ").push_bind(user_id);
            }
            if let Some(key_id) = filter.key_id {
                sql.push(" AND key_id = ").push_bind(key_id);
            }
            if let Some(after) = page.after {
                sql.push(" AND place < ").push_bind(after.0);
            }
            sql.push(" ORDER BY place DESC LIMIT ").push_bind(row::limit(page));
            sql.build_query_as().fetch_all(conn).await
        })?;
        let records = rows.into_iter().map(UsageRecord::try_from).collect::<StoreResult<_>>()?;
        Ok(Page::from_rows(records, page.limit, |record: &UsageRecord| record.place.as_uuid()))
    }

    /// The log from one place to another, both excluded, what ended first first;
    /// at most so many.
    pub async fn requests_between(
        &mut self,
        from: LogPlace,
        to: LogPlace,
        most: u32,
    ) -> StoreResult<Vec<UsageRecord>> {
        let rows: Vec<UsageRecordRow> = on_conn!(self.conn, |conn| {
            let mut sql = QueryBuilder::new(SELECT);
            sql.push(" AND place > ").push_bind(from).push(" AND place < ").push_bind(to);
            sql.push(" ORDER BY place LIMIT ").push_bind(i64::from(most));
            sql.build_query_as().fetch_all(conn).await
        })?;
        rows.into_iter().map(UsageRecord::try_from).collect()
    }
}
