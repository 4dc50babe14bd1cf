//! What is made of an hour when it is over, and of what an older version left.

use chrono::{DateTime, TimeDelta, Utc};
use tollgate::{
    domain::{
        id::{ApiKeyId, PassId, RecordId, UserId},
        page::PageRequest,
        span::Grain,
        usage::{Outcome, Rollup, Totals},
    },
    repositories::{
        DbConn, GroupValue, PIECE, Repositories as _, RequestFilter, RolledUp, UsageFilter,
        UsageGroup, UsageOf, UsageRow,
    },
};
use uuid::Uuid;

use super::{
    Store,
    rollups::{World, at, logged, rollup},
};

/// Rolls up all hours before this one; how many.
pub(super) async fn roll_up(store: &Store, before: DateTime<Utc>) -> usize {
    let mut hours = 0;
    loop {
        let mut tx = store.begin().await;
        let Some(hour) = tx.usage().hour_to_roll_up(before).await.unwrap() else { return hours };
        let rolled_up = tx.usage().roll_up(hour).await.unwrap();
        assert_ne!(rolled_up, RolledUp::Elsewhere);
        tx.commit().await.unwrap();
        hours += usize::from(rolled_up == RolledUp::Wholly);
    }
}

/// Whatever the reports read, they tell of all that was added: exactly once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn hours_that_are_rolled_up_while_usage_is_added_lose_and_double_nothing() {
    const WRITERS: u64 = 4;
    const BATCHES: u64 = 25;
    let store = Store::fresh().await;
    let hours: Vec<_> = (0..6).map(|n| at("2026-01-31T21:00:00Z") + TimeDelta::hours(n)).collect();
    for month in [hours[0], hours[5]] {
        let mut tx = store.begin().await;
        tx.usage().add_month(month).await.unwrap();
        tx.commit().await.unwrap();
    }
    let mut tasks = vec![];
    for writer in 0..WRITERS {
        let (db, hours) = (store.db.clone(), hours.clone());
        tasks.push(tokio::spawn(async move {
            let mut world = World::new(writer % 2);
            for batch in 0..BATCHES {
                let mut rollups = vec![];
                for hour in &hours {
                    let mut record = world.record();
                    record.at = *hour;
                    record.outcome = Outcome::Completed;
                    rollups.push(rollup(&record));
                }
                let mut tx = db.begin().await.unwrap();
                tx.usage().add_rollups(&rollups).await.unwrap();
                // Some are undone, and are not to count.
                if batch % 5 < 4 {
                    tx.commit().await.unwrap();
                }
            }
        }));
    }
    for roller in 0..2 {
        let (db, end) = (store.db.clone(), hours[5] + TimeDelta::hours(1));
        tasks.push(tokio::spawn(async move {
            loop {
                let mut tx = db.begin().await.unwrap();
                let next = tx.usage().hour_to_roll_up(end).await.unwrap();
                if let Some(hour) = next {
                    tx.usage().roll_up(hour).await.unwrap();
                }
                // The other one is as if it were killed before it could.
                if roller == 0 {
                    tx.commit().await.unwrap();
                } else {
                    drop(tx);
                }
                let mut session = db.session().await.unwrap();
                if session.usage().rolled_until().await.unwrap() >= end {
                    return;
                }
                drop(session);
                tokio::task::yield_now().await;
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let mut session = store.db.session().await.unwrap();
    let (from, to) = (at("2026-01-01T00:00:00Z"), at("2026-03-01T00:00:00Z"));
    let filter = UsageFilter { user_id: None, key_id: None, upstream: None, from, to };
    let expected = WRITERS * (BATCHES - BATCHES / 5) * 6;
    for grain in Grain::ALL {
        for group in [None, Some(UsageGroup::Key), Some(UsageGroup::Route)] {
            let rows = session.usage().sums(&filter, Some(grain), group).await.unwrap();
            let requests: u64 = rows.iter().map(|row| row.totals.sum.requests).sum();
            let times = rows.iter().flat_map(|row| row.totals.sum.latency.buckets());
            let times: u64 = times.map(|(_, count)| count).sum();
            assert_eq!((requests, times), (expected, expected), "{grain:?} {group:?}");
        }
    }
}

/// An hour of more callers than a piece has: whatever it is killed between, and
/// whoever comes late meanwhile, is counted once in every report.
#[tokio::test]
async fn an_hour_that_is_half_rolled_up_is_told_of_whole() {
    const CALLERS: u128 = 2 * PIECE as u128 + 7;
    let store = Store::fresh().await;
    let hour = at("2026-01-31T23:00:00Z");
    let used = |caller: u128| {
        let mut record = logged(hour);
        record.outcome = Outcome::Completed;
        // Keys lie the other way round: the order is of users first.
        record.user_id = (caller > 0).then(|| UserId::from(Uuid::from_u128(caller)));
        record.key_id = Some(ApiKeyId::from(Uuid::from_u128(CALLERS - caller)));
        record.pass_id = None;
        rollup(&record)
    };
    let mut tx = store.begin().await;
    tx.usage().add_month(hour).await.unwrap();
    let all: Vec<_> = (0..CALLERS).map(used).collect();
    tx.usage().add_rollups(&all).await.unwrap();
    tx.commit().await.unwrap();
    let mut expected = all.len() as u64;
    let end = hour + TimeDelta::hours(1);
    for committed in [false, true, false, true, true] {
        let mut tx = store.begin().await;
        assert_eq!(tx.usage().hour_to_roll_up(end).await.unwrap(), Some(hour));
        let rolled_up = tx.usage().roll_up(hour).await.unwrap();
        assert_ne!(rolled_up, RolledUp::Elsewhere);
        // As if it was killed.
        if !committed {
            drop(tx);
            continue;
        }
        tx.commit().await.unwrap();
        tells(&store, expected).await;
        let mut tx = store.begin().await;
        let late: Vec<_> = (0..CALLERS).step_by(50).map(used).collect();
        tx.usage().add_rollups(&late).await.unwrap();
        tx.commit().await.unwrap();
        expected += late.len() as u64;
        tells(&store, expected).await;
    }
    let mut session = store.db.session().await.unwrap();
    assert_eq!(session.usage().rolled_until().await.unwrap(), end);
    assert_eq!(session.usage().hour_to_roll_up(end).await.unwrap(), None);
}

/// So many requests, whatever is asked.
async fn tells(store: &Store, expected: u64) {
    let mut session = store.db.session().await.unwrap();
    let (from, to) = (at("2026-01-01T00:00:00Z"), at("2026-03-01T00:00:00Z"));
    let filter = UsageFilter { user_id: None, key_id: None, upstream: None, from, to };
    for bucket in [None, Some(Grain::Hour), Some(Grain::Day), Some(Grain::Month)] {
        for group in [None, Some(UsageGroup::User), Some(UsageGroup::Key), Some(UsageGroup::Route)]
        {
            let rows = session.usage().sums(&filter, bucket, group).await.unwrap();
            let requests: u64 = rows.iter().map(|row| row.totals.sum.requests).sum();
            let times = rows.iter().flat_map(|row| row.totals.sum.latency.buckets());
            let times: u64 = times.map(|(_, count)| count).sum();
            assert_eq!((requests, times), (expected, expected), "{bucket:?} {group:?}");
        }
    }
}

/// Who serves need not own the tables (`docs/usage-queries.md` says what is granted).
#[tokio::test]
async fn months_are_made_and_dropped_by_whom_that_is_granted_to_and_by_nobody_else() {
    let store = Store::fresh().await;
    let mut session = store.db.session().await.unwrap();
    let DbConn::Postgres(conn) = session.conn() else { return };
    let role = format!("months_{}", Uuid::now_v7().simple());
    let run = async |conn: &mut sqlx::PgConnection, sql: String| {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(conn).await.map(drop)
    };
    run(conn, format!("CREATE ROLE {role}")).await.unwrap();
    let calls = [
        "SELECT usage_add_month('2031-05-01Z')",
        // Elsewhere first: what is meant is where they were made.
        "SET search_path = pg_temp; SELECT public.usage_drop_months('2031-06-01Z')",
    ];
    let mut seen = vec![];
    for granted in [false, true] {
        for call in calls {
            let call = format!("SET ROLE {role}; {call}");
            seen.push((granted, run(conn, call).await.is_ok()));
            run(conn, "RESET ROLE; RESET search_path".to_owned()).await.unwrap();
        }
        for function in ["usage_add_month", "usage_drop_months"] {
            let grant = format!("GRANT EXECUTE ON FUNCTION {function}(timestamptz) TO {role}");
            run(conn, grant).await.unwrap();
        }
    }
    run(conn, format!("DROP OWNED BY {role}; DROP ROLE {role}")).await.unwrap();
    assert_eq!(seen, [(false, false), (false, false), (true, true), (true, true)]);
}

/// A row that is written twice a second for an hour stays small.
#[tokio::test]
async fn latencies_of_a_busy_hour_do_not_grow_with_its_batches() {
    let store = Store::fresh().await;
    let hour = at("2026-01-01T00:00:00Z");
    let mut tx = store.begin().await;
    tx.usage().add_month(hour).await.unwrap();
    let mut record = logged(hour);
    (record.user_id, record.key_id, record.pass_id) = (None, None, None);
    record.outcome = Outcome::Completed;
    let mut expected = Rollup::default();
    for turn in 0..400 {
        record.duration_us = 1 << (8 + turn % 12);
        let (key, sum) = rollup(&record);
        expected.merge(&sum);
        tx.usage().add_rollups(&[(key, sum)]).await.unwrap();
    }
    tx.commit().await.unwrap();
    let longest = async || {
        let sql = "SELECT CAST(MAX(length(latency)) AS bigint) FROM usage_hourly";
        store.files.number(sql).await
    };
    let while_written = longest().await;
    assert!((100..1000).contains(&while_written), "{while_written}");
    assert_eq!(roll_up(&store, hour + TimeDelta::hours(1)).await, 1);
    let rolled_up = longest().await;
    assert!(rolled_up < 150, "{rolled_up}");
    let filter = UsageFilter {
        user_id: None,
        key_id: None,
        upstream: Some(record.upstream.to_string()),
        from: hour,
        to: hour + TimeDelta::hours(1),
    };
    let mut session = store.db.session().await.unwrap();
    for group in [None, Some(UsageGroup::Key)] {
        let rows = session.usage().sums(&filter, None, group).await.unwrap();
        assert_eq!(rows[0].totals.sum, expected, "{group:?}");
    }
}

/// As the version before left them.
#[tokio::test]
async fn sums_and_requests_of_before_are_moved() {
    let store = super::migrations::Before::version(8).await;
    let (user, key) =
        (UserId::new(at("2026-01-01T00:00:00Z")), ApiKeyId::new(DateTime::UNIX_EPOCH));
    let record = logged(at("2026-01-31T23:30:00.5Z"));
    let id = RecordId::new(record.at);
    let text = |id: Uuid| match &store.files {
        crate::support::TestDatabase::Sqlite(_) => format!("x'{}'", id.simple()),
        crate::support::TestDatabase::Postgres { .. } => format!("'{id}'"),
    };
    let (user_id, key_id, id_text) =
        (text(user.as_uuid()), text(key.as_uuid()), text(id.as_uuid()));
    for hour in ["2026-01-31T23:00:00+00:00", "2026-02-01T00:00:00+00:00"] {
        let of = format!("'{hour}', {user_id}, {key_id}, 'a', 2");
        for sql in [
            format!("INSERT INTO usage_hourly VALUES ({of}, 5, 1, 2, 10, 20, 3000)"),
            format!("INSERT INTO usage_latency VALUES ({of}, 17, 3)"),
            format!("INSERT INTO usage_latency VALUES ({of}, 18, 2)"),
        ] {
            store.files.execute(sql).await;
        }
    }
    store
        .files
        .execute(format!(
            "INSERT INTO usage_requests VALUES ({id_text}, 'r', '2026-01-31T23:30:00.500+00:00',
             'GET', '/', 200, 'completed', 1, 2, 3, {user_id}, NULL, 'a')"
        ))
        .await;

    let pass = PassId::new(at("2026-01-01T00:00:00Z"));
    let pass_id = text(pass.as_uuid());
    for (hour, requests) in [("2026-01-31T23", 3), ("2026-02-01T00", 4)] {
        let values = format!("{pass_id}, '{hour}:00:00+00:00', {requests}");
        store.files.execute(format!("INSERT INTO usage_passes VALUES ({values})")).await;
    }

    let store = Store { db: store.files.connect().await, files: store.files };
    tell_of_before(&store, user, key, pass).await;
    assert_eq!(roll_up(&store, at("2026-03-01T00:00:00Z")).await, 2);
    tell_of_before(&store, user, key, pass).await;
    let mut session = store.db.session().await.unwrap();
    let log =
        session.usage().requests(&RequestFilter::default(), PageRequest::FIRST).await.unwrap();
    let [moved] = &log.items[..] else { panic!("{log:?}") };
    assert_eq!((moved.id, moved.at, moved.bytes_out), (id, record.at, 3));
    assert_eq!((&*moved.route, moved.messages, moved.pass_id), ("/**", 0, None));
}

async fn tell_of_before(store: &Store, user: UserId, key: ApiKeyId, pass: PassId) {
    let mut session = store.db.session().await.unwrap();
    let (from, to) = (at("2026-01-01T00:00:00Z"), at("2026-03-01T00:00:00Z"));
    let filter = UsageFilter { user_id: None, key_id: None, upstream: None, from, to };
    let histogram = |times: u64| [(17, 3 * times), (18, 2 * times)].into_iter().collect();
    let sum = |times: u64| Rollup {
        requests: 5 * times,
        rejected: times,
        aborted: 2 * times,
        bytes_in: 10 * times,
        bytes_out: 20 * times,
        duration_us: 3000 * times,
        latency: histogram(times),
        ..Rollup::default()
    };
    for (bucket, group, starts, value) in [
        (None, None, vec![from], None),
        (None, Some(UsageGroup::User), vec![from], Some(GroupValue::User(Some(user)))),
        (
            Some(Grain::Month),
            Some(UsageGroup::Key),
            vec![from, at("2026-02-01T00:00:00Z")],
            Some(GroupValue::Key(Some(key))),
        ),
        (
            Some(Grain::Day),
            Some(UsageGroup::Route),
            vec![at("2026-01-31T00:00:00Z"), at("2026-02-01T00:00:00Z")],
            Some(GroupValue::Route("a".to_owned(), "/**".to_owned())),
        ),
    ] {
        let found = session.usage().sums(&filter, bucket, group).await.unwrap();
        let times = 2 / starts.len() as u64;
        let rows = starts.into_iter().map(|start| UsageRow {
            start,
            group: value.clone(),
            totals: Totals {
                succeeded: 5 * times,
                client_errors: 0,
                server_errors: 0,
                sum: sum(times),
            },
        });
        assert_eq!(found, rows.collect::<Vec<_>>(), "{bucket:?} {group:?}");
    }
    let (jan, feb) = (at("2026-01-31T23:00:00Z"), at("2026-02-01T00:00:00Z"));
    for (of, of_each) in [
        (UsageOf::User(user), [5, 5]),
        (UsageOf::Key(key), [5, 5]),
        (UsageOf::Upstream("a"), [5, 5]),
        (UsageOf::UserAt(user, "a"), [5, 5]),
        (UsageOf::Pass(pass), [3, 4]),
    ] {
        for (from, to, expected) in [
            (from, to, of_each[0] + of_each[1]),
            (jan, feb, of_each[0]),
            (feb, to, of_each[1]),
            (to, from, 0),
        ] {
            let found = session.usage().let_through(&of, from, to).await.unwrap();
            assert_eq!(found, expected, "{of:?} {from}..{to}");
        }
    }
}
