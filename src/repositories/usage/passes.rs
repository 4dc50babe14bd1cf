//! What was let through with each pass, by the hour.

use chrono::{DateTime, Utc};
use sqlx::QueryBuilder;

use super::Usage;
use crate::{
    domain::id::PassId,
    repositories::{StoreResult, connection::on_conn, row::stored},
};

/// Rows per statement, of 3 parameters each.
const BATCH: usize = 1000;

impl Usage<'_> {
    /// Adds to what is stored; each pass and hour once. Not idempotent, as
    /// [`Usage::add_rollups`].
    pub async fn add_of_passes(
        &mut self,
        sums: &[(PassId, DateTime<Utc>, u64)],
    ) -> StoreResult<()> {
        for batch in sums.chunks(BATCH) {
            on_conn!(self.conn, |conn| {
                let mut sql =
                    QueryBuilder::new("INSERT INTO usage_passes (pass_id, hour, requests) ");
                sql.push_values(batch, |mut tuple, (pass, hour, requests)| {
                    tuple.push_bind(*pass).push_bind(*hour).push_bind(stored(*requests));
                });
                sql.push(
                    " ON CONFLICT (pass_id, hour) DO UPDATE SET
                        requests = usage_passes.requests + excluded.requests",
                );
                // Its text varies with the number of rows: not worth keeping.
                sql.build().persistent(false).execute(conn).await.map(drop)
            })?;
        }
        Ok(())
    }
}
