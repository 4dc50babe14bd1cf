//! Origins that read paths in their own ways, behind one rule: all is protected
//! but what is public (RELIABILITY G-115).

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use url::Url;

use super::{address, admin_key, paths::CLIMBS, recorded};
use crate::support::{
    Options, TestApp, UNLIMITED,
    raw::Raw,
    recorder::{Delivery, Recorder, Reply},
};

const SECRET: &str = "the secret";
const PUBLIC: &str = "for all";
const SERVERS: &str = include_str!("origins.py");

/// Beside those that are never let through: not all of them lead up for us.
const MORE_CLIMBS: [&str; 4] = ["..%20", "...", "%ef%bc%8e%ef%bc%8e", ";/.."];
/// The protected name, in spellings that some reader understands.
const NAMES: [&str; 18] = [
    "protected",
    "PROTECTED",
    "Protected",
    "%70rotected",
    "protecte%64",
    "%50rotected",
    "%2570rotected",
    "protected%00",
    "protected;x=y",
    "protected;",
    "protected.",
    "protected%20",
    "protected%2e",
    "protected%09",
    "protected%23",
    "protected%3f",
    "%ef%bd%90rotected",
    "%u0070rotected",
];
const STARTS: [&str; 14] = [
    "/",
    "//",
    "/./",
    "/;/",
    "/.;/",
    "/%2e/",
    "/\\",
    "/%5c",
    "/%2f",
    "/public/../",
    "/public/%2e%2e/",
    "/public%2f..%2f",
    "/public/..%5c",
    "/public;/../",
];

/// All of them, with a page of that name below.
fn paths() -> Vec<String> {
    let climbs = CLIMBS.iter().chain(&MORE_CLIMBS).flat_map(|climb| {
        ["/public/", "/public/a/", "/public/a/b/../"]
            .map(|start| format!("{start}{climb}/protected/page"))
    });
    let names = STARTS.iter().flat_map(|start| {
        NAMES.iter().flat_map(move |name| {
            let ends = if *name == "protected" {
                &["/page", "%2fpage", "\\page", "/page/"][..]
            } else {
                &["/page"]
            };
            ends.iter().map(move |end| format!("{start}{name}{end}"))
        })
    });
    climbs.chain(names).collect()
}

/// As Express does behind Node's parser of URLs: dot segments and backslashes by
/// the WHATWG's rules, then one decoding, without regard to case, doubled slashes
/// and a slash at the end.
fn express(delivery: &Delivery) -> Reply {
    let target = delivery.request_line().split(' ').nth(1).unwrap();
    let path = Url::parse(&format!("http://a{target}")).map(|url| url.path().to_owned());
    let path = path.unwrap_or_default();
    let path = decoded(&path).to_lowercase();
    let body = match path.split('/').find(|segment| !segment.is_empty()) {
        Some("protected") => SECRET,
        Some("public") => PUBLIC,
        _ => "nothing",
    };
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    Reply::Send(head.into_bytes())
}

