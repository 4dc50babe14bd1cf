//! Who may do what, and what the proxy is told about him.

use http::Method;
use serde_json::json;

use super::{Ada, VERIFY, ask, ask_with, guard};
use crate::{
    browser::{NAVIGATION, signed_in},
    support::{Answer, unique},
};

const FIELDS: [&str; 6] =
    ["x-user-id", "x-username", "x-roles", "x-key-id", "x-token-id", "x-tollgate-assertion"];

fn told(answer: &Answer) -> Vec<&'static str> {
    FIELDS.into_iter().filter(|name| answer.headers.contains_key(*name)).collect()
}

#[tokio::test]
async fn every_credential_meets_the_policy_of_the_original_path() {
    let app = guard().await;
    let ada = Ada::new(&app).await;
    let fields = json!({ "name": "s", "scopes": ["chat:write"], "upstreams": ["app"] });
    let (_, scoped) = app.key(&ada.login, fields).await;
    let (_, reader) = app.key(&ada.login, json!({ "name": "r", "scopes": ["chat:read"] })).await;
    let (_, elsewhere) = app.key(&ada.login, json!({ "name": "e", "upstreams": ["open"] })).await;
    let (_, placed) =
        app.key(&ada.login, json!({ "name": "p", "allowed_ips": ["192.0.2.1"] })).await;
    let bound = json!({ "duration_hours": 24, "upstream": "open" });
    let bound = ada.login.post("/api/v1/tokens/purchase", bound).await.expect(201);
    let bound = app.anonymous().with("x-access-token", bound.text("token"));
    let nobody = app.anonymous();
    let bad = app.anonymous().with_key("tg_nothing");
    let (admin, both) = (app.admin().await, ada.key.with_key("again"));
    for (who, client, method, path, expected) in [
        ("nobody", &nobody, "GET", "/x", "unauthenticated"),
        ("nobody", &nobody, "GET", "/static", ""),
        ("nobody", &nobody, "DELETE", "/static/a/b", ""),
        ("nobody", &nobody, "GET", "/staticx", "unauthenticated"),
        ("nobody", &nobody, "GET", "/Static/a", "unauthenticated"),
        ("nobody", &nobody, "GET", "/open/a", ""),
        ("bad", &bad, "GET", "/open/a", "invalid_credential"),
        ("bad", &bad, "GET", "/static/a", ""),
        ("bad", &bad, "GET", "/x", "invalid_credential"),
        ("both", &both, "GET", "/x", "duplicate_credential"),
        ("login", &ada.login, "GET", "/x", ""),
        ("key", &ada.key, "POST", "/x", ""),
        ("pass", &ada.pass, "GET", "/x", ""),
        ("key", &ada.key, "GET", "/read/x", ""),
        ("key", &ada.key, "POST", "/read/x", "method_not_allowed"),
        ("key", &ada.key, "get", "/read/x", "method_not_allowed"),
        ("key", &ada.key, "CONNECT", "/x", "method_not_allowed"),
        ("key", &ada.key, "TRACE", "/x", "method_not_allowed"),
        ("login", &ada.login, "GET", "/keys/x", "credential_not_accepted"),
        ("pass", &ada.pass, "GET", "/keys/x", "credential_not_accepted"),
        ("key", &ada.key, "GET", "/keys/x", ""),
        ("reader", &reader, "GET", "/scoped/x", "scope_missing"),
        ("scoped", &scoped, "GET", "/scoped/x", ""),
        ("login", &ada.login, "GET", "/admins/x", "role_required"),
        ("admin", &admin, "GET", "/admins/x", ""),
        ("elsewhere", &elsewhere, "GET", "/x", "upstream_not_allowed"),
        ("bound", &bound, "GET", "/x", "upstream_not_allowed"),
        ("placed", &placed, "GET", "/x", "address_not_allowed"),
    ] {
        let at = format!("{who} {method} {path}");
        // What the client says itself never comes back.
        let client = FIELDS.iter().fold(client.clone(), |client, name| client.with(name, "forged"));
        let answer = ask(&client, method, path).await;
        let forbidden = ask_with(&client, "?status=403", method, path).await;
        for name in FIELDS {
            let value = answer.headers.get(name).map(|value| value.to_str().unwrap());
            assert!(value.is_none_or(|value| value != "forged"), "{at}: {name}");
        }
        if expected.is_empty() {
            assert_eq!((answer.status.as_u16(), forbidden.status.as_u16()), (200, 200), "{at}");
            continue;
        }
        assert_eq!(answer.json["code"], expected, "{at}");
        assert!(told(&answer).is_empty(), "{at}");
        let (status, nginx) = match expected {
            "unauthenticated" | "invalid_credential" => (401, 401),
            "duplicate_credential" => (400, 403),
            _ => (403, 403),
        };
        let answer = answer.expect_problem(status, expected);
        assert_eq!(answer.headers.contains_key("www-authenticate"), status == 401, "{at}");
        let forbidden = forbidden.expect_problem(nginx, expected);
        if expected == "method_not_allowed" {
            assert_eq!(forbidden.header("x-tollgate-status"), "405");
        }
    }
}

