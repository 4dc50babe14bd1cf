//! Bytes pass as they come, both ways, and are counted however it ends.

use std::sync::Mutex;

use tokio::sync::mpsc;

use super::{address, admin_key, in_front_of, recorded};
use crate::support::{
    raw::Raw,
    recorder::{Recorder, Reply, ok},
};

const PUBLIC: (&str, &str) = ("UPSTREAM_AUTH", "public");

/// An upstream that answers its only request with what is sent here.
async fn streaming() -> (Recorder, mpsc::UnboundedSender<Vec<u8>>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let receiver = Mutex::new(Some(receiver));
    let recorder = Recorder::start(move |_| {
        Reply::Stream(receiver.lock().unwrap().take().expect("one request"))
    })
    .await;
    (recorder, sender)
}

#[tokio::test]
async fn an_event_arrives_before_the_next_one_is_made() {
    let (recorder, upstream) = streaming().await;
    let app = in_front_of(&recorder, &[PUBLIC]).await;
    let mut client = Raw::connect(address(&app)).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked";
    upstream.send(format!("{head}\r\n\r\n").into_bytes()).unwrap();
    client.until(b"\r\n\r\n").await;
    for event in 0..50 {
        let data = format!("data: event-{event:03}\n\n");
        upstream.send(format!("{:x}\r\n{data}\r\n", data.len()).into_bytes()).unwrap();
        client.until(data.as_bytes()).await;
    }
    upstream.send(b"0\r\n\r\n".to_vec()).unwrap();
    client.until(b"\r\n0\r\n\r\n").await;
    let record = &recorded(&app, 1).await[0];
    assert_eq!((&record["outcome"], &record["bytes_out"]), (&"completed".into(), &850.into()));
}

#[tokio::test]
async fn a_request_body_passes_as_it_comes() {
    // Answers as soon as it has the head and the first bytes, so it is plain
    // sockets here.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = super::in_front_of_url(&url, &[PUBLIC]).await;
    let mut client = Raw::connect(address(&app)).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    client.send("5\r\nfirst\r\n").await;
    let (mut upstream, _) = listener.accept().await.unwrap();
    let mut seen = Vec::new();
    for (part, next) in [("first", "6\r\nsecond\r\n"), ("second", "0\r\n\r\n")] {
        while crate::support::raw::find(&seen, part.as_bytes()).is_none() {
            let read = tokio::io::AsyncReadExt::read_buf(&mut upstream, &mut seen).await.unwrap();
            assert!(read > 0, "the upload ended before {part}");
        }
        client.send(next).await;
    }
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut upstream, answer).await.unwrap();
    assert_eq!(client.answer().await.unwrap().status, 200);
    assert_eq!(recorded(&app, 1).await[0]["bytes_in"], 11);
}

#[tokio::test]
async fn a_client_that_leaves_is_recorded_with_what_it_got() {
    for _ in 0..20 {
        let (recorder, upstream) = streaming().await;
        let app = in_front_of(&recorder, &[]).await;
        let key = admin_key(&app).await;
        let mut client = Raw::connect(address(&app)).await;
        client.send(format!("GET /s HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\n\r\n")).await;
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n";
        upstream.send(format!("{head}0123456789").into_bytes()).unwrap();
        client.until(b"0123456789").await;
        client.reset();
        let record = &recorded(&app, 1).await[0];
        assert_eq!(record["outcome"], "aborted", "{record}");
        assert_eq!((&record["status"], &record["bytes_out"]), (&200.into(), &10.into()));
        assert!(record["key_id"].is_string() && record["path"] == "/s", "{record}");
        // The upstream's connection is not left behind.
        for _ in 0..200 {
            if recorder.closed() == 1 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert_eq!(recorder.closed(), 1);
    }
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_is_recorded_too() {
    let recorder = Recorder::start(|_| Reply::Hang).await;
    let app = in_front_of(&recorder, &[PUBLIC]).await;
    let mut client = Raw::connect(address(&app)).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody").await;
    while recorder.deliveries().is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    client.reset();
    let record = &recorded(&app, 1).await[0];
    assert_eq!((&record["outcome"], &record["status"]), (&"aborted".into(), &499.into()));
    assert_eq!(record["bytes_in"], 4);
}

#[tokio::test]
async fn every_kind_of_answer_counts_as_completed() {
    for (answer, method, bytes) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", "GET", 5),
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "GET", 0),
        ("HTTP/1.1 204 No Content\r\n\r\n", "GET", 0),
        ("HTTP/1.1 304 Not Modified\r\netag: \"a\"\r\n\r\n", "GET", 0),
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", "HEAD", 0),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", "GET", 2),
        ("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nclosed", "GET", 6),
    ] {
        let recorder =
            Recorder::start(move |_| Reply::SendThenClose(answer.as_bytes().to_vec())).await;
        let app = in_front_of(&recorder, &[PUBLIC]).await;
        let mut client = Raw::connect(address(&app)).await;
        client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await;
        assert!(client.rest().await);
        let record = &recorded(&app, 1).await[0];
        assert_eq!(record["outcome"], "completed", "{answer:?}");
        assert_eq!(record["bytes_out"], bytes, "{answer:?}");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let recorder = Recorder::start(ok).await;
    let app = in_front_of(&recorder, &[PUBLIC, ("UPSTREAM_MAX_BODY_BYTES", "1000")]).await;
    // A declared length is refused before a byte of the body is sent.
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n";
    let answer = Raw::exchange(address(&app), head).await;
    assert_eq!((answer.status, &answer.json()["code"]), (413, &"body_too_large".into()));
    assert_eq!(recorder.connections(), 0);
    // Without one, as soon as it is crossed.
    let body = "x".repeat(600);
    let chunk = format!("258\r\n{body}\r\n");
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answer = Raw::exchange(address(&app), format!("{head}{chunk}{chunk}")).await;
    assert_eq!(answer.status, 413);
    assert!(recorder.take().is_empty());
    let fits =
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{}", "x".repeat(1000));
    assert_eq!(Raw::exchange(address(&app), fits).await.status, 200);
}

#[tokio::test]
async fn large_bodies_pass_whole_both_ways() {
    let recorder = Recorder::start(|delivery| {
        let mut answer =
            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", delivery.body.len())
                .into_bytes();
        answer.extend(&delivery.body);
        Reply::Send(answer)
    })
    .await;
    let app = in_front_of(&recorder, &[PUBLIC]).await;
    let body: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let mut request =
        format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    request.extend(&body);
    let answer = Raw::exchange(address(&app), request).await;
    assert!(answer.complete && answer.body == body);
    let record = &recorded(&app, 1).await[0];
    assert_eq!((&record["bytes_in"], &record["bytes_out"]), (&3_000_000.into(), &3_000_000.into()));
}
