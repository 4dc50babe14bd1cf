//! Conditions, codings and names in requests.

use super::*;

const PAGE: &[(&str, &str)] = &[("sec-fetch-dest", "document")];

/// What the upstream is asked after `asked`, and the answer to it.
fn ask(config: &RewriteConfig, asked: &[(&str, &str)], status: u16, given: &[(&str, &str)]) -> Got {
    let fields: Vec<_> = given.iter().copied().chain([("content-type", "text/html")]).collect();
    let body = if status == 304 { vec![] } else { b"<p>x".to_vec() };
    let config = config.clone();
    Case { config, asked, status, fields: &fields, body, ..Case::default() }.run()
}

#[test]
fn a_rewritten_copy_is_confirmed_while_rewriting_is_the_same() {
    let config = RewriteConfig::default();
    for own in ["\"v,1\"", "W/\"v1\""] {
        let first = ask(&config, PAGE, 200, &[("etag", own)]);
        let tag = first.field("etag").unwrap().to_owned();
        let again = [PAGE[0], ("if-none-match", tag.as_str()), ("if-modified-since", "then")];
        let confirmed = ask(&config, &again, 304, &[("etag", own)]);
        assert_eq!(confirmed.asked.get("if-none-match").unwrap(), own);
        assert_eq!(confirmed.field("etag"), Some(tag.as_str()));

        // Other rules, another version: the copy is not what would be made now.
        let changed = RewriteConfig { script: false, ..RewriteConfig::default() };
        let asked = ask(&changed, &again, 200, &[("etag", own)]).asked;
        assert!(!asked.contains_key("if-none-match") && !asked.contains_key("if-modified-since"));
    }
}

#[test]
fn a_copy_known_by_its_date_is_too() {
    let config = RewriteConfig::default();
    let first = ask(&config, PAGE, 200, &[("last-modified", "then")]);
    let tag = first.field("etag").unwrap();
    let again = [PAGE[0], ("if-none-match", tag), ("if-modified-since", "then")];
    let asked = ask(&config, &again, 304, &[]).asked;
    assert!(!asked.contains_key("if-none-match"));
    assert_eq!(asked.get("if-modified-since").unwrap(), "then");
    assert!(ask(&config, PAGE, 200, &[]).field("etag").is_none());
}

#[test]
fn a_page_from_before_there_was_rewriting_is_fetched_again() {
    let config = RewriteConfig::default();
    let old = [("if-none-match", "\"v1\""), ("if-modified-since", "then")];
    let asked = |dest: &'static str| {
        let fields = [("sec-fetch-dest", dest), old[0], old[1]];
        ask(&config, &fields, 304, &[("etag", "\"v1\"")])
    };
    for dest in ["document", "iframe", "style", "worker"] {
        let asked = asked(dest).asked;
        assert!(!asked.contains_key("if-none-match"), "{dest}");
        assert!(!asked.contains_key("if-modified-since"), "{dest}");
    }
    // An image's is as good as ever.
    let got = asked("image");
    assert_eq!(got.asked.get("if-none-match").unwrap(), "\"v1\"");
    assert_eq!(got.field("etag"), Some("\"v1\""));
}

#[test]
fn other_conditions_speak_the_upstreams_language() {
    let config = RewriteConfig::default();
    let first = ask(&config, &[], 200, &[("etag", "\"v1\"")]);
    let tag = first.field("etag").unwrap();
    let asked = ask(&config, &[("if-match", tag)], 200, &[]).asked;
    assert_eq!(asked.get("if-match").unwrap(), "\"v1\"");
    let asked = ask(&config, &[("if-range", tag), ("range", "bytes=1-")], 200, &[]).asked;
    assert!(!asked.contains_key("if-range") && !asked.contains_key("range"));
    let asked = ask(&config, &[("if-range", "\"v1\""), ("range", "bytes=1-")], 206, &[]).asked;
    assert!(asked.contains_key("if-range") && asked.contains_key("range"));
}

#[test]
fn only_codings_that_can_be_undone_are_asked_for() {
    let config = RewriteConfig::default();
    let cases = [
        ("gzip, deflate, br", "gzip, deflate, br"),
        ("gzip, deflate, br, zstd", "gzip, deflate, br"),
        ("gzip;q=0.5, dcb, dcz, compress, br", "gzip;q=0.5, br"),
        ("*", "identity"),
        ("dcb", "identity"),
        ("identity", "identity"),
    ];
    for (given, expected) in cases {
        let asked = ask(&config, &[("accept-encoding", given)], 200, &[]).asked;
        assert_eq!(asked.get("accept-encoding").unwrap(), expected, "{given}");
    }
    let off = RewriteConfig { enabled: false, ..config };
    let asked = ask(&off, &[("accept-encoding", "dcb")], 200, &[]).asked;
    assert_eq!(asked.get("accept-encoding").unwrap(), "dcb");
}

#[test]
fn the_upstream_reads_its_own_name_in_a_request() {
    let asked = [
        ("host", "up.example:8188"),
        ("referer", "https://gate.example/app/a?b"),
        ("origin", "https://gate.example"),
        ("destination", "https://gate.example/app/new"),
    ];
    let got = ask(&RewriteConfig::default(), &asked, 200, &[]).asked;
    assert_eq!(got.get("referer").unwrap(), "http://up.example:8188/a?b");
    assert_eq!(got.get("origin").unwrap(), "http://up.example:8188");
    assert_eq!(got.get("destination").unwrap(), "http://up.example:8188/new");
    let foreign = [("referer", "https://else.example/app/a"), ("origin", "https://else.example")];
    let got = ask(&RewriteConfig::default(), &foreign, 200, &[]).asked;
    assert_eq!(got.get("referer").unwrap(), "https://else.example/app/a");
    assert_eq!(got.get("origin").unwrap(), "https://else.example");
}
