//! Who may do what: every operation of the document by every kind of caller
//! (RELIABILITY G-106), and what nobody may say (G-107).

mod fields;

use std::collections::BTreeMap;

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use crate::support::{Answer, Client, PASSWORD, TestApp, unique};

/// Statuses in the order of [`CALLERS`].
type Row = (&'static str, [u16; 6]);

const CALLERS: [&str; 6] = ["anonymous", "owner", "other", "moderator", "admin", "key"];

/// A route that is new must be entered here. There are no chats in these tests:
/// who may do what with one is in the tests of chats.
const TABLE: [Row; 76] = [
    ("get_jwks", [200, 200, 200, 200, 200, 200]),
    ("get_health", [200, 200, 200, 200, 200, 200]),
    ("get_liveness", [200, 200, 200, 200, 200, 200]),
    ("get_readiness", [200, 200, 200, 200, 200, 200]),
    ("get_metrics", [200, 200, 200, 200, 200, 200]),
    ("register", [201, 201, 201, 201, 201, 201]),
    ("login", [200, 200, 200, 200, 200, 200]),
    ("refresh_tokens", [200, 200, 200, 200, 200, 200]),
    ("verify_key", [200, 200, 200, 200, 200, 200]),
    ("get_token_status", [401, 401, 401, 401, 401, 401]),
    ("logout", [401, 204, 204, 204, 204, 403]),
    ("logout_all", [401, 204, 204, 204, 204, 403]),
    ("change_password", [401, 204, 204, 204, 204, 403]),
    ("create_ticket", [401, 201, 201, 201, 201, 201]),
    ("list_sessions", [401, 200, 200, 200, 200, 403]),
    ("end_session", [401, 204, 404, 404, 404, 403]),
    ("get_me", [401, 200, 200, 200, 200, 200]),
    ("update_me", [401, 200, 200, 200, 200, 403]),
    ("delete_me", [401, 204, 204, 204, 204, 403]),
    ("export_me", [401, 200, 200, 200, 200, 403]),
    ("list_keys", [401, 200, 200, 200, 200, 403]),
    ("create_key", [401, 201, 201, 201, 201, 403]),
    ("get_key", [401, 200, 404, 200, 200, 403]),
    ("update_key", [401, 200, 404, 404, 200, 403]),
    ("delete_key", [401, 204, 404, 404, 204, 403]),
    ("rotate_key", [401, 200, 404, 404, 200, 403]),
    ("get_usage", [401, 200, 200, 200, 200, 200]),
    ("get_usage_of_all", [401, 403, 403, 200, 200, 403]),
    ("list_requests", [401, 200, 200, 200, 200, 200]),
    ("export_usage", [401, 403, 403, 403, 200, 403]),
    ("proxy_get", [401, 200, 200, 200, 200, 200]),
    ("proxy_post", [401, 200, 200, 200, 200, 200]),
    ("verify_request", [401, 200, 200, 200, 200, 200]),
    ("list_users", [401, 403, 403, 200, 200, 403]),
    ("get_user", [401, 403, 403, 200, 200, 403]),
    ("update_user", [401, 403, 403, 403, 200, 403]),
    ("create_user", [401, 403, 403, 403, 201, 403]),
    ("remove_user", [401, 403, 403, 403, 204, 403]),
    ("get_overview", [401, 403, 403, 200, 200, 403]),
    ("get_wallet", [401, 200, 200, 200, 200, 403]),
    ("list_transactions", [401, 200, 200, 200, 200, 403]),
    ("get_statement", [401, 200, 200, 200, 200, 403]),
    ("redeem_voucher", [401, 200, 200, 200, 200, 403]),
    ("get_user_wallet", [401, 403, 403, 200, 200, 403]),
    ("credit_wallet", [401, 403, 403, 403, 201, 403]),
    ("create_vouchers", [401, 403, 403, 403, 201, 403]),
    ("list_vouchers", [401, 403, 403, 200, 200, 403]),
    ("revoke_voucher", [401, 403, 403, 403, 200, 403]),
    ("get_pricing", [200, 200, 200, 200, 200, 200]),
    ("purchase_token", [401, 201, 201, 201, 201, 403]),
    ("list_my_tokens", [401, 200, 200, 200, 200, 403]),
    ("revoke_token", [401, 200, 404, 404, 404, 403]),
    ("refund_token", [401, 200, 404, 404, 404, 403]),
    ("list_tokens", [401, 403, 403, 200, 200, 403]),
    ("grant_token", [401, 403, 403, 403, 201, 403]),
    ("revoke_anyones_token", [401, 403, 403, 403, 200, 403]),
    ("list_connections", [401, 403, 403, 200, 200, 403]),
    ("cut_connection", [401, 403, 403, 403, 404, 403]),
    ("create_chat_session", [404, 404, 404, 404, 404, 404]),
    ("validate_chat_session", [404, 404, 404, 404, 404, 404]),
    ("end_chat_session", [404, 404, 404, 404, 404, 404]),
    ("send_chat_message", [404, 404, 404, 404, 404, 404]),
    ("stream_chat_message", [404, 404, 404, 404, 404, 404]),
    ("resume_chat_message", [404, 404, 404, 404, 404, 404]),
    ("get_chat_history", [404, 404, 404, 404, 404, 404]),
    ("delete_chat", [404, 404, 404, 404, 404, 404]),
    ("export_chat", [404, 404, 404, 404, 404, 404]),
    ("list_chat_sessions", [401, 403, 403, 200, 200, 403]),
    ("get_chat_session", [401, 403, 403, 404, 404, 403]),
    ("end_anyones_chat_session", [401, 403, 403, 403, 404, 403]),
    ("get_admin_metrics", [401, 403, 403, 200, 200, 403]),
    ("list_upstreams", [401, 403, 403, 200, 200, 403]),
    ("list_audit", [401, 403, 403, 200, 200, 403]),
    ("reload_settings", [401, 403, 403, 403, 200, 403]),
    ("get_log_level", [401, 403, 403, 200, 200, 403]),
    ("set_log_level", [401, 403, 403, 403, 200, 403]),
];

pub struct Operation {
    pub id: String,
    pub method: Method,
    pub path: String,
    document: Value,
}

pub fn operations() -> Vec<Operation> {
    let document = serde_json::to_value(tollgate::api::document()).unwrap();
    let mut all = vec![];
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            all.push(Operation {
                id: operation["operationId"].as_str().unwrap().to_owned(),
                method: method.to_uppercase().parse().unwrap(),
                path: path.clone(),
                document: operation.clone(),
            });
        }
    }
    all
}

