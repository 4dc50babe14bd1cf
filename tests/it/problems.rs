//! Every error is a problem (RFC 9457) that names its request and nothing of
//! ours (RELIABILITY G-146).

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{Client as Pool, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};

use crate::support::{Answer, Client, PASSWORD, TestApp, unique};

/// What belongs to every problem, and what to none.
#[track_caller]
pub(super) fn check(answer: &Answer, path: &str) {
    let problem = answer.json.as_object().unwrap_or_else(|| panic!("{answer:?}"));
    let status = answer.status.as_u16();
    for name in problem.keys() {
        let known = ["type", "title", "status", "code", "detail", "instance", "request_id"];
        let more = match status {
            402 => ["missing_minor", "balance_minor"].contains(&name.as_str()),
            422 => name == "errors",
            429 => ["limit", "other_limits"].contains(&name.as_str()),
            _ => false,
        };
        assert!(known.contains(&name.as_str()) || more, "{answer:?}");
    }
    let code = answer.text("code");
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert!(answer.text("type").ends_with(&format!("/problems/{}", code.replace('_', "-"))));
    assert_eq!(answer.text("title"), answer.status.canonical_reason().unwrap());
    assert_eq!(answer.json["status"], status);
    assert!(!answer.text("detail").is_empty());
    assert_eq!(answer.text("instance"), path.split('?').next().unwrap());
    assert_eq!(answer.text("request_id"), answer.header("x-request-id"));
    // A key that was used for something else is wrong, but not as a field.
    let fields = status == 422 && code != "idempotency_key_reused";
    assert_eq!(problem.contains_key("errors"), fields, "{answer:?}");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert_eq!(answer.headers.contains_key("www-authenticate"), status == 401);
    assert!(!answer.headers.contains_key(header::SERVER));
    let text = String::from_utf8_lossy(&answer.body).to_lowercase();
    let version = env!("CARGO_PKG_VERSION");
    for inner in [
        "select ",
        "insert ",
        "sqlite",
        "postgres",
        "sqlx",
        "redis",
        ".rs",
        "src/",
        "/home",
        "/tmp",
        "panicked",
        "backtrace",
        "hyper",
        "axum",
        "serde",
        "rust",
        "127.0.0.1",
        version,
    ] {
        assert!(!text.contains(inner), "{inner} in {text}");
    }
}

