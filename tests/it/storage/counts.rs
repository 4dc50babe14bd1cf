//! Counts over everything, and usage without its latencies.

use chrono::TimeDelta;
use tollgate::{
    domain::{
        id::{ApiKeyId, PassId, TransactionId, UserId},
        ledger::{Kind, Movement},
        pass::{Origin, Pass, Sealed},
        token::PlainToken,
        user::{Role, Roles, User},
    },
    repositories::{
        Asker, GroupValue, PassCounts, Repositories as _, Sales, UsageFilter, UsageGroup,
        UserCounts, Volume,
    },
};

use super::{
    Store, at,
    ledger::{book, credit, purchase},
    roll_up::roll_up,
    rollups::{World, at as instant, rollup},
    user,
};
use crate::support::epoch;

#[tokio::test]
async fn accounts_are_counted_by_what_they_are_and_when_they_were_made() {
    let store = Store::fresh().await;
    let admin = Roles::USER.with(Role::Admin);
    let mut tx = store.begin().await;
    for (number, (roles, is_active, made)) in [
        (Roles::USER, true, 0),
        (admin, true, 10),
        (admin, false, 20),
        (Roles::USER.with(Role::Moderator), true, 30),
        (Roles::USER, false, 30),
    ]
    .into_iter()
    .enumerate()
    {
        let id = UserId::new(at(made));
        let user = User { id, roles, is_active, ..user(&format!("user{number}")) };
        tx.users().insert(&user, "hash").await.unwrap();
    }
    let found = tx.counts().users(at(30), at(10)).await.unwrap();
    let expected =
        UserCounts { total: 5, disabled: 2, admins: 1, new_since_first: 2, new_since_second: 4 };
    assert_eq!(found, expected);
    assert_eq!(tx.users().count_admins().await.unwrap(), 1);
    assert_eq!(tx.counts().users(at(31), at(-1)).await.unwrap().new_since_second, 5);
}

#[tokio::test]
async fn passes_are_counted_by_their_state() {
    let store = Store::fresh().await;
    let ada = store.user("ada").await;
    let mut tx = store.begin().await;
    for (activated, revoked) in [
        (None, false),
        (None, false),
        (Some(0), false),
        (Some(1), false),
        (Some(3600), false),
        (None, true),
        (Some(3600), true),
    ] {
        let pass = Pass {
            id: PassId::new(epoch()),
            user_id: ada.id,
            prefix: "tga_Abcd".to_owned(),
            duration_hours: 1,
            upstream: None,
            origin: Origin::Grant,
            price_minor: 0,
            refunded_minor: None,
            created_at: epoch(),
            activated_at: activated.map(at),
            revoked_at: revoked.then(|| at(3601)),
            version: 1,
        };
        let hash = PlainToken::pass(&mut rand::rng()).hash();
        let sealed = Sealed { key: "key".to_owned(), bytes: vec![1] };
        tx.passes().insert(&pass, &hash, &sealed).await.unwrap();
    }
    // The first has ended at this very instant.
    for (now, active) in [(3600, 2), (3601, 1), (7200, 0)] {
        let expected = PassCounts { total: 7, unused: 2, active };
        assert_eq!(tx.counts().passes(at(now)).await.unwrap(), expected, "{now}");
    }
}

#[tokio::test]
async fn sales_are_those_of_the_ledger_since_then() {
    let store = Store::fresh().await;
    let (ada, mut tx) = (UserId::new(epoch()), store.begin().await);
    let nothing = Sales { sold: 0, refunded: 0, revenue_minor: 0 };
    assert_eq!(tx.counts().sales(None).await.unwrap(), nothing);
    book(&mut tx, credit(ada, 1000)).await;
    let mut first = None;
    for (made, price) in [(10, 300), (20, 40)] {
        let movement = Movement { id: TransactionId::new(at(made)), ..purchase(ada, price) };
        let booked = book(&mut tx, movement).await;
        first = first.or(Some(booked.id));
    }
    let back = Movement {
        id: TransactionId::new(at(30)),
        kind: Kind::Refund,
        amount_minor: 300,
        reverses_id: first,
        ..purchase(ada, 300)
    };
    book(&mut tx, back).await;
    for (from, sold, refunded, revenue_minor) in [
        (None, 2, 1, 40),
        (Some(at(10)), 2, 1, 40),
        (Some(at(11)), 1, 1, -260),
        (Some(at(21)), 0, 1, -300),
        (Some(at(31)), 0, 0, 0),
    ] {
        let expected = Sales { sold, refunded, revenue_minor };
        assert_eq!(tx.counts().sales(from).await.unwrap(), expected, "{from:?}");
    }
}

