//! Which paths of an upstream ask for what (G-115, G-116).

use serde_json::json;

use super::{address, start};
use crate::support::{
    TestApp,
    raw::{Answer, Raw},
    recorder::{Recorder, ok},
};

/// Everything needs a credential but three paths.
fn guarded(url: &str) -> String {
    format!(
        "[auth]\npublic_paths='/also/open'\n\
         [[upstreams]]\nname='app'\nmount='/'\nurl='{url}'\n\
         paths=[{{ path='/open', auth='public' }}, {{ path='/static/*', auth='public' }}]"
    )
}

async fn send(app: &TestApp, request: &str) -> Answer {
    Raw::exchange(address(app), request).await
}

#[tokio::test]
async fn only_the_very_path_is_public() {
    let recorder = Recorder::start(ok).await;
    let app = start(&guarded(&recorder.url())).await;
    for path in [
        "/open",
        "/open?x=1",
        "/open?",
        "/open?/../secret",
        "/%6fpen",
        "/%6F%70%65%6E",
        "/static",
        "/static/",
        "/static/a/b.css",
        "/st%61tic/a",
        "/static/..a",
        "/also/open",
        "/also/op%65n?next=/secret",
    ] {
        let answer = send(&app, &format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(recorder.take().len(), 1, "{path}");
    }
    let closed = [
        "/",
        "/open/",
        "/open/x",
        "/openx",
        "/Open",
        "/OPEN",
        "/open.",
        "/open%20",
        "/open%09",
        "/open;x",
        "/open;/../secret",
        "/open/../secret",
        "/open/..",
        "/open/./",
        "//open",
        "/open//",
        "/./open",
        "/%2e/open",
        "/open%2f",
        "/open%2F..%2fsecret",
        "/open%5c",
        "/open\\",
        "/open%00",
        "/open%3f",
        "/open%23",
        "/open%3Bx",
        "/open%252e",
        "/open%",
        "/open%2",
        "/open%c0%af",
        "/open%ff",
        "/static/../secret",
        "/static/..",
        "/static/%2e%2e/secret",
        "/static/.%2e/secret",
        "/static%2f..%2fsecret",
        "/static/..%2fsecret",
        "/static/..;/secret",
        "/static/;/../secret",
        "/static//secret",
        "/static/%2e%2e%2fsecret",
        "/staticx",
        "/Static/a",
        "/static%2fa",
        "/static%5ca",
        "/static\\a",
        "/statics/a",
        "/a/static/x",
        "/secret",
        "/secret?/open",
        "/secret?/static/x",
        "/secret?path=/open",
        "/secret?x=/static/*",
        "/secret?open",
        "/secret/open",
        "/secret/static/a",
        "/secret;/open",
        "/secret?/../open",
        "/secret%3f/open",
        "/also",
        "/also/",
        "/also/open/",
        "/also/open/x",
        "/also//open",
        "/also/OPEN",
        "/also/open%00",
        "/x/also/open",
        "/*",
        "/static*",
    ];
    for path in closed {
        let answer = send(&app, &format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert!([400, 401].contains(&answer.status), "{path}: {}", answer.status);
        assert!(recorder.take().is_empty(), "{path} reached the upstream");
    }
    assert!(closed.len() >= 60);
    // In absolute form the path is the same one.
    for (uri, status) in [("http://a/open", 200), ("http://a/secret", 401), ("http://open/x", 401)]
    {
        let host = uri.split('/').nth(2).unwrap();
        let answer = send(&app, &format!("GET {uri} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(answer.status, status, "{uri}");
    }
}

/// GHSA-7x63, GHSA-5hvv, and what other proxies believe.
#[tokio::test]
async fn no_field_of_a_request_makes_a_path_public() {
    let recorder = Recorder::start(ok).await;
    let app = start(&guarded(&recorder.url())).await;
    for field in [
        "X-Forwarded-Uri: /open",
        "X-Original-URI: /open",
        "X-Original-URL: /open",
        "X-Rewrite-URL: /open",
        "X-Envoy-Original-Path: /open",
        "X-Forwarded-Path: /open",
        "X-Forwarded-Prefix: /open",
        "X-Forwarded-Method: OPTIONS",
        "X-HTTP-Method-Override: OPTIONS",
        "X-Auth-Request-Redirect: /open",
        "X-Accel-Redirect: /open",
        "Forwarded: path=/open",
        "User-Agent: kube-probe/1.0",
        "User-Agent: GoogleHC/1.0",
        "User-Agent: ELB-HealthChecker/2.0",
        "Referer: http://a/open",
        "X-Forwarded-For: 127.0.0.1",
        "X-Real-IP: 127.0.0.1",
        "X-User-Id: 1",
        "X-Tollgate-Public: true",
    ] {
        for method in ["GET", "HEAD", "POST", "OPTIONS", "PROPFIND"] {
            let request = format!(
                "{method} /secret HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\
                 {field}\r\n\r\n"
            );
            let mut client = Raw::connect(address(&app)).await;
            client.send(request).await;
            client.until(b"\r\n\r\n").await;
            client.rest().await;
            assert!(recorder.take().is_empty(), "{method} with {field}");
        }
    }
    // And what a public path is told in such fields changes nothing either.
    let answer = send(
        &app,
        "GET /open HTTP/1.1\r\nHost: a\r\nX-Original-URL: /secret\r\nX-Forwarded-Uri: /x\r\n\r\n",
    )
    .await;
    assert_eq!(answer.status, 200);
    let seen = recorder.take().remove(0);
    assert_eq!(seen.request_line(), "GET /open HTTP/1.1");
    assert!(seen.all("x-forwarded-uri").is_empty());
}

#[tokio::test]
async fn a_part_asks_for_what_it_says_and_the_rest_for_what_the_whole_says() {
    let recorder = Recorder::start(ok).await;
    let app = start(&format!(
        "[[upstreams]]\nname='app'\nmount='/app'\nurl='{}'\nrewrite=false\n\
         paths=[\n\
           {{ path='/open', auth='public' }},\n\
           {{ path='/maybe', auth='optional' }},\n\
           {{ path='/people/*', credentials=['login'] }},\n\
           {{ path='/machines/*', credentials=['api_key'], scopes=['run'] }},\n\
           {{ path='/ops/*', roles=['admin','moderator'] }},\n\
           {{ path='/read/*', methods=['GET','HEAD'] }},\n\
           {{ path='/read/write', methods=['PUT'] }},\n\
           {{ path='/open/*' }},\n\
         ]",
        recorder.url()
    ))
    .await;
    let (anonymous, ada, admin) = (app.anonymous(), app.user("ada").await, app.admin().await);
    let (_, plain) = app.key(&ada, json!({ "name": "reads", "scopes": ["read"] })).await;
    let (_, runs) = app.key(&ada, json!({ "name": "runs", "scopes": ["run"] })).await;
    let (_, of_admin) = app.key(&admin, json!({ "name": "of admin", "scopes": ["read"] })).await;
    let bad = app.anonymous().with_key("tg_wrong");
    let forbidden = |code| Some((403, code));
    let none = Some((401, "unauthenticated"));
    let wrong = Some((401, "invalid_credential"));
    let kind = forbidden("credential_not_accepted");
    let (scope, role) = (forbidden("scope_missing"), forbidden("role_required"));
    for (path, expected) in [
        // anonymous, a login, a key, a key with the scope, an admin's key, an
        // admin's login, a bad key
        ("/", [none, None, None, None, None, None, wrong]),
        ("/other", [none, None, None, None, None, None, wrong]),
        ("/open", [None; 7]),
        ("/open/x", [none, None, None, None, None, None, wrong]),
        ("/maybe", [None, None, None, None, None, None, wrong]),
        ("/maybe/x", [none, None, None, None, None, None, wrong]),
        ("/people", [none, None, kind, kind, kind, None, wrong]),
        ("/people/1", [none, None, kind, kind, kind, None, wrong]),
        ("/machines/1", [none, kind, scope, None, scope, kind, wrong]),
        ("/ops/x", [none, role, role, role, None, None, wrong]),
        ("/ops", [none, role, role, role, None, None, wrong]),
        ("/opsx", [none, None, None, None, None, None, wrong]),
        ("/read/1", [none, None, None, None, None, None, wrong]),
    ] {
        let clients = [&anonymous, &ada, &plain, &runs, &of_admin, &admin, &bad];
        for (at, (client, expected)) in clients.into_iter().zip(expected).enumerate() {
            let answer = client.get(&format!("/app{path}")).await;
            let seen = recorder.take();
            match expected {
                None => {
                    assert_eq!((answer.status.as_u16(), seen.len()), (200, 1), "{path} by {at}");
                    assert_eq!(seen[0].request_line(), format!("GET {path} HTTP/1.1"));
                    // A public path identifies nobody.
                    let known = path != "/open" && at != 0;
                    assert_eq!(
                        seen[0].all("x-user-id").len(),
                        usize::from(known),
                        "{path} by {at}"
                    );
                }
                Some((status, code)) => {
                    assert!(seen.is_empty(), "{path} by {at}");
                    answer.expect_problem(status, code);
                }
            }
        }
    }
}

#[tokio::test]
async fn a_method_that_is_not_let_through_is_a_405_that_lists_the_others() {
    let recorder = Recorder::start(ok).await;
    let app = start(&super::public(&format!(
        "url='{}'\nmethods=['GET','POST']\npaths=[{{ path='/dav/*', methods=['PROPFIND'] }}]",
        recorder.url()
    )))
    .await;
    for (method, path, allow) in [
        ("GET", "/", None),
        ("POST", "/", None),
        ("PROPFIND", "/dav/x", None),
        ("HEAD", "/", Some("GET, POST")),
        ("DELETE", "/", Some("GET, POST")),
        ("OPTIONS", "/", Some("GET, POST")),
        ("get", "/", Some("GET, POST")),
        ("GETX", "/", Some("GET, POST")),
        ("PROPFIND", "/", Some("GET, POST")),
        ("GET", "/dav/x", Some("PROPFIND")),
        ("POST", "/dav", Some("PROPFIND")),
    ] {
        // One that is let through makes nothing of one that is not.
        let named = if path.starts_with("/dav") { "PROPFIND" } else { "GET" };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\
             X-HTTP-Method-Override: {named}\r\nX-Method-Override: {named}\r\n\r\n"
        );
        let mut client = Raw::connect(address(&app)).await;
        client.send(&request).await;
        if method == "HEAD" {
            client.until(b"allow: GET, POST\r\n").await;
            assert!(recorder.take().is_empty());
            continue;
        }
        let answer = client.answer().await.unwrap();
        let seen = recorder.take().len();
        match allow {
            None => assert_eq!((answer.status, seen), (200, 1), "{method} {path}"),
            Some(allow) => {
                assert_eq!((answer.status, seen), (405, 0), "{method} {path}");
                assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
                assert_eq!(answer.json()["code"], "method_not_allowed");
            }
        }
    }
}

/// G-121: a shared cache must not hand one caller's answer to another, and a
/// file's ending makes nothing public.
#[tokio::test]
async fn answers_to_somebody_are_private() {
    let recorder = Recorder::start(ok).await;
    let app = start(&guarded(&recorder.url())).await;
    let admin = app.admin().await;
    for path in ["/account", "/account/x.css", "/account.js", "/account/;a.png", "/x.ico"] {
        let answer = admin.get(path).await.expect(200);
        assert_eq!(answer.header("cache-control"), "private", "{path}");
        recorder.take();
        let answer = app.anonymous().get(path).await;
        assert_eq!(answer.status, 401, "{path}");
        assert_eq!(answer.header("cache-control"), "no-store", "{path}");
        assert!(recorder.take().is_empty(), "{path}");
    }
    let open = app.anonymous().get("/open").await.expect(200);
    assert!(!open.headers.contains_key("cache-control"));
}

/// Servers that undo more escapes than the canonical form does, or cut parameters
/// off, would reach what another rule guards.
#[tokio::test]
async fn a_path_that_servers_read_differently_is_refused_where_that_matters() {
    let recorder = Recorder::start(ok).await;
    let url = recorder.url();
    let app = start(&format!(
        "[[upstreams]]\nname='app'\nmount='/app'\nurl='{url}'\nauth='public'\n\
         paths=[{{ path='/admin/*', auth='required', roles=['admin'] }}, {{ path='/v1/models:delete', auth='required' }},\n\
         {{ path='/@fs/*', auth='required' }}, {{ path='/read', methods=['GET'] }}]"
    ))
    .await;
    let ask = async |method: &str, path: &str, field: &str| {
        let request = format!("{method} /app{path} HTTP/1.1\r\nHost: a\r\n{field}\r\n");
        send(&app, &request).await.status
    };
    for path in
        ["/admin;a/x", "/admin;a", "/v1/models%3Adelete", "/v1/models%3adelete;v=1", "/%40fs/x"]
    {
        assert_eq!(ask("GET", path, "").await, 400, "{path}");
    }
    assert!(recorder.take().is_empty());
    for path in ["/a%3Ab", "/a;v=1/b", "/%40x/y", "/caf%C3%A9"] {
        assert_eq!(ask("GET", path, "").await, 200, "{path}");
    }
    assert_eq!(recorder.take().len(), 4);
    for (field, status) in [
        ("", 200),
        ("X-HTTP-Method-Override: DELETE\r\n", 405),
        ("X-Method-Override: GET\r\nX-HTTP-Method: put\r\n", 405),
        ("X-HTTP-Method-Override: get\r\n", 200),
    ] {
        assert_eq!(ask("GET", "/read", field).await, status, "{field}");
    }
    let other = "X-Original-URL: /admin/x\r\nX-Rewrite-URL: /admin/x\r\nProxy: http://a\r\n";
    recorder.take();
    assert_eq!(ask("GET", "/other", other).await, 200);
    let seen = recorder.take().remove(0);
    for name in ["x-original-url", "x-rewrite-url", "proxy"] {
        assert!(seen.all(name).is_empty(), "{}", seen.head);
    }
}
