//! Storage of API keys.
//!
//! The texts that open a key are digests in a table of their own
//! ([`secrets`]), because during a rotation a key has several.

mod secrets;

use chrono::{DateTime, Utc};
use sqlx::QueryBuilder;

use super::{DbConn, StoreError, StoreResult, connection::on_conn, row};
use crate::domain::{
    api_key::ApiKey,
    id::{ApiKeyId, UserId},
    page::{Page, PageRequest},
    text::fold,
    token::TokenHash,
};

pub struct ApiKeys<'c> {
    conn: DbConn<'c>,
}

/// Which keys a list shows; all by default.
#[derive(Clone, Debug, Default)]
pub struct KeyFilter {
    pub user_id: Option<UserId>,
    pub is_active: Option<bool>,
    /// Part of the name or prefix, in any case.
    pub q: Option<String>,
}

#[derive(sqlx::FromRow)]
struct ApiKeyRow {
    id: ApiKeyId,
    user_id: UserId,
    name: String,
    prefix: String,
    scopes: String,
    upstreams: String,
    allowed_ips: String,
    allowed_origins: String,
    rate_limit: Option<i64>,
    rate_limit_per_minute: Option<i64>,
    monthly_quota: Option<i64>,
    limits: String,
    max_concurrent: Option<i64>,
    metadata: String,
    is_active: bool,
    expires_at: Option<DateTime<Utc>>,
    last_used_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    rotated_at: Option<DateTime<Utc>>,
    version: i64,
}

/// A key as one of its texts opens it.
#[derive(sqlx::FromRow)]
struct OpenedRow {
    #[sqlx(flatten)]
    key: ApiKeyRow,
    secret_expires_at: Option<DateTime<Utc>>,
}

impl TryFrom<ApiKeyRow> for ApiKey {
    type Error = StoreError;

    fn try_from(row: ApiKeyRow) -> StoreResult<Self> {
        let limit = |column, number: Option<i64>| {
            number.map(|number| row::narrow(column, number)).transpose()
        };
        Ok(Self {
            id: row.id,
            user_id: row.user_id,
            name: row.name,
            prefix: row.prefix,
            scopes: row::parse_json("scopes", &row.scopes)?,
            upstreams: row::parse_json("upstreams", &row.upstreams)?,
            allowed_ips: row::parse_json("allowed_ips", &row.allowed_ips)?,
            allowed_origins: row::parse_json("allowed_origins", &row.allowed_origins)?,
            rate_limit: limit("rate_limit", row.rate_limit)?,
            rate_limit_per_minute: limit("rate_limit_per_minute", row.rate_limit_per_minute)?,
            monthly_quota: row.monthly_quota.map(row::count),
            limits: row::parse_json("limits", &row.limits)?,
            max_concurrent: limit("max_concurrent", row.max_concurrent)?,
            metadata: row::parse_json("metadata", &row.metadata)?,
            is_active: row.is_active,
            expires_at: row.expires_at,
            last_used_at: row.last_used_at,
            created_at: row.created_at,
            rotated_at: row.rotated_at,
            version: row.version,
        })
    }
}

impl<'c> ApiKeys<'c> {
    pub(super) fn new(conn: DbConn<'c>) -> Self {
        Self { conn }
    }

    /// Stores a key with the digest of its first text.
    pub async fn insert(&mut self, key: &ApiKey, hash: &TokenHash) -> StoreResult<()> {
        const SQL: &str = "
            INSERT INTO api_keys
                (id, user_id, name, name_key, prefix, scopes, upstreams, allowed_ips,
                 allowed_origins, rate_limit, rate_limit_per_minute, monthly_quota, limits,
                 max_concurrent, metadata, is_active, expires_at, last_used_at, created_at,
                 rotated_at, version)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17,
                    $18, $19, $20, $21)";

