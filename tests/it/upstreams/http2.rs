//! HTTP/2 towards upstreams that offer it.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use h2::{Reason, RecvStream, server::SendResponse};
use http::{HeaderMap, Request, Response};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tollgate::{domain::stream::StreamKind, services::room::Class};

use super::{
    address, get, post, public,
    resolver::Names,
    targets,
    tls::{Authority, Fault},
    with,
};
use crate::{
    gateway::recorded,
    support::{Options, TestApp, raw::Raw},
};

/// Speaks HTTP/2 where it is asked to, and HTTP/1.1 otherwise.
struct Server {
    port: u16,
    seen: Arc<Seen>,
    ca: Authority,
}

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    open_streams: AtomicUsize,
    most_streams: AtomicUsize,
    /// Streams that the gateway reset.
    reset: AtomicUsize,
    /// Bytes that came after an answer.
    early: AtomicUsize,
    /// The paths that were asked for.
    paths: Mutex<Vec<String>>,
}

impl Server {
    async fn start(alpn: &[&[u8]]) -> Self {
        let ca = Authority::new();
        let acceptor = TlsAcceptor::from(ca.server("h2.test", Fault::None, alpn));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Seen::default());
        let all = seen.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, seen) = (acceptor.clone(), all.clone());
                tokio::spawn(async move {
                    let Ok(tls) = acceptor.accept(socket).await else { return };
                    seen.connections.fetch_add(1, SeqCst);
                    if tls.get_ref().1.alpn_protocol() == Some(b"h2") {
                        http2(tls, seen).await;
                    } else {
                        http1(tls).await;
                    }
                });
            }
        });
        Self { port, seen, ca }
    }

    async fn app(&self, rest: &str, workers: &str) -> TestApp {
        let folder = TempDir::new().unwrap();
        let ca = self.ca.file(&folder, "");
        let ca = ca.to_str().unwrap();
        let file = public(&format!("url='https://h2.test:{}'\nca_file={ca:?}\n{rest}", self.port));
        let resolver = Names::answering(&["127.0.0.1"]);
        let io = ("SERVER_IO_TIMEOUT_SECONDS", "2".to_owned());
        let settings = vec![("SERVER_WORKERS", workers.to_owned()), io];
        with(&file, Options { resolver, settings, ..Options::default() }).await
    }

    fn connections(&self) -> usize {
        self.seen.connections.load(SeqCst)
    }
}

async fn http1(mut tls: TlsStream<TcpStream>) {
    let mut buffer = vec![];
    while let Ok(1..) = tls.read_buf(&mut buffer).await {
        if buffer.ends_with(b"\r\n\r\n") {
            buffer.clear();
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhttp/1.1";
            tls.write_all(answer).await.unwrap();
        }
    }
}

async fn http2(tls: TlsStream<TcpStream>, seen: Arc<Seen>) {
    let Ok(mut connection) = h2::server::handshake(tls).await else { return };
    let mut going = false;
    while let Some(Ok((request, respond))) = connection.accept().await {
        let path = request.uri().path();
        seen.paths.lock().unwrap().push(path.to_owned());
        if path == "/last" && !going {
            going = true;
            connection.graceful_shutdown();
        }
        if path.starts_with("/drop") {
            return;
        }
        let seen = seen.clone();
        tokio::spawn(async move {
            seen.most_streams.fetch_max(seen.open_streams.fetch_add(1, SeqCst) + 1, SeqCst);
            answer(request, respond, &seen).await;
            seen.open_streams.fetch_sub(1, SeqCst);
        });
    }
}

async fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, seen: &Seen) {
    static HELD: Semaphore = Semaphore::const_new(0);
    let (parts, mut body) = request.into_parts();
    let plain =
        || Response::builder().header("x-authority", parts.uri.authority().unwrap().as_str());
    let part = || Bytes::from_static(b"part");
    match parts.uri.path() {
        "/echo" => {
            let mut stream = respond.send_response(plain().body(()).unwrap(), false).unwrap();
            while let Some(Ok(data)) = body.data().await {
                body.flow_control().release_capacity(data.len()).unwrap();
                stream.send_data(data, false).unwrap();
            }
            stream.send_data(Bytes::new(), true).unwrap();
        }
        "/early" => {
            let mut stream = respond.send_response(plain().body(()).unwrap(), false).unwrap();
            stream.send_data(part(), true).unwrap();
            while let Some(Ok(data)) = body.data().await {
                body.flow_control().release_capacity(data.len()).unwrap();
                seen.early.fetch_add(data.len(), SeqCst);
            }
        }
        "/deaf" => {
            respond.send_response(plain().body(()).unwrap(), true).unwrap();
            // Takes nothing of what follows.
            let end = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            assert_eq!(end.ok(), Some(Reason::CANCEL));
            seen.reset.fetch_add(1, SeqCst);
        }
        "/together" => {
            HELD.add_permits(1);
            _ = HELD.acquire_many(20).await.map(drop);
            respond.send_response(plain().body(()).unwrap(), true).unwrap();
        }
        path @ ("/no-error" | "/cancel" | "/internal") => {
            let reason = match path {
                "/no-error" => Reason::NO_ERROR,
                "/cancel" => Reason::CANCEL,
                _ => Reason::INTERNAL_ERROR,
            };
            let mut stream = respond.send_response(plain().body(()).unwrap(), false).unwrap();
            stream.send_data(part(), false).unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            stream.send_reset(reason);
        }
        "/whole" => {
            // Does not read the question to its end, and says so politely.
            let head = plain().header("content-length", 4).body(()).unwrap();
            let mut stream = respond.send_response(head, false).unwrap();
            stream.send_data(part(), true).unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            stream.send_reset(Reason::NO_ERROR);
        }
        "/short" => {
            let head = plain().header("content-length", 9).body(()).unwrap();
            let mut stream = respond.send_response(head, false).unwrap();
            stream.send_data(part(), true).unwrap();
        }
        path if path.starts_with("/reset") => respond.send_reset(Reason::INTERNAL_ERROR),
        "/refused" => respond.send_reset(Reason::REFUSED_STREAM),
        "/trailers" => {
            let mut stream = respond.send_response(plain().body(()).unwrap(), false).unwrap();
            stream.send_data(part(), false).unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("x-trailer", "1".parse().unwrap());
            stream.send_trailers(trailers).unwrap();
        }
        "/hang" => {
            let reason = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            assert_eq!(reason.ok(), Some(Reason::CANCEL));
            seen.reset.fetch_add(1, SeqCst);
        }
        _ => _ = respond.send_response(plain().body(()).unwrap(), true),
    }
}

#[tokio::test]
async fn all_exchanges_of_a_worker_share_one_connection() {
    let server = Server::start(&[b"h2", b"http/1.1"]).await;
    let app = server.app("", "1").await;
    let mut clients = JoinSet::new();
    for _ in 0..20 {
        let to = address(&app);
        clients.spawn(async move {
            Raw::exchange(to, "GET /together HTTP/1.1\r\nHost: a\r\n\r\n").await.status
        });
    }
    // None of them would end if they were sent one after the other.
    assert_eq!(clients.join_all().await, [200; 20]);
    assert_eq!((server.connections(), server.seen.most_streams.load(SeqCst)), (1, 20));
    let target = &targets(&app).await[0];
    assert_eq!((&target["connections"], &target["in_flight"]), (&1.into(), &0.into()));

    let other = server.app("", "2").await;
    for _ in 0..30 {
        assert_eq!(get(&other, "/").await.status, 200);
    }
    assert!((2..=3).contains(&server.connections()), "{}", server.connections());
}

