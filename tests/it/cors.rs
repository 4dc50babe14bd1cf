//! Scripts of other origins: an exact allow-list, nothing reflected (G-98).

use bytes::Bytes;
use http::Method;

use crate::support::TestApp;

const ALLOWED: &str = "https://app.example.com,http://localhost:3000";
const PATH: &str = "/api/v1/auth/login";

#[tokio::test]
async fn only_listed_origins_are_granted_and_none_is_reflected() {
    let app = TestApp::configured([("ALLOWED_ORIGINS", ALLOWED)]).await;
    let refused = [
        "https://app.example.com.evil.test",
        "https://evil-app.example.com",
        "https://evil.test/https://app.example.com",
        "https://sub.app.example.com",
        "https://example.com",
        "http://app.example.com",
        "https://app.example.com:444",
        "https://app.example.com:443",
        "https://app.example.com/",
        "https://APP.example.com",
        "https://app.example.com ,https://evil.test",
        "https://app.example.co",
        "https://appXexample.com",
        "http://localhost",
        "http://localhost:30000",
        "http://localhost:300",
        "http://127.0.0.1:3000",
        "null",
        "*",
        "file://",
    ];
    let granted = ["https://app.example.com", "http://localhost:3000"];
    let cases = granted.map(|o| (o, true)).into_iter().chain(refused.map(|o| (o, false)));
    for (origin, is_granted) in cases {
        let client = app.anonymous().with("origin", origin);
        let preflight = client.with("access-control-request-method", "POST");
        for (asker, method) in [(&client, Method::GET), (&preflight, Method::OPTIONS)] {
            let answer = asker.send(method.clone(), PATH, None, Bytes::new()).await;
            let grant = answer.headers.get("access-control-allow-origin");
            let grant = grant.map(|value| value.to_str().unwrap());
            assert_eq!(grant, is_granted.then_some(origin), "{method} from {origin}");
            // Credentials are fields of the request, never cookies.
            assert!(!answer.headers.contains_key("access-control-allow-credentials"));
            let vary: Vec<_> = answer.headers.get_all("vary").iter().collect();
            let varies = vary
                .iter()
                .any(|value| value.to_str().unwrap().to_ascii_lowercase().contains("origin"));
            assert!(varies, "{method} from {origin}: {vary:?}");
        }
    }
}

#[tokio::test]
async fn without_a_list_nobody_is_granted_anything() {
    let app = TestApp::start().await;
    for origin in ["https://app.example.com", "null", "http://127.0.0.1"] {
        let answer = app.anonymous().with("origin", origin).get("/health/live").await.expect(200);
        assert!(!answer.headers.contains_key("access-control-allow-origin"), "{origin}");
    }
}

/// A script must be able to read why it was refused.
#[tokio::test]
async fn refusals_are_readable_for_listed_origins() {
    let app = TestApp::configured([("ALLOWED_ORIGINS", ALLOWED)]).await;
    let client = app.anonymous().with("origin", "https://app.example.com");
    for (path, status) in [("/api/v1/users/me", 401), ("/api/v1/nothing", 404), (PATH, 405)] {
        let answer = client.get(path).await.expect(status);
        assert_eq!(answer.header("access-control-allow-origin"), "https://app.example.com");
        assert!(answer.header("access-control-expose-headers").contains("x-request-id"));
        assert_eq!(answer.json["status"], status);
    }
}
