//! Accounts: made, read, changed, exported, deleted by their owners.

use std::{collections::BTreeSet, time::Duration};

use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tollgate::repositories::Repositories as _;

use crate::support::{Answer, Client, PASSWORD, TestApp, TestDatabase, UNLIMITED, epoch, unique};

const ME: &str = "/api/v1/users/me";

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn fields(answer: &Answer) -> Vec<&str> {
    let errors = answer.json["errors"].as_array().unwrap();
    errors.iter().map(|error| error["field"].as_str().unwrap()).collect()
}

async fn register(app: &TestApp, username: &str, email: &str, password: &str) -> Answer {
    let body = json!({ "username": username, "email": email, "password": password });
    app.anonymous().post("/api/v1/auth/register", body).await
}

#[tokio::test]
async fn registering_answers_the_account_and_nothing_else() {
    let app = TestApp::start().await;
    let body = json!({ "username": "Ada", "email": "Ada@Example.com", "password": PASSWORD,
        "full_name": "Ada Lovelace" });
    let made = app.anonymous().post("/api/v1/auth/register", body).await.expect(201);

    assert_eq!(
        keys(&made.json),
        ["created_at", "email", "full_name", "id", "is_active", "roles", "updated_at", "username"]
            .into()
    );
    assert_eq!(made.json["username"], "Ada");
    assert_eq!(made.json["email"], "Ada@Example.com");
    assert_eq!(made.json["full_name"], "Ada Lovelace");
    assert_eq!(made.json["roles"], json!(["user"]));
    assert_eq!(made.json["is_active"], true);
    assert!(made.text("created_at").ends_with('Z'));
    assert_eq!(made.header("cache-control"), "no-store");

    let me = app.log_in("ada", PASSWORD).await.get("/api/v1/users/me").await.expect(200);
    assert_eq!(me.json, made.json);
}

#[tokio::test]
async fn names_and_addresses_are_unique_without_regard_to_case() {
    let app = TestApp::unlimited().await;
    register(&app, "Ada", "Ada@example.com", PASSWORD).await.expect(201);
    for (username, email, code) in [
        ("Ada", "other@example.com", "username_taken"),
        ("aDA", "other@example.com", "username_taken"),
        ("other", "Ada@example.com", "email_taken"),
        ("other", "ADA@EXAMPLE.COM", "email_taken"),
        ("ADMIN", "other@example.com", "username_taken"),
    ] {
        let refused = register(&app, username, email, PASSWORD).await;
        refused.expect_problem(409, code);
    }
    register(&app, "other", "other@example.com", PASSWORD).await.expect(201);
}

#[tokio::test]
async fn of_many_who_want_one_name_at_once_one_gets_it() {
    let app = TestApp::unlimited().await;
    let wanting = (0..20).map(|number| {
        let app = &app;
        async move {
            let name = if number % 2 == 0 { "grace" } else { "GRACE" };
            register(app, name, &format!("g{number}@example.com"), PASSWORD).await
        }
    });
    let answers = futures_util::future::join_all(wanting).await;
    let (made, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|a| a.status == 201);
    assert_eq!(made.len(), 1);
    for answer in refused {
        answer.expect_problem(409, "username_taken");
    }
}

#[tokio::test]
async fn all_bad_fields_are_named_at_once() {
    let app = TestApp::start().await;
    let body = json!({ "username": "a b", "email": "nobody", "password": "short",
        "full_name": "\u{7}" });
    let refused = app.anonymous().post("/api/v1/auth/register", body).await;
    let refused = refused.expect_problem(422, "validation_failed");
    assert_eq!(fields(&refused), ["email", "full_name", "password", "username"]);
    for error in refused.json["errors"].as_array().unwrap() {
        assert_eq!(keys(error), ["code", "field", "message"].into());
    }
}

