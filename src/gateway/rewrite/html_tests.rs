use proptest::prelude::*;

use super::{
    super::test_support::{names, names_at},
    *,
};

fn info(names: Names) -> PageInfo {
    PageInfo {
        names,
        part: Part::Unknown,
        strictness: Strictness::default(),
        changes_scripts: false,
        changes_styles: true,
    }
}

fn in_chunks<'c>(info: PageInfo, chunks: impl IntoIterator<Item = &'c [u8]>) -> Vec<u8> {
    let config = info.names.site.config.clone();
    let mut html = Html::new(info, &config);
    let mut out = vec![];
    chunks.into_iter().for_each(|chunk| html.push(chunk, &mut out));
    html.end(&mut out);
    out
}

/// Our own insertions written short.
fn rewritten_as(info: PageInfo, text: &str) -> String {
    let site = Arc::clone(&info.names.site);
    let out = String::from_utf8(in_chunks(info, [text.as_bytes()])).unwrap();
    let script = &site.script.as_ref().unwrap().element;
    out.replace(script, "[S]").replace(&site.import_map.as_ref().unwrap().element, "[M]")
}

fn rewritten(text: &str) -> String {
    rewritten_as(info(names()), text)
}

const FRAGMENTS: &[(&str, &str)] = &[
    ("<a href=/x>", "<a href=\"/app/x\">"),
    ("<a HREF='/x?a&amp;b'>é", "<a HREF=\"/app/x?a&amp;b\">é"),
    (
        "<img src=\"/x\" srcset=\"/a 1x, b 2x\" alt=/x>",
        "<img src=\"/app/x\" srcset=\"/app/a 1x, b 2x\" alt=/x>",
    ),
    (
        "<form action=/x><button formaction=/y></form>",
        "<form action=\"/app/x\"><button formaction=\"/app/y\"></form>",
    ),
    (
        "<video poster=/p><source src=/s></video>",
        "<video poster=\"/app/p\"><source src=\"/app/s\"></video>",
    ),
    ("<object data=/x></object><p data=/x>", "<object data=\"/app/x\"></object><p data=/x>"),
    (
        "<blockquote cite=/c><table background=/b>",
        "<blockquote cite=\"/app/c\"><table background=\"/app/b\">",
    ),
    (
        "<svg><use xlink:href=\"/s.svg#i\" /></svg>",
        "<svg><use xlink:href=\"/app/s.svg#i\" /></svg>",
    ),
    (
        "<link rel=preload as=image imagesrcset=\"/a 1x\">",
        "<link rel=preload as=image imagesrcset=\"/app/a 1x\">",
    ),
    (
        "<meta http-equiv=Refresh content='1; url=/x'>",
        "<meta http-equiv=Refresh content=\"1; url=/app/x\">",
    ),
    (
        "<p style='background:url(&quot;/x&quot;)'>",
        "<p style=\"background:url(&quot;/app/x&quot;)\">",
    ),
    ("<style>a{b:url(/x)}</style>", "<style>a{b:url(/app/x)}</style>"),
    ("<a ping='/x http://other/'>", "<a ping=\"/app/x http://other/\">"),
    (
        "<script src=http://up.example:8188/x integrity=sha256-a></script>",
        "<script src=\"/app/x\" integrity=sha256-a></script>",
    ),
    ("<link rel=stylesheet href=x integrity=sha256-a>", "<link rel=stylesheet href=x>"),
    (
        "<link rel=stylesheet href=https://cdn.example/x integrity=a>",
        "<link rel=stylesheet href=https://cdn.example/x integrity=a>",
    ),
    ("<base href=/><a href=/x>", "<base href=\"/app/\"><a href=\"/app/x\">"),
    (
        "<base href=https://cdn.example/><a href=/x><a href=//up.example:8188/y>",
        "<base href=https://cdn.example/><a href=/x><a href=\"/app/y\">",
    ),
    (
        "<base href=https://gate.example/app/><a href=/x>",
        "<base href=https://gate.example/app/><a href=\"/app/x\">",
    ),
    ("<meta http-equiv=content-security-policy content=\"script-src *; report-uri /r\">", ""),
    (
        "<base href='https:\\\\cdn.example\\'><a href=/x>",
        "<base href='https:\\\\cdn.example\\'><a href=/x>",
    ),
    // Of a name that stands twice, browsers take the first.
    (
        "<script src=/good.js src=/uploads/evil.js></script>",
        "<script src=\"/app/good.js\" src=/uploads/evil.js></script>",
    ),
    (
        "<p style='color:red' style='background:url(/x)' STYLE='a:url(/y)'>",
        "<p style='color:red' style='background:url(/x)' STYLE='a:url(/y)'>",
    ),
];