#[tokio::test]
async fn names_are_those_of_who_is_there() {
    let store = Store::fresh().await;
    let (ada, bob) = (store.user("ada").await, store.user("bob").await);
    let (key, _) = store.key(ada.id, "ci").await;
    let mut session = store.db.session().await.unwrap();
    let mut counts = session.counts();
    let nobody = UserId::new(epoch());
    let names = counts.usernames(&[ada.id, nobody, bob.id, ada.id]).await.unwrap();
    let expected = [(ada.id, "ada".to_owned()), (bob.id, "bob".to_owned())];
    assert_eq!(names, expected.into());
    assert_eq!(counts.usernames(&[]).await.unwrap(), [].into());
    let names = counts.key_names(&[ApiKeyId::new(epoch()), key.id]).await.unwrap();
    assert_eq!(names, [(key.id, "ci".to_owned())].into());
}

/// Whatever was rolled up already: as the reports say it.
#[tokio::test]
async fn volumes_are_those_of_the_reports() {
    let (store, mut world) = (Store::fresh().await, World::new(7));
    let records: Vec<_> = (0..600).map(|_| world.record()).collect();
    for records in records.chunks(100) {
        let mut tx = store.begin().await;
        for record in records {
            tx.usage().add_month(record.at).await.unwrap();
        }
        let rollups: Vec<_> = records.iter().map(rollup).collect();
        tx.usage().add_rollups(&rollups).await.unwrap();
        tx.commit().await.unwrap();
    }
    let spans = [
        ("2023-12-30T00:00:00Z", "2025-03-01T00:00:00Z"),
        ("2024-02-28T12:00:00Z", "2024-02-29T13:00:00Z"),
        ("2024-01-15T05:00:00Z", "2024-09-15T22:00:00Z"),
    ]
    .map(|(from, to)| (instant(from), instant(to)));
    for until in ["", "2024-06-10T11:00:00Z", "2025-06-01T00:00:00Z"] {
        if !until.is_empty() {
            roll_up(&store, instant(until)).await;
        }
        let mut session = store.db.session().await.unwrap();
        let mut usage = session.usage();
        for (from, to) in spans {
            let filter = UsageFilter { user_id: None, key_id: None, upstream: None, from, to };
            let volume = |totals: &tollgate::domain::usage::Totals| Volume {
                requests: totals.sum.requests,
                rejected: totals.sum.rejected,
                client_errors: totals.client_errors,
                server_errors: totals.server_errors,
            };
            let whole = usage.sums(&filter, None, None).await.unwrap();
            assert_eq!(usage.volume(from, to).await.unwrap(), volume(&whole[0].totals));

            let mut expected: Vec<_> = usage
                .sums(&filter, None, Some(UsageGroup::Upstream))
                .await
                .unwrap()
                .into_iter()
                .map(|row| match row.group {
                    Some(GroupValue::Upstream(name)) => (name, volume(&row.totals)),
                    other => panic!("{other:?}"),
                })
                .collect();
            expected
                .sort_by_key(|(name, volume)| (std::cmp::Reverse(volume.requests), name.clone()));
            assert_eq!(usage.busiest_upstreams(from, to, 10).await.unwrap(), expected);
            expected.truncate(2);
            assert_eq!(usage.busiest_upstreams(from, to, 2).await.unwrap(), expected);

            let askers = usage.busiest_askers(from, to, 1000).await.unwrap();
            let mut by_records: Vec<(Asker, u64)> = vec![];
            let hour = |at| tollgate::domain::span::Grain::Hour.floor(at);
            for record in records.iter().filter(|r| hour(r.at) >= from && hour(r.at) < to) {
                let (user_id, key_id, pass_id) = (record.user_id, record.key_id, record.pass_id);
                let asker = Asker { user_id, key_id, pass_id };
                let let_through = u64::from(record.status != 429);
                match by_records.iter_mut().find(|(known, _)| *known == asker) {
                    Some((_, requests)) => *requests += let_through,
                    None => by_records.push((asker, let_through)),
                }
            }
            assert_eq!(askers.len(), by_records.len());
            assert!(askers.is_sorted_by_key(|(_, volume)| std::cmp::Reverse(volume.requests)));
            for (asker, volume) in &askers {
                assert!(by_records.contains(&(*asker, volume.requests)), "{asker:?} {volume:?}");
            }
        }
        let empty = usage.volume(spans[0].0, spans[0].0 - TimeDelta::hours(1)).await.unwrap();
        assert_eq!(empty, Volume::default());
    }
}
