//! Answers that are not as RFC 9112 wants them (G-38): what is passed on is
//! framed by us and is exactly what was understood, or it is a 502.

use super::{address, public, start};
use crate::support::{
    raw::{Answer, Raw, headers},
    recorder::{Recorder, Reply},
};

/// What a client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Get {
    /// Our own answer: nothing of theirs.
    Refused,
    /// This status and this body, whole.
    Whole(u16, &'static str),
    /// An end that does not look like one: within the body, or where that was
    /// wrong from its first byte, before the head had left us.
    Broken,
}
use Get::{Broken, Refused, Whole};

const TABLE: [(&str, Get); 62] = [
    // As it should be.
    ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Whole(200, "ok")),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Whole(200, "ok")),
    ("HTTP/1.0 200 OK\r\n\r\nold", Whole(200, "old")),
    ("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end", Whole(200, "until the end")),
    ("HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", Whole(200, "ok")),
    ("HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok", Whole(200, "ok")),
    ("HTTP/1.1 299 Odd\r\nContent-Length: 2\r\n\r\nok", Whole(299, "ok")),
    // Interim answers.
    (
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        Whole(200, "ok"),
    ),
    (
        "HTTP/1.1 103 Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        Whole(200, "ok"),
    ),
    ("HTTP/1.1 102 P\r\n\r\nHTTP/1.1 102 P\r\n\r\nHTTP/1.1 204 No\r\n\r\n", Whole(204, "")),
    ("HTTP/1.1 100 Continue\r\n\r\n", Refused),
    ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nraw", Refused),
    (
        "HTTP/1.1 101 Switching Protocols\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        Refused,
    ),
    // Answers that have no body, whatever they say.
    ("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", Whole(204, "")),
    (
        "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Whole(204, ""),
    ),
    ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello", Whole(304, "")),
    ("HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Whole(304, "")),
    ("HTTP/1.1 204 No\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nevil!", Whole(204, "")),
    // Lengths that two readers may take differently.
    ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", Whole(200, "ok")),
    ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!", Refused),
    ("HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", Whole(200, "ok")),
    ("HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nok!", Refused),
    ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nok", Refused),
    ("HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", Refused),
    ("HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nok", Refused),
    ("HTTP/1.1 200 OK\r\nContent-Length: 2 2\r\n\r\nok", Refused),
    ("HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok", Refused),
    ("HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nok", Refused),
    ("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nok", Refused),
    ("HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\nok", Refused),
    // Both ways of framing: chunks hold (RFC 9112, 6.3), the length is dropped.
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        Whole(200, "ok"),
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        Whole(200, "ok"),
    ),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Refused),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n2\r\nok\r\n0\r\n\r\n", Refused),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok", Refused),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\nContent-Length: 2\r\n\r\nok", Refused),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        Refused,
    ),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Refused),
    ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Refused),
    // Ends that come too early, and chunks that are none.
    ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", Broken),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", Broken),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n", Broken),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nok", Broken),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n", Broken),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\nok\r\n0\r\n\r\n", Broken),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x2\r\nok\r\n0\r\n\r\n", Broken),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokay\r\n0\r\n\r\n", Broken),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n11111111111111111\r\nok", Broken),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nok\r\n0\r\nX-User: a\r\n\r\n",
        Whole(200, "ok"),
    ),
    // More than the answer: whose would it be?
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        Whole(200, "ok"),
    ),
    ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nevil", Whole(200, "")),
    // Heads that are none.
    ("", Refused),
    ("SSH-2.0-OpenSSH\r\n\r\n", Refused),
    ("HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", Refused),
    ("HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n", Refused),
    ("HTTP/1.1 099 Low\r\nContent-Length: 0\r\n\r\n", Refused),
    ("HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n", Refused),
    ("HTTP/1.1 200 OK\r\nNo colon here\r\n\r\n", Refused),
    ("HTTP/1.1 200 OK\r\nBad Name: x\r\nContent-Length: 0\r\n\r\n", Refused),
    ("HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n", Refused),
    ("HTTP/1.1 200 OK\r\nX: a\rContent-Length: 5\r\n\r\nhello", Refused),
    ("HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 0\r\n\r\n", Refused),
];

