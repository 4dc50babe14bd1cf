//! A browser's script can set no field, so a socket may have its credential in
//! the query; it goes no further (RELIABILITY G-124, G-143).

use futures_util::future::join_all;
use serde_json::json;
use tollgate::domain::token::PlainToken;

use super::{MANY, PATH, app};
use crate::{
    gateway::{admin_key, recorded},
    streams::{address, listed, own_sockets, put_in_front},
    support::{
        Client, TestApp,
        raw::Raw,
        websocket::{Upstream, Wire, ask},
    },
};

async fn pass(admin: &Client) -> String {
    let day = json!({ "duration_hours": 24 });
    admin.post("/api/v1/tokens/purchase", day).await.expect(201).text("token").to_owned()
}

async fn ticket(client: &Client, path: &str) -> String {
    let asked = client.post("/api/v1/auth/ticket", json!({ "path": path })).await.expect(201);
    asked.text("ticket").to_owned()
}

async fn refusal(app: &TestApp, path: &str, fields: &str) -> (u16, String) {
    Wire::ask(address(app), ask(path, fields)).await.code().await
}

#[tokio::test]
async fn a_pass_opens_a_socket_begins_and_is_seen_nowhere() {
    let upstream = Upstream::start().await;
    let app = app(&upstream, "").await;
    let admin = app.admin().await;
    let token = pass(&admin).await;
    let status = async || {
        let client = app.anonymous().with("x-access-token", &token);
        client.get("/api/v1/tokens/status").await.expect(200).text("status").to_owned()
    };
    assert_eq!(status().await, "unused");
    let mut wire = Wire::open(address(&app), &format!("{PATH}?a=%20&token={token}&b=2"), "").await;
    wire.echoes("hello").await;
    assert_eq!(status().await, "active");
    let head = upstream.heads().remove(0);
    assert!(head.starts_with("GET /ws?a=%20&b=2 HTTP/1.1\r\n"), "{head}");
    assert!(!head.contains(&token[..12]), "{head}");
    let shown = listed(&admin, &own_sockets(&admin).await, 1).await;
    assert_eq!(shown[0]["path"], PATH);
    drop(wire);
    assert_eq!(recorded(&app, 1).await[0]["path"], PATH);
    let log = admin.get("/api/v1/usage/requests?all=true").await.expect(200);
    assert!(!String::from_utf8_lossy(&log.body).contains(&token[..12]));
}

