//! TLS of the main listener, on real sockets: which certificate is shown, what
//! else changes with it, and what a bad handshake costs others.

use std::{
    net::SocketAddr,
    os::unix::fs::symlink,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use http::Request;
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    pki_types::{CertificateDer, ServerName},
    version::{TLS12, TLS13},
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::support::{
    LATE, TestApp, UNLIMITED,
    websocket::{TEXT, Upstream, ask, frame},
};

const NAME: &str = "gate.example";
const PATIENCE: Duration = Duration::from_secs(30);
const ALL: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// A certificate with its key, as files have them.
pub struct Pair {
    pub cert: String,
    pub key: String,
    der: CertificateDer<'static>,
}

impl Pair {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let made = CertificateParams::new(vec![NAME.to_owned()]).unwrap().self_signed(&key);
        let made = made.unwrap();
        Self { cert: made.pem(), key: key.serialize_pem(), der: made.der().clone() }
    }

    fn write(&self, folder: &Path) {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join("cert.pem"), &self.cert).unwrap();
        std::fs::write(folder.join("key.pem"), &self.key).unwrap();
    }
}

/// An instance that shows certificates, and who asks it.
struct Secure {
    _app: TestApp,
    address: SocketAddr,
    _folder: TempDir,
}

impl Secure {
    async fn start(pair: &Pair, more: &[(&'static str, &str)]) -> Self {
        let folder = TempDir::new().unwrap();
        pair.write(folder.path());
        Self::showing(folder, more).await
    }

    /// What `cert.pem` and `key.pem` of the folder are.
    async fn showing(folder: TempDir, more: &[(&'static str, &str)]) -> Self {
        let [cert, key] = ["cert.pem", "key.pem"].map(|name| folder.path().join(name));
        let mut settings: Vec<_> = UNLIMITED.iter().chain(more).copied().collect();
        settings.push(("SERVER_TLS_CERT", cert.to_str().unwrap()));
        settings.push(("SERVER_TLS_KEY", key.to_str().unwrap()));
        let settings = settings.into_iter().map(|(name, value)| (name, value.to_owned()));
        let options =
            crate::support::Options { settings: settings.collect(), ..Default::default() };
        let app = TestApp::with(options).await;
        let address = app.base.trim_start_matches("http://").parse().unwrap();
        Self { _app: app, address, _folder: folder }
    }

    /// Where one of these certificates is shown.
    async fn connect(&self, pairs: &[&Pair], offer: &[&str]) -> TlsStream<TcpStream> {
        shake_hands(self.address, pairs, offer, ALL).await.unwrap()
    }

    async fn get(&self, pair: &Pair, path: &str, fields: &str) -> String {
        let stream = self.connect(&[pair], &[]).await;
        get(stream, path, fields).await
    }
}

async fn shake_hands(
    address: SocketAddr,
    pairs: &[&Pair],
    offer: &[&str],
    versions: &[&'static SupportedProtocolVersion],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    for pair in pairs {
        roots.add(pair.der.clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let mut config = builder
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = offer.iter().map(|name| name.as_bytes().to_vec()).collect();
    let socket = TcpStream::connect(address).await?;
    let name = ServerName::try_from(NAME).unwrap();
    timeout(PATIENCE, TlsConnector::from(Arc::new(config)).connect(name, socket)).await.unwrap()
}

fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

/// The whole answer, head and body.
async fn get(mut stream: TlsStream<TcpStream>, path: &str, fields: &str) -> String {
    let ask = format!("GET {path} HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n{fields}\r\n");
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut answer = vec![];
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    String::from_utf8(answer).unwrap()
}

async fn until(what: &str, so: impl AsyncFn() -> bool) {
    let start = Instant::now();
    while !so().await {
        assert!(start.elapsed() < PATIENCE, "not {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// The value of a metric in Prometheus' text; 0 where it is not.
async fn metric(secure: &Secure, pair: &Pair, name: &str) -> f64 {
    let text = secure.get(pair, "/metrics", "").await;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.map_or(0.0, |value| value.trim().parse().unwrap())
}

#[tokio::test]
async fn both_versions_and_both_protocols_are_spoken() {
    let pair = Pair::new();
    let secure = Secure::start(&pair, &[]).await;
    for version in ALL {
        for (offer, agreed) in
            [(&[][..], None), (&["http/1.1"], Some("http/1.1")), (&["http/1.1", "h2"], Some("h2"))]
        {
            let stream = shake_hands(secure.address, &[&pair], offer, &[version]).await.unwrap();
            let (_, session) = stream.get_ref();
            assert_eq!(session.protocol_version(), Some(version.version));
            assert_eq!(session.alpn_protocol(), agreed.map(str::as_bytes), "{offer:?}");
            if agreed != Some("h2") {
                let answer = get(stream, "/health/live", "").await;
                assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
                continue;
            }
            let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
            tokio::spawn(connection);
            let request = Request::get(format!("https://{NAME}/health/live")).body(()).unwrap();
            let (answer, _) = sender.send_request(request, true).unwrap();
            assert_eq!(answer.await.unwrap().status(), 200);
        }
    }
    let offered = shake_hands(secure.address, &[&pair], &["spdy/3"], ALL).await;
    assert!(offered.is_err(), "nothing of what was offered is spoken");
}

/// As Kubernetes does it: both files are links into a folder that is itself a
/// link, which is renamed over.
#[tokio::test]
async fn a_new_certificate_is_shown_without_a_restart_and_a_bad_one_is_not() {
    let (first, second, third) = (Pair::new(), Pair::new(), Pair::new());
    let all = [&first, &second, &third];
    let folder = TempDir::new().unwrap();
    let point_to = |name: &str| {
        symlink(name, folder.path().join("..new")).unwrap();
        std::fs::rename(folder.path().join("..new"), folder.path().join("..data")).unwrap();
    };
    first.write(&folder.path().join("1"));
    second.write(&folder.path().join("2"));
    point_to("1");
    for name in ["cert.pem", "key.pem"] {
        symlink(format!("..data/{name}"), folder.path().join(name)).unwrap();
    }
    let path = folder.path().to_owned();
    let secure = Secure::showing(folder, &[]).await;
    let kept = secure.connect(&all, &[]).await;
    assert_eq!(shown(&kept), first.der);

    let shows = async |pair: &Pair| shown(&secure.connect(&all, &[]).await) == pair.der;
    symlink("2", path.join("..new")).unwrap();
    std::fs::rename(path.join("..new"), path.join("..data")).unwrap();
    until("the second", async || shows(&second).await).await;
    let answer = get(kept, "/health/live", "").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "what was open stays: {answer}");

    // Another's key, then no key; renamed over, and written in place.
    let refused =
        async || metric(&secure, &second, "tollgate_tls_reloads_total{result=\"failed\"} ").await;
    for key in [&*first.key, "nonsense"] {
        let before = refused().await;
        std::fs::write(path.join("2/key.new"), key).unwrap();
        std::fs::rename(path.join("2/key.new"), path.join("2/key.pem")).unwrap();
        until("refused", async || refused().await > before).await;
        assert!(shows(&second).await, "the old pair stays");
    }
    std::fs::write(path.join("2/cert.pem"), &third.cert).unwrap();
    std::fs::write(path.join("2/key.pem"), &third.key).unwrap();
    until("the third", async || shows(&third).await).await;
    let expires = "tollgate_tls_certificate_expiry_timestamp_seconds ";
    assert!(metric(&secure, &third, expires).await > 1e9);
}

/// Others are accepted and served meanwhile.
#[tokio::test]
async fn who_does_not_go_through_with_a_handshake_holds_nobody_up_and_is_cut() {
    let pair = Pair::new();
    let secure =
        Secure::start(&pair, &[("SERVER_HEADER_TIMEOUT_SECONDS", "1"), ("SERVER_WORKERS", "1")])
            .await;
    let count = "tollgate_tls_handshakes_total{result=\"timed_out\"} ";
    let before = metric(&secure, &pair, count).await;
    let mut sockets = vec![];
    for bytes in [&b""[..], b"\x16\x03\x01", b"\x16\x03\x01\x02\x00\x01\x00\x01"] {
        for _ in 0..10 {
            let mut socket = TcpStream::connect(secure.address).await.unwrap();
            socket.write_all(bytes).await.unwrap();
            sockets.push(socket);
        }
    }
    let start = Instant::now();
    let answer = secure.get(&pair, "/health/live", "").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let opened = sockets.len();
    for mut socket in sockets {
        let mut rest = vec![];
        // An alert or a reset may come first; what counts is the end.
        let _ = timeout(PATIENCE, socket.read_to_end(&mut rest)).await.unwrap();
    }
    let took = start.elapsed();
    assert!(took < Duration::from_secs(2) + LATE, "{took:?}");
    until("counted", async || {
        metric(&secure, &pair, count).await - before >= f64::from(u8::try_from(opened).unwrap())
    })
    .await;
}

/// The same limits hold as without TLS.
#[tokio::test]
async fn a_head_that_does_not_come_ends_the_connection() {
    let pair = Pair::new();
    let secure = Secure::start(&pair, &[("SERVER_HEADER_TIMEOUT_SECONDS", "1")]).await;
    for part in ["", "GET /health/live HTTP/1.1\r\nHost: "] {
        let mut stream = secure.connect(&[&pair], &[]).await;
        stream.write_all(part.as_bytes()).await.unwrap();
        let start = Instant::now();
        let mut rest = vec![];
        let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.unwrap();
        assert!(!rest.starts_with(b"HTTP/1.1 200"));
        assert!(start.elapsed() < Duration::from_secs(2) + LATE, "{:?}", start.elapsed());
    }
}

#[tokio::test]
async fn what_is_not_encrypted_is_not_answered() {
    let pair = Pair::new();
    let secure = Secure::start(&pair, &[]).await;
    let count = "tollgate_tls_handshakes_total{result=\"failed\"} ";
    let before = metric(&secure, &pair, count).await;
    let mut socket = TcpStream::connect(secure.address).await.unwrap();
    socket.write_all(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut answer = vec![];
    let _ = timeout(PATIENCE, socket.read_to_end(&mut answer)).await.unwrap();
    assert!(!answer.windows(4).any(|part| part == b"HTTP"), "{answer:?}");
    until("counted", async || metric(&secure, &pair, count).await > before).await;
    // Somebody who does not trust the certificate.
    let stranger = Pair::new();
    assert!(shake_hands(secure.address, &[&stranger], &[], ALL).await.is_err());
    assert!(secure.get(&pair, "/health/live", "").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn links_cookies_and_upstreams_are_told_https() {
    let pair = Pair::new();
    let secure =
        Secure::start(&pair, &[("UPSTREAM_AUTH", "public"), ("SERVER_PUBLIC_URL", "")]).await;
    let page = secure.get(&pair, "/login", "Accept: text/html\r\n").await;
    let cookie = page.lines().find(|line| line.to_ascii_lowercase().starts_with("set-cookie:"));
    let cookie = cookie.unwrap_or_else(|| panic!("no cookie: {page}"));
    assert!(cookie.contains("__Host-tollgate") && cookie.contains("; Secure"), "{cookie}");
    let head = page.to_ascii_lowercase();
    assert!(head.contains("\r\nstrict-transport-security: max-age="), "{page}");

    let echoed = async |fields: &str| -> Value {
        let answer = secure.get(&pair, "/api/v1/proxy/x", fields).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(!head.to_ascii_lowercase().contains("strict-transport"), "it is the upstream's");
        let json = &body[body.find('{').unwrap()..=body.rfind('}').unwrap()];
        serde_json::from_str(json).unwrap()
    };
    assert_eq!(echoed("").await["headers"]["x-forwarded-proto"], "https");
    // From a proxy that is trusted, as every one of the tests' addresses is.
    let fields = "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\n";
    assert_eq!(echoed(fields).await["headers"]["x-forwarded-proto"], "http");
}

/// While trying out, or where a proxy says it: whoever was told once remembers it.
#[tokio::test]
async fn what_browsers_are_told_about_https_can_be_set_and_switched_off() {
    let pair = Pair::new();
    for (seconds, told) in
        [("300", Some("max-age=300")), ("0", None), ("", Some("max-age=31536000"))]
    {
        let secure = Secure::start(&pair, &[("SERVER_HSTS_SECONDS", seconds)]).await;
        let page = secure.get(&pair, "/health/live", "").await.to_ascii_lowercase();
        let field = page.lines().find_map(|line| line.strip_prefix("strict-transport-security: "));
        assert_eq!(field, told, "{seconds}");
    }
}

#[tokio::test]
async fn a_websocket_goes_through_tls() {
    let (pair, upstream) = (Pair::new(), Upstream::start().await);
    let secure =
        Secure::start(&pair, &[("UPSTREAM_AUTH", "public"), ("UPSTREAM_URL", &upstream.url())])
            .await;
    let mut stream = secure.connect(&[&pair], &["http/1.1"]).await;
    stream.write_all(ask("/api/v1/proxy/ws", "").as_bytes()).await.unwrap();
    let mut head = vec![];
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101") && !head.contains("strict-transport"), "{head}");
    for text in ["hello", &"x".repeat(100_000)] {
        stream.write_all(&frame(TEXT, true, text.as_bytes())).await.unwrap();
        let expected = frame(TEXT, false, text.as_bytes());
        let mut back = vec![0; expected.len()];
        timeout(PATIENCE, stream.read_exact(&mut back)).await.unwrap().unwrap();
        assert!(back == expected, "{} bytes", text.len());
    }
}
