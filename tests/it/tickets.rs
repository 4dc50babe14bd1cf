//! Tickets for sockets: asked for over HTTP, used by the gateway.

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tollgate::{
    domain::principal::{Principal, Proof},
    services::access::AccessError,
};

use crate::support::{Answer, Client, TestApp, epoch, unique};

const PATH: &str = "/api/v1/proxy/ws";

async fn ask(client: &Client, path: &str) -> Answer {
    client.post("/api/v1/auth/ticket", json!({ "path": path })).await
}

async fn ticket(client: &Client) -> String {
    ask(client, PATH).await.expect(201).text("ticket").to_owned()
}

/// As the gateway uses it.
async fn redeem(app: &TestApp, ticket: &str, path: &str) -> Result<Principal, AccessError> {
    app.app.services.tickets.redeem(ticket, path).await
}

async fn is_refused(app: &TestApp, ticket: &str, path: &str) -> bool {
    matches!(redeem(app, ticket, path).await, Err(AccessError::Invalid))
}

/// Somebody with a login, a key and a pass.
struct Ada {
    id: String,
    login: Client,
    key_id: String,
    key: Client,
    pass_id: String,
    pass: Client,
}

impl Ada {
    async fn new(app: &TestApp) -> Self {
        let login = app.user(&unique("ada")).await;
        let me = login.get("/api/v1/users/me").await.expect(200);
        let (key_id, key) = app.key(&login, json!({ "name": "k" })).await;
        let day = json!({ "duration_hours": 24 });
        let bought = login.post("/api/v1/tokens/purchase", day).await.expect(201);
        Self {
            id: me.text("id").to_owned(),
            key_id,
            key,
            pass_id: bought.text("token_id").to_owned(),
            pass: app.anonymous().with("x-access-token", bought.text("token")),
            login,
        }
    }

    fn credentials(&self) -> [&Client; 3] {
        [&self.login, &self.key, &self.pass]
    }
}

#[tokio::test]
async fn a_ticket_stands_once_for_the_credential_it_was_asked_for_with() {
    let app = TestApp::unlimited().await;
    let ada = Ada::new(&app).await;
    for (at, client) in ada.credentials().into_iter().enumerate() {
        let ticket = ticket(client).await;
        assert!(ticket.starts_with("tgt_"));
        let principal = redeem(&app, &ticket, PATH).await.unwrap();
        assert_eq!(principal.user_id().to_string(), ada.id);
        let key = principal.key_id().map(|id| id.to_string());
        let pass = principal.pass_id().map(|id| id.to_string());
        assert_eq!(key, (at == 1).then(|| ada.key_id.clone()));
        assert_eq!(pass, (at == 2).then(|| ada.pass_id.clone()));
        assert_eq!(matches!(principal.proof, Proof::Login { .. }), at == 0);
        assert!(app.app.services.access.prove_again(&principal.proof).await.is_ok());
        assert!(is_refused(&app, &ticket, PATH).await, "used twice");
    }
    // Asking does not begin a pass's time.
    let status = ada.pass.get("/api/v1/tokens/status").await.expect(200);
    assert_eq!(status.text("status"), "unused");
}

#[tokio::test]
async fn it_ends_after_thirty_seconds() {
    let (app, clock) = TestApp::with_clock().await;
    let ada = app.user(&unique("ada")).await;
    let answer = ask(&ada, PATH).await.expect(201);
    let ends: DateTime<Utc> = answer.text("expires_at").parse().unwrap();
    assert_eq!(ends, epoch() + TimeDelta::seconds(30));
    assert_eq!(answer.header("cache-control"), "no-store");
    let late = ticket(&ada).await;
    clock.advance(TimeDelta::microseconds(29_999_999));
    assert!(redeem(&app, answer.text("ticket"), PATH).await.is_ok());
    clock.advance(TimeDelta::microseconds(1));
    assert!(is_refused(&app, &late, PATH).await);
}

