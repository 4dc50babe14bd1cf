//! A request is delivered at most once, and its end is never faked.

use std::{
    collections::HashMap,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};

use rand::RngExt as _;
use socket2::{Domain, Type};
use tokio::io::AsyncWriteExt as _;

use super::{address, in_front_of, in_front_of_url, recorded};
use crate::{
    process::alone,
    support::{
        LATE, Options, TestApp,
        raw::Raw,
        recorder::{Recorder, Reply, ok},
    },
    upstreams::resolver::Names,
};

const PUBLIC: (&str, &str) = ("UPSTREAM_AUTH", "public");

#[tokio::test]
async fn a_post_whose_connection_dies_is_delivered_once() {
    // Every third request dies after it was read, so that new connections and
    // pooled ones are both met. Were it half of them, the breaker would open.
    let turn = AtomicUsize::new(0);
    let recorder = Recorder::start(move |delivery| {
        if turn.fetch_add(1, Relaxed).is_multiple_of(3) { Reply::Reset } else { ok(delivery) }
    })
    .await;
    let app = in_front_of(&recorder, &[PUBLIC]).await;
    let mut client = Raw::connect(address(&app)).await;
    for trial in 0..1000 {
        let body = format!("{trial:04}");
        client
            .send(format!("POST /{trial} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n{body}"))
            .await;
        let answer = client.answer().await.unwrap();
        let expected = if trial % 3 == 0 { 502 } else { 200 };
        assert_eq!(answer.status, expected, "trial {trial}");
        let seen = recorder.take();
        assert_eq!(seen.len(), 1, "trial {trial} was delivered {} times", seen.len());
        assert_eq!(seen[0].body, body.as_bytes());
    }
}

