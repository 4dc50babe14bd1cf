//! A pass is dead at its end, and so is what it opened (RELIABILITY G-59).

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use chrono::TimeDelta;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tollgate::domain::clock::FakeClock;

use super::{Given, HELLO, pass_of};
use crate::{
    gateway::recorded,
    support::{
        LATE, Options, TestApp, epoch,
        raw::Raw,
        recorder::{Recorder, Reply},
    },
};

/// What a stream has left of its pass, and how late its end may be noticed on a
/// busy machine.
const LEFT: Duration = Duration::from_millis(600);

#[tokio::test]
async fn a_pass_opens_up_to_its_end_and_not_at_it() {
    for hours in [1, 24, 720] {
        let (app, clock) = TestApp::with_clock().await;
        let owner = super::id_of(&app.user("ada").await).await;
        let pass = super::give(&app, owner, hours).await;
        let client = pass.bearer(&app);
        client.get(HELLO).await.expect(200);
        clock.advance(TimeDelta::hours(hours.into()) - TimeDelta::microseconds(1));
        client.get(HELLO).await.expect(200);
        let status = pass.status(&app).await;
        assert_eq!((status.text("status"), &status.json["is_active"]), ("active", &true.into()));
        // The copy is a microsecond old.
        let before = app.app.db.acquired();
        clock.advance(TimeDelta::microseconds(1));
        client.get(HELLO).await.expect_problem(401, "invalid_credential");
        let status = pass.status(&app).await;
        assert_eq!((status.text("status"), &status.json["is_active"]), ("expired", &false.into()));
        assert_eq!(app.app.db.acquired(), before);
        clock.advance(TimeDelta::hours(1));
        client.get(HELLO).await.expect_problem(401, "invalid_credential");
    }
}

/// An instance in front of `url`, and a pass that ends in [`LEFT`].
async fn near_the_end(url: &str) -> (TestApp, Given) {
    let clock = FakeClock::starting_at(epoch());
    let settings = [("UPSTREAM_URL", url), ("UPSTREAM_MOUNT", "/")];
    let settings = settings.map(|(name, value)| (name, value.to_owned())).to_vec();
    let app = TestApp::with(Options { clock: clock.clone(), settings, ..Options::default() }).await;
    let pass = pass_of(&app, "ada").await;
    let begun = app.app.services.passes.activate(&pass.hash(), pass.id).await.unwrap();
    assert!(begun.is_some());
    clock.advance(TimeDelta::hours(1) - TimeDelta::from_std(LEFT).unwrap());
    (app, pass)
}

fn request(pass: &Given) -> String {
    format!("GET /s HTTP/1.1\r\nHost: a\r\nX-Access-Token: {}\r\n\r\n", pass.text)
}

fn assert_at_the_end(begin: Instant, what: &str) {
    let taken = begin.elapsed();
    assert!(taken >= LEFT && taken < LEFT + LATE, "{what}: {taken:?}");
}

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
async fn a_stream_on_which_nothing_moves_ends_with_its_pass() {
    let (recorder, upstream) = streaming().await;
    let (app, pass) = near_the_end(&recorder.url()).await;
    let mut client = Raw::connect(app.running.as_ref().unwrap().address()).await;
    let begin = Instant::now();
    client.send(request(&pass)).await;
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked";
    upstream.send(format!("{head}\r\n\r\n6\r\ndata: \r\n").into_bytes()).unwrap();
    let answer = client.answer().await.unwrap();
    assert_at_the_end(begin, "silent");
    assert_eq!((answer.status, answer.text(), answer.complete), (200, "data: ", false));
    let record = &recorded(&app, 1).await[0];
    assert_eq!((&record["outcome"], &record["bytes_out"]), (&"cut".into(), &6.into()));
}

/// An upstream whose answer has no end and is always ready.
async fn firehose(head: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        let _ = socket.read(&mut request).await;
        let body = vec![b'x'; 0x10000];
        let _ = socket.write_all(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n").as_bytes()).await;
        let chunk = if head.starts_with("content-length") {
            body
        } else {
            [b"10000\r\n".to_vec(), body, b"\r\n".to_vec()].concat()
        };
        while socket.write_all(&chunk).await.is_ok() {}
    });
    url
}

