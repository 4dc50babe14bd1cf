//! How the end of a stream looks to its client.

use std::time::Instant;

use serde_json::json;

use super::{FREE, HELLO, Open, SOON, Source, address, put_in_front, told};
use crate::{
    gateway::recorded,
    support::{
        Client, Options, TestApp,
        raw::Raw,
        recorder::{Recorder, Reply},
    },
};

async fn app() -> (TestApp, Source) {
    let settings = FREE.map(|(name, value)| (name, value.to_owned())).to_vec();
    let app = TestApp::with(Options { settings, ..Options::default() }).await;
    let source = Source::start().await;
    put_in_front(&app, &source.url(), "");
    (app, source)
}

/// A new key's id and text.
async fn key(admin: &Client) -> (String, String) {
    let issued = admin.post("/api/v1/keys", json!({ "name": "k" })).await.expect(201);
    (issued.text("id").to_owned(), issued.text("key").to_owned())
}

/// Half an event is never made a whole one.
#[tokio::test]
async fn the_last_event_comes_between_events_or_not_at_all() {
    let (app, source) = app().await;
    let admin = app.admin().await;
    for (n, (path, more, between)) in [
        ("/a", "data: one\n\n", Some("")),
        ("/a", "data: one\r\n\r\n", Some("")),
        ("/a", ": a comment\n", Some("")),
        ("/a", ": half a comment", Some("\n")),
        ("/a", "data: one\n", None),
        ("/a", "data: on", None),
        ("/a", "data: one\n\nid: 12", None),
        ("/download", "data: one\n\n", None),
    ]
    .into_iter()
    .enumerate()
    {
        let (id, key) = key(&admin).await;
        let mut stream = Open::begin(&app, path, &format!("X-API-Key: {key}")).await;
        source.send(n, more);
        stream.0.until(more.as_bytes()).await;
        admin.delete(&format!("/api/v1/keys/{id}")).await.expect(204);
        let (answer, after) = stream.end(Instant::now()).await;
        assert!(after < SOON, "{more:?}: {after:?}");
        let last = between.map(|between| format!("{between}{}", told("revoked")));
        let whole = format!("{HELLO}{more}{}", last.clone().unwrap_or_default());
        assert_eq!(answer.text(), whole, "{more:?}");
        assert_eq!(answer.complete, last.is_some(), "{more:?}");
        // What we say ourselves is not charged.
        let record = &recorded(&app, n + 1).await[0];
        assert_eq!(record["outcome"], "cut", "{more:?}");
        assert_eq!(record["bytes_out"], HELLO.len() + more.len(), "{more:?}");
        source.closed(n + 1).await;
    }
}

/// Nothing of ours is put into what we cannot read, or after a stated length.
#[tokio::test]
async fn nothing_is_added_to_what_is_compressed_or_has_a_length() {
    let key_settings = FREE.map(|(name, value)| (name, value.to_owned())).to_vec();
    let app = TestApp::with(Options { settings: key_settings, ..Options::default() }).await;
    let admin = app.admin().await;
    for field in ["transfer-encoding: chunked\r\ncontent-encoding: gzip", "content-length: 100"] {
        let recorder = Recorder::start(move |_| {
            let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n{field}");
            let body =
                if field.starts_with("transfer") { "d\r\ndata: hello\n\n\r\n" } else { HELLO };
            sender.send(format!("{head}\r\n\r\n{body}").into_bytes()).unwrap();
            // Open for as long as the test.
            Box::leak(Box::new(sender));
            Reply::Stream(receiver)
        })
        .await;
        put_in_front(&app, &recorder.url(), "");
        let (id, key) = key(&admin).await;
        let stream = Open::begin(&app, "/a", &format!("X-API-Key: {key}")).await;
        admin.delete(&format!("/api/v1/keys/{id}")).await.expect(204);
        let (answer, _) = stream.end(Instant::now()).await;
        assert_eq!((answer.text(), answer.complete), (HELLO, false), "{field}");
    }
}

/// Lines of JSON stream as events do, and are told apart from other answers only
/// by having no length.
#[tokio::test]
async fn proxies_before_us_are_told_not_to_collect_what_streams() {
    let (app, _) = app().await;
    let (chunked, collect) = ("transfer-encoding: chunked", "\r\nx-accel-buffering: yes");
    for (kind, framing, own, expected) in [
        ("text/event-stream", chunked, "", Some("no")),
        ("text/event-stream", "content-length: 5", collect, Some("no")),
        ("application/x-ndjson", chunked, "", Some("no")),
        ("application/x-ndjson", chunked, collect, Some("yes")),
        ("application/json", "content-length: 5", "", None),
        ("application/octet-stream", "content-length: 2000000", "", None),
    ] {
        let recorder = Recorder::start(move |_| {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n{framing}{own}\r\n\r\n");
            let body = if framing == chunked { "5\r\nfirst\r\n" } else { "first" };
            Reply::SendThenClose(format!("{head}{body}").into_bytes())
        })
        .await;
        put_in_front(&app, &recorder.url(), "auth = 'public'");
        let mut raw = Raw::connect(address(&app)).await;
        raw.send("GET /up/a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        let answer = raw.answer().await.unwrap();
        assert_eq!(answer.header("x-accel-buffering"), expected, "{kind} {framing} {own}");
    }
}

/// What is only of unknown length, and all there, is never in the list.
#[tokio::test]
async fn a_short_answer_is_no_stream() {
    let body = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";
    let recorder = Recorder::start(move |_| Reply::Send(body.as_bytes().to_vec())).await;
    let (app, _) = app().await;
    put_in_front(&app, &recorder.url(), "auth = 'public'");
    for _ in 0..50 {
        app.anonymous().get("/up/a").await.expect(200);
    }
    let metrics = app.anonymous().get("/metrics").await.expect(200);
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    assert!(text.contains("tollgate_streams{kind=\"download\"}"), "{text}");
    let records = recorded(&app, 50).await;
    assert!(records.iter().all(|record| record["outcome"] == "completed"));
}
