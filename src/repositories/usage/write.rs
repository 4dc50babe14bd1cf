//! Adds usage.

use sqlx::QueryBuilder;

use super::{
    Usage,
    cells::{Cell, cells, table},
};
use crate::{
    domain::usage::{Rollup, RollupKey},
    repositories::{
        DbConn, StoreResult,
        connection::{LONG_DEADLINE, on_conn},
        row::{json, stored},
    },
};

/// Rows per statement: 17 parameters each, where SQLite takes 32,766 and Postgres
/// 65,535.
const BATCH: usize = 1000;

/// Two histograms as one, by each engine's own means.
const MERGE_ON_POSTGRES: &str = "usage_merge(stored.latency, excluded.latency)";
const MERGE_ON_SQLITE: &str = "(
    SELECT json_group_object(key, count) FROM (
        SELECT key, SUM(value) AS count FROM (
            SELECT key, value FROM json_each(stored.latency)
            UNION ALL SELECT key, value FROM json_each(excluded.latency)
        ) GROUP BY key))";

impl Usage<'_> {
    /// Adds sums to what is stored. Not idempotent: the caller sees to it that
    /// each sum is added once, in one transaction with whatever tells so.
    pub async fn add_rollups(&mut self, rollups: &[(RollupKey, Rollup)]) -> StoreResult<()> {
        // One statement must not meet a row twice (Postgres refuses).
        let cells: Vec<_> = cells(rollups).into_iter().collect();
        for grain in cells.chunk_by(|(a, _), (b, _)| a.grain == b.grain) {
            for batch in grain.chunks(BATCH) {
                self.add_cells(batch).await?;
            }
        }
        Ok(())
    }

    /// Cells of one grain.
    async fn add_cells(&mut self, batch: &[(Cell<'_>, Rollup)]) -> StoreResult<()> {
        const COLUMNS: &str = "
            (detail, start, user_id, key_id, pass_id, upstream, route, status_class, requests,
             rejected, aborted, bytes_in, bytes_out, duration_us, stream_us, messages, latency) ";
        const ADD: &str = "
            ON CONFLICT (detail, start, user_id, key_id, pass_id, upstream, route, status_class)
            DO UPDATE SET
                requests = stored.requests + excluded.requests,
                rejected = stored.rejected + excluded.rejected,
                aborted = stored.aborted + excluded.aborted,
                bytes_in = stored.bytes_in + excluded.bytes_in,
                bytes_out = stored.bytes_out + excluded.bytes_out,
                duration_us = stored.duration_us + excluded.duration_us,
                stream_us = stored.stream_us + excluded.stream_us,
                messages = stored.messages + excluded.messages,
                latency = ";

        let Some((first, _)) = batch.first() else { return Ok(()) };
        let merge = match self.conn {
            DbConn::Postgres(_) => MERGE_ON_POSTGRES,
            DbConn::Sqlite(_) => MERGE_ON_SQLITE,
        };
        on_conn!(self.conn, within LONG_DEADLINE, |conn| {
            let mut sql = QueryBuilder::new("INSERT INTO ");
            sql.push(table(first.grain)).push(" AS stored ").push(COLUMNS);
            sql.push_values(batch, |mut tuple, (cell, sum)| {
                tuple
                    .push_bind(cell.detail.number())
                    .push_bind(cell.start)
                    .push_bind(cell.user_id)
                    .push_bind(cell.key_id)
                    .push_bind(cell.pass_id)
                    .push_bind(cell.upstream)
                    .push_bind(cell.route)
                    .push_bind(cell.status_class)
                    .push_bind(stored(sum.requests))
                    .push_bind(stored(sum.rejected))
                    .push_bind(stored(sum.aborted))
                    .push_bind(stored(sum.bytes_in))
                    .push_bind(stored(sum.bytes_out))
                    .push_bind(stored(sum.duration_us))
                    .push_bind(stored(sum.stream_us))
                    .push_bind(stored(sum.messages))
                    .push_bind(json(&sum.latency));
            });
            sql.push(ADD).push(merge);
            // Its text varies with the number of rows: not worth keeping.
            sql.build().persistent(false).execute(conn).await.map(drop)
        })
    }
}
