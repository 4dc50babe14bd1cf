//! What was used: recorded when a request ends, added up, shown.
//!
//! The hot path only pushes a record into a bounded buffer ([`Recorder`]); a
//! job writes what has gathered about twice a second ([`UsageService::flush`]).
//! A slot is reserved before a request goes upstream, so a full buffer refuses
//! work instead of serving it unmetered.

mod recorder;
mod report;

use std::{
    collections::HashMap,
    sync::atomic::{AtomicUsize, Ordering},
};

use chrono::{DateTime, TimeDelta, Utc};

use self::recorder::Entry;
pub use self::{
    recorder::{Recorder, Saturated, Slot},
    report::{Interval, KeyUsage, Report, ReportItem, ReportQuery},
};
pub use crate::domain::usage::Totals;
/// What usage can be asked by.
pub use crate::repositories::{RequestFilter, UsageFilter, UsageGroup};
use crate::{
    config::UsageConfig,
    domain::{
        clock::SharedClock,
        id::{ApiKeyId, UserId},
        page::{Page, PageRequest},
        usage::{Rollup, RollupKey, UsageRecord},
    },
    repositories::{Database, Repositories as _, StoreError},
};

/// Records that may wait to be written; about 100 MiB at the worst.
const CAPACITY: usize = 200_000;
/// Requests of one flush that reach the request log, the newest ones. Above
/// 2,000 requests per second the log is therefore a sample; sums are always
/// of everything. Writing a row costs as much as proxying a request.
const LOGGED_AT_ONCE: usize = 1_000;

pub struct UsageService {
    db: Database,
    clock: SharedClock,
    recorder: Recorder,
    retention_days: u32,
    request_log_max: u32,
    /// Rows added to the request log since it was last cut.
    logged: AtomicUsize,
}

impl UsageService {
    pub fn new(db: Database, clock: SharedClock, config: &UsageConfig) -> Self {
        let UsageConfig { retention_days, request_log_max } = *config;
        let recorder = Recorder::new(CAPACITY);
        Self { db, clock, recorder, retention_days, request_log_max, logged: AtomicUsize::new(0) }
    }

    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Records something that was not reserved: where the buffer is full, it
    /// is counted as dropped.
    pub fn record_unreserved(&self, record: UsageRecord) {
        self.recorder.push_unreserved(record, 1);
    }

    /// The same for what counts as `requests`, as it was charged. The log shows
    /// it once.
    pub fn record_many(&self, record: UsageRecord, requests: u64) {
        self.recorder.push_unreserved(record, requests);
    }

    /// Writes everything that has gathered, in one transaction. On failure the
    /// records go back into the buffer and the next call tries again.
    pub async fn flush(&self) -> Result<usize, StoreError> {
        let batch = self.recorder.take();
        if batch.is_empty() {
            return Ok(0);
        }
        match self.write(&batch).await {
            Ok(()) => {
                self.recorder.release(batch.len());
                Ok(batch.len())
            }
            Err(error) => {
                self.recorder.put_back(batch);
                Err(error)
            }
        }
    }

    async fn write(&self, batch: &[Entry]) -> Result<(), StoreError> {
        let rollups = roll_up(batch);
        let last_used: Vec<(ApiKeyId, DateTime<Utc>)> = last_used(batch).into_iter().collect();
        let logged = batch.len().min(LOGGED_AT_ONCE).min(self.request_log_max as usize);
        let newest = &batch[batch.len() - logged..];
        let mut tx = self.db.begin().await?;
        tx.usage().add_rollups(&rollups).await?;
        tx.usage().log_requests(newest).await?;
        tx.api_keys().touch(&last_used).await?;
        tx.commit().await?;
        self.logged.fetch_add(logged, Ordering::Relaxed);
        Ok(())
    }

