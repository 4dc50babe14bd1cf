//! A message that two servers could read differently never gets past.

use std::time::Duration;

use tokio::time::timeout;

use super::{
    address, in_front_of,
    replay::{Reader, shown},
};
use crate::support::{
    TestApp,
    raw::Raw,
    recorder::{Delivery, Recorder, Reply, ok},
};

/// What must become of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// Refused, the connection closed, nothing upstream.
    Refused,
    /// The same, but only its body is wrong: it may have been begun upstream.
    Broken,
    /// Exactly one request upstream, with this body; and then the next.
    One(&'static str),
    /// Exactly one, and nothing after it is taken for a request.
    Last(&'static str),
}
use Fate::{Broken, Last, One, Refused};

/// Stands after every hostile request; it would be the smuggled one.
const NEXT: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

fn post(fields: &str, body: &str, fate: Fate) -> (String, Fate) {
    (format!("POST /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}"), fate)
}

fn get(line: &str, fields: &str, fate: Fate) -> (String, Fate) {
    (format!("{line}\r\n{fields}\r\n"), fate)
}

/// Each with a reading of its own.
fn singular() -> Vec<(String, Fate)> {
    vec![
        // Both lengths at once.
        post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n", Last("")),
        post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n", Last("")),
        post("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n", One("abc")),
        post("Transfer-Encoding: Chunked\r\n", "3;x=y\r\nabc\r\n0\r\n\r\n", One("abc")),
        post("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\nX-A: b\r\n\r\n", One("abc")),
        post("Transfer-Encoding:\tchunked\r\n", "0\r\n\r\n", One("")),
        post("Transfer-Encoding: chunked \r\n", "0\r\n\r\n", One("")),
        post("Content-Length: 3\r\n", "abc", One("abc")),
        post("Content-Length: 3\r\nContent-Length: 3\r\n", "abc", One("abc")),
        // A body where none is expected belongs to the request all the same.
        get("GET /x HTTP/1.1", "Host: a\r\nContent-Length: 0\r\n", One("")),
        // Hosts.
        get("GET /x HTTP/1.1", "", Refused),
        get("GET /x HTTP/1.1", "Host: a\r\nHost: a\r\n", Refused),
        get("GET /x HTTP/1.1", "Host: a\r\nHost: b\r\n", Refused),
        get("GET /x HTTP/1.1", "Host: a\r\nhOST: b\r\n", Refused),
        get("GET /x HTTP/1.1", "Host: a b\r\n", Refused),
        get("GET /x HTTP/1.1", "Host: a/b\r\n", Refused),
        get("GET /x HTTP/1.1", "Host: u@a\r\n", Refused),
        get("GET http://b/x HTTP/1.1", "Host: a\r\n", Refused),
        get("GET http://a/x HTTP/1.1", "Host: a\r\n", One("")),
        get("GET http://a@b/x HTTP/1.1", "Host: a\r\n", Refused),
        // Methods, versions and lines.
        get("TRACE /x HTTP/1.1", "Host: a\r\n", Refused),
        get("CONNECT a:1 HTTP/1.1", "Host: a:1\r\n", Refused),
        get("GET /x HTTP/1.2", "Host: a\r\n", Refused),
        get("GET /x HTTP/2.0", "Host: a\r\n", Refused),
        get("GET /x http/1.1", "Host: a\r\n", Refused),
        get("GET  /x HTTP/1.1", "Host: a\r\n", Refused),
        get("GET /x  HTTP/1.1", "Host: a\r\n", Refused),
        get("GET\t/x HTTP/1.1", "Host: a\r\n", Refused),
        get("GET /x", "Host: a\r\n", Refused),
        get("GE(T /x HTTP/1.1", "Host: a\r\n", Refused),
        get("GET /x HTTP/1.1", "Host: a\r\n folded\r\n", Refused),
        get("GET /x HTTP/1.1", "Host: a\r\nX-A: b\r\n folded\r\n", Refused),
        get("GET /x HTTP/1.1", "Host : a\r\n", Refused),
        get("GET /x HTTP/1.1", "Host: a\r\nX-A : b\r\n", Refused),
        get("GET /x HTTP/1.1", " Host: a\r\n", Refused),
        get("GET /x HTTP/1.1", "Host: a\r\nno colon\r\n", Refused),
        get("GET /x HTTP/1.1", "Host: a\r\n: empty\r\n", Refused),
        get("GET /x HTTP/1.1", "Host: a\r\nX-A: b\0c\r\n", Refused),
        get("GET /x HTTP/1.1", "Host: a\r\nX-A: b\rc\r\n", Refused),
        get("GET /x HTTP/1.1", "Host: a\r\nX\u{e9}: b\r\n", Refused),
        get("GET /x HTTP/1.0", "Host: a\r\nTransfer-Encoding: chunked\r\n", Refused),
        // Lines that end in half.
        ("GET /x HTTP/1.1\nHost: a\n\n".to_owned(), One("")),
        ("GET /x HTTP/1.1\r\nHost: a\n\r\n".to_owned(), One("")),
        get("GET /x HTTP/1.1", "Host: a\nX-A: b\n", One("")),
        get("GET /x HTTP/1.1", "Host: a\r\nX-A: b\n folded\n", Refused),
        post("X-A: b\nContent-Length: 3\n", "abc", One("abc")),
        post("X-A: b\nContent-Length: 3\r\nContent-Length: 4\r\n", "abc", Refused),
        ("GET /x HTTP/1.1\rHost: a\r\r".to_owned(), Refused),
        get("GET /x HTTP/1.1", "Host: a\rX-A: b\r\n", Refused),
        get("GET /x HTTP/1.1", "Host: a\r\nX-A: b\r\r\n", Refused),
        post("Content-Length: 3\r", "abc", Refused),
        // Expectations and protocol switches are not passed on.
        post("Expect: 100-continue\r\nContent-Length: 3\r\n", "abc", One("abc")),
        get("GET /x HTTP/1.1", "Host: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n", One("")),
        get("GET /x HTTP/1.1", "Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n", Refused),
    ]
}

/// Chunks, most of them none.
fn chunked() -> Vec<(String, Fate)> {
    let body = |body: &str, fate| post("Transfer-Encoding: chunked\r\n", body, fate);
    let mut all = vec![
        body("03\r\nabc\r\n00\r\n\r\n", One("abc")),
        body("3 \r\nabc\r\n0\r\n\r\n", One("abc")),
        body("1;x=\"y\"\r\na\r\n1;z\r\nb\r\n0;x\r\n\r\n", One("ab")),
        // Lines that end in half, and data that do not end where they should.
        body("3;x=\ny\r\nabc\r\n0\r\n\r\n", Broken),
        body("3;x=\ry\r\nabc\r\n0\r\n\r\n", Broken),
        body("3;x\nabc\r\n0\r\n\r\n", Broken),
        body("3\nabc\r\n0\r\n\r\n", Broken),
        body("3\rabc\r\n0\r\n\r\n", Broken),
        body("3\r\nabc\n0\r\n\r\n", Broken),
        body("3\r\nabc\r0\r\n\r\n", Broken),
        body("3\r\nabc0\r\n\r\n", Broken),
        body("3\r\nabcd\r\n0\r\n\r\n", Broken),
        body("2\r\nabc\r\n0\r\n\r\n", Broken),
        body("3\r\nabc\r\n0\n\n", Broken),
        // What comes then is a trailer up to an empty line of the right sort.
        body("3\r\nabc\r\n0\r\n\n", Last("abc")),
        body("3\r\nabc\r\n0\r\nno colon\r\n\r\n", Broken),
    ];
    for chunk in ["-1", "+1", "0x1", "g", " 1", "fffffffffffffffff", "1 1", "", "1\n;", "1\0"] {
        all.push(body(&format!("{chunk}\r\na\r\n0\r\n\r\n"), Broken));
    }
    all
}

fn table() -> Vec<(String, Fate)> {
    let mut all = singular();
    for coding in [
        "xchunked",
        "chunked, identity",
        "identity",
        "gzip",
        "gzip, chunked",
        "chunked, chunked",
        "chunked,",
        ",chunked",
        "\"chunked\"",
        "chunk",
        "chunked\x0b",
        "chunked;q=1",
        "",
    ] {
        let fields = format!("Transfer-Encoding: {coding}\r\n");
        all.push(post(&fields, "0\r\n\r\n", Refused));
        let fields = format!("Transfer-Encoding: {coding}\r\nTransfer-Encoding: chunked\r\n");
        all.push(post(&fields, "0\r\n\r\n", Refused));
        let fields = format!("Transfer-Encoding: chunked\r\nTransfer-Encoding: {coding}\r\n");
        all.push(post(&fields, "0\r\n\r\n", Refused));
        let fields = format!("Content-Length: 3\r\nTransfer-Encoding: {coding}\r\n");
        all.push(post(&fields, "0\r\n\r\n", Refused));
    }
    for length in [
        "+3",
        "-3",
        "3,3",
        "3, 3",
        "3 3",
        "0x3",
        "3.0",
        "3e0",
        "\"3\"",
        "",
        "a",
        "18446744073709551616",
        "99999999999999999999999",
        "3;",
        "\u{0663}",
    ] {
        all.push(post(&format!("Content-Length: {length}\r\n"), "abc", Refused));
        all.push(post(
            &format!("Content-Length: 3\r\nContent-Length: {length}\r\n"),
            "abc",
            Refused,
        ));
        all.push(post(
            &format!("Content-Length: {length}\r\nContent-Length: 3\r\n"),
            "abc",
            Refused,
        ));
    }
    all.extend(chunked());
    for expected in
        ["100-continue, x", "x", "", "200-ok", "100-Continue", "100-continue\r\nExpect: x"]
    {
        let fields = format!("Expect: {expected}\r\nContent-Length: 3\r\n");
        all.push(post(&fields, "abc", One("abc")));
        all.push(get("GET /x HTTP/1.1", &format!("Host: a\r\nExpect: {expected}\r\n"), One("")));
    }
    // A body where none is expected, that looks like a request.
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "PUT"] {
        let head = format!("{method} /x HTTP/1.1\r\nHost: a\r\n");
        let length = NEXT.len();
        all.push((format!("{head}Content-Length: {length}\r\n\r\n{NEXT}"), One(NEXT)));
        let chunk = format!("{length:x}\r\n{NEXT}\r\n0\r\n\r\n");
        all.push((format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunk}"), One(NEXT)));
    }
    for name in ["x_y", "x.y", "x!y", "x|y", "x~y", "x'y", "x$y", "x+y"] {
        all.push(get("GET /x HTTP/1.1", &format!("Host: a\r\n{name}: 1\r\n"), Refused));
    }
    all
}

/// What one connection's requests came to.
struct Seen {
    statuses: Vec<u16>,
    closed: bool,
    upstream: Vec<Delivery>,
}

impl Seen {
    /// Sends a request and [`NEXT`] behind it.
    async fn of(request: &str, app: &TestApp, recorder: &Recorder) -> Self {
        let mut client = Raw::connect(address(app)).await;
        client.send(format!("{request}{NEXT}")).await;
        let mut statuses = vec![];
        let closed = loop {
            match timeout(Duration::from_secs(2), client.answer()).await {
                Ok(Some(answer)) => statuses.push(answer.status),
                Ok(None) => break true,
                Err(_) => break false,
            }
            if statuses.len() == 2 {
                break false;
            }
        };
        Self { statuses, closed, upstream: recorder.take() }
    }

    /// Why this is not what must become of such a request.
    fn fault(&self, fate: Fate) -> Option<&'static str> {
        let Self { statuses, closed, upstream } = self;
        let lines: Vec<_> = upstream.iter().map(Delivery::request_line).collect();
        match fate {
            Refused | Broken => {
                let code = |status: &u16| matches!(status, 400 | 405 | 426 | 431 | 501 | 505);
                match &statuses[..] {
                    _ if !upstream.is_empty() => Some("it reached the upstream"),
                    _ if !closed => Some("it left the connection open"),
                    [] => Some("it was not answered"),
                    [status] if code(status) => None,
                    _ => Some("it was not refused"),
                }
            }
            One(body) | Last(body) => {
                let served = if matches!(fate, One(_)) { 2 } else { 1 };
                let ends = [" /x HTTP/1.1", "GET /smuggled HTTP/1.1"];
                let ends = ends.iter().take(served);
                if *statuses != vec![200; served] {
                    return Some("it was not served, or not what came after it");
                }
                if lines.len() != served
                    || !lines.iter().zip(ends).all(|(line, end)| line.ends_with(end))
                {
                    return Some("the upstream was asked something else");
                }
                if upstream[0].body != body.as_bytes() {
                    return Some("it had another body");
                }
                upstream.iter().find_map(unframed)
            }
        }
    }
}

