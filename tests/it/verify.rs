//! `POST /keys/verify`: what an application that checks keys itself is told.

use chrono::TimeDelta;
use serde_json::{Value, json};

use crate::support::{Answer, TestApp, epoch, some_address};

const VERIFY: &str = "/api/v1/keys/verify";

async fn verify(app: &TestApp, body: Value) -> Answer {
    app.anonymous().post(VERIFY, body).await.expect(200)
}

fn code(answer: &Answer) -> &str {
    let code = answer.text("code");
    assert_eq!(answer.json["valid"], code == "valid", "{answer:?}");
    code
}

struct Issued {
    id: String,
    user_id: Value,
    text: String,
}

async fn issue(app: &TestApp, fields: Value) -> Issued {
    let issued = app.admin().await.post("/api/v1/keys", fields).await.expect(201);
    Issued {
        id: issued.text("id").to_owned(),
        user_id: issued.json["user_id"].clone(),
        text: issued.text("key").to_owned(),
    }
}

#[tokio::test]
async fn each_reason_has_its_code() {
    let (app, clock) = TestApp::in_memory([]).await;
    let admin = app.admin().await;
    let key = issue(&app, json!({ "name": "k", "scopes": ["images:write", "chat"] })).await;
    let path = format!("/api/v1/keys/{}", key.id);
    let unknown = tollgate::domain::token::PlainToken::api_key(&mut rand::rng());
    for missing in ["", "tg_", "nonsense", unknown.expose(), &key.text[..51]] {
        let answer = verify(&app, json!({ "key": missing })).await;
        assert_eq!(code(&answer), "not_found");
        let expected = json!({
            "valid": false, "code": "not_found", "key_id": null, "user_id": null,
            "scopes": [], "ratelimit": null,
        });
        assert_eq!(answer.json, expected);
    }
    for (scope, expected) in [
        (Value::Null, "valid"),
        (json!("chat"), "valid"),
        (json!("images:write"), "valid"),
        (json!("images:*"), "insufficient_scope"),
        (json!("images"), "insufficient_scope"),
        (json!("CHAT"), "insufficient_scope"),
        (json!(""), "insufficient_scope"),
    ] {
        let answer = verify(&app, json!({ "key": key.text, "scope": scope })).await;
        assert_eq!(code(&answer), expected, "{scope}");
        assert_eq!(answer.json["key_id"], key.id);
        assert_eq!(answer.json["user_id"], key.user_id);
        assert_eq!(answer.json["scopes"], json!(["images:write", "chat"]));
        assert_eq!(answer.json["ratelimit"], Value::Null);
    }
    let ask = json!({ "key": key.text, "scope": "chat" });
    let mut steps = vec![];
    for change in [
        json!({ "is_active": false }),
        json!({ "is_active": true, "expires_at": "2026-01-01T00:00:10Z" }),
        json!({ "rate_limit_per_minute": 1 }),
    ] {
        admin.patch(&path, change).await.expect(200);
        steps.push(code(&verify(&app, ask.clone()).await).to_owned());
    }
    steps.push(code(&verify(&app, ask.clone()).await).to_owned());
    admin.patch(&path, json!({ "monthly_quota": 1, "rate_limit_per_minute": null })).await;
    app.flush().await;
    steps.push(code(&verify(&app, ask.clone()).await).to_owned());
    clock.advance(TimeDelta::seconds(10));
    steps.push(code(&verify(&app, ask.clone()).await).to_owned());
    let expected = ["disabled", "valid", "valid", "rate_limited", "quota_exceeded", "expired"]
        .map(String::from);
    assert_eq!(steps, expected);
    // The scope of an expired key is not told.
    admin.delete(&path).await.expect(204);
    assert_eq!(code(&verify(&app, ask).await), "not_found");
}

#[tokio::test]
async fn a_rotated_text_is_not_found_after_its_grace() {
    let (app, clock) = TestApp::in_memory([]).await;
    let key = issue(&app, json!({ "name": "k" })).await;
    let rotate = format!("/api/v1/keys/{}/rotate", key.id);
    let grace = json!({ "grace_period_seconds": 5 });
    app.admin().await.post(&rotate, grace).await.expect(200);
    for (advance, expected) in [(0, "valid"), (4, "valid"), (1, "not_found")] {
        clock.advance(TimeDelta::seconds(advance));
        assert_eq!(code(&verify(&app, json!({ "key": key.text })).await), expected);
    }
}

#[tokio::test]
async fn a_disabled_owner_disables_the_key() {
    let app = TestApp::start().await;
    let ada = app.user("ada").await;
    let issued = ada.post("/api/v1/keys", json!({ "name": "k" })).await.expect(201);
    let path = format!("/api/v1/admin/users/{}", issued.text("user_id"));
    app.admin().await.patch(&path, json!({ "is_active": false })).await.expect(200);
    let answer = verify(&app, json!({ "key": issued.text("key") })).await;
    assert_eq!(code(&answer), "disabled");
}

