//! What rows say, and what has none.

use serde_json::{Value, json};
use tollgate::domain::audit::AuditRow;

use super::{count, rows};
use crate::support::{Answer, Client, PASSWORD, TestApp, UNLIMITED, unique};

fn parsed(text: Option<&String>) -> Value {
    text.map_or(Value::Null, |text| serde_json::from_str(text).unwrap())
}

fn state(row: &AuditRow) -> (Value, Value) {
    (parsed(row.before.as_ref()), parsed(row.after.as_ref()))
}

async fn last(app: &TestApp) -> AuditRow {
    rows(&app.app.services).await.pop().unwrap()
}

#[tokio::test]
async fn a_row_says_what_was_before_and_after_and_only_what_differs() {
    let app = TestApp::unlimited().await;
    let (admin, ada) = (app.admin().await, app.user("ada").await);
    let id = ada.get("/api/v1/users/me").await.text("id").to_owned();

    ada.patch("/api/v1/users/me", json!({ "email": "new@example.com" })).await.expect(200);
    let row = last(&app).await;
    assert_eq!((&*row.target_kind, row.target_id.as_deref()), ("account", Some(&*id)));
    let was = json!({ "email": "ada@example.com" });
    assert_eq!(state(&row), (was, json!({ "email": "new@example.com" })));

    let roles = json!({ "roles": ["user", "moderator"] });
    admin.patch(&format!("/api/v1/admin/users/{id}"), roles.clone()).await.expect(200);
    let row = last(&app).await;
    assert_eq!(row.actor_name, "admin");
    assert_eq!(row.target_id.as_deref(), Some(&*id));
    assert_eq!(state(&row), (json!({ "roles": ["user"] }), roles));

    let key = json!({ "name": "ci", "scopes": ["read"], "metadata": { "note": "mine alone" } });
    let made = ada.post("/api/v1/keys", key).await.expect(201);
    let row = last(&app).await;
    let (before, after) = state(&row);
    assert_eq!((before, &after["scopes"]), (Value::Null, &json!(["read"])));
    assert_eq!(after["prefix"], made.json["prefix"]);
    let path = format!("/api/v1/keys/{}", made.text("id"));
    let change = json!({ "scopes": null, "metadata": { "note": "mine alone too" } });
    ada.patch(&path, change).await.expect(200);
    let changed = json!({ "scopes": [], "metadata": "changed" });
    assert_eq!(state(&last(&app).await), (json!({ "scopes": ["read"] }), changed));
    for row in rows(&app.app.services).await {
        let all = format!("{row:?}");
        assert!(!all.contains("mine alone") && !all.contains(made.text("key")), "{all}");
    }
}

#[tokio::test]
async fn what_fails_or_changes_nothing_has_no_row() {
    let app = TestApp::unlimited().await;
    let (admin, ada) = (app.admin().await, app.user("ada").await);
    let me = admin.get("/api/v1/users/me").await.text("id").to_owned();
    let token = ada.post("/api/v1/tokens/purchase", json!({ "duration_hours": 24 })).await;
    let revoke = format!("/api/v1/tokens/{}/revoke", token.text("token_id"));
    ada.post_empty(&revoke).await.expect(200);
    let bought = ada.with("idempotency-key", "once");
    let buy = async || -> Answer {
        bought.post("/api/v1/tokens/purchase", json!({ "duration_hours": 24 })).await.expect(201)
    };
    buy().await;
    let before = count(&app.app.services).await;
    buy().await;
    ada.post_empty(&revoke).await.expect(200);
    let second = json!({ "username": "ada", "email": "b@example.com", "password": PASSWORD });
    app.anonymous().post("/api/v1/auth/register", second).await.expect(409);
    let path = format!("/api/v1/admin/users/{me}");
    admin.patch(&path, json!({ "is_active": false })).await.expect_problem(409, "last_admin");
    ada.patch(&path, json!({ "is_active": false })).await.expect(403);
    ada.delete(&format!("/api/v1/keys/{me}")).await.expect(404);
    ada.post("/api/v1/wallet/redeem", json!({ "code": "ABCD-EFGH-JKMN-PQRS" })).await.expect(404);
    assert_eq!(count(&app.app.services).await, before);
}