#[tokio::test]
async fn usernames_and_addresses_have_a_form() {
    let app = TestApp::unlimited().await;
    let long = "x".repeat(65);
    for username in ["", "ab", &long, "a b c", "ada@home", "ädä", "ada\n", "a/b/c", "ada\u{0}"] {
        let refused = register(&app, username, "x@example.com", PASSWORD).await;
        assert_eq!(fields(&refused.expect(422)), ["username"], "{username:?}");
    }
    let long = format!("{}@example.com", "x".repeat(250));
    for email in ["", "x", "x@", "@example.com", "a b@example.com", "a@b@c.com", &long] {
        let refused = register(&app, "someone", email, PASSWORD).await;
        assert_eq!(fields(&refused.expect(422)), ["email"], "{email:?}");
    }
    register(&app, "a.B-c_9", "first.last+tag@sub.example.com", PASSWORD).await.expect(201);
}

#[tokio::test]
async fn a_password_has_8_to_128_characters_and_is_not_a_common_one() {
    let app = TestApp::unlimited().await;
    let (longest, too_long) = ("🦀".repeat(128), "x".repeat(129));
    let refused = ["1234567", "🦀🦀🦀🦀🦀🦀🦀", &too_long, "password", "PassWord", "123456789"];
    for password in refused {
        let refused = register(&app, "someone", "someone@example.com", password).await;
        let refused = refused.expect_problem(422, "validation_failed");
        assert_eq!(fields(&refused), ["password"], "{password:?}");
    }
    for password in ["zq8#mmvb", "        ", &longest, "no Digits or $ rules"] {
        let name = unique("pw");
        register(&app, &name, &format!("{name}@example.com"), password).await.expect(201);
        app.login(&name, password).await.expect(200);
    }
}

#[tokio::test]
async fn a_configured_minimum_holds_for_new_and_changed_passwords() {
    let [minute, hour] = UNLIMITED;
    let app = TestApp::configured([minute, hour, ("AUTH_PASSWORD_MIN_LENGTH", "15")]).await;
    let short = register(&app, "someone", "someone@example.com", "fourteen chars").await;
    assert_eq!(fields(&short.expect(422)), ["password"]);
    let user = app.user("ada").await;
    let body = json!({ "current_password": PASSWORD, "new_password": "fourteen chars" });
    let short = user.post("/api/v1/auth/password", body).await.expect(422);
    assert_eq!(fields(&short), ["new_password"]);
}

#[tokio::test]
async fn a_password_is_hashed_whole_and_in_one_form() {
    let app = TestApp::unlimited().await;
    // Longer than the 72 bytes at which some hashes stop reading.
    let long = "0123456789".repeat(10);
    register(&app, "whole", "whole@example.com", &long).await.expect(201);
    app.login("whole", &long[..72]).await.expect_problem(401, "invalid_login");
    app.login("whole", &long[..99]).await.expect_problem(401, "invalid_login");
    app.login("whole", &long).await.expect(200);

    let (composed, decomposed) = ("motdepasse-\u{e9}t\u{e9}", "motdepasse-e\u{301}te\u{301}");
    for (name, first, second) in
        [("composed", composed, decomposed), ("decomposed", decomposed, composed)]
    {
        register(&app, name, &format!("{name}@example.com"), first).await.expect(201);
        app.login(name, second).await.expect(200);
        app.login(name, first).await.expect(200);
    }
}

#[tokio::test]
async fn closed_registration_refuses_everybody_and_lets_users_in() {
    let app = TestApp::configured([("AUTH_REGISTRATION", "closed")]).await;
    register(&app, "someone", "someone@example.com", PASSWORD)
        .await
        .expect_problem(403, "registration_closed");
    // Nor does it tell who is there already.
    register(&app, "admin", "someone@example.com", PASSWORD)
        .await
        .expect_problem(403, "registration_closed");
    app.admin().await.get("/api/v1/users/me").await.expect(200);
}

