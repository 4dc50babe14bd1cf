//! What an answer says about its length, in the one form that we understood.
//!
//! hyper takes a length that stands several times, or in a list, if all agree
//! (RFC 9110, 8.6), and a length beside chunks, which hold then (RFC 9112, 6.3).
//! The next reader may not, so it is told once. Codings of the transfer beside
//! `chunked` would have to be undone: hyper does not, and hands on what is
//! encoded as if it were not.

use http::{HeaderMap, HeaderValue, StatusCode, header};

/// Brings what is said of the length to one number, or to nothing. Whether that
/// can be done: else nothing may be passed on. Touches nothing where all is as
/// usual.
pub fn settle(status: StatusCode, headers: &mut HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        let chunked = coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
        let understood = chunked && codings.next().is_none();
        headers.remove(header::CONTENT_LENGTH);
        return understood;
    }
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = values.next() else { return true };
    if status == StatusCode::NO_CONTENT {
        // There is no body that it could be the length of (RFC 9110, 8.6).
        headers.remove(header::CONTENT_LENGTH);
        return true;
    }
    if values.next().is_none() && is_number(first.as_bytes()) {
        return true;
    }
    let all = headers.get_all(header::CONTENT_LENGTH).iter();
    let mut all = all.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let first = all.next().unwrap_or_default().trim_ascii();
    let agree = is_number(first) && all.all(|other| other.trim_ascii() == first);
    if agree {
        let value = HeaderValue::from_bytes(first).expect("digits");
        headers.insert(header::CONTENT_LENGTH, value);
    }
    agree
}

fn is_number(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_one_number_or_nothing_is_passed_on() {
        for (values, expected) in [
            (&[][..], Some(&[][..])),
            (&["12"], Some(&["12"])),
            (&["12", "12"], Some(&["12"])),
            (&["12, 12"], Some(&["12"])),
            (&["12 ,12", "12"], Some(&["12"])),
            (&["12", "13"], None),
            (&["12, 13"], None),
            (&["12,"], None),
            (&[""], None),
            (&["+12"], None),
            (&["12", "012"], None),
            (&["0x12"], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::CONTENT_LENGTH, value.parse().unwrap());
            }
            let settled = settle(StatusCode::OK, &mut headers);
            let left: Vec<_> = headers.get_all(header::CONTENT_LENGTH).iter().collect();
            assert_eq!(settled, expected.is_some(), "{values:?}");
            if let Some(expected) = expected {
                assert_eq!(left, expected, "{values:?}");
            }
            assert!(settle(StatusCode::NO_CONTENT, &mut headers) && headers.is_empty());
        }
    }

    #[test]
    fn of_codings_only_chunked_is_understood_and_it_is_the_length() {
        for (values, understood) in [
            (&["chunked"][..], true),
            (&["Chunked "], true),
            (&["gzip"], false),
            (&["gzip, chunked"], false),
            (&["chunked, chunked"], false),
            (&["chunked", "chunked"], false),
            (&["identity"], false),
            (&[""], false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_LENGTH, 3.into());
            for value in values {
                headers.append(header::TRANSFER_ENCODING, value.parse().unwrap());
            }
            assert_eq!(settle(StatusCode::OK, &mut headers), understood, "{values:?}");
            assert!(!headers.contains_key(header::CONTENT_LENGTH));
        }
    }
}
