//! Sockets of upstreams that speak TLS: proven as for any other request, and
//! never over HTTP/2, which knows no 101 (RELIABILITY G-32).

use std::sync::{Arc, Mutex};

use rustls::{ServerConfig, server::Acceptor};
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

use crate::{
    gateway::recorded,
    streams::address,
    support::{
        Options, TestApp,
        raw::Raw,
        websocket::{BINARY, TEXT, Upstream, Wire, ask, frame},
    },
    upstreams::{
        resolver::Names,
        targets,
        tls::{Authority, Fault},
        with,
    },
};

const NAME: &str = "ws.tls.test";

/// What one whole handshake was about.
#[derive(Clone, Debug)]
struct Handshake {
    name: Option<String>,
    offered: Vec<String>,
    agreed: Option<String>,
}

/// Speaks TLS in front of an [`Upstream`]; over HTTP/2 it answers itself.
struct Server {
    port: u16,
    handshakes: Arc<Mutex<Vec<Handshake>>>,
}

impl Server {
    async fn start(config: Arc<ServerConfig>, upstream: &Upstream) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let handshakes: Arc<Mutex<Vec<Handshake>>> = Arc::default();
        let (all, behind) = (Arc::clone(&handshakes), upstream.address);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (config, all) = (Arc::clone(&config), Arc::clone(&all));
                tokio::spawn(async move {
                    let Some((mut tls, handshake)) = accept(socket, config).await else { return };
                    let is_http2 = handshake.agreed.as_deref() == Some("h2");
                    all.lock().unwrap().push(handshake);
                    if is_http2 {
                        return http2(tls).await;
                    }
                    let mut plain = TcpStream::connect(behind).await.unwrap();
                    let _ = copy_bidirectional(&mut tls, &mut plain).await;
                });
            }
        });
        Self { port, handshakes }
    }

    fn handshakes(&self) -> Vec<Handshake> {
        self.handshakes.lock().unwrap().clone()
    }
}

/// `None` where the client does not go through with it.
async fn accept(
    socket: TcpStream,
    config: Arc<ServerConfig>,
) -> Option<(TlsStream<TcpStream>, Handshake)> {
    let text = |name: &[u8]| String::from_utf8(name.to_vec()).unwrap();
    let start = LazyConfigAcceptor::new(Acceptor::default(), socket).await.ok()?;
    let hello = start.client_hello();
    let name = hello.server_name().map(str::to_owned);
    let offered = hello.alpn().into_iter().flatten().map(text).collect();
    let tls = start.into_stream(config).await.ok()?;
    let agreed = tls.get_ref().1.alpn_protocol().map(text);
    Some((tls, Handshake { name, offered, agreed }))
}

async fn http2(tls: TlsStream<TcpStream>) {
    let Ok(mut connection) = h2::server::handshake(tls).await else { return };
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        respond.send_response(http::Response::new(()), true).unwrap();
    }
}

/// In front of this port of a name that means this machine.
async fn before(port: u16, rest: &str) -> TestApp {
    let url = format!("https://{NAME}:{port}");
    let file = format!("[[upstreams]]\nname='app'\nmount='/'\nurl='{url}'\n{rest}\n");
    let resolver = Names::answering(&["127.0.0.1"]);
    with(&file, Options { resolver, ..Options::default() }).await
}

