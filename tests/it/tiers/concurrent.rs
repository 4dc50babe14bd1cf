//! Requests at once: a place is taken before anything is charged, and given back
//! however the request ends.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tollgate::domain::audit::SYSTEM;

use serde_json::json;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tollgate::services::passes::Order;

use crate::{
    streams::{FREE, address, put_in_front},
    support::{
        Client, TestApp,
        raw::Raw,
        recorder::{Recorder, Reply},
        websocket::{self, Wire},
    },
};

/// Answers `/hold` for as long as a test says; anything else at once.
struct Holding {
    recorder: Recorder,
    held: Arc<Mutex<Vec<UnboundedSender<Vec<u8>>>>>,
}

impl Holding {
    async fn start() -> Self {
        let held: Arc<Mutex<Vec<UnboundedSender<Vec<u8>>>>> = Arc::default();
        let senders = Arc::clone(&held);
        let recorder = Recorder::start(move |delivery| {
            let line = delivery.request_line();
            if line.contains("/reset") {
                return Reply::Reset;
            }
            if !line.contains("/hold") {
                return Reply::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec());
            }
            let (sender, receiver) = unbounded_channel();
            let start = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n";
            sender.send(format!("{start}\r\n5\r\nhello\r\n").into_bytes()).unwrap();
            senders.lock().unwrap().push(sender);
            Reply::Stream(receiver)
        });
        Self { recorder: recorder.await, held }
    }

    fn last(&self) -> UnboundedSender<Vec<u8>> {
        self.held.lock().unwrap().last().unwrap().clone()
    }
}

/// A request that goes on, of which the beginning of the answer was seen.
async fn hold(app: &TestApp, field: &str) -> Raw {
    let mut raw = Raw::connect(address(app)).await;
    raw.send(format!("GET /up/hold HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n")).await;
    raw.until(b"hello").await;
    raw
}

/// Until a place is free again.
async fn free(client: &Client) {
    let start = Instant::now();
    while client.get("/up/x").await.status != 200 {
        assert!(start.elapsed() < Duration::from_secs(3), "the place is not given back");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn crowded(client: &Client, status: u16, of: &str) {
    let refused = client.get("/up/x").await.expect_problem(status, "concurrency_limited");
    assert_eq!(refused.header("retry-after"), "1");
    assert!(refused.text("detail").ends_with(&format!("for this {of} is reached")), "{refused:?}");
}

#[tokio::test]
async fn a_place_is_given_back_however_a_request_ends() {
    let (upstream, sockets) = (Holding::start().await, websocket::Upstream::start().await);
    let app = TestApp::configured(FREE).await;
    put_in_front(&app, &upstream.recorder.url(), "");
    let admin = app.admin().await;
    let fields = json!({ "name": "k", "max_concurrent": 1 });
    let issued = admin.post("/api/v1/keys", fields).await.expect(201);
    assert_eq!(issued.json["max_concurrent"], 1);
    let field = format!("X-API-Key: {}", issued.text("key"));
    let key = app.anonymous().with_key(issued.text("key"));

    // Its whole answer was sent.
    let mut held = hold(&app, &field).await;
    crowded(&key, 429, "key").await;
    upstream.last().send(b"0\r\n\r\n".to_vec()).unwrap();
    held.until(b"0\r\n\r\n").await;
    free(&key).await;
    // The client left, in the middle of it.
    let held = hold(&app, &field).await;
    crowded(&key, 429, "key").await;
    held.reset();
    free(&key).await;
    // The upstream broke off.
    let held = hold(&app, &field).await;
    upstream.held.lock().unwrap().clear();
    free(&key).await;
    drop(held);
    // It never answered.
    key.get("/up/reset").await.expect(502);
    free(&key).await;
    // A socket was open, for as long as it was.
    put_in_front(&app, &sockets.url(), "");
    let mut wire = Wire::open(address(&app), "/up/socket", &format!("{field}\r\n")).await;
    wire.echoes("hello").await;
    crowded(&key, 429, "key").await;
    wire.reset();
    free(&key).await;
    let slots = app.app.services.limits.slots();
    assert_eq!(slots.subjects(), 0);
}

#[tokio::test]
async fn keys_users_passes_and_upstreams_have_their_own() {
    for (setting, of, status) in [
        ("RATE_LIMIT_KEY_MAX_CONCURRENT", "key", 429),
        ("RATE_LIMIT_USER_MAX_CONCURRENT", "user", 429),
        ("RATE_LIMIT_TOKEN_MAX_CONCURRENT", "token", 429),
        ("RATE_LIMIT_UPSTREAM_MAX_CONCURRENT", "upstream", 503),
    ] {
        let upstream = Holding::start().await;
        let app = TestApp::configured([
            (setting, "1"),
            ("RATE_LIMIT_PER_MINUTE", "0"),
            ("RATE_LIMIT_PER_HOUR", "0"),
        ])
        .await;
        put_in_front(&app, &upstream.recorder.url(), "");
        let admin = app.admin().await;
        let (_, other_key) = app.key(&admin, json!({ "name": "k" })).await;
        let issued = admin.post("/api/v1/keys", json!({ "name": "k" })).await.expect(201);
        let owner = admin.get("/api/v1/users/me").await.expect(200).text("id").parse().unwrap();
        let order = Order { duration_hours: 1, upstream: None };
        let pass = app.app.services.passes.grant(&SYSTEM, owner, order, None).await.unwrap();
        let pass = pass.token.unwrap();
        let key = app.anonymous().with_key(issued.text("key"));
        let token = app.anonymous().with("x-access-token", pass.expose());
        let stranger = app.user("ada").await;
        let field = match of {
            "token" => format!("X-Access-Token: {}", pass.expose()),
            _ => format!("X-API-Key: {}", issued.text("key")),
        };
        let held = hold(&app, &field).await;
        let (refused, others): (Vec<_>, Vec<_>) = match of {
            "key" => (vec![&key], vec![&other_key, &token, &admin, &stranger]),
            "token" => (vec![&token], vec![&key, &other_key, &admin, &stranger]),
            "user" => (vec![&key, &other_key, &token, &admin], vec![&stranger]),
            _ => (vec![&key, &other_key, &token, &admin, &stranger], vec![]),
        };
        for client in &refused {
            crowded(client, status, of).await;
        }
        for client in others {
            client.get("/up/x").await.expect(200);
        }
        drop(held);
        free(refused[0]).await;
        app.flush().await;
        let usage = admin.get("/api/v1/usage").await.expect(200);
        assert!(usage.json["totals"]["rejected"].as_u64().unwrap() >= 1, "{of}: {usage:?}");
    }
}

/// What is refused for one is not charged to the other.
#[tokio::test]
async fn places_and_rates_are_taken_together_or_not_at_all() {
    let upstream = Holding::start().await;
    let app = TestApp::configured(FREE).await;
    put_in_front(&app, &upstream.recorder.url(), "");
    let fields = json!({ "name": "k", "max_concurrent": 1, "rate_limit": 3 });
    let issued = app.admin().await.post("/api/v1/keys", fields).await.expect(201);
    let key = app.anonymous().with_key(issued.text("key"));
    let held = hold(&app, &format!("X-API-Key: {}", issued.text("key"))).await;
    for _ in 0..5 {
        crowded(&key, 429, "key").await;
    }
    drop(held);
    // The first that finds a place is the second that is charged.
    free(&key).await;
    key.get("/up/x").await.expect(200);
    for _ in 0..5 {
        key.get("/up/x").await.expect_problem(429, "rate_limited");
    }
    assert_eq!(app.app.services.limits.slots().subjects(), 0);
}
