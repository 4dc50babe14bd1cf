//! Access tokens as resources: sold, given, listed, ended, refunded.

mod admin;
mod amounts;
mod mine;
mod problems;
mod purchase;
mod refund;
mod repeated;

use std::{collections::BTreeSet, sync::Arc};
use tollgate::domain::audit::SYSTEM;

use serde_json::{Value, json};
use tollgate::domain::{
    clock::FakeClock,
    id::{PassId, UserId},
    ledger::Transaction,
    money::Amount,
    page::PageRequest,
    pass::Pass,
    token::TokenHash,
};

use crate::support::{Answer, Client, PASSWORD, TestApp, UNLIMITED, unique};

const PURCHASE: &str = "/api/v1/tokens/purchase";
const MINE: &str = "/api/v1/tokens/my-tokens";
const ADMIN: &str = "/api/v1/admin/tokens";
/// What one hour and a day cost in these tests; a week and a month are free.
const HOUR: i64 = 100;
const DAY: i64 = 1000;
const PRICES: [(&str, &str); 5] = [
    ("TOKEN_PRICE_1H", "100"),
    ("TOKEN_PRICE_12H", "off"),
    ("TOKEN_PRICE_24H", "1000"),
    ("RATE_LIMIT_PER_MINUTE", "0"),
    ("RATE_LIMIT_PER_HOUR", "0"),
];

/// With prices, and a clock that stands still until the test moves it.
async fn shop(settings: &[(&'static str, &str)]) -> (TestApp, Arc<FakeClock>) {
    let clock = FakeClock::starting_at(crate::support::epoch());
    let settings = PRICES.iter().chain(settings);
    let options = crate::support::Options {
        clock: clock.clone(),
        settings: settings.map(|(name, value)| (*name, (*value).to_owned())).collect(),
        ..crate::support::Options::default()
    };
    (TestApp::with(options).await, clock)
}

/// Somebody with a wallet.
struct Customer {
    id: UserId,
    name: String,
    client: Client,
}

impl Customer {
    async fn with(app: &TestApp, balance_minor: i64) -> Self {
        let name = unique("ada");
        let id: UserId = app.register(&name).await.text("id").parse().unwrap();
        if let Some(amount) = Amount::new(balance_minor) {
            let wallet = &app.app.services.wallet;
            wallet.credit(&SYSTEM, id, amount, "test".to_owned(), None).await.unwrap();
        }
        let client = app.log_in(&name, PASSWORD).await;
        Self { id, name, client }
    }

    async fn buy(&self, hours: u32) -> Answer {
        self.client.post(PURCHASE, json!({ "duration_hours": hours })).await.expect(201)
    }

    /// The same under a name for the request.
    async fn buy_as(&self, key: &str, hours: u32) -> Answer {
        let client = self.client.with("idempotency-key", key);
        client.post(PURCHASE, json!({ "duration_hours": hours })).await
    }

    async fn balance(&self, app: &TestApp) -> i64 {
        app.app.services.wallet.balance(self.id).await.unwrap()
    }

    /// The last one first.
    async fn ledger(&self, app: &TestApp) -> Vec<Transaction> {
        let wallet = &app.app.services.wallet;
        wallet.transactions(self.id, PageRequest::FIRST).await.unwrap().items
    }

    async fn tokens(&self) -> Vec<Value> {
        items(&self.client.get(MINE).await.expect(200)).clone()
    }
}

async fn moderator(app: &TestApp) -> Client {
    let name = unique("mia");
    let id = app.register(&name).await.text("id").to_owned();
    let roles = json!({ "roles": ["user", "moderator"] });
    app.admin().await.patch(&format!("/api/v1/admin/users/{id}"), roles).await.expect(200);
    app.log_in(&name, PASSWORD).await
}

#[track_caller]
fn items(answer: &Answer) -> &Vec<Value> {
    answer.json["items"].as_array().unwrap()
}

fn path(token: &Value, action: &str) -> String {
    format!("/api/v1/tokens/{}/{action}", token["token_id"].as_str().unwrap())
}

/// Begins the token's time, as its first admitted request does.
async fn activate(app: &TestApp, token: &Value) -> Option<Pass> {
    let hash = TokenHash::of_pass(token["token"].as_str().unwrap()).unwrap();
    let id: PassId = token["token_id"].as_str().unwrap().parse().unwrap();
    app.app.services.passes.activate(&hash, id).await.unwrap()
}

/// The fields of a token in the contract.
fn contract() -> BTreeSet<&'static str> {
    "token_id token token_prefix duration_hours upstream origin price_minor refunded_minor status \
     is_active created_at activated_at expires_at revoked_at"
        .split_whitespace()
        .collect()
}

fn names(object: &Value) -> BTreeSet<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

/// An instance on this database, with these settings beside the usual ones.
async fn instance(
    database: &Arc<crate::support::TestDatabase>,
    settings: &[(&'static str, &str)],
) -> TestApp {
    let settings = UNLIMITED.iter().chain(settings);
    TestApp::with(crate::support::Options {
        database: Some(database.clone()),
        settings: settings.map(|(name, value)| (*name, (*value).to_owned())).collect(),
        ..crate::support::Options::default()
    })
    .await
}
