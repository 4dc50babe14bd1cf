//! Silence ends in time, on both sides, and motion does not.

use std::time::{Duration, Instant};

use super::{address, in_front_of, recorded};
use crate::support::{
    LATE,
    raw::Raw,
    recorder::{Recorder, Reply, ok},
};

const PUBLIC: (&str, &str) = ("UPSTREAM_AUTH", "public");
/// A limit; its end may be noticed late on a busy machine.
const SECOND: Duration = Duration::from_secs(1);

fn assert_about_a_second(begin: Instant, what: &str) {
    let taken = begin.elapsed();
    assert!(taken >= Duration::from_millis(950) && taken < SECOND + LATE, "{what}: {taken:?}");
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_is_a_504() {
    let recorder = Recorder::start(|_| Reply::Hang).await;
    let app = in_front_of(&recorder, &[PUBLIC, ("UPSTREAM_FIRST_BYTE_TIMEOUT_SECONDS", "1")]).await;
    let begin = Instant::now();
    let request = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx";
    let answer = Raw::exchange(address(&app), request).await;
    assert_about_a_second(begin, "no answer");
    assert_eq!((answer.status, &answer.json()["code"]), (504, &"upstream_timeout".into()));
    assert_eq!(recorded(&app, 1).await[0]["status"], 504);
    // Its connection is given up, not used again.
    assert_eq!((recorder.deliveries().len(), recorder.connections()), (1, 1));
    let begin = Instant::now();
    while recorder.closed() == 0 {
        assert!(begin.elapsed() < SECOND + LATE, "the connection stays open");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_slow_upload_is_not_a_slow_answer() {
    let recorder = Recorder::start(ok).await;
    let app = in_front_of(&recorder, &[PUBLIC, ("UPSTREAM_FIRST_BYTE_TIMEOUT_SECONDS", "1")]).await;
    let mut client = Raw::connect(address(&app)).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n").await;
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        client.send("x").await;
    }
    assert_eq!(client.answer().await.unwrap().status, 200);
}

#[tokio::test]
async fn a_client_that_stops_within_its_body_is_cut() {
    let recorder = Recorder::start(ok).await;
    let app = in_front_of(&recorder, &[PUBLIC, ("SERVER_IO_TIMEOUT_SECONDS", "1")]).await;
    for path in ["/x", "/api/v1/auth/login"] {
        let mut client = Raw::connect(address(&app)).await;
        let begin = Instant::now();
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n");
        client.send(format!("{head}Content-Length: 8\r\n\r\nhalf")).await;
        if let Some(answer) = client.answer().await {
            assert!(matches!(answer.status, 400 | 408), "{path}: {}", answer.status);
        }
        assert_about_a_second(begin, path);
    }
    assert!(recorder.take().is_empty());
}

#[tokio::test]
async fn heads_have_a_total_time_limit() {
    let recorder = Recorder::start(ok).await;
    let app = in_front_of(&recorder, &[PUBLIC, ("SERVER_HEADER_TIMEOUT_SECONDS", "1")]).await;
    // Nothing at all, half a preface of HTTP/2, half a head, and a head that
    // comes byte by byte.
    for begin_with in ["", "PRI * HTT", "GET / HTTP/1.1\r\nHost: a\r\n", "G"] {
        let mut client = Raw::connect(address(&app)).await;
        let begin = Instant::now();
        client.send(begin_with).await;
        if begin_with == "G" {
            for byte in "ET / HTTP/1.1\r\n".bytes().take(8) {
                tokio::time::sleep(Duration::from_millis(100)).await;
                client.send([byte]).await;
            }
        }
        assert!(client.answer().await.is_none(), "{begin_with:?}");
        assert_about_a_second(begin, begin_with);
    }
    // The same on a connection that has already served a request; and between
    // requests the limit does not run.
    let mut client = Raw::connect(address(&app)).await;
    let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    client.send(request).await;
    assert_eq!(client.answer().await.unwrap().status, 200);
    tokio::time::sleep(SECOND * 3 / 2).await;
    client.send(request).await;
    assert_eq!(client.answer().await.unwrap().status, 200);
    let begin = Instant::now();
    client.send("GET / HTTP/1.1\r\n").await;
    assert!(client.answer().await.is_none());
    assert_about_a_second(begin, "a second head");
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut() {
    let big = Reply::Send(
        [b"HTTP/1.1 200 OK\r\ncontent-length: 50000000\r\n\r\n".to_vec(), vec![b'x'; 50_000_000]]
            .concat(),
    );
    let big = std::sync::Mutex::new(Some(big));
    let recorder = Recorder::start(move |_| big.lock().unwrap().take().unwrap()).await;
    let app = in_front_of(&recorder, &[PUBLIC, ("SERVER_IO_TIMEOUT_SECONDS", "1")]).await;
    let mut client = Raw::connect(address(&app)).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let begin = Instant::now();
    let record = &recorded(&app, 1).await[0];
    assert_eq!(record["outcome"], "aborted");
    assert!(begin.elapsed() < SECOND + 2 * LATE, "{:?}", begin.elapsed());
    assert!(record["bytes_out"].as_u64().unwrap() < 50_000_000);
}

#[tokio::test]
async fn an_answer_that_stops_moving_is_cut() {
    for (settings, head) in [
        // A short answer has a limit in total, a stream only for its silence.
        (("UPSTREAM_TOTAL_TIMEOUT_SECONDS", "1"), "content-length: 10"),
        (("UPSTREAM_IDLE_TIMEOUT_SECONDS", "1"), "transfer-encoding: chunked"),
    ] {
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        let receiver = std::sync::Mutex::new(Some(receiver));
        let recorder =
            Recorder::start(move |_| Reply::Stream(receiver.lock().unwrap().take().unwrap())).await;
        let app = in_front_of(
            &recorder,
            &[PUBLIC, ("UPSTREAM_FIRST_BYTE_TIMEOUT_SECONDS", "1"), settings],
        )
        .await;
        sender.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n").into_bytes()).unwrap();
        let begin = Instant::now();
        let answer = Raw::exchange(address(&app), "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_about_a_second(begin, head);
        assert!(!answer.complete, "{head}");
        assert_eq!(recorded(&app, 1).await[0]["outcome"], "failed");
    }
}

#[tokio::test]
async fn stopping_finishes_what_is_under_way_and_takes_nothing_new() {
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    let receiver = std::sync::Mutex::new(Some(receiver));
    let recorder =
        Recorder::start(move |_| Reply::Stream(receiver.lock().unwrap().take().unwrap())).await;
    let mut app = in_front_of(&recorder, &[PUBLIC]).await;
    let target = address(&app);
    let mut idle = Raw::connect(target).await;
    idle.send("GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(idle.answer().await.unwrap().status, 200);
    let mut client = Raw::connect(target).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    sender.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfirst".to_vec()).unwrap();
    client.until(b"first").await;

    let running = app.running.take().unwrap();
    let stopping = tokio::spawn(running.stop(Duration::from_secs(10)));
    // An idle connection ends at once, and nobody new is let in.
    assert!(idle.answer().await.is_none());
    let begin = Instant::now();
    while tokio::net::TcpStream::connect(target).await.is_ok() {
        assert!(begin.elapsed() < SECOND + LATE, "still listening");
    }
    sender.send(b"-last".to_vec()).unwrap();
    let answer = client.answer().await.unwrap();
    assert_eq!((answer.text(), answer.complete), ("first-last", true));
    drop(client);
    assert_eq!(stopping.await.unwrap(), tollgate::server::Stopped::Drained);
}

#[tokio::test]
async fn at_the_deadline_the_rest_is_cut() {
    let recorder = Recorder::start(|_| Reply::Hang).await;
    let mut app = in_front_of(&recorder, &[PUBLIC]).await;
    let mut client = Raw::connect(address(&app)).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    while recorder.deliveries().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let begin = Instant::now();
    let stopped = app.running.take().unwrap().stop(SECOND).await;
    assert_eq!(stopped, tollgate::server::Stopped::Cut);
    assert_about_a_second(begin, "the deadline");
    assert!(client.answer().await.is_none());
    app.flush().await;
    assert_eq!(app.app.services.usage.pending(), 0);
}
