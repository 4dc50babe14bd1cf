//! Requests whose bodies take long: they end with their credential, and a client
//! that hardly sends anything is not waited for (RELIABILITY G-49, G-59).

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use tokio::{io::AsyncReadExt as _, net::TcpListener};

use super::{
    SOON, address, listed, put_in_front,
    untaken::{app, connect, key},
};
use crate::{
    gateway::recorded,
    support::{
        raw::Raw,
        recorder::{Recorder, ok},
    },
};

const REQUIRED: &str = "auth = 'required'";

fn head(key: &str) -> String {
    format!(
        "POST /up/a HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_is_listed_and_ends_with_its_credential() {
    let recorder = Recorder::start(ok).await;
    let app = app(&[]).await;
    put_in_front(&app, &recorder.url(), REQUIRED);
    let admin = app.admin().await;
    let (key, path) = key(&admin).await;
    let mut one = Raw::connect(address(&app)).await;
    one.send(head(&key)).await;
    one.send("5\r\nhello\r\n").await;
    let mut sender = connect(&app, 65_535).await.ready().await.unwrap();
    let request = Request::post("http://a/up/b").header("x-api-key", &key).body(()).unwrap();
    let (two, mut body) = sender.send_request(request, false).unwrap();
    body.send_data(Bytes::from_static(b"hello"), false).unwrap();
    let all = listed(&admin, "?kind=upload", 2).await;
    for upload in &all {
        assert_eq!((&upload["bytes_in"], &upload["bytes_out"]), (&5.into(), &0.into()));
        assert_eq!(upload["username"], "admin");
    }

    admin.delete(&path).await.expect(204);
    let taken = Instant::now();
    let answer = one.answer().await.unwrap();
    assert_eq!(answer.status, 401, "{answer:?}");
    assert_eq!(two.await.unwrap().status(), 401);
    assert!(taken.elapsed() < SOON, "{:?}", taken.elapsed());
    assert!(one.answer().await.is_none(), "what comes later is no request");
    listed(&admin, "", 0).await;
    // What was said is not there, not even half.
    assert!(recorder.take().is_empty());
    for record in recorded(&app, 2).await {
        assert_eq!(record["outcome"], "cut", "{record}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_cuts_an_upload() {
    let recorder = Recorder::start(ok).await;
    let app = app(&[]).await;
    put_in_front(&app, &recorder.url(), REQUIRED);
    let admin = app.admin().await;
    let (key, _) = key(&admin).await;
    let mut client = Raw::connect(address(&app)).await;
    client.send(head(&key)).await;
    let upload = listed(&admin, "?kind=upload", 1).await.remove(0);
    let path = format!("/api/v1/admin/connections/{}", upload["id"].as_str().unwrap());
    admin.delete(&path).await.expect(204);
    assert_eq!(client.answer().await.unwrap().status, 403);
    listed(&admin, "", 0).await;
}

/// Nothing polls a body that the upstream does not take.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_its_upstream_does_not_take_ends_with_its_credential() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let app = app(&[]).await;
    let url = format!("http://{}", listener.local_addr().unwrap());
    put_in_front(&app, &url, REQUIRED);
    let admin = app.admin().await;
    let (key, path) = key(&admin).await;
    let mut client = Raw::connect(address(&app)).await;
    let sending = tokio::spawn(async move {
        let chunk = format!("100000\r\n{}\r\n", "x".repeat(0x10_0000));
        client.send(head(&key)).await;
        for _ in 0..9 {
            client.send(&chunk).await;
        }
    });
    let (mut upstream, _) = listener.accept().await.unwrap();
    listed(&admin, "?kind=upload", 1).await;
    tokio::time::sleep(Duration::from_millis(500)).await;

    admin.delete(&path).await.expect(204);
    let taken = Instant::now();
    let record = &recorded(&app, 1).await[0];
    assert_eq!((&record["status"], &record["outcome"]), (&401.into(), &"cut".into()));
    assert!(taken.elapsed() < SOON, "{:?}", taken.elapsed());
    listed(&admin, "", 0).await;
    let mut seen = vec![];
    let _ = upstream.read_to_end(&mut seen).await;
    assert!(!seen.ends_with(b"0\r\n\r\n"));
    sending.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_sends_byte_by_byte_is_not_waited_for() {
    let recorder = Recorder::start(ok).await;
    let app = app(&[("SERVER_IO_TIMEOUT_SECONDS", "1")]).await;
    put_in_front(&app, &recorder.url(), "auth = 'public'");
    // Slow, and too slow by far.
    for (chunk, status) in [(1024, 200), (1, 408)] {
        let mut client = Raw::connect(address(&app)).await;
        client.send(head("")).await;
        let text = format!("{chunk:x}\r\n{}\r\n", "x".repeat(chunk));
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(2500) {
            client.send(&text).await;
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        client.send("0\r\n\r\n").await;
        assert_eq!(client.answer().await.unwrap().status, status, "{chunk}");
    }
    assert_eq!(recorder.take().len(), 1);
}
