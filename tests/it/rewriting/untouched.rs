//! What passes byte for byte (RELIABILITY G-133).

use super::{FIELDS, PAGE, answer, both};
use crate::{
    streams::address,
    support::{
        raw::{Raw, headers},
        recorder::{Delivery, Recorder, Reply},
    },
};

type Fields = &'static [(&'static str, &'static str)];

/// Name, status, and fields beside those that all have; `text/html` where no type
/// is among them.
const CASES: [(&str, u16, Fields); 18] = [
    ("a part", 206, &[("content-range", "bytes 0-9/100")]),
    ("a range in 200", 200, &[("content-range", "bytes 0-9/100")]),
    ("no-transform", 200, &[("cache-control", "public, No-Transform")]),
    ("an attachment", 200, &[("content-disposition", "attachment; filename=a.html")]),
    ("an unknown coding", 200, &[("content-encoding", "dcb")]),
    ("two codings", 200, &[("content-encoding", "gzip, br")]),
    ("two coding fields", 200, &[("content-encoding", "gzip"), ("content-encoding", "br")]),
    ("an image", 200, &[("content-type", "image/png")]),
    ("no type", 200, &[("content-type", "")]),
    ("events", 200, &[("content-type", "text/event-stream")]),
    ("JSON without a rule", 200, &[("content-type", "application/json")]),
    ("problem+json", 404, &[("content-type", "application/problem+json")]),
    ("a script without a rule", 200, &[("content-type", "text/javascript")]),
    ("UTF-16", 200, &[("content-type", "text/html; charset=\"UTF-16LE\"")]),
    ("UTF-32", 200, &[("content-type", "text/html; charset=utf-32")]),
    ("XHTML", 200, &[("content-type", "application/xhtml+xml")]),
    ("a download", 200, &[("content-type", "application/octet-stream")]),
    ("a moved download", 302, &[("content-type", "application/octet-stream")]),
];

/// The case of this number, by its length or in chunks: `/number/chunk`.
fn case(delivery: &Delivery) -> Reply {
    let path = delivery.request_line().split(' ').nth(1).unwrap();
    let mut parts = path.split('/').skip(1);
    let (_, status, fields) = CASES[parts.next().unwrap().parse::<usize>().unwrap()];
    let mut head = format!("HTTP/1.1 {status} X\r\n");
    for (name, value) in all(fields) {
        head += &[name, ": ", value, "\r\n"].concat();
    }
    Reply::Send(answer(&head, PAGE.as_bytes(), parts.next().unwrap().parse().ok()))
}

fn all<'f>(fields: &[(&'f str, &'f str)]) -> Vec<(&'f str, &'f str)> {
    let typed = fields.iter().any(|(name, _)| *name == "content-type");
    let html = (!typed).then_some(("content-type", "text/html"));
    FIELDS.into_iter().chain(html).chain(fields.iter().copied()).collect()
}

/// Both heads say the same of these, in the same order.
fn same(name: &str, got: &str, sent: &[(&str, &str)]) {
    let mut names: Vec<_> = sent.iter().map(|(name, _)| *name).collect();
    names.dedup();
    for field in names {
        let found: Vec<_> = headers(got, field).collect();
        let expected: Vec<_> =
            sent.iter().filter(|(name, _)| *name == field).map(|(_, value)| *value).collect();
        assert_eq!(found, expected, "{name}: {field}");
    }
}

#[tokio::test]
async fn what_is_not_to_be_changed_comes_as_it_was_sent() {
    let recorder = Recorder::start(case).await;
    let app = both(&recorder).await;
    let mut client = Raw::connect(address(&app)).await;
    for (number, (name, status, fields)) in CASES.iter().enumerate() {
        for chunk in ["length", "5", "4096"] {
            let request = format!("GET /on/{number}/{chunk} HTTP/1.1\r\nHost: a\r\n\r\n");
            client.send(request).await;
            let got = client.answer().await.unwrap();
            assert_eq!((got.status, got.complete), (*status, true), "{name}");
            assert_eq!(got.body, PAGE.as_bytes(), "{name} in {chunk}");
            same(name, &got.head, &all(fields));
            let length = (chunk == "length").then(|| PAGE.len().to_string());
            assert_eq!(got.header("content-length"), length.as_deref(), "{name}");
        }
    }
}

/// Data rather than a page, by its own word.
#[tokio::test]
async fn a_body_that_says_to_be_large_comes_as_it_was_sent() {
    let large = format!("{PAGE}{}", "<a href=\"/x\">y</a>".repeat(160_000));
    assert!(large.len() > 2 << 20);
    let sent = large.clone();
    let recorder = Recorder::start(move |_| {
        let fields: String = FIELDS.map(|(name, value)| format!("{name}: {value}\r\n")).concat();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n{fields}");
        Reply::Send(answer(&head, sent.as_bytes(), None))
    })
    .await;
    let app = both(&recorder).await;
    let got = Raw::exchange(address(&app), "GET /on/large HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!((got.status, got.complete), (200, true));
    assert!(got.body == large.as_bytes());
    same("large", &got.head, &FIELDS);
    assert_eq!(got.header("content-length"), Some(&*large.len().to_string()));
}

/// There is nothing to change, and what the fields say of a body is left alone,
/// but for what HEAD must not say, since GET would not.
#[tokio::test]
async fn an_answer_without_a_body_stays_without() {
    let recorder = Recorder::start(|delivery| {
        let line = delivery.request_line().to_owned();
        let status = line.split('/').nth(1).unwrap().split(' ').next().unwrap();
        let fields: String = FIELDS.map(|(name, value)| format!("{name}: {value}\r\n")).concat();
        let length = if line.starts_with("HEAD") { "Content-Length: 4711\r\n" } else { "" };
        let kind = if status == "302" { "" } else { "Content-Type: text/html\r\n" };
        let own = if status == "302" { "Location: /x\r\nContent-Length: 0\r\n" } else { length };
        Reply::Send(format!("HTTP/1.1 {status} X\r\n{kind}{fields}{own}\r\n").into_bytes())
    })
    .await;
    let app = both(&recorder).await;
    let mut client = Raw::connect(address(&app)).await;
    for status in [204, 304, 302] {
        client.send(format!("GET /on/{status} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let got = client.answer().await.unwrap();
        assert_eq!((got.status, &*got.body, got.complete), (status, &b""[..], true));
        same("no body", &got.head, &FIELDS);
        assert_eq!(got.header("transfer-encoding"), None, "{status}");
        let moved = (status == 302).then_some("/on/x");
        assert_eq!(got.header("location"), moved, "{status}");
    }
    for (mount, tag, length) in [("off", "\"v1\"", Some("4711")), ("on", "W/\"v1~tgs", None)] {
        // Read as what it is: a head, after which the connection ends.
        let request = format!("HEAD /{mount}/200 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let mut client = Raw::connect(address(&app)).await;
        client.send(request).await;
        client.until(b"\r\n\r\n").await;
        let (head, rest) = client.head_alone().await;
        assert!(rest.is_empty(), "{mount}: {rest:?}");
        assert!(headers(&head, "etag").all(|found| found.starts_with(tag)), "{mount}: {head}");
        assert_eq!(headers(&head, "content-length").next(), length, "{mount}: {head}");
        assert_eq!(headers(&head, "accept-ranges").count(), usize::from(mount == "off"));
    }
}
