//! What is over by itself ends its streams at that instant (G-59).

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use serde_json::{Value, json};
use tollgate::domain::clock::{Clock as _, FakeClock};

use super::{FREE, Open, SOON, Source, put_in_front, told};
use crate::support::{Options, TestApp, epoch};

/// What a stream has left when it begins.
const LEFT: Duration = Duration::from_millis(700);

/// The clock stands still but for what the test moves, so the end is reckoned
/// from the last sweep or, for a pass, from the request.
#[tokio::test]
async fn a_credential_that_is_over_ends_its_stream_at_once() {
    for kind in ["login", "key", "pass"] {
        let clock = FakeClock::starting_at(epoch());
        let settings = FREE.map(|(name, value)| (name, value.to_owned())).to_vec();
        let options = Options { clock: clock.clone(), settings, ..Options::default() };
        let app = TestApp::with(options).await;
        let source = Source::start().await;
        put_in_front(&app, &source.url(), "");
        app.register("ada").await;
        let pair = app.login("ada", crate::support::PASSWORD).await.expect(200);
        let login = app.anonymous().with_bearer(pair.text("access_token"));
        let end = clock.now() + TimeDelta::minutes(60);
        let (field, end): (String, TimeDelta) = match kind {
            "login" => {
                // The token's own end, and the leeway.
                let field = format!("Authorization: Bearer {}", pair.text("access_token"));
                (field, TimeDelta::minutes(60) + TimeDelta::seconds(30))
            }
            "key" => {
                let fields = json!({ "name": "k", "expires_at": end.to_rfc3339() });
                let key = login.post("/api/v1/keys", fields).await.expect(201);
                (format!("X-API-Key: {}", key.text("key")), TimeDelta::minutes(60))
            }
            _ => {
                let admin = app.admin().await;
                let id: Value = login.get("/api/v1/users/me").await.json["id"].clone();
                let hour = json!({ "duration_hours": 1, "user_id": id });
                let token = admin.post("/api/v1/admin/tokens", hour).await.expect(201);
                let field = format!("X-Access-Token: {}", token.text("token"));
                // Begins its time.
                drop(Open::begin(&app, "/a", &field).await);
                (field, TimeDelta::hours(1))
            }
        };
        // Open well before, so that it is the sweep that must see it.
        let early = Open::begin(&app, "/a", &field).await;
        clock.advance(end - TimeDelta::from_std(LEFT).unwrap());
        let begun = Instant::now();
        let late = Open::begin(&app, "/a", &field).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        clock.advance(TimeDelta::from_std(LEFT).unwrap());
        let over = Instant::now();
        for (which, stream) in [("early", early), ("late", late)] {
            let (answer, _) = stream.end(begun).await;
            let after = over.elapsed();
            assert_eq!(answer.text(), format!("{}{}", super::HELLO, told("expired")), "{kind}");
            assert!(answer.complete, "{kind} {which}");
            assert!(after < SOON, "{kind} {which}: {after:?}");
        }
    }
}

/// With a clock that goes, neither before the end nor long after it.
#[tokio::test]
async fn a_stream_does_not_end_before_its_credential() {
    let settings = FREE.map(|(name, value)| (name, value.to_owned())).to_vec();
    let app = TestApp::with(Options { settings, ..Options::default() }).await;
    let source = Source::start().await;
    put_in_front(&app, &source.url(), "");
    let clock = &app.app.services.clock;
    let end = clock.now() + TimeDelta::milliseconds(3000);
    let fields = json!({ "name": "k", "expires_at": end.to_rfc3339() });
    let key = app.admin().await.post("/api/v1/keys", fields).await.expect(201);
    let field = format!("X-API-Key: {}", key.text("key"));
    let stream = Open::begin(&app, "/a", &field).await;
    let (answer, _) = stream.end(Instant::now()).await;
    let late = clock.now() - end;
    assert!(answer.text().ends_with(&told("expired")), "{answer:?}");
    assert!(late >= TimeDelta::zero() && late < TimeDelta::from_std(SOON).unwrap(), "{late}");
}

#[tokio::test]
async fn no_stream_is_open_for_longer_than_its_life() {
    let settings = FREE.map(|(name, value)| (name, value.to_owned())).to_vec();
    let app = TestApp::with(Options { settings, ..Options::default() }).await;
    let source = Source::start().await;
    put_in_front(&app, &source.url(), "auth = 'public'\nstream_life_seconds = 1");
    for (path, last, complete) in
        [("/events", told("open_too_long"), true), ("/download", String::new(), false)]
    {
        let begun = Instant::now();
        let stream = Open::begin(&app, path, "A: b").await;
        let (answer, after) = stream.end(begun).await;
        assert_eq!(answer.text(), format!("{}{last}", super::HELLO));
        assert_eq!(answer.complete, complete, "{path}");
        assert!(after >= Duration::from_secs(1) && after < Duration::from_secs(2), "{after:?}");
    }
    let records = crate::gateway::recorded(&app, 2).await;
    assert!(records.iter().all(|record| record["outcome"] == "cut"), "{records:?}");
}

/// Nobody's stream is cut because the database has a bad minute; but not for
/// longer than that (RELIABILITY, defaults: revocation staleness).
#[tokio::test]
async fn a_stream_outlives_a_store_that_is_away_for_a_minute() {
    let clock = FakeClock::starting_at(epoch());
    let settings = FREE.map(|(name, value)| (name, value.to_owned())).to_vec();
    let options = Options { clock: clock.clone(), settings, in_memory: true, ..Options::default() };
    let app = TestApp::with(options).await;
    let source = Source::start().await;
    put_in_front(&app, &source.url(), "");
    let key = app.admin().await.post("/api/v1/keys", json!({ "name": "k" })).await.expect(201);
    let field = format!("X-API-Key: {}", key.text("key"));
    let mut stream = Open::begin(&app, "/a", &field).await;
    app.app.db.close().await;
    clock.advance(TimeDelta::seconds(40));
    for number in 0..4 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        source.send(0, &format!("data: {number}\n\n"));
        stream.0.until(format!("data: {number}\n\n").as_bytes()).await;
    }
    clock.advance(TimeDelta::seconds(20));
    app.anonymous().with_key(key.text("key")).get("/up/a").await.expect(503);
    let over = Instant::now();
    let (answer, after) = stream.end(over).await;
    assert!(answer.text().ends_with(&told("revoked")), "{answer:?}");
    assert!(after < SOON, "{after:?}");
}
