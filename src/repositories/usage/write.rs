//! Adds usage.

use std::collections::BTreeMap;

use sqlx::QueryBuilder;

use super::Usage;
use crate::{
    domain::{
        id::{ApiKeyId, UserId},
        usage::{Rollup, RollupKey},
    },
    repositories::{StoreResult, connection::on_conn, row::stored},
};

/// Rows per statement: 11 and 7 parameters each, where SQLite takes 32,766 and
/// Postgres 65,535.
const BATCH: usize = 1000;

impl Usage<'_> {
    /// Adds sums to what is stored. Not idempotent: the caller sees to it that
    /// each sum is added once, in one transaction with whatever tells so.
    pub async fn add_rollups(&mut self, rollups: &[(RollupKey, Rollup)]) -> StoreResult<()> {
        // One statement must not meet a row twice (Postgres refuses), and two
        // instances must meet rows in the same order or they deadlock.
        let mut sums: BTreeMap<&RollupKey, Rollup> = BTreeMap::new();
        for (key, rollup) in rollups {
            sums.entry(key).or_default().merge(rollup);
        }
        let hours: Vec<_> = sums.iter().map(|(key, rollup)| (*key, rollup)).collect();
        for batch in hours.chunks(BATCH) {
            self.add_hours(batch).await?;
        }
        let buckets: Vec<_> = sums
            .iter()
            .flat_map(|(key, rollup)| {
                rollup.latency.buckets().map(move |(bucket, count)| (*key, bucket, count))
            })
            .collect();
        for batch in buckets.chunks(BATCH) {
            self.add_buckets(batch).await?;
        }
        Ok(())
    }

    async fn add_hours(&mut self, batch: &[(&RollupKey, &Rollup)]) -> StoreResult<()> {
        const INSERT: &str = "
            INSERT INTO usage_hourly
                (hour, user_id, key_id, upstream, status_class, requests, rejected, aborted,
                 bytes_in, bytes_out, duration_us) ";
        const ADD: &str = "
            ON CONFLICT (hour, user_id, key_id, upstream, status_class) DO UPDATE SET
                requests = usage_hourly.requests + excluded.requests,
                rejected = usage_hourly.rejected + excluded.rejected,
                aborted = usage_hourly.aborted + excluded.aborted,
                bytes_in = usage_hourly.bytes_in + excluded.bytes_in,
                bytes_out = usage_hourly.bytes_out + excluded.bytes_out,
                duration_us = usage_hourly.duration_us + excluded.duration_us";

        on_conn!(self.conn, |conn| {
            let mut sql = QueryBuilder::new(INSERT);
            sql.push_values(batch, |mut tuple, (key, sum)| {
                tuple
                    .push_bind(key.hour)
                    .push_bind(key.user_id.unwrap_or(UserId::NIL))
                    .push_bind(key.key_id.unwrap_or(ApiKeyId::NIL))
                    .push_bind(&key.upstream)
                    .push_bind(key.status_class)
                    .push_bind(stored(sum.requests))
                    .push_bind(stored(sum.rejected))
                    .push_bind(stored(sum.aborted))
                    .push_bind(stored(sum.bytes_in))
                    .push_bind(stored(sum.bytes_out))
                    .push_bind(stored(sum.duration_us));
            });
            sql.push(ADD);
            // Its text varies with the number of rows: not worth keeping.
            sql.build().persistent(false).execute(conn).await.map(drop)
        })
    }

    async fn add_buckets(&mut self, batch: &[(&RollupKey, i16, u64)]) -> StoreResult<()> {
        const INSERT: &str = "
            INSERT INTO usage_latency
                (hour, user_id, key_id, upstream, status_class, bucket, count) ";
        const ADD: &str = "
            ON CONFLICT (hour, user_id, key_id, upstream, status_class, bucket) DO UPDATE SET
                count = usage_latency.count + excluded.count";

        on_conn!(self.conn, |conn| {
            let mut sql = QueryBuilder::new(INSERT);
            sql.push_values(batch, |mut tuple, (key, bucket, count)| {
                tuple
                    .push_bind(key.hour)
                    .push_bind(key.user_id.unwrap_or(UserId::NIL))
                    .push_bind(key.key_id.unwrap_or(ApiKeyId::NIL))
                    .push_bind(&key.upstream)
                    .push_bind(key.status_class)
                    .push_bind(*bucket)
                    .push_bind(stored(*count));
            });
            sql.push(ADD);
            sql.build().persistent(false).execute(conn).await.map(drop)
        })
    }
}
