//! Clients that leave in the middle (G-127).

use std::time::Duration;

use rand::RngExt as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use super::{FREE, HELLO, Source, address, put_in_front};
use crate::support::{Options, TestApp, raw::find};

const ROUNDS: usize = 1000;
/// At the same time.
const AT_ONCE: usize = 40;
/// Of the events that each is sent, bytes.
const BODY: usize = 2000;

/// Reads to a random byte of the body and leaves, by a reset or by a close.
async fn leave(app: std::net::SocketAddr, at: usize, reset: bool) {
    let mut socket = TcpStream::connect(app).await.unwrap();
    socket.write_all(b"GET /up/a HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut seen = Vec::new();
    loop {
        if let Some(head) = find(&seen, b"\r\n\r\n")
            && seen.len() >= head + 4 + at
        {
            break;
        }
        assert!(socket.read_buf(&mut seen).await.unwrap() > 0, "it ended by itself");
    }
    if reset {
        socket.set_zero_linger().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_at_any_byte_is_recorded_once_and_stops_the_upstream() {
    let settings = FREE.map(|(name, value)| (name, value.to_owned())).to_vec();
    let app = TestApp::with(Options { settings, ..Options::default() }).await;
    let source = Source::start().await;
    put_in_front(&app, &source.url(), "auth = 'public'");
    let (address, mut seed) = (address(&app), rand::rng());
    let mut leaving = JoinSet::new();
    let mut begun = 0;
    while begun < ROUNDS || !leaving.is_empty() {
        while begun < ROUNDS && leaving.len() < AT_ONCE {
            // Of the framed body, and not beyond its first event in some rounds.
            let at = seed.random_range(0..BODY);
            leaving.spawn(leave(address, at, seed.random()));
            begun += 1;
        }
        // Every answer goes on for as long as somebody listens.
        let open = source.open.lock().unwrap().len();
        for number in open.saturating_sub(AT_ONCE * 2)..open {
            source.send(number, &"data: 0123456789\n\n".repeat(8));
        }
        let _ = tokio::time::timeout(Duration::from_millis(2), leaving.join_next()).await;
    }
    source.closed(ROUNDS).await;
    assert_eq!(source.recorder.deliveries().len(), ROUNDS);
    let mut records = vec![];
    let mut page = tollgate::domain::page::PageRequest::FIRST;
    let usage = &app.app.services.usage;
    crate::gateway::recorded(&app, 200).await;
    loop {
        let filter = tollgate::services::usage::RequestFilter::default();
        let found = usage.requests(&filter, page).await.unwrap();
        records.extend(found.items);
        let Some(next) = page.followed_by(found.next) else { break };
        page = next;
    }
    assert_eq!(records.len(), ROUNDS);
    for record in &records {
        assert_eq!(record.outcome, tollgate::domain::usage::Outcome::Aborted, "{record:?}");
        assert_eq!(record.status, 200);
        // Something may be on its way that nobody takes.
        assert!(record.bytes_out >= HELLO.len() as u64, "{record:?}");
    }
    assert_eq!(app.app.services.streams.count(tollgate::domain::stream::StreamKind::Sse), 0);
}
