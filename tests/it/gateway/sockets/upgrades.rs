//! `websocket` is the only protocol that a connection becomes, and only where it
//! may (RELIABILITY G-114).

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{MANY, PATH, app};
use crate::{
    streams::{FREE, address, put_in_front},
    support::{
        TestApp,
        http2::{Http2, over_http2},
        raw::Raw,
        websocket::{Upstream, Wire, ask},
    },
};

const PUBLIC: &str = "auth = 'public'";

#[tokio::test]
async fn another_upgrade_is_the_plain_request_that_it_also_is() {
    let upstream = Upstream::start().await;
    let app = app(&upstream, PUBLIC).await;
    let socket = ask(PATH, "");
    let to = |token: &str| socket.replace("Upgrade: websocket", &format!("Upgrade: {token}"));
    let settings = "Connection: HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n";
    for request in [
        to("h2c"),
        to("h2c").replace("\r\n\r\n", &format!("\r\n{settings}\r\n")),
        to("TLS/1.0"),
        to("websocket/13"),
        to("websockets"),
        to("connect-udp"),
        to(""),
        socket.replace("Connection: Upgrade\r\n", ""),
        socket.replace("Connection: Upgrade", "Connection: upgraded"),
        socket.replace("GET ", "POST "),
        socket.replace("HTTP/1.1", "HTTP/1.0"),
    ] {
        let answer = Raw::exchange(address(&app), &request).await;
        assert_eq!((answer.status, answer.text()), (200, "ok"), "{request}");
        let heads = upstream.heads();
        assert_eq!(heads.len(), 1, "{request}");
        let head = heads[0].to_lowercase();
        for field in ["\r\nupgrade:", "\r\nconnection:", "\r\nhttp2-settings:"] {
            assert!(!head.contains(field), "{field} in {head}");
        }
    }
}

#[tokio::test]
async fn a_socket_may_be_asked_for_in_any_spelling_and_one_protocol_goes_on() {
    let upstream = Upstream::start().await;
    let app = app(&upstream, PUBLIC).await;
    let socket = ask(PATH, "");
    for request in [
        socket.replace("Upgrade: websocket", "uPGRADE: WebSocket"),
        socket.replace("Upgrade: websocket", "Upgrade: h2c, websocket"),
        socket.replace("Connection: Upgrade", "Connection: keep-alive,, UPGRADE"),
        socket.replace("Connection: Upgrade", "Connection:\r\nConnection: close, upgrade"),
    ] {
        let asked = Wire::ask(address(&app), &request).await;
        assert_eq!(asked.status, 101, "{request}");
        let head = upstream.heads().remove(0).to_lowercase();
        assert_eq!(head.matches("upgrade: websocket\r\n").count(), 1, "{head}");
        assert_eq!(head.matches("connection: upgrade\r\n").count(), 1, "{head}");
        assert!(!head.contains("h2c") && !head.contains("keep-alive"), "{head}");
        let mut wire = asked.wire;
        wire.echoes("hello").await;
    }
}

#[tokio::test]
async fn methods_that_open_tunnels_are_refused() {
    let upstream = Upstream::start().await;
    let app = app(&upstream, PUBLIC).await;
    for (line, status) in [
        ("CONNECT a:443 HTTP/1.1", 405),
        ("CONNECT /up/ws HTTP/1.1", 405),
        ("TRACE /up/ws HTTP/1.1", 405),
    ] {
        for fields in ["", "Connection: Upgrade\r\nUpgrade: websocket\r\n"] {
            let request = format!("{line}\r\nHost: a:443\r\n{fields}\r\n");
            let mut asked = Wire::ask(address(&app), &request).await;
            assert_eq!(asked.status, status, "{request}{}", asked.head);
            asked.wire.rest().await;
            assert!(upstream.heads().is_empty(), "{request}");
        }
    }
}

/// HTTP/2 by prior knowledge is served on the same port; in the middle of a
/// connection its preface is no request.
#[tokio::test]
async fn the_preface_of_http2_opens_no_tunnel() {
    let upstream = Upstream::start().await;
    let app = app(&upstream, PUBLIC).await;
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let mut raw = Raw::connect(address(&app)).await;
    raw.send(format!("GET {PATH} HTTP/1.1\r\nHost: a\r\n\r\n{preface}")).await;
    assert_eq!(raw.answer().await.unwrap().status, 200);
    if let Some(answer) = raw.answer().await {
        assert_eq!(answer.status, 400, "{}", answer.head);
    }
    assert_eq!(upstream.heads().len(), 1);
    // As its first bytes, with a frame that is none.
    let mut socket = TcpStream::connect(address(&app)).await.unwrap();
    socket.write_all(format!("{preface}{}", ask(PATH, "")).as_bytes()).await.unwrap();
    let mut rest = vec![];
    let _ = socket.read_to_end(&mut rest).await;
    assert!(upstream.heads().is_empty());
}

/// Fields of a connection have no place in HTTP/2 (RFC 9113, 8.2.2), and
/// extended CONNECT is not offered.
#[tokio::test]
async fn over_http2_there_is_no_upgrade() {
    let upstream = Upstream::start().await;
    let app = app(&upstream, PUBLIC).await;
    let get = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", PATH)];
    let with = |more: &[(&'static str, &'static str)]| [&get[..], more].concat();
    let key = ("sec-websocket-key", crate::support::websocket::KEY);
    let plain = with(&[("sec-websocket-version", "13"), key]);
    assert_eq!(over_http2(address(&app), &plain, &[]).await, Http2::Ok, "a plain request");
    assert_eq!(upstream.heads().len(), 1);
    let connect = |more: &[(&'static str, &'static str)]| {
        let mut fields = with(more);
        fields[0].1 = "CONNECT";
        fields
    };
    for fields in [
        with(&[("upgrade", "websocket")]),
        with(&[("connection", "upgrade")]),
        with(&[("connection", "upgrade"), ("upgrade", "websocket"), key]),
        with(&[("http2-settings", "AAMAAABkAAQAAP__"), ("upgrade", "h2c")]),
        connect(&[]),
        connect(&[(":protocol", "websocket")]),
        vec![(":method", "CONNECT"), (":authority", "a:443")],
    ] {
        assert_eq!(over_http2(address(&app), &fields, &[]).await, Http2::Refused, "{fields:?}");
        assert!(upstream.heads().is_empty(), "{fields:?}");
    }
}

#[tokio::test]
async fn where_none_are_let_through_it_is_a_plain_request() {
    let upstream = Upstream::start().await;
    let app = TestApp::configured(FREE).await;
    put_in_front(&app, &upstream.url(), &format!("websocket = {{ enabled = false }}\n{PUBLIC}"));
    let answer = Raw::exchange(address(&app), ask(PATH, "")).await;
    assert_eq!((answer.status, answer.text()), (200, "ok"));
    let head = upstream.heads().remove(0).to_lowercase();
    assert!(!head.contains("\r\nupgrade:") && !head.contains("\r\nconnection:"), "{head}");
    put_in_front(&app, &upstream.url(), &format!("{MANY}\n{PUBLIC}"));
    Wire::open(address(&app), PATH, "").await.echoes("hello").await;

    let echo = TestApp::configured([("UPSTREAM_AUTH", "public")]).await;
    let answer = Raw::exchange(address(&echo), ask("/api/v1/proxy/ws", "")).await;
    assert_eq!(answer.status, 200);
    let names = answer.json()["headers"].as_object().unwrap().clone();
    assert!(!names.contains_key("upgrade") && !names.contains_key("connection"), "{names:?}");
}
