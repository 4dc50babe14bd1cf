//! One form of a path for routing, policy and forwarding.

use super::{address, in_front_of};
use crate::support::{
    raw::Raw,
    recorder::{Recorder, ok},
};

/// Ways up, in spellings that some reader understands.
pub const CLIMBS: [&str; 26] = [
    "..",
    "%2e%2e",
    ".%2e",
    "%2E.",
    "..;",
    "..;a=b",
    "..%2f",
    "%2e%2e%2f",
    "..%5c",
    "..\\",
    "%252e%252e",
    "..%252f",
    "%c0%ae%c0%ae",
    "..%c0%af",
    "..%00",
    "..%23",
    "..%3f",
    "..%3b",
    ".",
    "%2e",
    "",
    "%25%32%65%25%32%65",
    "%u002e%u002e",
    "..%0a",
    "..%09",
    "%%32%65",
];

#[tokio::test]
async fn no_spelling_of_a_path_crosses_the_border_of_the_mount() {
    let recorder = Recorder::start(ok).await;
    let app = in_front_of(&recorder, &[("UPSTREAM_AUTH", "public")]).await;
    let mut tried = 0;
    for climb in CLIMBS {
        for target in ["api/v1/users/me", "api/keys", "health", "admin"] {
            for start in ["/", "/a/", "/x/y/"] {
                let path = format!("{start}{climb}/{target}");
                let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
                let answer = Raw::exchange(address(&app), request).await;
                assert_eq!(answer.status, 400, "{path}");
                tried += 1;
            }
        }
    }
    assert!(tried >= 300, "{tried}");
    assert!(recorder.take().is_empty());
}

#[tokio::test]
async fn the_upstream_sees_the_form_that_was_routed() {
    let recorder = Recorder::start(ok).await;
    let app = in_front_of(&recorder, &[("UPSTREAM_AUTH", "public")]).await;
    for (sent, seen) in [
        ("/a/b?c=d", "/a/b?c=d"),
        ("/%61/%7Eb", "/a/~b"),
        ("/caf%c3%a9?q=%c3%a9", "/caf%C3%A9?q=%c3%a9"),
        ("/a%3ab:c;d=e", "/a%3Ab:c;d=e"),
        ("/", "/"),
        ("/?", "/?"),
    ] {
        let request = format!("GET {sent} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(Raw::exchange(address(&app), request).await.status, 200, "{sent}");
        assert_eq!(recorder.take()[0].request_line(), format!("GET {seen} HTTP/1.1"));
    }
    // Ours, however it is spelt: it must not slip through to the upstream.
    for ours in ["/api/v1/users/me", "/%61pi/v1/users/me", "/api/v1/%75sers/me", "/%68ealth/live"] {
        let request = format!("GET {ours} HTTP/1.1\r\nHost: a\r\n\r\n");
        let status = Raw::exchange(address(&app), request).await.status;
        assert!(matches!(status, 200 | 401), "{ours}: {status}");
        assert!(recorder.take().is_empty(), "{ours}");
    }
}

#[tokio::test]
async fn under_a_prefix_the_upstream_sees_the_rest() {
    let recorder = Recorder::start(ok).await;
    let settings = [("UPSTREAM_AUTH", "public"), ("UPSTREAM_MOUNT", "/api/v1/proxy")];
    let app = in_front_of(&recorder, &settings).await;
    for (sent, seen, prefix) in [
        ("/api/v1/proxy/a?b", "/a?b", "/api/v1/proxy"),
        ("/api/proxy/a/b/", "/a/b/", "/api/proxy"),
        ("/api/proxy", "/", "/api/proxy"),
        ("/api/v1/proxy/", "/", "/api/v1/proxy"),
        ("/api/v1/pr%6Fxy/%61", "/a", "/api/v1/proxy"),
    ] {
        let request = format!("GET {sent} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(Raw::exchange(address(&app), request).await.status, 200, "{sent}");
        let delivery = recorder.take().remove(0);
        assert_eq!(delivery.request_line(), format!("GET {seen} HTTP/1.1"));
        assert_eq!(delivery.all("x-forwarded-prefix"), [prefix]);
    }
    let other = "GET /api/v1/proxyx HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(Raw::exchange(address(&app), other).await.status, 404);
    assert!(recorder.take().is_empty());
}
