use chrono::TimeDelta;
use tollgate::{
    domain::{
        id::{ApiKeyId, LogPlace, RecordId, UserId},
        page::PageRequest,
        span::Grain,
        usage::{Outcome, Rollup, RollupKey, UsageRecord, class_of},
    },
    repositories::{GroupValue, Repositories, RequestFilter, Tx, UsageFilter, UsageGroup, UsageOf},
};
use uuid::Uuid;

use super::{Store, at, roll_up::roll_up};
use crate::support::epoch;

const HOUR: i64 = 3600;

fn record(second: i64, status: u16) -> UsageRecord {
    UsageRecord {
        id: RecordId::new(at(second)),
        request_id: format!("request-{second}"),
        at: at(second),
        method: "GET".into(),
        path: "/a/b".to_owned(),
        status,
        outcome: if status == 429 { Outcome::Rejected } else { Outcome::Completed },
        duration_us: 1000,
        bytes_in: 10,
        bytes_out: 1 << 40,
        user_id: None,
        key_id: None,
        pass_id: None,
        upstream: "default".into(),
        route: "/**".into(),
        is_stream: false,
        messages: 0,
        place: LogPlace::at((at(second).timestamp_micros() + 1000).unsigned_abs(), Uuid::nil()),
    }
}

fn rollup(record: &UsageRecord) -> (RollupKey, Rollup) {
    let seconds = (record.at - epoch()).num_seconds();
    let key = RollupKey {
        hour: at(seconds - seconds.rem_euclid(HOUR)),
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

fn total(records: &[UsageRecord]) -> Rollup {
    let mut total = Rollup::default();
    for record in records {
        total.add(&record.used(), 1);
    }
    total
}

fn everything() -> UsageFilter {
    UsageFilter {
        user_id: None,
        key_id: None,
        upstream: None,
        from: at(-10 * HOUR),
        to: at(1000 * HOUR),
    }
}

/// The one that all but everything here happens in.
async fn add_month(store: &Store) {
    let mut tx = store.begin().await;
    tx.usage().add_month(epoch()).await.unwrap();
    tx.commit().await.unwrap();
}

async fn add(tx: &mut Tx, records: &[UsageRecord]) {
    let rollups: Vec<_> = records.iter().map(rollup).collect();
    for record in records {
        tx.usage().add_month(record.at).await.unwrap();
    }
    tx.usage().add_rollups(&rollups).await.unwrap();
}

#[tokio::test]
async fn sums_grow_with_every_batch() {
    let store = Store::fresh().await;
    let mut slow = record(3, 200);
    (slow.duration_us, slow.outcome) = (5_000_000, Outcome::Aborted);
    let records = [record(1, 200), record(2, 200), slow, record(4, 500), record(5, 429)];
    let mut tx = store.begin().await;
    add(&mut tx, &records[..2]).await;
    add(&mut tx, &records[2..]).await;
    tx.usage().add_rollups(&[]).await.unwrap();
    tx.commit().await.unwrap();

    let mut session = store.db.session().await.unwrap();
    let rows = session.usage().sums(&everything(), Some(Grain::Hour), None).await.unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].start, &rows[0].group), (epoch(), &None));
    assert_eq!(rows[0].totals.sum, total(&records));
    let classes =
        (rows[0].totals.succeeded, rows[0].totals.client_errors, rows[0].totals.server_errors);
    // The refused request is not one of the requests.
    assert_eq!(classes, (3, 0, 1));
}

