//! Storage of time passes.

use chrono::{DateTime, Utc};
use sqlx::QueryBuilder;

use super::{
    DbConn, StoreError, StoreResult,
    connection::on_conn,
    row::{self, narrow, token_hash},
};
use crate::domain::{
    id::{PassId, UserId},
    page::{Page, PageRequest},
    pass::{Origin, Pass, Sealed, Status},
    token::TokenHash,
};

pub struct Passes<'c> {
    conn: DbConn<'c>,
}

/// What passes can be listed by; all that are given must fit.
#[derive(Clone, Debug, Default)]
pub struct PassFilter {
    pub user_id: Option<UserId>,
    /// One of these states at the instant of the list. Empty: any.
    pub status: Vec<Status>,
}

#[derive(sqlx::FromRow)]
struct PassRow {
    id: PassId,
    user_id: UserId,
    prefix: String,
    duration_hours: i64,
    upstream: Option<String>,
    origin: String,
    price_minor: i64,
    refunded_minor: Option<i64>,
    created_at: DateTime<Utc>,
    activated_us: Option<i64>,
    revoked_at: Option<DateTime<Utc>>,
    version: i64,
}

#[derive(sqlx::FromRow)]
struct SealedRow {
    #[sqlx(flatten)]
    pass: PassRow,
    sealed: Vec<u8>,
    sealing_key: String,
}

#[derive(sqlx::FromRow)]
struct TextRow {
    id: PassId,
    sealed: Vec<u8>,
    sealing_key: String,
}

impl TryFrom<PassRow> for Pass {
    type Error = StoreError;

    fn try_from(row: PassRow) -> StoreResult<Self> {
        let origin = Origin::parse(&row.origin)
            .ok_or_else(|| StoreError::corrupt("origin", "no origin of a pass"))?;
        Ok(Self {
            id: row.id,
            user_id: row.user_id,
            prefix: row.prefix,
            duration_hours: narrow("duration_hours", row.duration_hours)?,
            upstream: row.upstream,
            origin,
            price_minor: row.price_minor,
            refunded_minor: row.refunded_minor,
            created_at: row.created_at,
            activated_at: row.activated_us.map(instant).transpose()?,
            revoked_at: row.revoked_at,
            version: row.version,
        })
    }
}

fn instant(micros: i64) -> StoreResult<DateTime<Utc>> {
    DateTime::from_timestamp_micros(micros)
        .ok_or_else(|| StoreError::corrupt("activated_us", "no instant"))
}

const COLUMNS: &str = "
    SELECT id, user_id, prefix, duration_hours, upstream, origin, price_minor, refunded_minor,
           created_at, activated_us, revoked_at, version ";

impl<'c> Passes<'c> {
    pub(super) fn new(conn: DbConn<'c>) -> Self {
        Self { conn }
    }

    pub async fn insert(
        &mut self,
        pass: &Pass,
        hash: &TokenHash,
        sealed: &Sealed,
    ) -> StoreResult<()> {
        const SQL: &str = "
            INSERT INTO passes
                (id, user_id, hash, sealed, sealing_key, prefix, duration_hours, upstream, origin,
                 price_minor, refunded_minor, created_at, activated_us, revoked_at, version)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)";

