//! An event is with its client as soon as the upstream has said it.

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::{FREE, address, put_in_front};
use crate::support::{Options, TestApp};

const EVENTS: usize = 300;
/// The promise for the middle of many.
const QUICK: Duration = Duration::from_millis(1);
/// What is allowed beside it where other tests have the processors: rounds that
/// are tried until one is not disturbed.
const ROUNDS: usize = 8;

/// The median of the times from sending an event to its arrival.
async fn median(client: &mut TcpStream, upstream: &mut TcpStream) -> Duration {
    let mut times = vec![];
    let mut buffer = vec![0; 4096];
    for number in 0..EVENTS {
        let text = format!("data: event {number:05}\n\n");
        let chunk = format!("{:x}\r\n{text}\r\n", text.len());
        let sent = Instant::now();
        upstream.write_all(chunk.as_bytes()).await.unwrap();
        // The first byte of it is what counts.
        let read = client.read(&mut buffer).await.unwrap();
        times.push(sent.elapsed());
        let mut seen = buffer[..read].to_vec();
        while crate::support::raw::find(&seen, text.as_bytes()).is_none() {
            assert!(client.read_buf(&mut seen).await.unwrap() > 0, "it ended");
        }
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    times.sort_unstable();
    times[EVENTS / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_arrives_within_a_millisecond() {
    let settings = FREE.map(|(name, value)| (name, value.to_owned())).to_vec();
    let app = TestApp::with(Options { settings, ..Options::default() }).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    put_in_front(&app, &url, "auth = 'public'");

    let mut client = TcpStream::connect(address(&app)).await.unwrap();
    client.set_nodelay(true).unwrap();
    client.write_all(b"GET /up/a HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let (mut upstream, _) = listener.accept().await.unwrap();
    upstream.set_nodelay(true).unwrap();
    let mut request = vec![0; 4096];
    assert!(upstream.read(&mut request).await.unwrap() > 0);
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n";
    let head = format!("{head}transfer-encoding: chunked\r\n\r\n");
    upstream.write_all(head.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    while crate::support::raw::find(&seen, b"\r\n\r\n").is_none() {
        assert!(client.read_buf(&mut seen).await.unwrap() > 0);
    }
    let mut medians = vec![];
    while medians.last().is_none_or(|last| *last >= QUICK) {
        assert!(medians.len() < ROUNDS, "{medians:?}");
        medians.push(median(&mut client, &mut upstream).await);
    }
    println!("medians {medians:?}");
}
