//! What an answer says of its body, and which bodies stay as they are.

use proptest::prelude::*;

use super::*;

const PAGE: &str = "<!doctype html><html><head><meta charset=utf-8></head><body>\
                    <a href=\"/x\">caf\u{e9}</a><style>a{b:url(/y)}</style></body></html>";
/// What belongs to the body as it was.
const STALE: [&str; 6] =
    ["content-length", "accept-ranges", "digest", "content-digest", "repr-digest", "content-md5"];
const FIELDS: &[(&str, &str)] = &[
    ("content-type", "text/html"),
    ("etag", "\"v1\""),
    ("accept-ranges", "bytes"),
    ("digest", "sha-256=x"),
    ("content-digest", "sha-256=:x:"),
    ("repr-digest", "sha-256=:x:"),
    ("content-md5", "x"),
    ("last-modified", "Sun, 22 Nov 2026 10:00:00 GMT"),
    ("location", "/elsewhere"),
];

type Fields = &'static [(&'static str, &'static str)];

fn on() -> RewriteConfig {
    RewriteConfig { script: false, ..RewriteConfig::default() }
}

fn off() -> RewriteConfig {
    RewriteConfig { enabled: false, ..RewriteConfig::default() }
}

/// G-132: coding × framing × rewriting.
#[test]
fn fields_are_true_of_the_body_in_every_cell() {
    let expected = PAGE.replace("\"/x\"", "\"/app/x\"").replace("(/y)", "(/app/y)");
    let mut cells = 0;
    for coding in CODINGS {
        for chunk in [None, Some(1), Some(7), Some(1000)] {
            for enabled in [true, false] {
                let cell = format!("{coding} {chunk:?} {enabled}");
                let config = if enabled { on() } else { off() };
                let body = PAGE.as_bytes().to_vec();
                let got =
                    Case { config, fields: FIELDS, coding, body, chunk, ..Case::default() }.run();
                assert_eq!(got.edited, enabled, "{cell}");
                assert_eq!(got.field("location"), Some("/app/elsewhere"), "{cell}");
                let same = Some(coding).filter(|coding| !coding.is_empty());
                assert_eq!(got.field("content-encoding"), same, "{cell}");
                assert_eq!(got.text(), if enabled { &expected } else { PAGE }, "{cell}");
                for name in STALE.into_iter().filter(|name| *name != "content-length") {
                    assert_eq!(got.field(name).is_none(), enabled, "{cell}: {name}");
                }
                let length = got.field("content-length").map(|text| text.parse::<usize>().unwrap());
                let own = got.body.as_ref().unwrap().len();
                let said = (!enabled && chunk.is_none()).then_some(own);
                assert_eq!(length, said, "{cell}");
                let tag = got.field("etag").unwrap();
                assert_eq!(tag.starts_with("W/\"v1~tgs"), enabled, "{cell}: {tag}");
                assert_eq!(tag == "\"v1\"", !enabled, "{cell}: {tag}");
                assert!(got.field("last-modified").is_some(), "{cell}");
                cells += 1;
            }
        }
    }
    assert_eq!(cells, 48);
}

/// G-133: byte for byte, with every field that is about the body.
#[test]
fn what_is_not_to_be_touched_is_not() {
    let cases: &[(&str, u16, Fields)] = &[
        ("a part", 206, &[("content-range", "bytes 0-9/100")]),
        ("no-transform", 200, &[("cache-control", "public, No-Transform")]),
        ("an attachment", 200, &[("content-disposition", "attachment; filename=a.html")]),
        ("an unknown coding", 200, &[("content-encoding", "dcb")]),
        ("two codings", 200, &[("content-encoding", "gzip, br")]),
        ("two coding fields", 200, &[("content-encoding", "gzip"), ("content-encoding", "br")]),
        ("an image", 200, &[("content-type", "image/png")]),
        ("no type", 200, &[("content-type", "")]),
        ("events", 200, &[("content-type", "text/event-stream")]),
        ("JSON without a rule", 200, &[("content-type", "application/json")]),
        ("a script without a rule", 200, &[("content-type", "text/javascript")]),
        ("UTF-16", 200, &[("content-type", "text/html; charset=\"UTF-16LE\"")]),
        ("UTF-32", 200, &[("content-type", "text/html; charset=utf-32")]),
        ("XHTML", 200, &[("content-type", "application/xhtml+xml")]),
    ];
    for chunk in [None, Some(5)] {
        for (name, status, pairs) in cases {
            let kept = FIELDS[1..8].iter().chain(*pairs);
            let html = pairs.iter().all(|(name, _)| *name != "content-type");
            let html = html.then_some(("content-type", "text/html"));
            let pairs: Vec<_> = kept.copied().chain(html).collect();
            let body = PAGE.as_bytes().to_vec();
            let got = Case {
                status: *status,
                fields: &pairs,
                body: body.clone(),
                chunk,
                ..Case::default()
            }
            .run();
            assert!(!got.edited, "{name}");
            assert_eq!(got.body.as_ref().unwrap(), &body, "{name}");
            for (field, value) in &pairs {
                let found = got.fields.get_all(*field).iter().any(|found| found == value);
                assert!(found, "{name}: {field}");
            }
        }
    }
}