#[tokio::test]
async fn a_ticket_opens_one_socket_of_its_own_path() {
    let upstream = Upstream::start().await;
    let app = app(&upstream, "").await;
    let admin = app.admin().await;
    let invalid = (401, "invalid_credential".to_owned());
    let good = ticket(&admin, PATH).await;
    let path = format!("{PATH}?ticket={good}");
    Wire::open(address(&app), &path, "").await.echoes("hello").await;
    let head = upstream.heads().remove(0);
    assert!(head.starts_with("GET /ws HTTP/1.1\r\n") && !head.contains(&good[..12]), "{head}");
    assert!(head.to_lowercase().contains("x-username: admin\r\n"), "{head}");
    assert_eq!(refusal(&app, &path, "").await, invalid, "used twice");
    let other = ticket(&admin, "/up/other").await;
    assert_eq!(refusal(&app, &format!("{PATH}?ticket={other}"), "").await, invalid);
    assert_eq!(refusal(&app, &format!("/up/other?ticket={other}"), "").await, invalid, "used up");
    assert!(upstream.heads().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_with_one_ticket_one_gets_in() {
    let upstream = Upstream::start().await;
    let app = app(&upstream, "").await;
    let admin = app.admin().await;
    for _ in 0..10 {
        let request = ask(&format!("{PATH}?ticket={}", ticket(&admin, PATH).await), "");
        let asked = join_all((0..8).map(|_| Wire::ask(address(&app), &request))).await;
        let count = |status| asked.iter().filter(|asked| asked.status == status).count();
        assert_eq!((count(101), count(401)), (1, 7));
    }
    assert_eq!(upstream.heads().len(), 10);
}

#[tokio::test]
async fn what_is_no_good_there_is_refused() {
    let upstream = Upstream::start().await;
    let app = app(&upstream, "").await;
    let admin = app.admin().await;
    let (token, key) = (pass(&admin).await, admin_key(&app).await);
    let ticketed = ticket(&admin, PATH).await;
    let login = app.login("admin", crate::support::PASSWORD).await.expect(200);
    let login = login.text("access_token");
    let last = if token.ends_with('x') { 'y' } else { 'x' };
    // Not even of the right form, and merely nobody's.
    let broken = format!("{}{last}", &token[..token.len() - 1]);
    let unknown = PlainToken::pass(&mut rand::rng()).expose().to_owned();
    let in_url = (400, "credential_in_url");
    for (query, fields, expected) in [
        (format!("token={unknown}"), String::new(), (401, "invalid_credential")),
        (format!("token={broken}"), String::new(), in_url),
        (format!("token={token}&token={unknown}"), String::new(), (101, "")),
        (format!("token={unknown}&token={token}"), String::new(), (401, "invalid_credential")),
        (
            format!("token={token}"),
            format!("X-Access-Token: {token}\r\n"),
            (400, "duplicate_credential"),
        ),
        (format!("token={token}"), "X-API-Key: tg_x\r\n".into(), (401, "invalid_credential")),
        (format!("token={token}"), "Cookie: tollgate_sid=bad\r\n".into(), (101, "")),
        (format!("token={key}"), String::new(), in_url),
        (format!("token={login}"), String::new(), in_url),
        (format!("Token={token}"), String::new(), in_url),
        (format!("t={token}"), String::new(), in_url),
        (format!("token={token}&t={token}"), String::new(), in_url),
        (format!("ticket={token}"), String::new(), in_url),
        (format!("token={ticketed}"), String::new(), in_url),
        (format!("t={ticketed}"), String::new(), in_url),
        (format!("ticket={ticketed}x"), String::new(), in_url),
        (format!("ticket={ticketed}"), format!("X-API-Key: {key}\r\n"), (101, "")),
        ("token=theirs".into(), String::new(), (401, "unauthenticated")),
        ("ticket=theirs".into(), format!("X-API-Key: {key}\r\n"), (101, "")),
    ] {
        let asked = Wire::ask(address(&app), ask(&format!("{PATH}?{query}"), &fields)).await;
        let heads = upstream.heads();
        if expected.0 == 101 {
            assert_eq!((asked.status, heads.len()), (101, 1), "{query}");
            let ours = ["tga_", "tgt_"].iter().any(|ours| heads[0].contains(ours));
            assert!(!ours, "{query}: {}", heads[0]);
            continue;
        }
        assert!(heads.is_empty(), "{query}");
        let (status, code) = (asked.status, asked.body().await);
        assert_eq!(status, expected.0, "{query}: {code}");
        let shown = ["tga_", "tgt_"].iter().any(|ours| code.contains(ours));
        assert!(code.contains(expected.1) && !shown, "{query}: {code}");
    }
}

/// Whatever it looks like, what opens no socket has no credential in its URL.
#[tokio::test]
async fn a_request_that_is_none_for_a_socket_may_have_none() {
    let upstream = Upstream::start().await;
    let app = app(&upstream, "auth = 'public'").await;
    let admin = app.admin().await;
    let (token, ticket) = (pass(&admin).await, ticket(&admin, PATH).await);
    let path = format!("{PATH}?token={token}");
    let socket = ask(&path, "");
    let without = |line: &str| socket.replace(line, "");
    let api = format!("/api/v1/users/me?token={token}");
    let plain = [
        format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"),
        socket.replace("GET ", "POST "),
        socket.replace("HTTP/1.1", "HTTP/1.0"),
        socket.replace("Upgrade: websocket", "Upgrade: h2c"),
        socket.replace("Upgrade: websocket", "Upgrade: websockets"),
        socket.replace("Connection: Upgrade", "Connection: close"),
        without("Connection: Upgrade\r\n"),
        ask(&api, ""),
        ask(&format!("/nothing?token={token}"), ""),
        format!("GET {PATH}?ticket={ticket} HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("GET {PATH}?a=%74{} HTTP/1.1\r\nHost: a\r\n\r\n", &ticket[1..]),
        format!("GET {PATH}/{ticket} HTTP/1.1\r\nHost: a\r\n\r\n"),
    ];
    for request in &plain {
        let answer = Raw::exchange(address(&app), request).await;
        assert!(upstream.heads().is_empty(), "{request}");
        assert_eq!(answer.status, 400, "{request}{}", answer.head);
        assert_eq!(answer.json()["code"], "credential_in_url", "{request}");
    }
    // Nor where none are let through.
    put_in_front(&app, &upstream.url(), "websocket = { enabled = false }\nauth = 'public'");
    let answer = Raw::exchange(address(&app), &socket).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert!(upstream.heads().is_empty());
    let echo = TestApp::configured([("UPSTREAM_AUTH", "public")]).await;
    let request = ask(&format!("/api/v1/proxy/ws?token={token}"), "");
    assert_eq!(Raw::exchange(address(&echo), request).await.status, 400);
    // Where nothing is asked for, it is taken out all the same.
    put_in_front(&app, &upstream.url(), &format!("{MANY}\nauth = 'public'"));
    Wire::open(address(&app), &path, "").await.echoes("hello").await;
    assert!(upstream.heads()[0].starts_with("GET /ws HTTP/1.1"));
}