/// People, made anew for every cell: an operation may end them.
pub struct Cast {
    pub owner: String,
    pair: Answer,
    key: Answer,
    token: Answer,
    /// A voucher with its code.
    voucher: Value,
    pub caller: Client,
}

async fn make(app: &TestApp, name: &str, role: Option<&str>) -> Answer {
    let id = app.register(name).await.text("id").to_owned();
    if let Some(role) = role {
        let path = format!("/api/v1/admin/users/{id}");
        let roles = json!({ "roles": ["user", role] });
        app.admin().await.patch(&path, roles).await.expect(200);
    }
    app.login(name, PASSWORD).await.expect(200)
}

pub async fn cast(app: &TestApp, caller: &str) -> Cast {
    let owner = unique("owner");
    let pair = make(app, &owner, None).await;
    let client = app.anonymous().with_bearer(pair.text("access_token"));
    let key = client.post("/api/v1/keys", json!({ "name": "k" })).await.expect(201);
    let gift = json!({ "amount_minor": 5 });
    let made = app.admin().await.post("/api/v1/admin/vouchers", gift).await.expect(201);
    let voucher = made.json["items"][0].clone();
    let day = json!({ "duration_hours": 24 });
    let token = client.post("/api/v1/tokens/purchase", day).await.expect(201);
    let bearer = |pair: &Answer| app.anonymous().with_bearer(pair.text("access_token"));
    let caller = match caller {
        "anonymous" => app.anonymous(),
        "owner" => client,
        "other" => bearer(&make(app, &unique("other"), None).await),
        "moderator" => bearer(&make(app, &unique("mo"), Some("moderator")).await),
        "admin" => bearer(&make(app, &unique("boss"), Some("admin")).await),
        _ => app.anonymous().with_key(key.text("key")),
    };
    let caller = caller.with("idempotency-key", &unique("k"));
    Cast { owner, pair, key, token, voucher, caller }
}