#[test]
fn a_body_whose_length_is_said_to_be_large_is_not_touched() {
    let page = format!("<a href=\"/x\">{}", "y".repeat(3 << 20));
    let got = Case { config: on(), body: page.clone().into(), ..Case::default() }.run();
    assert!(!got.edited && got.text() == page);
    // Where it is not said, the page works.
    let got =
        Case { config: on(), body: page.clone().into(), chunk: Some(60_000), ..Case::default() }
            .run();
    assert!(got.edited && got.text() == page.replace("\"/x", "\"/app/x"));
}

#[test]
fn an_answer_without_a_body_says_what_it_would_with_one() {
    let head = |fields| Case { method: Method::HEAD, fields, ..Case::default() }.run();
    let got = head(&[("content-type", "text/html"), ("etag", "\"a\""), ("content-length", "10")]);
    assert!(!got.edited && got.field("content-length").is_none());
    assert!(got.field("etag").unwrap().starts_with("W/\"a~tgs"));
    assert_eq!(got.body.unwrap(), b"");
    for status in [204, 304, 302] {
        let fields = &[("location", "/x"), ("set-cookie", "a=b; Path=/"), ("etag", "\"a\"")];
        let got = Case { status, fields, ..Case::default() }.run();
        assert_eq!(got.field("location"), Some("/app/x"), "{status}");
        assert_eq!(got.field("set-cookie"), Some("a=b; Path=/app"), "{status}");
        assert_eq!(got.field("etag"), Some("\"a\""), "{status}");
    }
}

#[test]
fn a_page_sent_bit_by_bit_is_shown_bit_by_bit() {
    for coding in CODINGS {
        let wire = encode(coding, b"<p>first</p>");
        let (head, tail) = wire.split_at(wire.len() - usize::from(!coding.is_empty()));
        let frames = [head, b"", tail].map(Bytes::copy_from_slice).into();
        let mut response = Response::builder().header("content-type", "text/html");
        if !coding.is_empty() {
            response = response.header("content-encoding", coding);
        }
        let body = Frames { frames, sized: false };
        let (mut parts, body) = response.body(body).unwrap().into_parts();
        let names = names_at("/app", Some(on()));
        let plan = Plan::for_request(names, &Method::GET, "/", &mut HeaderMap::new());
        let mut body = plan.apply(&mut parts, body).unwrap();
        // What is there before the wait can be read, although the end is not.
        let first = match poll(&mut body) {
            Poll::Ready(Some(Ok(data))) => data,
            other => panic!("{coding}: {other:?}"),
        };
        let mut text = [0; 64];
        let coding = super::super::coding::Coding::named(coding.as_bytes()).unwrap();
        let mut decoder = super::super::coding::Decoder::new(coding).unwrap();
        let mut written = 0;
        let mut rest = &first[..];
        while !rest.is_empty() {
            let step = decoder.step(rest, &mut text[written..]).unwrap();
            rest = &rest[step.read..];
            written += step.written;
            if step.read + step.written == 0 {
                break;
            }
        }
        let seen = std::str::from_utf8(&text[..written]).unwrap();
        assert!(seen.starts_with("<p>first"), "{coding:?}: {seen}");
    }
}

#[test]
fn a_body_that_is_not_of_its_coding_is_broken_off() {
    for coding in ["gzip", "deflate", "br", "zstd"] {
        let whole = encode(coding, PAGE.repeat(50).as_bytes());
        let mut bent = whole.clone();
        bent[whole.len() / 2] ^= 0x55;
        bent.truncate(whole.len() - 2);
        for (name, body) in [("cut", whole[..whole.len() - 9].to_vec()), ("bent", bent)] {
            let fields = &[("content-type", "text/html"), ("content-encoding", coding)];
            let got = Case { fields, body, chunk: Some(100), ..Case::default() }.run();
            assert!(matches!(got.body, Err(RewriteError::Coding(_))), "{coding} {name}");
        }
    }
    // Some servers say deflate and leave out zlib's frame; some send two members.
    let mut raw = flate2::write::DeflateEncoder::new(vec![], Compression::default());
    raw.write_all(b"<a href=\"/x\">").unwrap();
    let members = [encode("gzip", b"<a href="), encode("gzip", b"\"/x\">"), vec![0; 9]].concat();
    for (coding, body) in [("deflate", raw.finish().unwrap()), ("gzip", members)] {
        let fields = &[("content-type", "text/html"), ("content-encoding", coding)];
        for chunk in [1, 3, 1000] {
            let body = body.clone();
            let got =
                Case { config: on(), fields, body, chunk: Some(chunk), ..Case::default() }.run();
            assert_eq!(got.text(), "<a href=\"/app/x\">", "{coding} by {chunk}");
        }
    }
}

