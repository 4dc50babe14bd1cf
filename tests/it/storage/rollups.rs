//! Sums per hour, day and month tell the same, whatever is asked.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use tollgate::{
    domain::{
        id::{ApiKeyId, LogPlace, PassId, RecordId, UserId},
        page::PageRequest,
        span::Grain,
        usage::{Outcome, Rollup, RollupKey, Totals, UsageRecord, class_of},
    },
    repositories::{GroupValue, Repositories, RequestFilter, UsageFilter, UsageGroup, UsageRow},
};
use uuid::Uuid;

use super::{Store, roll_up::roll_up};

pub(super) fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// Few of each, so that sums meet.
pub(super) struct World {
    random: StdRng,
    users: Vec<UserId>,
    keys: Vec<ApiKeyId>,
    passes: Vec<PassId>,
    began: DateTime<Utc>,
}

const UPSTREAMS: [&str; 3] = ["a", "b", "c"];
const ROUTES: [&str; 3] = ["/v1/*", "/v1/**", "/**"];

impl World {
    pub(super) fn new(seed: u64) -> Self {
        // From a leap year into the next, over both changes of summer time.
        let began = at("2023-12-30T00:00:00Z");
        Self {
            random: StdRng::seed_from_u64(seed),
            users: (0..3).map(|_| UserId::new(began)).collect(),
            keys: (0..4).map(|_| ApiKeyId::new(began)).collect(),
            passes: (0..2).map(|_| PassId::new(began)).collect(),
            began,
        }
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> Option<T> {
        // Sometimes none.
        if self.random.random_bool(0.2) { None } else { all.choose(&mut self.random).copied() }
    }

    /// Any instant of 14 months, edges of days and months often.
    fn instant(&mut self) -> DateTime<Utc> {
        let any = self.began + TimeDelta::seconds(self.random.random_range(0..14 * 30 * 86_400));
        let edge = match self.random.random_range(0..4) {
            0 => Grain::Month.next(any),
            1 => Grain::Day.next(any),
            2 => at("2024-02-29T12:00:00Z"),
            _ => return any,
        };
        edge + TimeDelta::seconds(self.random.random_range(-2..=2))
    }

    pub(super) fn record(&mut self) -> UsageRecord {
        let at = self.instant();
        let status = [200, 204, 302, 404, 429, 500][self.random.random_range(0..6)];
        let upstream = *UPSTREAMS.choose(&mut self.random).unwrap();
        let route = *ROUTES.choose(&mut self.random).unwrap();
        let (users, keys, passes) = (self.users.clone(), self.keys.clone(), self.passes.clone());
        UsageRecord {
            id: RecordId::new(at),
            request_id: "r".to_owned(),
            at,
            method: "GET".into(),
            path: "/".to_owned(),
            status,
            outcome: if status == 429 { Outcome::Rejected } else { Outcome::Completed },
            duration_us: self.random.random_range(10..10_000_000),
            bytes_in: self.random.random_range(0..1000),
            bytes_out: self.random.random_range(0..1 << 33),
            user_id: self.one_of(&users),
            key_id: self.one_of(&keys),
            pass_id: self.one_of(&passes),
            upstream: upstream.into(),
            route: route.into(),
            is_stream: self.random.random_bool(0.3),
            messages: self.random.random_range(0..5),
            place: LogPlace::NIL,
        }
    }

    fn filter(&mut self) -> UsageFilter {
        let (users, keys) = (self.users.clone(), self.keys.clone());
        let (from, to) = (self.instant(), self.instant());
        let (from, to) = (from.min(to), from.max(to));
        let mut filter = UsageFilter { user_id: None, key_id: None, upstream: None, from, to };
        match self.random.random_range(0..6) {
            0 => filter.user_id = self.one_of(&users),
            1 => filter.key_id = self.one_of(&keys),
            2 => filter.upstream = Some("a".to_owned()),
            3 => (filter.key_id, filter.upstream) = (self.one_of(&keys), Some("b".to_owned())),
            _ => {}
        }
        filter
    }
}

pub(super) fn rollup(record: &UsageRecord) -> (RollupKey, Rollup) {
    let key = RollupKey {
        hour: Grain::Hour.floor(record.at),
        user_id: record.user_id,
        key_id: record.key_id,
        pass_id: record.pass_id,
        upstream: record.upstream.to_string(),
        route: record.route.to_string(),
        status_class: class_of(record.status),
    };
    let mut sum = Rollup::default();
    sum.add(&record.used(), 1);
    (key, sum)
}

/// What the records themselves say.
fn expected(
    records: &[UsageRecord],
    filter: &UsageFilter,
    bucket: Option<Grain>,
    group: Option<UsageGroup>,
) -> Vec<UsageRow> {
    let (from, to) = (Grain::Hour.floor(filter.from), Grain::Hour.ceil(filter.to));
    let mut rows: BTreeMap<_, Totals> = BTreeMap::new();
    for record in records {
        let asked = (from..to).contains(&record.at)
            && filter.user_id.is_none_or(|id| record.user_id == Some(id))
            && filter.key_id.is_none_or(|id| record.key_id == Some(id))
            && filter.upstream.as_ref().is_none_or(|name| *name == record.upstream);
        if !asked {
            continue;
        }
        let upstream = || record.upstream.to_string();
        let value = group.map(|group| match group {
            UsageGroup::Key => GroupValue::Key(record.key_id),
            UsageGroup::User => GroupValue::User(record.user_id),
            UsageGroup::Pass => GroupValue::Pass(record.pass_id),
            UsageGroup::Upstream => GroupValue::Upstream(upstream()),
            UsageGroup::Route => GroupValue::Route(upstream(), record.route.to_string()),
            UsageGroup::Status => GroupValue::Status(class_of(record.status)),
        });
        let start = bucket.map_or(from, |bucket| bucket.floor(record.at));
        let (_, sum) = rollup(record);
        let row = rows.entry((start, value)).or_default();
        match class_of(record.status) {
            ..4 => row.succeeded += sum.requests,
            4 => row.client_errors += sum.requests,
            5.. => row.server_errors += sum.requests,
        }
        row.sum.merge(&sum);
    }
    let rows = rows.into_iter();
    rows.map(|((start, group), totals)| UsageRow { start, group, totals }).collect()
}

#[tokio::test]
async fn every_question_is_answered_as_the_records_themselves_would() {
    const GROUPS: [Option<UsageGroup>; 7] = [
        None,
        Some(UsageGroup::Key),
        Some(UsageGroup::User),
        Some(UsageGroup::Pass),
        Some(UsageGroup::Upstream),
        Some(UsageGroup::Route),
        Some(UsageGroup::Status),
    ];
    let seed = rand::random();
    let mut world = World::new(seed);
    let store = Store::fresh().await;
    let records: Vec<_> = (0..600).map(|_| world.record()).collect();
    for batch in records.chunks(150) {
        let rollups: Vec<_> = batch.iter().map(rollup).collect();
        let mut tx = store.begin().await;
        for record in batch {
            tx.usage().add_month(record.at).await.unwrap();
        }
        tx.usage().add_rollups(&rollups).await.unwrap();
        tx.commit().await.unwrap();
        // What the next batches bring of hours before this one comes late.
        let before = Grain::Hour.floor(world.instant());
        roll_up(&store, before).await;
    }
    let mut session = store.db.session().await.unwrap();
    for round in 0..40 {
        let filter = world.filter();
        for group in GROUPS {
            let buckets = [None, Some(Grain::Hour), Some(Grain::Day), Some(Grain::Month)];
            let bucket = buckets[world.random.random_range(0..4)];
            let found = session.usage().sums(&filter, bucket, group).await.unwrap();
            let expected = expected(&records, &filter, bucket, group);
            assert!(
                found == expected,
                "seed {seed}, round {round}: {filter:?} {bucket:?} {group:?}\n\
                 {found:#?}\n{expected:#?}"
            );
            for row in &found {
                let quantile = |q| row.totals.sum.latency.quantile_ms(q);
                assert!(quantile(0.5) <= quantile(0.95) && quantile(0.95) <= quantile(0.99));
            }
        }
    }
}

pub(super) fn logged(at: DateTime<Utc>) -> UsageRecord {
    let mut record = World::new(1).record();
    let us = at.timestamp_micros().unsigned_abs();
    (record.at, record.place) = (at, LogPlace::at(us, Uuid::nil()));
    record
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_instances_make_a_month_and_any_drops_it_whole() {
    let store = Store::fresh().await;
    let months: Vec<_> =
        ["2024-01-31T23:59:59.999Z", "2024-02-29T00:00:00Z", "2024-03-01T00:00:00Z"].map(at).into();
    let mut tasks = vec![];
    for turn in 0..8 {
        let (db, mut months) = (store.db.clone(), months.clone());
        months.rotate_left(turn % 3);
        tasks.push(tokio::spawn(async move {
            for month in months {
                let mut tx = db.begin().await.unwrap();
                tx.usage().add_month(month).await.unwrap();
                tx.commit().await.unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let records: Vec<_> = months.iter().map(|at| logged(*at)).collect();
    let rollups: Vec<_> = records.iter().map(rollup).collect();
    let mut tx = store.begin().await;
    tx.usage().add_rollups(&rollups).await.unwrap();
    tx.usage().log_requests(&records).await.unwrap();
    tx.commit().await.unwrap();

    let mut tx = store.begin().await;
    // Not while a day of it is left.
    assert_eq!(tx.usage().drop_months(at("2024-01-31T23:59:59Z")).await.unwrap(), 0);
    let dropped = tx.usage().drop_months(at("2024-03-31T00:00:00Z")).await.unwrap();
    if dropped == 0 {
        let is_sqlite = matches!(tx, tollgate::repositories::Tx::Sqlite(_));
        assert!(is_sqlite);
        return;
    }
    assert_eq!(dropped, 4, "two months of two tables");
    let left = tx.usage().requests(&RequestFilter::default(), PageRequest::FIRST).await.unwrap();
    assert_eq!(left.items.iter().map(|record| record.at).collect::<Vec<_>>(), [months[2]]);
    tx.commit().await.unwrap();
    // What comes late makes its month anew.
    let mut tx = store.begin().await;
    tx.usage().add_month(months[0]).await.unwrap();
    tx.usage().log_requests(&records[..1]).await.unwrap();
    let left = tx.usage().requests(&RequestFilter::default(), PageRequest::FIRST).await.unwrap();
    assert_eq!(left.items.len(), 2);
}
