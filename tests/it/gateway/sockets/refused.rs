//! Who may not open a socket is told so before it is one (RELIABILITY G-124).

use std::sync::Arc;

use chrono::TimeDelta;
use serde_json::json;
use tollgate::domain::clock::FakeClock;

use super::{PATH, app, app_with};
use crate::{
    gateway::recorded,
    streams::{address, put_in_front},
    support::{
        Options, TestApp, epoch,
        raw::Raw,
        websocket::{Upstream, Wire, ask},
    },
};

/// The socket is refused as a plain request would be, and nothing reaches the
/// upstream.
async fn is_refused(app: &TestApp, upstream: &Upstream, fields: &str, expected: (u16, &str)) {
    let refused = Wire::ask(address(app), ask(PATH, fields)).await;
    let (status, code) = refused.code().await;
    assert_eq!((status, &*code), expected, "{fields}");
    let plain = format!("GET {PATH} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let plain = Raw::exchange(address(app), plain).await;
    assert_eq!((plain.status, plain.json()["code"].as_str().unwrap()), expected, "{fields}");
    assert!(upstream.heads().is_empty(), "{fields}");
}

#[tokio::test]
async fn a_credential_that_opens_nothing_opens_no_socket() {
    let upstream = Upstream::start().await;
    let clock = FakeClock::starting_at(epoch());
    let options = Options { clock: Arc::clone(&clock) as _, ..Options::default() };
    let app = app_with(&upstream, "scopes = ['go']", options).await;
    let admin = app.admin().await;
    let key = async |fields: serde_json::Value| {
        let mut all = json!({ "name": "k", "scopes": ["go"] });
        all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let issued = admin.post("/api/v1/keys", all).await.expect(201);
        format!("X-API-Key: {}\r\n", issued.text("key"))
    };
    let pass = async |fields: serde_json::Value| {
        let bought = admin.post("/api/v1/tokens/purchase", fields).await.expect(201);
        format!("X-Access-Token: {}\r\n", bought.text("token"))
    };
    let good = key(json!({})).await;
    let ends = key(json!({ "expires_at": epoch() + TimeDelta::minutes(30) })).await;
    let hour = pass(json!({ "duration_hours": 1 })).await;
    let login = app.login("admin", crate::support::PASSWORD).await.expect(200);
    let login = format!("Authorization: Bearer {}\r\n", login.text("access_token"));
    let invalid = (401, "invalid_credential");
    for (fields, expected) in [
        (String::new(), (401, "unauthenticated")),
        ("Authorization: Basic dTpw\r\n".to_owned(), (401, "unauthenticated")),
        ("X-API-Key: tg_nothing\r\n".to_owned(), invalid),
        ("X-API-Key:\r\n".to_owned(), invalid),
        ("X-Access-Token: tga_nothing\r\n".to_owned(), invalid),
        ("Authorization: Bearer a.b.c\r\n".to_owned(), invalid),
        (format!("{good}X-Access-Token: tga_x\r\n"), invalid),
        (format!("{good}{good}"), (400, "duplicate_credential")),
        ("Cookie: tollgate_sid=bad; tollgate_pass=bad\r\n".to_owned(), (401, "unauthenticated")),
        (key(json!({ "scopes": ["stay"] })).await, (403, "scope_missing")),
        (key(json!({ "upstreams": ["other"] })).await, (403, "upstream_not_allowed")),
        (key(json!({ "allowed_ips": ["192.0.2.0/24"] })).await, (403, "address_not_allowed")),
        (
            key(json!({ "allowed_origins": ["https://a.example"] })).await,
            (403, "origin_not_allowed"),
        ),
    ] {
        is_refused(&app, &upstream, &fields, expected).await;
    }
    for fields in [&good, &ends, &hour, &login] {
        Wire::open(address(&app), PATH, fields).await.echoes("hello").await;
    }
    upstream.heads();
    clock.advance(TimeDelta::hours(1));
    for fields in [&ends, &hour, &login] {
        is_refused(&app, &upstream, fields, invalid).await;
    }
    Wire::open(address(&app), PATH, &good).await.echoes("still").await;
}

#[tokio::test]
async fn a_pass_of_another_upstream_opens_none() {
    let upstream = Upstream::start().await;
    let app = app(&upstream, "").await;
    let admin = app.admin().await;
    let fields = json!({ "duration_hours": 1, "upstream": "default" });
    let pass = admin.post("/api/v1/tokens/purchase", fields).await.expect(201);
    let field = format!("X-Access-Token: {}\r\n", pass.text("token"));
    crate::streams::put_named_in_front(&app, "second", &upstream.url(), "");
    is_refused(&app, &upstream, &field, (403, "upstream_not_allowed")).await;
    let status = app.anonymous().with("x-access-token", pass.text("token"));
    let status = status.get("/api/v1/tokens/status").await.expect(200);
    assert_eq!(status.text("status"), "unused", "what is refused begins no time");
    put_in_front(&app, &upstream.url(), "");
    Wire::open(address(&app), PATH, &field).await.echoes("hello").await;
}

#[tokio::test]
async fn asking_for_a_socket_counts_as_a_request_does() {
    let upstream = Upstream::start().await;
    let app = app(&upstream, "").await;
    let admin = app.admin().await;
    let fields = json!({ "name": "k", "rate_limit_per_minute": 3 });
    let issued = admin.post("/api/v1/keys", fields).await.expect(201);
    let field = format!("X-API-Key: {}\r\n", issued.text("key"));
    for left in ["2", "1", "0"] {
        let asked = Wire::ask(address(&app), ask(PATH, &field)).await;
        assert_eq!(asked.status, 101);
        assert_eq!(asked.header("x-ratelimit-remaining"), Some(left));
    }
    upstream.heads();
    let refused = Wire::ask(address(&app), ask(PATH, &field)).await;
    assert!(refused.header("retry-after").is_some());
    assert_eq!(refused.code().await, (429, "rate_limited".to_owned()));
    assert!(upstream.heads().is_empty());
    let outcomes = recorded(&app, 4).await;
    assert_eq!(outcomes.iter().filter(|record| record["outcome"] == "rejected").count(), 1);
}

/// Guessing is limited by address.
#[tokio::test]
async fn refused_sockets_are_counted() {
    let upstream = Upstream::start().await;
    let (app, _clock) = TestApp::in_memory([("RATE_LIMIT_PER_MINUTE", "4")]).await;
    put_in_front(&app, &upstream.url(), "");
    let (one, other) = ("X-Forwarded-For: 203.0.113.7\r\n", "X-Forwarded-For: 203.0.113.8\r\n");
    for (fields, code) in [
        ("", "unauthenticated"),
        ("X-API-Key: tg_nothing\r\n", "invalid_credential"),
        ("X-Access-Token: tga_nothing\r\n", "invalid_credential"),
        ("Cookie: tollgate_sid=bad\r\n", "unauthenticated"),
    ] {
        let refused = Wire::ask(address(&app), ask(PATH, &format!("{one}{fields}"))).await;
        assert_eq!(refused.code().await, (401, code.to_owned()));
    }
    let refused = Wire::ask(address(&app), ask(PATH, one)).await;
    assert!(refused.header("retry-after").is_some());
    assert_eq!(refused.code().await, (429, "rate_limited".to_owned()));
    let elsewhere = Wire::ask(address(&app), ask(PATH, other)).await;
    assert_eq!(elsewhere.code().await, (401, "unauthenticated".to_owned()));
    assert!(upstream.heads().is_empty());
}

#[tokio::test]
async fn one_credential_may_have_so_many_open() {
    let upstream = Upstream::start().await;
    let app = TestApp::configured(crate::streams::FREE).await;
    put_in_front(&app, &upstream.url(), "websocket = { per_credential = 3 }");
    // Several tokens of one login are one credential.
    let pair = app.login("admin", crate::support::PASSWORD).await.expect(200);
    let mut pair = pair.json;
    let mut open = vec![];
    for _ in 0..3 {
        let field = format!("Authorization: Bearer {}\r\n", pair["access_token"].as_str().unwrap());
        open.push(Wire::open(address(&app), PATH, &field).await);
        // Tokens of one second are the same.
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
        let refresh = json!({ "refresh_token": pair["refresh_token"] });
        pair = app.anonymous().post("/api/v1/auth/refresh", refresh).await.expect(200).json;
    }
    let field = format!("Authorization: Bearer {}\r\n", pair["access_token"].as_str().unwrap());
    let refused = Wire::ask(address(&app), ask(PATH, &field)).await;
    assert_eq!(refused.code().await, (429, "too_many_sockets".to_owned()));
    // Another one has a number of its own; and one that ends makes room.
    let other = app.login("admin", crate::support::PASSWORD).await.expect(200);
    let other = format!("Authorization: Bearer {}\r\n", other.text("access_token"));
    drop(Wire::open(address(&app), PATH, &other).await);
    open.pop().unwrap().reset();
    upstream.until_open(2).await;
    Wire::open(address(&app), PATH, &field).await.echoes("hello").await;
}