#[test]
fn utf_16_is_known_by_its_mark_too() {
    let wide: Vec<u8> = [0xff, 0xfe].into_iter().chain(b"<\0a\0 \0h\0/\0>\0".to_vec()).collect();
    let run = |kind, body: &[u8], chunk| {
        let (asked, fields) = ([("sec-fetch-dest", "worker")], [("content-type", kind)]);
        let (asked, fields, body) = (&asked[..], &fields[..], body.to_vec());
        Case { asked, fields, body, chunk: Some(chunk), ..Case::default() }.run().body.unwrap()
    };
    for chunk in [1, 2, 100] {
        for kind in ["text/html", "text/css", "text/javascript"] {
            assert_eq!(run(kind, &wide, chunk), wide, "{kind} by {chunk}");
        }
        // A first byte that could begin a mark and does not is not lost.
        assert_eq!(run("text/css", b"\xff", chunk), b"\xff");
        assert!(run("text/javascript", b"\xffx", chunk).ends_with(b");\n\xffx"), "{chunk}");
    }
}

#[test]
fn rules_see_the_whole_body_of_their_path_and_type() {
    let rules = "[[rules]]\ntypes = ['javascript', 'html']\npaths = ['/s/*']\nfind = '\"/(api)\"'\n\
                 replace = '\"{prefix}/$1\"'\n";
    let config: RewriteConfig = toml::from_str(&format!("script = false\n{rules}")).unwrap();
    let script = |path, body: &str, kind| {
        let fields = &[("content-type", kind)];
        let (config, body) = (config.clone(), body.as_bytes().to_vec());
        let (chunk, coding) = if body.len() < 100 { (3, "br") } else { (50_000, "") };
        Case { config, path, fields, body, chunk: Some(chunk), coding, ..Case::default() }.run()
    };
    let js = "application/javascript";
    assert_eq!(script("/s/a.js", "get(\"/api\")", js).text(), "get(\"/app/api\")");
    assert!(!script("/t/a.js", "get(\"/api\")", js).edited);
    assert!(!script("/s/a.json", "\"/api\"", "application/json").edited);
    let page = script("/s/", "<a href=\"/x\" title=\"/api\">", "text/html").text();
    assert_eq!(page, "<a href=\"/app/x\" title=\"/app/api\">");
    // Longer than the limit: let go as it is.
    let long = format!("\"/api\"{}", "x".repeat(2 << 20));
    assert!(script("/s/a.js", &long, js).text() == long);
    let page = format!("<a href=\"/x\" title=\"/api\">{}", "y".repeat(2 << 20));
    assert!(script("/s/", &page, "text/html").text() == page.replace("\"/x", "\"/app/x"));
}

#[test]
fn a_workers_script_gets_ours_before_it() {
    let run = |dest| {
        let asked: &[(&str, &str)] = &[("sec-fetch-dest", dest)];
        let fields = &[("content-type", "text/javascript"), ("etag", "\"a\"")];
        Case { asked, fields, body: b"work()".to_vec(), coding: "gzip", ..Case::default() }.run()
    };
    let got = run("worker");
    let text = got.text();
    assert!(
        text.starts_with("(function rewrite(prefix, hosts)") && text.ends_with(");\nwork()"),
        "{text}"
    );
    assert_eq!(got.field("vary"), Some("sec-fetch-dest"));
    assert!(!run("script").edited);
}

#[test]
fn a_pages_policy_lets_our_scripts_in() {
    let fields = &[("content-type", "text/html"), ("content-security-policy", "script-src 'self'")];
    let got = Case { fields, body: PAGE.into(), ..Case::default() }.run();
    let policy = got.field("content-security-policy").unwrap();
    assert_eq!(policy.matches("'sha256-").count(), 2, "{policy}");
    let text = got.text();
    for element in text.split("<script").skip(1) {
        let script = element.split_once('>').unwrap().1.split("</script>").next().unwrap();
        let digest = <sha2::Sha256 as sha2::Digest>::digest(script);
        let hash = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, digest);
        assert!(policy.contains(&format!("'sha256-{hash}'")), "{script}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// G-135, through every coding.
    #[test]
    fn random_chunking_equals_one_chunk(
        coding in proptest::sample::select(&CODINGS[..]),
        chunk in 1_usize..200,
        parts in proptest::collection::vec(
            prop_oneof![Just(PAGE), Just("\u{1f600}\u{e9}"), Just("<p style='a:url(/z)'>"), Just("<a href='/")],
            1..12,
        ),
    ) {
        let body = parts.concat().into_bytes();
        let whole = Case { coding, body: body.clone(), ..Case::default() }.run();
        let cut = Case { coding, body, chunk: Some(chunk), ..Case::default() }.run();
        prop_assert_eq!(whole.text(), cut.text());
    }
}