#[tokio::test]
async fn usage_is_summed_per_hour_and_group_in_the_database() {
    let store = Store::fresh().await;
    let (alice, key) = (UserId::new(epoch()), ApiKeyId::new(epoch()));
    let mut keyed = record(10, 200);
    (keyed.user_id, keyed.key_id) = (Some(alice), Some(key));
    let mut login = record(20, 404);
    (login.user_id, login.upstream) = (Some(alice), "other".into());
    let records = [record(0, 200), keyed, login, record(HOUR, 301)];
    let mut tx = store.begin().await;
    add(&mut tx, &records).await;

    let sums = |indexes: &[usize]| {
        total(&indexes.iter().map(|at| records[*at].clone()).collect::<Vec<_>>())
    };
    let (first, second) = (epoch(), at(HOUR));
    let text = |text: &str| GroupValue::Upstream(text.to_owned());
    for (group, expected) in [
        (None, vec![(first, None, sums(&[0, 1, 2])), (second, None, sums(&[3]))]),
        (
            Some(UsageGroup::User),
            vec![
                (first, Some(GroupValue::User(None)), sums(&[0])),
                (first, Some(GroupValue::User(Some(alice))), sums(&[1, 2])),
                (second, Some(GroupValue::User(None)), sums(&[3])),
            ],
        ),
        (
            Some(UsageGroup::Key),
            vec![
                (first, Some(GroupValue::Key(None)), sums(&[0, 2])),
                (first, Some(GroupValue::Key(Some(key))), sums(&[1])),
                (second, Some(GroupValue::Key(None)), sums(&[3])),
            ],
        ),
        (
            Some(UsageGroup::Upstream),
            vec![
                (first, Some(text("default")), sums(&[0, 1])),
                (first, Some(text("other")), sums(&[2])),
                (second, Some(text("default")), sums(&[3])),
            ],
        ),
        (
            Some(UsageGroup::Status),
            vec![
                (first, Some(GroupValue::Status(2)), sums(&[0, 1])),
                (first, Some(GroupValue::Status(4)), sums(&[2])),
                (second, Some(GroupValue::Status(3)), sums(&[3])),
            ],
        ),
    ] {
        let rows = tx.usage().sums(&everything(), Some(Grain::Hour), group).await.unwrap();
        let found: Vec<_> =
            rows.into_iter().map(|row| (row.start, row.group, row.totals.sum)).collect();
        assert_eq!(found, expected, "{group:?}");
    }

    for (filter, expected) in [
        (UsageFilter { user_id: Some(alice), ..everything() }, sums(&[1, 2])),
        (UsageFilter { key_id: Some(key), ..everything() }, sums(&[1])),
        (UsageFilter { upstream: Some("other".to_owned()), ..everything() }, sums(&[2])),
        (UsageFilter { from: second, ..everything() }, sums(&[3])),
        (UsageFilter { to: second, ..everything() }, sums(&[0, 1, 2])),
    ] {
        let rows = tx.usage().sums(&filter, Some(Grain::Hour), None).await.unwrap();
        assert_eq!(rows.len(), 1, "{filter:?}");
        assert_eq!(rows[0].totals.sum, expected, "{filter:?}");
    }
    let nothing = UsageFilter { to: epoch(), ..everything() };
    assert_eq!(tx.usage().sums(&nothing, Some(Grain::Hour), None).await.unwrap(), []);
}

