//! A message that two servers could read differently never gets past.

use std::time::Duration;

use tokio::time::timeout;

use super::{address, in_front_of};
use crate::support::{
    raw::Raw,
    recorder::{Recorder, ok},
};

/// What must become of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// Refused, the connection closed, nothing upstream.
    Refused,
    /// Exactly one request upstream, with this body.
    One(&'static str),
    /// One way or the other, never more than one request upstream.
    Either,
}
use Fate::{Either, One, Refused};

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
        post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n", One("")),
        post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n", One("")),
        post("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n", One("abc")),
        post("Transfer-Encoding: Chunked\r\n", "3;x=y\r\nabc\r\n0\r\n\r\n", One("abc")),
        post("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\nX-A: b\r\n\r\n", One("abc")),
        post("Transfer-Encoding:\tchunked\r\n", "0\r\n\r\n", Either),
        post("Transfer-Encoding: chunked \r\n", "0\r\n\r\n", Either),
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
        // Expectations and protocol switches are not passed on.
        post("Expect: 100-continue\r\nContent-Length: 3\r\n", "abc", One("abc")),
        get("GET /x HTTP/1.1", "Host: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n", One("")),
        get("GET /x HTTP/1.1", "Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n", Refused),
    ]
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
    for chunk in ["-1", "+1", "0x1", "g", " 1", "fffffffffffffffff", "1 1", "", "1\n;"] {
        let body = format!("{chunk}\r\na\r\n0\r\n\r\n");
        all.push(post("Transfer-Encoding: chunked\r\n", &body, Either));
    }
    for name in ["x_y", "x.y", "x!y", "x|y", "x~y", "x'y", "x$y", "x+y"] {
        all.push(get("GET /x HTTP/1.1", &format!("Host: a\r\n{name}: 1\r\n"), Refused));
    }
    all
}

#[tokio::test]
async fn what_goes_upstream_is_what_was_accepted() {
    let recorder = Recorder::start(ok).await;
    let app = in_front_of(&recorder, &[("UPSTREAM_AUTH", "public")]).await;
    let table = table();
    assert!(table.len() >= 150, "{}", table.len());
    for (request, fate) in table {
        let mut client = Raw::connect(address(&app)).await;
        client.send(format!("{request}{NEXT}")).await;
        let mut statuses = Vec::new();
        while let Ok(Some(answer)) = timeout(Duration::from_secs(2), client.answer()).await {
            statuses.push(answer.status);
            if statuses.len() == 2 {
                break;
            }
        }
        let seen = recorder.take();
        let first = statuses.first().copied();
        let hostile = seen.iter().filter(|d| d.request_line().contains(" /x ")).count();
        match fate {
            Refused => {
                assert!(
                    matches!(first, None | Some(400 | 405 | 426 | 501 | 505)),
                    "{request:?} {first:?}"
                );
                assert!(seen.is_empty(), "{request:?} reached the upstream: {seen:?}");
                assert!(statuses.len() <= 1, "{request:?} left the connection open");
            }
            One(body) => {
                assert_eq!((first, hostile), (Some(200), 1), "{request:?}");
                assert_eq!(seen[0].body, body.as_bytes(), "{request:?}");
                for hop in ["expect", "upgrade", "connection"] {
                    assert!(seen[0].all(hop).is_empty(), "{request:?}");
                }
            }
            Either => {
                assert!(hostile <= 1, "{request:?}: {seen:?}");
                if first != Some(200) {
                    assert!(statuses.len() <= 1, "{request:?} left the connection open");
                }
            }
        }
        // As many well-formed requests upstream as were answered with success.
        let good = statuses.iter().filter(|status| **status == 200).count();
        assert!(seen.len() >= good, "{request:?}");
        assert!(seen.len() <= statuses.len(), "{request:?}: {seen:?}");
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
