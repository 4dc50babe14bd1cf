//! Clients that leave in the middle (G-127).

use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use rand::RngExt as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};
use tollgate::domain::{stream::StreamKind, usage::Outcome};

use super::{FREE, HELLO, Source, address, put_in_front};
use crate::support::{Options, TestApp, raw::find};

const ROUNDS: usize = 1000;
/// At the same time.
const AT_ONCE: usize = 40;
/// Of the events that each is sent, bytes.
const BODY: usize = 2000;
/// How long the upstream's connection may outlive its client. A thousand of them
/// keep the machine busy; an answer that nobody writes on stays for a minute.
const CLOSED_WITHIN: Duration = Duration::from_secs(10);

/// A client that has left.
struct Left {
    number: usize,
    /// Bytes of the events that it read.
    read: usize,
    /// How long the answer had gone on by then.
    after: Duration,
    at: Instant,
}

/// Reads to some byte of the body and leaves, by a reset or by a close.
async fn leave(app: SocketAddr, number: usize, at: usize, reset: bool) -> Left {
    let mut socket = TcpStream::connect(app).await.unwrap();
    let request = format!("GET /up/{number} HTTP/1.1\r\nHost: a\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let (mut seen, mut begun) = (Vec::new(), None);
    let body = loop {
        if let Some(head) = find(&seen, b"\r\n\r\n") {
            begun.get_or_insert_with(Instant::now);
            if seen.len() >= head + 4 + at {
                break head + 4;
            }
        }
        assert!(socket.read_buf(&mut seen).await.unwrap() > 0, "it ended by itself");
    };
    let left = Instant::now();
    if reset {
        socket.set_zero_linger().unwrap();
    }
    Left { number, read: unchunked(&seen[body..]), after: left - begun.unwrap(), at: left }
}

/// How many bytes stand in these chunks, the last of which may be cut anywhere.
fn unchunked(mut bytes: &[u8]) -> usize {
    let mut data = 0;
    while let Some(line) = find(bytes, b"\r\n") {
        let length = std::str::from_utf8(&bytes[..line]).unwrap();
        let length = usize::from_str_radix(length, 16).unwrap();
        bytes = &bytes[line + 2..];
        data += length.min(bytes.len());
        bytes = bytes.get(length + 2..).unwrap_or_default();
    }
    data
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_at_any_byte_is_recorded_once_and_stops_the_upstream() {
    let settings = FREE.map(|(name, value)| (name, value.to_owned())).to_vec();
    let app = TestApp::with(Options { settings, ..Options::default() }).await;
    let source = Source::start().await;
    put_in_front(&app, &source.url(), "auth = 'public'");
    let (address, mut seed) = (address(&app), rand::rng());
    let (mut leaving, mut closing) = (JoinSet::new(), JoinSet::new());
    let (mut begun, mut read, start) = (0, HashMap::new(), Instant::now());
    // What each answer was given, by its number at the source.
    let (mut sent, events) = (vec![], "data: 0123456789\n\n".repeat(8));
    while begun < ROUNDS || !leaving.is_empty() {
        while begun < ROUNDS && leaving.len() < AT_ONCE {
            // Of the framed body, and not beyond its first event in some rounds.
            let at = seed.random_range(0..BODY);
            leaving.spawn(leave(address, begun, at, seed.random()));
            begun += 1;
        }
        // Every answer goes on for as long as somebody listens.
        sent.resize(source.open.lock().unwrap().len(), HELLO.len());
        let open = sent.len();
        for (number, sent) in sent.iter_mut().enumerate().skip(open.saturating_sub(AT_ONCE * 2)) {
            source.send(number, &events);
            *sent += events.len();
        }
        let Ok(Some(left)) = timeout(Duration::from_millis(2), leaving.join_next()).await else {
            continue;
        };
        let left = left.unwrap();
        // The source's side of it, which is to be gone soon.
        let path = format!("/{}", left.number);
        let asked = source.asked.lock().unwrap().iter().position(|asked| *asked == path).unwrap();
        let upstream = source.open.lock().unwrap()[asked].clone();
        let at = left.at;
        closing.spawn(async move {
            upstream.closed().await;
            at.elapsed()
        });
        read.insert(format!("/up{path}"), (left, asked));
    }
    let closed = timeout(CLOSED_WITHIN, closing.join_all()).await.expect("all are closed");
    let slowest = closed.into_iter().max().unwrap();
    assert!(slowest <= CLOSED_WITHIN, "{slowest:?}");
    source.closed(ROUNDS).await;
    assert_eq!(source.recorder.deliveries().len(), ROUNDS);
    let records = crate::gateway::all_recorded(&app, ROUNDS).await;
    assert_eq!(records.len(), ROUNDS);
    let whole = start.elapsed().as_micros();
    for record in &records {
        assert_eq!((record.outcome, record.status), (Outcome::Aborted, 200), "{record:?}");
        // Each was asked for once, so each is recorded once.
        let (left, asked) = read.remove(&record.path).unwrap();
        // Something may be on its way that nobody takes.
        let bytes = usize::try_from(record.bytes_out).unwrap();
        let (least, most) = (left.read.max(HELLO.len()), sent[asked]);
        assert!((least..=most).contains(&bytes), "{least}..={most}: {record:?}");
        let duration = u128::from(record.duration_us);
        assert!(
            (left.after.as_micros()..=whole).contains(&duration),
            "{:?} {record:?}",
            left.after
        );
    }
    assert_eq!(app.app.services.streams.count(StreamKind::Sse), 0);
}