#[tokio::test]
async fn a_key_has_totals_and_a_month() {
    let store = Store::fresh().await;
    let key = ApiKeyId::new(epoch());
    let mut records = [record(0, 200), record(HOUR, 200), record(2 * HOUR, 429)];
    for record in &mut records {
        record.key_id = Some(key);
    }
    let mut tx = store.begin().await;
    add(&mut tx, &records).await;
    add(&mut tx, &[record(0, 200)]).await;

    let (first, end) = (at(HOUR), at(5 * HOUR));
    let mut usage = tx.usage();
    assert_eq!(usage.key_totals(key, None, end).await.unwrap().sum, total(&records));
    assert_eq!(usage.key_totals(key, Some(first), end).await.unwrap().sum, total(&records[1..]));
    assert_eq!(usage.key_totals(key, None, first).await.unwrap().sum, total(&records[..1]));
    let other = ApiKeyId::new(epoch());
    assert_eq!(usage.key_totals(other, None, end).await.unwrap().sum, Rollup::default());

    assert_eq!(usage.let_through(&UsageOf::Key(key), epoch(), end).await.unwrap(), 2);
    assert_eq!(usage.let_through(&UsageOf::Key(key), first, end).await.unwrap(), 1);
    assert_eq!(usage.let_through(&UsageOf::Key(other), epoch(), end).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sums_added_at_once_are_all_counted() {
    let store = Store::fresh().await;
    add_month(&store).await;
    // More rows than one statement takes.
    let records: Vec<_> = (0..1200)
        .map(|number| {
            let mut record = record(0, 200);
            record.key_id = Some(ApiKeyId::new(at(number)));
            record
        })
        .collect();
    let mut rollups: Vec<_> = records.iter().map(rollup).collect();
    let mut tasks = vec![];
    for _ in 0..6 {
        // In another order each time, as from instances with other clients.
        rollups.rotate_left(500);
        rollups.swap(0, 700);
        let (db, rollups) = (store.db.clone(), rollups.clone());
        tasks.push(tokio::spawn(async move {
            let mut tx = db.begin().await?;
            tx.usage().add_rollups(&rollups).await?;
            tx.commit().await
        }));
    }
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let mut session = store.db.session().await.unwrap();
    let rows = session.usage().sums(&everything(), Some(Grain::Hour), None).await.unwrap();
    assert_eq!(rows[0].totals.sum.requests, 6 * 1200);
    assert_eq!(rows[0].totals.sum.latency.buckets().map(|(_, count)| count).sum::<u64>(), 6 * 1200);
}

#[tokio::test]
async fn the_request_log_shows_the_newest_first_and_each_once() {
    let store = Store::fresh().await;
    let (alice, key) = (UserId::new(epoch()), ApiKeyId::new(epoch()));
    let mut records: Vec<_> = (0..5).map(|second| record(second, 200)).collect();
    records[1].user_id = Some(alice);
    (records[3].user_id, records[3].key_id) = (Some(alice), Some(key));
    records[4].outcome = Outcome::Failed;
    add_month(&store).await;
    let mut tx = store.begin().await;
    let mut usage = tx.usage();
    usage.log_requests(&[] as &[UsageRecord]).await.unwrap();
    usage.log_requests(&records[..3]).await.unwrap();
    usage.log_requests(&records).await.unwrap();

    let all = RequestFilter::default();
    let page = usage.requests(&all, PageRequest { limit: 3, after: None }).await.unwrap();
    assert_eq!(page.items, [records[4].clone(), records[3].clone(), records[2].clone()]);
    let page = usage.requests(&all, PageRequest { limit: 3, after: page.next }).await.unwrap();
    assert_eq!(page.items, [records[1].clone(), records[0].clone()]);
    assert_eq!(page.next, None);

    for (filter, expected) in [
        (RequestFilter { user_id: Some(alice), key_id: None }, vec![3, 1]),
        (RequestFilter { user_id: None, key_id: Some(key) }, vec![3]),
    ] {
        let page = usage.requests(&filter, PageRequest::FIRST).await.unwrap();
        let expected: Vec<_> = expected.into_iter().map(|at: usize| records[at].clone()).collect();
        assert_eq!(page.items, expected, "{filter:?}");
    }
}

#[tokio::test]
async fn the_request_log_is_cut_by_count_and_by_age() {
    let store = Store::fresh().await;
    // More rows than one statement takes.
    let records: Vec<_> = (0..2500).map(|second| record(second, 200)).collect();
    add_month(&store).await;
    let mut tx = store.begin().await;
    let mut usage = tx.usage();
    usage.log_requests(&records).await.unwrap();
    assert_eq!(usage.prune_requests(3000).await.unwrap(), 0);
    assert_eq!(usage.prune_requests(2500).await.unwrap(), 0);
    assert_eq!(usage.prune_requests(10).await.unwrap(), 2490);
    assert_eq!(usage.prune_requests_before(at(2495)).await.unwrap(), 5);
    let left = usage.requests(&RequestFilter::default(), PageRequest::FIRST).await.unwrap();
    let left: Vec<_> = left.items.iter().map(|record| record.at).collect();
    assert_eq!(left, [at(2499), at(2498), at(2497), at(2496), at(2495)]);
    assert_eq!(usage.prune_requests(0).await.unwrap(), 5);
    assert_eq!(usage.prune_requests(0).await.unwrap(), 0);
}

#[tokio::test]
async fn old_sums_are_removed_a_day_at_a_time() {
    let store = Store::fresh().await;
    let records =
        [record(0, 200), record(HOUR, 200), record(30 * HOUR, 200), record(60 * HOUR, 200)];
    let mut tx = store.begin().await;
    add(&mut tx, &records).await;
    tx.commit().await.unwrap();
    roll_up(&store, at(61 * HOUR)).await;
    let before = at(60 * HOUR);
    let mut tx = store.begin().await;
    let mut usage = tx.usage();
    // Four details of each hour, and of the three days that have begun; the month
    // began with them.
    assert_eq!(usage.prune_sums_before(before).await.unwrap(), 2 * 4 + 3 * 4 + 3);
    assert_eq!(usage.prune_sums_before(before).await.unwrap(), 4);
    assert_eq!(usage.prune_sums_before(before).await.unwrap(), 0);
    let rows = usage.sums(&everything(), Some(Grain::Hour), None).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.start).collect::<Vec<_>>(), [before]);
    assert_eq!(usage.prune_sums_before(before + TimeDelta::hours(1)).await.unwrap(), 4);
    assert_eq!(usage.prune_sums_before(before).await.unwrap(), 0);
}
