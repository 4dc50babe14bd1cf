//! No more connections than a target may have, and no more who wait for one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinSet,
};

use super::{address, get, public, targets, with};
use crate::support::{
    LATE, Options, TestApp,
    raw::Raw,
    recorder::{Recorder, Reply, ok},
};

/// Takes its time, and knows how many connections were open at most.
struct Counting {
    url: String,
    most: Arc<AtomicUsize>,
}

impl Counting {
    async fn start(delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let seen = most.clone();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let (open, seen) = (open.clone(), seen.clone());
                tokio::spawn(async move {
                    seen.fetch_max(open.fetch_add(1, SeqCst) + 1, SeqCst);
                    let mut buffer = vec![];
                    while let Ok(1..) = socket.read_buf(&mut buffer).await {
                        if buffer.ends_with(b"\r\n\r\n") {
                            buffer.clear();
                            tokio::time::sleep(delay).await;
                            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                            if socket.write_all(answer).await.is_err() {
                                break;
                            }
                        }
                    }
                    open.fetch_sub(1, SeqCst);
                });
            }
        });
        Self { url, most }
    }
}

async fn limited(url: &str, rest: &str, workers: &str) -> TestApp {
    let settings = vec![("SERVER_WORKERS", workers.to_owned())];
    let options = Options { settings, ..Options::default() };
    with(&public(&format!("url='{url}'\n{rest}")), options).await
}

/// Many at once, each on a connection of its own: their statuses.
async fn all_at_once(app: &TestApp, count: usize) -> Vec<u16> {
    let mut clients = JoinSet::new();
    for _ in 0..count {
        let to = address(app);
        clients.spawn(async move {
            Raw::exchange(to, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.status
        });
    }
    clients.join_all().await
}

#[tokio::test]
async fn a_target_never_has_more_connections_than_it_may() {
    for (most, workers) in [(1, "1"), (1, "4"), (3, "2"), (3, "4")] {
        let upstream = Counting::start(Duration::from_millis(3)).await;
        let rest = format!("max_connections={most}");
        let app = limited(&upstream.url, &rest, workers).await;
        for _ in 0..2 {
            let statuses = all_at_once(&app, 120).await;
            assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
        }
        // A connection that is closed is counted by the other side a moment longer.
        let seen = upstream.most.load(SeqCst);
        assert!(seen <= most + usize::from(workers != "1"), "{seen} of {most}, {workers} workers");
        let target = &targets(&app).await[0];
        assert_eq!((&target["pending"], &target["in_flight"]), (&0.into(), &0.into()));
        assert!(target["connections"].as_u64().unwrap() <= most as u64, "{target}");
    }
}

/// The idle connections of a worker that has nothing to do are not lost to the
/// others.
#[tokio::test]
async fn an_idle_connection_elsewhere_keeps_nobody_waiting() {
    let upstream = Counting::start(Duration::ZERO).await;
    let rest = "max_connections=1\npool_idle_seconds=600\nfirst_byte_timeout_seconds=60";
    let app = limited(&upstream.url, rest, "4").await;
    // Each connection is some worker's; all of them get their turn.
    for _ in 0..60 {
        let begun = Instant::now();
        assert_eq!(get(&app, "/").await.status, 200);
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn more_than_may_wait_are_refused_at_once() {
    let recorder = Recorder::start(|_| Reply::Hang).await;
    let rest = "max_connections=2\nmax_pending=1\nfirst_byte_timeout_seconds=60";
    let app = limited(&recorder.url(), rest, "1").await;
    let mut clients = vec![];
    for _ in 0..3 {
        let mut client = Raw::connect(address(&app)).await;
        client.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").await;
        clients.push(client);
    }
    loop {
        let target = &targets(&app).await[0];
        if target["pending"] == 1 && target["connections"] == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for _ in 0..10 {
        let begun = Instant::now();
        let answer = get(&app, "/more").await;
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        assert_eq!((answer.status, &answer.json()["code"]), (503, &"upstream_unavailable".into()));
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    // Of those that hang one leaves: who waits is next.
    assert_eq!(recorder.take().len(), 2);
    clients.remove(0).reset();
    while recorder.take().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // And whoever stops waiting leaves its place.
    drop(clients);
    loop {
        let target = &targets(&app).await[0];
        if target["pending"] == 0 && target["in_flight"] == 0 && target["connections"] == 0 {
            assert_eq!((&target["breaker"], &target["last_error"]), (&"closed".into(), &().into()));
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn nobody_waits_for_ever() {
    let recorder = Recorder::start(|delivery| {
        if delivery.request_line().contains("/hang") { Reply::Hang } else { ok(delivery) }
    })
    .await;
    let rest = "max_connections=1\nfirst_byte_timeout_seconds=0.5";
    let app = limited(&recorder.url(), rest, "1").await;
    let mut first = Raw::connect(address(&app)).await;
    first.send("GET /hang HTTP/1.1\r\nHost: a\r\n\r\n").await;
    while recorder.take().is_empty() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let begun = Instant::now();
    let second = get(&app, "/").await;
    let took = begun.elapsed();
    // The first gave up a moment earlier, or the second did: either is in time.
    assert!(second.status == 200 || second.status == 503, "{}", second.status);
    assert!(took < Duration::from_millis(500) + LATE, "{took:?}");
    assert_eq!(first.answer().await.unwrap().status, 504);
    assert_eq!(get(&app, "/").await.status, 200, "the connection was given back");
}
