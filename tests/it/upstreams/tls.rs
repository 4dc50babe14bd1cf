//! TLS towards upstreams: whose certificate is good, and what a client learns
//! where it is not (G-32).

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;
use tollgate::config::{Config, Sources};

use super::{get, public, resolver::Names, targets, with};
use crate::support::{Options, TestApp};

/// Somebody who signs certificates.
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// What may be wrong with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    Expired,
    NotYet,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    pub fn server(&self, name: &str, fault: Fault, alpn: &[&[u8]]) -> Arc<ServerConfig> {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        match fault {
            Fault::None => {}
            Fault::Expired => params.not_after = rcgen::date_time_ymd(2020, 1, 1),
            Fault::NotYet => params.not_before = rcgen::date_time_ymd(2999, 1, 1),
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let chain = vec![certificate.der().clone()];
        let mut config = builder.with_no_client_auth().with_single_cert(chain, key).unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    }

    /// A file with its certificate, and what else stands there.
    pub fn file(&self, folder: &TempDir, before: &str) -> PathBuf {
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, format!("{before}{}", self.pem)).unwrap();
        path
    }
}

/// Answers `hello` over TLS.
struct Server {
    port: u16,
    names: Arc<Mutex<Vec<Option<String>>>>,
}

impl Server {
    async fn start(config: Arc<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let names: Arc<Mutex<Vec<_>>> = Arc::default();
        let (acceptor, asked) = (TlsAcceptor::from(config), names.clone());
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let Ok(mut tls) = acceptor.accept(socket).await else { continue };
                asked.lock().unwrap().push(tls.get_ref().1.server_name().map(str::to_owned));
                let mut buffer = vec![];
                while !buffer.ends_with(b"\r\n\r\n") && tls.read_buf(&mut buffer).await.unwrap() > 0
                {
                }
                let answer =
                    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
                tls.write_all(answer).await.unwrap();
                _ = tls.shutdown().await;
            }
        });
        Self { port, names }
    }
}

async fn before(server: &Server, rest: &str) -> TestApp {
    let file = public(&format!("url='https://app.tls.test:{}'\n{rest}", server.port));
    let names = Names::answering(&["127.0.0.1"]);
    with(&file, Options { resolver: names, ..Options::default() }).await
}

#[tokio::test]
async fn only_a_good_certificate_of_a_trusted_authority_opens_the_way() {
    let (ours, theirs, folder) = (Authority::new(), Authority::new(), TempDir::new().unwrap());
    let ca = ours.file(&folder, "");
    let trusting = format!("ca_file={:?}", ca.to_str().unwrap());
    for (issuer, name, fault, rest, good) in [
        (&ours, "app.tls.test", Fault::None, &*trusting, true),
        (&ours, "*.tls.test", Fault::None, &trusting, true),
        (&ours, "other.test", Fault::None, &trusting, false),
        (&ours, "sub.app.tls.test", Fault::None, &trusting, false),
        (&ours, "127.0.0.1", Fault::None, &trusting, false),
        (&ours, "app.tls.test", Fault::Expired, &trusting, false),
        (&ours, "app.tls.test", Fault::NotYet, &trusting, false),
        (&theirs, "app.tls.test", Fault::None, &trusting, false),
        (&ours, "app.tls.test", Fault::None, "", false),
        (&theirs, "other.test", Fault::Expired, "verify_tls=false", true),
    ] {
        let case = format!("{name} {fault:?} {rest}");
        let server = Server::start(issuer.server(name, fault, &[])).await;
        let app = before(&server, rest).await;
        let answer = get(&app, "/").await;
        if good {
            assert_eq!((answer.status, answer.text()), (200, "hello"), "{case}");
            assert_eq!(*server.names.lock().unwrap(), [Some("app.tls.test".to_owned())], "{case}");
            continue;
        }
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (502, &"upstream_failed".into()),
            "{case}"
        );
        let text = format!("{}{}", answer.head, answer.text()).to_lowercase();
        let port = server.port.to_string();
        for inner in ["tls", "certificate", "issuer", "expired", "127.0.0.1", "test", &port] {
            assert!(!text.contains(inner), "{case}: {inner} in {text}");
        }
        assert_eq!(targets(&app).await[0]["last_error"], "tls", "{case}");
        assert!(server.names.lock().unwrap().is_empty(), "{case}: something was sent");
    }
}

#[tokio::test]
async fn a_bundle_trusts_all_that_are_in_it() {
    let (one, other, folder) = (Authority::new(), Authority::new(), TempDir::new().unwrap());
    let ca = other.file(&folder, &format!("# two of them\n{}\n", one.pem));
    for authority in [&one, &other] {
        let server = Server::start(authority.server("app.tls.test", Fault::None, &[])).await;
        let app = before(&server, &format!("ca_file={:?}", ca.to_str().unwrap())).await;
        assert_eq!(get(&app, "/").await.status, 200);
    }
}

#[tokio::test]
async fn a_server_without_tls_is_a_502_soon() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        while let Ok((mut socket, _)) = listener.accept() {
            _ = std::io::Write::write_all(&mut socket, b"HTTP/1.1 400 Bad\r\n\r\nplain text only");
        }
    });
    let app = super::start(&public(&format!("url='https://127.0.0.1:{port}'"))).await;
    assert_eq!(get(&app, "/").await.status, 502);
    assert_eq!(targets(&app).await[0]["last_error"], "tls");
}

#[test]
fn a_file_of_authorities_is_checked_when_the_settings_are_read() {
    let folder = TempDir::new().unwrap();
    let good = Authority::new().pem;
    let cut = good.replacen("MII", "AAA", 1);
    let key = KeyPair::generate().unwrap().serialize_pem();
    for (text, rest, fault) in [
        (Some(&*good), "", None),
        (Some("no certificate"), "", Some("expected a file of one or more CA certificates")),
        (Some(""), "", Some("expected a file of one or more CA certificates")),
        (Some(&cut), "", Some("expected a file of one or more CA certificates")),
        (Some(&format!("{good}{cut}")), "", Some("expected a file of one or more CA")),
        (Some(&key), "", Some("expected a file of one or more CA certificates")),
        (None, "", Some("cannot be read")),
        (Some(&good), "verify_tls=false", Some("expected verify_tls = true with it")),
    ] {
        let path = folder.path().join("ca.pem");
        match text {
            Some(text) => std::fs::write(&path, text).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        let rest = format!("url='https://a'\nca_file={:?}\n{rest}", path.to_str().unwrap());
        let sources = Sources { file: Some(public(&rest)), ..Sources::default() };
        match (Config::load(&sources), fault) {
            (Ok(_), None) => {}
            (Err(error), Some(fault)) => {
                let error = error.to_string();
                assert!(
                    error.contains("upstreams.app.ca_file: ") && error.contains(fault),
                    "{error}"
                );
                assert!(!error.contains("BEGIN"), "{error}");
            }
            (loaded, _) => panic!("{text:?} {rest}: {:?}", loaded.err()),
        }
    }
}