/// What to ask so that only the caller decides about the answer.
pub fn request(operation: &str, cast: &Cast) -> (Option<String>, Option<Value>) {
    let session = crate::jwt::part(cast.pair.text("access_token"), 1)["sid"].clone();
    let id = match operation {
        "end_session" => session.as_str().map(str::to_owned),
        "revoke_voucher" => cast.voucher["id"].as_str().map(str::to_owned),
        "get_user" | "update_user" | "remove_user" | "get_user_wallet" | "credit_wallet" => {
            Some(cast.pair.text("user_id").to_owned())
        }
        _ if operation.ends_with("_token") => Some(cast.token.text("token_id").to_owned()),
        _ => Some(cast.key.text("id").to_owned()),
    };
    let name = unique("new");
    let body = match operation {
        "register" | "create_user" => json!({ "username": name,
            "email": format!("{name}@example.com"), "password": PASSWORD }),
        "login" => json!({ "username": cast.owner, "password": PASSWORD }),
        "refresh_tokens" => json!({ "refresh_token": cast.pair.text("refresh_token") }),
        "verify_key" => json!({ "key": cast.key.text("key") }),
        "change_password" => {
            json!({ "current_password": PASSWORD, "new_password": "staple battery horse" })
        }
        "update_me" => json!({ "full_name": "New" }),
        "delete_me" => json!({ "password": PASSWORD }),
        "create_key" | "update_key" => json!({ "name": "new" }),
        "update_user" => json!({ "is_active": true }),
        "set_log_level" => json!({ "level": "info", "expires_in_seconds": 60 }),
        "create_ticket" => json!({ "path": "/api/v1/proxy/ws" }),
        "redeem_voucher" => json!({ "code": cast.voucher["code"] }),
        "credit_wallet" => json!({ "amount_minor": 5, "reason": "r" }),
        "create_vouchers" => json!({ "amount_minor": 5 }),
        "proxy_post" => json!({}),
        "purchase_token" => json!({ "duration_hours": 24 }),
        "grant_token" => json!({ "duration_hours": 24, "user_id": cast.pair.text("user_id") }),
        _ => return (id, None),
    };
    (id, Some(body))
}

pub async fn ask(
    client: &Client,
    operation: &Operation,
    prefix: &str,
    id: &str,
    body: Option<&Value>,
) -> Answer {
    let path = operation.path.replace("{id}", id).replace("{path}", "hello");
    let path = match path.strip_prefix("/api/v1/") {
        Some(rest) => format!("{prefix}/{rest}"),
        None => path,
    };
    match body {
        Some(body) => client.json(operation.method.clone(), &path, body).await,
        None => client.send(operation.method.clone(), &path, None, Bytes::new()).await,
    }
}

#[tokio::test]
async fn every_operation_answers_every_caller_as_declared() {
    let app = TestApp::unlimited().await;
    let table: BTreeMap<&str, [u16; 6]> = TABLE.into_iter().collect();
    let operations = operations();
    assert_eq!(table.len(), TABLE.len(), "an operation stands twice");
    for operation in &operations {
        let row = table.get(operation.id.as_str());
        let row = row.unwrap_or_else(|| panic!("{} is not in the table", operation.id));
        for (at, (caller, expected)) in CALLERS.into_iter().zip(*row).enumerate() {
            // Both prefixes over the whole, each cell by one of them.
            let prefix = ["/api/v1", "/api"][(at + operation.id.len()) % 2];
            let cast = cast(&app, caller).await;
            let (id, body) = request(&operation.id, &cast);
            let id = id.unwrap_or_default();
            let answer = ask(&cast.caller, operation, prefix, &id, body.as_ref()).await;
            let cell = format!("{} as {caller} at {prefix}", operation.id);
            assert_eq!(answer.status.as_u16(), expected, "{cell}: {answer:?}");
            let responses = operation.document["responses"].as_object().unwrap();
            assert!(
                responses.contains_key(&expected.to_string()) || responses.contains_key("default"),
                "{cell}: {expected} is not in the document"
            );
            let code = match expected {
                401 => "unauthenticated",
                404 => "not_found",
                403 if caller == "key" => "login_required",
                403 => "role_required",
                _ => continue,
            };
            answer.expect_problem(expected, code);
        }
    }
    assert_eq!(table.len(), operations.len(), "the table has more than the document");
}

#[tokio::test]
async fn a_strangers_id_is_answered_like_one_that_does_not_exist() {
    let app = TestApp::unlimited().await;
    let mut seen = 0;
    for operation in operations().iter().filter(|operation| operation.path.contains("{id}")) {
        for caller in ["other", "moderator"] {
            let row = TABLE.iter().find(|(id, _)| *id == operation.id).unwrap().1;
            let at = CALLERS.iter().position(|name| *name == caller).unwrap();
            if row[at] != 404 {
                continue;
            }
            let cast = cast(&app, caller).await;
            let (foreign, body) = request(&operation.id, &cast);
            let (foreign, missing) = (foreign.unwrap(), uuid::Uuid::now_v7().to_string());
            let mut answers = vec![];
            for id in [foreign, missing] {
                let answer = ask(&cast.caller, operation, "/api", &id, body.as_ref()).await;
                let mut answer = answer.expect(404);
                let fields = answer.json.as_object_mut().unwrap();
                fields.remove("request_id").unwrap();
                assert!(fields.remove("instance").unwrap().to_string().contains(&id));
                let headers: Vec<String> = answer.headers.keys().map(ToString::to_string).collect();
                answers.push((answer.json, headers));
            }
            assert_eq!(answers[0], answers[1], "{}", operation.id);
            seen += 1;
        }
    }
    assert!(seen >= 11);
}

