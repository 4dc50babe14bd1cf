//! Usage to take away, page by page.
//!
//! Each page is read on a connection of its own, which is given back before the
//! page is handed over: whoever reads slowly holds a page in memory and nothing
//! of the database. Pages follow each other by time, not by number, so that what
//! is written meanwhile neither repeats a row nor hides one.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::{ReportItem, ReportQuery, UsageService};
use crate::{
    domain::{id::LogPlace, span::Grain, usage::UsageRecord},
    repositories::{Repositories as _, StoreError, UsageFilter, UsageGroup},
};

/// Rows of the request log that are read at once.
const RECORDS_AT_ONCE: u32 = 1000;
/// Buckets that are read at once where each is one row.
const BUCKETS_AT_ONCE: usize = 32;

/// What is taken away.
#[derive(Clone, Copy, Debug)]
pub enum ExportOf {
    /// A row per bucket that has usage, or per group within it.
    Sums { interval: Grain, group: Option<UsageGroup> },
    /// The request log, in the order of completion.
    Requests,
}

/// Some rows.
#[derive(Debug)]
pub enum ExportPage {
    Sums(Vec<ReportItem>),
    Requests(Vec<UsageRecord>),
}

/// An export under way.
pub struct Export {
    usage: Arc<UsageService>,
    of: ExportOf,
    /// What is not read yet.
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    /// The same of the request log.
    after: LogPlace,
}

impl UsageService {
    /// Everybody's usage from `from` to `to`, which is excluded. Nothing is read
    /// yet.
    pub fn export(
        self: &Arc<Self>,
        of: ExportOf,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> Export {
        let after = LogPlace::first_of(from);
        Export { usage: Arc::clone(self), of, from, to, after }
    }
}

impl Export {
    /// The next rows, some at least; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<ExportPage>, StoreError> {
        match self.of {
            ExportOf::Requests => self.next_requests().await,
            ExportOf::Sums { interval, group } => self.next_sums(interval, group).await,
        }
    }

    async fn next_requests(&mut self) -> Result<Option<ExportPage>, StoreError> {
        let end = LogPlace::first_of(self.to);
        let mut session = self.usage.db.session().await?;
        let records = session.usage().requests_between(self.after, end, RECORDS_AT_ONCE).await?;
        let Some(last) = records.last() else { return Ok(None) };
        self.after = last.place;
        Ok(Some(ExportPage::Requests(records)))
    }

    async fn next_sums(
        &mut self,
        interval: Grain,
        group: Option<UsageGroup>,
    ) -> Result<Option<ExportPage>, StoreError> {
        while self.from < self.to {
            // With groups one bucket may have as many rows as there are keys.
            let buckets = if group.is_some() { 1 } else { BUCKETS_AT_ONCE };
            let end = (0..buckets).fold(self.from, |end, _| interval.next(end)).min(self.to);
            let filter = UsageFilter {
                user_id: None,
                key_id: None,
                upstream: None,
                from: self.from,
                to: end,
            };
            let query = ReportQuery { filter, interval: Some(interval), group };
            let report = self.usage.report(&query).await?;
            self.from = end;
            if !report.items.is_empty() {
                return Ok(Some(ExportPage::Sums(report.items)));
            }
        }
        Ok(None)
    }
}