const KEPT: &[&str] = &[
    "",
    "text /x",
    "<a href=x><a href='#f'><a href=\"javascript:go('/x')\"><a href=mailto:a@b><a href=data:,/x>",
    "<a href=/app/x><a href=/app><a href=\"https://other.example/x\"><a href>",
    "<script>fetch('/x')</script><!-- <a href=/x> --><textarea><a href=/x></textarea>",
    "<title>/x <a href=/x></title>",
    "<div><p>&copy; caf\u{e9} \u{1f600}</div><a title=\"/x\">",
    "<tr><td>fragment</td></tr>",
    "<a href=https://good.example/ href=/evil><form action=https://bank.example/ ACTION='/x'>",
    "<img srcset='data:,1 1x' srcset='/evil 1x'>",
    // The hashes of what others host.
    "<link rel=stylesheet href='https:\\\\cdn.example\\a.css' integrity=a>",
    "<link rel=stylesheet href='&#104;ttps://cdn.example/a.css' integrity=a>",
    "<link rel=stylesheet href='https:&bsol;&bsol;cdn.example/a.css' integrity=a>",
    "<base href='https://cdn.example/'><link rel=stylesheet href=a.css integrity=a>",
];

#[test]
fn what_points_at_the_upstream_is_mapped() {
    for (text, expected) in FRAGMENTS.iter().filter(|(_, expected)| !expected.is_empty()) {
        assert_eq!(rewritten(text), *expected, "{text}");
        assert_eq!(rewritten(expected), *expected, "{text}: twice");
    }
    for text in KEPT {
        assert_eq!(rewritten(text), *text);
    }
}

