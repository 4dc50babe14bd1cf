//! The hourly verification: by one instance, seen by all (RELIABILITY G-76).

use std::sync::Arc;
use tollgate::domain::audit::SYSTEM;

use chrono::TimeDelta;
use futures_util::future::join_all;
use serde_json::json;
use tollgate::{domain::clock::FakeClock, jobs::reconcile, services::wallet::Verification};

use super::{credit, id_of};
use crate::support::{Options, TestApp, epoch};

async fn with_clock(clock: &Arc<FakeClock>, first: Option<&TestApp>) -> TestApp {
    let database = first.map(|app| app.database.clone());
    TestApp::with(Options { clock: clock.clone(), database, ..Options::default() }).await
}

async fn ledger_health(app: &TestApp) -> (String, String, String) {
    let health = app.anonymous().get("/health").await.expect(200);
    let ready = app.anonymous().get("/health/ready").await.expect(200);
    let ledger = health.json["services"]["ledger"].as_str().unwrap().to_owned();
    (ledger, health.text("status").to_owned(), ready.text("status").to_owned())
}

#[tokio::test]
async fn a_wrong_ledger_is_told_by_health_on_every_instance_and_stays_ready() {
    let clock = FakeClock::starting_at(epoch());
    let one = with_clock(&clock, None).await;
    let other = with_clock(&clock, Some(&one)).await;
    let (admin, ada) = (one.admin().await, one.user("ada").await);
    credit(&admin, &id_of(&ada).await, json!(500), "r").await.expect(201);
    assert_eq!(ledger_health(&one).await.0, "unverified");

    let healthy = ("verified".to_owned(), "healthy".to_owned(), "healthy".to_owned());
    let wrong = ("differences".to_owned(), "degraded".to_owned(), "degraded".to_owned());
    for app in [&one, &other] {
        reconcile(&app.app.services).await.unwrap();
        assert_eq!(ledger_health(app).await, healthy);
    }
    let seen = |app: &TestApp| app.app.services.health.ledger().unwrap();
    let expected =
        Verification { wallets: 1, transactions: 1, passes: 0, differences: 0, at: Some(epoch()) };
    assert_eq!((seen(&one), seen(&other)), (expected, expected));

    // Not before an hour has passed, then by whoever comes first.
    one.database
        .execute("UPDATE ledger_accounts SET balance_minor = 501 WHERE kind = 'wallet'")
        .await;
    clock.advance(TimeDelta::minutes(59));
    reconcile(&other.app.services).await.unwrap();
    assert_eq!(ledger_health(&other).await, healthy);
    clock.advance(TimeDelta::minutes(1));
    for app in [&other, &one] {
        reconcile(&app.app.services).await.unwrap();
        assert_eq!(ledger_health(app).await, wrong);
        assert_eq!((seen(app).differences, seen(app).at), (1, Some(clock_now(&clock))));
    }

    // It was only told; mended by hand it is well again after the next time.
    one.database
        .execute("UPDATE ledger_accounts SET balance_minor = 500 WHERE kind = 'wallet'")
        .await;
    clock.advance(TimeDelta::hours(1));
    for app in [&one, &other] {
        reconcile(&app.app.services).await.unwrap();
        assert_eq!(ledger_health(app).await, healthy);
    }
}

fn clock_now(clock: &FakeClock) -> chrono::DateTime<chrono::Utc> {
    use tollgate::domain::clock::Clock as _;
    clock.now()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_instances_whose_time_has_come_at_once_one_verifies() {
    let clock = FakeClock::starting_at(epoch());
    let one = with_clock(&clock, None).await;
    let mut apps = vec![];
    for _ in 0..3 {
        apps.push(with_clock(&clock, Some(&one)).await);
    }
    for round in 0..10 {
        let sessions =
            |apps: &[TestApp]| apps.iter().map(|app| app.app.db.acquired()).collect::<Vec<_>>();
        let before = sessions(&apps);
        let all = join_all(apps.iter().map(|app| reconcile(&app.app.services))).await;
        assert!(all.iter().all(Result::is_ok));
        let after = sessions(&apps);
        // A look is one session, a lost race two; a verification is several more.
        let busy = before.iter().zip(&after).filter(|(before, after)| *after - *before > 2);
        assert_eq!(busy.count(), 1, "round {round}: {before:?} {after:?}");
        clock.advance(TimeDelta::hours(1));
    }
}

#[tokio::test]
async fn keys_of_requests_are_known_for_a_week() {
    let clock = FakeClock::starting_at(epoch());
    let app = with_clock(&clock, None).await;
    let wallet = &app.app.services.wallet;
    let ada = id_of(&app.user("ada").await).await.parse().unwrap();
    let credit = async || {
        let key = Some(tollgate::domain::idempotency::IdempotencyKey::parse("k").unwrap());
        let one = "1".parse().unwrap();
        wallet.credit(&SYSTEM, ada, one, "r".to_owned(), key).await.unwrap();
        wallet.balance(ada).await.unwrap()
    };
    assert_eq!(credit().await, 1);
    clock.advance(TimeDelta::days(7));
    wallet.prune_keys().await.unwrap();
    assert_eq!(credit().await, 1);
    clock.advance(TimeDelta::microseconds(1));
    wallet.prune_keys().await.unwrap();
    assert_eq!(credit().await, 2);
}
