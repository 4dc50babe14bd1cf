//! Usage as it is shown: totals over a span and a series of buckets.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use super::{UsageService, hour_of, truncate};
use crate::{
    domain::{id::ApiKeyId, usage::Totals},
    repositories::{GroupValue, Repositories as _, StoreError, UsageFilter, UsageGroup, UsageRow},
};

/// The width of a bucket. Buckets begin at full hours and days of UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interval {
    Hour,
    Day,
}

/// What to show.
#[derive(Clone, Debug)]
pub struct ReportQuery {
    pub filter: UsageFilter,
    /// `None`: one bucket, the whole span.
    pub interval: Option<Interval>,
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
        let filter = UsageFilter { from: hour_of(query.filter.from), ..query.filter.clone() };
        let rows = self.db.session().await?.usage().hourly(&filter, query.group).await?;
        let mut totals = Totals::default();
        let mut items: BTreeMap<(DateTime<Utc>, Option<GroupValue>), Totals> = BTreeMap::new();
        for UsageRow { hour, group, totals: sums } in rows {
            totals.merge(&sums);
            let start = query.interval.map_or(filter.from, |interval| bucket_of(hour, interval));
            items.entry((start, group)).or_default().merge(&sums);
        }
        let items = items
            .into_iter()
            .map(|((start, group), totals)| {
                let group = group.and_then(name_of);
                ReportItem { start, group, totals }
            })
            .collect();
        Ok(Report { from: filter.from, to: filter.to, totals, items })
    }

    pub async fn of_key(&self, key: ApiKeyId) -> Result<KeyUsage, StoreError> {
        let now = self.clock.now();
        let today = bucket_of(now, Interval::Day);
        let month = today - TimeDelta::days(29);
        let end = hour_of(now) + TimeDelta::hours(1);
        let mut session = self.db.session().await?;
        let mut sums = vec![];
        for from in [None, Some(today), Some(month)] {
            sums.push(session.usage().key_totals(key, from, end).await?);
        }
        let [totals, today, last_30_days] = sums.try_into().expect("three spans were asked for");
        Ok(KeyUsage { totals, today, last_30_days })
    }
}

fn bucket_of(at: DateTime<Utc>, interval: Interval) -> DateTime<Utc> {
    match interval {
        Interval::Hour => hour_of(at),
        Interval::Day => truncate(at, TimeDelta::days(1)),
    }
}

/// `None`: what has no such thing, a request without a key for example.
fn name_of(group: GroupValue) -> Option<String> {
    match group {
        GroupValue::Key(id) => id.map(|id| id.to_string()),
        GroupValue::User(id) => id.map(|id| id.to_string()),
        GroupValue::Upstream(name) => Some(name),
        GroupValue::Status(class) => Some(class.to_string()),
    }
}