#[test]
fn our_script_comes_before_whatever_could_ask_for_something() {
    let cases = [
        (
            "<!doctype html><html><head><meta charset=utf-8><title>t</title><link href=x></head><body>b",
            "<!doctype html><html><head><meta charset=utf-8><title>t</title>[S]<link href=x></head>[M]<body>b",
        ),
        ("<!DOCTYPE html><p>x", "<!DOCTYPE html>[S][M]<p>x"),
        (
            "<html><script>a</script><script type=module>b</script>",
            "<html>[S]<script>a</script>[M]<script type=module>b</script>",
        ),
        ("<head><link rel=modulepreload href=x>", "<head>[S][M]<link rel=modulepreload href=x>"),
        (
            "<head></head><body><script type=module src=/m></script>",
            "<head></head>[S][M]<body><script type=module src=\"/app/m\"></script>",
        ),
        (
            "<p>a fragment</p><script type=module></script>",
            "<p>a fragment</p><script type=module></script>",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(rewritten(text), expected, "{text}");
    }
    let shown = PageInfo { part: Part::Page, ..info(names()) };
    assert_eq!(rewritten_as(shown, "<p>a page"), "[S][M]<p>a page");
}

#[test]
fn a_pages_own_import_map_is_merged_unless_its_policy_knows_its_hash() {
    let page = "<html><script type=importmap>{\"imports\":{\"v\":\"/v\"}}</script><p>";
    let merged = "<html>[S]<script type=importmap>\
                  {\"imports\":{\"/\":\"/app/\",\"/app/\":\"/app/\",\"v\":\"/app/v\"}}</script><p>";
    let sorted = |text: String| {
        let mut chars: Vec<_> = text.chars().collect();
        chars.sort_unstable();
        chars
    };
    assert_eq!(sorted(rewritten(page)), sorted(merged.to_owned()));
    let strict = |page: &str| {
        let strictness = Strictness { scripts: true, styles: false };
        rewritten_as(PageInfo { strictness, ..info(names()) }, page)
    };
    assert_eq!(strict(page), page.replace("<script", "[S][M]<script"));
    let with_nonce = page.replace("importmap", "importmap nonce=n");
    assert!(strict(&with_nonce).contains("\"/app/v\""));
    let broken = "<html><script type=importmap>{</script>";
    assert_eq!(rewritten(broken), "<html>[S]<script type=importmap>{</script>");
}

#[test]
fn a_policy_in_the_page_lets_our_script_in() {
    let text = "<head><meta http-equiv=content-security-policy content=\"default-src 'self'\"><p>";
    let out = rewritten(text);
    assert!(out.contains("script-src 'self' 'sha256-"), "{out}");
}

#[test]
fn without_the_script_nothing_is_put_in() {
    let config = RewriteConfig { script: false, ..RewriteConfig::default() };
    let text = "<!doctype html><html><head></head><body>x";
    let out = in_chunks(info(names_at("/app", Some(config))), [text.as_bytes()]);
    assert_eq!(String::from_utf8(out).unwrap(), text);
}

/// Broken UTF-8, two legacy charsets: only what is mapped differs.
#[test]
fn bytes_of_any_charset_stay() {
    let mut page = b"<p title='\xff\xfe\x81' style='a:\"\xe9\"'>\x83\x5c\x95\x5c<style>/*\x8f\xff*/</style><a title=\x80 href=\"/".to_vec();
    page.extend(0x80..=0xff_u8);
    page.extend(b"\">");
    let out = in_chunks(info(names()), [page.as_slice()]);
    let at = page.windows(6).position(|text| text == b"href=\"").unwrap() + 6;
    let expected = [&page[..at], b"/app", &page[at..]].concat();
    assert_eq!(out, expected);
}

#[test]
fn a_page_that_needs_too_much_memory_passes_to_its_end() {
    let config = RewriteConfig { memory: 64 * 1024, ..RewriteConfig::default() };
    let info = info(names_at("/app", Some(config)));
    let huge = format!("<a href=/a><p title=\"{}\"><a href=/b>", "x".repeat(200 * 1024));
    let out = in_chunks(info, huge.as_bytes().chunks(1000));
    let expected = huge.replacen("<a href=/a>", "<a href=\"/app/a\">", 1);
    assert!(String::from_utf8(out).unwrap() == expected);
}

#[test]
fn every_cut_of_every_case_gives_the_same() {
    let cases = FRAGMENTS.iter().map(|(text, _)| *text).chain(KEPT.iter().copied());
    for text in
        cases.chain(["<html><script type=importmap>{\"imports\":{\"\u{e9}\":\"/v\"}}</script><p>"])
    {
        let whole = in_chunks(info(names()), [text.as_bytes()]);
        for at in 0..=text.len() {
            let (a, b) = text.as_bytes().split_at(at);
            assert_eq!(in_chunks(info(names()), [a, b]), whole, "{text} cut at {at}");
        }
    }
}

/// Linear, and no more than a moment: either of these took a worker's minute.
#[test]
fn attributes_without_end_take_no_longer_than_other_text() {
    let many = |tag: &str, names: &str| format!("<!doctype html><{tag} {}>", names.repeat(50_000));
    let pages = [
        many("meta", "content "),
        many("a", "href=/x "),
        format!("<a {}{}>", "a ".repeat(20_000), "href=/x ".repeat(20_000)),
        "<meta content http-equiv=refresh a b c d e f g h i j k l m n o p q r s t u v w x y z>"
            .repeat(5_000),
    ];
    for page in pages {
        let before = used_by_thread();
        let out = in_chunks(info(names()), page.as_bytes().chunks(32 * 1024));
        let time = used_by_thread().saturating_sub(before);
        assert!(time < Duration::from_secs(3), "{}: {time:?}", &page[..40]);
        assert!(out.len() >= page.len());
    }
}

#[test]
fn an_element_that_nobody_wrote_stays_as_it_is() {
    let named = |count| (0..count).map(|at| format!("a{at} ")).collect::<Vec<_>>().concat();
    let page = |count| format!("<p {}href=/x><a href=/y>", named(count));
    let mapped = page(300).replace("<a href=/y>", "<a href=\"/app/y\">");
    assert_eq!(rewritten(&page(300)), mapped);
    assert!(rewritten(&page(200)).contains("href=\"/app/x\""));
}

#[test]
fn what_takes_too_long_passes_to_its_end() {
    let info = info(names());
    let config = info.names.site.config.clone();
    let (mut html, mut out) = (Html::new(info, &config), vec![]);
    html.push(b"<a href=/x>1</a><p title='not yet ", &mut out);
    html.spent = Duration::from_mins(1);
    html.push(b"over'><a href=/x>2</a><p ", &mut out);
    html.push(b"><a href=/x>3</a>", &mut out);
    html.end(&mut out);
    let expected = "<a href=\"/app/x\">1</a><p title='not yet over'><a href=\"/app/x\">2</a>\
                    <p ><a href=/x>3</a>";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

proptest! {
    #[test]
    fn random_chunks_of_random_pages_give_the_same(
        parts in proptest::collection::vec(prop_oneof![
            Just("<a href=\"/x\">"), Just("<style>"), Just("a{b:url("), Just("/x"), Just(")}"),
            Just("</style>"), Just("<script>"), Just("</script>"), Just("<!--"), Just("-->"),
            Just("\u{e9}"), Just("<p style='b:url(/y)'>"), Just("&amp;"), Just("<"), Just(">"),
            Just("\""), Just("<html>"), Just("<script type=importmap>"), Just("{\"imports\":{}}"),
            Just("<base href=//cdn/>"), Just("<svg>"), Just("<![CDATA["), Just("]]>"), Just("</"),
        ], 0..30),
        sizes in proptest::collection::vec(1_usize..15, 1..60),
    ) {
        let text = parts.concat();
        let mut rest = text.as_bytes();
        let mut chunks = vec![];
        for size in sizes.iter().cycle() {
            if rest.is_empty() { break; }
            let (chunk, after) = rest.split_at((*size).min(rest.len()));
            chunks.push(chunk);
            rest = after;
        }
        let whole = in_chunks(info(names()), [text.as_bytes()]);
        prop_assert_eq!(in_chunks(info(names()), chunks), whole, "{}", text);
    }
}

#[test]
fn a_page_in_an_attribute_is_a_page() {
    let written = |text: &str| text.replace('&', "&amp;").replace('"', "&quot;");
    let script = written(&names().site.script.as_ref().unwrap().element);
    let map = written(&names().site.import_map.as_ref().unwrap().element);
    let out = rewritten("<iframe srcdoc=\"<img src=&quot;/x?a=1&amp;amp;b&quot; alt=\u{e9}>\">");
    let out = out.replace(&script, "[S]").replace(&map, "[M]");
    let inner = "<img src=&quot;/app/x?a=1&amp;amp;b&quot; alt=\u{e9}>";
    assert_eq!(out, format!("<iframe srcdoc=\"[S][M]{inner}\">"));
    // Another of that name is none.
    let twice = rewritten("<iframe srcdoc='<p>' srcdoc='<img src=1 onerror=x><a href=/x>'>");
    assert!(twice.ends_with("<p>\" srcdoc='<img src=1 onerror=x><a href=/x>'>"), "{twice}");
    // One within it stays as it is.
    let nested = "<iframe srcdoc='<iframe srcdoc=\"/x <img src=/x>\">'>";
    assert!(rewritten(nested).contains("srcdoc=&quot;/x <img src=/x>&quot;"));
}
