//! The same answers through hyper's client and through ours.
//!
//! What we understand hyper understands alike; what hyper refuses we refuse. Where
//! we are stricter it is said in the table.

use http::{HeaderMap, Request, StatusCode, request};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;

/// What becomes of an answer.
#[derive(Debug, PartialEq)]
enum Outcome {
    Refused,
    /// Its head was understood, its body was not whole.
    Broken(StatusCode, Vec<u8>),
    Whole {
        status: StatusCode,
        fields: HeaderMap,
        body: Vec<u8>,
        trailers: Option<HeaderMap>,
        /// Whether the connection may be used again; not if it was closed.
        reusable: bool,
    },
}

fn parts(method: &str) -> request::Parts {
    Request::builder().method(method).uri("/x").header("host", "a").body(()).unwrap().into_parts().0
}

/// Takes a head, and answers it in these pieces.
async fn upstream(mut socket: DuplexStream, pieces: Vec<Vec<u8>>, closes: bool) {
    let mut head = vec![];
    while !head.ends_with(b"\r\n\r\n") {
        if socket.read_buf(&mut head).await.unwrap_or(0) == 0 {
            return;
        }
    }
    for piece in pieces {
        if socket.write_all(&piece).await.is_err() {
            return;
        }
        tokio::task::yield_now().await;
    }
    if !closes {
        _ = socket.read_to_end(&mut head).await;
    }
}

async fn by_hyper(method: &str, pieces: Vec<Vec<u8>>, closes: bool) -> Outcome {
    let (ours, theirs) = duplex(1 << 20);
    let serving = AbortOnDropHandle::new(tokio::spawn(upstream(theirs, pieces, closes)));
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(ours)).await.unwrap();
    let driving = AbortOnDropHandle::new(tokio::spawn(connection));
    let request = Request::from_parts(parts(method), Empty::<Bytes>::new());
    let Ok(answer) = sender.send_request(request).await else { return Outcome::Refused };
    let (head, mut body) = answer.into_parts();
    let (mut data, mut trailers) = (vec![], None);
    while let Some(frame) = body.frame().await {
        match frame.map(Frame::into_data) {
            Ok(Ok(part)) => data.extend_from_slice(&part),
            Ok(Err(frame)) => trailers = frame.into_trailers().ok(),
            Err(_) => return Outcome::Broken(head.status, data),
        }
    }
    let (status, fields, body) = (head.status, head.headers, data);
    let reusable = !closes && sender.ready().await.is_ok();
    drop((driving, serving));
    Outcome::Whole { status, fields, body, trailers, reusable }
}

async fn by_us(method: &str, pieces: Vec<Vec<u8>>, closes: bool) -> Outcome {
    let (ours, theirs) = duplex(1 << 20);
    let serving = AbortOnDropHandle::new(tokio::spawn(upstream(theirs, pieces, closes)));
    let mut connection = Box::new(Connection::new(ours));
    let sent =
        connection.send(&mut parts(method), None::<Full<Bytes>>, || unreachable!("no body")).await;
    let Ok(answer) = sent else { return Outcome::Refused };
    let (head, mut receiving) = answer.into_parts();
    let (mut data, mut trailers) = (vec![], None);
    loop {
        let frame = poll_fn(|cx| receiving.poll_frame(cx, &mut connection)).await;
        match frame.map(|frame| frame.map(Frame::into_data)) {
            None => break,
            Some(Ok(Ok(part))) => data.extend_from_slice(&part),
            Some(Ok(Err(frame))) => trailers = frame.into_trailers().ok(),
            Some(Err(_)) => return Outcome::Broken(head.status, data),
        }
    }
    assert!(receiving.is_over());
    let (status, fields, body) = (head.status, head.headers, data);
    tokio::task::yield_now().await;
    let idle = receiving.into_idle(connection);
    let quiet = async |mut idle: Box<Connection<_>>| {
        poll_fn(move |cx| Poll::Ready(idle.is_quiet(cx))).await
    };
    let reusable = match idle {
        Some(idle) => !closes && quiet(idle).await,
        None => false,
    };
    drop(serving);
    Outcome::Whole { status, fields, body, trailers, reusable }
}

const OK: &str = "HTTP/1.1 200 OK\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Heads, each after a status line of its own kind.
const FIELDS: [&str; 38] = [
    "",
    "Content-Length: 0\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 5, 5\r\n",
    "Content-Length: 5\r\nContent-Length: 5\r\n",
    "Content-Length: 5\r\nContent-Length: 6\r\n",
    "Content-Length: 5,\r\n",
    "Content-Length: +5\r\n",
    "Content-Length: -5\r\n",
    "Content-Length: 0x5\r\n",
    "Content-Length:\r\n",
    "Content-Length: five\r\n",
    "Content-Length: 18446744073709551613\r\n",
    "Content-Length: 18446744073709551614\r\n",
    "Content-Length: 18446744073709551616\r\n",
    "Content-Length : 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: CHUNKED\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Transfer-Encoding: chunked, gzip\r\n",
    "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n",
    "Transfer-Encoding: identity\r\n",
    "Transfer-Encoding:\r\n",
    "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    "Content-Length: five\r\nTransfer-Encoding: chunked\r\n",
    "Connection: close\r\n",
    "Connection: close\r\nContent-Length: 5\r\n",
    "Connection: keep-alive\r\nContent-Length: 5\r\n",
    "Connection: x, close\r\nConnection: keep-alive\r\nContent-Length: 5\r\n",
    "X-A: b\r\n folded\r\nContent-Length: 5\r\n",
    "X-A : b\r\nContent-Length: 5\r\n",
    "X A: b\r\nContent-Length: 5\r\n",
    "X-A: \x01\r\nContent-Length: 5\r\n",
    "X-A: \u{e9}\t~ \r\nContent-Length: 5\r\n",
    "X-A: b\nContent-Length: 5\n",
    "X-A: b\rContent-Length: 5\r\n",
    ": b\r\nContent-Length: 5\r\n",
];

