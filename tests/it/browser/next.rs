//! Nobody is sent to another site after signing in (RELIABILITY G-99).

use std::collections::BTreeSet;

use proptest::prelude::*;
use tollgate::gateway::next::Next;
use url::Url;

use super::{Browser, form};
use crate::support::{PASSWORD, TestApp};

/// What may stand before a host so that some browser or server takes it for the
/// beginning of another origin.
const BEGINNINGS: [&str; 74] = [
    "//",
    "///",
    "////",
    "/////",
    "\\\\",
    "\\/",
    "/\\",
    "/\\/",
    "//\\",
    "\\\\\\",
    "\\//",
    "/\\\\",
    "http://",
    "https://",
    "HtTpS://",
    "http:",
    "https:",
    "https:/",
    "https:///",
    "http:\\\\",
    "https:\\/",
    "ftp://",
    "ws://",
    "//https://",
    "/http://",
    "javascript://",
    "data:text/html,",
    "vbscript:",
    "blob:https://",
    "view-source:",
    " //",
    "\t//",
    "\n//",
    "\r\n//",
    "\0//",
    "\u{1}//",
    "/\t/",
    "/\n/",
    "/\r/",
    "/\0/",
    "/ /",
    "\u{feff}//",
    "\u{200b}//",
    "／／",
    "/／",
    "/\u{2044}",
    "\u{2215}/",
    "/%09/",
    "/%0a/",
    "/%0d%0a/",
    "/%00/",
    "/%2f",
    "/%2F%2F",
    "/%5c",
    "/%5C%5C",
    "%2f%2f",
    "%5c%5c",
    "/%252f",
    "/%255c",
    "/%25%32%66",
    "/.//",
    "/./\\",
    "/..//",
    "/%2e//",
    "/%2e%2e//",
    "/a/..//",
    "/a/../..//",
    "/;//",
    "/;@",
    "//;@",
    "//user@",
    "//user:pw@",
    "//here.invalid@",
    "/x//",
];
const HOSTS: [&str; 10] = [
    "evil.example",
    "evil.example/a?b#c",
    "evil.example:443",
    "evil.example%2f..",
    "evil。example",
    "evil.example%00here.invalid",
    "2130706433",
    "[::1]",
    "here.invalid.evil.example",
    "here.invalid@evil.example",
];
/// Whole ones of other kinds.
const OTHERS: [&str; 32] = [
    "",
    ".",
    "..",
    "/..",
    "/.",
    "./",
    "../",
    "a",
    "a/b",
    "?",
    "?a",
    "#",
    "#//evil.example",
    "@evil.example",
    ".evil.example",
    ":80",
    ":evil.example",
    "https",
    "https:",
    "/a#//evil.example",
    "/\r\nLocation: //evil.example",
    "/%0d%0aLocation:%20//evil.example",
    "/\u{85}/evil.example",
    "/\u{2028}/evil.example",
    "/<>//evil.example",
    "/\"onload=x",
    "/a\\b",
    "/a?b=\\\\evil.example",
    "/%",
    "/%zz",
    "/%e0%80%af",
    "/%c0%af/evil.example",
];

fn payloads() -> BTreeSet<String> {
    let combined = BEGINNINGS.iter().flat_map(|begin| HOSTS.map(|host| format!("{begin}{host}")));
    combined.chain(OTHERS.map(str::to_owned)).collect()
}

/// Whether a browser stays, and whoever undoes escapes first would, too.
fn assert_stays(place: &str, payload: &str) {
    let here = Url::parse("https://here.invalid/login").unwrap();
    let mut text = place.to_owned();
    for _ in 0..3 {
        let bytes = text.as_bytes();
        assert_eq!(bytes.first(), Some(&b'/'), "{payload:?} -> {text:?}");
        assert!(!matches!(bytes.get(1), Some(b'/' | b'\\')), "{payload:?} -> {text:?}");
        assert!(!text.contains(|c: char| c.is_control()), "{payload:?} -> {text:?}");
        let there = here.join(&text).unwrap();
        assert_eq!(there.origin(), here.origin(), "{payload:?} -> {text:?}");
        assert!(there.username().is_empty(), "{payload:?} -> {text:?}");
        let path = text.split('?').next().unwrap();
        text = form_urlencoded::parse(path.replace('+', "%2B").replace('&', "%26").as_bytes())
            .map(
                |(name, value)| {
                    if value.is_empty() { name.into_owned() } else { format!("{name}={value}") }
                },
            )
            .collect();
    }
}

