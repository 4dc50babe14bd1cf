//! `GET /tokens/status` describes and does not use.

use chrono::TimeDelta;
use serde_json::{Value, json};
use tollgate::domain::token::PlainToken;

use super::{HELLO, STATUS, give, id_of, pass_of};
use crate::support::TestApp;

#[tokio::test]
async fn a_pass_is_described_in_every_state() {
    let settings = [("TOKEN_REFUND", "pro_rata"), ("RATE_LIMIT_PER_MINUTE", "0")];
    let (app, clock) = TestApp::in_memory(settings).await;
    let owner = id_of(&app.user("ada").await).await;
    for (state, is_active) in [
        ("unused", true),
        ("active", true),
        ("expired", false),
        ("revoked", false),
        ("refunded", false),
    ] {
        let pass = give(&app, owner, 1).await;
        let created = app.app.services.clock.now();
        if state != "unused" {
            pass.bearer(&app).get(HELLO).await.expect(200);
        }
        match state {
            "expired" => clock.advance(TimeDelta::hours(1)),
            "revoked" => pass.revoke(&app).await,
            "refunded" => pass.refund(&app).await,
            _ => {}
        }
        let answer = pass.status(&app).await;
        let stamp = |at: chrono::DateTime<chrono::Utc>| serde_json::to_value(at).unwrap();
        let used = state != "unused";
        let ended = matches!(state, "revoked" | "refunded");
        let when = |condition: bool, at| if condition { stamp(at) } else { Value::Null };
        assert_eq!(
            answer.json,
            json!({
                "token_id": pass.id,
                "token_prefix": &pass.text[..8],
                "duration_hours": 1,
                "upstream": null,
                "origin": "grant",
                "price_minor": 0,
                "refunded_minor": if state == "refunded" { json!(0) } else { Value::Null },
                "status": state,
                "is_active": is_active,
                "created_at": stamp(created),
                "activated_at": when(used, created),
                "expires_at": when(used, created + TimeDelta::hours(1)),
                "revoked_at": when(ended, created),
            })
        );
        assert_eq!(answer.header("cache-control"), "no-store");
        let door = pass.bearer(&app).get(HELLO).await.status.as_u16();
        assert_eq!(door, if is_active { 200 } else { 401 }, "{state}");
    }
}

#[tokio::test]
async fn asking_does_not_begin_the_time() {
    let app = TestApp::configured([("RATE_LIMIT_PER_MINUTE", "0")]).await;
    let pass = pass_of(&app, "ada").await;
    for path in [STATUS, "/api/tokens/status"] {
        for _ in 0..20 {
            let answer = pass.bearer(&app).get(path).await.expect(200);
            assert_eq!(answer.text("status"), "unused");
            assert_eq!(answer.json["expires_at"], Value::Null);
        }
    }
}

#[tokio::test]
async fn what_is_no_token_of_ours_is_not_described() {
    let app = TestApp::configured([("RATE_LIMIT_PER_MINUTE", "0")]).await;
    let pass = pass_of(&app, "ada").await;
    let unknown = PlainToken::pass(&mut rand::rng());
    let longer = format!("{}A", pass.text);
    for text in ["", "tga_", unknown.expose(), &longer, &pass.text[..67], "tg_x"] {
        let client = app.anonymous().with("x-access-token", text);
        client.get(STATUS).await.expect_problem(401, "invalid_credential");
    }
    app.anonymous().get(STATUS).await.expect_problem(401, "unauthenticated");
    let twice = pass.bearer(&app).with("x-access-token", &pass.text);
    twice.get(STATUS).await.expect_problem(400, "duplicate_credential");
    // Other credentials are nothing to it.
    pass.bearer(&app).with_key("tg_x").with_bearer("x").get(STATUS).await.expect(200);
}

/// Nobody guesses for free, and nobody is kept from his pass by its own limit.
#[tokio::test]
async fn asking_is_charged_to_the_address() {
    let settings = [
        ("RATE_LIMIT_PER_MINUTE", "5"),
        ("RATE_LIMIT_USER_PER_MINUTE", "0"),
        ("RATE_LIMIT_TOKEN_PER_MINUTE", "1"),
    ];
    let (app, _clock) = TestApp::in_memory(settings).await;
    // Registering and logging in are the first two.
    let pass = pass_of(&app, "ada").await;
    for left in ["2", "1", "0"] {
        assert_eq!(pass.status(&app).await.header("x-ratelimit-remaining"), left);
    }
    pass.bearer(&app).get(STATUS).await.expect_problem(429, "rate_limited");
    pass.bearer(&app).get(HELLO).await.expect(200);
}