const LINES: [&str; 20] = [
    OK,
    "HTTP/1.0 200 OK\r\n",
    "HTTP/1.1 200\r\n",
    "HTTP/1.1 200 \r\n",
    "HTTP/1.1 299 Odd \u{e9}\r\n",
    "HTTP/1.1 204 No Content\r\n",
    "HTTP/1.1 304 Not Modified\r\n",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n",
    "HTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 C\r\n\r\nHTTP/1.1 206 P\r\n",
    "HTTP/1.1 100 Continue\r\nBad name: x\r\n\r\nHTTP/1.1 200 OK\r\n",
    "\r\nHTTP/1.1 200 OK\r\n",
    "HTTP/1.1 200 OK\n",
    "HTTP/1.1  200 OK\r\n",
    "HTTP/1.1 0200 OK\r\n",
    "HTTP/1.1 20 OK\r\n",
    "HTTP/1.1 099 Low\r\n",
    "HTTP/1.1 999 High\r\n",
    "HTTP/2.0 200 OK\r\n",
    "http/1.1 200 OK\r\n",
    "nonsense\r\n",
];

const BODIES: [&str; 8] = [
    "",
    "hello",
    "hello, more",
    "5\r\nhello\r\n0\r\n\r\n",
    "5;a=b\r\nhello\r\n1\r\n!\r\n0\r\nX-T: u\r\n\r\n",
    "5\r\nhello\r\n0\r\n\r\nmore",
    "5\r\nhello\r\n",
    "5\nhello\r\n0\r\n\r\n",
];

/// Where ours differs: an upstream of HTTP/1.0 is never asked twice over one
/// connection, whatever it offers.
fn compare(what: &str, hyper: Outcome, ours: &Outcome) {
    let expected = match hyper {
        Outcome::Whole { status, fields, body, trailers, .. } if what.starts_with("HTTP/1.0") => {
            Outcome::Whole { status, fields, body, trailers, reusable: false }
        }
        other => other,
    };
    assert_eq!(*ours, expected, "ours differs (left) from hyper's: {what:?}");
}

#[tokio::test]
async fn odd_answers_are_understood_as_by_hyper() {
    for line in LINES {
        for fields in FIELDS {
            for body in BODIES {
                // The head's own turns are taken with few bodies, and the other way.
                if line != OK && !matches!(body, "hello" | "5\r\nhello\r\n0\r\n\r\n") {
                    continue;
                }
                let text = format!("{line}{fields}\r\n{body}");
                for method in ["GET", "HEAD"] {
                    let pieces = vec![text.clone().into_bytes()];
                    let theirs = by_hyper(method, pieces.clone(), true).await;
                    compare(&text, theirs, &by_us(method, pieces, true).await);
                }
            }
        }
    }
}

#[tokio::test]
async fn a_connection_is_used_again_where_hyper_would() {
    for (text, method) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "GET"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello!", "GET"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "HEAD"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "HEAD"),
        ("HTTP/1.1 204 No\r\n\r\n", "GET"),
        ("HTTP/1.1 204 No\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "GET"),
        ("HTTP/1.1 204 No\r\nConnection: close\r\n\r\n", "GET"),
        ("HTTP/1.0 204 No\r\n\r\n", "GET"),
        ("HTTP/1.0 204 No\r\nConnection: keep-alive\r\n\r\n", "GET"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", "GET"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\nx", "GET"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-T: u\r\n\r\n", "GET"),
    ] {
        let pieces = vec![text.as_bytes().to_vec()];
        let theirs = by_hyper(method, pieces.clone(), false).await;
        assert!(matches!(theirs, Outcome::Whole { .. }), "{text:?}");
        compare(text, theirs, &by_us(method, pieces, false).await);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// However they are cut, and whatever stands in them.
    #[test]
    fn any_answer_is_understood_as_by_hyper(
        wire in prop_oneof![
            "(HTTP/1\\.1 (100|200|204) [a-zA-Z]{0,3}\r\n(X-[A-Z]: [a-z]{0,5}\r\n){0,2}\
              (Content-Length: [0-9]{1,2}\r\n|Transfer-Encoding: chunked\r\n)?\r\n){1,2}\
              [a-z]{0,12}",
            "([0-3]{1,2}(;[a-z\r\n]{0,3})?\r?\n[a-z]{0,3}\r\n){0,4}(0\r\n(X: y\r\n)?\r\n)?[a-z]{0,2}"
                .prop_map(|body| format!("{CHUNKED}{body}")),
            "HTTP/1\\.[0-9] [0-9]{1,3}[ -~]{0,20}\r?\n([ -~]{0,20}\r?\n){0,3}\r?\n[ -~]{0,9}",
        ],
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
        head in prop::bool::weighted(0.1),
    ) {
        let wire = wire.into_bytes();
        let mut at: Vec<_> = cuts.iter().map(|cut| cut.index(wire.len() + 1)).collect();
        at.extend([0, wire.len()]);
        at.sort_unstable();
        let pieces: Vec<_> = at.windows(2).map(|two| wire[two[0]..two[1]].to_vec()).collect();
        let method = if head { "HEAD" } else { "GET" };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let theirs = by_hyper(method, pieces.clone(), true).await;
            let text = String::from_utf8_lossy(&wire);
            compare(&text, theirs, &by_us(method, pieces, true).await);
        });
    }
}
