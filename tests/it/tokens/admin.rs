//! What admins do with everybody's tokens, and what they do not get to see.

use serde_json::{Value, json};

use super::{ADMIN, Customer, activate, contract, items, moderator, names, path, shop};

fn revoke_path(token: &Value) -> String {
    format!("{ADMIN}/{}/revoke", token["token_id"].as_str().unwrap())
}

#[tokio::test]
async fn a_token_is_given_for_nothing_and_is_its_owners() {
    let (app, _) = shop(&[]).await;
    let ada = Customer::with(&app, 0).await;
    let admin = app.admin().await;
    let body = json!({ "user_id": ada.id, "duration_hours": 5, "upstream": "echo" });
    let given = admin.post(ADMIN, body).await.expect(201);
    let mut expected = contract();
    expected.insert("user_id");
    assert_eq!(names(&given.json), expected);
    for (name, value) in [
        ("user_id", json!(ada.id)),
        ("duration_hours", json!(5)),
        ("upstream", json!("echo")),
        ("origin", json!("grant")),
        ("price_minor", json!(0)),
        ("status", json!("unused")),
    ] {
        assert_eq!(given.json[name], value, "{name}");
    }
    let mut seen = ada.tokens().await;
    seen[0]["user_id"] = json!(ada.id);
    assert_eq!(seen, std::slice::from_ref(&given.json));
    assert_eq!(ada.ledger(&app).await, []);
    assert!(activate(&app, &given.json).await.is_some());
    // Twice without a key is twice.
    let body = json!({ "user_id": ada.id, "duration_hours": 5 });
    admin.post("/api/admin/tokens", body).await.expect(201);
    assert_eq!(ada.tokens().await.len(), 2);
}

#[tokio::test]
async fn what_cannot_be_given_is_refused() {
    let (app, _) = shop(&[]).await;
    let ada = Customer::with(&app, 0).await;
    let admin = app.admin().await;
    let nobody = uuid::Uuid::now_v7();
    for (body, status, code) in [
        (json!({ "user_id": nobody, "duration_hours": 5 }), 404, "not_found"),
        (json!({ "user_id": "x", "duration_hours": 5 }), 422, "validation_failed"),
        (json!({ "duration_hours": 5 }), 422, "validation_failed"),
        (json!({ "user_id": ada.id }), 422, "validation_failed"),
        (
            json!({ "user_id": ada.id, "duration_hours": 5, "upstream": "x" }),
            422,
            "validation_failed",
        ),
        (json!({ "user_id": ada.id, "duration_hours": 5, "token": "x" }), 422, "validation_failed"),
    ] {
        admin.post(ADMIN, body).await.expect_problem(status, code);
    }
    // A key that failed is free still.
    let keyed = admin.with("idempotency-key", "k");
    let body =
        |id: &dyn std::fmt::Display| json!({ "user_id": id.to_string(), "duration_hours": 5 });
    keyed.post(ADMIN, body(&nobody)).await.expect_problem(404, "not_found");
    keyed.post(ADMIN, body(&ada.id)).await.expect(201);
    assert_eq!(ada.tokens().await.len(), 1);
}

#[tokio::test]
async fn everybodys_tokens_are_listed_without_their_texts() {
    let (app, clock) = shop(&[]).await;
    let (ada, eve) = (Customer::with(&app, 5000).await, Customer::with(&app, 5000).await);
    let mut bought = vec![];
    for customer in [&ada, &eve, &ada] {
        bought.push(customer.buy(1).await.json);
        clock.advance(chrono::TimeDelta::seconds(1));
    }
    activate(&app, &bought[2]).await.unwrap();
    let mut expected = contract();
    expected.insert("user_id");
    expected.remove("token");
    let both = [app.admin().await, moderator(&app).await];
    for reader in &both {
        for (query, found) in [
            ("", &[2, 1, 0][..]),
            (&format!("?user_id={}", ada.id), &[2, 0]),
            (&format!("?user_id={}&status=active", ada.id), &[2]),
            ("?status=unused", &[1, 0]),
            ("?status=revoked", &[]),
            ("?user_id=0198c0ff-ee00-7008-8000-0000000000aa", &[]),
            ("?limit=1", &[2]),
        ] {
            let answer = reader.get(&format!("{ADMIN}{query}")).await.expect(200);
            let ids: Vec<_> = items(&answer).iter().map(|token| &token["token_id"]).collect();
            let found: Vec<_> = found.iter().map(|at: &usize| &bought[*at]["token_id"]).collect();
            assert_eq!(ids, found, "{query}");
            let body = String::from_utf8_lossy(&answer.body);
            for token in &bought {
                let text = token["token"].as_str().unwrap();
                assert!(!body.contains(text) && !body.contains(&text[8..]), "{query}");
            }
            assert!(items(&answer).iter().all(|token| names(token) == expected));
        }
    }
    ada.client.get(ADMIN).await.expect_problem(403, "role_required");
}

#[tokio::test]
async fn admins_end_any_token_and_moderators_none() {
    let (app, clock) = shop(&[]).await;
    let ada = Customer::with(&app, 5000).await;
    let token = ada.buy(24).await.json;
    let (admin, moderator) = (app.admin().await, moderator(&app).await);
    for (client, status) in [(&moderator, 403), (&ada.client, 403)] {
        client.post_empty(&revoke_path(&token)).await.expect_problem(status, "role_required");
        let body = json!({ "user_id": ada.id, "duration_hours": 5 });
        client.post(ADMIN, body).await.expect_problem(status, "role_required");
    }
    let missing = json!({ "token_id": uuid::Uuid::now_v7().to_string() });
    admin.post_empty(&revoke_path(&missing)).await.expect_problem(404, "not_found");
    admin.post_empty(&format!("{ADMIN}/x/revoke")).await.expect_problem(404, "not_found");

    clock.advance(chrono::TimeDelta::seconds(7));
    let ended = admin.post_empty(&revoke_path(&token)).await.expect(200);
    assert_eq!(ended.json["status"], "revoked");
    assert_eq!(ended.json["revoked_at"], "2026-01-01T00:00:07Z");
    assert_eq!(ended.json.get("token"), None);
    clock.advance(chrono::TimeDelta::seconds(7));
    assert_eq!(admin.post_empty(&revoke_path(&token)).await.expect(200).json, ended.json);
    assert!(activate(&app, &token).await.is_none());
    assert_eq!(ada.tokens().await[0]["status"], "revoked");
    ada.client.post_empty(&path(&token, "refund")).await.expect_problem(409, "not_refundable");
}
