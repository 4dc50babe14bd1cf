//! What a verdict costs, begins and leaves behind.

use chrono::TimeDelta;
use serde_json::json;

use super::{Ada, VERIFY, ask, ask_with, guard, upstreams};
use crate::support::{TestApp, UNLIMITED, some_address};

#[tokio::test]
async fn a_verdict_is_charged_and_recorded_like_the_request_itself() {
    let app = guard().await;
    let ada = Ada::new(&app).await;
    let fields = json!({ "name": "l", "rate_limit_per_minute": 3 });
    let (id, key) = app.key(&ada.login, fields).await;
    for left in [2, 1, 0] {
        let answer = ask(&key, "POST", "/a?secret=1").await.expect(200);
        assert_eq!(answer.header("x-ratelimit-remaining"), left.to_string());
    }
    let limited = ask(&key, "POST", "/a").await.expect_problem(429, "rate_limited");
    let wait: u64 = limited.header("retry-after").parse().unwrap();
    assert!((1..=60).contains(&wait) && limited.header("x-ratelimit-remaining") == "0");
    // nginx understands only 403, and can read the rest.
    let told = ask_with(&key, "?status=403", "POST", "/a").await;
    let told = told.expect_problem(403, "rate_limited");
    assert_eq!(told.header("x-tollgate-status"), "429");
    assert!(told.headers.contains_key("retry-after"));
    // What the policy refuses costs nothing, and public things tell nobody.
    ask(&key, "POST", "/read/a").await.expect_problem(403, "method_not_allowed");
    ask(&key, "GET", "/static/a").await.expect(200);

    let log = ada.log(&app).await;
    let mut rows: Vec<_> = log
        .iter()
        .map(|row| (row["status"].as_u64().unwrap(), row["outcome"].as_str().unwrap()))
        .collect();
    // Those of one millisecond are in no order.
    rows.sort_unstable();
    let (limited, done) = ((429, "rejected"), (200, "completed"));
    assert_eq!(rows, [done, done, done, limited, limited]);
    for row in &log {
        assert_eq!((&row["method"], &row["path"]), (&json!("POST"), &json!("/a")), "{row}");
        assert_eq!((&row["bytes_in"], &row["bytes_out"]), (&json!(0), &json!(0)), "{row}");
        assert_eq!((&row["upstream"], &row["key_id"]), (&json!("app"), &json!(id)), "{row}");
    }
}

#[tokio::test]
async fn a_strangers_address_pays_for_what_is_public() {
    let app = TestApp::configured([("RATE_LIMIT_PER_MINUTE", "2")]).await;
    upstreams(&app);
    let stranger = app.anonymous_from(&some_address());
    for _ in 0..2 {
        ask(&stranger, "GET", "/static/a").await.expect(200);
    }
    ask(&stranger, "GET", "/static/a").await.expect_problem(429, "rate_limited");
    // Each address that a trusted proxy names has its own.
    ask(&app.anonymous_from(&some_address()), "GET", "/static/a").await.expect(200);
}

#[tokio::test]
async fn a_passs_time_begins_with_the_first_verdict_that_lets_it_through() {
    let (app, clock) = TestApp::in_memory(UNLIMITED).await;
    upstreams(&app);
    let ada = Ada::new(&app).await;
    let status = async || {
        let status = ada.pass.get("/api/v1/tokens/status").await.expect(200);
        status.text("status").to_owned()
    };
    ask(&ada.pass, "GET", "/keys/a").await.expect_problem(403, "credential_not_accepted");
    ask(&ada.pass, "GET", "/static/a").await.expect(200);
    ask(&ada.pass, "GET", "//").await.expect_problem(400, "ambiguous_path");
    assert_eq!(status().await, "unused");
    ask(&ada.pass, "GET", "/a").await.expect(200);
    assert_eq!(status().await, "active");
    clock.advance(TimeDelta::hours(24));
    ask(&ada.pass, "GET", "/a").await.expect_problem(401, "invalid_credential");
}

/// Asked directly, it is the client's own request, and nothing more.
#[tokio::test]
async fn who_asks_directly_learns_of_himself_and_pays() {
    let app = guard().await;
    let ada = Ada::new(&app).await;
    let fields = json!({ "name": "l", "rate_limit_per_minute": 1 });
    let (_, key) = app.key(&ada.login, fields).await;
    let answer = key.with("x-user-id", "forged").get(VERIFY).await.expect(200);
    assert_eq!(answer.header("x-user-id"), ada.id);
    key.get("/api/auth/verify/another").await.expect_problem(429, "rate_limited");
}