async fn through(bytes: Vec<u8>) -> Option<Answer> {
    let recorder = Recorder::start(move |_| Reply::SendThenClose(bytes.clone())).await;
    let app = start(&public(&format!("url='{}'", recorder.url()))).await;
    let mut client = Raw::connect(address(&app)).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let answer = client.answer().await;
    assert_eq!(recorder.take().len(), 1);
    answer
}

#[tokio::test]
async fn what_is_passed_on_is_what_was_understood() {
    let mut wrong = vec![];
    for (bytes, expected) in TABLE {
        let Some(answer) = through(bytes.as_bytes().to_vec()).await else {
            if expected != Broken {
                wrong.push(format!("{bytes:?}: cut instead of {expected:?}"));
            }
            continue;
        };
        let got = match answer.status {
            502 => Refused,
            status if answer.complete => Whole(status, answer.text().to_owned().leak()),
            _ => Broken,
        };
        if got != expected {
            wrong.push(format!("{bytes:?}: {got:?} instead of {expected:?}"));
        }
        let framings =
            ["content-length", "transfer-encoding"].map(|name| headers(&answer.head, name).count());
        assert!(framings.iter().sum::<usize>() <= 1, "{bytes:?}: {}", answer.head);
        assert!(!answer.text().contains("evil") && !answer.head.contains("evil"), "{bytes:?}");
        assert!(headers(&answer.head, "x-user").next().is_none(), "{bytes:?}");
        if answer.status == 502 {
            assert_eq!(answer.json()["code"], "upstream_failed", "{bytes:?}");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Bare line feeds are understood as ends of lines, as RFC 9112 allows, and
/// leave us as CR LF.
#[tokio::test]
async fn bare_line_feeds_are_not_passed_on() {
    for bytes in [
        "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\nX-A: 1\r\n\r\nok",
        "HTTP/1.1 200 OK\nX-A: 1\r\nContent-Length: 2\n\r\nok",
    ] {
        let answer = through(bytes.as_bytes().to_vec()).await.unwrap();
        assert!(answer.status == 502 || answer.text() == "ok", "{bytes:?}: {answer:?}");
        assert_eq!(answer.head.matches('\n').count(), answer.head.matches("\r\n").count());
    }
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused() {
    let head = |fields: String| format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 2\r\n\r\nok");
    for (fields, status) in [
        ("X-A: 1\r\n".repeat(90), 200),
        ("X-A: 1\r\n".repeat(150), 502),
        (format!("X-A: {}\r\n", "a".repeat(30_000)), 200),
        (format!("X-A: {}\r\n", "a".repeat(2_000_000)), 502),
        (format!("{}: 1\r\n", "a".repeat(70_000)), 502),
    ] {
        let size = fields.len();
        let answer = through(head(fields).into_bytes()).await.unwrap();
        assert_eq!(answer.status, status, "{size} bytes of fields");
    }
}

/// An answer to `HEAD` has no body, whatever its fields say.
#[tokio::test]
async fn a_body_that_follows_the_answer_to_head_is_nobodys() {
    let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let recorder = Recorder::start(move |_| Reply::Send(bytes.to_vec())).await;
    let app = start(&public(&format!("url='{}'", recorder.url()))).await;
    for _ in 0..5 {
        let mut client = Raw::connect(address(&app)).await;
        client.send("HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        client.until(b"\r\n\r\n").await;
        client.rest().await;
        // What followed has not become the next one's answer.
        let answer = super::get(&app, "/").await;
        assert_eq!((answer.status, answer.text()), (200, "evil"));
    }
    // Each connection that had something left over was given up.
    assert!(recorder.connections() >= 5, "{}", recorder.connections());
}
