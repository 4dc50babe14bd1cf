//! Usage as it is shown: totals over a span and a series of buckets.

use chrono::{DateTime, TimeDelta, Utc};

use super::UsageService;
use crate::{
    domain::{id::ApiKeyId, span::Grain, usage::Totals},
    repositories::{GroupValue, Repositories as _, StoreError, UsageFilter, UsageGroup, UsageRow},
};

/// What to show.
#[derive(Clone, Debug)]
pub struct ReportQuery {
    pub filter: UsageFilter,
    /// `None`: one bucket, the whole span.
    pub interval: Option<Grain>,
    pub group: Option<UsageGroup>,
}

/// Sums over the whole span and over each bucket that has any usage.
#[derive(Clone, Debug)]
pub struct Report {
    pub from: DateTime<Utc>,
    pub to: DateTime<Utc>,
    pub totals: Totals,
    pub items: Vec<ReportItem>,
}

/// One bucket, of one group where the report is grouped.
#[derive(Clone, Debug)]
pub struct ReportItem {
    pub start: DateTime<Utc>,
    pub group: Option<String>,
    pub totals: Totals,
}

/// A key's usage at a glance.
#[derive(Clone, Debug)]
pub struct KeyUsage {
    pub totals: Totals,
    pub today: Totals,
    pub last_30_days: Totals,
}

impl UsageService {
    /// Adds up what was written so far; a request counts within a second of
    /// its end.
    pub async fn report(&self, query: &ReportQuery) -> Result<Report, StoreError> {
        let filter =
            UsageFilter { from: Grain::Hour.floor(query.filter.from), ..query.filter.clone() };
        let mut session = self.db.session().await?;
        let rows = session.usage().sums(&filter, query.interval, query.group).await?;
        drop(session);
        let mut totals = Totals::default();
        let items = rows.into_iter().map(|UsageRow { start, group, totals: sums }| {
            totals.merge(&sums);
            ReportItem { start, group: group.and_then(name_of), totals: sums }
        });
        let items = items.collect();
        Ok(Report { from: filter.from, to: filter.to, totals, items })
    }

    pub async fn of_key(&self, key: ApiKeyId) -> Result<KeyUsage, StoreError> {
        let now = self.clock.now();
        let today = Grain::Day.floor(now);
        let month = today - TimeDelta::days(29);
        let end = Grain::Hour.next(now);
        let mut session = self.db.session().await?;
        let mut sums = vec![];
        for from in [None, Some(today), Some(month)] {
            sums.push(session.usage().key_totals(key, from, end).await?);
        }
        let [totals, today, last_30_days] = sums.try_into().expect("three spans were asked for");
        Ok(KeyUsage { totals, today, last_30_days })
    }
}

/// `None`: what has no such thing, a request without a key for example.
fn name_of(group: GroupValue) -> Option<String> {
    match group {
        GroupValue::Key(id) => id.map(|id| id.to_string()),
        GroupValue::User(id) => id.map(|id| id.to_string()),
        GroupValue::Pass(id) => id.map(|id| id.to_string()),
        GroupValue::Upstream(name) => Some(name),
        // A name has no slash, and a pattern begins with one.
        GroupValue::Route(upstream, pattern) => Some(upstream + &pattern),
        GroupValue::Status(class) => Some(class.to_string()),
    }
}