#[tokio::test]
async fn a_pooled_connection_that_died_meanwhile_is_replaced() {
    let recorder = Recorder::start(|_| {
        Reply::SendThenClose(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec())
    })
    .await;
    let app = in_front_of(&recorder, &[PUBLIC]).await;
    for trial in 0..100 {
        let request = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx";
        let answer = Raw::exchange(address(&app), request).await;
        assert_eq!(answer.status, 200, "trial {trial}");
        // The close has arrived by the next request.
        while recorder.closed() <= trial {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!((recorder.deliveries().len(), recorder.connections()), (100, 100));
}

/// The upstream closes what is idle just when it is used again, as it would with
/// a `pool_idle` above its own limit. What was written in part is never written
/// again, of a GET neither: it is told from a POST by nothing that we could be
/// sure of, so such a request fails. Only what was wholly unwritten is sent on
/// another connection.
#[tokio::test]
async fn a_connection_that_is_closed_as_it_is_used_brings_nothing_twice() {
    const CLIENTS: usize = 20;
    const EACH: usize = 100;
    let idle = Duration::from_millis(8)..Duration::from_millis(12);
    let recorder = Recorder::closing_idle(idle, ok).await;
    let app = in_front_of(&recorder, &[PUBLIC, ("UPSTREAM_POOL_IDLE_SECONDS", "60")]).await;
    let target = address(&app);
    let clients = (0..CLIENTS).map(|client| async move {
        let mut raw = Raw::connect(target).await;
        let mut failed = vec![];
        for number in 0..EACH {
            let (method, body) = [("GET", ""), ("POST", "x")][number % 2];
            let (path, length) = (format!("/{client}-{number}"), body.len());
            raw.send(format!(
                "{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}"
            ))
            .await;
            let status = raw.answer().await.unwrap().status;
            assert!(matches!(status, 200 | 502), "{path}: {status}");
            failed.extend((status == 502).then_some(path));
            let pause = rand::rng().random_range(8_000..12_500);
            tokio::time::sleep(Duration::from_micros(pause)).await;
        }
        failed
    });
    let failed: Vec<_> = futures_util::future::join_all(clients).await.concat();
    let mut times: HashMap<String, usize> = HashMap::new();
    for delivery in recorder.take() {
        let path = delivery.request_line().split(' ').nth(1).unwrap().to_owned();
        *times.entry(path).or_default() += 1;
    }
    assert!(times.values().all(|times| *times == 1), "{times:?}");
    let lost = CLIENTS * EACH - times.len();
    assert!(lost <= failed.len(), "{lost} of {} came and were not answered", failed.len());
    // The goal of 0.01 % is that of a `pool_idle` below the upstream's limit: see
    // the next test, where none fails. Here every other request meets a close on
    // its way, and those fail that were being written.
    assert!(failed.len() < CLIENTS * EACH / 4, "{} failed", failed.len());
    assert!(recorder.connections() > 200, "{} connections", recorder.connections());
}

/// An upstream that closes after a second what is idle, and a `pool_idle` below
/// that, as 3 s are below the 5 s of Node.
#[tokio::test]
async fn a_connection_that_may_be_closed_soon_is_not_used() {
    let idle = Duration::from_millis(980)..Duration::from_millis(1020);
    let recorder = Recorder::closing_idle(idle, ok).await;
    let app = in_front_of(&recorder, &[PUBLIC, ("UPSTREAM_POOL_IDLE_SECONDS", "0.5")]).await;
    let target = address(&app);
    // Each has the pool to itself for its own connection only by chance, so what
    // counts is that none fails at any of these pauses.
    let clients = (0..200).map(|client: u64| async move {
        let mut raw = Raw::connect(target).await;
        for _ in 0..3 {
            raw.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx").await;
            assert_eq!(raw.answer().await.unwrap().status, 200);
            tokio::time::sleep(Duration::from_millis(900 + client)).await;
        }
    });
    futures_util::future::join_all(clients).await;
    let alone = in_front_of(&recorder, &[PUBLIC, ("UPSTREAM_POOL_IDLE_SECONDS", "0.5")]).await;
    recorder.take();
    let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for pause in [0, 50, 700, 50, 700] {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        assert_eq!(Raw::exchange(address(&alone), request).await.status, 200);
    }
    let on: Vec<_> = recorder.take().iter().map(|delivery| delivery.connection).collect();
    assert!(on[0] == on[1] && on[2] == on[3], "an idle connection was not used: {on:?}");
    assert!(on[1] < on[2] && on[3] < on[4], "an old connection was used: {on:?}");
}

#[tokio::test]
async fn connections_to_the_upstream_are_used_again() {
    let recorder = Recorder::start(ok).await;
    let app = in_front_of(&recorder, &[PUBLIC]).await;
    let mut client = Raw::connect(address(&app)).await;
    for _ in 0..20 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.answer().await.unwrap().status, 200);
    }
    assert_eq!(recorder.connections(), 1);
}

/// However the upstream frames its answer, dying within it must show.
#[tokio::test]
async fn an_answer_that_breaks_off_looks_broken() {
    for (head, version) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n", "1.1"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n64\r\n", "1.1"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n", "1.1"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n", "1.0"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n", "1.0"),
    ] {
        for reset in [false, true] {
            let sent = format!("{head}first");
            let recorder = Recorder::start(move |_| {
                let sent = sent.clone().into_bytes();
                if reset { Reply::SendThenReset(sent) } else { Reply::SendThenClose(sent) }
            })
            .await;
            let app = in_front_of(&recorder, &[PUBLIC]).await;
            let request = format!("GET / HTTP/{version}\r\nHost: a\r\n\r\n");
            let mut client = Raw::connect(address(&app)).await;
            client.send(request).await;
            if let Some(answer) = client.answer().await {
                assert!(!answer.complete, "{head:?} over HTTP/{version} looked whole: {answer:?}");
            }
            let record = &recorded(&app, 1).await[0];
            assert_eq!((&record["outcome"], &record["status"]), (&"failed".into(), &200.into()));
        }
    }
}

/// A listener whose queue is full: the kernel drops who knocks, as a firewall
/// does.
fn blackhole() -> (socket2::Socket, Vec<TcpStream>, SocketAddr) {
    let listener = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let mut queue = vec![];
    while let Ok(queued) = TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
        queue.push(queued);
        assert!(queue.len() < 100, "the queue never fills");
    }
    (listener, queue, address)
}

