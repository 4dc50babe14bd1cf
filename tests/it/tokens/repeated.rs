//! A request that comes again under the same `Idempotency-Key` has one effect
//! and one answer (RELIABILITY G-68, G-70).

use std::sync::Arc;
use tollgate::domain::audit::SYSTEM;

use chrono::TimeDelta;
use serde_json::{Value, json};

use super::{ADMIN, Customer, DAY, HOUR, MINE, PURCHASE, activate, instance, path, shop};
use crate::support::{Client, PASSWORD, TestDatabase};

#[tokio::test]
async fn a_repeated_purchase_answers_the_same_whatever_became_of_the_token() {
    let (app, clock) = shop(&[("TOKEN_REFUND", "pro_rata")]).await;
    for end in ["revoke", "refund"] {
        let ada = Customer::with(&app, 5000).await;
        let first = ada.buy_as("8e03978e", 24).await.expect(201);
        let same = async |when: &str| {
            // The quotes of a structured field do not count, and it is one key
            // under both prefixes.
            for (path, key) in [(PURCHASE, "8e03978e"), ("/api/tokens/purchase", "\"8e03978e\"")] {
                let client = ada.client.with("idempotency-key", key);
                let again = client.post(path, json!({ "duration_hours": 24 })).await.expect(201);
                assert_eq!(again.body, first.body, "{when}");
            }
        };
        same("at once").await;
        clock.advance(TimeDelta::seconds(61));
        same("later").await;
        activate(&app, &first.json).await.unwrap();
        same("activated").await;
        clock.advance(TimeDelta::seconds(1));
        ada.client.post_empty(&path(&first.json, end)).await.expect(200);
        same(end).await;
        let bought = ada.ledger(&app).await;
        let bought = bought.iter().filter(|entry| entry.amount_minor == -DAY);
        assert_eq!((bought.count(), ada.tokens().await.len()), (1, 1));
    }
}

#[tokio::test]
async fn a_key_that_comes_back_for_something_else_is_refused_without_effect() {
    let (app, _) = shop(&[]).await;
    let ada = Customer::with(&app, 5000).await;
    let first = ada.buy_as("k1", 24).await.expect(201);
    let other = ada.buy(1).await;
    let keyed = ada.client.with("idempotency-key", "k1");
    let before = (ada.balance(&app).await, ada.tokens().await);
    for body in [
        json!({ "duration_hours": 1 }),
        json!({ "duration_hours": 24, "upstream": "echo" }),
        // Neither of them is sold, which is not what is wrong first.
        json!({ "duration_hours": 12 }),
        json!({ "duration_hours": 24, "upstream": "nowhere" }),
        json!({ "duration_hours": 24, "upstream": "" }),
    ] {
        let refused = keyed.post(PURCHASE, body.clone()).await;
        refused.expect_problem(422, "idempotency_key_reused");
    }
    for token in [&first.json, &other.json] {
        let refused = keyed.post_empty(&path(token, "refund")).await;
        refused.expect_problem(422, "idempotency_key_reused");
    }
    assert_eq!((ada.balance(&app).await, ada.tokens().await), before);
    assert_eq!(ada.buy_as("k1", 24).await.expect(201).body, first.body);

    // What was refused took no key: it is good for the next try.
    ada.buy_as("k2", 12).await.expect_problem(400, "duration_not_offered");
    ada.buy_as("k2", 1).await.expect(201);
}

/// A purchase that the wallet could not pay is not remembered as one.
#[tokio::test]
async fn a_purchase_that_failed_may_be_repeated_once_there_is_money() {
    let (app, _) = shop(&[]).await;
    let ada = Customer::with(&app, HOUR).await;
    ada.buy_as("k", 24).await.expect_problem(402, "balance_too_low");
    let amount = tollgate::domain::money::Amount::new(DAY).unwrap();
    let wallet = &app.app.services.wallet;
    wallet.credit(&SYSTEM, ada.id, amount, "test".to_owned(), None).await.unwrap();
    let bought = ada.buy_as("k", 24).await.expect(201);
    assert_eq!(ada.buy_as("k", 24).await.expect(201).body, bought.body);
    assert_eq!(ada.balance(&app).await, HOUR);
}

#[tokio::test]
async fn a_key_of_a_bad_form_is_refused_before_anything_happens() {
    let (app, _) = shop(&[]).await;
    let ada = Customer::with(&app, 5000).await;
    let token = ada.buy(1).await.json;
    let admin = app.admin().await;
    let body = json!({ "duration_hours": 1 });
    let given = json!({ "duration_hours": 1, "user_id": ada.id });
    let ask = async |shape: &dyn Fn(&Client) -> Client| {
        let (ada, admin) = (shape(&ada.client), shape(&admin));
        [
            ada.post(PURCHASE, body.clone()).await,
            ada.post_empty(&path(&token, "refund")).await,
            admin.post(ADMIN, given.clone()).await,
        ]
    };
    let longest = "k".repeat(255);
    for bad in ["", " ", "\"\"", "a b", "ü", &format!("{longest}k")] {
        for answer in ask(&|client| client.with("idempotency-key", bad)).await {
            answer.expect_problem(400, "invalid_idempotency_key");
        }
    }
    for second in ["k", "other"] {
        let twice =
            |client: &Client| client.with("idempotency-key", "k").with("idempotency-key", second);
        for answer in ask(&twice).await {
            answer.expect_problem(400, "invalid_idempotency_key");
        }
    }
    assert_eq!((ada.balance(&app).await, ada.tokens().await.len()), (5000 - HOUR, 1));
    ada.buy_as(&longest, 1).await.expect(201);
}

