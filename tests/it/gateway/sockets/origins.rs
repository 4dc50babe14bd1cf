//! A browser lets any page open a socket with the cookies of another site; only
//! our own pages and known ones may (RELIABILITY G-124).

use super::{PATH, app};
use crate::{
    browser::signed_in,
    streams::address,
    support::{
        raw::Raw,
        websocket::{Upstream, Wire, ask},
    },
};

const KNOWN: &str = "origins = ['https://app.example']";

#[tokio::test]
async fn only_known_pages_may_open_one_with_a_cookie() {
    let upstream = Upstream::start().await;
    let app = app(&upstream, KNOWN).await;
    let browser = signed_in(&app, "ada").await;
    let cookie = format!("Cookie: x=1; tollgate_sid={}\r\n", browser.cookie("sid").unwrap());
    for (origins, opens) in [
        (&["http://a"][..], true),
        (&["http://A"], true),
        (&["https://app.example"], true),
        (&[], false),
        (&["null"], false),
        (&[""], false),
        (&["*"], false),
        (&["a"], false),
        (&["//a"], false),
        (&["https://a"], false),
        (&["http://a:81"], false),
        (&["http://a.evil"], false),
        (&["http://evil.a"], false),
        (&["http://a/"], false),
        (&["http://a@evil"], false),
        (&["http://evil#http://a"], false),
        (&["http://app.example"], false),
        (&["https://app.example:8443"], false),
        (&["https://app.example.evil"], false),
        (&["https://evil.example"], false),
        (&["https://evil.example https://app.example"], false),
        (&["http://a, http://a"], false),
        (&["http://a", "http://a"], false),
        (&["http://a", "https://evil.example"], false),
        (&["https://app.example", "https://evil.example"], false),
    ] {
        let lines: Vec<_> = origins.iter().map(|origin| format!("Origin: {origin}\r\n")).collect();
        let fields = lines.concat();
        // What a browser says of the page does not stand in for its origin.
        for site in ["", "Sec-Fetch-Site: same-origin\r\n", "Sec-Fetch-Site: cross-site\r\n"] {
            let request = ask(PATH, &format!("{cookie}{fields}{site}"));
            let asked = Wire::ask(address(&app), request).await;
            if opens {
                assert_eq!(asked.status, 101, "{fields}{site}{}", asked.head);
                let head = upstream.heads().remove(0).to_lowercase();
                assert!(!head.contains("tollgate_sid") && head.contains("cookie: x=1\r\n"));
                assert!(head.contains("x-username: ada\r\n"), "{head}");
            } else {
                assert_eq!(asked.code().await, (403, "cross_site".to_owned()), "{fields}{site}");
                assert!(upstream.heads().is_empty());
            }
        }
    }
}

#[tokio::test]
async fn only_the_cookie_of_this_scheme_counts_and_only_without_a_field() {
    let upstream = Upstream::start().await;
    let app = app(&upstream, KNOWN).await;
    let browser = signed_in(&app, "ada").await;
    let sid = browser.cookie("sid").unwrap();
    let key = crate::gateway::admin_key(&app).await;
    let (own, foreign) = ("Origin: http://a\r\n", "Origin: http://b\r\n");
    let secure = "X-Forwarded-Proto: https\r\n";
    for (fields, expected) in [
        (format!("{own}Cookie: __Host-tollgate-sid={sid}\r\n"), (401, "unauthenticated")),
        (format!("{own}Cookie: tollgate_sid=bad\r\n"), (401, "unauthenticated")),
        (format!("{own}Cookie: tollgate_pass={sid}\r\n"), (401, "unauthenticated")),
        (
            format!("{own}Cookie: tollgate_sid={sid}; tollgate_sid={sid}\r\n"),
            (400, "duplicate_credential"),
        ),
        (format!("{own}{secure}Cookie: tollgate_sid={sid}\r\n"), (401, "unauthenticated")),
        (format!("{own}{secure}Cookie: __Host-tollgate-sid={sid}\r\n"), (403, "cross_site")),
        (
            format!("{own}X-API-Key: tg_bad\r\nCookie: tollgate_sid={sid}\r\n"),
            (401, "invalid_credential"),
        ),
    ] {
        let asked = Wire::ask(address(&app), ask(PATH, &fields)).await;
        let (status, code) = asked.code().await;
        assert_eq!((status, &*code), expected, "{fields}");
    }
    assert!(upstream.heads().is_empty());
    for fields in [
        format!("Origin: https://a\r\n{secure}Cookie: __Host-tollgate-sid={sid}\r\n"),
        // A program may say what it likes.
        format!("{foreign}X-API-Key: {key}\r\n"),
        format!("{foreign}X-API-Key: {key}\r\nCookie: tollgate_sid={sid}\r\n"),
    ] {
        Wire::open(address(&app), PATH, &fields).await.echoes("hello").await;
    }
}

/// The page behind the prefix has the API's origin, and must not act for its
/// visitor there.
#[tokio::test]
async fn a_socket_s_cookie_opens_nothing_of_the_api() {
    let upstream = Upstream::start().await;
    let app = app(&upstream, "").await;
    let browser = signed_in(&app, "ada").await;
    let cookie = format!("Cookie: tollgate_sid={}\r\n", browser.cookie("sid").unwrap());
    let request = ask("/api/v1/users/me", &format!("{cookie}Origin: http://a\r\n"));
    assert_eq!(Raw::exchange(address(&app), request).await.status, 401);
}