        on_conn!(self.conn, |conn| sqlx::query(SQL)
            .bind(pass.id)
            .bind(pass.user_id)
            .bind(hash.as_bytes())
            .bind(&sealed.bytes)
            .bind(&sealed.key)
            .bind(&pass.prefix)
            .bind(i64::from(pass.duration_hours))
            .bind(&pass.upstream)
            .bind(pass.origin.as_str())
            .bind(pass.price_minor)
            .bind(pass.refunded_minor)
            .bind(pass.created_at)
            .bind(pass.activated_at.map(|at| at.timestamp_micros()))
            .bind(pass.revoked_at)
            .bind(pass.version)
            .execute(conn)
            .await
            .map(drop))
    }

    /// Whatever state it is in.
    pub async fn find_by_hash(&mut self, hash: &TokenHash) -> StoreResult<Option<Pass>> {
        let row: Option<PassRow> = on_conn!(self.conn, |conn| {
            let mut sql = QueryBuilder::new(COLUMNS);
            sql.push("FROM passes WHERE hash = ").push_bind(hash.as_bytes());
            sql.build_query_as().fetch_optional(conn).await
        })?;
        row.map(Pass::try_from).transpose()
    }

    /// With its sealed text. Where `owner` is given, only if it is theirs.
    pub async fn find(
        &mut self,
        id: PassId,
        owner: Option<UserId>,
    ) -> StoreResult<Option<(Pass, Sealed)>> {
        let row: Option<SealedRow> = on_conn!(self.conn, |conn| {
            let mut sql = QueryBuilder::new(COLUMNS);
            sql.push(", sealed, sealing_key FROM passes WHERE id = ").push_bind(id);
            if let Some(owner) = owner {
                sql.push(" AND user_id = ").push_bind(owner);
            }
            sql.build_query_as().fetch_optional(conn).await
        })?;
        row.map(with_text).transpose()
    }

    /// The digest that opens the pass.
    pub async fn hash(&mut self, id: PassId) -> StoreResult<Option<TokenHash>> {
        const SQL: &str = "SELECT hash FROM passes WHERE id = $1";

        let hash: Option<Vec<u8>> = on_conn!(self.conn, |conn| sqlx::query_scalar(SQL)
            .bind(id)
            .fetch_optional(conn)
            .await)?;
        hash.map(|hash| token_hash(&hash)).transpose()
    }

    /// The digests of all of a user's passes, with their versions.
    pub async fn hashes_of_user(&mut self, user: UserId) -> StoreResult<Vec<(TokenHash, i64)>> {
        const SQL: &str = "SELECT hash, version FROM passes WHERE user_id = $1";

        let rows: Vec<(Vec<u8>, i64)> =
            on_conn!(self.conn, |conn| sqlx::query_as(SQL).bind(user).fetch_all(conn).await)?;
        rows.into_iter().map(|(hash, version)| Ok((token_hash(&hash)?, version))).collect()
    }

    /// Newest first, with their sealed texts; states are those at `now`.
    pub async fn list(
        &mut self,
        filter: &PassFilter,
        now: DateTime<Utc>,
        page: PageRequest,
    ) -> StoreResult<Page<(Pass, Sealed)>> {
        let rows: Vec<SealedRow> = on_conn!(self.conn, |conn| {
            let mut sql = QueryBuilder::new(COLUMNS);
            sql.push(", sealed, sealing_key FROM passes WHERE TRUE");
            if let Some(user) = filter.user_id {
                sql.push(" AND user_id = ").push_bind(user);
            }
            for (at, status) in filter.status.iter().enumerate() {
                sql.push(if at == 0 { " AND (" } else { " OR " });
                match status {
                    Status::Refunded => sql.push("refunded_minor IS NOT NULL"),
                    Status::Revoked => {
                        sql.push("(revoked_at IS NOT NULL AND refunded_minor IS NULL)")
                    }
                    Status::Unused => sql.push("(revoked_at IS NULL AND activated_us IS NULL)"),
                    Status::Active => sql
                        .push("(revoked_at IS NULL AND activated_us + duration_hours * ")
                        .push_bind(HOUR_US)
                        .push(" > ")
                        .push_bind(now.timestamp_micros())
                        .push(")"),
                    Status::Expired => sql
                        .push("(revoked_at IS NULL AND activated_us + duration_hours * ")
                        .push_bind(HOUR_US)
                        .push(" <= ")
                        .push_bind(now.timestamp_micros())
                        .push(")"),
                };
            }
            if !filter.status.is_empty() {
                sql.push(")");
            }
            if let Some(after) = page.after {
                sql.push(" AND id < ").push_bind(after.0);
            }
            sql.push(" ORDER BY id DESC LIMIT ").push_bind(row::limit(page));
            sql.build_query_as().fetch_all(conn).await
        })?;
        let page = Page::from_rows(rows, page.limit, |row: &SealedRow| row.pass.id.as_uuid());
        let items = page.items.into_iter().map(with_text).collect::<StoreResult<_>>()?;
        Ok(Page { items, next: page.next })
    }

    /// Begins the pass's time at `at` unless it has begun or was revoked; the
    /// pass then. Check and change are one statement: of callers that race, one
    /// wins and the others read its time.
    pub async fn activate(&mut self, id: PassId, at: DateTime<Utc>) -> StoreResult<Option<Pass>> {
        const SQL: &str = "
            UPDATE passes SET activated_us = $2, version = version + 1
            WHERE id = $1 AND activated_us IS NULL AND revoked_at IS NULL
            RETURNING id, user_id, prefix, duration_hours, upstream, origin, price_minor,
                      refunded_minor, created_at, activated_us, revoked_at, version";

        let row: Option<PassRow> = on_conn!(self.conn, |conn| sqlx::query_as(SQL)
            .bind(id)
            .bind(at.timestamp_micros())
            .fetch_optional(conn)
            .await)?;
        row.map(Pass::try_from).transpose()
    }

    /// Ends the pass if it is still as `version` says; `None` if not. With
    /// `refunded_minor` it counts as refunded.
    pub async fn end(
        &mut self,
        id: PassId,
        version: i64,
        refunded_minor: Option<i64>,
        at: DateTime<Utc>,
    ) -> StoreResult<Option<Pass>> {
        const SQL: &str = "
            UPDATE passes SET revoked_at = $3, refunded_minor = $4, version = version + 1
            WHERE id = $1 AND version = $2 AND revoked_at IS NULL
            RETURNING id, user_id, prefix, duration_hours, upstream, origin, price_minor,
                      refunded_minor, created_at, activated_us, revoked_at, version";

        let row: Option<PassRow> = on_conn!(self.conn, |conn| sqlx::query_as(SQL)
            .bind(id)
            .bind(version)
            .bind(at)
            .bind(refunded_minor)
            .fetch_optional(conn)
            .await)?;
        row.map(Pass::try_from).transpose()
    }

    /// Texts that are sealed with another key than `key`, by id behind `after`,
    /// at most `most`.
    pub async fn sealed_otherwise(
        &mut self,
        key: &str,
        after: Option<PassId>,
        most: u32,
    ) -> StoreResult<Vec<(PassId, Sealed)>> {
        const SQL: &str = "
            SELECT id, sealed, sealing_key FROM passes
            WHERE sealing_key <> $1 AND id > $2
            ORDER BY id LIMIT $3";

        let rows: Vec<TextRow> = on_conn!(self.conn, |conn| sqlx::query_as(SQL)
            .bind(key)
            .bind(after.unwrap_or(PassId::NIL))
            .bind(i64::from(most))
            .fetch_all(conn)
            .await)?;
        let sealed = |row: TextRow| (row.id, Sealed { key: row.sealing_key, bytes: row.sealed });
        Ok(rows.into_iter().map(sealed).collect())
    }

    /// Replaces a sealed text unless it is no longer the `old` one. The version
    /// stays: no copy holds the text.
    pub async fn reseal(&mut self, id: PassId, old: &Sealed, new: &Sealed) -> StoreResult<bool> {
        const SQL: &str = "
            UPDATE passes SET sealed = $3, sealing_key = $4
            WHERE id = $1 AND sealed = $2";

        on_conn!(self.conn, |conn| sqlx::query(SQL)
            .bind(id)
            .bind(&old.bytes)
            .bind(&new.bytes)
            .bind(&new.key)
            .execute(conn)
            .await
            .map(|done| done.rows_affected() == 1))
    }
}

const HOUR_US: i64 = 3_600_000_000;

fn with_text(row: SealedRow) -> StoreResult<(Pass, Sealed)> {
    let SealedRow { pass, sealed, sealing_key } = row;
    Ok((pass.try_into()?, Sealed { key: sealing_key, bytes: sealed }))
}
