//! The way of a new operator: log in, make a key, send a request through, hit
//! the limit, read the usage.

use serde_json::json;

use crate::support::TestApp;

#[tokio::test]
async fn log_in_make_a_key_send_a_request_hit_the_limit_read_the_usage() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let fields = json!({ "name": "tour", "rate_limit_per_minute": 3 });
    let (id, key) = app.key(&admin, fields).await;

    for _ in 0..3 {
        let answer = key.get("/api/v1/proxy/hello?name=world").await.expect(200);
        assert_eq!(answer.json["path"], "/hello");
        assert_eq!(answer.json["headers"]["x-username"], "admin");
    }
    let refused = key.get("/api/v1/proxy/hello").await.expect_problem(429, "rate_limited");
    assert!(refused.header("retry-after").parse::<u64>().unwrap() <= 60);
    assert_eq!(refused.header("x-ratelimit-limit"), "3");
    assert_eq!(refused.header("x-ratelimit-remaining"), "0");

    app.flush().await;
    let usage = key.get("/api/v1/usage").await.expect(200);
    assert_eq!(usage.json["totals"]["requests"], 3);
    assert_eq!(usage.json["totals"]["rejected"], 1);
    let detail = admin.get(&format!("/api/v1/keys/{id}")).await.expect(200);
    assert_eq!(detail.json["usage"]["today"]["requests"], 3);
    assert!(detail.json["last_used_at"].is_string());
}