/// Lists and sums hold what is mine, whatever the query asks for.
#[tokio::test]
async fn no_query_opens_somebody_elses_things() {
    let app = TestApp::unlimited().await;
    let (ada, grace) = (app.user("ada").await, app.user("grace").await);
    let (id, _) = app.key(&grace, json!({ "name": "of grace" })).await;
    grace.get("/api/v1/proxy/secret-path").await.expect(200);
    grace.post("/api/v1/tokens/purchase", json!({ "duration_hours": 24 })).await.expect(201);
    app.flush().await;
    let grace_id = grace.get("/api/v1/users/me").await.text("id").to_owned();
    for path in [
        format!("/api/v1/keys?user_id={grace_id}"),
        "/api/v1/keys?q=of".to_owned(),
        format!("/api/v1/usage?user_id={grace_id}"),
        format!("/api/v1/usage?key_id={id}&group_by=key"),
        format!("/api/v1/usage/requests?user_id={grace_id}"),
        "/api/v1/usage/requests?all=false".to_owned(),
        "/api/v1/auth/sessions".to_owned(),
        format!("/api/v1/tokens/my-tokens?user_id={grace_id}"),
    ] {
        let answer = ada.get(&path).await;
        let text = String::from_utf8_lossy(&answer.body);
        assert!(answer.status.as_u16() < 500, "{path}");
        for theirs in [&grace_id, &id, "of grace", "secret-path", "tga_"] {
            assert!(!text.contains(theirs), "{path}: {text}");
        }
        if let Some(totals) = answer.json.get("totals") {
            assert_eq!(totals["requests"], 0, "{path}");
        }
    }
    ada.get("/api/v1/usage/requests?all=true").await.expect_problem(403, "role_required");
    let body = json!({ "name": "k", "user_id": grace_id });
    ada.post("/api/v1/keys", body).await.expect_problem(403, "role_required");
    let listed = grace.get("/api/v1/keys").await.expect(200);
    assert_eq!(listed.json["items"].as_array().unwrap().len(), 1);
}

/// Of several credentials every one must be good.
#[tokio::test]
async fn one_bad_credential_spoils_the_others() {
    let app = TestApp::unlimited().await;
    app.register("ada").await;
    let pair = app.login("ada", PASSWORD).await.expect(200);
    let ada = app.anonymous().with_bearer(pair.text("access_token"));
    let (_, key) = app.key(&ada, json!({ "name": "k" })).await;
    let wrong_key = format!("tg_{}", "0".repeat(49));
    for path in ["/api/v1/users/me", "/api/v1/proxy/x"] {
        key.with_bearer(pair.text("access_token")).get(path).await.expect(200);
        for bad in [
            ada.with_key(&wrong_key),
            ada.with_key(""),
            key.with_bearer("x.y.z"),
            key.with_bearer(&wrong_key),
            ada.with("x-access-token", "tga_x"),
            ada.with("x-access-token", ""),
        ] {
            bad.get(path).await.expect_problem(401, "invalid_credential");
        }
        let twice = ada.with_bearer(pair.text("access_token"));
        twice.get(path).await.expect_problem(400, "duplicate_credential");
    }
}

/// What a path does not have is 405 and says what it has.
#[tokio::test]
async fn methods_that_are_not_in_the_document_do_not_exist() {
    let app = TestApp::unlimited().await;
    let admin = app.admin().await;
    let mut paths: BTreeMap<String, Vec<Method>> = BTreeMap::new();
    for operation in operations() {
        paths.entry(operation.path).or_default().push(operation.method);
    }
    // What is asked about a proxied request takes its method, too.
    let any = |path: &str| path.contains("{path}") || path.ends_with("/auth/verify");
    for (path, methods) in paths.into_iter().filter(|(path, _)| !any(path)) {
        let path = path.replace("{id}", &uuid::Uuid::now_v7().to_string());
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            if methods.contains(&method) {
                continue;
            }
            let answer = admin.json(method.clone(), &path, &json!({})).await;
            let answer = answer.expect_problem(405, "method_not_allowed");
            for method in &methods {
                assert!(answer.header("allow").contains(method.as_str()), "{answer:?}");
            }
            assert!(!answer.header("allow").split(',').any(|name| name == method.as_str()));
        }
    }
}
