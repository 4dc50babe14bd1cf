//! What admins may do to accounts, and that one admin always stays.

use http::Method;
use serde_json::{Value, json};
use tollgate::{
    domain::{page::PageRequest, user::Role},
    services::accounts::UserFilter,
};

use crate::support::{Answer, Client, PASSWORD, TestApp, unique};

async fn id_of(client: &Client) -> String {
    client.get("/api/v1/users/me").await.expect(200).text("id").to_owned()
}

async fn change(admin: &Client, id: &str, fields: Value) -> Answer {
    admin.patch(&format!("/api/v1/admin/users/{id}"), fields).await
}

async fn delete_me(client: &Client) -> Answer {
    let body = json!({ "password": PASSWORD });
    client.json(Method::DELETE, "/api/v1/users/me", &body).await
}

/// How many accounts could still change who is an admin.
async fn active_admins(app: &TestApp) -> usize {
    let filter = UserFilter { role: Some(Role::Admin), is_active: Some(true), q: None };
    app.app.services.accounts.list(&filter, PageRequest::FIRST).await.unwrap().items.len()
}

/// Another admin, logged in, with its id.
async fn second_admin(app: &TestApp, admin: &Client) -> (String, Client) {
    let client = app.user(&unique("second")).await;
    let id = id_of(&client).await;
    change(admin, &id, json!({ "roles": ["user", "admin"] })).await.expect(200);
    (id, client)
}

#[tokio::test]
async fn a_disabled_account_stops_working_everywhere_at_once() {
    let app = TestApp::unlimited().await;
    let (admin, name) = (app.admin().await, unique("ada"));
    app.register(&name).await;
    let pair = app.login(&name, PASSWORD).await.expect(200);
    let ada = app.anonymous().with_bearer(pair.text("access_token"));
    let (_, key) = app.key(&ada, json!({ "name": "k" })).await;
    let refresh = async |pair: &Answer| {
        let body = json!({ "refresh_token": pair.text("refresh_token") });
        app.anonymous().post("/api/v1/auth/refresh", body).await
    };
    for warm in [&ada, &key] {
        warm.get("/api/v1/proxy/warm").await.expect(200);
    }
    let id = id_of(&ada).await;

    let disabled = change(&admin, &id, json!({ "is_active": false })).await.expect(200);
    assert_eq!(disabled.json["is_active"], false);
    for dead in [&ada, &key] {
        for path in ["/api/v1/users/me", "/api/v1/proxy/x"] {
            dead.get(path).await.expect_problem(401, "invalid_credential");
        }
    }
    refresh(&pair).await.expect_problem(401, "invalid_refresh_token");
    app.login(&name, PASSWORD).await.expect_problem(401, "invalid_login");
    let verify = json!({ "key": "tg_x" });
    app.anonymous().post("/api/v1/keys/verify", verify).await.expect(200);

    change(&admin, &id, json!({ "is_active": true })).await.expect(200);
    key.get("/api/v1/proxy/x").await.expect(200);
    refresh(&pair).await.expect(200);
}

#[tokio::test]
async fn a_role_is_given_and_taken_at_once() {
    let app = TestApp::unlimited().await;
    let (admin, mo) = (app.admin().await, app.user(&unique("mo")).await);
    let (id, list) = (id_of(&mo).await, "/api/v1/admin/users");
    mo.get(list).await.expect_problem(403, "role_required");

    change(&admin, &id, json!({ "roles": ["user", "moderator"] })).await.expect(200);
    mo.get(list).await.expect(200);
    change(&mo, &id, json!({ "roles": ["admin"] })).await.expect_problem(403, "role_required");
    change(&admin, &id, json!({ "roles": ["user"] })).await.expect(200);
    mo.get(list).await.expect_problem(403, "role_required");
    assert_eq!(mo.get("/api/v1/users/me").await.json["roles"], json!(["user"]));
}

#[tokio::test]
async fn an_admin_finds_accounts_by_name_role_and_state() {
    let app = TestApp::unlimited().await;
    let admin = app.admin().await;
    for name in ["find-a", "find-b", "find-c"] {
        app.register(name).await;
    }
    let names = async |query: &str| -> Vec<String> {
        let answer = admin.get(&format!("/api/v1/admin/users?{query}")).await.expect(200);
        let items = answer.json["items"].as_array().unwrap();
        items.iter().map(|user| user["username"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("q=FIND-").await, ["find-c", "find-b", "find-a"]);
    assert_eq!(names("q=find-b@example").await, ["find-b"]);
    assert_eq!(names("role=admin").await, ["admin"]);
    assert_eq!(names("is_active=false").await, [""; 0]);
    assert_eq!(names("q=%25").await, [""; 0]);
    assert_eq!(names("q=_").await, [""; 0]);
    let user = admin.get("/api/v1/admin/users?q=find-a").await.json["items"][0].clone();
    let one = admin.get(&format!("/api/v1/admin/users/{}", user["id"].as_str().unwrap())).await;
    assert_eq!(one.expect(200).json, user);
    admin.get("/api/v1/admin/users?role=owner").await.expect_problem(422, "validation_failed");
}

#[tokio::test]
async fn the_last_admin_cannot_be_removed_in_any_way() {
    let app = TestApp::unlimited().await;
    let admin = app.admin().await;
    let id = id_of(&admin).await;
    let (second_id, second) = second_admin(&app, &admin).await;
    // An admin who is disabled is in charge of nothing.
    change(&admin, &second_id, json!({ "is_active": false })).await.expect(200);

    for fields in [
        json!({ "roles": ["user"] }),
        json!({ "roles": [] }),
        json!({ "is_active": false }),
        json!({ "roles": ["admin"], "is_active": false }),
    ] {
        change(&admin, &id, fields).await.expect_problem(409, "last_admin");
    }
    delete_me(&admin).await.expect_problem(409, "last_admin");
    let me = admin.get("/api/v1/users/me").await.expect(200);
    assert_eq!(me.json["roles"], json!(["user", "admin"]));
    assert_eq!(me.json["is_active"], true);

    change(&admin, &second_id, json!({ "is_active": true })).await.expect(200);
    delete_me(&admin).await.expect(204);
    delete_me(&second).await.expect_problem(409, "last_admin");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_admins_who_leave_at_once_do_not_leave_nobody() {
    let app = TestApp::unlimited().await;
    let (mut id, mut admin) = {
        let admin = app.admin().await;
        (id_of(&admin).await, admin)
    };
    for round in 0..12 {
        let (second_id, second) = second_admin(&app, &admin).await;
        let gone = json!({ "roles": ["user"] });
        let (a, b) = match round % 3 {
            0 => tokio::join!(delete_me(&admin), delete_me(&second)),
            1 => tokio::join!(
                change(&admin, &second_id, gone.clone()),
                change(&second, &id, gone.clone())
            ),
            _ => tokio::join!(delete_me(&admin), change(&second, &second_id, gone.clone())),
        };
        assert!(a.status == 409 || b.status == 409 || active_admins(&app).await > 0);
        assert_eq!(active_admins(&app).await, 1, "round {round}: {a:?} {b:?}");
        let first_stays = {
            let me = admin.get("/api/v1/users/me").await;
            me.status == 200 && me.json["roles"].to_string().contains("admin")
        };
        if !first_stays {
            (id, admin) = (second_id, second);
        }
    }
}
