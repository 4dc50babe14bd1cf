use proptest::prelude::*;

use super::{super::test_support::names, *};

fn in_chunks(chunks: &[&[u8]]) -> Vec<u8> {
    let (names, mut css, mut out) = (names(), Css::default(), vec![]);
    for chunk in chunks {
        css.push(&names, true, chunk, &mut out);
        assert!(css.held.len() <= 2 * LONGEST + 64, "{} bytes held", css.held.len());
    }
    css.end(&names, true, &mut out);
    out
}

fn rewritten(text: &str) -> String {
    String::from_utf8(in_chunks(&[text.as_bytes()])).unwrap()
}

const CASES: &[(&str, &str)] = &[
    ("a{b:url(/x.png)}", "a{b:url(/app/x.png)}"),
    ("a{b:url( \"/x.png\" )}", "a{b:url( \"/app/x.png\" )}"),
    ("a{b:URL('/x (1).png')}", "a{b:URL('/app/x (1).png')}"),
    ("a{b:url(//up.example:8188/x) , url(/y)}", "a{b:url(/app/x) , url(/app/y)}"),
    ("@import '/x.css' screen;", "@import '/app/x.css' screen;"),
    (
        "@import/**/\"/x.css\";@IMPORT url(/y.css)",
        "@import/**/\"/app/x.css\";@IMPORT url(/app/y.css)",
    ),
    (
        "a{b:image-set('/x.png' 1x type('/not'), url(/y) 2x)}c{d:'/z'}",
        "a{b:image-set('/app/x.png' 1x type('/not'), url(/app/y) 2x)}c{d:'/z'}",
    ),
    ("a{b:url(\\2f x.png)}", "a{b:url(/app/x.png)}"),
    ("a{b:url('\\/x\\'y')}", "a{b:url('/app/x\\27 y')}"),
    ("a{b:url(\"/é.png\")}", "a{b:url(\"/app/é.png\")}"),
    ("a{b:url(/x", "a{b:url(/app/x"),
    ("a{b:url('/x", "a{b:url('/app/x"),
    (
        "@font-face{src:url(/f.woff2)format('woff2'),url(/g)}",
        "@font-face{src:url(/app/f.woff2)format('woff2'),url(/app/g)}",
    ),
];

const KEPT: &[&str] = &[
    "",
    "a{b:url(x.png) url(./y) url(../z) url(#f) url(data:image/png;base64,/x/) url()}",
    "a{b:url(https://other.example/x) url(/app/x)}",
    "/* url(/x) */a{content:'url(/x)' \"@import '/x'\"}",
    "a{content:'\\'url(/x)'}",
    "a{content:'/x'}@namespace url(/x);@namespace '/y';",
    "my-url(/x) #url(/x) xurl(/x) url\\ (/x)",
    "a{b:'unclosed\n url(x)",
    "/* never closed url(/x)",
    "/",
    "@",
    "\\",
    "url(",
    "url( ",
    "'",
    "@import",
    "a{b:url(\"",
];

#[test]
fn urls_and_nothing_else_are_mapped() {
    for (text, expected) in CASES {
        assert_eq!(rewritten(text), *expected, "{text}");
        assert_eq!(rewritten(expected), *expected, "{text}: twice");
    }
    for text in KEPT {
        assert_eq!(rewritten(text), *text);
    }
}

#[test]
fn a_long_url_is_judged_by_its_beginning_and_not_held() {
    let long = "x".repeat(3 * LONGEST);
    for quote in ["", "'", "\""] {
        for (head, mapped) in [("/", "/app/"), ("data:,/", "data:,/")] {
            let sheet = |head| format!("a{{b:url({quote}{head}{long}{quote}) url(/y)}}");
            let expected = sheet(mapped).replace("url(/y)", "url(/app/y)");
            let text = sheet(head);
            assert_eq!(rewritten(&text), expected);
            for size in [1, 7, 4096, LONGEST, LONGEST + 1] {
                let chunks: Vec<_> = text.as_bytes().chunks(size).collect();
                assert!(in_chunks(&chunks) == expected.as_bytes(), "{quote} {head} by {size}");
            }
        }
    }
}

#[test]
fn every_cut_of_every_case_gives_the_same() {
    for text in CASES.iter().map(|(text, _)| *text).chain(KEPT.iter().copied()) {
        let whole = in_chunks(&[text.as_bytes()]);
        for at in 0..=text.len() {
            let (a, b) = text.as_bytes().split_at(at);
            assert_eq!(in_chunks(&[a, b]), whole, "{text} cut at {at}");
        }
        let bytes: Vec<_> = text.as_bytes().chunks(1).collect();
        assert_eq!(in_chunks(&bytes), whole, "{text} byte by byte");
    }
}

proptest! {
    #[test]
    fn random_chunks_of_random_sheets_give_the_same(
        parts in proptest::collection::vec(prop_oneof![
            Just("url("), Just("/x"), Just(")"), Just("'"), Just("\""), Just("\\"), Just("/*"),
            Just("*/"), Just("@import"), Just(" "), Just(";"), Just("image-set("), Just("{"),
            Just("}"), Just("é"), Just("\n"), Just("abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrst"),
            Just("@namespace"), Just("2f "), Just("//up.example:8188"), Just("("), Just("*"),
        ], 0..40),
        sizes in proptest::collection::vec(1_usize..12, 1..60),
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
        prop_assert_eq!(in_chunks(&chunks), in_chunks(&[text.as_bytes()]), "{}", text);
    }
}
