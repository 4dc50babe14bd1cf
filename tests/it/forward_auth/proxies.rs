//! The example configurations, in the proxies that they are for.
//!
//! Where a proxy is not installed and cannot be, its test says so and ends.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use futures_util::{SinkExt as _, StreamExt as _};
use http::Method;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    accept_hdr_async, connect_async,
    tungstenite::{
        self, Message,
        client::IntoClientRequest as _,
        handshake::server::{Request, Response},
    },
};
use tollgate::domain::token::PlainToken;

use super::{Ada, send};
use crate::{
    browser::{Browser, NAVIGATION},
    support::{
        Answer, Client, PASSWORD, TestApp, UNLIMITED, raw,
        recorder::{Delivery, Recorder, ok},
        unique,
    },
};

const NGINX: &str = include_str!("../../../deploy/forward-auth/nginx.conf");
const CADDY: &str = include_str!("../../../deploy/forward-auth/Caddyfile");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Nginx,
    Caddy,
}

/// A proxy before an application, asking an instance.
struct Front {
    base: String,
    child: Child,
    dir: TempDir,
}

impl Drop for Front {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Debian keeps servers where only root's `PATH` leads.
pub fn program(name: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/usr/local/sbin", "/usr/bin"].map(PathBuf::from);
    let found = std::env::split_paths(&paths)
        .chain(usual)
        .map(|dir| dir.join(name))
        .find(|it| it.is_file());
    if found.is_none() {
        println!("skipped: {name} is not installed");
    }
    found
}

impl Front {
    /// The example file with these addresses in place of its own.
    async fn start(kind: Kind, app: &TestApp, backend: SocketAddr) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = free.local_addr().unwrap();
        drop(free);
        let example = match kind {
            Kind::Nginx => NGINX,
            Kind::Caddy => CADDY,
        };
        let mut example = example.to_owned();
        for (written, here) in [
            ("127.0.0.1:8000", app.base.trim_start_matches("http://").to_owned()),
            ("127.0.0.1:3000", backend.to_string()),
            ("127.0.0.1:8080", own.to_string()),
        ] {
            assert!(example.contains(written), "{written}");
            example = example.replace(written, &here);
        }
        let mut command = match kind {
            Kind::Nginx => {
                let around = format!(
                    "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log stderr;\nevents {{}}\n\
                     http {{\naccess_log off;\nclient_body_temp_path body;\nproxy_temp_path proxy;\n\
                     fastcgi_temp_path f;\nuwsgi_temp_path u;\nscgi_temp_path s;\n{example}\n}}\n"
                );
                std::fs::write(dir.path().join("nginx.conf"), around).unwrap();
                let mut command = Command::new(program("nginx")?);
                command.args(["-c", "nginx.conf", "-e", "stderr", "-p"]).arg(dir.path());
                command
            }
            Kind::Caddy => {
                let alone = format!("{{\n\tadmin off\n}}\n{example}");
                std::fs::write(dir.path().join("Caddyfile"), alone).unwrap();
                let mut command = Command::new(program("caddy")?);
                command.args(["run", "--adapter", "caddyfile", "--config", "Caddyfile"]);
                command.current_dir(dir.path()).env("HOME", dir.path());
                command.env_remove("XDG_CONFIG_HOME").env_remove("XDG_DATA_HOME");
                command
            }
        };
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut front =
            Self { base: format!("http://{own}"), child: command.spawn().unwrap(), dir };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(own).await.is_err() {
            let over = front.child.try_wait().unwrap().is_some() || Instant::now() > deadline;
            let log = || std::fs::read_to_string(front.dir.path().join("log")).unwrap();
            assert!(!over, "{kind:?} does not start: {}", log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Some(front)
    }

    /// Somebody with these credentials who asks here.
    fn client(&self, credentials: &Client) -> Client {
        credentials.at(&self.base)
    }
}

/// The backend, and one of each proxy that there is before it.
async fn fronts(app: &TestApp) -> (Recorder, Vec<(Kind, Front)>) {
    let recorder = Recorder::start(ok).await;
    let mut fronts = vec![];
    for kind in [Kind::Nginx, Kind::Caddy] {
        if let Some(front) = Front::start(kind, app, recorder.address).await {
            fronts.push((kind, front));
        }
    }
    (recorder, fronts)
}

fn one(recorder: &Recorder) -> Delivery {
    let mut deliveries = recorder.take();
    assert_eq!(deliveries.len(), 1, "{deliveries:?}");
    deliveries.remove(0)
}

const IDENTITY: [&str; 6] =
    ["X-User-Id", "X-Username", "X-Roles", "X-Key-Id", "X-Token-Id", "X-Tollgate-Assertion"];

#[tokio::test]
async fn the_backend_learns_who_asks_and_nothing_that_the_client_made_up() {
    for assertion in ["false", "true"] {
        let app = TestApp::configured([
            UNLIMITED[0],
            UNLIMITED[1],
            ("UPSTREAM_ASSERTION", assertion),
            ("AUTH_ALGORITHM", "EdDSA"),
        ])
        .await;
        let ada = Ada::new(&app).await;
        let (recorder, fronts) = fronts(&app).await;
        for (kind, front) in &fronts {
            for (client, own, id) in [
                (&ada.login, None, ""),
                (&ada.key, Some("x-key-id"), &*ada.key_id),
                (&ada.pass, Some("x-token-id"), &*ada.pass_id),
            ] {
                let forged = IDENTITY
                    .iter()
                    .fold(front.client(client), |client, name| client.with(name, "forged"))
                    .with("cookie", "a=1; tollgate_x=secret; b=2; tollgate_form=secret");
                let answer = send(&forged, "POST", "/some/path?upstream=none&b=%20").await;
                answer.expect(200);
                let seen = one(&recorder);
                let at = format!("{kind:?}: {}", seen.head);
                assert_eq!(seen.request_line(), "POST /some/path?upstream=none&b=%20 HTTP/1.1");
                assert!(!seen.head.contains("forged") && !seen.head.contains("secret"), "{at}");
                assert!(!seen.head.contains('{'), "{at}");
                assert_eq!(seen.all("x-user-id"), [&*ada.id], "{at}");
                assert_eq!(seen.all("x-roles"), ["user"], "{at}");
                for name in ["x-key-id", "x-token-id"] {
                    let expected = (own == Some(name)).then_some(id);
                    assert_eq!(seen.all(name), Vec::from_iter(expected), "{at}");
                }
                let signed = seen.all("x-tollgate-assertion").len();
                assert_eq!(signed, usize::from(assertion == "true"), "{at}");
                for name in ["x-api-key", "x-access-token", "authorization"] {
                    assert!(seen.all(name).is_empty(), "{at}");
                }
                assert!(seen.head.contains("a=1") && seen.head.contains("b=2"), "{at}");
                let row = &ada.log(&app).await[0];
                assert_eq!((&row["method"], &row["path"]), (&json!("POST"), &json!("/some/path")));
            }
        }
    }
}

/// What a client lists in `Connection` is dropped by the next hop; and who sends
/// more cookies of ours than anybody has loses all.
#[tokio::test]
async fn a_client_can_neither_drop_its_identity_nor_smuggle_a_cookie() {
    let app = TestApp::unlimited().await;
    let ada = Ada::new(&app).await;
    let (recorder, fronts) = fronts(&app).await;
    for (kind, front) in &fronts {
        let address: SocketAddr = front.base.strip_prefix("http://").unwrap().parse().unwrap();
        let decoys = "tollgate_a=secret; tollgate_b=secret; tollgate_c=secret; tollgate_d=secret; ";
        let request = format!(
            "GET /a HTTP/1.1\r\nHost: {address}\r\nX-Access-Token: {}\r\n\
             Connection: X-User-Id, X-Username, close\r\nConnection: X-Roles, X-Token-Id\r\n\
             Cookie: tollgate_sid=secret; {decoys}a=1\r\n\r\n",
            ada.pass_text
        );
        assert_eq!(raw::Raw::exchange(address, &request).await.status, 200, "{kind:?}");
        let seen = one(&recorder);
        let at = format!("{kind:?}: {}", seen.head);
        assert_eq!(seen.all("x-user-id"), [&*ada.id], "{at}");
        assert_eq!(seen.all("x-roles"), ["user"], "{at}");
        assert_eq!(seen.all("x-token-id"), [&*ada.pass_id], "{at}");
        assert!(!seen.head.contains("secret"), "{at}");
    }
}

#[tokio::test]
async fn refusals_reach_the_client_and_nothing_the_backend() {
    let app = TestApp::unlimited().await;
    let ada = Ada::new(&app).await;
    let fields = json!({ "name": "e", "allowed_ips": ["192.0.2.1"] });
    let (_, elsewhere) = app.key(&ada.login, fields).await;
    let (recorder, fronts) = fronts(&app).await;
    for (kind, front) in &fronts {
        let fields = json!({ "name": "l", "rate_limit_per_minute": 1 });
        let (_, limited) = app.key(&ada.login, fields).await;
        let nobody = Client::new(&front.base);
        let refused = nobody.get("/a").await.expect_problem(401, "unauthenticated");
        assert!(refused.headers.contains_key("www-authenticate"), "{kind:?}");
        nobody.with_key("tg_nothing").get("/a").await.expect_problem(401, "invalid_credential");
        front.client(&elsewhere).get("/a").await.expect(403);
        front.client(&ada.key).get("/a/..%2fb").await.expect(400);
        // Whatever it says of itself.
        let lying =
            front.client(&elsewhere).with("x-forwarded-uri", "/").with("x-original-uri", "/");
        let lying = lying.with("x-original-method", "GET").with("x-forwarded-method", "GET");
        lying.get("/a").await.expect(403);
        assert_eq!(recorder.take().len(), 0, "{kind:?}");
        front.client(&limited).get("/a").await.expect(200);
        let refused = front.client(&limited).get("/a").await.expect(429);
        let wait: u64 = refused.header("retry-after").parse().unwrap();
        assert!((1..=60).contains(&wait), "{kind:?}");
        one(&recorder);
    }
}

#[tokio::test]
async fn a_person_signs_in_at_the_applications_own_host() {
    let app = TestApp::unlimited().await;
    let (recorder, fronts) = fronts(&app).await;
    for (kind, front) in &fronts {
        let name = unique("ada");
        app.register(&name).await;
        let browser = Browser::before(&app, &front.base);
        let led = browser.open("/page?a=1&b=2").await.expect(303);
        let page = format!("{}/.tollgate/login?next=%2Fpage%3Fa%3D1%26b%3D2", front.base);
        assert_eq!(led.header("location"), page, "{kind:?}");
        let page = page.strip_prefix(&front.base).unwrap();
        let fields = [("username", name.as_str()), ("password", PASSWORD)];
        let signed_in: Answer = browser.fill_in(page, &fields).await.expect(303);
        assert_eq!(signed_in.header("location"), "/page?a=1&b=2", "{kind:?}");
        browser.open("/page?a=1&b=2").await.expect(200);
        let seen = one(&recorder);
        assert_eq!(seen.all("x-username"), [&*name], "{kind:?}");
        assert!(!seen.head.contains("tollgate_"), "{kind:?}: {}", seen.head);
        // Another site's form.
        let foreign = [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")];
        browser.send(Method::POST, "/page", &foreign, None).await.expect(403);
        assert!(recorder.take().is_empty() && !NAVIGATION.is_empty());
    }
}

/// Sends back what it is sent, after the fields of the handshake.
async fn sockets() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut head = String::new();
                #[expect(clippy::result_large_err, reason = "the library's own type")]
                let keep = |request: &Request, response: Response| {
                    head = format!("{:?}", request.headers());
                    Ok(response)
                };
                let Ok(mut socket) = accept_hdr_async(stream, keep).await else { return };
                socket.send(Message::text(head)).await.unwrap();
                while let Some(Ok(message)) = socket.next().await {
                    if message.is_text() {
                        socket.send(message).await.unwrap();
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_websocket_passes_with_its_credential_and_not_without() {
    let app = TestApp::unlimited().await;
    let ada = Ada::new(&app).await;
    let backend = sockets().await;
    for kind in [Kind::Nginx, Kind::Caddy] {
        let Some(front) = Front::start(kind, &app, backend).await else { continue };
        let ticket = ada.login.post("/api/v1/auth/ticket", json!({ "path": "/ws" })).await;
        let ticket = ticket.expect(201).text("ticket").to_owned();
        let unknown = PlainToken::pass(&mut rand::rng());
        for (query, field, status) in [
            (String::new(), None, 401),
            (String::new(), Some(&*ada.pass_text), 101),
            (format!("?token={}", unknown.expose()), None, 401),
            (format!("?token={}", ada.pass_text), None, 101),
            (format!("?ticket={ticket}"), None, 101),
            (format!("?ticket={ticket}"), None, 401),
        ] {
            let url = format!("{}/ws{query}", front.base.replace("http:", "ws:"));
            let mut request = url.into_client_request().unwrap();
            request.headers_mut().insert("x-user-id", "forged".parse().unwrap());
            if let Some(text) = field {
                request.headers_mut().insert("x-access-token", text.parse().unwrap());
            }
            let opening = tokio::time::timeout(Duration::from_secs(10), connect_async(request));
            match opening.await.unwrap() {
                Ok((mut socket, _)) => {
                    assert_eq!(status, 101, "{kind:?} {query}");
                    let head = socket.next().await.unwrap().unwrap().into_text().unwrap();
                    assert!(head.contains(&ada.id) && !head.contains("forged"), "{head}");
                    socket.send(Message::text("hello")).await.unwrap();
                    let back = socket.next().await.unwrap().unwrap();
                    assert_eq!(back.into_text().unwrap(), "hello", "{kind:?}");
                }
                Err(tungstenite::Error::Http(answer)) => {
                    assert_eq!(answer.status().as_u16(), status, "{kind:?} {query}");
                }
                Err(error) => panic!("{kind:?} {query}: {error}"),
            }
        }
    }
}

/// What two servers would read differently never gets as far as the backend.
#[tokio::test]
async fn a_path_that_is_not_clear_is_refused_before_the_backend() {
    let app = TestApp::unlimited().await;
    let ada = Ada::new(&app).await;
    let (recorder, fronts) = fronts(&app).await;
    let pass = &ada.pass_text;
    for (kind, front) in &fronts {
        let address: SocketAddr = front.base.trim_start_matches("http://").parse().unwrap();
        for path in ["//a", "/a//b", "/a/../b", "/a/%2e%2e/b", "/a%5cb", "/a%252e", "/a;/../b"] {
            let request = format!(
                "GET {path} HTTP/1.1\r\nHost: {address}\r\nX-Access-Token: {pass}\r\nConnection: close\r\n\r\n"
            );
            let answer = raw::Raw::exchange(address, request).await;
            assert!(matches!(answer.status, 400 | 403), "{kind:?} {path}: {}", answer.status);
        }
        assert!(recorder.take().is_empty(), "{kind:?}");
    }
}
