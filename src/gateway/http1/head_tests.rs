use proptest::prelude::*;

use super::*;

fn taken(text: &[u8], method: &Method) -> Result<Option<Head>, Fault> {
    let (mut input, mut fields) = (BytesMut::from(text), HeaderMap::new());
    match take(&mut input, method, &mut fields)? {
        Parsed::Head(head) => Ok(Some(head)),
        Parsed::Partial => {
            assert_eq!(input, text, "what is not understood is not taken");
            Ok(None)
        }
        Parsed::Interim => panic!("an interim answer"),
    }
}

fn get(text: &str) -> Head {
    taken(text.as_bytes(), &Method::GET).unwrap().expect("a whole head")
}

#[test]
fn the_end_of_a_body_is_known_by_status_method_and_fields() {
    for (method, text, body) in [
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "Length(5)"),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\nContent-Length: 5\r\n\r\n",
            "Length(5)",
        ),
        ("GET", "HTTP/1.1 200 OK\r\n\r\n", "Closing"),
        ("GET", "HTTP/1.0 200 OK\r\n\r\n", "Closing"),
        ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "Closing"),
        ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", "Chunked"),
        ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "Chunked"),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\nTransfer-Encoding: chunked\r\n\r\n",
            "Chunked",
        ),
        ("GET", "HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n", "Length(0)"),
        ("GET", "HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n", "Length(0)"),
        ("GET", "HTTP/1.1 304 Not\r\nContent-Length: 5\r\n\r\n", "Length(0)"),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "Length(0)"),
        ("HEAD", "HTTP/1.1 200 OK\r\n\r\n", "Length(0)"),
        ("CONNECT", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "Length(0)"),
        ("GET", "HTTP/1.1 101 Switching\r\nContent-Length: 5\r\n\r\n", "Length(0)"),
    ] {
        let method = method.parse().unwrap();
        let head = taken(text.as_bytes(), &method).unwrap().unwrap();
        let found = format!("{:?}", head.body);
        assert!(found.starts_with(body), "{method} {text:?}: {found}");
    }
}

#[test]
fn a_connection_is_used_again_only_where_both_may() {
    for (text, keeps) in [
        ("HTTP/1.1 204 No\r\n\r\n", true),
        ("HTTP/1.1 204 No\r\nConnection: keep-alive\r\n\r\n", true),
        ("HTTP/1.1 204 No\r\nConnection: x, Close\r\n\r\n", false),
        ("HTTP/1.1 204 No\r\nConnection: close\r\nConnection: keep-alive\r\n\r\n", false),
        ("HTTP/1.1 204 No\r\nConnection: \u{e9}, close\r\n\r\n", false),
        ("HTTP/1.0 204 No\r\n\r\n", false),
        ("HTTP/1.0 204 No\r\nConnection: keep-alive\r\n\r\n", false),
        ("HTTP/1.1 101 Switching\r\n\r\n", false),
    ] {
        assert_eq!(get(text).keep_alive, keeps, "{text:?}");
    }
}

#[test]
fn an_unusual_reason_is_handed_on() {
    let reason = |text: &str| {
        let answer = get(text).answer;
        answer.extensions().get::<ReasonPhrase>().map(|it| it.as_bytes().to_vec())
    };
    assert_eq!(reason("HTTP/1.1 200 OK\r\n\r\n"), None);
    assert_eq!(reason("HTTP/1.1 200 Fine\r\n\r\n"), Some(b"Fine".to_vec()));
    assert_eq!(reason("HTTP/1.1 299 Odd\r\n\r\n"), Some(b"Odd".to_vec()));
}

#[test]
fn lengths_that_differ_or_are_none_are_refused() {
    for length in ["", "-1", "+1", "1 1", "1,", ",1", "1,2", "0x1", "1\u{663}", "1.0"]
        .map(str::to_owned)
        .into_iter()
        .chain([(u64::MAX - 1).to_string(), format!("{}0", u64::MAX)])
    {
        let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        assert!(taken(text.as_bytes(), &Method::GET).is_err(), "{length:?}");
        let text =
            format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: {length}\r\n\r\n");
        assert!(taken(text.as_bytes(), &Method::GET).is_err(), "1 and {length:?}");
    }
    let coded = b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert!(taken(coded, &Method::GET).is_err());
}

#[test]
fn a_head_ends_with_its_empty_line() {
    let text = "HTTP/1.1 200 OK\r\nX-A: b\nX-B: c\r\n\r\n";
    for end in 0..text.len() {
        assert!(matches!(taken(&text.as_bytes()[..end], &Method::GET), Ok(None)), "{end}");
    }
    let (mut input, mut fields) = (BytesMut::from(&*format!("{text}body")), HeaderMap::new());
    let Ok(Parsed::Head(head)) = take(&mut input, &Method::GET, &mut fields) else {
        panic!("no head")
    };
    assert_eq!(input, "body");
    assert_eq!(head.answer.headers().len(), 2);
}

#[test]
fn no_more_fields_are_taken_than_a_head_may_have() {
    let text = |count: usize| format!("HTTP/1.1 200 OK\r\n{}\r\n", "X-A: b\r\n".repeat(count));
    assert_eq!(get(&text(MOST_FIELDS)).answer.headers().len(), MOST_FIELDS);
    assert!(taken(text(MOST_FIELDS + 1).as_bytes(), &Method::GET).is_err());
    let long = format!("HTTP/1.1 200 OK\r\n{}: b\r\n\r\n", "a".repeat(70_000));
    assert!(taken(long.as_bytes(), &Method::GET).is_err());
}

proptest! {
    /// Whenever the parser finds the end, the quick look does too.
    #[test]
    fn the_end_is_seen_wherever_the_reads_end(
        text in "HTTP/1\\.1 200 OK\r?\n(X: [a-z]{0,3}\r?\n){0,3}\r?\n",
        seen in any::<prop::sample::Index>(),
    ) {
        let seen = seen.index(text.len());
        prop_assert!(matches!(taken(text.as_bytes(), &Method::GET), Ok(Some(_))));
        if matches!(taken(&text.as_bytes()[..seen], &Method::GET), Ok(None)) {
            prop_assert!(seen == 0 || may_have_ended(text.as_bytes(), seen));
        }
    }

    #[test]
    fn no_bytes_make_it_panic(
        begin in "(HTTP/1\\.[01] [0-9]{0,4}( OK)?\r\n)?",
        rest in prop::collection::vec(any::<u8>(), 0..80),
        fields in "([a-zA-Z-]{0,9}:? ?[0-9a-z,]{0,9}\r?\n){0,5}\r?\n",
    ) {
        for text in [[begin.as_bytes(), &rest].concat(), [begin, fields].concat().into_bytes()] {
            let (mut input, mut fields) = (BytesMut::from(&text[..]), HeaderMap::new());
            _ = take(&mut input, &Method::GET, &mut fields);
        }
    }
}