#[test]
fn no_known_trick_leads_off_site() {
    let payloads = payloads();
    assert!(payloads.len() >= 300, "{}", payloads.len());
    let mut taken = vec![];
    for payload in &payloads {
        if let Some(next) = Next::parse(payload) {
            assert_stays(next.as_str(), payload);
            taken.push(payload);
        }
    }
    // Most are not made harmless but refused.
    assert!(taken.len() < payloads.len() / 20, "{taken:?}");
}

#[test]
fn a_path_of_this_site_is_taken_as_it_is() {
    for place in [
        "/",
        "/a",
        "/a/",
        "/a/b.html?c=d&e=%2F%2F&f",
        "/a?",
        "/a?next=//evil.example",
        "/a?u=https://evil.example/",
        "/@evil.example",
        "/evil.example:80/x",
        "/a;b=c,d!$'()*+=~_-",
        "/%C3%A4%20b",
        "/javascript:alert(1)",
    ] {
        assert_eq!(Next::parse(place).unwrap().as_str(), place);
    }
    assert_eq!(Next::parse("/%41%7e?%41").unwrap().as_str(), "/A~?%41");
    assert_eq!(Next::parse(&format!("/{}", "a".repeat(4095))).unwrap().as_str().len(), 4096);
    assert!(Next::parse(&format!("/{}", "a".repeat(4096))).is_none());
}

proptest! {
    #[test]
    fn whatever_is_taken_stays_here(
        text in "[/\\\\]{0,3}(%2[fF]|%5[cC]|%09|%25|[/\\\\.;:@?#&=%a-c \t\r\n\u{0}\u{a0}／。é]){0,24}",
    ) {
        if let Some(next) = Next::parse(&text) {
            assert_stays(next.as_str(), &text);
            prop_assert_eq!(Next::parse(next.as_str()), Some(next.clone()));
        }
    }

    #[test]
    fn so_does_what_is_made_of_a_request(path in "/\\PC{0,20}", query in "\\PC{0,20}") {
        if let Some(next) = Next::of(&path, Some(&query)) {
            let here = Url::parse("https://here.invalid/").unwrap();
            prop_assert_eq!(here.join(next.as_str()).unwrap().origin(), here.origin());
        }
    }
}

/// The same through the whole program, by the page and by the form.
#[tokio::test]
async fn a_login_ends_at_this_site_whatever_it_was_to_end_at() {
    let app = TestApp::unlimited().await;
    app.register("ada").await;
    let pages = ["/login", "/logout", "/logout?a", "/.tollgate/login", "/.tollgate/logout"];
    for payload in payloads().iter().map(String::as_str).chain(pages) {
        let browser = Browser::new(&app);
        let login = format!("/login?{}", form(&[("next", payload)]));
        let page = browser.open(&login).await.expect(200);
        let next = super::hidden(&page, "next");
        let token = super::hidden(&page, "form").unwrap();
        let fields =
            [("form", &*token), ("next", payload), ("username", "ada"), ("password", PASSWORD)];
        let answer = browser.submit("/login", &fields).await.expect(303);
        let place = answer.header("location");
        assert_eq!(place, next.as_deref().unwrap_or("/api/v1/proxy/"), "{payload:?}");
        assert_stays(place, payload);
    }
    // Two of them are none.
    let browser = Browser::new(&app);
    let page = browser.open("/login?next=/a&next=/b").await.expect(200);
    assert_eq!(super::hidden(&page, "next"), None);
    let page = browser.open("/login?next=%2Fa%3Fb").await.expect(200);
    assert_eq!(super::hidden(&page, "next").as_deref(), Some("/a?b"));
}
