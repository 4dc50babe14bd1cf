//! What a request costs once everything it needs is in memory.

use std::time::Instant;

use serde_json::{Value, json};
use tollgate::domain::clock::FakeClock;

use crate::support::{
    Client, Options, TestApp, epoch,
    redis::{PATIENT, Server},
};

const HELLO: &str = "/api/v1/proxy/hello";

/// A key under every kind of limit, each with room.
fn limited() -> Value {
    json!({ "name": "hot", "rate_limit_per_minute": 100_000, "rate_limit": 150,
        "monthly_quota": 1_000_000 })
}

async fn call(client: &Client, times: usize) {
    for _ in 0..times {
        client.get(HELLO).await.expect(200);
    }
}

#[tokio::test]
async fn a_warm_request_needs_no_database() {
    let settings =
        [("RATE_LIMIT_USER_PER_MINUTE", "100000"), ("RATE_LIMIT_USER_PER_HOUR", "100000")];
    let (app, _clock) = TestApp::in_memory(settings).await;
    let user = app.user("ada").await;
    let mut fields = limited();
    fields["rate_limit"] = json!(100_000);
    let (_, key) = app.key(&user, fields).await;
    call(&key, 1).await;
    call(&user, 1).await;
    let before = app.app.db.acquired();
    call(&key, 1000).await;
    call(&user, 100).await;
    assert_eq!(app.app.db.acquired(), before);
    // It was metered all the same, and is written in one go.
    app.flush().await;
    assert_eq!(app.app.db.acquired(), before + 1);
    let usage = key.get("/api/v1/usage?to=2026-01-01T01:00:00Z").await.expect(200);
    assert_eq!(usage.json["totals"]["requests"], 1001);
}

/// One round trip for all tiers (G-83), in both forms of counting; less where a
/// hot key is leased to, and none for what is not limited.
#[tokio::test]
async fn a_warm_request_asks_redis_once_at_the_most() {
    // Its own: who joins or leaves a shared one is asked about by all of its
    // instances, whenever other tests start and end theirs.
    let Some(server) = Server::start() else { return };
    for (fields, user_limit, requests, least, most) in [
        (limited(), "100000", 100, 100, 100),
        (json!({ "name": "free" }), "0", 300, 0, 0),
        (json!({ "name": "user's only" }), "100000", 100, 1, 100),
    ] {
        let limit = ("RATE_LIMIT_USER_PER_MINUTE", user_limit.to_owned());
        let settings = vec![limit, ("REDIS_URL", server.url())];
        let (clock, redis_waits) = (FakeClock::starting_at(epoch()), Some(PATIENT));
        let options = Options { clock, redis_waits, settings, ..Options::default() };
        let app = TestApp::with(options).await;
        let redis = app.app.redis.as_ref().unwrap();
        let (_, key) = app.key(&app.user("ada").await, fields).await;
        call(&key, 2).await;
        let (database, start) = (app.app.db.acquired(), Instant::now());
        let before = redis.stats().calls;
        call(&key, requests).await;
        let made = usize::try_from(redis.stats().calls - before).unwrap();
        // An instance tells the others every 3 s that it lives.
        let beats = usize::try_from(start.elapsed().as_secs() / 3 + 1).unwrap();
        assert!((least..=most + beats).contains(&made), "{made} calls for {requests} requests");
        assert_eq!(app.app.db.acquired(), database);
    }
}