/// Why the next reader could understand it in two ways.
fn unframed(delivery: &Delivery) -> Option<&'static str> {
    let (length, coding) = (delivery.all("content-length"), delivery.all("transfer-encoding"));
    let framed = match (&length[..], &coding[..]) {
        ([], []) => delivery.body.is_empty(),
        ([length], []) => *length == delivery.body.len().to_string(),
        ([], [coding]) => *coding == "chunked",
        _ => false,
    };
    let hop = ["expect", "upgrade", "connection", "trailer", "te", "keep-alive"];
    let hop = hop.iter().any(|name| !delivery.all(name).is_empty());
    let bare = |pair: &[u8]| (pair[0] == b'\r') != (pair[1] == b'\n');
    match () {
        () if !framed => Some("its length is not said once"),
        () if hop => Some("a field of its connection went on"),
        () if delivery.head.as_bytes().windows(2).any(bare) => Some("a line ends in half"),
        () => None,
    }
}

#[tokio::test]
async fn what_goes_upstream_is_what_was_accepted() {
    let recorder = Recorder::start(|_| {
        // Without a body, so that it answers HEAD too.
        Reply::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec())
    })
    .await;
    let app = in_front_of(&recorder, &[("UPSTREAM_AUTH", "public")]).await;
    let (readers, table) = (Reader::all().await, table());
    assert!(table.len() >= 200, "{}", table.len());
    let mut wrong = vec![];
    for (request, fate) in &table {
        let seen = Seen::of(request, &app, &recorder).await;
        if let Some(fault) = seen.fault(*fate) {
            let Seen { statuses, closed, upstream } = &seen;
            let heads: Vec<_> = upstream.iter().map(|one| &one.head).collect();
            wrong.push(format!("{request:?}: {fault}: {statuses:?} {closed} {heads:?}"));
        }
        // As many well-formed requests upstream as were answered with success,
        // and as many whoever reads them.
        let good = seen.statuses.iter().filter(|status| **status == 200).count();
        assert_eq!(seen.upstream.len(), good, "{request:?}");
        let wire: Vec<_> = seen.upstream.iter().flat_map(|one| one.wire.clone()).collect();
        let expected: Vec<_> = seen.upstream.iter().map(shown).collect();
        for reader in readers.iter().filter(|_| !wire.is_empty()) {
            let read = reader.read(&wire).await;
            assert_eq!(read, expected, "{} reads {request:?} differently", reader.name);
        }
    }
    assert!(wrong.is_empty(), "{} of {}: {}", wrong.len(), table.len(), wrong.join("\n"));
    // What broke off within its body was begun upstream at most, and nothing of
    // what came behind it.
    let broken = table.iter().filter(|(_, fate)| *fate == Broken).count();
    let fragments = recorder.fragments();
    assert!(fragments.len() <= broken, "{} of {broken}", fragments.len());
    for fragment in fragments {
        let text = String::from_utf8_lossy(&fragment);
        assert!(!text.contains("smuggled") && text.matches(" HTTP/1.1").count() == 1, "{text}");
    }
}

#[tokio::test]
async fn oversized_heads_are_refused_without_reading_on() {
    let recorder = Recorder::start(ok).await;
    let app = in_front_of(&recorder, &[("UPSTREAM_AUTH", "public")]).await;
    let many = (0..101).fold(String::new(), |all, n| format!("{all}X-{n}: 1\r\n"));
    for (request, status) in [
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(8 * 1024)), 414),
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(40 * 1024)), 431),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX-A: {}\r\n\r\n", "a".repeat(33 * 1024)), 431),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX-A: {}\r\n\r\n", "a".repeat(20 * 1024)), 200),
    ] {
        let answer = Raw::exchange(address(&app), &request).await;
        assert_eq!(answer.status, status, "{} bytes", request.len());
    }
    assert_eq!(recorder.take().len(), 1);
}
