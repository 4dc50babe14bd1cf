//! Requests whose bodies outlive their answers: the upstream answers before it has
//! read everything, and reads on. They are under way until both have ended.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::SendStream;
use http::{Request, Version};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tollgate::{
    domain::{
        page::PageRequest,
        stream::StreamKind,
        usage::{Outcome, UsageRecord},
    },
    server::Stopped,
    services::{room::Class, usage::RequestFilter},
};

use super::{FREE, SOON, address, put_in_front, untaken::connect};
use crate::support::{Client, Options, TestApp, raw::Raw};

/// How a request comes to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The client sends the rest, after more time than a head may take.
    Finished,
    /// The client breaks off.
    Left,
    /// What opened the door counts no more.
    Revoked,
    /// The process stops.
    Stopped,
}

/// Answers each request when it has read its head, and reads on.
struct Early {
    url: String,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Early {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen: Arc<Mutex<Vec<u8>>> = Arc::default();
        let all = Arc::clone(&seen);
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                tokio::spawn(Self::answer(socket, Arc::clone(&all)));
            }
        });
        Self { url, seen }
    }

    async fn answer(mut socket: TcpStream, seen: Arc<Mutex<Vec<u8>>>) {
        let (mut read, mut is_answered) = (vec![], false);
        while let Ok(1..) = socket.read_buf(&mut read).await {
            if is_answered {
                seen.lock().unwrap().append(&mut read);
            } else if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                seen.lock().unwrap().extend(read.drain(..).skip(end + 4));
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                is_answered = socket.write_all(answer).await.is_ok();
            }
        }
    }

    /// Waits until so many of this byte have come.
    async fn saw(&self, byte: u8, count: usize) {
        let is_it = |seen: &&u8| **seen == byte;
        let seen = || self.seen.lock().unwrap().iter().filter(is_it).count();
        eventually(|| seen() == count, "the upstream is not told the rest").await;
    }
}

async fn eventually(is: impl Fn() -> bool, what: &str) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < 2 * SOON, "{what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// A client that has its answer and is not through with its request.
enum Sending {
    Http1(Raw),
    Http2(SendStream<Bytes>),
}

impl Sending {
    async fn begin(app: &TestApp, version: Version, key: &str) -> Self {
        if version == Version::HTTP_2 {
            let mut sender = connect(app, 65_535).await.ready().await.unwrap();
            let request = Request::post("http://a/up/early").header("x-api-key", key);
            let (answer, mut body) = sender.send_request(request.body(()).unwrap(), false).unwrap();
            body.send_data(Bytes::from_static(b"z"), false).unwrap();
            let mut answer = answer.await.unwrap();
            assert_eq!(answer.status(), 200);
            assert_eq!(answer.body_mut().data().await.unwrap().unwrap(), "ok");
            assert!(answer.body_mut().data().await.is_none());
            return Self::Http2(body);
        }
        let mut raw = Raw::connect(address(app)).await;
        let head = "POST /up/early HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n";
        raw.send(format!("{head}X-API-Key: {key}\r\n\r\n1\r\nz\r\n")).await;
        let answer = raw.answer().await.unwrap();
        assert_eq!((answer.status, &*answer.body), (200, &b"ok"[..]));
        Self::Http1(raw)
    }

    async fn send(&mut self, count: usize) {
        let data = "z".repeat(count);
        match self {
            Self::Http1(raw) => raw.send(format!("{count:x}\r\n{data}\r\n")).await,
            Self::Http2(body) => body.send_data(data.into(), false).unwrap(),
        }
    }

    async fn finish(&mut self) {
        match self {
            Self::Http1(raw) => raw.send("0\r\n\r\n").await,
            Self::Http2(body) => body.send_data(Bytes::new(), true).unwrap(),
        }
    }

    fn leave(self) {
        match self {
            Self::Http1(raw) => raw.reset(),
            Self::Http2(mut body) => body.send_reset(h2::Reason::CANCEL),
        }
    }
}

async fn app() -> TestApp {
    let more = [("SERVER_HEADER_TIMEOUT_SECONDS", "2")];
    let settings = FREE.iter().chain(&more).map(|(n, v)| (*n, (*v).to_owned())).collect();
    TestApp::with(Options { settings, ..Options::default() }).await
}

