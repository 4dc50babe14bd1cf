//! Codings × framing × rewriting (RELIABILITY G-132).

use std::process::Command;

use super::{FIELDS, PAGE, answer, both, decode, encode};
use crate::{
    streams::address,
    support::{
        raw::{Raw, headers},
        recorder::{Delivery, Recorder, Reply},
    },
};

/// Of `Content-Encoding`; the first stands for none.
const CODINGS: [&str; 7] = ["", "identity", "gzip", "deflate", "br", "zstd", "unknown"];
const CHUNKS: [Option<usize>; 4] = [None, Some(1), Some(7), Some(1000)];
/// Fields that no longer hold for a body that was changed.
const STALE: [&str; 5] =
    ["accept-ranges", "digest", "content-digest", "repr-digest", "content-md5"];

/// The page, encoded and framed as the path asks: `/coding/chunk`.
fn page(delivery: &Delivery) -> Reply {
    let path = delivery.request_line().split(' ').nth(1).unwrap();
    let mut parts = path.split('/').skip(1);
    let coding = parts.next().unwrap().trim_matches('-');
    let chunk = parts.next().unwrap().parse().ok();
    let mut head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n".to_owned();
    if !coding.is_empty() {
        head += &["Content-Encoding: ", coding, "\r\n"].concat();
    }
    for (name, value) in FIELDS {
        head += &[name, ": ", value, "\r\n"].concat();
    }
    Reply::Send(answer(&head, &encode(coding, PAGE.as_bytes()), chunk))
}

fn path(mount: &str, coding: &str, chunk: Option<usize>) -> String {
    let chunk = chunk.map_or("length".to_owned(), |size| size.to_string());
    format!("/{mount}/{}/{chunk}", if coding.is_empty() { "-" } else { coding })
}

fn rewritten(mount: &str) -> String {
    let from = format!("\"/{mount}/x\"");
    PAGE.replace("\"/x\"", &from).replace("(/y)", &format!("(/{mount}/y)"))
}

#[tokio::test]
async fn every_cell_is_framed_once_and_says_what_is_true_of_its_body() {
    let recorder = Recorder::start(page).await;
    let app = both(&recorder).await;
    let mut cells = 0;
    // All on one connection: an answer that is longer or shorter than its framing
    // says would spoil the next one.
    let mut client = Raw::connect(address(&app)).await;
    for coding in CODINGS {
        for chunk in CHUNKS {
            for mount in ["on", "off"] {
                let cell = path(mount, coding, chunk);
                client.send(format!("GET {cell} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
                let got = client.answer().await.unwrap();
                assert_eq!((got.status, got.complete), (200, true), "{cell}: {}", got.head);
                let count = |name| headers(&got.head, name).count();
                let framing = count("content-length") + count("transfer-encoding");
                assert_eq!(framing, 1, "{cell}: {}", got.head);
                let edited = mount == "on" && coding != "unknown";
                let body = String::from_utf8(decode(coding, &got.body)).unwrap();
                assert_eq!(body, if edited { rewritten(mount) } else { PAGE.to_owned() }, "{cell}");
                let named = Some(coding).filter(|coding| !coding.is_empty());
                assert_eq!(got.header("content-encoding"), named, "{cell}");
                assert_eq!(count("content-encoding"), usize::from(named.is_some()), "{cell}");
                for name in STALE {
                    assert_eq!(count(name), usize::from(!edited), "{cell}: {name}");
                }
                let tag = got.header("etag").unwrap();
                assert_eq!(tag.starts_with("W/\"v1~tgs"), edited, "{cell}: {tag}");
                assert_eq!(tag == "\"v1\"", !edited, "{cell}: {tag}");
                for name in ["last-modified", "x-kept", "etag", "content-type"] {
                    assert_eq!(count(name), 1, "{cell}: {name}");
                }
                // What is not changed keeps its framing, too.
                let sized = count("content-length") == 1;
                assert_eq!(sized, !edited && chunk.is_none(), "{cell}");
                cells += 1;
            }
        }
    }
    assert_eq!(cells, 56);
}

/// A program that was written by others, and is strict about lengths.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_reads_the_page_in_every_coding() {
    let recorder = Recorder::start(page).await;
    let app = both(&recorder).await;
    let base = format!("http://{}", address(&app));
    let read = move |paths: Vec<String>| {
        paths.iter().map(|path| curl(&format!("{base}{path}"))).collect::<Option<Vec<_>>>()
    };
    let mut paths = vec![];
    for coding in ["-", "gzip", "deflate", "br", "zstd"] {
        paths.extend([format!("/on/{coding}/7"), format!("/on/{coding}/length")]);
    }
    let count = paths.len();
    let Some(pages) = tokio::task::spawn_blocking(move || read(paths)).await.unwrap() else {
        eprintln!("skipped: there is no curl that knows these codings");
        return;
    };
    assert_eq!(pages, vec![rewritten("on"); count]);
}

/// `None` where there is no curl, or one that lacks a coding.
fn curl(url: &str) -> Option<String> {
    let told = Command::new("curl").arg("--version").output().ok()?;
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    if !["brotli", "zstd", "libz"].iter().all(|known| told.contains(known)) {
        return None;
    }
    let all = ["--silent", "--show-error", "--fail", "--compressed", "--max-time", "20"];
    let output = Command::new("curl").args(all).arg(url).output().unwrap();
    assert!(output.status.success(), "{url}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}
