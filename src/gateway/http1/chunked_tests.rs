use proptest::prelude::*;

use super::*;

/// Data, trailers, and what was left over.
type Read = (Vec<u8>, Option<HeaderMap>, Vec<u8>);

/// Reads what comes in these pieces. `None`: it is not over.
fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Option<Read>, Fault> {
    let (mut chunked, mut input) = (Chunked::default(), BytesMut::new());
    let (mut data, mut trailers) = (vec![], None);
    for piece in pieces {
        input.extend_from_slice(piece);
        while let Some(part) = chunked.next(&mut input)? {
            match part {
                Part::Data(part) => {
                    assert!(!part.is_empty() && trailers.is_none());
                    data.extend_from_slice(&part);
                }
                Part::Trailers(fields) => assert!(trailers.replace(fields).is_none()),
            }
        }
        assert!(input.is_empty() || chunked.is_over(), "something was left unread");
    }
    Ok(chunked.is_over().then(|| (data, trailers, input.to_vec())))
}

fn whole(text: &str) -> Result<Option<Read>, Fault> {
    read([text.as_bytes()])
}

#[test]
fn chunks_are_joined_and_what_stands_beside_them_is_skipped() {
    for (text, body) in [
        ("0\r\n\r\n", ""),
        ("000\r\n\r\n", ""),
        ("3\r\nabc\r\n0\r\n\r\n", "abc"),
        ("3\r\nabc\r\n00\r\n\r\n", "abc"),
        ("0A\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
        ("a\r\n0123456789\r\n1\r\na\r\n0\r\n\r\n", "0123456789a"),
        ("3 \t\r\nabc\r\n0 \r\n\r\n", "abc"),
        ("3;x=y\r\nabc\r\n0;z\r\n\r\n", "abc"),
        ("7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n", "\r\n0\r\n\r\n"),
    ] {
        let (data, trailers, left) = whole(text).unwrap().expect("an end");
        assert_eq!((&data[..], left.len()), (body.as_bytes(), 0), "{text:?}");
        assert_eq!(trailers, None, "{text:?}");
    }
}

#[test]
fn what_is_no_chunk_is_refused() {
    for text in [
        "\r\n",
        ";x\r\n\r\n",
        " 3\r\nabc\r\n0\r\n\r\n",
        "-1\r\n",
        "+1\r\n",
        "0x1\r\n",
        "g\r\n",
        "1 1\r\n",
        "3\nabc\n0\n\n",
        "3\r\r\nabc",
        "3;x\nabc\r\n",
        "3;x=\ry\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "3\r\nabc\r0\r\n\r\n",
        "3\r\nabc0\r\n\r\n",
        "3\r\nabc\r\n\r\n",
        "10000000000000000\r\n",
        "0\r\nno colon\r\n\r\n",
        "0\r\nX-A: b\rX-B: c\r\n\r\n",
        "0\r\nX-A: b\nX-B: c\r\n\r\n",
        "0\r\nX A: b\r\n\r\n",
        "0\r\nX-A: b\0\r\n\r\n",
        "0\r\n folded\r\n\r\n",
        "0\r\n\rX",
    ] {
        assert!(whole(text).is_err(), "{text:?}: {:?}", whole(text));
    }
}

#[test]
fn an_end_is_none_before_its_last_byte() {
    for text in ["3\r\nabc\r\n0\r\n\r\n", "3;x\r\nabc\r\n0\r\nX-A: b\r\nX-A: c\r\n\r\n"] {
        for end in 0..text.len() {
            assert!(matches!(whole(&text[..end]), Ok(None)), "{:?}", &text[..end]);
        }
        let (data, trailers, left) = whole(&format!("{text}more")).unwrap().unwrap();
        assert_eq!((&data[..], &left[..]), (&b"abc"[..], &b"more"[..]));
        let values = trailers.map(|fields| fields.get_all("x-a").iter().count());
        assert_eq!(values.unwrap_or_default(), text.matches("X-A").count());
    }
}

#[test]
fn the_last_data_say_that_they_are_the_last() {
    let mut chunked = Chunked::default();
    let mut input = BytesMut::from("3\r\nabc\r\n0\r\n\r\n");
    assert!(matches!(chunked.next(&mut input), Ok(Some(Part::Data(data))) if data == "abc"));
    assert!(chunked.is_over() && input.is_empty());
}

#[test]
fn what_stands_beside_the_data_is_bounded() {
    let extension = |size: usize| format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(size));
    assert!(matches!(whole(&extension(MOST_ASIDE - 1)), Ok(Some(_))));
    assert!(whole(&extension(MOST_ASIDE)).is_err());
    // All of them together.
    let chunks = format!("1;{}\r\na\r\n", "x".repeat(1000)).repeat(20);
    assert!(whole(&format!("{chunks}0\r\n\r\n")).is_err());
    let trailers = |count: usize, size: usize| {
        let value = "x".repeat(size);
        let lines = (0..count).fold(String::new(), |all, n| format!("{all}X-{n}: {value}\r\n"));
        whole(&format!("0\r\n{lines}\r\n"))
    };
    assert!(matches!(trailers(MOST_FIELDS, 1), Ok(Some(_))));
    assert!(trailers(MOST_FIELDS + 1, 1).is_err());
    assert!(matches!(trailers(1, MOST_ASIDE - 10), Ok(Some(_))));
    assert!(trailers(1, MOST_ASIDE).is_err());
    assert!(trailers(50, 1000).is_err());
    // One that never ends is not kept either.
    assert!(whole(&format!("0\r\nX: {}", "x".repeat(2 * MOST_ASIDE))).is_err());
}

