use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds = Bounds { bytes: 1 << 20, depth: Bounds::DEPTH };
const JSON: Option<&str> = Some("application/json; charset=utf-8");
const SSE: Option<&str> = Some("text/event-stream");
const PLAIN: Option<&str> = Some("text/plain");

type Heard = (Vec<Said>, Result<(), Unreadable>);

fn read<'p>(kind: Option<&str>, parts: impl IntoIterator<Item = &'p [u8]>) -> Heard {
    let (mut reader, mut said) = (Reader::new(kind, BOUNDS), vec![]);
    for part in parts {
        if let Err(error) = reader.push(part, &mut |one| said.push(one)) {
            return (said, Err(error));
        }
    }
    let ended = reader.finish(&mut |one| said.push(one));
    (said, ended)
}

/// Neighbouring texts as one.
fn joined((said, ended): Heard) -> Heard {
    let mut all: Vec<Said> = vec![];
    for one in said {
        match (all.last_mut(), one) {
            (Some(Said::Text(before)), Said::Text(text)) => before.push_str(&text),
            (_, one) => all.push(one),
        }
    }
    (all, ended)
}

fn whole(kind: Option<&str>, text: &str) -> Heard {
    read(kind, [text.as_bytes()])
}

fn texts(texts: &[&str]) -> Vec<Said> {
    texts.iter().map(|text| Said::Text((*text).to_owned())).collect()
}

