//! The owner's list, and what nobody else may see or do.

use std::sync::Arc;

use chrono::TimeDelta;
use serde_json::{Value, json};

use super::{
    ADMIN, Customer, MINE, activate, contract, instance, items, moderator, names, path, shop,
};
use crate::support::{Answer, PASSWORD, TestDatabase};

fn field<'a>(tokens: &'a [Value], name: &str) -> Vec<&'a str> {
    tokens.iter().map(|token| token[name].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_token_tells_its_state_at_every_time_of_its_life() {
    let (app, clock) = shop(&[]).await;
    let ada = Customer::with(&app, 5000).await;
    let mut bought = vec![];
    for _ in 0..5 {
        bought.push(ada.buy(1).await.json);
        clock.advance(TimeDelta::seconds(1));
    }
    let [expired, active, revoked, refunded, unused] = &bought[..] else { unreachable!() };
    activate(&app, expired).await.unwrap();
    clock.advance(TimeDelta::minutes(30));
    activate(&app, active).await.unwrap();
    // The instant at which the first one ends: it is over then (G-59).
    clock.advance(TimeDelta::minutes(30));
    ada.client.post_empty(&path(revoked, "revoke")).await.expect(200);
    ada.client.post_empty(&path(refunded, "refund")).await.expect(200);

    let all = ada.tokens().await;
    let order = [unused, refunded, revoked, active, expired].map(|token| token["token_id"].clone());
    let found: Vec<_> = all.iter().map(|token| token["token_id"].clone()).collect();
    assert_eq!(found, order);
    let states = ["unused", "refunded", "revoked", "active", "expired"];
    assert_eq!(field(&all, "status"), states);
    for token in &all {
        assert_eq!(names(token), contract());
        let usable = ["unused", "active"].contains(&token["status"].as_str().unwrap());
        assert_eq!(token["is_active"], usable, "{token}");
    }
    assert_eq!(all[4]["activated_at"], "2026-01-01T00:00:05Z");
    assert_eq!(all[4]["expires_at"], "2026-01-01T01:00:05Z");
    assert_eq!(all[2]["revoked_at"], "2026-01-01T01:00:05Z");
    assert_eq!((&all[2]["refunded_minor"], &all[1]["refunded_minor"]), (&Value::Null, &json!(100)));

    for (query, expected) in [
        ("?active_only=true", &["unused", "active"][..]),
        ("?active_only=false", &states),
        ("?active_only=true&limit=1", &["unused"]),
    ] {
        let answer = ada.client.get(&format!("{MINE}{query}")).await.expect(200);
        assert_eq!(field(items(&answer), "status"), expected, "{query}");
    }
    let admin = app.admin().await;
    for status in states {
        let path = format!("{ADMIN}?status={status}&user_id={}", ada.id);
        let answer = admin.get(&path).await.expect(200);
        assert_eq!(field(items(&answer), "status"), [status]);
    }
    clock.advance(TimeDelta::minutes(30));
    let client = app.log_in(&ada.name, PASSWORD).await;
    let answer = client.get(&format!("{MINE}?active_only=true")).await.expect(200);
    assert_eq!(field(items(&answer), "status"), ["unused"]);
}

#[tokio::test]
async fn pages_are_stable_while_tokens_come_and_go() {
    let (app, clock) = shop(&[]).await;
    let ada = Customer::with(&app, 5000).await;
    let mut ids = vec![];
    for _ in 0..5 {
        clock.advance(TimeDelta::seconds(1));
        ids.push(ada.buy(1).await.json);
    }
    let seen = |page: &Answer| -> Vec<usize> {
        let place = |token: &Value| {
            ids.iter().position(|known| known["token_id"] == token["token_id"]).unwrap()
        };
        items(page).iter().map(place).collect()
    };
    let first = ada.client.get(&format!("{MINE}?limit=2")).await.expect(200);
    assert_eq!(seen(&first), [4, 3]);
    clock.advance(TimeDelta::seconds(1));
    ada.buy(1).await;
    Customer::with(&app, 100).await.buy(1).await;
    ada.client.post_empty(&path(&ids[3], "revoke")).await.expect(200);
    let next = |page: &Answer| format!("{MINE}?limit=2&cursor={}", page.text("next_cursor"));
    let second = ada.client.get(&next(&first)).await.expect(200);
    assert_eq!(seen(&second), [2, 1]);
    let third = ada.client.get(&next(&second)).await.expect(200);
    assert_eq!(seen(&third), [0]);
    assert_eq!(third.json["next_cursor"], Value::Null);
}

#[tokio::test]
async fn a_query_that_makes_no_sense_is_refused() {
    let (app, _) = shop(&[]).await;
    let ada = Customer::with(&app, 0).await;
    let admin = app.admin().await;
    for (client, path) in [(&ada.client, MINE), (&admin, ADMIN)] {
        for query in ["?limit=0", "?limit=201", "?limit=x", "?cursor=!", "?cursor=a%00b"] {
            let answer = client.get(&format!("{path}{query}")).await;
            answer.expect_problem(422, "validation_failed");
        }
    }
    ada.client.get(&format!("{MINE}?active_only=1")).await.expect_problem(422, "validation_failed");
    for query in ["?status=sold", "?status=a%00b", "?status=unused&status=active", "?user_id=x"] {
        admin.get(&format!("{ADMIN}{query}")).await.expect_problem(422, "validation_failed");
    }
}

/// BOLA (G-106): through `/tokens` an admin is a stranger, too.
#[tokio::test]
async fn a_strangers_token_looks_exactly_like_a_missing_one() {
    let (app, _) = shop(&[]).await;
    let ada = Customer::with(&app, 5000).await;
    let token = ada.buy(24).await.json;
    let missing = json!({ "token_id": uuid::Uuid::now_v7().to_string() });
    let eve = Customer::with(&app, 5000).await.client;
    for stranger in [eve, moderator(&app).await, app.admin().await] {
        for action in ["revoke", "refund"] {
            let mut answers = vec![];
            for token in [&token, &missing] {
                let answer = stranger.post_empty(&path(token, action)).await;
                let mut answer = answer.expect_problem(404, "not_found").json;
                for name in ["request_id", "instance"] {
                    answer.as_object_mut().unwrap().remove(name).unwrap();
                }
                answers.push(answer);
            }
            assert_eq!(answers[0], answers[1], "{action}");
            stranger.post_empty(&format!("/api/v1/tokens/x/{action}")).await.expect(404);
        }
        let answer = stranger.get(&format!("{MINE}?user_id={}", ada.id)).await.expect(200);
        assert_eq!(items(&answer), &[Value::Null; 0]);
    }
    assert_eq!(ada.tokens().await, [token]);
}

#[tokio::test]
async fn a_text_whose_key_is_gone_is_null_and_the_token_works_still() {
    const OLD: (&str, &str) = ("SECRETS_KEY", "a key of 47 Zebras and 12 Okapis!");
    const NEW: (&str, &str) = ("SECRETS_KEY", "a key of 31 Lemurs and 58 Quokkas!");
    let database = Arc::new(TestDatabase::fresh().await);
    let before = instance(&database, &[OLD]).await;
    let ada = Customer::with(&before, 0).await;
    let client = ada.client.with("idempotency-key", "k");
    let bought = client.post(super::PURCHASE, json!({ "duration_hours": 24 })).await.expect(201);
    drop(before);

    let mut expected = bought.json.clone();
    expected["token"] = Value::Null;
    let after = instance(&database, &[NEW]).await;
    let client = after.log_in(&ada.name, PASSWORD).await;
    let listed = client.get(MINE).await.expect(200);
    assert_eq!(items(&listed), &[expected.clone()]);
    let keyed = client.with("idempotency-key", "k");
    let again = keyed.post(super::PURCHASE, json!({ "duration_hours": 24 })).await.expect(201);
    assert_eq!(again.json, expected);
    assert!(activate(&after, &bought.json).await.is_some());
    drop(after);

    let previous = ("SECRETS_PREVIOUS_KEYS", OLD.1);
    let both = instance(&database, &[NEW, previous]).await;
    let client = both.log_in(&ada.name, PASSWORD).await;
    let listed = client.get(MINE).await.expect(200);
    assert_eq!(items(&listed)[0]["token"], bought.json["token"]);
}
