//! Which requests have had their effect.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{DbConn, StoreError, StoreResult, connection::on_conn};
use crate::domain::idempotency::Claim;

pub struct Idempotency<'c> {
    conn: DbConn<'c>,
}

/// How a claim went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimOutcome {
    /// Nobody had it: the effect is the caller's to make, in this transaction.
    Won,
    /// It was made before; what came of it.
    Done(Uuid),
    /// The key was used for another request.
    Mismatch,
}

impl<'c> Idempotency<'c> {
    pub(super) fn new(conn: DbConn<'c>) -> Self {
        Self { conn }
    }

    /// Claims the request's effect, which will be `result`. A caller that races
    /// waits until the winner commits or rolls back.
    pub async fn claim(
        &mut self,
        claim: &Claim,
        result: Uuid,
        at: DateTime<Utc>,
    ) -> StoreResult<ClaimOutcome> {
        const SQL: &str = "
            INSERT INTO idempotency_keys (user_id, key, request_hash, result_id, created_at)
            VALUES ($1, $2, $3, $4, $5)
            ON CONFLICT (user_id, key) DO NOTHING";

        // Twice, should it be pruned between being in the way and being read.
        for _ in 0..2 {
            let won = on_conn!(self.conn, |conn| sqlx::query(SQL)
                .bind(claim.user_id)
                .bind(claim.key.as_str())
                .bind(claim.request.as_bytes())
                .bind(result)
                .bind(at)
                .execute(conn)
                .await
                .map(|done| done.rows_affected() == 1))?;
            if won {
                return Ok(ClaimOutcome::Won);
            }
            if let Some(before) = self.find(claim).await? {
                return Ok(before);
            }
        }
        Err(StoreError::inconsistent("an idempotency key is in the way but not there"))
    }

    /// What came of this request; `None` if it is not known.
    pub async fn find(&mut self, claim: &Claim) -> StoreResult<Option<ClaimOutcome>> {
        const SQL: &str = "
            SELECT request_hash, result_id FROM idempotency_keys
            WHERE user_id = $1 AND key = $2";

        let row: Option<(Vec<u8>, Uuid)> = on_conn!(self.conn, |conn| sqlx::query_as(SQL)
            .bind(claim.user_id)
            .bind(claim.key.as_str())
            .fetch_optional(conn)
            .await)?;
        Ok(row.map(|(hash, result)| {
            if hash == claim.request.as_bytes() {
                ClaimOutcome::Done(result)
            } else {
                ClaimOutcome::Mismatch
            }
        }))
    }

    /// Forgets up to `most` claims older than `before`; how many.
    pub async fn prune(&mut self, before: DateTime<Utc>, most: u32) -> StoreResult<u64> {
        const SQL: &str = "
            DELETE FROM idempotency_keys
            WHERE (user_id, key) IN (
                SELECT user_id, key FROM idempotency_keys WHERE created_at < $1
                ORDER BY created_at LIMIT $2)";

        on_conn!(self.conn, |conn| sqlx::query(SQL)
            .bind(before)
            .bind(i64::from(most))
            .execute(conn)
            .await
            .map(|done| done.rows_affected()))
    }
}