/// Takes all there is; how much it was.
async fn drain(mut socket: TcpStream) -> u64 {
    let (mut buffer, mut taken) = (vec![0; 1 << 20], 0);
    let begin = Instant::now();
    loop {
        assert!(begin.elapsed() < LEFT + LATE, "it goes on after {taken} bytes");
        let read = tokio::time::timeout(Duration::from_secs(20), socket.read(&mut buffer));
        match read.await.expect("the server sends nothing and does not close") {
            Ok(0) | Err(_) => return taken,
            Ok(read) => taken += read as u64,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_whose_bytes_are_always_ready_ends_with_its_pass() {
    for head in ["content-length: 1000000000000", "transfer-encoding: chunked"] {
        let (app, pass) = near_the_end(&firehose(head).await).await;
        let address = app.running.as_ref().unwrap().address();
        let mut socket = TcpStream::connect(address).await.unwrap();
        let begin = Instant::now();
        socket.write_all(request(&pass).as_bytes()).await.unwrap();
        let taken = drain(socket).await;
        assert_at_the_end(begin, head);
        assert!(taken > 1_000_000, "{head}: {taken} bytes are no stream");
        let record = &recorded(&app, 1).await[0];
        assert_eq!((&record["outcome"], &record["status"]), (&"cut".into(), &200.into()));
        assert!(record["bytes_out"].as_u64().unwrap() > 1_000_000, "{record}");
    }
}

#[tokio::test]
async fn an_upload_that_goes_on_and_on_ends_with_its_pass() {
    let (recorder, _) = streaming().await;
    let (app, pass) = near_the_end(&recorder.url()).await;
    let mut client = Raw::connect(app.running.as_ref().unwrap().address()).await;
    let begin = Instant::now();
    let head = request(&pass).replacen("GET", "POST", 1);
    let head = head.replacen("Host: a", "Host: a\r\nContent-Length: 1000000", 1);
    client.send(head).await;
    while begin.elapsed() < LEFT {
        client.send("x").await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let answer = client.answer().await.unwrap();
    assert_at_the_end(begin, "upload");
    assert_eq!((answer.status, &answer.json()["code"]), (401, &"invalid_credential".into()));
    assert!(recorder.take().is_empty(), "never whole");
    let record = &recorded(&app, 1).await[0];
    assert_eq!((&record["outcome"], &record["status"]), (&"failed".into(), &401.into()));
}

/// A request that was let in before the end gets its answer.
#[tokio::test]
async fn a_short_answer_is_given_whole() {
    let (recorder, upstream) = streaming().await;
    let (app, pass) = near_the_end(&recorder.url()).await;
    let mut client = Raw::connect(app.running.as_ref().unwrap().address()).await;
    client.send(request(&pass)).await;
    upstream.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfirst".to_vec()).unwrap();
    client.until(b"first").await;
    tokio::time::sleep(LEFT + Duration::from_millis(200)).await;
    upstream.send(b"-last".to_vec()).unwrap();
    let answer = client.answer().await.unwrap();
    assert_eq!((answer.text(), answer.complete), ("first-last", true));
    assert_eq!(recorded(&app, 1).await[0]["outcome"], "completed");
}

/// A login's or key's stream has no such end.
#[tokio::test]
async fn a_stream_opened_by_a_key_goes_on() {
    let (recorder, upstream) = streaming().await;
    let (app, _) = near_the_end(&recorder.url()).await;
    let (_, key) = app.key(&app.admin().await, serde_json::json!({ "name": "k" })).await;
    let streaming = tokio::spawn(async move { key.get("/s").await });
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    upstream.send(format!("{head}1\r\nx\r\n").into_bytes()).unwrap();
    tokio::time::sleep(LEFT + Duration::from_millis(200)).await;
    upstream.send(b"1\r\ny\r\n0\r\n\r\n".to_vec()).unwrap();
    assert_eq!(streaming.await.unwrap().expect(200).body, "xy");
}