        on_conn!(self.conn, |conn| sqlx::query(SQL)
            .bind(key.id)
            .bind(key.user_id)
            .bind(&key.name)
            .bind(fold(&key.name))
            .bind(&key.prefix)
            .bind(row::json(&key.scopes))
            .bind(row::json(&key.upstreams))
            .bind(row::json(&key.allowed_ips))
            .bind(row::json(&key.allowed_origins))
            .bind(key.rate_limit.map(i64::from))
            .bind(key.rate_limit_per_minute.map(i64::from))
            .bind(key.monthly_quota.map(row::stored))
            .bind(row::json(&key.limits))
            .bind(key.max_concurrent.map(i64::from))
            .bind(row::json(&key.metadata))
            .bind(key.is_active)
            .bind(key.expires_at)
            .bind(key.last_used_at)
            .bind(key.created_at)
            .bind(key.rotated_at)
            .bind(key.version)
            .execute(conn)
            .await
            .map(drop))?;
        self.add_secret(key.id, hash, key.created_at).await
    }

    pub async fn find(&mut self, id: ApiKeyId) -> StoreResult<Option<ApiKey>> {
        const SQL: &str = "
            SELECT id, user_id, name, prefix, scopes, upstreams, allowed_ips, allowed_origins,
                   rate_limit, rate_limit_per_minute, monthly_quota, limits, max_concurrent,
                   metadata, is_active,
                   expires_at, last_used_at, created_at, rotated_at, version
            FROM api_keys
            WHERE id = $1";

        let row: Option<ApiKeyRow> =
            on_conn!(self.conn, |conn| sqlx::query_as(SQL).bind(id).fetch_optional(conn).await)?;
        row.map(ApiKey::try_from).transpose()
    }

    /// Looks a key up by the digest of the presented text, unless that text
    /// was replaced and its grace is over at `now`. With the key comes the end
    /// of that grace, if it has one.
    ///
    /// Returns disabled and expired keys too: whether a key may be used is the
    /// caller's rule.
    pub async fn find_by_hash(
        &mut self,
        hash: &TokenHash,
        now: DateTime<Utc>,
    ) -> StoreResult<Option<(ApiKey, Option<DateTime<Utc>>)>> {
        const SQL: &str = "
            SELECT s.expires_at AS secret_expires_at, k.id, k.user_id, k.name, k.prefix, k.scopes, k.upstreams, k.allowed_ips,
                   k.allowed_origins, k.rate_limit, k.rate_limit_per_minute, k.monthly_quota,
                   k.limits, k.max_concurrent, k.metadata, k.is_active, k.expires_at, k.last_used_at, k.created_at,
                   k.rotated_at, k.version
            FROM api_key_secrets s JOIN api_keys k ON k.id = s.key_id
            WHERE s.hash = $1 AND (s.expires_at IS NULL OR s.expires_at > $2)";

        let row: Option<OpenedRow> = on_conn!(self.conn, |conn| sqlx::query_as(SQL)
            .bind(hash.as_bytes())
            .bind(now)
            .fetch_optional(conn)
            .await)?;
        row.map(|row| Ok((row.key.try_into()?, row.secret_expires_at))).transpose()
    }

    pub async fn list(
        &mut self,
        filter: &KeyFilter,
        page: PageRequest,
    ) -> StoreResult<Page<ApiKey>> {
        const SQL: &str = "
            SELECT id, user_id, name, prefix, scopes, upstreams, allowed_ips, allowed_origins,
                   rate_limit, rate_limit_per_minute, monthly_quota, limits, max_concurrent,
                   metadata, is_active,
                   expires_at, last_used_at, created_at, rotated_at, version
            FROM api_keys
            WHERE TRUE";

        let pattern = filter.q.as_deref().map(|q| row::contains(&fold(q)));
        let rows: Vec<ApiKeyRow> = on_conn!(self.conn, |conn| {
            let mut sql = QueryBuilder::new(SQL);
            if let Some(user_id) = filter.user_id {
                sql.push(" AND user_id = ").push_bind(user_id);
            }
            if let Some(is_active) = filter.is_active {
                sql.push(" AND is_active = ").push_bind(is_active);
            }
            if let Some(pattern) = &pattern {
                sql.push(" AND (name_key LIKE ").push_bind(pattern).push(r" ESCAPE '\'");
                sql.push(" OR lower(prefix) LIKE ").push_bind(pattern).push(r" ESCAPE '\')");
            }
            if let Some(after) = page.after {
                sql.push(" AND id < ").push_bind(after.0);
            }
            sql.push(" ORDER BY id DESC LIMIT ").push_bind(row::limit(page));
            sql.build_query_as().fetch_all(conn).await
        })?;
        let keys = rows.into_iter().map(ApiKey::try_from).collect::<StoreResult<_>>()?;
        Ok(Page::from_rows(keys, page.limit, |key: &ApiKey| key.id.as_uuid()))
    }

    /// Writes what may be changed of a key if it still has the version
    /// `expected`, and moves it to the next; `false` when somebody else
    /// changed it first, or it is gone.
    ///
    /// Owner, text, creation and last use are not written.
    pub async fn update(&mut self, key: &ApiKey, expected: i64) -> StoreResult<bool> {
        const SQL: &str = "
            UPDATE api_keys SET
                name = $3, name_key = $4, scopes = $5, upstreams = $6, allowed_ips = $7,
                allowed_origins = $8, rate_limit = $9, rate_limit_per_minute = $10,
                monthly_quota = $11, limits = $12, max_concurrent = $13, metadata = $14,
                is_active = $15, expires_at = $16, version = $2 + 1
            WHERE id = $1 AND version = $2";

        on_conn!(self.conn, |conn| sqlx::query(SQL)
            .bind(key.id)
            .bind(expected)
            .bind(&key.name)
            .bind(fold(&key.name))
            .bind(row::json(&key.scopes))
            .bind(row::json(&key.upstreams))
            .bind(row::json(&key.allowed_ips))
            .bind(row::json(&key.allowed_origins))
            .bind(key.rate_limit.map(i64::from))
            .bind(key.rate_limit_per_minute.map(i64::from))
            .bind(key.monthly_quota.map(row::stored))
            .bind(row::json(&key.limits))
            .bind(key.max_concurrent.map(i64::from))
            .bind(row::json(&key.metadata))
            .bind(key.is_active)
            .bind(key.expires_at)
            .execute(conn)
            .await
            .map(|done| done.rows_affected() == 1))
    }

    /// Notes that the key has a new text, which begins with `prefix`, and
    /// returns the new version. The text itself goes in with
    /// [`Self::add_secret`].
    pub async fn rotate(
        &mut self,
        id: ApiKeyId,
        prefix: &str,
        at: DateTime<Utc>,
    ) -> StoreResult<Option<i64>> {
        const SQL: &str = "
            UPDATE api_keys SET prefix = $2, rotated_at = $3, version = version + 1
            WHERE id = $1
            RETURNING version";

        on_conn!(self.conn, |conn| sqlx::query_scalar(SQL)
            .bind(id)
            .bind(prefix)
            .bind(at)
            .fetch_optional(conn)
            .await)
    }

    /// Removes a key with its secrets and returns its last version. Its usage
    /// stays.
    pub async fn delete(&mut self, id: ApiKeyId) -> StoreResult<Option<i64>> {
        const SQL: &str = "DELETE FROM api_keys WHERE id = $1 RETURNING version";

        on_conn!(self.conn, |conn| sqlx::query_scalar(SQL).bind(id).fetch_optional(conn).await)
    }

    /// Notes when keys were last used. An instant older than the stored one is
    /// ignored, so instances may report in any order; the version stays.
    pub async fn touch(&mut self, uses: &[(ApiKeyId, DateTime<Utc>)]) -> StoreResult<()> {
        const BATCH: usize = 1000;

        let mut latest = uses.to_vec();
        // With several instants for a key, which one an UPDATE takes is open.
        latest.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
        latest.dedup_by_key(|used| used.0);
        for batch in latest.chunks(BATCH) {
            on_conn!(self.conn, |conn| {
                let mut sql = QueryBuilder::new("WITH used (id, at) AS (");
                sql.push_values(batch, |mut tuple, (id, at)| {
                    tuple.push_bind(*id).push_bind(*at);
                });
                sql.push(
                    ") UPDATE api_keys SET last_used_at = used.at FROM used
                    WHERE api_keys.id = used.id
                        AND (api_keys.last_used_at IS NULL OR api_keys.last_used_at < used.at)",
                );
                // Its text varies with the number of rows: not worth keeping.
                sql.build().persistent(false).execute(conn).await.map(drop)
            })?;
        }
        Ok(())
    }
}