/// Decoded once; what is no escape stays.
fn decoded(path: &str) -> String {
    let (mut bytes, mut rest) = (vec![], path.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// One of Python's; ended when dropped.
struct Python {
    child: Child,
    url: String,
}

impl Python {
    /// `None` where there is no Python.
    fn start(mode: &str, folder: &std::path::Path) -> Option<Self> {
        let mut command = Command::new("python3");
        command.args(["-c", SERVERS, mode]).arg(folder).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::null()).spawn().ok()?;
        let mut port = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
        Some(Self { child, url: format!("http://127.0.0.1:{}", port.trim()) })
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Each origin at a place of its own, all under the same rule.
async fn guard(mount: &str, url: &str) -> TestApp {
    let file = format!(
        "[[upstreams]]\nname='app'\nmount='{mount}'\nurl='{url}'\n\
         paths=[{{ path='/public/*', auth='public' }}]\n"
    );
    let base = [("FILE", &*file), UNLIMITED[0], UNLIMITED[1]];
    let settings = base.map(|(name, value)| (name, value.to_owned())).to_vec();
    TestApp::with(Options { settings, ..Options::default() }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_spelling_reaches_what_is_protected_at_any_origin() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("protected", SECRET), ("public", PUBLIC)] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
        std::fs::write(folder.path().join(name).join("page"), text).unwrap();
    }
    let recorder = Recorder::start(express).await;
    let pythons = ["router", "static"].map(|mode| Python::start(mode, folder.path()));
    let mut origins = vec![("express", recorder.url())];
    for (mode, python) in ["router", "static"].into_iter().zip(&pythons) {
        match python {
            Some(python) => origins.push((mode, python.url.clone())),
            None => eprintln!("skipped: there is no python3 for the origin {mode}"),
        }
    }
    let paths = paths();
    assert!(paths.len() >= 300, "{}", paths.len());
    for (kind, url) in &origins {
        for mount in ["/", "/up"] {
            let app = guard(mount, url).await;
            let prefix = mount.trim_end_matches('/');
            let key = format!("X-API-Key: {}\r\n", admin_key(&app).await);
            let get = async |path: &str, field: &str| {
                let request = format!(
                    "GET {prefix}{path} HTTP/1.1\r\nHost: a\r\n{field}Connection: close\r\n\r\n"
                );
                let answer = Raw::exchange(address(&app), request).await;
                (answer.status, String::from_utf8_lossy(&answer.body).into_owned())
            };
            // Both are there, and one of them needs the key.
            assert_eq!(get("/public/page", "").await, (200, PUBLIC.to_owned()), "{kind} {mount}");
            assert_eq!(get("/protected/page", "").await.0, 401, "{kind} {mount}");
            let open = get("/protected/page", &key).await;
            assert_eq!(open, (200, SECRET.to_owned()), "{kind} {mount}");
            let (mut unclear, mut closed) = (0, 0);
            for path in &paths {
                let (status, body) = get(path, "").await;
                assert!(!body.contains(SECRET), "{kind} {mount} {path}: {status}");
                match status {
                    400 => unclear += 1,
                    401 => closed += 1,
                    // Of the public part, by the origin's reading as well as by ours.
                    200 | 404 => assert!(path.starts_with("/public/"), "{kind} {mount} {path}"),
                    _ => panic!("{kind} {mount} {path}: {status} {body}"),
                }
            }
            assert!(unclear > 200 && closed > 10, "{kind} {mount}: {unclear} {closed}");
        }
    }
}

/// Routed, judged, recorded and passed on in one form.
#[tokio::test]
async fn what_is_recorded_is_what_was_passed_on() {
    for (mount, prefix) in [("/", ""), ("/up", "/up")] {
        let recorder = Recorder::start(express).await;
        let app = guard(mount, &recorder.url()).await;
        for sent in [
            "/public/page",
            "/p%75blic/%70age",
            "/%70%75%62%6C%69%63/page",
            "/public/caf%c3%a9?q=%c3%a9",
            "/public/a%3ab:c;d=e",
            "/public/a%20b%7Ec",
            "/public/%e2%80%8b",
            "/public/...",
            "/public/",
            "/public",
        ] {
            let request = format!("GET {prefix}{sent} HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(Raw::exchange(address(&app), request).await.status, 200, "{sent}");
        }
        let passed: Vec<_> = recorder
            .take()
            .iter()
            .map(|delivery| {
                let target = delivery.request_line().split(' ').nth(1).unwrap();
                format!("{prefix}{}", target.split('?').next().unwrap())
            })
            .collect();
        let mut seen: Vec<_> = recorded(&app, passed.len()).await;
        seen.reverse();
        let seen: Vec<_> = seen.iter().map(|record| record["path"].as_str().unwrap()).collect();
        let (mut passed, mut seen) = (passed, seen);
        passed.sort_unstable();
        seen.sort_unstable();
        assert_eq!(seen, passed);
    }
}
