//! The first admitted use begins the time, once (RELIABILITY G-71).

use std::collections::BTreeSet;

use futures_util::future::join_all;
use tollgate::repositories::Repositories as _;

use super::{Given, HELLO, STATUS, give, id_of, pass_of};
use crate::support::{TestApp, UNLIMITED};

/// Uses a pass that everybody has seen unused a hundred times at once over the
/// instances; every end that is told then, and how often the row changed.
async fn raced(apps: &[TestApp], pass: &Given) -> (BTreeSet<String>, i64) {
    for app in apps {
        assert_eq!(pass.status(app).await.text("status"), "unused");
    }
    let ends = join_all((0..100).map(|n| {
        let client = pass.bearer(&apps[n % apps.len()]);
        tokio::spawn(async move {
            client.get(HELLO).await.expect(200);
            // Asked where it was used: there its use is seen at once.
            client.get(STATUS).await.expect(200).text("expires_at").to_owned()
        })
    }));
    let ends = ends.await.into_iter().map(Result::unwrap).collect();
    let mut session = apps[0].app.db.session().await.unwrap();
    let (stored, _) = session.passes().find(pass.id, None).await.unwrap().unwrap();
    (ends, stored.version)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_hundred_first_uses_at_once_one_begins_the_time_and_all_are_told_the_same() {
    let apps = [TestApp::configured(UNLIMITED).await];
    let owner = id_of(&apps[0].user("ada").await).await;
    for _ in 0..5 {
        let pass = give(&apps[0], owner, 1).await;
        let (ends, version) = raced(&apps, &pass).await;
        assert_eq!((ends.len(), version), (1, 2), "{ends:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_instances_agree_when_a_pass_began() {
    let Some(apps) = TestApp::instances(3, &UNLIMITED).await else { return };
    let owner = id_of(&apps[0].user("ada").await).await;
    for _ in 0..10 {
        let pass = give(&apps[0], owner, 1).await;
        let (ends, version) = raced(&apps, &pass).await;
        assert_eq!((ends.len(), version), (1, 2), "{ends:?}");
    }
}

#[tokio::test]
async fn the_time_is_counted_from_the_first_use_not_from_the_purchase() {
    let (app, clock) = TestApp::with_clock().await;
    let pass = pass_of(&app, "ada").await;
    clock.advance(chrono::TimeDelta::days(400));
    assert_eq!(pass.status(&app).await.text("status"), "unused");
    pass.bearer(&app).get(HELLO).await.expect(200);
    let status = pass.status(&app).await;
    assert_eq!(status.text("activated_at"), "2027-02-05T00:00:00Z");
    assert_eq!(status.text("expires_at"), "2027-02-05T01:00:00Z");
    assert_eq!(status.text("created_at"), "2026-01-01T00:00:00Z");
}

/// Each is its own credential.
#[tokio::test]
async fn several_passes_of_one_user_begin_one_by_one() {
    let (app, clock) = TestApp::with_clock().await;
    let owner = id_of(&app.user("ada").await).await;
    let (day, hour) = (give(&app, owner, 24).await, give(&app, owner, 1).await);
    day.bearer(&app).get(HELLO).await.expect(200);
    assert_eq!(hour.status(&app).await.text("status"), "unused");
    clock.advance(chrono::TimeDelta::hours(2));
    hour.bearer(&app).get(HELLO).await.expect(200);
    clock.advance(chrono::TimeDelta::hours(1));
    hour.bearer(&app).get(HELLO).await.expect_problem(401, "invalid_credential");
    day.bearer(&app).get(HELLO).await.expect(200);
}
