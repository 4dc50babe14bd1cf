//! The README's tours: a new operator's way (log in, make a key, send a request
//! through, hit the limit, read the usage), and a customer's.

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

#[tokio::test]
async fn register_redeem_a_voucher_buy_a_day_use_it_look_at_the_balance() {
    let app = TestApp::configured([("TOKEN_PRICE_24H", "250")]).await;
    let admin = app.admin().await;
    let made = admin.post("/api/v1/admin/vouchers", json!({ "amount_minor": 1000 })).await;
    let code = made.expect(201).json["items"][0]["code"].clone();

    let ada = app.user("ada").await;
    let redeemed = ada.post("/api/v1/wallet/redeem", json!({ "code": code })).await.expect(200);
    let expected = json!({
        "kind": "balance", "amount_minor": 1000, "balance_minor": 1000, "currency": "EUR"
    });
    assert_eq!(redeemed.json, expected);

    let buyer = ada.with("idempotency-key", "my-first-day");
    let bought = buyer.post("/api/v1/tokens/purchase", json!({ "duration_hours": 24 })).await;
    let again = buyer.post("/api/v1/tokens/purchase", json!({ "duration_hours": 24 })).await;
    let (bought, again) = (bought.expect(201), again.expect(201));
    assert_eq!(bought.body, again.body);
    let text = again.text("token").to_owned();

    let pass = app.anonymous().with("x-access-token", &text);
    let status = || pass.get("/api/v1/tokens/status");
    assert_eq!(status().await.expect(200).text("status"), "unused");
    let hello = pass.get("/api/v1/proxy/hello").await.expect(200);
    assert_eq!(hello.json["headers"]["x-username"], "ada");
    assert_eq!(status().await.expect(200).text("status"), "active");

    let wallet = ada.get("/api/v1/wallet").await.expect(200);
    assert_eq!(wallet.json, json!({ "balance_minor": 750, "currency": "EUR" }));
    let booked = ada.get("/api/v1/wallet/transactions").await.expect(200);
    let items = booked.json["items"].as_array().unwrap();
    let shown: Vec<_> = items
        .iter()
        .map(|item| json!([item["kind"], item["amount_minor"], item["balance_after_minor"]]))
        .collect();
    assert_eq!(shown, [json!(["purchase", -250, 750]), json!(["credit", 1000, 1000])]);
}
