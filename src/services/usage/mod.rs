//! What was used: recorded when a request ends, added up, shown.
//!
//! The hot path writes a record to the [`Journal`]; a job takes what waits there
//! into the database about twice a second ([`UsageService::flush`]). Leave is
//! taken before a request goes upstream, so where nothing can be recorded any
//! more, work is refused instead of being served unmetered.

mod batch;
mod drain;
mod export;
mod report;

use std::{
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use chrono::{DateTime, TimeDelta, Utc};

pub use self::{
    drain::DrainError,
    export::{Export, ExportOf, ExportPage},
    report::{KeyUsage, Report, ReportItem, ReportQuery},
};
use crate::{
    config::UsageConfig,
    domain::{
        clock::SharedClock,
        page::{Page, PageRequest},
        usage::UsageRecord,
    },
    repositories::{Database, Repositories as _, RolledUp},
};
/// What records usage, and what usage can be asked by.
pub use crate::{
    domain::{span::Grain, usage::Totals},
    journal::{Journal, Orphan, Saturated, Slot, together},
    repositories::{RequestFilter, StoreError, UsageFilter, UsageGroup},
};

/// Rows of the request log are removed this many at a time at least.
const TRIMMED_AT_ONCE: usize = 1_000;
/// How long after its end an hour is rolled up: nearly all of it is in the
/// database by then. What comes later costs more.
const LATE: TimeDelta = TimeDelta::minutes(2);
/// Marks of journals are kept for as long as anybody might bring one back.
const MARKS_KEPT: TimeDelta = TimeDelta::days(400);

pub struct UsageService {
    db: Database,
    clock: SharedClock,
    journal: Journal,
    /// Where processes of this machine have their journals.
    folder: PathBuf,
    /// Held while the journal is drained: whether its marks must be asked for.
    draining: tokio::sync::Mutex<bool>,
    /// Records of the journal that are in the database.
    flushed: AtomicU64,
    /// When nothing waited last, microseconds since 1970.
    caught_up_at: AtomicI64,
    retention_days: u32,
    request_log_max: u32,
    /// Rows added to the request log since it was last cut.
    logged: AtomicUsize,
    /// Months whose tables are there, this one or later when they were made.
    months: Mutex<Vec<DateTime<Utc>>>,
}

impl UsageService {
    /// `threads` write records.
    pub fn new(db: Database, clock: SharedClock, config: &UsageConfig, threads: usize) -> Self {
        let UsageConfig { retention_days, request_log_max, journal } = config;
        let now = clock.now().timestamp_micros();
        Self {
            db,
            clock,
            journal: Journal::new(journal, threads),
            folder: journal.folder.clone(),
            draining: tokio::sync::Mutex::default(),
            flushed: AtomicU64::new(0),
            caught_up_at: AtomicI64::new(now),
            retention_days: *retention_days,
            request_log_max: *request_log_max,
            logged: AtomicUsize::new(0),
            months: Mutex::default(),
        }
    }

    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Records that wait for the database, about.
    pub fn pending(&self) -> u64 {
        self.journal.records().saturating_sub(self.flushed.load(Relaxed))
    }

    /// For how long something has waited for the database.
    pub fn lag(&self) -> TimeDelta {
        if self.journal.is_drained() {
            return TimeDelta::zero();
        }
        let since = self.caught_up_at.load(Relaxed);
        TimeDelta::microseconds((self.clock.now().timestamp_micros() - since).max(0))
    }

    fn caught_up(&self) {
        self.caught_up_at.store(self.clock.now().timestamp_micros(), Relaxed);
    }

    /// Records what was refused, which no leave was taken for.
    pub fn record_unreserved(&self, record: UsageRecord) {
        self.journal.record(record);
    }

    fn count_logged(&self, rows: usize) {
        self.logged.fetch_add(rows, Relaxed);
    }

    /// Cuts the request log if enough was added to it since the last time.
    pub async fn trim(&self) -> Result<(), StoreError> {
        let bound = (self.request_log_max as usize).max(TRIMMED_AT_ONCE);
        if self.logged.load(Relaxed) < bound {
            return Ok(());
        }
        self.logged.store(0, Relaxed);
        loop {
            let mut tx = self.db.begin().await?;
            let dropped = tx.usage().prune_requests(self.request_log_max).await?;
            tx.commit().await?;
            if dropped == 0 {
                return Ok(());
            }
        }
    }

    /// Makes the tables of this month and the next, so that nothing has to when
    /// the month begins. Safe to run on every instance.
    pub async fn prepare(&self) -> Result<(), StoreError> {
        let now = self.clock.now();
        self.add_month(Grain::Month.floor(now)).await?;
        self.add_month(Grain::Month.next(now)).await
    }

    /// Makes the tables of the month that begins at `month`, unless they are
    /// known to be there.
    async fn add_month(&self, month: DateTime<Utc>) -> Result<(), StoreError> {
        let known = || self.months.lock().unwrap_or_else(PoisonError::into_inner);
        if known().contains(&month) {
            return Ok(());
        }
        let mut tx = self.db.begin().await?;
        tx.usage().add_month(month).await?;
        tx.commit().await?;
        // One that is over may be dropped by any instance.
        let this = Grain::Month.floor(self.clock.now());
        let mut known = known();
        known.retain(|month| *month >= this);
        if month >= this {
            known.push(month);
        }
        Ok(())
    }

    /// Rolls up the hours that are over, piece by piece; how many. What of them
    /// comes later is added to what was made of them. Safe to run on every
    /// instance, and to end anywhere: what is left goes on from there.
    pub async fn roll_up(&self) -> Result<usize, StoreError> {
        let before = Grain::Hour.floor(self.clock.now() - LATE);
        let mut hours = 0;
        loop {
            let mut session = self.db.session().await?;
            let Some(hour) = session.usage().hour_to_roll_up(before).await? else {
                return Ok(hours);
            };
            drop(session);
            let mut tx = self.db.begin().await?;
            let rolled_up = tx.usage().roll_up(hour).await?;
            tx.commit().await?;
            hours += usize::from(rolled_up == RolledUp::Wholly);
        }
    }

    /// Drops what is past its retention. Safe to run on every instance.
    ///
    /// Sums go by whole months, so that hours, days and months always tell the
    /// same.
    pub async fn prune(&self) -> Result<(), StoreError> {
        let now = self.clock.now();
        let before = now - TimeDelta::days(i64::from(self.retention_days));
        let mut tx = self.db.begin().await?;
        tx.usage().prune_journals(now - MARKS_KEPT).await?;
        tx.commit().await?;
        let mut tx = self.db.begin().await?;
        tx.usage().drop_months(before).await?;
        tx.commit().await?;
        let month = Grain::Month.floor(before);
        // Each call drops one batch, so that no other writer waits for long.
        loop {
            let mut tx = self.db.begin().await?;
            let dropped = tx.usage().prune_requests(self.request_log_max).await?
                + tx.usage().prune_requests_before(before).await?
                + tx.usage().prune_sums_before(month).await?;
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