#[tokio::test]
async fn a_profile_changes_field_by_field() {
    let app = TestApp::unlimited().await;
    let (ada, me) = (app.user("ada").await, "/api/v1/users/me");
    app.register("grace").await;

    let before = ada.get(me).await.json;
    let named = ada.patch(me, json!({ "full_name": "Ada King" })).await.expect(200);
    assert_eq!(named.json["full_name"], "Ada King");
    assert_eq!(named.json["email"], before["email"]);
    let moved = ada.patch(me, json!({ "email": "ada@new.example" })).await.expect(200);
    assert_eq!(moved.json["full_name"], "Ada King");
    let cleared = ada.patch(me, json!({ "full_name": null })).await.expect(200);
    assert_eq!(cleared.json["full_name"], Value::Null);
    assert_eq!(cleared.json["email"], "ada@new.example");
    assert_eq!(ada.get(me).await.json, cleared.json);
    assert_eq!(ada.patch(me, json!({})).await.expect(200).json["email"], "ada@new.example");

    app.login("ada@new.example", PASSWORD).await.expect(200);
    app.login("ada@example.com", PASSWORD).await.expect_problem(401, "invalid_login");
    let taken = ada.patch(me, json!({ "email": "GRACE@example.com" })).await;
    taken.expect_problem(409, "email_taken");
    ada.patch(me, json!({ "email": "ADA@new.example" })).await.expect(200);
    let bad = ada.patch(me, json!({ "email": "x", "full_name": "\n" })).await;
    assert_eq!(fields(&bad.expect(422)), ["email", "full_name"]);
}

