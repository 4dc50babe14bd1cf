//! Answers that their clients do not take: they end like any other
//! (RELIABILITY G-49, G-59).

use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::{RecvStream, client::SendRequest};
use http::Request;
use serde_json::json;
use tokio::net::TcpStream;

use super::{FREE, SOON, Source, address, listed, put_in_front};
use crate::{
    gateway::recorded,
    support::{
        Client, LATE, Options, TestApp,
        raw::Raw,
        recorder::{Recorder, Reply, ok},
    },
};

const SECOND: Duration = Duration::from_secs(1);
const PUBLIC: &str = "auth = 'public'";
const REQUIRED: &str = "auth = 'required'";

pub async fn app(settings: &[(&'static str, &str)]) -> TestApp {
    let settings = FREE.iter().chain(settings).map(|(n, v)| (*n, (*v).to_owned())).collect();
    // Other tests' instances would be listed with it.
    TestApp::with(Options { settings, in_memory: true, ..Options::default() }).await
}

/// A key, and the path to delete it at.
pub async fn key(admin: &Client) -> (String, String) {
    let key = admin.post("/api/v1/keys", json!({ "name": "k" })).await.expect(201);
    (key.text("key").to_owned(), format!("/api/v1/keys/{}", key.text("id")))
}

/// A connection of HTTP/2 that lets nothing of an answer through before it is
/// said to.
pub async fn connect(app: &TestApp, window: u32) -> SendRequest<Bytes> {
    let socket = TcpStream::connect(address(app)).await.unwrap();
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(window);
    let (sender, connection) = builder.handshake(socket).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// The body of an answer whose head is there.
async fn get(sender: &SendRequest<Bytes>, path: &str, key: &str) -> RecvStream {
    let mut sender = sender.clone().ready().await.unwrap();
    let request = Request::get(format!("http://a{path}")).header("x-api-key", key).body(());
    let (answer, _) = sender.send_request(request.unwrap(), true).unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 200, "{path}");
    answer.into_body()
}

/// That the stream is reset without a byte of its body, within this time.
async fn assert_reset(mut body: RecvStream, within: Duration, what: &str) {
    let ended = tokio::time::timeout(within, body.data()).await;
    let data = ended.unwrap_or_else(|_| panic!("{what} is still open"));
    assert!(matches!(data, Some(Err(_))), "{what}: {data:?}");
}

fn big() -> Reply {
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 50000000\r\n\r\n".to_vec();
    Reply::Send([head, vec![b'x'; 50_000_000]].concat())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_held_at_a_window_of_zero_ends_with_its_credential() {
    let source = Source::start().await;
    let app = app(&[]).await;
    put_in_front(&app, &source.url(), REQUIRED);
    let admin = app.admin().await;
    let (key, path) = key(&admin).await;
    let sender = connect(&app, 0).await;
    let events = get(&sender, "/up/events", &key).await;
    let download = get(&sender, "/up/download", &key).await;
    let kinds = listed(&admin, "", 2).await;
    assert_eq!((&kinds[0]["kind"], &kinds[1]["kind"]), (&"download".into(), &"sse".into()));

    admin.delete(&path).await.expect(204);
    let taken = Instant::now();
    assert_reset(events, SOON, "the event stream").await;
    assert_reset(download, SOON.saturating_sub(taken.elapsed()), "the download").await;
    source.closed(2).await;
    listed(&admin, "", 0).await;
    for record in recorded(&app, 2).await {
        assert_eq!(record["outcome"], "cut", "{record}");
    }
    // The connection itself is as good as before.
    let (key, _) = self::key(&admin).await;
    let _held = get(&sender, "/up/events", &key).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_pauses_is_cut_with_its_credential() {
    let recorder = Recorder::start(|_| big()).await;
    let app = app(&[]).await;
    put_in_front(&app, &recorder.url(), REQUIRED);
    let admin = app.admin().await;
    let (key, path) = key(&admin).await;
    let mut client = Raw::connect(address(&app)).await;
    client.send(format!("GET /up/ HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\n\r\n")).await;
    // Until all buffers are full.
    let mut passed = None;
    loop {
        let now = listed(&admin, "?kind=download", 1).await[0]["bytes_out"].as_u64();
        if passed.replace(now) == Some(now) && now > Some(0) {
            break;
        }
        tokio::time::sleep(SECOND / 2).await;
    }

    admin.delete(&path).await.expect(204);
    let taken = Instant::now();
    listed(&admin, "", 0).await;
    assert!(taken.elapsed() < SOON, "{:?}", taken.elapsed());
    assert_eq!(recorded(&app, 1).await[0]["outcome"], "cut");
    // Reset, so that what the kernel had of it is gone, too.
    assert!(!client.rest().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_limits_hold_for_what_is_not_taken() {
    for (name, value, path) in [
        ("SERVER_IO_TIMEOUT_SECONDS", "1", "/up/big"),
        ("SERVER_IO_TIMEOUT_SECONDS", "1", "/up/small"),
        // Of ours, from the API.
        ("SERVER_IO_TIMEOUT_SECONDS", "1", "/api/openapi.json"),
    ] {
        let recorder = Recorder::start(|delivery| {
            if delivery.request_line().contains("big") { big() } else { ok(delivery) }
        })
        .await;
        let app = app(&[(name, value)]).await;
        put_in_front(&app, &recorder.url(), PUBLIC);
        let sender = connect(&app, 0).await;
        let body = get(&sender, path, "").await;
        assert_reset(body, SECOND + LATE, path).await;
    }
    for (setting, path) in [
        ("total_timeout_seconds = 1", "/up/short"),
        ("stream_life_seconds = 1", "/up/big"),
        ("stream_life_seconds = 1", "/up/events"),
    ] {
        let recorder = Recorder::start(|delivery| match delivery.request_line() {
            line if line.contains("big") => big(),
            line => {
                let kind = if line.contains("short") { "text/plain" } else { "text/event-stream" };
                let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n");
                Reply::Send(format!("{head}content-length: 99999\r\n\r\nhalf").into())
            }
        })
        .await;
        let app = app(&[]).await;
        put_in_front(&app, &recorder.url(), &format!("{PUBLIC}\n{setting}"));
        let sender = connect(&app, 0).await;
        let body = get(&sender, path, "").await;
        assert_reset(body, SECOND + LATE, path).await;
        assert_eq!(recorded(&app, 1).await[0]["outcome"], "cut", "{path}");
    }
}

/// Each holds a connection to the upstream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_answers_are_held_for_a_client_that_takes_nothing() {
    let source = Source::start().await;
    let app = app(&[]).await;
    put_in_front(&app, &source.url(), PUBLIC);
    let admin = app.admin().await;
    let (greedy, modest) = (connect(&app, 0).await, connect(&app, 0).await);
    let mut held = vec![];
    for _ in 0..10 {
        held.push(get(&modest, "/up/download", "").await);
    }
    for _ in 0..60 {
        held.push(get(&greedy, "/up/download", "").await);
    }
    listed(&admin, "?limit=100", 70).await;
    tokio::time::sleep(4 * SECOND).await;
    listed(&admin, "?limit=100", 26).await;
    // One that takes what there is keeps all of it.
    let taking = connect(&app, 65_535).await;
    let mut taken = vec![];
    for _ in 0..40 {
        let mut body = get(&taking, "/up/download", "").await;
        assert!(matches!(body.data().await, Some(Ok(_))));
        taken.push(body);
    }
    tokio::time::sleep(6 * SECOND).await;
    listed(&admin, "?limit=100", 66).await;
    source.closed(44).await;
}
