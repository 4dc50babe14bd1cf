//! The digests of the texts that open a key.

use chrono::{DateTime, Utc};

use super::ApiKeys;
use crate::{
    domain::{
        id::{ApiKeyId, UserId},
        token::TokenHash,
    },
    repositories::{StoreResult, connection::on_conn, row::token_hash},
};

impl ApiKeys<'_> {
    /// One more text for the key, without an end.
    pub async fn add_secret(
        &mut self,
        id: ApiKeyId,
        hash: &TokenHash,
        at: DateTime<Utc>,
    ) -> StoreResult<()> {
        const SQL: &str =
            "INSERT INTO api_key_secrets (hash, key_id, created_at) VALUES ($1, $2, $3)";

        on_conn!(self.conn, |conn| sqlx::query(SQL)
            .bind(hash.as_bytes())
            .bind(id)
            .bind(at)
            .execute(conn)
            .await
            .map(drop))
    }

    /// Lets every text of the key but `keep` end at `expires_at`. An earlier
    /// end that was set before stays.
    pub async fn expire_secrets(
        &mut self,
        id: ApiKeyId,
        keep: &TokenHash,
        expires_at: DateTime<Utc>,
    ) -> StoreResult<()> {
        const SQL: &str = "
            UPDATE api_key_secrets SET expires_at = $3
            WHERE key_id = $1 AND hash <> $2 AND (expires_at IS NULL OR expires_at > $3)";

        on_conn!(self.conn, |conn| sqlx::query(SQL)
            .bind(id)
            .bind(keep.as_bytes())
            .bind(expires_at)
            .execute(conn)
            .await
            .map(drop))
    }

    /// The digests of a key's texts, ended ones included as long as they are
    /// kept, oldest first: what a cache may know the key by.
    pub async fn secrets(&mut self, id: ApiKeyId) -> StoreResult<Vec<TokenHash>> {
        const SQL: &str =
            "SELECT hash FROM api_key_secrets WHERE key_id = $1 ORDER BY created_at, hash";

        let hashes: Vec<Vec<u8>> =
            on_conn!(self.conn, |conn| sqlx::query_scalar(SQL).bind(id).fetch_all(conn).await)?;
        hashes.iter().map(|hash| token_hash(hash)).collect()
    }

    /// As [`Self::secrets`], for all keys of a user, each with its key's version.
    pub async fn secrets_of_user(&mut self, user: UserId) -> StoreResult<Vec<(TokenHash, i64)>> {
        const SQL: &str = "
            SELECT s.hash, k.version FROM api_keys k JOIN api_key_secrets s ON s.key_id = k.id
            WHERE k.user_id = $1
            ORDER BY s.created_at, s.hash";

        let rows: Vec<(Vec<u8>, i64)> =
            on_conn!(self.conn, |conn| sqlx::query_as(SQL).bind(user).fetch_all(conn).await)?;
        rows.iter().map(|(hash, version)| Ok((token_hash(hash)?, *version))).collect()
    }

    /// Removes texts that ended before `before`, at most 1000 at once, so call
    /// it until it removes fewer.
    pub async fn delete_expired_secrets(&mut self, before: DateTime<Utc>) -> StoreResult<u64> {
        const SQL: &str = "
            DELETE FROM api_key_secrets WHERE hash IN (
                SELECT hash FROM api_key_secrets WHERE expires_at < $1 LIMIT 1000)";

        on_conn!(self.conn, |conn| sqlx::query(SQL)
            .bind(before)
            .execute(conn)
            .await
            .map(|done| done.rows_affected()))
    }
}