#[tokio::test]
async fn an_export_holds_everything_of_mine_and_no_secret() {
    let app = TestApp::start().await;
    let ada = app.user("ada").await;
    let grace = app.user("grace").await;
    app.key(&grace, json!({ "name": "of grace" })).await;
    let issued = ada.post("/api/v1/keys", json!({ "name": "of ada" })).await.expect(201);
    app.log_in("ada", PASSWORD).await;

    let export = ada.get("/api/v1/users/me/export").await.expect(200);
    assert_eq!(
        keys(&export.json),
        ["api_keys", "chats", "sessions", "tokens", "transactions", "user", "wallet"].into()
    );
    assert_eq!(export.json["user"], ada.get("/api/v1/users/me").await.json);
    assert_eq!(export.json["api_keys"].as_array().unwrap().len(), 1);
    assert_eq!(export.json["api_keys"][0]["id"], issued.json["id"]);
    assert_eq!(export.json["sessions"].as_array().unwrap().len(), 2);
    let text = String::from_utf8(export.body.to_vec()).unwrap();
    for secret in [issued.text("key"), "argon2", "hash", "tgr_", "password"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

#[tokio::test]
async fn a_deleted_account_takes_its_keys_and_sessions_along_at_once() {
    let app = TestApp::unlimited().await;
    app.register("ada").await;
    let pair = app.login("ada", PASSWORD).await.expect(200);
    let ada = app.anonymous().with_bearer(pair.text("access_token"));
    let (_, key) = app.key(&ada, json!({ "name": "k" })).await;
    let grace = app.user("grace").await;
    for warm in [&ada, &key, &grace] {
        warm.get("/api/v1/proxy/warm").await.expect(200);
    }

    let me = "/api/v1/users/me";
    let delete = async |who: &Client, password: &str| {
        who.json(http::Method::DELETE, me, &json!({ "password": password })).await
    };
    delete(&ada, "wrong password").await.expect_problem(403, "wrong_password");
    ada.get(me).await.expect(200);
    delete(&ada, PASSWORD).await.expect(204);

    for dead in [&ada, &key] {
        for path in [me, "/api/v1/proxy/x"] {
            dead.get(path).await.expect_problem(401, "invalid_credential");
        }
    }
    let body = json!({ "refresh_token": pair.text("refresh_token") });
    let refresh = app.anonymous().post("/api/v1/auth/refresh", body).await;
    refresh.expect_problem(401, "invalid_refresh_token");
    app.login("ada", PASSWORD).await.expect_problem(401, "invalid_login");
    grace.get(me).await.expect(200);

    // The name is free again, for somebody who inherits nothing.
    let heir = app.user("ada").await;
    assert_eq!(heir.get("/api/v1/keys").await.json["items"], json!([]));
    ada.get(me).await.expect_problem(401, "invalid_credential");
}

/// Else they could keep what a commit ended from being told: a client that
/// leaves takes its handler along.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ends_credentials_goes_on_when_its_client_leaves() {
    let app = TestApp::unlimited().await;
    let admin = app.admin().await;
    for way in ["leave", "disable"] {
        let user = app.user(way).await;
        let id = user.get(ME).await.expect(200).text("id").to_owned();
        let account = format!("/api/v1/admin/users/{id}");
        let (who, method, path, body) = match way {
            "leave" => (&user, Method::DELETE, ME, json!({ "password": PASSWORD })),
            _ => (&admin, Method::PATCH, &*account, json!({ "is_active": false })),
        };
        // Known in memory, so that the next session is the service's.
        who.get(ME).await.expect(200);
        let mut held = app.app.db.begin().await.unwrap();
        held.settings().lock("admins", epoch()).await.unwrap();
        let before = app.app.db.acquired();
        let (client, path) = (who.clone(), path.to_owned());
        let asked = tokio::spawn(async move { client.json(method, &path, &body).await });
        // On SQLite a transaction is not handed out while another is held.
        if way == "leave" || matches!(&*app.database, TestDatabase::Postgres { .. }) {
            until(async || app.app.db.acquired() > before).await;
        }
        sleep(SEEN).await;
        asked.abort();
        asked.await.unwrap_err();
        sleep(SEEN).await;
        drop(held);
        until(async || user.get(ME).await.status == 401).await;
    }
}

/// For a server to see that a request came, or that its client is gone.
const SEEN: Duration = Duration::from_millis(200);

async fn until(holds: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < Duration::from_secs(30), "it did not happen");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_new_password_ends_the_other_sessions() {
    const NEW: &str = "staple battery horse";
    let app = TestApp::unlimited().await;
    app.register("ada").await;
    let (mine, other) = (app.login("ada", PASSWORD).await, app.login("ada", PASSWORD).await);
    let ada = app.anonymous().with_bearer(mine.text("access_token"));
    let elsewhere = app.anonymous().with_bearer(other.text("access_token"));
    elsewhere.get("/api/v1/proxy/warm").await.expect(200);

    let change = async |current: &str, new: &str| {
        let body = json!({ "current_password": current, "new_password": new });
        ada.post("/api/v1/auth/password", body).await
    };
    change("wrong password", NEW).await.expect_problem(403, "wrong_password");
    for bad in ["short", "password"] {
        assert_eq!(fields(&change(PASSWORD, bad).await.expect(422)), ["new_password"]);
    }
    elsewhere.get("/api/v1/users/me").await.expect(200);
    change(PASSWORD, NEW).await.expect(204);

    for path in ["/api/v1/users/me", "/api/v1/proxy/x"] {
        elsewhere.get(path).await.expect_problem(401, "invalid_credential");
        ada.get(path).await.expect(200);
    }
    let refresh = async |pair: &Answer| {
        let body = json!({ "refresh_token": pair.text("refresh_token") });
        app.anonymous().post("/api/v1/auth/refresh", body).await
    };
    refresh(&other).await.expect_problem(401, "invalid_refresh_token");
    refresh(&mine).await.expect(200);
    app.login("ada", PASSWORD).await.expect_problem(401, "invalid_login");
    app.login("ada", NEW).await.expect(200);
}

/// A login that was checked against the old password just before the change
/// must not leave a session behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_login_with_the_old_password_outlives_a_change() {
    let app = TestApp::unlimited().await;
    for round in 0..15 {
        let name = unique("racer");
        let ada = app.user(&name).await;
        let new = format!("another password {round}");
        let body = json!({ "current_password": PASSWORD, "new_password": new });
        let logins = (0..5).map(|_| app.login(&name, PASSWORD));
        let (changed, logins) = tokio::join!(
            ada.post("/api/v1/auth/password", body),
            futures_util::future::join_all(logins)
        );
        changed.expect(204);
        for login in logins {
            assert!([200, 401].contains(&login.status.as_u16()), "{login:?}");
            if login.status == 200 {
                let client = app.anonymous().with_bearer(login.text("access_token"));
                client.get("/api/v1/users/me").await.expect_problem(401, "invalid_credential");
            }
        }
        let left = ada.get("/api/v1/auth/sessions").await.expect(200);
        assert_eq!(left.json["items"].as_array().unwrap().len(), 1, "{left:?}");
    }
}
