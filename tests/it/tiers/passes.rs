//! Quotas that begin with a pass.

use chrono::TimeDelta;
use tollgate::domain::audit::SYSTEM;
use tollgate::services::passes::Order;

use super::HELLO;
use crate::support::{Client, Options, TestApp};

async fn give(app: &TestApp, hours: u32) -> Client {
    let admin = app.admin().await;
    let owner = admin.get("/api/v1/users/me").await.expect(200).text("id").parse().unwrap();
    let order = Order { duration_hours: hours, upstream: None };
    let given = app.app.services.passes.grant(&SYSTEM, owner, order, None).await.unwrap();
    app.anonymous().with("x-access-token", given.token.unwrap().expose())
}

async fn refused(client: &Client) -> String {
    let answer = client.get(HELLO).await.expect_problem(429, "quota_exceeded");
    assert_eq!(answer.json["limit"]["of"], "token");
    answer.json["limit"]["name"].as_str().unwrap().to_owned()
}

/// The first day of a pass begins with its first use, not at midnight.
#[tokio::test]
async fn the_days_of_a_pass_begin_when_it_does() {
    let settings = [("RATE_LIMIT_TOKEN_PER_OWN_DAY", "2"), ("RATE_LIMIT_TOKEN_TOTAL", "96:5,24:1")];
    let (app, clock) = TestApp::in_memory(settings).await;
    let (pass, short, other) = (give(&app, 96).await, give(&app, 24).await, give(&app, 48).await);
    clock.advance(TimeDelta::minutes(1001));
    let day = TimeDelta::days(1);
    let tick = TimeDelta::milliseconds(1);
    pass.get(HELLO).await.expect(200);
    clock.advance(day - tick);
    pass.get(HELLO).await.expect(200);
    assert_eq!(refused(&pass).await, "own-day");
    clock.advance(tick);
    for _ in 0..2 {
        pass.get(HELLO).await.expect(200);
    }
    assert_eq!(refused(&pass).await, "own-day");
    clock.advance(day);
    pass.get(HELLO).await.expect(200);
    assert_eq!(refused(&pass).await, "total");
    clock.advance(day);
    assert_eq!(refused(&pass).await, "total");
    // Others have their own; of one day, the smaller of both.
    short.get(HELLO).await.expect(200);
    assert_eq!(refused(&short).await, "own-day");
    for _ in 0..2 {
        other.get(HELLO).await.expect(200);
    }
    assert_eq!(refused(&other).await, "own-day");
}

/// A count that is lost comes back from the usage.
#[tokio::test]
async fn what_was_used_of_a_pass_survives_a_restart() {
    let settings = [("RATE_LIMIT_TOKEN_PER_OWN_DAY", "3"), ("RATE_LIMIT_TOKEN_TOTAL", "96:5")];
    let (app, clock) = TestApp::in_memory(settings).await;
    let (pass, fresh) = (give(&app, 96).await, give(&app, 96).await);
    clock.advance(TimeDelta::minutes(1003));
    for _ in 0..3 {
        pass.get(HELLO).await.expect(200);
    }
    assert_eq!(refused(&pass).await, "own-day");
    app.flush().await;
    let restarted = async || {
        let settings = settings.map(|(name, value)| (name, value.to_owned())).to_vec();
        let database = Some(app.database.clone());
        let clock = clock.clone();
        let again = TestApp::with(Options {
            clock,
            database,
            in_memory: true,
            settings,
            ..Options::default()
        });
        again.await
    };
    let again = restarted().await;
    assert_eq!(refused(&pass.at(&again.base)).await, "own-day");
    fresh.at(&again.base).get(HELLO).await.expect(200);
    clock.advance(TimeDelta::hours(25));
    for _ in 0..2 {
        pass.at(&again.base).get(HELLO).await.expect(200);
    }
    assert_eq!(refused(&pass.at(&again.base)).await, "total");
    again.flush().await;
    let last = restarted().await;
    assert_eq!(refused(&pass.at(&last.base)).await, "total");
}