/// A body in chunks, and what it holds.
fn chunks() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let chunk = (prop::collection::vec(any::<u8>(), 1..40), "(;[a-z=\"]{0,5})?", "0{0,3}");
    let trailers = "(X-[a-z]{1,5}: [a-z]{0,9}\r\n){0,3}";
    (prop::collection::vec(chunk, 0..6), trailers).prop_map(|(chunks, trailers)| {
        let (mut wire, mut data) = (vec![], vec![]);
        for (part, extension, zeros) in chunks {
            wire.extend_from_slice(format!("{zeros}{:x}{extension}\r\n", part.len()).as_bytes());
            wire.extend_from_slice(&part);
            wire.extend_from_slice(b"\r\n");
            data.extend_from_slice(&part);
        }
        wire.extend_from_slice(format!("0\r\n{trailers}\r\n").as_bytes());
        (wire, data)
    })
}

/// The same bytes cut at these places.
fn cut<'a>(wire: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<_> = cuts.iter().map(|cut| cut.index(wire.len() + 1)).collect();
    at.extend([0, wire.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| &wire[pair[0]..pair[1]]).collect()
}

proptest! {
    #[test]
    fn however_it_is_cut_it_is_the_same_body(
        (wire, data) in chunks(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let (read_at_once, trailers, left) = read([&wire[..]]).unwrap().unwrap();
        prop_assert_eq!(&read_at_once, &data);
        prop_assert!(left.is_empty());
        let (read, same, left) = read(cut(&wire, &cuts)).unwrap().unwrap();
        prop_assert_eq!((read, same, left), (data, trailers, vec![]));
    }

    #[test]
    fn whatever_comes_is_the_same_in_one_piece_and_in_many(
        wire in "[0-3a;x:\r\n \t]{0,60}",
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let (one, many) = (whole(&wire), read(cut(wire.as_bytes(), &cuts)));
        match (one, many) {
            (Ok(one), Ok(many)) => {
                // What comes after the end is left, in one piece or in part.
                prop_assert_eq!(one.map(|it| (it.0, it.1)), many.map(|it| (it.0, it.1)));
            }
            (one, many) => prop_assert!(one.is_err() && many.is_err()),
        }
    }

    #[test]
    fn no_bytes_make_it_panic(wire in prop::collection::vec(any::<u8>(), 0..80)) {
        _ = read([&wire[..]]);
    }
}
