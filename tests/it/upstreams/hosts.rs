//! Upstreams that are mounted by host name.

use http::{Request, Version};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::{address, with};
use crate::support::{
    Options, TestApp,
    raw::Raw,
    recorder::{Recorder, Reply},
};

/// Answers with a name, so that it is clear who was asked.
async fn called(name: &'static str) -> Recorder {
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
    Recorder::start(move |_| Reply::Send(answer.clone().into_bytes())).await
}

async fn app(one: &Recorder, other: &Recorder, root: &Recorder, trusted: &str) -> TestApp {
    let upstream = |name: &str, mount: &str, recorder: &Recorder| {
        let url = recorder.url();
        format!("[[upstreams]]\nname='{name}'\nmount='{mount}'\nauth='public'\nurl='{url}'\n")
    };
    let file = upstream("one", "one.example.com", one)
        + &upstream("other", "Other.Example.com.", other)
        + &upstream("root", "/", root);
    let settings = vec![("SERVER_TRUSTED_PROXIES", trusted.to_owned())];
    with(&file, Options { settings, ..Options::default() }).await
}

#[tokio::test]
async fn the_host_that_is_asked_for_decides() {
    let (one, other, root) = (called("one").await, called("other").await, called("root").await);
    let app = app(&one, &other, &root, "").await;
    let forwarded =
        "Host: x\r\nX-Forwarded-Host: one.example.com\r\nForwarded: host=one.example.com";
    for (target, fields, expected) in [
        ("/", "Host: one.example.com", "one"),
        ("/", "Host: one.example.com:80", "one"),
        ("/", "Host: one.example.com:8443", "one"),
        ("/", "Host: ONE.Example.COM", "one"),
        ("/", "Host: one.example.com.", "one"),
        ("/", "Host: one.example.com.:81", "one"),
        ("/", "Host: other.example.com", "other"),
        ("/", "Host: OTHER.example.com.", "other"),
        ("/", "Host: one.example.co", "root"),
        ("/", "Host: one.example.com.evil.test", "root"),
        ("/", "Host: evil-one.example.com", "root"),
        ("/", "Host: a.one.example.com", "root"),
        ("/", "Host: 127.0.0.1", "root"),
        ("/", "Host: [::1]:80", "root"),
        // The absolute form says it, and Host has to agree or is not heard.
        ("http://one.example.com/", "Host: one.example.com", "one"),
        ("http://ONE.example.com:80/", "Host: ONE.example.com:80", "one"),
        // A stranger's fields are nobody's.
        ("/", forwarded, "root"),
        ("/", "Host: other.example.com\r\nX-Forwarded-Host: one.example.com", "other"),
        ("/", "Host: x\r\nX-Host: one.example.com\r\nX-Original-Host: one.example.com", "root"),
        // All paths of its host are the upstream's, but what browsers need of us.
        ("/api/v1/keys", "Host: one.example.com", "one"),
        ("/login", "Host: one.example.com", "one"),
        ("/health", "Host: one.example.com", "one"),
        ("/health", "Host: one.example.com.", "one"),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\n{fields}\r\n\r\n");
        let answer = Raw::exchange(address(&app), &request).await;
        assert_eq!((answer.status, answer.text()), (200, expected), "{request}");
    }
    for (target, fields, status) in [
        ("/.tollgate/x", "Host: one.example.com", 404),
        ("/%2etollgate/x", "Host: one.example.com", 404),
        // Who reads another name than we do would pass by what guards it.
        ("/", "Host: one.example.com..", 400),
        ("/", "Host: one.example.com:1:2", 400),
        ("/", "Host: [one.example.com]", 400),
        ("/", "Host: one.example.com\r\nHost: other.example.com", 400),
        ("/", "Host: one.example.com, other.example.com", 400),
        ("/", "Host: one.example.com/x", 400),
        ("/", "Host: user@one.example.com", 400),
        ("/", "Host: one.example.com#", 400),
        ("/", "Host: ", 400),
        ("/", "X: y", 400),
        ("/health/live", "Host: two.example.com", 200),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\n{fields}\r\n\r\n");
        let answer = Raw::exchange(address(&app), &request).await;
        assert_eq!(answer.status, status, "{request}");
    }
    // Whom they disagree about is not guessed at.
    let both = "GET http://one.example.com/ HTTP/1.1\r\nHost: other.example.com\r\n\r\n";
    let answer = Raw::exchange(address(&app), both).await;
    assert!(answer.status == 400 || answer.text() == "one", "{answer:?}");
}

#[tokio::test]
async fn a_trusted_proxy_says_which_host_was_asked_for() {
    let (one, other, root) = (called("one").await, called("other").await, called("root").await);
    let app = app(&one, &other, &root, "127.0.0.0/8").await;
    for (fields, expected) in [
        ("Host: x\r\nX-Forwarded-Host: one.example.com", "one"),
        ("Host: x\r\nX-Forwarded-Host: ONE.example.com:443", "one"),
        ("Host: one.example.com\r\nX-Forwarded-Host: other.example.com", "other"),
        // What the nearest proxy appended counts, not what came before.
        ("Host: x\r\nX-Forwarded-Host: one.example.com, other.example.com", "other"),
        ("Host: one.example.com\r\nX-Forwarded-Host: bad host", "one"),
        ("Host: one.example.com\r\nForwarded: host=other.example.com", "one"),
    ] {
        let request = format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n");
        let answer = Raw::exchange(address(&app), &request).await;
        assert_eq!((answer.status, answer.text()), (200, expected), "{request}");
    }
}

#[tokio::test]
async fn over_http_2_the_authority_is_the_host() {
    let (one, other, root) = (called("one").await, called("other").await, called("root").await);
    let app = app(&one, &other, &root, "").await;
    let socket = TcpStream::connect(address(&app)).await.unwrap();
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await.unwrap();
    tokio::spawn(connection);
    for (authority, expected) in [
        ("one.example.com", "one"),
        ("One.Example.Com:443", "one"),
        ("other.example.com.", "other"),
        ("x.example.com", "root"),
    ] {
        let request = Request::builder().uri(format!("http://{authority}/"));
        let request = request.version(Version::HTTP_2).body(Empty::<bytes::Bytes>::new()).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 200, "{authority}");
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, expected, "{authority}");
    }
}
