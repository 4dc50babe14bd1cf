//! Everything at a glance, for operators: accounts, passes, revenue, requests, who
//! asks most, and how it fares.
//!
//! From roll-ups and indexes, never from the tables themselves. What could not be
//! read is `None`, and the rest is told all the same.

mod held;

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, TimeDelta, Utc};

use self::held::{Findings, Held, Lives};
pub use crate::repositories::{Asker, PassCounts, Sales, UserCounts, Volume};
use crate::{
    domain::{
        clock::SharedClock,
        id::{ApiKeyId, UserId},
        money::Currency,
        span::Grain,
    },
    repositories::{Database, Repositories as _, Session, StoreError},
    services::{upstreams::UpstreamService, usage::UsageService},
};

/// How many of the busiest are told.
const BUSIEST: u32 = 10;
const DAY: TimeDelta = TimeDelta::days(1);
const MONTH: TimeDelta = TimeDelta::days(30);
/// Counts change slowly, and are the dearer the more there is.
const OF_COUNTS: Lives = Lives { fresh: TimeDelta::seconds(30), good: TimeDelta::minutes(10) };
const OF_TRAFFIC: Lives = Lives { fresh: TimeDelta::seconds(5), good: TimeDelta::minutes(1) };

/// What there is.
#[derive(Clone, Debug)]
pub struct Counts {
    /// Those that are new in a day and in 30.
    pub users: Option<UserCounts>,
    pub passes: Option<PassCounts>,
    pub sales: Option<SalesOverview>,
}

#[derive(Clone, Copy, Debug)]
pub struct SalesOverview {
    pub all: Sales,
    pub last_day: Sales,
    pub last_30_days: Sales,
}

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Traffic {
    pub volumes: Option<Volumes>,
    /// In a day, the busiest first.
    pub askers: Option<Vec<Busy>>,
    pub upstreams: Option<Vec<(String, Volume)>>,
}

#[derive(Clone, Copy, Debug)]
pub struct Volumes {
    /// Since midnight, UTC.
    pub today: Volume,
    /// In this hour and the 23 before.
    pub last_day: Volume,
    /// Today and on the 29 days before.
    pub last_30_days: Volume,
}

/// Somebody who asks much, with names as far as there are still any.
#[derive(Clone, Debug)]
pub struct Busy {
    pub asker: Asker,
    pub username: Option<String>,
    pub key_name: Option<String>,
    pub volume: Volume,
}

/// How it fares, as this instance sees it, beside what [`HealthService`] reports.
///
/// [`HealthService`]: super::HealthService
#[derive(Clone, Debug)]
pub struct Fares {
    /// How long usage has waited for the database, and how many records do.
    pub journal_lag: TimeDelta,
    pub journal_waiting: u64,
    /// Upstreams of which no target would be asked.
    pub upstreams_down: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct Overview {
    pub counts: Counts,
    pub counted_at: DateTime<Utc>,
    pub traffic: Traffic,
    pub summed_at: DateTime<Utc>,
    pub fares: Fares,
    pub currency: Currency,
}

pub struct OverviewService {
    reader: Reader,
    usage: Arc<UsageService>,
    upstreams: Arc<UpstreamService>,
    currency: Currency,
    counts: Arc<Held<Counts>>,
    traffic: Arc<Held<Traffic>>,
}

/// What an [`OverviewService`] is built from.
pub struct Parts {
    pub db: Database,
    pub clock: SharedClock,
    pub usage: Arc<UsageService>,
    pub upstreams: Arc<UpstreamService>,
    pub currency: Currency,
}

impl OverviewService {
    pub fn new(parts: Parts) -> Self {
        let Parts { db, clock, usage, upstreams, currency } = parts;
        Self {
            reader: Reader { db, clock },
            usage,
            upstreams,
            currency,
            counts: Held::new(OF_COUNTS),
            traffic: Held::new(OF_TRAFFIC),
        }
    }