#[tokio::test]
async fn the_proxy_is_told_who_it_is_and_nothing_else() {
    let app = guard().await;
    let ada = Ada::new(&app).await;
    let account = ["x-user-id", "x-username", "x-roles"];
    for (client, own) in
        [(&ada.login, None), (&ada.key, Some("x-key-id")), (&ada.pass, Some("x-token-id"))]
    {
        let answer = ask(client, "GET", "/x").await.expect(200);
        let expected: Vec<_> =
            account.into_iter().chain(own).chain(["x-tollgate-assertion"]).collect();
        assert_eq!(told(&answer), expected);
        assert_eq!(answer.header("x-user-id"), ada.id);
        assert_eq!(answer.header("x-roles"), "user");
        match own {
            Some("x-key-id") => assert_eq!(answer.header("x-key-id"), ada.key_id),
            Some(_) => assert_eq!(answer.header("x-token-id"), ada.pass_id),
            None => {}
        }
        assert!(!answer.headers.contains_key("x-envoy-auth-headers-to-remove"));
        // What Envoy is to take from the client's request is the rest.
        let envoy = client.get("/api/v1/auth/verify/x").await.expect(200);
        let removed: Vec<_> = envoy.header("x-envoy-auth-headers-to-remove").split(',').collect();
        assert!(FIELDS.iter().all(|name| removed.contains(name) != expected.contains(name)));
    }
    let envoy = app.anonymous().get("/api/v1/auth/verify/static/x").await.expect(200);
    assert_eq!(envoy.header("x-envoy-auth-headers-to-remove"), FIELDS.join(","));
    assert!(told(&envoy).is_empty());
}

#[tokio::test]
async fn a_browsers_cookie_counts_for_pages_of_its_own_origin() {
    let app = guard().await;
    let browser = signed_in(&app, &unique("ada")).await;
    let host = browser.origin.clone();
    let foreign = ("origin", "https://evil.example");
    let socket = ("upgrade", "websocket");
    for (method, fields, status) in [
        ("GET", &[][..], 200),
        ("GET", &[foreign, ("sec-fetch-site", "cross-site")], 200),
        ("POST", &[], 403),
        ("POST", &[foreign], 403),
        ("POST", &[("sec-fetch-site", "same-site")], 403),
        ("POST", &[("sec-fetch-site", "same-origin")], 200),
        ("DELETE", &[("origin", &*host)], 200),
        ("GET", &[socket], 403),
        ("GET", &[socket, foreign], 403),
        ("GET", &[socket, ("origin", &*host)], 200),
        ("GET", &[socket, ("origin", "https://friend.example")], 200),
        // A proxy that takes the field off must not make a page of it.
        ("GET", &[("sec-websocket-key", "x"), foreign], 403),
        ("GET", &[("sec-websocket-version", "13")], 403),
        ("GET", &[("sec-fetch-mode", "websocket"), foreign], 403),
        ("GET", &[("upgrade", "h2c, websocket"), foreign], 403),
        ("GET", &[("upgrade", "h2c"), socket, foreign], 403),
        ("GET", &[("sec-websocket-key", "x"), ("origin", &*host)], 200),
    ] {
        let named = [("x-original-method", method), ("x-original-uri", "/x")];
        let fields: Vec<_> = named.into_iter().chain(fields.iter().copied()).collect();
        let answer = browser.send(Method::GET, VERIFY, &fields, None).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {fields:?}: {answer:?}");
        if status == 403 {
            answer.expect_problem(403, "cross_site");
        }
    }
}