struct Case {
    client: Client,
    method: Method,
    path: &'static str,
    media: Option<&'static str>,
    body: Vec<u8>,
    expected: (u16, &'static str),
}

type Body<'a> = (Option<&'static str>, &'a [u8]);

const JSON: Option<&str> = Some("application/json");
const FORM: Option<&str> = Some("application/x-www-form-urlencoded");
const LOGIN: &str = "/api/v1/auth/login";
const NUL: &str = "a\u{0}b";
const NOTHING: Body<'static> = (None, b"");

fn case(
    client: &Client,
    method: Method,
    path: &'static str,
    (media, body): Body,
    status: u16,
    code: &'static str,
) -> Case {
    let (client, body) = (client.clone(), body.to_vec());
    Case { client, method, path, media, body, expected: (status, code) }
}

fn wrong_routes(anyone: &Client, user: &Client) -> Vec<Case> {
    let paths = ["/", "/nothing", "/api", "/api/", "/api/v1", "/api/v2/keys", "/api/v1/keys/"];
    let mut all: Vec<Case> = paths
        .into_iter()
        .map(|path| case(anyone, Method::GET, path, NOTHING, 404, "not_found"))
        .collect();
    let nothing = "/api/v1/nothing";
    all.push(case(user, Method::POST, nothing, (JSON, b"{}"), 404, "not_found"));
    all.push(case(user, Method::GET, "/api/v1/keys/x", NOTHING, 404, "not_found"));
    let brew = Method::from_bytes(b"BREW").unwrap();
    for (client, method, path) in [
        (anyone, Method::PUT, LOGIN),
        (anyone, Method::POST, "/health"),
        (user, Method::PUT, "/api/v1/keys"),
        (anyone, Method::TRACE, LOGIN),
        (anyone, brew, LOGIN),
    ] {
        all.push(case(client, method, path, NOTHING, 405, "method_not_allowed"));
    }
    let dots = "/api/v1/%2e%2e/keys";
    all.push(case(anyone, Method::GET, dots, NOTHING, 400, "ambiguous_path"));
    let odd_field = anyone.with("x_under", "1");
    all.push(case(&odd_field, Method::GET, "/health", NOTHING, 400, "invalid_header"));
    all
}

fn wrong_bodies(anyone: &Client) -> Vec<Case> {
    let post = |media, body: &[u8], status, code| {
        case(anyone, Method::POST, LOGIN, (media, body), status, code)
    };
    // Depth counts the object around it.
    let nested = |depth: usize| {
        let (open, close) = ("[".repeat(depth - 1), "]".repeat(depth - 1));
        format!(r#"{{"username":{open}{close},"password":"x"}}"#).into_bytes()
    };
    let large = format!(r#"{{"username":"{}"}}"#, "x".repeat(256 * 1024)).into_bytes();
    let mut all = vec![
        post(JSON, b"{\"\xff\":1}", 400, "invalid_json"),
        post(JSON, &nested(65), 400, "invalid_json"),
        post(JSON, &nested(100_000), 400, "invalid_json"),
        post(JSON, &nested(64), 422, "validation_failed"),
        post(JSON, &large, 413, "body_too_large"),
        post(FORM, &large, 413, "body_too_large"),
        post(FORM, b"", 422, "validation_failed"),
        post(FORM, b"username=a&username=b&password=c", 422, "validation_failed"),
    ];
    for body in [
        "",
        "{",
        "{]",
        "nope",
        r#"{"username":"a","password":"b"}x"#,
        "{\"username\":\"\u{1}\"}",
        r#"{"username":"\ud800","password":"x"}"#,
        "\u{feff}{}",
    ] {
        all.push(post(JSON, body.as_bytes(), 400, "invalid_json"));
    }
    for body in [
        "null",
        "[]",
        "1",
        "\"x\"",
        "{}",
        r#"{"username":1,"password":"x"}"#,
        r#"{"username":"a","username":"b","password":"x"}"#,
    ] {
        all.push(post(JSON, body.as_bytes(), 422, "validation_failed"));
    }
    for media in [
        None,
        Some("text/plain"),
        Some("application/xml"),
        Some("multipart/form-data"),
        Some("application/json-patch+json"),
        Some(""),
    ] {
        all.push(post(media, b"{}", 415, "unsupported_media_type"));
    }
    let register = "/api/v1/auth/register";
    let form = (FORM, b"a=b".as_slice());
    all.push(case(anyone, Method::POST, register, form, 415, "unsupported_media_type"));
    all
}

fn wrong_queries(user: &Client) -> Vec<Case> {
    [
        "/api/v1/keys?limit=0",
        "/api/v1/keys?limit=201",
        "/api/v1/keys?limit=x",
        "/api/v1/keys?limit=-1",
        "/api/v1/keys?cursor=x",
        "/api/v1/keys?is_active=maybe",
        "/api/v1/keys?user_id=x",
        "/api/v1/keys?limit=1&limit=2",
        "/api/v1/tokens/my-tokens?limit=0",
        "/api/v1/tokens/my-tokens?cursor=x",
        "/api/v1/tokens/my-tokens?active_only=maybe",
        "/api/v1/usage?interval=year",
        "/api/v1/usage?from=yesterday",
        "/api/v1/usage?from=2026-02-01T00:00:00Z&to=2026-01-01T00:00:00Z",
    ]
    .into_iter()
    .map(|path| case(user, Method::GET, path, NOTHING, 422, "validation_failed"))
    .collect()
}

async fn wrong_credentials(app: &TestApp, anyone: &Client, user: &Client) -> Vec<Case> {
    let (_, key) = app.key(user, json!({ "name": "k", "rate_limit_per_minute": 1 })).await;
    let (_, elsewhere) = app.key(user, json!({ "name": "k", "allowed_ips": ["192.0.2.1"] })).await;
    let (keys, proxied) = ("/api/v1/keys", "/api/v1/proxy/x");
    let in_url = "/api/v1/keys?key=tg_0123456789012345678901234567890123456789012345678";
    key.get(proxied).await.expect(200);
    let (bad, twice) = (anyone.with_bearer("x"), user.with_bearer("x"));
    [
        (anyone, keys, 401, "unauthenticated"),
        (anyone, proxied, 401, "unauthenticated"),
        (&bad, keys, 401, "invalid_credential"),
        (&bad, proxied, 401, "invalid_credential"),
        (&twice, keys, 400, "duplicate_credential"),
        (&twice, proxied, 400, "duplicate_credential"),
        (anyone, in_url, 400, "credential_in_url"),
        (&key, keys, 403, "login_required"),
        (&elsewhere, proxied, 403, "address_not_allowed"),
        (user, "/api/v1/usage/all", 403, "role_required"),
        (&key, proxied, 429, "rate_limited"),
    ]
    .map(|(client, path, status, code)| case(client, Method::GET, path, NOTHING, status, code))
    .into()
}

#[tokio::test]
async fn every_error_is_a_whole_problem_without_anything_of_ours() {
    let app = TestApp::unlimited().await;
    let (anyone, user) = (app.anonymous(), app.user(&unique("ada")).await);
    let mut cases = wrong_routes(&anyone, &user);
    cases.extend(wrong_bodies(&anyone));
    cases.extend(wrong_queries(&user));
    cases.extend(wrong_credentials(&app, &anyone, &user).await);
    for Case { client, method, path, media, body, expected } in cases {
        let named = format!("{method} {path} {media:?} {:.80}", String::from_utf8_lossy(&body));
        let answer = client.send(method, path, media, Bytes::from(body)).await;
        assert_eq!(answer.status.as_u16(), expected.0, "{named}: {answer:?}");
        assert_eq!(answer.text("code"), expected.1, "{named}: {answer:?}");
        check(&answer, path);
        if expected.0 == 405 {
            assert!(answer.header("allow").contains(['G', 'P']), "{named}: {answer:?}");
        }
        if expected.0 == 429 {
            assert!(answer.header("retry-after").parse::<u64>().unwrap() > 0);
        }
    }
}

/// Also over HTTP/2, where nothing takes a body away that a server sends.
#[tokio::test]
async fn an_error_to_head_has_the_fields_and_no_body() {
    let app = TestApp::unlimited().await;
    let user = app.user("ada").await;
    for (client, path, status) in [
        (app.anonymous(), "/nothing", 404),
        (app.anonymous(), "/api/v1/users/me", 401),
        (app.anonymous(), LOGIN, 405),
        (app.anonymous(), "/api/v1/proxy/x", 401),
        (user.clone(), "/api/v1/keys/x", 404),
        (user.clone(), "/api/v1/users/me", 200),
        (user, "/api/v1/proxy/x", 200),
    ] {
        let answer = client.send(Method::HEAD, path, None, Bytes::new()).await;
        assert_eq!(answer.status, status, "{path}");
        assert!(answer.body.is_empty(), "{path}");
        assert!(answer.headers.contains_key("x-request-id"), "{path}");
        if status >= 400 {
            assert_eq!(answer.header("content-type"), "application/problem+json");
        }
    }
    let pool: Pool<HttpConnector, Full<Bytes>> =
        Pool::builder(TokioExecutor::new()).http2_only(true).build_http();
    for (path, status) in [("/nothing", 404), ("/api/v1/users/me", 401), (LOGIN, 405)] {
        let request = Request::head(format!("{}{path}", app.base)).body(Full::default()).unwrap();
        let response = pool.request(request).await.unwrap();
        assert_eq!(response.status(), status, "{path}");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(body.is_empty(), "{path}: {body:?}");
    }
}

#[tokio::test]
async fn a_fit_request_id_is_taken_over_and_an_unfit_one_is_not() {
    let app = TestApp::unlimited().await;
    let longest = "x".repeat(128);
    for (id, fit) in [
        ("abc-123", true),
        ("~!@#$%^&*()\"<>\\", true),
        (&longest, true),
        (&"x".repeat(129), false),
        ("", false),
        ("two words", false),
        ("tab\there", false),
        ("\u{e4}", false),
    ] {
        for path in ["/nothing", "/health", "/api/v1/users/me", "/api/v1/proxy/x"] {
            let answer = app.anonymous().with("x-request-id", id).get(path).await;
            let taken = answer.header("x-request-id").to_owned();
            assert_eq!(taken == id, fit, "{id:?} at {path}");
            if !fit {
                let id: uuid::Uuid = taken.parse().unwrap();
                assert_eq!(id.get_version_num(), 7);
            }
            if let Some(named) = answer.json.get("request_id") {
                assert_eq!(*named, taken, "{path}");
            }
        }
    }
    let user = app.user("ada").await;
    let echo = user.with("x-request-id", "mine").get("/api/v1/proxy/x").await.expect(200);
    assert_eq!(echo.json["headers"]["x-request-id"], "mine");
    assert_eq!(echo.header("x-request-id"), "mine");
}

/// A value that could not be taken is not shown to whoever reads the answer.
#[tokio::test]
async fn no_answer_repeats_a_password() {
    let app = TestApp::unlimited().await;
    let user = app.user("ada").await;
    for (method, path, field) in [
        (Method::POST, "/api/v1/auth/register", "password"),
        (Method::POST, LOGIN, "password"),
        (Method::POST, "/api/v1/auth/password", "current_password"),
        (Method::POST, "/api/v1/auth/password", "new_password"),
        (Method::POST, "/api/v1/auth/refresh", "refresh_token"),
        (Method::POST, "/api/v1/keys/verify", "key"),
        (Method::DELETE, "/api/v1/users/me", "password"),
    ] {
        let values = [
            json!(31_337_424),
            json!(true),
            json!(["hunter2hunter2"]),
            json!({ "hunter2hunter2": 1 }),
            json!("hunter2hunter2".repeat(200)),
            Value::Null,
        ];
        for value in values {
            let answer = user.json(method.clone(), path, &json!({ field: value })).await;
            let text = String::from_utf8_lossy(&answer.body);
            assert!(!answer.status.is_server_error(), "{text}");
            assert!(!text.contains("31337424") && !text.contains("hunter2"), "{path}: {text}");
        }
    }
}

/// Postgres has no NUL in texts; SQLite does.
#[tokio::test]
async fn a_nul_in_any_text_is_no_fault_of_ours() {
    let app = TestApp::unlimited().await;
    let admin = app.admin().await;
    let (id, _) = app.key(&admin, json!({ "name": "k" })).await;
    let key = format!("/api/v1/keys/{id}");
    let key = key.as_str();
    for (method, path, body, expected) in [
        (Method::POST, LOGIN, json!({ "username": NUL, "password": PASSWORD }), 422),
        (Method::POST, LOGIN, json!({ "username": "admin", "password": NUL }), 401),
        (Method::POST, "/api/v1/auth/refresh", json!({ "refresh_token": NUL }), 401),
        (Method::POST, "/api/v1/keys/verify", json!({ "key": NUL, "scope": NUL }), 200),
        (Method::PATCH, "/api/v1/users/me", json!({ "full_name": NUL }), 422),
        (Method::PATCH, "/api/v1/users/me", json!({ "email": "a\u{0}b@example.com" }), 422),
        (Method::PATCH, key, json!({ "name": NUL }), 422),
        (Method::PATCH, key, json!({ "scopes": [NUL] }), 422),
        (Method::PATCH, key, json!({ "upstreams": [NUL] }), 422),
        (Method::PATCH, key, json!({ "allowed_origins": [NUL] }), 422),
        (Method::PATCH, key, json!({ "metadata": { NUL: NUL } }), 422),
        (Method::GET, "/api/v1/keys?q=a%00b", Value::Null, 422),
        (Method::GET, "/api/v1/admin/users?q=a%00b", Value::Null, 422),
        (Method::GET, "/api/v1/keys?cursor=a%00b", Value::Null, 422),
        (Method::GET, "/api/v1/usage/all?sort=a%00b", Value::Null, 422),
        (
            Method::POST,
            "/api/v1/tokens/purchase",
            json!({ "duration_hours": 1, "upstream": NUL }),
            422,
        ),
        (Method::GET, "/api/v1/admin/tokens?status=a%00b", Value::Null, 422),
    ] {
        let answer = admin.json(method, path, &body).await;
        assert_eq!(answer.status, expected, "{path} {body}: {answer:?}");
    }
}