#[tokio::test]
async fn it_opens_its_own_path_in_any_spelling_and_no_other() {
    let app = TestApp::unlimited().await;
    let ada = app.user(&unique("ada")).await;
    let asked = ask(&ada, "/api/v1/proxy/%77s").await.expect(201);
    assert!(redeem(&app, asked.text("ticket"), PATH).await.is_ok());
    for other in ["/api/v1/proxy/w", "/api/v1/proxy/ws/", "/api/v1/proxy/WS", "/ws", "/", ""] {
        let ticket = ticket(&ada).await;
        assert!(is_refused(&app, &ticket, other).await, "{other}");
        // Whoever tried it there has it from somewhere: it is used up.
        assert!(is_refused(&app, &ticket, PATH).await, "{other}");
    }
    let good = ticket(&ada).await;
    for text in [
        "",
        "tgt_",
        &good[..good.len() - 1],
        &good.replace("tgt_", "tg_"),
        &format!("tgt_{}", "0".repeat(49)),
    ] {
        assert!(is_refused(&app, text, PATH).await, "{text}");
    }
    assert!(redeem(&app, &good, PATH).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_uses_at_once_one_wins() {
    let app = TestApp::unlimited().await;
    let ada = app.user(&unique("ada")).await;
    for _ in 0..5 {
        let ticket = ticket(&ada).await;
        let uses = join_all((0..10).map(|_| redeem(&app, &ticket, PATH))).await;
        assert_eq!(uses.iter().filter(|used| used.is_ok()).count(), 1);
    }
}

#[tokio::test]
async fn it_dies_with_what_it_stands_for() {
    let app = TestApp::unlimited().await;
    let ada = Ada::new(&app).await;
    let (login, key, pass) =
        (ticket(&ada.login).await, ticket(&ada.key).await, ticket(&ada.pass).await);
    // One of the same user that nobody takes away.
    let (_, other) = app.key(&ada.login, json!({ "name": "other" })).await;
    let other = ticket(&other).await;
    let revoke = format!("/api/v1/tokens/{}/revoke", ada.pass_id);
    ada.login.post_empty(&revoke).await.expect(200);
    ada.login.delete(&format!("/api/v1/keys/{}", ada.key_id)).await.expect(204);
    ada.login.post_empty("/api/v1/auth/logout").await.expect(204);
    for ticket in [login, key, pass] {
        assert!(is_refused(&app, &ticket, PATH).await);
    }
    assert!(redeem(&app, &other, PATH).await.is_ok());
}

#[tokio::test]
async fn nobody_piles_them_up() {
    let (app, clock) = TestApp::with_clock().await;
    let (ada, grace) = (app.user(&unique("ada")).await, app.user(&unique("grace")).await);
    let first = ticket(&ada).await;
    clock.advance(TimeDelta::seconds(10));
    for _ in 0..19 {
        ticket(&ada).await;
    }
    let refused = ask(&ada, PATH).await.expect_problem(429, "too_many_tickets");
    assert_eq!(refused.header("retry-after"), "21");
    ticket(&grace).await;
    // A used one makes room, and so does time.
    redeem(&app, &first, PATH).await.unwrap();
    ticket(&ada).await;
    ask(&ada, PATH).await.expect_problem(429, "too_many_tickets");
    clock.advance(TimeDelta::seconds(30));
    ticket(&ada).await;
    app.app.services.tickets.prune().await.unwrap();
}

#[tokio::test]
async fn a_path_with_two_meanings_or_a_secret_is_refused() {
    let app = TestApp::unlimited().await;
    let ada = Ada::new(&app).await;
    let long = format!("/{}", "x".repeat(4096));
    let secret = format!("/tg_{}", "0".repeat(49));
    for path in
        ["", "ws", "http://a/ws", "/a/../ws", "/a//b", "/a%2fb", "/ws?x=1", "/a\0", &long, &secret]
    {
        let answer = ask(&ada.login, path).await.expect_problem(422, "validation_failed");
        assert_eq!(answer.json["errors"][0]["field"], "path", "{path}");
    }
    for body in [json!({}), json!({ "path": 1 }), json!({ "path": PATH, "user_id": ada.id })] {
        let answer = ada.login.post("/api/v1/auth/ticket", body).await;
        answer.expect_problem(422, "validation_failed");
    }
}

/// Of several credentials the most specific is who asks, here as elsewhere.
#[tokio::test]
async fn with_several_credentials_it_stands_for_the_first() {
    let app = TestApp::unlimited().await;
    let ada = Ada::new(&app).await;
    let (_, other) = app.key(&ada.login, json!({ "name": "other" })).await;
    let issued = ada.login.post("/api/v1/keys", json!({ "name": "third" })).await.expect(201);
    let both = other.with_bearer(issued.text("key"));
    let principal = redeem(&app, &ticket(&both).await, PATH).await.unwrap();
    assert_eq!(principal.key().unwrap().name, "other");
    let alone = app.anonymous().with_bearer(issued.text("key"));
    let principal = redeem(&app, &ticket(&alone).await, PATH).await.unwrap();
    assert_eq!(principal.key().unwrap().name, "third");
    let bad = ada.login.with_key("tg_x");
    ask(&bad, PATH).await.expect_problem(401, "invalid_credential");
}

/// It is no credential anywhere else.
#[tokio::test]
async fn it_opens_nothing_else() {
    let app = TestApp::unlimited().await;
    let ada = app.user(&unique("ada")).await;
    let ticket = ticket(&ada).await;
    for client in [
        app.anonymous().with_bearer(&ticket),
        app.anonymous().with_key(&ticket),
        app.anonymous().with("x-access-token", &ticket),
    ] {
        for path in ["/api/v1/users/me", "/api/v1/proxy/x"] {
            client.get(path).await.expect_problem(401, "invalid_credential");
        }
    }
    let refresh = json!({ "refresh_token": ticket });
    app.anonymous().post("/api/v1/auth/refresh", refresh).await.expect(401);
    let verified: Value = app
        .anonymous()
        .post("/api/v1/keys/verify", json!({ "key": ticket }))
        .await
        .expect(200)
        .json;
    assert_eq!(verified["valid"], false);
    assert!(redeem(&app, &ticket, PATH).await.is_ok());
}
