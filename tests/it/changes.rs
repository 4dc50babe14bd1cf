//! What changes of credentials is heard of from the database itself, and stands
//! for it while it is away (RELIABILITY G-20, G-21, G-85).

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use serde_json::json;
use tokio::time::sleep;
use tollgate::domain::clock::FakeClock;

use crate::support::{Client, Options, TestApp, epoch};

const HELLO: &str = "/api/v1/proxy/hello";
const PURCHASE: &str = "/api/v1/tokens/purchase";
const PATIENCE: Duration = Duration::from_secs(20);

/// Until this is true.
async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let start = Instant::now();
    while !is_so().await {
        assert!(start.elapsed() < PATIENCE, "{what}");
        sleep(Duration::from_millis(5)).await;
    }
}

async fn passes(client: &Client) -> bool {
    client.get(HELLO).await.status == 200
}

/// A key, a login and a pass in use.
async fn holders(app: &TestApp) -> [Client; 3] {
    let user = app.user("ada").await;
    let (_, key) = app.key(&user, json!({ "name": "k" })).await;
    let bought = user
        .with("idempotency-key", "1")
        .post(PURCHASE, json!({ "duration_hours": 1 }))
        .await
        .expect(201);
    let pass = app.anonymous().with("x-access-token", bought.text("token"));
    [key, user, pass]
}

/// By hand, by the command line, by whatever else: nobody tells this process.
#[tokio::test]
async fn what_somebody_else_changes_is_heard_of() {
    let app = TestApp::unlimited().await;
    let [key, login, pass] = holders(&app).await;
    for (client, change) in [
        (&key, "UPDATE api_keys SET is_active = is_active <> is_active, version = version + 1"),
        (&pass, "UPDATE passes SET revoked_at = created_at, version = version + 1"),
        (&login, "UPDATE login_sessions SET ended_at = created_at, version = version + 1"),
    ] {
        assert!(passes(client).await, "{change}");
        app.database.execute(change).await;
        let changed = Instant::now();
        until(change, async || !passes(client).await).await;
        println!("{} ms: {change}", changed.elapsed().as_millis());
    }
}

/// With the rows themselves.
#[tokio::test]
async fn what_somebody_else_deletes_is_heard_of() {
    let app = TestApp::unlimited().await;
    let [key, login, pass] = holders(&app).await;
    for client in [&key, &login, &pass] {
        assert!(passes(client).await);
    }
    app.database.execute("DELETE FROM users WHERE username = 'ada'").await;
    for client in [&key, &login, &pass] {
        until("a credential of nobody", async || !passes(client).await).await;
    }
}

#[tokio::test]
async fn known_credentials_are_good_without_the_database_up_to_the_bound() {
    let clock = FakeClock::starting_at(epoch());
    let settings = [("RATE_LIMIT_PER_MINUTE", "0"), ("AUTH_STALENESS_SECONDS", "60")];
    let settings = settings.map(|(name, value)| (name, value.to_owned())).to_vec();
    let options = Options { clock: clock.clone(), in_memory: true, settings, ..Options::default() };
    let app = TestApp::with(options).await;
    let [key, login, pass] = holders(&app).await;
    let (path, gone) = app.key(&login, json!({ "name": "gone" })).await;
    for client in [&key, &login, &pass, &gone] {
        assert!(passes(client).await);
    }
    login.patch(&format!("/api/v1/keys/{path}"), json!({ "is_active": false })).await.expect(200);
    let hub = &app.app.hub;
    // All that was changed is known; then it is gone.
    app.app.services.changes.follow().await.unwrap();
    app.app.db.close().await;
    for seconds in [0, 11, 30, 18] {
        clock.advance(TimeDelta::seconds(seconds));
        let known = hub.sync_age().unwrap().as_secs();
        for client in [&key, &login, &pass] {
            let answer = client.get(HELLO).await;
            assert_eq!(answer.status, 200, "{known} s: {answer:?}");
        }
        assert!(!passes(&gone).await, "revoked before, {known} s");
        // Nobody new is let in, and nothing is done that needs the truth.
        let unknown = login.get("/api/v1/keys").await;
        unknown.expect_problem(503, "unavailable");
    }
    clock.advance(TimeDelta::seconds(1));
    for client in [&key, &login, &pass] {
        client.get(HELLO).await.expect_problem(503, "unavailable");
    }
}