#[tokio::test]
async fn a_socket_goes_over_tls_and_never_over_http2() {
    let (ca, folder) = (Authority::new(), TempDir::new().unwrap());
    let trusting = format!("ca_file={:?}", ca.file(&folder, "").to_str().unwrap());
    let both: &[&[u8]] = &[b"h2", b"http/1.1"];
    for alpn in [both, &[b"h2"], &[b"http/1.1"], &[]] {
        let upstream = Upstream::start().await;
        let server = Server::start(ca.server(NAME, Fault::None, alpn), &upstream).await;
        let app = before(server.port, &trusting).await;
        let admin = app.admin().await;
        let issued = admin.post("/api/v1/keys", json!({ "name": "k" })).await.expect(201);
        let field = format!("X-API-Key: {}\r\n", issued.text("key"));
        // A connection that exchanges share is there, and is not for it.
        let plain = format!("GET /ws HTTP/1.1\r\nHost: a\r\n{field}\r\n");
        assert_eq!(Raw::exchange(address(&app), plain).await.status, 200, "{alpn:?}");
        let is_http2 = server.handshakes()[0].agreed.as_deref() == Some("h2");
        assert_eq!(is_http2, alpn.contains(&&b"h2"[..]), "{alpn:?}");

        let mut wire = Wire::open(address(&app), "/ws", &field).await;
        wire.echoes("hello").await;
        for length in [0, 126, 17_000, 200_000] {
            let payload = vec![7; length];
            wire.send(frame(BINARY, true, &payload)).await;
            assert_eq!(wire.next().await, Some((BINARY, payload)), "{alpn:?}");
        }
        let handshakes = server.handshakes();
        let [_, socket] = &handshakes[..] else { panic!("{alpn:?}: {handshakes:?}") };
        assert_eq!(socket.name.as_deref(), Some(NAME), "{alpn:?}");
        let named = socket.offered.iter().chain(&socket.agreed).any(|name| name == "h2");
        assert!(!named, "{alpn:?}: {socket:?}");
        let path = format!("/api/v1/keys/{}", issued.text("id"));
        admin.delete(&path).await.expect(204);
        assert_eq!(wire.closed().await, (1008, "revoked".to_owned()), "{alpn:?}");
        wire.rest().await;
        upstream.until_open(0).await;
        assert_eq!(upstream.closes(), [1001], "{alpn:?}");
    }
}

#[tokio::test]
async fn a_socket_s_upstream_must_prove_who_it_is() {
    let (ours, theirs, folder) = (Authority::new(), Authority::new(), TempDir::new().unwrap());
    let trusting = format!("auth='public'\nca_file={:?}", ours.file(&folder, "").to_str().unwrap());
    for (issuer, name, fault, rest) in [
        (&theirs, NAME, Fault::None, &*trusting),
        (&ours, NAME, Fault::None, "auth='public'"),
        (&ours, "other.test", Fault::None, &trusting),
        (&ours, NAME, Fault::Expired, &trusting),
        (&ours, NAME, Fault::NotYet, &trusting),
    ] {
        let case = format!("{name} {fault:?} {rest}");
        let upstream = Upstream::start().await;
        let server = Server::start(issuer.server(name, fault, &[]), &upstream).await;
        let app = before(server.port, rest).await;
        is_refused(&app, &case).await;
        assert!(server.handshakes().is_empty() && upstream.heads().is_empty(), "{case}");
    }
    // Where it need not prove anything.
    let upstream = Upstream::start().await;
    let server = Server::start(theirs.server("other.test", Fault::Expired, &[]), &upstream).await;
    let app = before(server.port, "auth='public'\nverify_tls=false").await;
    Wire::open(address(&app), "/ws", "").await.echoes("hello").await;
}

/// With a 502 that tells nothing of what is within, and no 101 before it.
async fn is_refused(app: &TestApp, case: &str) {
    let mut request = ask("/ws", "").into_bytes();
    request.extend(frame(TEXT, true, b"early"));
    let asked = Wire::ask(address(app), &request).await;
    assert_eq!(asked.status, 502, "{case}: {}", asked.head);
    let head = asked.head.clone();
    let body = asked.body().await;
    let problem: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(problem["code"], "upstream_failed", "{case}");
    let text = format!("{head}{body}").to_lowercase();
    for inner in ["tls", "certificate", "issuer", "expired", "127.0.0.1", "test"] {
        assert!(!text.contains(inner), "{case}: {inner} in {text}");
    }
    assert_eq!(targets(app).await[0]["last_error"], "tls", "{case}");
    let record = recorded(app, 1).await.remove(0);
    assert_eq!((&record["outcome"], &record["status"]), (&json!("failed"), &json!(502)), "{case}");
}
