//! Which host links, redirects and the upstream are told (RELIABILITY G-117).
//!
//! With `SERVER_PUBLIC_URL` it is that URL's, or one that the operator names by a
//! mount or in `SERVER_TRUSTED_HOSTS`. Without both it is the one that a request
//! asks for, which a machine that was just started needs; then whoever makes a
//! host up is told it himself. What a trusted proxy says in `X-Forwarded-Host` is
//! believed there: it is the operator's own, and knows better than `Host`.

use http::{Request, Version};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::address;
use crate::support::{
    Options, TestApp,
    raw::{Answer, Raw},
    recorder::{Delivery, Recorder, Reply},
};

const PUBLIC: (&str, &str) = ("SERVER_PUBLIC_URL", "https://gate.example");
const LISTED: (&str, &str) = ("SERVER_TRUSTED_HOSTS", "gate.example, app.example");
const BEHIND: (&str, &str) = ("SERVER_TRUSTED_PROXIES", "127.0.0.0/8");

/// The beginning of a request's line up to its path, and fields.
const MADE_UP: &[(&str, &str)] = &[
    ("", "Host: evil.example"),
    ("", "Host: evil.example."),
    ("", "Host: EVIL.example:8080"),
    ("", "Host: gate.example.evil.example"),
    ("", "Host: evil.gate.example"),
    ("", "Host: evil-gate.example"),
    ("", "Host: gate.example:evil"),
    ("", "Host: gate.example:443:evil"),
    ("", "Host: [evil]:443"),
    ("", "Host: gate.example, evil.example"),
    ("", "Host: gate.example@evil.example"),
    ("", "Host: evil.example#gate.example"),
    ("", "Host: gate.example\r\nHost: evil.example"),
    ("", "Host: evil.example\r\nHost: gate.example"),
    ("http://evil.example", "Host: evil.example"),
    ("http://evil.example", "Host: gate.example"),
    ("http://gate.example", "Host: evil.example"),
    ("http://gate.example@evil.example", "Host: evil.example"),
    ("", "Host: gate.example\r\nX-Forwarded-Host: evil.example"),
    ("", "Host: gate.example\r\nX-Forwarded-Host: gate.example, evil.example"),
    ("", "Host: gate.example\r\nX-Forwarded-Host: a\r\nX-Forwarded-Host: evil.example"),
    ("", "Host: gate.example\r\nX-Forwarded-Host: evil.example:443\r\nX-Forwarded-Proto: https"),
    ("", "Host: app.example\r\nX-Forwarded-Host: evil.example"),
    ("", "Host: gate.example\r\nForwarded: host=evil.example;proto=https;for=evil"),
    ("", "Host: gate.example\r\nX-Host: evil.example\r\nX-Original-Host: evil.example"),
    ("", "Host: gate.example\r\nX-Forwarded-Server: evil.example\r\nX-Forwarded-Port: evil"),
    ("", "Host: gate.example\r\nX-HTTP-Host-Override: evil.example"),
    ("", "Host: gate.example\r\nX-Rewrite-URL: //evil.example/\r\nX-Forwarded-Prefix: //evil"),
    ("", "Host: gate.example\r\nOrigin: https://evil.example\r\nReferer: https://evil.example/a"),
];

/// Only where the public URL has the port to say.
const MADE_UP_PORT: (&str, &str) = ("", "Host: gate.example:6660");

/// What is asked for, by method, path and fields.
const ASKED: &[(&str, &str, &str)] = &[
    ("GET", "/up/page", ""),
    ("GET", "/client/page", ""),
    ("GET", "/closed/page", "Accept: text/html\r\n"),
    ("GET", "/closed/page", ""),
    ("GET", "/login?next=/closed/page", "Accept: text/html\r\n"),
    ("POST", "/login", "Content-Length: 0\r\n"),
    ("GET", "/.tollgate/login", "Accept: text/html\r\n"),
    ("GET", "/logout", "Accept: text/html\r\n"),
    (
        "GET",
        "/api/v1/auth/verify?upstream=closed&redirect=1",
        "Accept: text/html\r\nX-Original-URI: /a\r\nX-Original-Method: GET\r\n",
    ),
    ("OPTIONS", "/api/v1/auth/login", "Access-Control-Request-Method: POST\r\n"),
    ("GET", "/api/v1/users/me", ""),
    ("GET", "/api/docs", ""),
    ("GET", "/nothing", ""),
];

