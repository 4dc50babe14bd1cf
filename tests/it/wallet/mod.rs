//! Wallets: read by their users and by operators, filled by operators.

mod books;
mod credit;
mod gifts;
mod reconcile;
mod statement;
mod verify;

use serde_json::{Value, json};
use tollgate::domain::audit::SYSTEM;
use tollgate::{
    domain::id::UserId,
    services::passes::{Order, OwnedPass},
};

use crate::support::{Answer, Client, TestApp, UNLIMITED, unique};

pub const PRICED: [(&str, &str); 4] =
    [UNLIMITED[0], UNLIMITED[1], ("TOKEN_PRICE_24H", "300"), ("TOKEN_PRICE_1H", "100")];

pub async fn id_of(client: &Client) -> String {
    client.get("/api/v1/users/me").await.expect(200).text("id").to_owned()
}

/// Puts money into a wallet as the admin.
pub async fn credit(admin: &Client, user: &str, amount: Value, reason: &str) -> Answer {
    let path = format!("/api/v1/admin/users/{user}/wallet/credit");
    let body = json!({ "amount_minor": amount, "reason": reason });
    admin.with("idempotency-key", &unique("k")).post(&path, body).await
}

pub async fn balance(client: &Client) -> i64 {
    let wallet = client.get("/api/v1/wallet").await.expect(200);
    assert_eq!(wallet.json["currency"], "EUR");
    wallet.json["balance_minor"].as_i64().unwrap()
}

pub async fn buy(app: &TestApp, user: &str, duration_hours: u32) -> OwnedPass {
    let order = Order { duration_hours, upstream: None };
    let user: UserId = user.parse().unwrap();
    app.app.services.passes.purchase(&SYSTEM, user, order, None).await.unwrap()
}

pub async fn refund(app: &TestApp, user: &str, pass: &OwnedPass) {
    let user: UserId = user.parse().unwrap();
    app.app.services.passes.refund(&SYSTEM, user, pass.pass.id, None).await.unwrap();
}

/// Every difference, as a line.
pub async fn differences(app: &TestApp) -> Vec<String> {
    let mut lines = vec![];
    let wallet = &app.app.services.wallet;
    let done = wallet.verify(|difference| lines.push(difference.to_string())).await.unwrap();
    assert_eq!(done.differences, lines.len() as u64);
    lines
}

#[tokio::test]
async fn a_wallet_begins_empty_and_shows_what_happened_to_it_newest_first() {
    let app = TestApp::configured(PRICED).await;
    let (admin, ada, grace) = (app.admin().await, app.user("ada").await, app.user("grace").await);
    let id = id_of(&ada).await;
    assert_eq!(balance(&ada).await, 0);
    let none = ada.get("/api/v1/wallet/transactions").await.expect(200);
    assert_eq!(none.json, json!({ "items": [], "next_cursor": null }));

    credit(&admin, &id, json!(1000), "a gift").await.expect(201);
    let pass = buy(&app, &id, 24).await;
    refund(&app, &id, &pass).await;
    buy(&app, &id, 1).await;
    assert_eq!(balance(&ada).await, 900);

    let all = ada.get("/api/v1/wallet/transactions").await.expect(200);
    let items = all.json["items"].as_array().unwrap().clone();
    let short: Vec<_> = items
        .iter()
        .map(|item| {
            let number = |field: &str| item[field].as_i64().unwrap();
            let kind = item["kind"].as_str().unwrap();
            (kind, number("amount_minor"), number("balance_after_minor"))
        })
        .collect();
    let expected = [
        ("purchase", -100, 900),
        ("refund", 300, 1000),
        ("purchase", -300, 700),
        ("credit", 1000, 1000),
    ];
    assert_eq!(short, expected);
    assert_eq!(items[1]["reverses_id"], items[2]["id"]);
    assert_eq!(items[1]["token_id"], pass.pass.id.to_string());
    assert_eq!(items[2]["token_id"], pass.pass.id.to_string());
    assert_eq!(items[3]["reason"], "a gift");
    let fields: Vec<_> = items[3].as_object().unwrap().keys().cloned().collect();
    let documented = [
        "amount_minor",
        "balance_after_minor",
        "created_at",
        "id",
        "kind",
        "reason",
        "reverses_id",
        "token_id",
        "voucher_id",
    ];
    assert_eq!(fields, documented);

    // In pages, which a transaction in between does not shift.
    let first = ada.get("/api/v1/wallet/transactions?limit=2").await.expect(200);
    let cursor = first.text("next_cursor").to_owned();
    credit(&admin, &id, json!(1), "more").await.expect(201);
    let path = format!("/api/v1/wallet/transactions?limit=2&cursor={cursor}");
    let second = ada.get(&path).await.expect(200);
    assert_eq!(first.json["items"], json!(items[..2]));
    assert_eq!(second.json, json!({ "items": items[2..], "next_cursor": null }));

    // Somebody else's wallet is no better known by its cursor.
    assert_eq!(grace.get(&path).await.expect(200).json["items"], json!([]));
    assert_eq!(balance(&grace).await, 0);
    for wrong in ["limit=0", "limit=201", "cursor=x"] {
        let path = format!("/api/v1/wallet/transactions?{wrong}");
        ada.get(&path).await.expect_problem(422, "validation_failed");
    }
}

#[tokio::test]
async fn money_is_for_people_not_for_keys() {
    let app = TestApp::unlimited().await;
    let ada = app.user("ada").await;
    let (_, key) = app.key(&ada, json!({ "name": "leaked" })).await;
    for path in ["", "/transactions", "/statement"] {
        let path = format!("/api/v1/wallet{path}");
        key.get(&path).await.expect_problem(403, "login_required");
        app.anonymous().get(&path).await.expect_problem(401, "unauthenticated");
    }
    let body = json!({ "code": "7G3K-9QXN-4T2V-WM8D" });
    key.post("/api/v1/wallet/redeem", body).await.expect_problem(403, "login_required");
}

#[tokio::test]
async fn operators_see_a_wallet_also_when_its_user_is_gone() {
    let app = TestApp::unlimited().await;
    // A name that no hexadecimal id can hold.
    let (admin, ada) = (app.admin().await, app.user("lovelace").await);
    let id = id_of(&ada).await;
    let path = format!("/api/v1/admin/users/{id}/wallet");
    let empty = admin.get(&path).await.expect(200);
    assert_eq!(empty.json, json!({ "balance_minor": 0, "currency": "EUR", "recent": [] }));
    for n in 1..=21 {
        credit(&admin, &id, json!(n), "step").await.expect(201);
    }
    let wallet = admin.get(&path).await.expect(200);
    let recent = wallet.json["recent"].as_array().unwrap();
    assert_eq!((recent.len(), &recent[0]["amount_minor"]), (20, &json!(21)));
    assert_eq!(recent[0]["actor_id"], id_of(&admin).await);
    assert_eq!(recent[0]["user_id"], id);

    let gone = json!({ "password": crate::support::PASSWORD });
    ada.json(http::Method::DELETE, "/api/v1/users/me", &gone).await.expect(204);
    let after = admin.get(&path).await.expect(200);
    assert_eq!(after.json, wallet.json, "the ledger stays as it is");
    assert!(!String::from_utf8_lossy(&after.body).contains("lovelace"));
    assert_eq!(differences(&app).await, [""; 0]);
    let unknown = format!("/api/v1/admin/users/{}/wallet", uuid::Uuid::now_v7());
    admin.get(&unknown).await.expect_problem(404, "not_found");
    credit(&admin, &id, json!(1), "too late").await.expect_problem(404, "not_found");
}
