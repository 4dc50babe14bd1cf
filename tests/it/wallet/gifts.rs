//! What new accounts begin with, the one currency, and what of it all is told to
//! its owner.

use std::sync::Arc;
use tollgate::domain::audit::SYSTEM;

use serde_json::json;
use tollgate::{
    domain::{
        page::PageRequest,
        user::{NewUser, Roles},
    },
    services::{passes::PassFilter, wallet::CurrencyError},
};

use super::{PRICED, balance, buy, credit, differences, id_of};
use crate::{
    support::{Options, PASSWORD, TestApp, UNLIMITED},
    vouchers::one,
};

const GIFTS: [(&str, &str); 4] =
    [UNLIMITED[0], UNLIMITED[1], ("WALLET_STARTING_BALANCE", "500"), ("TOKEN_TRIAL_HOURS", "12")];

async fn passes(app: &TestApp) -> Vec<(String, String, u32)> {
    let passes = &app.app.services.passes;
    let page = passes.list(&PassFilter::default(), PageRequest::FIRST).await.unwrap();
    let short = |pass: tollgate::domain::pass::Pass| {
        (pass.user_id.to_string(), pass.origin.as_str().to_owned(), pass.duration_hours)
    };
    page.items.into_iter().map(short).collect()
}

#[tokio::test]
async fn who_registers_begins_with_what_is_configured_and_others_do_not() {
    let app = TestApp::configured(GIFTS).await;
    let ada = app.user("ada").await;
    let id = id_of(&ada).await;
    assert_eq!(balance(&ada).await, 500);
    let all = ada.get("/api/v1/wallet/transactions").await.expect(200);
    let booked = &all.json["items"][0];
    assert_eq!((&booked["kind"], &booked["reason"]), (&json!("credit"), &json!("registration")));
    assert_eq!(passes(&app).await, [(id, "registration".to_owned(), 12)]);

    // The first admin, and whoever an operator makes.
    assert_eq!(balance(&app.admin().await).await, 0);
    let new = NewUser {
        username: "grace".to_owned(),
        email: "grace@example.com".to_owned(),
        full_name: None,
        roles: Roles::USER,
        is_active: true,
    };
    app.app.services.accounts.create(&SYSTEM, new, &PASSWORD.into()).await.unwrap();
    assert_eq!(balance(&app.log_in("grace", PASSWORD).await).await, 0);
    assert_eq!(passes(&app).await.len(), 1);
    assert_eq!(differences(&app).await, [""; 0]);
}

#[tokio::test]
async fn nothing_is_given_unless_it_is_configured() {
    let app = TestApp::unlimited().await;
    let ada = app.user("ada").await;
    assert_eq!(balance(&ada).await, 0);
    assert_eq!(passes(&app).await, []);
}

#[tokio::test]
async fn an_account_is_made_with_its_gifts_or_not_at_all() {
    let app = TestApp::configured(GIFTS).await;
    let body = json!({ "username": "ada", "email": "a@example.com", "password": PASSWORD });
    app.database.execute("ALTER TABLE passes RENAME TO passes_away").await;
    let register = async || app.anonymous().post("/api/v1/auth/register", body.clone()).await;
    register().await.expect(500);
    app.database.execute("ALTER TABLE passes_away RENAME TO passes").await;
    app.login("ada", PASSWORD).await.expect(401);
    assert_eq!(app.app.services.wallet.verify(|_| {}).await.unwrap().wallets, 0);
    register().await.expect(201);
    register().await.expect(409);
    let done = app.app.services.wallet.verify(|_| {}).await.unwrap();
    assert_eq!((done.wallets, done.transactions, done.passes, done.differences), (1, 1, 1, 0));
}

#[tokio::test]
async fn an_export_has_the_wallet_and_the_tokens_but_not_their_texts() {
    let app = TestApp::configured(PRICED).await;
    let (admin, ada) = (app.admin().await, app.user("ada").await);
    let id = id_of(&ada).await;
    credit(&admin, &id, json!(1000), "cash").await.expect(201);
    let pass = buy(&app, &id, 24).await;
    let export = ada.get("/api/v1/users/me/export").await.expect(200);
    assert_eq!(export.json["wallet"], json!({ "balance_minor": 700, "currency": "EUR" }));
    let list = ada.get("/api/v1/wallet/transactions").await.expect(200);
    assert_eq!(export.json["transactions"], list.json["items"]);
    let token = &export.json["tokens"][0];
    assert_eq!(token["token_id"], pass.pass.id.to_string());
    assert_eq!((&token["status"], &token["is_active"]), (&json!("unused"), &json!(true)));
    assert_eq!(token.get("token"), None);
    let text = pass.token.unwrap();
    assert!(!String::from_utf8_lossy(&export.body).contains(text.expose()));
}

/// Another instance on the same database, with this currency.
async fn start_with(first: &TestApp, currency: &str) -> TestApp {
    let options = Options {
        database: Some(first.database.clone()),
        settings: vec![("WALLET_CURRENCY", currency.to_owned())],
        ..Options::default()
    };
    TestApp::with(options).await
}

/// 500 cents must not become 500 dollars when somebody redeems them.
#[tokio::test]
async fn the_currency_is_fixed_once_a_voucher_promises_money() {
    let first = TestApp::unlimited().await;
    first.app.services.wallet.settle_currency().await.unwrap();
    let admin = first.admin().await;
    one(&admin, json!({ "duration_hours": 5 })).await;
    let second = start_with(&first, "USD").await;
    second.app.services.wallet.settle_currency().await.unwrap();
    first.app.services.wallet.settle_currency().await.unwrap();
    one(&admin, json!({ "amount_minor": 500 })).await;
    let refused = second.app.services.wallet.settle_currency().await.unwrap_err();
    assert!(matches!(refused, CurrencyError::Fixed { .. }), "{refused}");
}

#[tokio::test]
async fn the_currency_is_fixed_once_there_is_money() {
    let first = TestApp::unlimited().await;
    // No money yet: it may change.
    let second = start_with(&first, "USD").await;
    assert!(matches!(first.app.services.wallet.settle_currency().await, Ok(()),));
    let second_wallet = &second.app.services.wallet;
    second_wallet.settle_currency().await.unwrap();
    let ada = second.user("ada").await;
    let id = id_of(&ada).await.parse().unwrap();
    second_wallet.credit(&SYSTEM, id, "5".parse().unwrap(), "r".to_owned(), None).await.unwrap();

    second_wallet.settle_currency().await.unwrap();
    let refused = first.app.services.wallet.settle_currency().await.unwrap_err();
    assert!(matches!(&refused, CurrencyError::Fixed { .. }));
    let text = refused.to_string();
    for part in ["WALLET_CURRENCY", "EUR", "USD"] {
        assert!(text.contains(part), "{text}");
    }
    // And an instance does not become ready with it.
    let started = tollgate::jobs::prepare(&first.app, |_| {}).await.unwrap_err();
    assert_eq!(started.to_string(), text);
    let _kept = Arc::clone(&first.database);
}