#[tokio::test]
async fn refused_logins_are_counted_and_noted_together() {
    let (app, _) = TestApp::in_memory(UNLIMITED).await;
    let ada = app.user("ada").await;
    let id = ada.get("/api/v1/users/me").await.text("id").to_owned();
    app.app.services.audit.note_attempts().await.unwrap();
    let before = count(&app.app.services).await;
    for n in 0..8 {
        let refused = app.login("ada", "a wrong one").await;
        assert_eq!(refused.status, if n < 5 { 401 } else { 429 });
    }
    app.login("my password by mistake", "x").await.expect(401);
    let wrong = json!({ "current_password": "wrong", "new_password": "staple battery horse" });
    ada.post("/api/v1/auth/password", wrong).await.expect(403);
    assert_eq!(count(&app.app.services).await, before, "a row for each");

    app.app.services.audit.note_attempts().await.unwrap();
    let row = last(&app).await;
    assert_eq!((row.seq, &*row.action), (before + 1, "login.refused"));
    assert_eq!((&*row.actor_kind, &row.address), ("system", &None));
    let after = json!({
        "wrong": 7, "throttled": 3,
        "accounts": { id: 9 }, "networks": { app.address.to_string(): 10 },
    });
    assert_eq!(state(&row), (Value::Null, after));
    app.app.services.audit.note_attempts().await.unwrap();
    assert_eq!(count(&app.app.services).await, before + 1, "nothing was refused since");
}

#[tokio::test]
async fn a_refresh_token_that_is_used_twice_has_a_row() {
    let app = TestApp::unlimited().await;
    app.register("ada").await;
    let first = app.login("ada", PASSWORD).await.expect(200);
    let refresh = async |pair: &Answer| {
        let body = json!({ "refresh_token": pair.text("refresh_token") });
        app.anonymous().post("/api/v1/auth/refresh", body).await
    };
    let second = refresh(&first).await.expect(200);
    refresh(&second).await.expect(200);
    let before = count(&app.app.services).await;
    for _ in 0..2 {
        refresh(&first).await.expect(401);
    }
    let new = app.app.services.audit.after(before).await.unwrap();
    let [row] = &new[..] else { panic!("{new:#?}") };
    assert_eq!((&*row.action, &*row.actor_kind), ("session.reuse_detected", "system"));
    assert_eq!(row.address.as_deref(), Some(&*app.address.to_string()));
    assert_eq!(row.target_id.as_deref().map(str::len), Some(36));
}

#[tokio::test]
async fn exports_and_sessions_of_browsers_have_rows() {
    let app = TestApp::unlimited().await;
    let name = unique("ada");
    let ada: Client = app.user(&name).await;
    let before = count(&app.app.services).await;
    ada.get("/api/v1/users/me/export").await.expect(200);
    let row = last(&app).await;
    assert_eq!((row.seq, &*row.action, &*row.actor_name), (before + 1, "account.exported", &*name));

    let browser = crate::browser::Browser::new(&app);
    browser.sign_in(&name).await;
    let row = last(&app).await;
    assert_eq!((&*row.action, &*row.actor_name), ("login.succeeded", &*name));
    browser.fill_in("/logout", &[]).await.expect(303);
    let row = last(&app).await;
    assert_eq!((&*row.action, &*row.actor_name), ("session.ended", &*name));
}

#[tokio::test]
async fn the_first_row_is_that_of_the_first_admin() {
    let app = TestApp::start().await;
    let rows = rows(&app.app.services).await;
    let [row] = &rows[..] else { panic!("{rows:#?}") };
    assert_eq!((row.seq, &*row.actor_kind, &*row.action), (1, "system", "account.created"));
    assert_eq!(parsed(row.after.as_ref())["username"], "admin");
}