    pub async fn get(&self) -> Overview {
        let now = self.reader.clock.now();
        let (counting, summing) = (self.reader.clone(), self.reader.clone());
        let (counts, traffic) = tokio::join!(
            self.counts.get(now, || counting.counts()),
            self.traffic.get(now, || summing.traffic()),
        );
        let directory = self.upstreams.current();
        let is_down = |targets: &[Arc<_>]| !targets.is_empty() && !targets.iter().any(available);
        let down = directory.upstreams.iter().filter(|upstream| is_down(&upstream.targets));
        Overview {
            counts: counts.value.clone(),
            counted_at: counts.at,
            traffic: traffic.value.clone(),
            summed_at: traffic.at,
            fares: Fares {
                journal_lag: self.usage.lag(),
                journal_waiting: self.usage.pending(),
                upstreams_down: down.map(|upstream| upstream.config.name.to_owned()).collect(),
            },
            currency: self.currency,
        }
    }
}

fn available(target: &Arc<super::upstreams::TargetState>) -> bool {
    target.is_available()
}

impl Findings for Counts {
    fn is_whole(&self) -> bool {
        self.users.is_some() && self.passes.is_some() && self.sales.is_some()
    }
}

impl Findings for Traffic {
    fn is_whole(&self) -> bool {
        self.volumes.is_some() && self.askers.is_some() && self.upstreams.is_some()
    }
}

/// Asks the database, for as long as it takes.
#[derive(Clone)]
struct Reader {
    db: Database,
    clock: SharedClock,
}

impl Reader {
    async fn counts(self) -> Counts {
        let now = self.clock.now();
        let Some(mut session) = told(self.db.session().await) else {
            return Counts { users: None, passes: None, sales: None };
        };
        let users = session.counts().users(now - DAY, now - MONTH).await;
        let passes = session.counts().passes(now).await;
        let sales = sales(&mut session, now).await;
        Counts { users: told(users), passes: told(passes), sales: told(sales) }
    }

    async fn traffic(self) -> Traffic {
        let now = self.clock.now();
        let Some(mut session) = told(self.db.session().await) else {
            return Traffic { volumes: None, askers: None, upstreams: None };
        };
        let (day, end) = (day_before(now), Grain::Hour.next(now));
        let volumes = volumes(&mut session, now).await;
        let askers = askers(&mut session, day, end).await;
        let upstreams = session.usage().busiest_upstreams(day, end, BUSIEST).await;
        Traffic { volumes: told(volumes), askers: told(askers), upstreams: told(upstreams) }
    }
}

/// The beginning of the first of 24 hours, of which `now` lies in the last.
fn day_before(now: DateTime<Utc>) -> DateTime<Utc> {
    Grain::Hour.next(now) - DAY
}

async fn sales(session: &mut Session, now: DateTime<Utc>) -> Result<SalesOverview, StoreError> {
    let mut counts = session.counts();
    Ok(SalesOverview {
        all: counts.sales(None).await?,
        last_day: counts.sales(Some(now - DAY)).await?,
        last_30_days: counts.sales(Some(now - MONTH)).await?,
    })
}

async fn volumes(session: &mut Session, now: DateTime<Utc>) -> Result<Volumes, StoreError> {
    let (today, end) = (Grain::Day.floor(now), Grain::Hour.next(now));
    let mut usage = session.usage();
    Ok(Volumes {
        today: usage.volume(today, end).await?,
        last_day: usage.volume(day_before(now), end).await?,
        last_30_days: usage.volume(today - TimeDelta::days(29), end).await?,
    })
}

async fn askers(
    session: &mut Session,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
) -> Result<Vec<Busy>, StoreError> {
    let found = session.usage().busiest_askers(from, to, BUSIEST).await?;
    let users: Vec<UserId> = found.iter().filter_map(|(asker, _)| asker.user_id).collect();
    let keys: Vec<ApiKeyId> = found.iter().filter_map(|(asker, _)| asker.key_id).collect();
    let users: BTreeMap<_, _> = session.counts().usernames(&users).await?;
    let keys: BTreeMap<_, _> = session.counts().key_names(&keys).await?;
    let named = found.into_iter().map(|(asker, volume)| Busy {
        asker,
        username: asker.user_id.and_then(|id| users.get(&id).cloned()),
        key_name: asker.key_id.and_then(|id| keys.get(&id).cloned()),
        volume,
    });
    Ok(named.collect())
}

/// What could be read; why not is for the log.
fn told<T>(read: Result<T, StoreError>) -> Option<T> {
    read.inspect_err(|error| {
        let error: &dyn std::error::Error = error;
        tracing::warn!(error, "a part of the overview cannot be read");
    })
    .ok()
}