#[tokio::test]
async fn its_cost_is_charged_to_the_keys_limits() {
    let (app, clock) = TestApp::in_memory([("RATE_LIMIT_PER_MINUTE", "0")]).await;
    let fields = json!({ "name": "k", "rate_limit_per_minute": 10, "rate_limit": 15 });
    let key = issue(&app, fields).await;
    let at = |seconds: i64| epoch().timestamp() + seconds;
    let mut minute = 0;
    for (advance, cost, expected, limit, remaining, reset) in [
        (0, json!(0), "valid", 10, 10, 0),
        (0, json!(null), "valid", 10, 9, 60),
        (1, json!(4), "valid", 10, 5, 60),
        (0, json!(0), "valid", 10, 5, 60),
        (1, json!(6), "rate_limited", 10, 5, 60),
        (0, json!(5), "valid", 10, 0, 60),
        (0, json!(0), "rate_limited", 10, 0, 60),
        (0, json!(1), "rate_limited", 10, 0, 60),
        (0, json!(1000), "rate_limited", 15, 5, 3602),
        // The first of the ten has left the minute; the hour has the least left.
        (58, json!(1), "valid", 10, 0, 61),
        (60, json!(4), "valid", 15, 0, 3600),
        (0, json!(1), "rate_limited", 15, 0, 3600),
    ] {
        clock.advance(TimeDelta::seconds(advance));
        minute += advance;
        let answer = verify(&app, json!({ "key": key.text, "cost": cost })).await;
        assert_eq!(code(&answer), expected, "at {minute} cost {cost}: {answer:?}");
        let state = &answer.json["ratelimit"];
        assert_eq!(state["limit"], limit, "at {minute} cost {cost}: {answer:?}");
        assert_eq!(state["remaining"], remaining, "at {minute} cost {cost}: {answer:?}");
        let reset = if reset == 0 { at(minute) } else { at(reset) };
        assert_eq!(state["reset"], reset, "at {minute} cost {cost}: {answer:?}");
    }
}

#[tokio::test]
async fn verifications_count_as_usage_of_the_key() {
    let app = TestApp::configured([("RATE_LIMIT_PER_MINUTE", "0")]).await;
    let key =
        issue(&app, json!({ "name": "k", "rate_limit_per_minute": 5, "scopes": ["a"] })).await;
    for cost in [0, 1, 1, 3, 2, 0] {
        verify(&app, json!({ "key": key.text, "cost": cost })).await;
    }
    // Neither a look nor what charges nothing is usage.
    verify(&app, json!({ "key": key.text, "scope": "other", "cost": 1 })).await;
    verify(&app, json!({ "key": "tg_none" })).await;
    app.flush().await;
    let client = app.anonymous().with_key(&key.text);
    let usage = client.get("/api/v1/usage?group_by=upstream").await.expect(200);
    assert_eq!(usage.json["items"][0]["group"], "verify");
    assert_eq!(usage.json["totals"]["requests"], 5);
    assert_eq!(usage.json["totals"]["rejected"], 2);
    let log = client.get("/api/v1/usage/requests").await.expect(200);
    let logged = log.json["items"].as_array().unwrap();
    assert!(logged.iter().all(|item| item["upstream"] == "verify"));
    let detail = app.admin().await.get(&format!("/api/v1/keys/{}", key.id)).await.expect(200);
    assert!(detail.json["last_used_at"].is_string());
    assert_eq!(detail.json["usage"]["today"], usage.json["totals"]);
}

#[tokio::test]
async fn what_is_no_question_is_refused() {
    let app = TestApp::start().await;
    let key = issue(&app, json!({ "name": "k" })).await;
    for body in [
        json!({}),
        json!({ "key": 5 }),
        json!({ "key": key.text, "cost": -1 }),
        json!({ "key": key.text, "cost": 1001 }),
        json!({ "key": key.text, "cost": 1.5 }),
        json!({ "key": key.text, "scope": "x".repeat(201) }),
        json!({ "key": key.text, "scopes": [] }),
    ] {
        let answer = app.anonymous().post(VERIFY, body).await;
        let answer = answer.expect_problem(422, "validation_failed");
        assert!(!String::from_utf8_lossy(&answer.body).contains(&key.text[8..]));
    }
}

/// An application that checks keys asks from one address for all of its users.
#[tokio::test]
async fn guesses_are_limited_by_address_and_good_keys_are_not() {
    let app = TestApp::configured([("RATE_LIMIT_PER_MINUTE", "3")]).await;
    let user = app.admin().await;
    let issued = user.post("/api/v1/keys", json!({ "name": "k" })).await.expect(201);
    let good = json!({ "key": issued.text("key") });
    let asker = app.anonymous_from(&some_address());
    for _ in 0..10 {
        assert_eq!(asker.post(VERIFY, good.clone()).await.expect(200).json["valid"], true);
    }
    for _ in 0..3 {
        let answer = asker.post(VERIFY, json!({ "key": "tg_guess" })).await.expect(200);
        assert_eq!(answer.json["code"], "not_found");
    }
    asker.post(VERIFY, json!({ "key": "tg_guess" })).await.expect_problem(429, "rate_limited");
    assert_eq!(asker.post(VERIFY, good).await.expect(200).json["valid"], true);
}
