//! What is sold, for how much, and what stops a sale.

use chrono::TimeDelta;
use serde_json::{Value, json};
use tollgate::{
    domain::{id::UserId, ledger::Kind},
    repositories::Repositories,
};

use super::{Customer, DAY, HOUR, MINE, PURCHASE, activate, contract, items, names, shop};
use crate::support::TestApp;

#[tokio::test]
async fn anybody_may_read_the_prices() {
    let (app, _) = shop(&[("WALLET_CURRENCY", "CHF")]).await;
    let item = |hours: u32, price: i64| json!({ "duration_hours": hours, "price_minor": price });
    let expected = json!({
        "currency": "CHF",
        "items": [item(1, HOUR), item(24, DAY), item(168, 0), item(720, 0)],
    });
    for path in ["/api/v1/tokens/pricing", "/api/tokens/pricing"] {
        assert_eq!(app.anonymous().get(path).await.expect(200).json, expected);
    }
    // Public routes look at no credential.
    let stray = app.anonymous().with_bearer("nonsense");
    stray.get("/api/v1/tokens/pricing").await.expect(200);
}

#[tokio::test]
async fn a_token_is_bought_paid_and_shown_to_its_owner() {
    let (app, clock) = shop(&[]).await;
    let ada = Customer::with(&app, 5000).await;
    let bought = ada.buy(24).await;
    assert_eq!(names(&bought.json), contract());
    let text = bought.text("token");
    let secret = text.strip_prefix("tga_").unwrap();
    assert_eq!(secret.len(), 64);
    assert!(secret.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
    assert_eq!(bought.text("token_prefix"), &text[..8]);
    assert_eq!(bought.header("cache-control"), "no-store");
    let expected = json!({
        "duration_hours": 24, "upstream": null, "origin": "purchase", "price_minor": DAY,
        "refunded_minor": null, "status": "unused", "is_active": true,
        "created_at": "2026-01-01T00:00:00Z", "activated_at": null, "expires_at": null,
        "revoked_at": null,
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&bought.json[name], value, "{name}");
    }
    assert_eq!(ada.balance(&app).await, 5000 - DAY);

    clock.advance(TimeDelta::seconds(1));
    let bound = json!({ "duration_hours": 1, "upstream": "echo" });
    let second = ada.client.post("/api/tokens/purchase", bound).await.expect(201);
    assert_eq!(second.json["upstream"], "echo");
    assert_ne!(second.text("token"), text);
    let ledger = ada.ledger(&app).await;
    let seen: Vec<_> = ledger
        .iter()
        .map(|entry| (entry.kind, entry.amount_minor, entry.balance_after_minor))
        .collect();
    let expected = [
        (Kind::Purchase, -HOUR, 5000 - DAY - HOUR),
        (Kind::Purchase, -DAY, 5000 - DAY),
        (Kind::Credit, 5000, 5000),
    ];
    assert_eq!(seen, expected);
    assert_eq!(ledger[1].pass_id.unwrap().to_string(), bought.text("token_id"));
    let mine = ada.client.get(MINE).await.expect(200);
    assert_eq!(items(&mine), &[second.json.clone(), bought.json.clone()]);
    assert!(activate(&app, &bought.json).await.is_some(), "the text that was shown opens");
}

#[tokio::test]
async fn what_cannot_be_sold_costs_nothing() {
    let (app, _) = shop(&[]).await;
    let ada = Customer::with(&app, HOUR * 3 / 2).await;
    for (body, status, code) in [
        (json!({ "duration_hours": 12 }), 400, "duration_not_offered"),
        (json!({ "duration_hours": 5 }), 400, "duration_not_offered"),
        (json!({ "duration_hours": 0 }), 400, "duration_not_offered"),
        (json!({ "duration_hours": u32::MAX }), 400, "duration_not_offered"),
        (json!({ "duration_hours": 1, "upstream": "nowhere" }), 422, "validation_failed"),
        (json!({ "duration_hours": 1, "upstream": "" }), 422, "validation_failed"),
        (json!({ "duration_hours": 1, "upstream": "Echo" }), 422, "validation_failed"),
        (json!({ "duration_hours": 1, "upstream": "a\u{0}b" }), 422, "validation_failed"),
        (json!({ "duration_hours": 1, "price_minor": 0 }), 422, "validation_failed"),
        (json!({}), 422, "validation_failed"),
        (json!({ "duration_hours": 24 }), 402, "balance_too_low"),
    ] {
        let refused = ada.client.post(PURCHASE, body.clone()).await;
        let refused = refused.expect_problem(status, code);
        if body.get("upstream").is_some() {
            assert_eq!(refused.json["errors"][0]["field"], "upstream", "{body}");
        }
        let missing = refused.json.get("missing_minor");
        assert_eq!(missing.is_some(), status == 402, "{refused:?}");
    }
    let refused = ada.client.post(PURCHASE, json!({ "duration_hours": 24 })).await;
    assert_eq!(refused.json["missing_minor"], DAY - HOUR * 3 / 2);
    assert_eq!(refused.json["balance_minor"], HOUR * 3 / 2);
    assert_eq!(ada.balance(&app).await, HOUR * 3 / 2);
    assert_eq!(ada.ledger(&app).await.len(), 1);
    assert_eq!(ada.tokens().await, [Value::Null; 0]);
    // What is missing is enough: to the last minor unit.
    ada.buy(1).await;
    let short = ada.client.post(PURCHASE, json!({ "duration_hours": 1 })).await;
    assert_eq!(short.expect(402).json["missing_minor"], HOUR / 2);
}

#[tokio::test]
async fn a_purchase_may_empty_the_wallet_but_not_more() {
    let (app, _) = shop(&[]).await;
    let ada = Customer::with(&app, HOUR).await;
    ada.buy(1).await;
    assert_eq!(ada.balance(&app).await, 0);
    let refused = ada.client.post(PURCHASE, json!({ "duration_hours": 1 })).await;
    let refused = refused.expect_problem(402, "balance_too_low");
    assert_eq!(
        (&refused.json["missing_minor"], &refused.json["balance_minor"]),
        (&json!(HOUR), &json!(0))
    );
    let poor = Customer::with(&app, 0).await;
    let refused = poor.client.post(PURCHASE, json!({ "duration_hours": 1 })).await.expect(402);
    assert_eq!(refused.json["missing_minor"], HOUR, "there is no wallet at all");
}

#[tokio::test]
async fn what_is_free_needs_no_wallet_and_leaves_no_trace_in_the_ledger() {
    let (app, _) = shop(&[]).await;
    let ada = Customer::with(&app, 0).await;
    let free = ada.buy(168).await;
    assert_eq!((&free.json["price_minor"], &free.json["origin"]), (&json!(0), &json!("purchase")));
    assert_eq!(ada.ledger(&app).await, []);
    let mut session = app.app.db.session().await.unwrap();
    assert_eq!(session.ledger().balance(ada.id).await.unwrap(), None);
}

/// Both sides of the booking, as the double entry has them (I1).
#[tokio::test]
async fn what_the_wallet_pays_the_house_earns() {
    let (app, _) = shop(&[]).await;
    let ada = Customer::with(&app, 5000).await;
    ada.buy(24).await;
    let mut session = app.app.db.session().await.unwrap();
    let entries = session.ledger().entries(ada.id, 2, 2).await.unwrap();
    let mut sides: Vec<_> =
        entries.iter().map(|entry| (UserId::from(entry.account_id), entry.amount_minor)).collect();
    sides.sort_by_key(|(_, amount)| *amount);
    let revenue = UserId::from(uuid::Uuid::from_u128(1));
    assert_eq!(sides, [(ada.id, -DAY), (revenue, DAY)]);
}

/// A dump of the database opens nothing (G-142): only the beginning, which is
/// shown on purpose, stands there as it is.
#[tokio::test]
async fn the_database_holds_no_text_of_a_token() {
    let (app, _) = shop(&[]).await;
    let ada = Customer::with(&app, 5000).await;
    let bought = ada.buy(24).await;
    activate(&app, &bought.json).await.unwrap();
    let text = bought.text("token");
    let dump = app.database.dump().await;
    for part in [text, &text[8..], &text[4..20], &text[40..]] {
        let hex = hex::encode(part);
        assert!(!dump.contains(part) && !dump.to_lowercase().contains(&hex), "{part}");
    }
    let prefix = bought.text("token_prefix");
    assert!(dump.contains(prefix), "the dump holds what is stored");
    assert_eq!(dump.matches("tga_").count(), dump.matches(prefix).count());
}

#[tokio::test]
async fn keys_and_strangers_buy_nothing() {
    let app = TestApp::unlimited().await;
    let ada = Customer::with(&app, 0).await;
    let (_, key) = app.key(&ada.client, json!({ "name": "k" })).await;
    let body = json!({ "duration_hours": 24 });
    key.post(PURCHASE, body.clone()).await.expect_problem(403, "login_required");
    key.get(MINE).await.expect_problem(403, "login_required");
    app.anonymous().post(PURCHASE, body).await.expect_problem(401, "unauthenticated");
    assert_eq!(ada.tokens().await, [Value::Null; 0]);
}
