//! Who may see and change which keys.

use http::{HeaderMap, Method};
use serde_json::{Value, json};

use super::{KEYS, listed, path};
use crate::support::{Answer, Client, PASSWORD, TestApp};

/// A login of that name with the role.
async fn moderator(app: &TestApp, name: &str) -> Client {
    let id = app.register(name).await.text("id").to_owned();
    let roles = json!({ "roles": ["user", "moderator"] });
    app.admin().await.patch(&format!("/api/v1/admin/users/{id}"), roles).await.expect(200);
    app.log_in(name, PASSWORD).await
}

/// What differs between two answers to different requests in any case.
fn comparable(answer: &Answer) -> (u16, HeaderMap, Value) {
    let mut headers = answer.headers.clone();
    headers.remove("x-request-id");
    headers.remove("date");
    headers.remove("content-length");
    let mut json = answer.json.clone();
    for name in ["request_id", "instance"] {
        json.as_object_mut().unwrap().remove(name).unwrap();
    }
    (answer.status.as_u16(), headers, json)
}

/// BOLA (G-106).
#[tokio::test]
async fn a_strangers_key_looks_exactly_like_a_missing_one() {
    let app = TestApp::start().await;
    let (ada, eve) = (app.user("ada").await, app.user("eve").await);
    let (id, key) = app.key(&ada, json!({ "name": "ada's" })).await;
    let missing = "0198c0ff-ee00-7008-8000-0000000000aa";
    let requests = [
        (Method::GET, "", Value::Null),
        (Method::PATCH, "", json!({ "name": "eve's" })),
        (Method::PATCH, "", json!({ "name": "" })),
        (Method::DELETE, "", Value::Null),
        (Method::POST, "/rotate", json!({ "grace_period_seconds": 5 })),
    ];
    for (method, action, body) in requests {
        let theirs = eve.json(method.clone(), &format!("{}{action}", path(&id)), &body).await;
        let none = eve.json(method.clone(), &format!("{}{action}", path(missing)), &body).await;
        assert_eq!(comparable(&theirs), comparable(&none), "{method}");
        theirs.expect_problem(404, "not_found");
    }
    eve.get(&path("not-an-id")).await.expect_problem(404, "not_found");
    assert_eq!(listed(&eve.get(KEYS).await.expect(200)), [""; 0]);
    assert_eq!(ada.get(&path(&id)).await.expect(200).json["name"], "ada's");
    key.get("/api/v1/proxy/").await.expect(200);
}

#[tokio::test]
async fn moderators_read_all_keys_and_admins_manage_them() {
    let app = TestApp::start().await;
    let (ada, admin) = (app.user("ada").await, app.admin().await);
    let moderator = moderator(&app, "mia").await;
    let (id, key) = app.key(&ada, json!({ "name": "ada's" })).await;
    let path = path(&id);
    let owner = ada.get(&path).await.expect(200).json["user_id"].clone();

    moderator.get(&path).await.expect(200);
    assert_eq!(listed(&moderator.get(KEYS).await.expect(200)), ["ada's"]);
    moderator.patch(&path, json!({ "name": "mia's" })).await.expect_problem(404, "not_found");
    moderator.delete(&path).await.expect_problem(404, "not_found");
    moderator.post_empty(&format!("{path}/rotate")).await.expect_problem(404, "not_found");
    for client in [&moderator, &app.user("bob").await] {
        let body = json!({ "name": "x", "user_id": owner });
        client.post(KEYS, body).await.expect_problem(403, "role_required");
    }
    key.get("/api/v1/proxy/").await.expect(200);

    let body = json!({ "name": "for ada", "user_id": owner });
    let made = admin.post(KEYS, body).await.expect(201);
    assert_eq!(made.json["user_id"], owner);
    assert_eq!(listed(&ada.get(KEYS).await).len(), 2);
    let echo = app.anonymous().with_key(made.text("key")).get("/api/v1/proxy/").await.expect(200);
    assert_eq!(echo.json["headers"]["x-username"], "ada");
    let nobody = json!({ "name": "x", "user_id": "0198c0ff-ee00-7008-8000-0000000000aa" });
    admin.post(KEYS, nobody).await.expect_problem(404, "not_found");

    let renamed = admin.patch(&path, json!({ "name": "admin's" })).await.expect(200);
    assert_eq!(renamed.json["user_id"], owner);
    admin.post_empty(&format!("{path}/rotate")).await.expect(200);
    key.get("/api/v1/proxy/").await.expect_problem(401, "invalid_credential");
    admin.delete(&path).await.expect(204);
    ada.get(&path).await.expect_problem(404, "not_found");
}

/// A leaked key must not be able to make others, not even an admin's (G-106).
#[tokio::test]
async fn keys_do_not_manage_keys() {
    let app = TestApp::start().await;
    let (id, key) = app.key(&app.admin().await, json!({ "name": "admin's" })).await;
    let path = path(&id);
    let calls = [
        key.get(KEYS).await,
        key.get(&path).await,
        key.post(KEYS, json!({ "name": "more" })).await,
        key.patch(&path, json!({ "scopes": null })).await,
        key.delete(&path).await,
        key.post_empty(&format!("{path}/rotate")).await,
    ];
    for answer in calls {
        answer.expect_problem(403, "login_required");
    }
    app.anonymous().get(KEYS).await.expect_problem(401, "unauthenticated");
    key.get("/api/v1/proxy/").await.expect(200);
}
