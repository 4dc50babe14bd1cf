//! What opens a socket: tickets, tokens in a query, a browser's cookie. And what
//! an upstream is told about who asks.

use std::net::SocketAddr;

use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};

use super::{Answers, METRICS, Planted};
use crate::{
    process::{PATIENCE, Process},
    support::{
        Client,
        raw::headers,
        websocket::{Asked, Upstream, Wire, ask},
    },
};

const SOCKET: &str = "/api/v1/proxy/canary-socket";
const TICKET: &str = "/api/v1/auth/ticket";
const VERIFY: &str = "/api/v1/auth/verify";
/// Whom a cookie counts from.
const OWN: &str = "Origin: http://a\r\n";

/// Sockets are opened with all of them, and refused with all of them.
pub async fn sockets(
    process: &Process,
    (person, admin): (&Client, &Client),
    planted: &mut Planted,
    answers: &mut Answers,
) {
    let mut tickets = vec![];
    for path in [SOCKET, SOCKET, SOCKET, "/api/v1/proxy/elsewhere"] {
        let issued = person.post(TICKET, json!({ "path": path })).await.expect(201);
        planted.add("ticket", issued.text("ticket"));
        tickets.push(issued.text("ticket").to_owned());
    }
    let [good, escaped, left, elsewhere] = &tickets[..] else { panic!("{tickets:?}") };
    let day = json!({ "duration_hours": 24 });
    let bought = person.post("/api/v1/tokens/purchase", day).await.expect(201);
    planted.add("access token", bought.text("token"));
    let pass = bought.text("token");
    let cookie = planted.all("login cookie")[0].to_owned();
    let sent = format!("Cookie: a=1; tollgate_sid={cookie}\r\n");

    let mut open = vec![];
    for (query, fields) in [
        (format!("?ticket={good}"), String::new()),
        (format!("?a=1&ticket=%74{}&b=2", &escaped[1..]), String::new()),
        (format!("?token={pass}"), String::new()),
        (String::new(), format!("{OWN}{sent}")),
    ] {
        let asked = socket(process, &query, &fields).await;
        if asked.status == 101 {
            answers.keep_text(&asked.head);
            open.push(asked.wire);
        } else {
            // Where nothing is behind the gateway.
            assert!([502, 503].contains(&asked.status), "{query}: {}", asked.head);
            refused(asked, answers).await;
        }
    }
    for wire in &mut open {
        wire.echoes("hello").await;
    }
    if !open.is_empty() {
        shown(process, admin, open.len(), answers).await;
    }

    let foreign = "Origin: https://evil.example\r\n";
    for (query, fields) in [
        (format!("?ticket={good}"), String::new()),
        (format!("?ticket={elsewhere}"), String::new()),
        (format!("?ticket={left}x"), String::new()),
        (format!("?other={left}"), String::new()),
        (format!("?other={pass}"), String::new()),
        (format!("?token={pass}"), format!("X-Access-Token: {pass}\r\n")),
        (format!("?token={pass}&other={pass}"), String::new()),
        (format!("?token={cookie}"), String::new()),
        (format!("/{left}"), String::new()),
        (String::new(), format!("X-Access-Token: {left}\r\n")),
        (String::new(), format!("Authorization: Bearer {left}\r\n")),
        (String::new(), format!("Authorization: Bearer {cookie}\r\n")),
        (String::new(), format!("{OWN}Cookie: tollgate_sid={left}\r\n")),
        (String::new(), format!("{OWN}Cookie: tollgate_sid={pass}\r\n")),
        (String::new(), format!("{OWN}Cookie: tollgate_sid={cookie}x\r\n")),
        (String::new(), format!("{OWN}Cookie: __Host-tollgate-sid={cookie}\r\n")),
        (String::new(), format!("{OWN}{sent}{sent}")),
        (String::new(), format!("{foreign}{sent}")),
        (String::new(), sent.clone()),
    ] {
        let asked = socket(process, &query, &fields).await;
        assert!((400..500).contains(&asked.status), "{query} {fields}: {}", asked.head);
        refused(asked, answers).await;
    }
    elsewhere_than_with_sockets(process, (person, left, pass), answers).await;
    let count = open.len();
    drop(open);
    recorded(process, admin, count, answers).await;
    let mine = person.get("/api/v1/usage/requests?limit=200").await.expect(200);
    answers.keep(&mine);
}

