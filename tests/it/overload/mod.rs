//! More than there is room for: what is refused, by whom it is not noticed
//! (RELIABILITY G-41, G-44, G-46).

mod keys;
mod ours;
mod streams;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tollgate::services::room::Class;

use crate::{
    streams::{FREE, put_in_front},
    support::{
        Options, TestApp,
        raw::{Answer, Raw},
        recorder::{Recorder, Reply},
        websocket,
    },
};

pub const PUBLIC: &str = "auth = 'public'";

/// Answers `/sse` and `/download` without an end, `/hang` not at all, and anything
/// else at once.
pub struct Upstream {
    recorder: Recorder,
    open: Arc<Mutex<Vec<UnboundedSender<Vec<u8>>>>>,
}

impl Upstream {
    pub async fn start() -> Self {
        let open: Arc<Mutex<Vec<UnboundedSender<Vec<u8>>>>> = Arc::default();
        let senders = Arc::clone(&open);
        let recorder = Recorder::start(move |delivery| {
            let line = delivery.request_line();
            if line.contains("/hang") {
                return Reply::Hang;
            }
            let kind = match line {
                _ if line.contains("/sse") => "text/event-stream",
                _ if line.contains("/download") => "application/octet-stream",
                _ => return Reply::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".into()),
            };
            let (sender, receiver) = unbounded_channel();
            let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close";
            let start = format!("{head}\r\ncontent-type: {kind}\r\n\r\n5\r\nhello\r\n");
            sender.send(start.into_bytes()).unwrap();
            senders.lock().unwrap().push(sender);
            Reply::Stream(receiver)
        });
        Self { recorder: recorder.await, open }
    }
}

/// An instance before it, for everybody and with these settings.
pub async fn app(upstream: &Upstream, settings: &[(&'static str, &str)]) -> TestApp {
    let all = FREE.iter().chain(settings);
    let settings = all.map(|(name, value)| (*name, (*value).to_owned())).collect();
    let options = Options { settings, ..Options::default() };
    let app = TestApp::with(options).await;
    put_in_front(&app, &upstream.recorder.url(), PUBLIC);
    app
}

pub fn address(app: &TestApp) -> SocketAddr {
    app.running.as_ref().unwrap().address()
}

pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}

/// A connection on which this was sent.
pub async fn sent(app: &TestApp, request: impl AsRef<[u8]>) -> Raw {
    let mut raw = Raw::connect(address(app)).await;
    raw.send(request).await;
    raw
}

/// The answer to a request on a connection of its own.
pub async fn asked(app: &TestApp, path: &str) -> Answer {
    Raw::exchange(address(app), get(path)).await
}

#[track_caller]
pub fn assert_overloaded(answer: &Answer) {
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.json()["code"], "overloaded", "{answer:?}");
    assert_eq!(answer.header("retry-after"), Some("1"), "{answer:?}");
}

/// Until so many are under way.
pub async fn under_way(app: &TestApp, class: Class, count: usize) {
    let start = Instant::now();
    while app.app.services.room.used(class) != count {
        let used = app.app.services.room.used(class);
        assert!(start.elapsed() < Duration::from_secs(30), "{used} of {class:?}, not {count}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Cheaply, whoever asks: before anybody looks at a credential or a body.
#[tokio::test]
async fn what_does_not_fit_is_refused_at_once() {
    let upstream = Upstream::start().await;
    let app = app(&upstream, &[("SERVER_MAX_IN_FLIGHT", "2")]).await;
    let held = [sent(&app, get("/up/hang")).await, sent(&app, get("/up/hang")).await];
    under_way(&app, Class::Proxied, 2).await;
    put_in_front(&app, &upstream.recorder.url(), "");
    assert_overloaded(&asked(&app, "/up/x").await);
    let post = "POST /up/x HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n";
    for rest in ["\r\nhello", "Expect: 100-continue\r\n\r\n"] {
        let mut raw = sent(&app, format!("{post}{rest}")).await;
        assert_overloaded(&raw.answer().await.unwrap());
        assert!(raw.answer().await.is_none(), "what follows is no request");
    }
    let socket = websocket::Wire::ask(address(&app), websocket::ask("/up/x", "")).await;
    assert_eq!(socket.code().await, (503, "overloaded".to_owned()));
    assert_eq!(upstream.recorder.deliveries().len(), 2);
    let metrics = app.anonymous().get("/metrics").await.expect(200);
    let text = String::from_utf8(metrics.body.to_vec()).unwrap();
    let counted = r#"tollgate_refused_total{class="proxied",reason="in_flight"} "#;
    let counted = text.lines().find_map(|line| line.strip_prefix(counted)).unwrap();
    assert!(counted.parse::<u64>().unwrap() >= 4, "{counted}");

    put_in_front(&app, &upstream.recorder.url(), PUBLIC);
    held.into_iter().for_each(Raw::reset);
    under_way(&app, Class::Proxied, 0).await;
    assert_eq!(asked(&app, "/up/x").await.status, 200);
    under_way(&app, Class::Proxied, 0).await;
}

#[tokio::test]
async fn a_place_is_given_back_however_a_request_ends() {
    let upstream = Upstream::start().await;
    let app = app(&upstream, &[("SERVER_MAX_IN_FLIGHT", "1")]).await;
    for (path, status) in [("/up/x", 200), ("/api/v1/nowhere", 404), ("/up/x", 200)] {
        assert_eq!(asked(&app, path).await.status, status);
        under_way(&app, Class::Proxied, 0).await;
        under_way(&app, Class::Ours, 0).await;
    }
    let held = sent(&app, get("/up/hang")).await;
    under_way(&app, Class::Proxied, 1).await;
    held.reset();
    under_way(&app, Class::Proxied, 0).await;
    put_in_front(&app, "http://127.0.0.1:1", PUBLIC);
    assert_eq!(asked(&app, "/up/x").await.status, 502);
    under_way(&app, Class::Proxied, 0).await;
    put_in_front(&app, &upstream.recorder.url(), "");
    assert_eq!(asked(&app, "/up/x").await.status, 401);
    under_way(&app, Class::Proxied, 0).await;
}