#[tokio::test]
async fn an_answer_that_lacks_its_end_does_not_look_whole() {
    let server = Server::start(&[b"h2"]).await;
    let app = server.app("", "1").await;
    for (path, whole, body) in [
        ("/no-error", false, "part"),
        ("/cancel", false, "part"),
        ("/internal", false, "part"),
        ("/trailers", true, "part"),
        ("/echo", true, "body"),
        ("/whole", true, "part"),
    ] {
        let mut client = Raw::connect(address(&app)).await;
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n");
        client.send(head + "body").await;
        let Some(answer) = client.answer().await else {
            assert!(!whole, "{path}: cut before the head had left");
            continue;
        };
        assert_eq!((answer.status, answer.complete), (200, whole), "{path}: {answer:?}");
        assert_eq!(answer.text(), body, "{path}");
        assert!(answer.header("x-trailer").is_none(), "{path}");
    }
    // Of a length that is announced and does not come, nothing may look whole.
    let mut client = Raw::connect(address(&app)).await;
    client.send("GET /short HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let short = client.answer().await;
    assert!(short.as_ref().is_none_or(|answer| !answer.complete), "{short:?}");
    assert_eq!(get(&app, "/refused").await.status, 502);
    assert_eq!(server.connections(), 1, "one stream's end is not the others'");
}

/// Whether its stream dies, or the connection with all of them (RELIABILITY
/// G-34).
#[tokio::test]
async fn a_post_that_dies_is_delivered_once() {
    let server = Server::start(&[b"h2"]).await;
    let app = server.app("", "1").await;
    for trial in 0..1000 {
        // Were it half of them, the breaker would open.
        let (kind, status) = match trial {
            _ if trial % 12 == 0 => ("drop", 502),
            _ if trial % 3 == 0 => ("reset", 502),
            _ => ("fine", 200),
        };
        let path = format!("/{kind}/{trial}");
        assert_eq!(post(&app, &path).await.status, status, "{path}");
        let seen = std::mem::take(&mut *server.seen.paths.lock().unwrap());
        assert_eq!(seen, [path]);
    }
}

#[tokio::test]
async fn a_client_that_leaves_resets_its_stream_and_no_other() {
    let server = Server::start(&[b"h2"]).await;
    let app = server.app("first_byte_timeout_seconds=3", "1").await;
    for _ in 0..3 {
        let mut client = Raw::connect(address(&app)).await;
        client.send("GET /hang HTTP/1.1\r\nHost: a\r\n\r\n").await;
        while server.seen.open_streams.load(SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        client.reset();
        while server.seen.open_streams.load(SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    assert_eq!((server.seen.reset.load(SeqCst), server.connections()), (3, 1));
    assert_eq!(get(&app, "/").await.status, 200);
    assert_eq!(server.connections(), 1);
    // An answer that does not begin in time: others are not to wait for the same.
    let answer = get(&app, "/hang").await;
    assert_eq!((answer.status, &answer.json()["code"]), (504, &"upstream_timeout".into()));
    assert_eq!(get(&app, "/").await.status, 200);
    assert_eq!(server.connections(), 2);
}

/// What the upstream takes after its answer, and what it does not.
#[tokio::test]
async fn an_upload_that_outlives_its_answer_is_recorded_at_its_end() {
    let server = Server::start(&[b"h2"]).await;
    let app = server.app("", "1").await;
    for (path, bytes) in [("/early", 40_004), ("/deaf", 0)] {
        let mut client = Raw::connect(address(&app)).await;
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n");
        client.send(head + "\r\n4\r\nbody\r\n").await;
        assert_eq!(client.answer().await.unwrap().status, 200, "{path}");
        let (size, count) = if path == "/deaf" { (400_000, 4) } else { (40_000, 1) };
        for _ in 0..count {
            client.send(format!("{size:x}\r\n{}\r\n", "x".repeat(size))).await;
        }
        if path == "/early" {
            while server.seen.early.load(SeqCst) < bytes {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            assert_eq!(app.app.services.room.used(Class::Proxied), 0, "it is a stream");
            assert_eq!(app.app.services.streams.count(StreamKind::Upload), 1);
            client.send("0\r\n\r\n").await;
            let record = &recorded(&app, 1).await[0];
            assert_eq!((&record["bytes_in"], &record["bytes_out"]), (&40_004.into(), &4.into()));
            continue;
        }
        let record = recorded(&app, 2).await.into_iter().find(|it| it["path"] == "/deaf");
        assert_eq!(record.unwrap()["outcome"], "completed");
        while server.seen.reset.load(SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert_eq!(app.app.services.streams.count(StreamKind::Upload), 0);
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_server_that_says_goodbye_is_connected_to_again() {
    let server = Server::start(&[b"h2"]).await;
    let app = server.app("", "1").await;
    for _ in 0..5 {
        assert_eq!(get(&app, "/").await.status, 200);
        assert_eq!(get(&app, "/last").await.status, 200);
        assert_eq!(post(&app, "/echo").await.text(), "body");
    }
    assert!(server.connections() >= 5, "{}", server.connections());
}

#[tokio::test]
async fn the_host_is_the_authority() {
    let server = Server::start(&[b"h2"]).await;
    let own = format!("h2.test:{}", server.port);
    for (rest, expected) in [("", &*own), ("host='client'", "a"), ("host='b.test:81'", "b.test:81")]
    {
        let app = server.app(rest, "1").await;
        assert_eq!(get(&app, "/").await.header("x-authority"), Some(expected), "{rest}");
    }
}

#[tokio::test]
async fn http_1_1_is_spoken_where_http_2_is_not_wanted_or_not_offered() {
    let both: &[&[u8]] = &[b"h2", b"http/1.1"];
    for (alpn, rest, body) in [
        (both, "", ""),
        (both, "http2=false", "http/1.1"),
        (&[b"http/1.1"], "", "http/1.1"),
        (&[], "", "http/1.1"),
    ] {
        let server = Server::start(alpn).await;
        let app = server.app(rest, "1").await;
        for _ in 0..3 {
            assert_eq!(get(&app, "/").await.text(), body, "{alpn:?} {rest}");
        }
        assert_eq!(server.connections(), 1, "{alpn:?} {rest}");
    }
}
