//! What nobody may say: fields that are not the caller's to set (G-107).

use serde_json::{Value, json};

use super::{ask, cast, operations, request};
use crate::support::{PASSWORD, TestApp, some_address, unique};

/// Names that say who somebody is or what he has.
const FORBIDDEN: [&str; 22] = [
    "role",
    "roles",
    "is_admin",
    "admin",
    "user_id",
    "userId",
    "owner_id",
    "id",
    "balance",
    "balance_minor",
    "price",
    "is_active",
    "is_superuser",
    "verified",
    "version",
    "password_hash",
    "created_at",
    "key",
    "prefix",
    "hash",
    "last_used_at",
    "__proto__",
];

#[tokio::test]
async fn a_field_that_is_not_the_callers_to_set_is_refused() {
    let app = TestApp::unlimited().await;
    let document = serde_json::to_value(tollgate::api::document()).unwrap();
    let mut refused = 0;
    for operation in operations() {
        let schema = &operation.document["requestBody"]["content"]["application/json"]["schema"];
        // Without a workflow there are no chats; see the tests of those.
        let is_chat = operation.document["tags"][0] == "chat";
        if schema.is_null() || operation.id == "login" || is_chat {
            continue;
        }
        let schema = schema.to_string();
        let (_, name) = schema.split_once("#/components/schemas/").unwrap();
        let (name, _) = name.split_once('"').unwrap();
        let allowed = &document["components"]["schemas"][name]["properties"];
        let admins = operation.path.contains("/admin/");
        let caller = if admins { "admin" } else { "owner" };
        let cast = cast(&app, caller).await;
        let (id, body) = request(&operation.id, &cast);
        let (id, body) = (id.unwrap(), body.unwrap_or_else(|| json!({})));
        for field in FORBIDDEN.iter().filter(|field| allowed.get(field).is_none()) {
            let mut body = body.clone();
            body[*field] = json!("admin");
            let answer = ask(&cast.caller, &operation, "/api/v1", &id, Some(&body)).await;
            let answer = answer.expect_problem(422, "validation_failed");
            let text = answer.json["errors"].to_string();
            assert!(text.contains(field), "{}: {text}", operation.id);
            refused += 1;
        }
        let me = app.login(&cast.owner, PASSWORD).await.expect(200);
        assert_eq!(me.json["user"]["roles"], json!(["user"]), "{}", operation.id);
        assert_eq!(me.json["user"]["full_name"], Value::Null);
    }
    assert!(refused > 150, "{refused}");
}

/// The login alone lets unknown fields be, as form clients send some. They
/// have no effect.
#[tokio::test]
async fn a_login_with_more_fields_gives_no_more_rights() {
    let app = TestApp::unlimited().await;
    let name = unique("ada");
    app.register(&name).await;
    for field in FORBIDDEN {
        let mut body = json!({ "username": name, "password": PASSWORD });
        body[field] = json!(["admin"]);
        let client = app.anonymous_from(&some_address());
        let pair = client.post("/api/v1/auth/login", body).await.expect(200);
        assert_eq!(pair.json["user"]["roles"], json!(["user"]), "{field}");
        let token = crate::jwt::part(pair.text("access_token"), 1);
        assert_eq!(token["roles"], json!(["user"]), "{field}");
    }
}