    /// Cuts the request log if enough was added to it since the last time.
    pub async fn trim(&self) -> Result<(), StoreError> {
        let bound = (self.request_log_max as usize).max(LOGGED_AT_ONCE);
        if self.logged.load(Ordering::Relaxed) < bound {
            return Ok(());
        }
        self.logged.store(0, Ordering::Relaxed);
        loop {
            let mut tx = self.db.begin().await?;
            let dropped = tx.usage().prune_requests(self.request_log_max).await?;
            tx.commit().await?;
            if dropped == 0 {
                return Ok(());
            }
        }
    }

    /// Drops what is past its retention. Safe to run on every instance.
    pub async fn prune(&self) -> Result<(), StoreError> {
        let before = self.clock.now() - TimeDelta::days(i64::from(self.retention_days));
        // Each call drops one batch, so that no other writer waits for long.
        loop {
            let mut tx = self.db.begin().await?;
            let dropped = tx.usage().prune_requests(self.request_log_max).await?
                + tx.usage().prune_requests_before(before).await?
                + tx.usage().prune_hourly_before(before).await?;
            tx.commit().await?;
            if dropped == 0 {
                return Ok(());
            }
        }
    }

    /// The most recent requests, newest first.
    pub async fn requests(
        &self,
        filter: &RequestFilter,
        page: PageRequest,
    ) -> Result<Page<UsageRecord>, StoreError> {
        self.db.session().await?.usage().requests(filter, page).await
    }
}

/// The first instant of the hour that `at` lies in.
pub(super) fn hour_of(at: DateTime<Utc>) -> DateTime<Utc> {
    truncate(at, TimeDelta::hours(1))
}

/// Down to a multiple of `width` since 1970. chrono's own truncation counts in
/// nanoseconds and ends in 2262.
pub(super) fn truncate(at: DateTime<Utc>, width: TimeDelta) -> DateTime<Utc> {
    let seconds = at.timestamp();
    let start = seconds - seconds.rem_euclid(width.num_seconds());
    DateTime::from_timestamp(start, 0).expect("not before any instant of chrono's")
}

/// Adds a batch up. The keys are borrowed while it runs: a batch has many
/// records and few keys.
fn roll_up(batch: &[Entry]) -> Vec<(RollupKey, Rollup)> {
    let mut sums: HashMap<_, Rollup> = HashMap::new();
    // Who is busy sends many in a row, and a row of them is looked up once.
    for run in batch.chunk_by(|a, b| key_of(&a.record) == key_of(&b.record)) {
        let sum = sums.entry(key_of(&run[0].record)).or_default();
        for Entry { record, requests, messages } in run {
            sum.add_times(record, *requests);
            sum.requests += messages;
        }
    }
    let mut rollups: Vec<_> = sums
        .into_iter()
        .map(|((hour, user_id, key_id, upstream, status_class), rollup)| {
            let hour = DateTime::from_timestamp(hour * 3600, 0).expect("the hour of a record");
            let upstream = upstream.to_owned();
            (RollupKey { hour, user_id, key_id, upstream, status_class }, rollup)
        })
        .collect();
    // In one order on every instance, so that none waits for another in turn.
    rollups.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    rollups
}

/// What a record is added up by: hour, user, key, upstream, class of status.
fn key_of(record: &UsageRecord) -> (i64, Option<UserId>, Option<ApiKeyId>, &str, i16) {
    let UsageRecord { at, user_id, key_id, upstream, .. } = record;
    (at.timestamp() / 3600, *user_id, *key_id, upstream, record.status_class())
}

/// When each key was last let through.
fn last_used(batch: &[Entry]) -> HashMap<ApiKeyId, DateTime<Utc>> {
    use crate::domain::usage::Outcome;

    let mut last = HashMap::new();
    for run in batch.chunk_by(|a, b| a.record.key_id == b.record.key_id) {
        let records = run.iter().map(|entry| &entry.record);
        let let_through = records.filter(|record| record.outcome != Outcome::Rejected);
        let newest = let_through.map(|record| record.at).max();
        if let (Some(key), Some(newest)) = (run[0].record.key_id, newest) {
            let at = last.entry(key).or_insert(newest);
            *at = newest.max(*at);
        }
    }
    last
}
