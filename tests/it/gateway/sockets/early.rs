//! What a client sends before it knows that there is a socket (RELIABILITY
//! G-113): it reaches the upstream after the upstream's 101, or never.

use std::time::Duration;

use super::{PATH, app};
use crate::{
    gateway::admin_key,
    streams::{FREE, address, put_in_front},
    support::{
        TestApp,
        recorder::{Recorder, Reply},
        websocket::{SWITCHING, TEXT, Upstream, Wire, ask, frame},
    },
};

/// What a second server might take for a request of its own.
const SMUGGLED: &str = "GET /up/smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// What the client says early.
fn early() -> [Vec<u8>; 3] {
    [
        SMUGGLED.as_bytes().to_vec(),
        frame(TEXT, true, SMUGGLED.as_bytes()),
        // More than any buffer of a head.
        SMUGGLED.repeat(5000).into_bytes(),
    ]
}

async fn all_closed(recorder: &Recorder) {
    for _ in 0..400 {
        if recorder.closed() == recorder.connections() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("a connection to the upstream is left open");
}

#[tokio::test]
async fn what_is_said_early_never_reaches_an_upstream_that_does_not_switch() {
    let changed = |from: &str, to: &str| SWITCHING.replace(from, to);
    let cases = [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_owned(), 200),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n".into(), 200),
        ("HTTP/1.1 204 No Content\r\n\r\n".into(), 204),
        ("HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n".into(), 302),
        ("HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\nno".into(), 401),
        ("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno".into(), 403),
        ("HTTP/1.1 426 Upgrade Required\r\ncontent-length: 0\r\n\r\n".into(), 426),
        ("HTTP/1.1 500 Oh\r\ncontent-length: 2\r\n\r\nno".into(), 500),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".into(), 200),
        // It says that it keeps the connection, and looks like a switch.
        (
            "HTTP/1.1 200 OK\r\nconnection: keep-alive, upgrade\r\nupgrade: websocket\r\n\
             content-length: 0\r\n\r\n"
                .into(),
            200,
        ),
        (changed("s3pP", "S3pP"), 502),
        (changed("Sec-WebSocket-Accept: ", "X-Accept: "), 502),
        (changed("Upgrade: websocket", "Upgrade: h2c"), 502),
        (changed("Connection: Upgrade\r\n", ""), 502),
        ("HTTP/1.1 101 Switching Protocols\r\n\r\n".into(), 502),
        (String::new(), 502),
        ("nonsense\r\n\r\n".into(), 502),
    ];
    for (answer, status) in cases {
        let closes = answer.is_empty();
        let bytes = answer.clone().into_bytes();
        let recorder = Recorder::start(move |_| {
            if closes { Reply::SendThenClose(vec![]) } else { Reply::Send(bytes.clone()) }
        })
        .await;
        let app = TestApp::configured(FREE).await;
        put_in_front(&app, &recorder.url(), "auth = 'public'");
        for early in early() {
            let mut request = ask(PATH, "").into_bytes();
            request.extend(&early);
            let mut asked = Wire::ask(address(&app), &request).await;
            assert_eq!(asked.status, status, "{answer:?}: {}", asked.head);
            // One answer, and the end.
            let rest = asked.wire.rest().await;
            let rest = String::from_utf8_lossy(&rest);
            assert!(!rest.contains("HTTP/1.1"), "{answer:?}: {rest}");
        }
        all_closed(&recorder).await;
        let seen = recorder.take();
        assert_eq!(seen.len(), early().len(), "{answer:?}: {seen:?}");
        assert!(seen.iter().all(|one| one.request_line() == "GET /ws HTTP/1.1"), "{seen:?}");
    }
}

#[tokio::test]
async fn what_follows_a_refused_socket_is_no_request() {
    let upstream = Upstream::start().await;
    let policy = "[[upstreams.paths]]\npath = '/closed'\nmethods = ['POST']\n\
        [[upstreams.paths]]\npath = '/smuggled'\nauth = 'public'";
    let app = app(&upstream, policy).await;
    let key = admin_key(&app).await;
    let closed = ask("/up/closed", &format!("X-API-Key: {key}\r\n"));
    for (request, status) in [
        (ask(PATH, ""), 401),
        (ask(PATH, "X-API-Key: tg_x\r\n"), 401),
        (ask(PATH, &format!("X-API-Key: {key}\r\nX-API-Key: {key}\r\n")), 400),
        (ask(PATH, "").replace("Version: 13", "Version: 8"), 426),
        (ask(PATH, "").replace("dGhl", ""), 400),
        (ask(PATH, "Content-Length: 3\r\n"), 400),
        (ask(&format!("{PATH}?x={key}"), ""), 400),
        (closed, 405),
    ] {
        for early in early() {
            let mut bytes = request.clone().into_bytes();
            bytes.extend(&early);
            let mut asked = Wire::ask(address(&app), &bytes).await;
            assert_eq!(asked.status, status, "{request}");
            if status == 426 {
                assert_eq!(asked.header("sec-websocket-version"), Some("13"));
            }
            let rest = asked.wire.rest().await;
            assert!(!String::from_utf8_lossy(&rest).contains("HTTP/1.1"), "{request}");
            assert!(upstream.heads().is_empty(), "{request}");
        }
    }
}

#[tokio::test]
async fn what_is_said_early_arrives_once_the_upstream_has_switched() {
    let upstream = Upstream::start().await;
    let app = app(&upstream, "auth = 'public'").await;
    for length in [1, 125, 1000, 100_000] {
        let text = "x".repeat(length);
        let mut request = ask(PATH, "").into_bytes();
        request.extend(frame(TEXT, true, text.as_bytes()));
        let mut asked = Wire::ask(address(&app), &request).await;
        assert_eq!(asked.status, 101);
        assert_eq!(asked.wire.next().await, Some((TEXT, text.into_bytes())));
        asked.wire.echoes("and on").await;
    }
}

/// Not even a byte, while the upstream thinks about it.
#[tokio::test]
async fn nothing_is_sent_before_the_upstream_has_switched() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = TestApp::configured(FREE).await;
    put_in_front(&app, &url, "auth = 'public'");
    let mut request = ask(PATH, "").into_bytes();
    request.extend(frame(TEXT, true, b"early"));
    let address = address(&app);
    let client = tokio::spawn(async move { Wire::ask(address, request).await });
    let (mut socket, _) = listener.accept().await.unwrap();
    let mut seen = vec![];
    while !seen.ends_with(b"\r\n\r\n") {
        assert!(socket.read_buf(&mut seen).await.unwrap() > 0);
    }
    let more = tokio::time::timeout(Duration::from_millis(300), socket.read_buf(&mut seen)).await;
    assert!(more.is_err(), "{:?}", String::from_utf8_lossy(&seen));
    socket.write_all(SWITCHING.as_bytes()).await.unwrap();
    let mut first = vec![0; 11];
    socket.read_exact(&mut first).await.unwrap();
    assert_eq!(first, frame(TEXT, true, b"early"));
    assert_eq!(client.await.unwrap().status, 101);
}