/// In requests that are none for a socket.
async fn elsewhere_than_with_sockets(
    process: &Process,
    (person, ticket, pass): (&Client, &str, &str),
    answers: &mut Answers,
) {
    let nobody = process.client();
    for path in [
        format!("{SOCKET}?ticket={ticket}"),
        format!("{SOCKET}?token={pass}"),
        format!("/api/v1/proxy/{ticket}/x"),
        format!("/health?ticket={ticket}"),
        format!("/login?ticket={ticket}"),
    ] {
        answers.keep(&nobody.get(&path).await.expect_problem(400, "credential_in_url"));
    }
    for path in [format!("{SOCKET}?ticket={ticket}"), format!("/x/{ticket}"), format!("/{pass}")] {
        answers.keep(&person.post(TICKET, json!({ "path": path })).await.expect(422));
    }
    let broken = format!("{{\"path\": \"/x\", \"ticket\": \"{ticket}\"").into();
    answers.keep(&person.send(Method::POST, TICKET, Some("application/json"), broken).await);
    answers.keep(&person.post(TICKET, json!({ "path": "/x", "ticket": ticket })).await);
    // What another proxy asks about.
    for (path, status) in [
        (format!("{SOCKET}?ticket={ticket}"), 400),
        (format!("{SOCKET}?token={pass}"), 400),
        (format!("/x/{ticket}"), 400),
        (SOCKET.to_owned(), 401),
    ] {
        let asking = nobody.with("x-original-uri", &path).with("x-original-method", "GET");
        answers.keep(&asking.get(VERIFY).await.expect(status));
    }
    let socket = nobody.with("upgrade", "websocket").with("x-original-method", "GET");
    let wrong = format!("/x?ticket={ticket}");
    answers.keep(&socket.with("x-original-uri", &wrong).get(VERIFY).await.expect(401));
}

/// The same while nothing answers.
pub async fn sockets_fail(process: &Process, planted: &Planted, answers: &mut Answers) {
    // One that nobody has used.
    let (ticket, pass) = (planted.all("ticket")[2], planted.all("access token")[0]);
    let cookie = planted.all("login cookie")[0];
    let asking = [
        (format!("?ticket={ticket}"), String::new()),
        (format!("?token={pass}"), String::new()),
        (String::new(), format!("{OWN}Cookie: tollgate_sid={cookie}\r\n")),
    ];
    let asking = asking.iter().map(async |(query, fields)| socket(process, query, fields).await);
    for asked in join_all(asking).await {
        assert!(asked.status >= 500, "{}", asked.head);
        refused(asked, answers).await;
    }
}

async fn socket(process: &Process, rest: &str, fields: &str) -> Asked {
    let address: SocketAddr = process.base.trim_start_matches("http://").parse().unwrap();
    Wire::ask(address, ask(&format!("{SOCKET}{rest}"), fields)).await
}

async fn refused(asked: Asked, answers: &mut Answers) {
    answers.keep_text(&asked.head);
    answers.keep_text(&asked.body().await);
}

/// Where an operator looks while they are open.
async fn shown(process: &Process, admin: &Client, count: usize, answers: &mut Answers) {
    let listed = async || {
        let list = admin.get("/api/v1/admin/connections").await.expect(200);
        let paths: Vec<_> = list.json["items"].as_array().unwrap().iter().collect();
        paths.iter().filter(|item| item["path"] == SOCKET).count() == count
    };
    process.until("listed", PATIENCE, listed).await;
    for path in ["/api/v1/admin/connections", "/api/v1/admin/upstreams"] {
        answers.keep(&admin.get(path).await.expect(200));
    }
    answers.keep(&process.client().with_bearer(METRICS).get("/metrics").await.expect(200));
}

/// The log of all requests, once all sockets are in it.
async fn recorded(process: &Process, admin: &Client, count: usize, answers: &mut Answers) {
    const LOG: &str = "/api/v1/usage/requests?all=true&limit=200";
    let ended = async || {
        let log = admin.get(LOG).await.expect(200);
        let items = log.json["items"].as_array().unwrap().clone();
        let is_open = |item: &&Value| item["path"] == SOCKET && item["status"] == 101;
        items.iter().filter(is_open).count() >= count
    };
    process.until("recorded", PATIENCE, ended).await;
    answers.keep(&admin.get(LOG).await.expect(200));
}

/// What reached the upstream: nothing that opens our doors. The assertions
/// among it are planted.
pub fn upstream(upstream: &Upstream, planted: &mut Planted) -> Vec<String> {
    let heads = upstream.heads();
    assert!(heads.iter().any(|head| head.contains("canary-socket")), "{heads:?}");
    let ours = ["key", "login token", "refresh token", "access token", "ticket", "login cookie"];
    let ours = planted.0.iter().filter(|(name, _)| ours.contains(name)).cloned().collect();
    let found = Planted(ours).found_in("the upstream", heads.concat().as_bytes());
    for head in &heads {
        for assertion in headers(head, "x-tollgate-assertion") {
            planted.add("assertion", assertion);
        }
    }
    found
}