/// Within the connect timeout and 50 ms. Other tests run beside this one, so the
/// best of four trials has to meet it.
#[tokio::test]
async fn an_unreachable_upstream_is_a_502_that_names_nothing() {
    const LIMIT: Duration = Duration::from_millis(300);
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // It takes connections and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_address = silent.local_addr().unwrap();
    let plain = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plain_address = plain.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = plain.accept().await {
            let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let (_full, _queue, full) = blackhole();
    let _alone = alone().await;
    for (url, statuses) in [
        (format!("http://{closed}"), &[502][..]),
        (format!("https://{closed}"), &[502]),
        ("http://upstream.invalid:8080".to_owned(), &[502]),
        (format!("https://{plain_address}"), &[502]),
        // Where no network leads there at all it fails at once; else nobody
        // answers. Which of both depends on the machine.
        ("http://[2001:db8::1]:8080".to_owned(), &[502, 504]),
        (format!("http://{full}"), &[504]),
        (format!("https://{silent_address}"), &[504]),
    ] {
        let settings = [
            ("UPSTREAM_URL", &*url),
            ("UPSTREAM_MOUNT", "/"),
            ("UPSTREAM_AUTH", "public"),
            ("UPSTREAM_CONNECT_TIMEOUT_SECONDS", "0.3"),
        ];
        let settings = settings.map(|(name, value)| (name, value.to_owned())).to_vec();
        let start = async || {
            // No name is known.
            let (resolver, settings) = (Names::answering(&[]), settings.clone());
            TestApp::with(Options { resolver, settings, ..Options::default() }).await
        };
        let (mut taken, mut app) = (vec![], start().await);
        for trial in 0..4 {
            // With one more attempt each, two are below what opens the breaker.
            if trial == 2 {
                app = start().await;
            }
            let begin = Instant::now();
            let answer = Raw::exchange(address(&app), "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            taken.push(begin.elapsed());
            assert!(statuses.contains(&answer.status), "{url}: {}", answer.status);
            assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{url}");
            let code = if answer.status == 502 { "upstream_failed" } else { "upstream_timeout" };
            assert_eq!(answer.json()["code"], code, "{url}");
            let text = answer.text().to_lowercase() + &answer.head.to_lowercase();
            let port = url.rsplit_once(':').unwrap().1;
            for inner in ["invalid", "inner.example", "127.0.0.1", "2001:", port, "os error", "dns"]
            {
                assert!(!text.contains(inner), "{url}: {inner} in {text}");
            }
            let record = &recorded(&app, 1).await[0];
            assert_eq!(
                (&record["outcome"], &record["status"]),
                (&"failed".into(), &answer.status.into())
            );
        }
        let (best, worst) = (taken.iter().min().unwrap(), taken.iter().max().unwrap());
        assert!(*best <= LIMIT + Duration::from_millis(50), "{url}: {taken:?}");
        assert!(*worst <= LIMIT + LATE, "{url}: {taken:?}");
    }
}

/// An upstream that does not speak TLS, and answers that are not HTTP.
#[tokio::test]
async fn nonsense_from_the_upstream_is_a_502() {
    for nonsense in [
        "SSH-2.0-OpenSSH\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nraw",
        "HTTP/1.1 999999 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        "",
    ] {
        let recorder =
            Recorder::start(move |_| Reply::SendThenClose(nonsense.as_bytes().to_vec())).await;
        let app = in_front_of(&recorder, &[PUBLIC]).await;
        let answer = Raw::exchange(address(&app), "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(answer.status, 502, "{nonsense:?}");
        assert_eq!(answer.json()["code"], "upstream_failed");
        assert_eq!(recorder.take().len(), 1, "{nonsense:?}");
    }
    let plain = Recorder::start(ok).await;
    let app = in_front_of_url(&plain.url().replace("http:", "https:"), &[PUBLIC]).await;
    let answer = Raw::exchange(address(&app), "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(matches!(answer.status, 502 | 504), "{}", answer.status);
}