#[tokio::test]
async fn the_same_key_of_somebody_else_is_another_key() {
    let (app, _) = shop(&[]).await;
    let (ada, eve) = (Customer::with(&app, 5000).await, Customer::with(&app, 5000).await);
    let first = ada.buy_as("shared", 24).await.expect(201);
    let second = eve.buy_as("shared", 24).await.expect(201);
    assert_ne!(first.text("token"), second.text("token"));
    eve.buy_as("shared", 1).await.expect_problem(422, "idempotency_key_reused");
    ada.buy_as("shared", 24).await.expect(201);
    for customer in [&ada, &eve] {
        assert_eq!(customer.balance(&app).await, 5000 - DAY);
        assert_eq!(customer.tokens().await.len(), 1);
    }
}

#[tokio::test]
async fn a_repeated_refund_answers_the_same_and_pays_once() {
    let (app, clock) = shop(&[]).await;
    let ada = Customer::with(&app, 5000).await;
    let (token, other) = (ada.buy(24).await.json, ada.buy(24).await.json);
    let keyed = ada.client.with("idempotency-key", "back");
    let first = keyed.post_empty(&path(&token, "refund")).await.expect(200);
    clock.advance(TimeDelta::seconds(5));
    let again = keyed.post_empty(&path(&token, "refund")).await.expect(200);
    assert_eq!(first.body, again.body);
    keyed.post_empty(&path(&other, "refund")).await.expect_problem(422, "idempotency_key_reused");
    ada.buy_as("back", 1).await.expect_problem(422, "idempotency_key_reused");
    let unkeyed = ada.client.post_empty(&path(&token, "refund")).await;
    unkeyed.expect_problem(409, "not_refundable");
    assert_eq!(ada.balance(&app).await, 5000 - DAY);
}

#[tokio::test]
async fn a_repeated_grant_answers_the_same_and_gives_once() {
    let (app, clock) = shop(&[]).await;
    let (ada, eve) = (Customer::with(&app, 0).await, Customer::with(&app, 0).await);
    let admin = app.admin().await.with("idempotency-key", "gift");
    let body = json!({ "user_id": ada.id, "duration_hours": 48, "upstream": "echo" });
    let first = admin.post(ADMIN, body.clone()).await.expect(201);
    activate(&app, &first.json).await.unwrap();
    clock.advance(TimeDelta::seconds(5));
    ada.client.post_empty(&path(&first.json, "revoke")).await.expect(200);
    assert_eq!(admin.post(ADMIN, body.clone()).await.expect(201).body, first.body);
    for (name, value) in [
        ("user_id", json!(eve.id)),
        ("duration_hours", json!(47)),
        ("upstream", Value::Null),
        ("upstream", json!("")),
        ("upstream", json!("nowhere")),
    ] {
        let mut other = body.clone();
        other[name] = value;
        admin.post(ADMIN, other).await.expect_problem(422, "idempotency_key_reused");
    }
    assert_eq!((ada.tokens().await.len(), eve.tokens().await.len()), (1, 0));
}

/// The answer was lost, the operator changed what is sold, the client asks
/// again: it is told what it bought.
#[tokio::test]
async fn a_purchase_is_repeated_after_a_restart_with_other_prices() {
    const SECRETS: (&str, &str) = ("SECRETS_KEY", "a key of 47 Zebras and 12 Okapis!");
    let database = Arc::new(TestDatabase::fresh().await);
    let before = instance(&database, &[SECRETS, ("TOKEN_PRICE_24H", "1000")]).await;
    let ada = Customer::with(&before, 1000).await;
    let admin = before.admin().await.with("idempotency-key", "gift");
    let bound = json!({ "duration_hours": 24, "upstream": "echo" });
    let bought = ada.client.with("idempotency-key", "day").post(PURCHASE, bound.clone()).await;
    let grant = json!({ "user_id": ada.id, "duration_hours": 7, "upstream": "echo" });
    let granted = admin.post(ADMIN, grant.clone()).await.expect(201);
    drop(before);

    for setting in [
        ("TOKEN_PRICE_24H", "off"),
        ("TOKEN_PRICE_24H", "2000"),
        ("UPSTREAM_URL", "http://127.0.0.1:9"),
    ] {
        let after = instance(&database, &[SECRETS, setting]).await;
        let client = after.log_in(&ada.name, PASSWORD).await;
        let again = client.with("idempotency-key", "day").post(PURCHASE, bound.clone()).await;
        assert_eq!(again.expect(201).body, bought.body, "{setting:?}");
        let admin = after.admin().await.with("idempotency-key", "gift");
        assert_eq!(admin.post(ADMIN, grant.clone()).await.expect(201).body, granted.body);
        assert_eq!(ada.balance(&after).await, 0);
        assert_eq!(super::items(&client.get(MINE).await.expect(200)).len(), 2);
    }
}