/// The record of the request, if there is one.
async fn record(app: &TestApp) -> Option<UsageRecord> {
    app.flush().await;
    let usage = &app.app.services.usage;
    let page = PageRequest { limit: 200, after: None };
    let found = usage.requests(&RequestFilter::default(), page).await.unwrap().items;
    let mut found: Vec<_> = found.into_iter().filter(|it| it.path == "/up/early").collect();
    assert!(found.len() < 2, "{found:?}");
    found.pop()
}

async fn outlive(version: Version, end: End) {
    let what = format!("{version:?}, {end:?}");
    let upstream = Early::start().await;
    let mut app = app().await;
    put_in_front(&app, &upstream.url, "auth = 'required'");
    let admin = app.admin().await;
    let fields = json!({ "name": "k", "max_concurrent": 1 });
    let issued = admin.post("/api/v1/keys", fields).await.expect(201);
    let path = format!("/api/v1/keys/{}", issued.text("id"));
    let key = app.anonymous().with_key(issued.text("key"));
    let mut client = Sending::begin(&app, version, issued.text("key")).await;
    client.send(9).await;
    upstream.saw(b'z', 10).await;

    let services = Arc::clone(&app.app.services.streams);
    assert_eq!(services.count(StreamKind::Upload), 1, "{what}");
    let held = |client: Client| async move {
        client.get("/up/x").await.expect_problem(429, "concurrency_limited");
    };
    held(key.clone()).await;
    if end == End::Finished {
        // There is no event to wait for: nothing is to happen.
        sleep(Duration::from_millis(3500)).await;
        client.send(1).await;
        upstream.saw(b'z', 11).await;
        held(key.clone()).await;
    }
    assert_eq!(record(&app).await, None, "{what}");
    let expected = match end {
        End::Finished => {
            client.send(50_000).await;
            client.finish().await;
            (50_011, Outcome::Completed)
        }
        End::Left => {
            client.leave();
            (10, Outcome::Completed)
        }
        End::Revoked => {
            admin.delete(&path).await.expect(204);
            (10, Outcome::Cut)
        }
        End::Stopped => {
            let begun = Instant::now();
            let stopped = app.running.take().unwrap().stop(Duration::from_millis(200)).await;
            assert_eq!(stopped, Stopped::Cut);
            assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
            assert!(record(&app).await.is_some(), "{what}");
            (10, Outcome::Completed)
        }
    };
    eventually(|| services.count(StreamKind::Upload) == 0, &what).await;
    let begun = Instant::now();
    let found = loop {
        if let Some(found) = record(&app).await {
            break found;
        }
        assert!(begun.elapsed() < SOON, "{what} is not recorded");
    };
    let seen = (found.bytes_in, found.outcome);
    assert_eq!((seen, found.bytes_out, found.status), (expected, 2, 200), "{what}");
    let (room, slots) = (&app.app.services.room, app.app.services.limits.slots());
    eventually(|| room.used(Class::Proxied) == 0 && slots.subjects() == 0, &what).await;
    if end == End::Finished {
        key.get("/up/x").await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_under_way_until_its_body_has_ended_too() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for end in [End::Finished, End::Left, End::Revoked, End::Stopped] {
            outlive(version, end).await;
        }
    }
}

/// Where there is no room in the list of streams, its place is a plain request's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_keeps_its_place_among_plain_requests_where_streams_are_too_many() {
    let upstream = Early::start().await;
    let settings = FREE.iter().chain(&[("SERVER_MAX_STREAMS", "1")]);
    let settings = settings.map(|(n, v)| (*n, (*v).to_owned())).collect();
    let app = TestApp::with(Options { settings, ..Options::default() }).await;
    put_in_front(&app, &upstream.url, "auth = 'required'");
    let key = crate::gateway::admin_key(&app).await;
    let room = Arc::clone(&app.app.services.room);
    let mut all = vec![];
    for version in [Version::HTTP_11, Version::HTTP_2, Version::HTTP_11] {
        all.push(Sending::begin(&app, version, &key).await);
    }
    // There is room for one, and a second fills it.
    eventually(|| room.used(Class::Proxied) > 0, "places are given back").await;
    let used = room.used(Class::Proxied);
    sleep(Duration::from_millis(300)).await;
    assert_eq!(room.used(Class::Proxied), used);
    for client in &mut all {
        client.finish().await;
    }
    eventually(|| room.used(Class::Proxied) == 0, "a place is not given back").await;
}