/// Names the host that it is told wherever it can, and its own.
fn mirror(delivery: &Delivery) -> Reply {
    let own = delivery.all("host")[0];
    let told = delivery.all("x-forwarded-host").first().copied().unwrap_or("nowhere");
    let body = format!(
        "<html><head></head><body><a href=\"ws://{own}/s\"></a><a href=\"http://{told}/t\"></a>\
         <i>{told}</i></body></html>"
    );
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nAccess-Control-Allow-Origin: http://{own}\r\n\
         Content-Security-Policy: connect-src ws://{own}\r\nContent-Location: http://{told}/c\r\n\
         Link: <//{told}/l>; rel=x\r\nSet-Cookie: a=b; Domain={told}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    Reply::Send((head + &body).into_bytes())
}

async fn gate(recorder: &Recorder, settings: &[(&'static str, &str)]) -> TestApp {
    let upstream = |name: &str, mount: &str, more: &str| {
        let url = recorder.url();
        format!("[[upstreams]]\nname='{name}'\nmount='{mount}'\nurl='{url}'\n{more}\n")
    };
    let file = upstream("up", "/up", "auth='public'")
        + &upstream("client", "/client", "auth='public'\nhost='client'")
        + &upstream("closed", "/closed", "")
        + &upstream("app", "app.example", "auth='public'\nrewrite=true");
    let base = [
        ("FILE", &*file),
        ("SERVER_TRUSTED_PROXIES", ""),
        ("RATE_LIMIT_PER_MINUTE", "0"),
        ("RATE_LIMIT_PER_HOUR", "0"),
    ];
    let settings = base.iter().chain(settings).map(|(n, v)| (*n, (*v).to_owned())).collect();
    TestApp::with(Options { settings, ..Options::default() }).await
}

async fn ask(app: &TestApp, line: (&str, &str), more: &str) -> Answer {
    let ((method, target), fields) = (line, more);
    Raw::exchange(address(app), format!("{method} {target} HTTP/1.1\r\n{fields}\r\n")).await
}

fn whole(answer: &Answer) -> String {
    format!("{}{}", answer.head, String::from_utf8_lossy(&answer.body)).to_lowercase()
}

/// The fields by which an upstream learns where it is.
fn told(delivery: &Delivery) -> String {
    let names = ["host", "x-forwarded-host", "forwarded", "x-forwarded-port", "x-forwarded-server"];
    let values = names.iter().chain(&["x-forwarded-prefix", "x-forwarded-for"]);
    values.flat_map(|name| delivery.all(name)).collect::<Vec<_>>().join(" ").to_lowercase()
}

#[tokio::test]
async fn a_host_that_a_client_made_up_is_said_nowhere() {
    let recorder = Recorder::start(mirror).await;
    for settings in
        [&[PUBLIC][..], &[PUBLIC, BEHIND], &[PUBLIC, LISTED, BEHIND], &[LISTED], &[LISTED, BEHIND]]
    {
        let app = gate(&recorder, settings).await;
        let (mut served, mut refused) = (0, 0);
        let port = settings.contains(&PUBLIC).then_some(&MADE_UP_PORT);
        for (begin, fields) in MADE_UP.iter().chain(port) {
            for (method, path, more) in ASKED {
                let target = format!("{begin}{path}");
                let fields = format!("{fields}\r\n{more}");
                let answer = ask(&app, (method, &target), &fields).await;
                let (case, said) = (format!("{settings:?} {target} {fields:?}"), whole(&answer));
                assert!(!said.contains("evil") && !said.contains(":6660"), "{case}: {said}");
                assert!(answer.status < 500, "{case}: {said}");
                if answer.status == 400 {
                    refused += 1;
                } else {
                    served += 1;
                }
                for delivery in recorder.take() {
                    let told = told(&delivery);
                    assert!(!told.contains("evil") && !told.contains(":6660"), "{case}: {told}");
                }
            }
        }
        assert!(served >= 6 * ASKED.len() && refused >= 9 * ASKED.len(), "{served} {refused}");

        // A host over HTTP/2, which has it elsewhere.
        for (method, path, _) in ASKED {
            let socket = TokioIo::new(TcpStream::connect(address(&app)).await.unwrap());
            let (mut sender, connection) =
                http2::handshake(TokioExecutor::new(), socket).await.unwrap();
            let connection = tokio::spawn(connection);
            let request = Request::builder().method(*method).version(Version::HTTP_2);
            let request = request.uri(format!("http://evil.example{path}"));
            let request = request.header("accept", "text/html").header("x-original-uri", "/a");
            let request = request.header("x-original-method", "GET").body(Empty::<&[u8]>::new());
            let answer = sender.send_request(request.unwrap()).await.unwrap();
            let fields = format!("{:?}", answer.headers());
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            let said = fields + &String::from_utf8_lossy(&body);
            assert!(!said.contains("evil"), "{settings:?} {path}: {said}");
            assert!(recorder.take().iter().all(|delivery| !told(delivery).contains("evil")));
            connection.abort();
        }
    }
}

#[tokio::test]
async fn the_public_url_and_what_the_operator_names_are_said() {
    let recorder = Recorder::start(mirror).await;
    let public = ("SERVER_PUBLIC_URL", "https://Gate.Example:8443");
    let app = gate(&recorder, &[public, BEHIND]).await;
    for (host, said) in [
        ("evil.example", "gate.example:8443"),
        ("127.0.0.1:8080", "gate.example:8443"),
        ("gate.example", "gate.example:8443"),
        ("gate.example:8443", "gate.example:8443"),
        // A name that is known, too, at the port that users type.
        ("app.example", "app.example:8443"),
        ("app.example:1", "app.example:8443"),
    ] {
        for field in [format!("Host: {host}"), format!("Host: x\r\nX-Forwarded-Host: {host}")] {
            let mounted = host.starts_with("app.");
            let path = if mounted { "/page" } else { "/up/page" };
            let answer = ask(&app, ("GET", path), &format!("{field}\r\n")).await;
            assert_eq!(answer.status, 200, "{field}");
            let prefix = if mounted { "" } else { "/up" };
            let link = format!("href=\"wss://{said}{prefix}/s\"");
            assert!(answer.text().contains(&link), "{field}: {}", answer.text());
            let origin = format!("https://{said}");
            assert_eq!(answer.header("access-control-allow-origin"), Some(&*origin), "{field}");
            assert_eq!(recorder.take()[0].all("x-forwarded-host"), [said], "{field}");
            let answer = ask(&app, ("GET", "/client/page"), "Host: evil.example\r\n").await;
            let delivery = recorder.take().remove(0);
            assert_eq!((answer.status, delivery.all("host")), (200, vec!["gate.example:8443"]));

            // Forward-auth: to the login page of the host that was asked, or to none.
            let fields = "Accept: text/html\r\nX-Original-URI: /a\r\nX-Original-Method: GET\r\n";
            let verify = "/.tollgate/auth/verify?upstream=closed&redirect=1";
            let answer = ask(&app, ("GET", verify), &format!("{field}\r\n{fields}")).await;
            let page = format!("https://{said}/.tollgate/login?next=%2Fa");
            let known = mounted || host.starts_with("gate.");
            assert_eq!(answer.header("location"), known.then_some(&*page), "{field}");
            assert_eq!(answer.status, if known { 303 } else { 401 }, "{field}");
        }
    }
    // HTTP/1.0 may ask for no host at all.
    let answer = Raw::exchange(address(&app), "GET /up/page HTTP/1.0\r\n\r\n").await;
    assert!(answer.text().contains("wss://gate.example:8443/up/s"), "{}", answer.text());
}

#[tokio::test]
async fn without_a_public_url_it_is_the_host_that_was_asked_for() {
    let recorder = Recorder::start(mirror).await;
    let fields = "X-Forwarded-Host: shop.example:81\r\nForwarded: host=other.example\r\n";
    for (settings, host) in [
        // A stranger's word counts for nothing beside the host that he asks.
        (&[][..], "localhost:8080"),
        (&[BEHIND][..], "shop.example:81"),
    ] {
        let app = gate(&recorder, settings).await;
        let asked = format!("Host: localhost:8080\r\n{fields}");
        let answer = ask(&app, ("GET", "/up/page"), &asked).await;
        let link = format!("href=\"ws://{host}/up/s\"");
        assert!(answer.text().contains(&link), "{}", answer.text());
        assert_eq!(recorder.take()[0].all("x-forwarded-host"), [host]);
        let verify = "/api/v1/auth/verify?upstream=closed&redirect=1";
        let asked =
            format!("{asked}Accept: text/html\r\nX-Original-URI: /a\r\nX-Original-Method: GET\r\n");
        let answer = ask(&app, ("GET", verify), &asked).await;
        let page = format!("http://{host}/.tollgate/login?next=%2Fa");
        assert_eq!(answer.header("location"), Some(&*page));
    }
}
