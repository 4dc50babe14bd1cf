//! What an admin puts into a wallet: which amounts there are (RELIABILITY G-75),
//! and once per key.

use http::Method;
use serde_json::json;
use tollgate::domain::money::{MAX_AMOUNT, MAX_BALANCE};

use super::{balance, credit, differences, id_of};
use crate::support::{TestApp, unique};

#[tokio::test]
async fn only_whole_positive_amounts_within_bounds_are_money() {
    let app = TestApp::unlimited().await;
    let (admin, ada) = (app.admin().await, app.user("ada").await);
    let id = id_of(&ada).await;
    let path = format!("/api/v1/admin/users/{id}/wallet/credit");
    // As they stand in the body: some are no number to most readers.
    for amount in [
        "0",
        "-1",
        "-0",
        "1.5",
        "1.0",
        "1e3",
        "1e309",
        "-1e309",
        "\"5\"",
        "\"\"",
        "null",
        "true",
        "[]",
        "{}",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775808",
        "18446744073709551616",
        "1000000000001",
        "NaN",
        "0x10",
        "1_000",
    ] {
        let body = format!(r#"{{"amount_minor": {amount}, "reason": "r"}}"#);
        let asked = admin.with("idempotency-key", &unique("k"));
        let answer = asked.send(Method::POST, &path, Some("application/json"), body.into()).await;
        assert!(matches!(answer.status.as_u16(), 400 | 422), "{amount}: {answer:?}");
    }
    assert_eq!(balance(&ada).await, 0);
    for amount in [1, 1250, MAX_AMOUNT] {
        credit(&admin, &id, json!(amount), "r").await.expect(201);
    }
    assert_eq!(balance(&ada).await, 1251 + MAX_AMOUNT);
}

#[tokio::test]
async fn a_wallet_holds_no_more_than_it_can_and_says_so() {
    let app = TestApp::unlimited().await;
    let (admin, ada) = (app.admin().await, app.user("ada").await);
    let id = id_of(&ada).await;
    for _ in 0..MAX_BALANCE / MAX_AMOUNT {
        credit(&admin, &id, json!(MAX_AMOUNT), "r").await.expect(201);
    }
    assert_eq!(balance(&ada).await, MAX_BALANCE);
    credit(&admin, &id, json!(1), "r").await.expect_problem(409, "wallet_full");
    assert_eq!(balance(&ada).await, MAX_BALANCE);
    assert_eq!(differences(&app).await, [""; 0]);
}

#[tokio::test]
async fn a_credit_needs_a_key_and_happens_once_per_key() {
    let app = TestApp::unlimited().await;
    let (admin, ada, grace) = (app.admin().await, app.user("ada").await, app.user("grace").await);
    let (id, other) = (id_of(&ada).await, id_of(&grace).await);
    let path = |id: &str| format!("/api/v1/admin/users/{id}/wallet/credit");
    let body = json!({ "amount_minor": 500, "reason": "paid in cash" });
    admin.post(&path(&id), body.clone()).await.expect_problem(400, "invalid_idempotency_key");
    for key in ["", "a b", "\"\"", &"k".repeat(256)] {
        let keyed = admin.with("idempotency-key", key);
        keyed.post(&path(&id), body.clone()).await.expect_problem(400, "invalid_idempotency_key");
    }
    let keyed = admin.with("idempotency-key", "pay-1");
    let first = keyed.post(&path(&id), body.clone()).await.expect(201);
    assert_eq!(first.json["amount_minor"], 500);
    assert_eq!(first.json["balance_after_minor"], 500);
    assert_eq!(first.json["kind"], "credit");
    assert_eq!(first.json["reason"], "paid in cash");
    assert_eq!(first.json["actor_id"], id_of(&admin).await);
    for _ in 0..3 {
        let again = keyed.post(&path(&id), body.clone()).await.expect(201);
        assert_eq!(again.json, first.json);
    }
    // Another amount, reason or wallet under the same key is a mistake (G-70).
    for (id, amount, reason) in
        [(&id, 501, "paid in cash"), (&id, 500, "paid by card"), (&other, 500, "paid in cash")]
    {
        let body = json!({ "amount_minor": amount, "reason": reason });
        keyed.post(&path(id), body).await.expect_problem(422, "idempotency_key_reused");
    }
    assert_eq!((balance(&ada).await, balance(&grace).await), (500, 0));
    assert_eq!(differences(&app).await, [""; 0]);
}

#[tokio::test]
async fn a_credit_is_refused_with_the_field_that_is_wrong() {
    let app = TestApp::unlimited().await;
    let (admin, ada) = (app.admin().await, app.user("ada").await);
    let id = id_of(&ada).await;
    let path = format!("/api/v1/admin/users/{id}/wallet/credit");
    for (reason, field) in [
        (json!(""), "reason"),
        (json!("  "), "reason"),
        (json!("a\nb"), "reason"),
        (json!("a\u{0}b"), "reason"),
        (json!("x".repeat(501)), "reason"),
        (json!(null), "reason"),
    ] {
        let body = json!({ "amount_minor": 5, "reason": reason });
        let keyed = admin.with("idempotency-key", &unique("k"));
        let refused = keyed.post(&path, body).await.expect_problem(422, "validation_failed");
        assert_eq!(refused.json["errors"][0]["field"], field, "{refused:?}");
    }
    let keyed = admin.with("idempotency-key", "x");
    let body = json!({ "amount_minor": 5, "reason": "r", "currency": "USD" });
    keyed.post(&path, body).await.expect_problem(422, "validation_failed");
    credit(&admin, &uuid::Uuid::now_v7().to_string(), json!(5), "r")
        .await
        .expect_problem(404, "not_found");
    credit(&ada, &id, json!(5), "to myself").await.expect_problem(403, "role_required");
    assert_eq!(balance(&ada).await, 0);
}
