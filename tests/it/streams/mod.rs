//! Answers that stay open: what ends them, who sees them, what they cost
//! (RELIABILITY G-59, G-126, G-127).

mod connections;
pub mod ends;
mod events;
mod expiry;
mod leaving;
mod outlived;
mod quick;
mod untaken;
mod uploads;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tollgate::config::{Config, Sources};

use crate::support::{
    Client, LATE, TestApp,
    raw::{Answer, Raw},
    recorder::{Recorder, Reply},
};

/// What every stream begins with.
const HELLO: &str = "data: hello\n\n";
/// How long a stream may outlive its credential, and what a busy machine adds.
pub const SOON: Duration = Duration::from_secs(1).saturating_add(LATE);

/// No limits at all.
pub const FREE: [(&str, &str); 6] = [
    ("RATE_LIMIT_PER_MINUTE", "0"),
    ("RATE_LIMIT_PER_HOUR", "0"),
    ("RATE_LIMIT_USER_PER_MINUTE", "0"),
    ("RATE_LIMIT_USER_PER_HOUR", "0"),
    ("RATE_LIMIT_KEY_PER_MINUTE", "0"),
    ("RATE_LIMIT_KEY_PER_HOUR", "0"),
];

/// An upstream whose every answer begins an event stream, or under `/download`
/// something else, and stays open.
pub struct Source {
    recorder: Recorder,
    /// To each answer, in the order of the requests.
    open: Arc<Mutex<Vec<UnboundedSender<Vec<u8>>>>>,
    /// What each of them was asked for.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Source {
    pub fn url(&self) -> String {
        self.recorder.url()
    }

    pub async fn start() -> Self {
        let open: Arc<Mutex<Vec<UnboundedSender<Vec<u8>>>>> = Arc::default();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (senders, paths) = (Arc::clone(&open), Arc::clone(&asked));
        let recorder = Recorder::start(move |delivery| {
            let (sender, receiver) = unbounded_channel();
            let download = delivery.request_line().contains("/download");
            let kind = if download { "application/octet-stream" } else { "text/event-stream" };
            // One answer on each connection: what comes after it is not read.
            let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close";
            sender.send(format!("{head}\r\ncontent-type: {kind}\r\n\r\n").into_bytes()).unwrap();
            sender.send(chunk(HELLO)).unwrap();
            let path = delivery.request_line().split(' ').nth(1).unwrap();
            let mut senders = senders.lock().unwrap();
            paths.lock().unwrap().push(path.to_owned());
            senders.push(sender);
            Reply::Stream(receiver)
        })
        .await;
        Self { recorder, open, asked }
    }

    /// Sends more on the answer to the request of this number.
    fn send(&self, to: usize, text: &str) {
        // Whoever listened may be gone.
        let _ = self.open.lock().unwrap()[to].send(chunk(text));
    }

    /// Ends the answer to the request of this number.
    fn finish(&self, to: usize) {
        let _ = self.open.lock().unwrap()[to].send(b"0\r\n\r\n".to_vec());
    }

    /// Waits until so many of its connections are closed.
    async fn closed(&self, count: usize) {
        let start = Instant::now();
        while self.recorder.closed() < count {
            let closed = self.recorder.closed();
            assert!(start.elapsed() < 2 * SOON, "{closed} of {count} are closed");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn chunk(text: &str) -> Vec<u8> {
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}

/// Makes this the only upstream, with more settings of its own.
pub fn put_in_front(app: &TestApp, url: &str, settings: &str) {
    put_named_in_front(app, "default", url, settings);
}

pub fn put_named_in_front(app: &TestApp, name: &str, url: &str, settings: &str) {
    let file =
        format!("[[upstreams]]\nname = '{name}'\nmount = '/up'\nurl = '{url}'\n{settings}\n");
    let config = Config::load(&Sources { file: Some(file), ..Sources::default() }).unwrap();
    app.app.services.upstreams.replace(&config.upstreams);
}

pub fn address(app: &TestApp) -> SocketAddr {
    app.running.as_ref().unwrap().address()
}

/// An open stream, of which [`HELLO`] was seen.
pub struct Open(Raw);

impl Open {
    /// With this field, at `/up{path}`.
    pub async fn begin(app: &TestApp, path: &str, field: &str) -> Self {
        let mut raw = Raw::connect(address(app)).await;
        raw.send(format!("GET /up{path} HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n")).await;
        raw.until(HELLO.as_bytes()).await;
        Self(raw)
    }

    /// Its end, and how long that took from `since`.
    async fn end(mut self, since: Instant) -> (Answer, Duration) {
        let answer = self.0.answer().await.unwrap();
        (answer, since.elapsed())
    }
}

/// What an event stream is told at its end.
fn told(code: &str) -> String {
    format!("event: tollgate.end\ndata: {{\"code\":\"{code}\"}}\n\n")
}

/// Selects an admin's own sockets: on a Redis that tests share, those of other
/// deployments are in the list, too.
pub async fn own_sockets(admin: &Client) -> String {
    let me = admin.get("/api/v1/users/me").await.expect(200);
    format!("?kind=websocket&user_id={}", me.text("id"))
}

/// The open streams that an admin sees, once there are so many.
pub async fn listed(admin: &Client, query: &str, count: usize) -> Vec<Value> {
    let path = format!("/api/v1/admin/connections{query}");
    let start = Instant::now();
    loop {
        let mut answer = admin.get(&path).await.expect(200);
        let Value::Array(items) = answer.json["items"].take() else { panic!("{answer:?}") };
        if items.len() == count {
            return items;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "not {count}: {items:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