#[test]
fn every_form_is_understood() {
    let cases: &[(Option<&str>, &str, &[&str])] = &[
        (
            JSON,
            r#"{"type":"begin"}{"type":"item","content":"Hel"}{"type":"item","content":"lo"}{"type":"end"}"#,
            &["Hel", "lo"],
        ),
        (
            JSON,
            "{\"type\":\"begin\"}\n{\"type\":\"item\",\"content\":\"a\"}\r\n\n{\"type\":\"end\"}\n",
            &["a"],
        ),
        (None, r#" {"type":"item","content":"}{\"]["} , {"type":"end"}"#, &["}{\"]["]),
        (
            JSON,
            r#"{"type":"item","content":"\\"}{"type":"item","content":"\"}"}{"type":"end"}"#,
            &["\\", "\"}"],
        ),
        (
            JSON,
            r#"{"type":"begin"}{"type":"item","content":"a"}{"type":"end"}{"type":"begin"}{"type":"item","content":"b"}{"type":"end"}"#,
            &["a", "b"],
        ),
        (JSON, r#"{"type":"item","content":"unannounced"}"#, &["unannounced"]),
        (
            JSON,
            r#"{"type":"begin"}{"type":"tool-call","content":{"x":1}}{"type":"item"}{"type":"item","content":""}{"type":"item","content":7}{"type":"end"}"#,
            &["7"],
        ),
        (
            JSON,
            r#"{"type":"item","content":"\ud83d\ude00 \ud83d"}{"type":"item","content":"\ude00\\ud83d"}"#,
            &["😀 \u{fffd}", "\u{fffd}\\ud83d"],
        ),
        (JSON, r#"{"type":"item","content":"a\u0000b"}"#, &["a\u{fffd}b"]),
        (JSON, r#"{"output":"Hello"}"#, &["Hello"]),
        (JSON, r#"{"text":"Hello","other":1}"#, &["Hello"]),
        (JSON, r#"{"message":{"content":"Hello"}}"#, &["Hello"]),
        (JSON, r#"{"type":"reply","text":"Hello"}"#, &["Hello"]),
        (JSON, r#"[{"output":"one"},{"text":"two"},{"message":"three"}]"#, &["one\ntwo\nthree"]),
        (JSON, r#""Hello""#, &["Hello"]),
        (JSON, "\u{feff}{\"output\":\"Hello\"}", &["Hello"]),
        (JSON, "[]", &[]),
        (JSON, "", &[]),
        (JSON, " \n ", &[]),
        (None, "Hello", &["Hello"]),
        (None, "dat", &["dat"]),
        (None, "<b>Hello</b>", &["<b>Hello</b>"]),
        (PLAIN, "{\"output\": no JSON", &["{\"output\": no JSON"]),
        (PLAIN, "\u{feff}Hello", &["Hello"]),
        (SSE, "data: Hel\n\ndata: lo\n\n", &["Hel", "lo"]),
        (SSE, ": hi\r\nid: 1\r\nevent: item\r\ndata: a\r\ndata: b\r\n\r\n", &["a\nb"]),
        (
            SSE,
            "data:{\"type\":\"begin\"}\r\rdata:{\"type\":\"item\",\"content\":\"a\"}\r\rdata: [DONE]\r\r",
            &["a"],
        ),
        (SSE, "data: {\"output\":\"a\"}\n\ndata: {\"usage\":1}\n\n", &["a"]),
        (SSE, "data: {no JSON\n\n", &["{no JSON"]),
        (SSE, "data: no blank line", &["no blank line"]),
        (None, "event: begin\ndata\n\ndata: x\n\nevent: end\ndata: bye\n\n", &["x"]),
        (None, ": comment\n\ndata: x\n\n", &["x"]),
    ];
    for (kind, text, expected) in cases {
        assert_eq!(whole(*kind, text), (texts(expected), Ok(())), "{text}");
    }
}

#[test]
fn failures_are_told_without_their_words() {
    for (kind, text, before) in [
        (
            JSON,
            r#"{"type":"begin"}{"type":"item","content":"a"}{"type":"error","content":"SQL at 10.0.0.1"}{"type":"item","content":"b"}"#,
            vec!["a"],
        ),
        (JSON, r#"{"error":"Workflow could not be started"}"#, vec![]),
        (JSON, r#"[{"error":{"message":"x"}}]"#, vec![]),
        (SSE, "data: a\n\nevent: error\ndata: secret\n\ndata: b\n\n", vec!["a"]),
        (SSE, "data: {\"type\":\"error\"}\n\n", vec![]),
    ] {
        let mut expected = texts(&before);
        expected.push(Said::Failed);
        assert_eq!(whole(kind, text), (expected, Ok(())), "{text}");
    }
}

#[test]
fn what_is_not_whole_or_not_understood_is_told() {
    let deep = format!("{}1{}", "[".repeat(40), "]".repeat(40));
    for (kind, text, error) in [
        (JSON, r#"{"type":"begin"}{"type":"item","content":"a"}"#, Unreadable::Cut),
        (JSON, r#"{"type":"begin"}"#, Unreadable::Cut),
        (SSE, "data: {\"type\":\"begin\"}\n\ndata: a\n\n", Unreadable::Cut),
        (JSON, r#"{"type":"end"}{"type":"item","content":"a"}"#, Unreadable::Cut),
        (JSON, r#"{"output":"Hel"#, Unreadable::Malformed),
        (JSON, r#"{"output":"a"} and more"#, Unreadable::Malformed),
        (JSON, r"{output}", Unreadable::Malformed),
        (JSON, r"[1}", Unreadable::Malformed),
        (JSON, r#"{"answer":"a"}"#, Unreadable::NoText),
        (JSON, deep.as_str(), Unreadable::TooDeep),
        (SSE, &format!("data: {deep}\n\n"), Unreadable::TooDeep),
    ] {
        assert_eq!(whole(kind, text).1, Err(error), "{text}");
    }
}

#[test]
fn what_is_too_large_is_not_kept() {
    for begin in ["", "{\"output\":\"", "data: ", " "] {
        let bounds = Bounds { bytes: 10_000, depth: 4 };
        let mut reader = Reader::new(None, bounds);
        let mut told = 0;
        let mut push = |reader: &mut Reader, bytes: &[u8]| {
            reader.push(bytes, &mut |said| {
                let Said::Text(text) = said else { panic!("{said:?}") };
                told += text.len();
            })
        };
        push(&mut reader, begin.as_bytes()).unwrap();
        let refused = (0..200).find_map(|_| push(&mut reader, &[b' '; 100]).err());
        assert_eq!(refused, Some(Unreadable::TooLarge), "{begin}");
        assert!(told <= bounds.bytes, "{begin}");
    }
}

/// Answers of every form, with what may be cut badly in them.
fn answers() -> impl Strategy<Value = (Option<&'static str>, Vec<u8>)> {
    let text = || {
        proptest::collection::vec(
            proptest::sample::select(vec![
                "a", "ü", "😀", "{", "}", "[", "]", "\"", "\\", "\n", ",", ":",
            ]),
            0..8,
        )
        .prop_map(|parts| parts.concat())
    };
    let objects = proptest::collection::vec(
        (text(), proptest::sample::select(vec!["", "\n", "\r\n", " ", ", "]), any::<bool>()),
        0..8,
    )
    .prop_map(|items| {
        let mut all = r#"{"type":"begin","metadata":{"nodeId":"{\"x"}}"#.to_owned();
        for (text, between, escaped) in items {
            let json = serde_json::json!({ "type": "item", "content": text }).to_string();
            let json = if escaped { json.replace('😀', "\\ud83d\\ude00") } else { json };
            all.push_str(&json);
            all.push_str(between);
        }
        all.push_str(r#"{"type":"end"}"#);
        (JSON, all.into_bytes())
    });
    let events = proptest::collection::vec(
        (text(), proptest::sample::select(vec!["\n", "\r", "\r\n"])),
        0..8,
    )
    .prop_map(|items| {
        let mut all = String::new();
        for (text, end) in items {
            for line in text.split('\n') {
                all.extend(["data: ", line, end]);
            }
            all.push_str(end);
        }
        (SSE, all.into_bytes())
    });
    let one = text()
        .prop_map(|text| (None, serde_json::json!([{ "output": text }]).to_string().into_bytes()));
    let plain = proptest::collection::vec(any::<u8>(), 0..64).prop_map(|bytes| (PLAIN, bytes));
    let any_kind = proptest::sample::select(vec![None, JSON, SSE, PLAIN]);
    let garbage = (any_kind, proptest::collection::vec(any::<u8>(), 0..96));
    let alphabet = proptest::sample::select(b"{}[]\"\\:,\n\r adteu0\xc3\xbc\xf0\x9f".to_vec());
    let likely = (
        proptest::sample::select(vec![None, JSON, SSE]),
        proptest::collection::vec(alphabet, 0..64),
    );
    prop_oneof![objects, events, one, plain, garbage, likely]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn it_does_not_matter_how_the_bytes_come(
        (kind, bytes) in answers(),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let parts = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]);
        let at_once = read(kind, [&bytes[..]]);
        let one_by_one = read(kind, bytes.chunks(1));
        prop_assert_eq!(joined(read(kind, parts)), joined(at_once.clone()));
        prop_assert_eq!(joined(one_by_one.clone()), joined(at_once.clone()));
        if kind == SSE {
            prop_assert_eq!(one_by_one, at_once);
        }
    }

    /// What is kept is never more than what came.
    #[test]
    fn nothing_that_comes_breaks_it(
        kind in proptest::sample::select(vec![None, JSON, SSE, PLAIN]),
        parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..20),
    ) {
        let bounds = Bounds { bytes: 1000, depth: 4 };
        let (mut reader, mut told) = (Reader::new(kind, bounds), 0);
        for part in &parts {
            let mut say = |said| if let Said::Text(text) = said { told += text.len() };
            if reader.push(part, &mut say).is_err() {
                break;
            }
        }
        // One wrong byte becomes three.
        prop_assert!(told <= bounds.bytes * 3);
    }
}
