use http::HeaderValue;

use super::{super::test_support::names, Names, Scheme};

#[test]
fn only_urls_of_the_upstream_are_mapped() {
    let names = names();
    let cases = [
        ("/", "/app/"),
        ("/x?a=//b#c", "/app/x?a=//b#c"),
        (" \n/x", "/app/x"),
        ("\\x", "/app\\x"),
        ("http://up.example:8188/x", "/app/x"),
        ("HTTPS://UP.example:8188/x", "/app/x"),
        ("http://up.example:8188", "/app/"),
        ("http://up.example:8188?q", "/app/?q"),
        ("//up.example:8188/x", "/app/x"),
        ("https://gate.example/x", "/app/x"),
        ("https://gate.example:443/x", "/app/x"),
        ("//gate.example/x", "/app/x"),
        ("ws://up.example:8188/ws", "wss://gate.example/app/ws"),
        ("http://up.example:8188/app/x", "/app/x"),
        ("http://up.example:8188/.tollgate/x", "/.tollgate/x"),
        ("/application", "/app/application"),
        ("/.tollgatex", "/app/.tollgatex"),
    ];
    for (url, expected) in cases {
        let mapped = names.map(url, true).unwrap_or_else(|| url.to_owned());
        assert_eq!(mapped, expected, "{url}");
        assert_eq!(names.map(&mapped, true), None, "{url}: mapped twice");
    }
    let kept = [
        "",
        "x",
        "./x",
        "../x",
        "?q",
        "#f",
        "app/x",
        "/app",
        "/app/",
        "/app/x",
        "/app?x",
        "/app#x",
        "/.tollgate/login",
        "data:,/x",
        "blob:http://up.example:8188/x",
        "javascript:/x/",
        "mailto:a@b",
        "http:x",
        "http:/x",
        "https://other.example/x",
        "//other.example/x",
        "http://up.example/x",
        "http://up.example:8188.evil/x",
        "http://a@up.example:8188/x",
        "https://gate.example/app/x",
        "about:blank",
        "é/x",
        "ws://other/x",
    ];
    for url in kept {
        assert_eq!(names.map(url, true), None, "{url}");
    }
}

#[test]
fn a_path_alone_stays_where_the_document_has_another_base() {
    let names = names();
    assert_eq!(names.map("/x", false), None);
    assert_eq!(names.map("http://up.example:8188/x", false).as_deref(), Some("/app/x"));
}

#[test]
fn without_a_prefix_only_the_upstreams_own_name_goes() {
    let names = super::super::test_support::names_at("", None);
    assert_eq!(names.map("/x", true), None);
    assert_eq!(names.map("https://gate.example/x", true), None);
    assert_eq!(names.map("http://up.example:8188/x", true).as_deref(), Some("/x"));
    assert_eq!(names.map("http://up.example:8188//x", true).as_deref(), Some("/.//x"));
}

#[test]
fn what_a_request_says_of_us_is_told_in_the_upstreams_words() {
    let names = names();
    let cases = [
        ("https://gate.example/app/a?b", Some("http://up.example:8188/a?b")),
        ("https://gate.example/app", Some("http://up.example:8188/")),
        ("https://gate.example/other/page", Some("http://up.example:8188/")),
        ("/app/a", Some("/a")),
        ("https://other.example/app/a", None),
        ("about:client", None),
    ];
    for (url, expected) in cases {
        assert_eq!(names.unmap(url, "http://up.example:8188").as_deref(), expected, "{url}");
    }
}

/// Another port is another origin, whatever scheme it is the default of.
#[test]
fn only_the_origin_that_the_client_asked_is_ours() {
    let at = |scheme, host| Names { host: Some(HeaderValue::from_static(host)), scheme, ..names() };
    let cases = [
        (Scheme::Https, "gate.example", "https://gate.example", true),
        (Scheme::Https, "gate.example:443", "https://gate.example", true),
        (Scheme::Https, "Gate.example", "https://gate.example:443", true),
        (Scheme::Https, "gate.example", "https://gate.example:80", false),
        (Scheme::Https, "gate.example", "http://gate.example", false),
        (Scheme::Http, "gate.example", "http://gate.example:80", true),
        (Scheme::Http, "gate.example", "http://gate.example:443", false),
        (Scheme::Http, "gate.example:443", "http://gate.example", false),
        (Scheme::Http, "gate.example:8080", "http://gate.example:8080", true),
        (Scheme::Http, "gate.example", "http://gate.example.evil", false),
        (Scheme::Http, "gate.example", "http://gate.example/", false),
        (Scheme::Http, "gate.example", "null", false),
    ];
    for (scheme, host, origin, expected) in cases {
        assert_eq!(at(scheme, host).is_our_origin(origin), expected, "{host}: {origin}");
    }
}

#[test]
fn a_worker_reaches_no_further_than_its_upstreams_place() {
    let names = names();
    // A climb, in every spelling that browsers know.
    let climbs = [
        "/",
        "/app/../",
        "..",
        "../../",
        "/app/..",
        "//gate.example/",
        "https://gate.example/",
        "/app\\..\\",
        "/%2e%2e/",
        "/.tollgate/../",
        "/.tollgate/",
        "/app",
        "x/../..",
        "./..",
        "https:..",
        "https:/",
        "\\",
        "/app/.%2E/login",
        " /app/../",
        "/app/.\t./",
        "//other/",
        "http://gate.example/app/",
        "https://other.example/",
        "http://[",
        "/\u{e9}/../..",
    ];
    for climb in climbs {
        let scope = names.worker_scope(climb.as_bytes());
        assert!(scope.is_some_and(|scope| scope.starts_with("/app/")), "{climb}");
    }
    assert_eq!(names.worker_scope(b"/").as_deref(), Some("/app/"));
    assert_eq!(names.worker_scope(b"/x/").as_deref(), Some("/app/x/"));
    assert_eq!(names.worker_scope(b"\xff/../..").as_deref(), Some("/app/"));
    for kept in ["/app/", "/app/x/", "x", "./", "x/../y", "", "?q"] {
        assert_eq!(names.worker_scope(kept.as_bytes()), None, "{kept}");
    }
    let host = super::super::test_support::names_at("", None);
    assert_eq!(host.worker_scope(b"/"), None);
}