/// The host is the trusted proxy's word, since neither a public URL nor a list
/// of hosts is set. What a client could make up is tried in `gateway::hosts`.
#[tokio::test]
async fn a_person_is_sent_to_the_login_page_of_the_host_he_asked() {
    let app = guard().await;
    let person =
        NAVIGATION.iter().fold(app.anonymous(), |client, (name, value)| client.with(name, value));
    let shop = person.with("x-forwarded-host", "shop.example").with("x-forwarded-proto", "https");
    let page = "https://shop.example/.tollgate/login?next=%2Fa%3Fb%3Dc%26d";
    let answer = ask_with(&shop, "?redirect=1", "GET", "/a?b=c&d").await.expect(303);
    assert_eq!(answer.header("location"), page);
    // Also where refusals are turned into 403.
    let answer = ask_with(&shop, "?status=403&redirect=1", "GET", "/a?b=c&d").await.expect(303);
    assert_eq!(answer.header("location"), page);
    let here = ask_with(&person, "?redirect=1", "HEAD", "/").await.expect(303);
    let own = format!("{}/.tollgate/login?next=%2F", app.base);
    assert_eq!(here.header("location"), own);
    for (client, options, method) in [
        (&shop, "", "GET"),
        (&shop, "?redirect=1", "POST"),
        (&app.anonymous(), "?redirect=1", "GET"),
        (&shop.with_key("tg_nothing"), "?redirect=1", "GET"),
    ] {
        let answer = ask_with(client, options, method, "/a").await.expect(401);
        assert!(answer.headers.contains_key("www-authenticate"), "{options} {method}");
    }
}

#[tokio::test]
async fn a_websockets_query_may_hold_its_credential() {
    let app = guard().await;
    let ada = Ada::new(&app).await;
    let ticket = |path: &'static str| {
        let login = ada.login.clone();
        async move {
            let body = json!({ "path": path });
            login.post("/api/v1/auth/ticket", body).await.expect(201).text("ticket").to_owned()
        }
    };
    let (good, other) = (ticket("/ws").await, ticket("/elsewhere").await);
    let socket = app.anonymous().with("upgrade", "websocket");
    let by_pass = format!("/ws?a=1&token={}", ada.pass_text);
    let answer = ask(&socket, "GET", &by_pass).await.expect(200);
    assert_eq!(answer.header("x-token-id"), ada.pass_id);
    ask(&socket, "POST", &by_pass).await.expect_problem(400, "credential_in_url");
    ask(&app.anonymous(), "GET", &by_pass).await.expect_problem(400, "credential_in_url");
    let by_ticket = format!("/ws?ticket={good}");
    let answer = ask(&socket, "GET", &by_ticket).await.expect(200);
    assert_eq!(answer.header("x-user-id"), ada.id);
    // Once, and there alone.
    ask(&socket, "GET", &by_ticket).await.expect_problem(401, "invalid_credential");
    let by_other = format!("/ws?ticket={other}");
    ask(&socket, "GET", &by_other).await.expect_problem(401, "invalid_credential");
    let log = ada.log(&app).await;
    assert!(!serde_json::to_string(&log).unwrap().contains("tga_"));
}
