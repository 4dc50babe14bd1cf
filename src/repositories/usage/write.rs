//! Adds usage.

use std::collections::BTreeMap;

use sqlx::QueryBuilder;

use super::{
    Usage,
    cells::{Cell, base, caller, derived, table},
    latency::{self, LONGEST, merged},
};
use crate::{
    domain::usage::{Rollup, RollupKey},
    repositories::{
        StoreResult,
        connection::{LONG_DEADLINE, on_conn},
        row::stored,
    },
};

/// Rows per statement: 17 parameters each, where SQLite takes 32,766 and Postgres
/// 65,535.
const BATCH: usize = 1000;

impl Usage<'_> {
    /// Adds sums to what is stored. Not idempotent: the caller sees to it that
    /// each sum is added once, in one transaction with whatever tells so.
    pub async fn add_rollups(&mut self, rollups: &[(RollupKey, Rollup)]) -> StoreResult<()> {
        if rollups.is_empty() {
            return Ok(());
        }
        let mark = self.hold_mark().await?;
        self.add_cells(base(rollups), LONGEST).await?;
        // What comes after its hour was rolled up, from a journal of a process
        // that is dead for example.
        let late = rollups.iter().filter(|(key, _)| mark.is_late(key.hour, caller(key)));
        self.add_cells(derived(late), 0).await
    }

    /// Adds to these rows. Latencies of up to `longest` are put behind what is
    /// there, those of others merged with it.
    pub(super) async fn add_cells(
        &mut self,
        cells: BTreeMap<Cell<'_>, Rollup>,
        longest: u32,
    ) -> StoreResult<()> {
        let cells: Vec<_> = cells.into_iter().collect();
        for grain in cells.chunk_by(|(a, _), (b, _)| a.grain == b.grain) {
            // One statement must not meet a row twice (Postgres refuses).
            for batch in grain.chunks(BATCH) {
                self.add_batch(batch, longest).await?;
            }
        }
        Ok(())
    }

    /// Cells of one grain.
    async fn add_batch(&mut self, batch: &[(Cell<'_>, Rollup)], longest: u32) -> StoreResult<()> {
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
        const BOTH: &str = "trim(stored.latency || ',' || excluded.latency, ',')";

        let Some((first, _)) = batch.first() else { return Ok(()) };
        let merged = merged(&self.conn, BOTH);
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
                    .push_bind(latency::to_text(&sum.latency));
            });
            sql.push(ADD).push(format_args!(
                "CASE WHEN length(stored.latency) < {longest} THEN {BOTH} ELSE {merged} END"
            ));
            // Its text varies with the number of rows: not worth keeping.
            sql.build().persistent(false).execute(conn).await.map(drop)
        })
    }
}
