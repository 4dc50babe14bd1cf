use super::super::test_support::names;

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
    assert!(names.is_our_origin("https://gate.example"));
    assert!(!names.is_our_origin("http://gate.example"));
    assert!(!names.is_our_origin("null"));
}
