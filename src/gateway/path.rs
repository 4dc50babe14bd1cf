//! One canonical form of a request's path.
//!
//! Route, policy, log and forwarding all use the form made here, so no two of
//! them can disagree about what a path means (the class of Traefik
//! CVE-2025-66490). What a second parser might read differently is refused, not
//! repaired:
//!
//! - an encoded `/`, `\`, NUL, `;`, `?` or `#`, and an encoded percent sign
//!   before two hexadecimal digits, which a second decoding would turn into
//!   something else;
//! - a raw backslash, a dot segment in any spelling (also with a `;parameter`,
//!   which some servers cut off first), an empty segment (`//`; collapsing it
//!   would name another resource for servers that keep it);
//! - control characters, broken escapes, and bytes that are not UTF-8 (overlong
//!   forms are not).
//!
//! Everything else has exactly one form: unreserved characters stand for
//! themselves, all others that are not path characters (RFC 3986, 3.3) are
//! escaped with upper-case digits, and reserved characters stay as they came,
//! since `%3A` and `:` are not the same by RFC 3986, 6.2.2.2.

use std::{borrow::Cow, fmt::Write};

/// Why a path has no single meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmbiguousPath {
    #[error("the path does not begin with a slash")]
    NotAbsolute,
    #[error("the path has an incomplete or invalid escape")]
    BrokenEscape,
    #[error("the path encodes a character that separates parts of a URL")]
    EncodedSeparator,
    #[error("the path is encoded twice")]
    DoubleEncoding,
    #[error("the path contains a backslash")]
    Backslash,
    #[error("the path contains a control character")]
    Control,
    #[error("the path is not UTF-8")]
    NotUtf8,
    #[error("the path contains a dot segment")]
    DotSegment,
    #[error("the path contains an empty segment")]
    EmptySegment,
}

/// The canonical form of a raw path (without query). Borrowed when it is
/// canonical already; applying it twice changes nothing more.
pub fn canonical(raw: &str) -> Result<Cow<'_, str>, AmbiguousPath> {
    if !raw.starts_with('/') {
        return Err(AmbiguousPath::NotAbsolute);
    }
    let form = if raw.bytes().all(is_path_byte) { Cow::Borrowed(raw) } else { rewritten(raw)? };
    check_segments(&form)?;
    Ok(form)
}

/// The path below `prefix`, beginning with a slash; `None` when `path` lies
/// elsewhere. `/api/proxyx` is not below `/api/proxy`.
pub fn below<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    match path.strip_prefix(prefix)? {
        "" => Some("/"),
        rest if rest.starts_with('/') => Some(rest),
        _ => None,
    }
}

fn check_segments(path: &str) -> Result<(), AmbiguousPath> {
    let bytes = path.as_bytes();
    for (at, pair) in bytes.windows(2).enumerate() {
        match pair {
            b"//" => return Err(AmbiguousPath::EmptySegment),
            b"/." if is_dot_segment(&bytes[at + 1..]) => return Err(AmbiguousPath::DotSegment),
            _ => {}
        }
    }
    Ok(())
}

/// Whether a segment that starts here is `.` or `..`, parameters cut off.
fn is_dot_segment(rest: &[u8]) -> bool {
    let rest = rest.strip_prefix(b".").unwrap_or(rest);
    let rest = rest.strip_prefix(b".").unwrap_or(rest);
    matches!(rest.first(), None | Some(b'/' | b';'))
}

fn rewritten(raw: &str) -> Result<Cow<'_, str>, AmbiguousPath> {
    let mut text = String::with_capacity(raw.len() + 16);
    let mut decoded = Vec::with_capacity(raw.len());
    let mut bytes = raw.as_bytes();
    while let Some((&first, rest)) = bytes.split_first() {
        let escaped = first == b'%';
        let byte = if escaped {
            bytes = rest.get(2..).ok_or(AmbiguousPath::BrokenEscape)?;
            decode(rest)?
        } else {
            bytes = rest;
            first
        };
        match byte {
            b'\\' => return Err(AmbiguousPath::Backslash),
            // Cannot come from a parsed URI; what they would begin is no path.
            b'?' | b'#' => return Err(AmbiguousPath::EncodedSeparator),
            0..=0x1f | 0x7f => return Err(AmbiguousPath::Control),
            _ => {}
        }
        decoded.push(byte);
        if is_unreserved(byte) || (!escaped && is_path_byte(byte)) {
            text.push(char::from(byte));
        } else {
            write!(text, "%{byte:02X}").expect("writing to a string");
        }
    }
    let decoded = str::from_utf8(&decoded).map_err(|_| AmbiguousPath::NotUtf8)?;
    if decoded.chars().any(char::is_control) {
        return Err(AmbiguousPath::Control);
    }
    // Looked for in the result: the digits may have been escaped themselves.
    if is_encoded_twice(&text) {
        return Err(AmbiguousPath::DoubleEncoding);
    }
    Ok(Cow::Owned(text))
}

/// Whether an escaped percent sign stands before two hexadecimal digits.
fn is_encoded_twice(text: &str) -> bool {
    text.match_indices("%25").any(|(at, escape)| {
        let next = text.as_bytes().get(at + escape.len()..at + escape.len() + 2);
        next.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}

/// The byte that `%` and the first two of `digits` stand for.
fn decode(digits: &[u8]) -> Result<u8, AmbiguousPath> {
    let high = hex_digit(digits[0]).ok_or(AmbiguousPath::BrokenEscape)?;
    let low = hex_digit(digits[1]).ok_or(AmbiguousPath::BrokenEscape)?;
    match high << 4 | low {
        b'/' | b'\\' | 0 | b';' | b'?' | b'#' => Err(AmbiguousPath::EncodedSeparator),
        byte => Ok(byte),
    }
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// `pchar` of RFC 3986 without escapes, and the slash.
const fn is_path_byte(byte: u8) -> bool {
    const TABLE: [bool; 256] = {
        let mut table = [false; 256];
        let mut at = 0;
        while at < 256 {
            #[expect(clippy::cast_possible_truncation, reason = "below 256")]
            let byte = at as u8;
            let other = matches!(
                byte,
                b'/' | b'!' | b'$' | b'&'..=b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@'
            );
            table[at] = is_unreserved(byte) || other;
            at += 1;
        }
        table
    };
    TABLE[byte as usize]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_paths_are_borrowed() {
        for path in ["/", "/a", "/a/b.c/~d_e-f/", "/.well-known/x", "/...", "/a:b@c;v=1,2"] {
            assert!(matches!(canonical(path), Ok(Cow::Borrowed(form)) if form == path), "{path}");
        }
    }

    #[test]
    fn equal_spellings_become_one() {
        for (raw, form) in [
            ("/%41%7a%2D%5F%7E", "/Az-_~"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/café", "/caf%C3%A9"),
            ("/a%20b", "/a%20b"),
            ("/{x}|^`\"<>", "/%7Bx%7D%7C%5E%60%22%3C%3E"),
            ("/100%25", "/100%25"),
            ("/100%25z1", "/100%25z1"),
            ("/a%3ab:c", "/a%3Ab:c"),
            ("/a%2Eb", "/a.b"),
        ] {
            assert_eq!(canonical(raw).as_deref(), Ok(form), "{raw}");
        }
    }

    /// Every hostile piece at every place, in both cases of its digits.
    #[test]
    fn hostile_pieces_are_refused_wherever_they_stand() {
        let pieces = [
            "%2f",
            "%5c",
            "%00",
            "%3b",
            "%3f",
            "%23",
            "\\",
            "%252f",
            "%252e",
            "%25%32%65",
            "%25%32e",
            "%252%65",
            "%255c",
            "%2500",
            "%253b",
            "%253f",
            "%2523",
            "%2525",
            "%25252f",
            "%0a",
            "%0d",
            "%09",
            "%1f",
            "%7f",
            "%",
            "%4",
            "%g1",
            "%1g",
            "%%",
            "%u002f",
            "%c0%af",
            "%c0%ae",
            "%e0%80%af",
            "%f0%80%80%af",
            "%ff",
            "%c3",
            "%ed%a0%80",
            "%c2%80",
            "\u{85}",
            "\t",
            "\u{7f}",
        ];
        let segments =
            [".", "..", "%2e", "%2e%2e", ".%2e", "%2E.", "..;", "..;a=b", ".;x", "%2e%2e;", ""];
        let mut cases = 0;
        let mut refuse = |path: String| {
            for path in [path.to_uppercase(), path] {
                assert!(canonical(&path).is_err(), "{path:?}");
                cases += 1;
            }
        };
        for piece in pieces {
            for place in ["/{}", "/a{}", "/{}a/b", "/a/{}/b", "/api/v1/proxy/{}", "/a/b{}"] {
                // A lone escape followed by digits would be a good one.
                if !(piece.starts_with('%') && piece.len() < 3 && place.contains("}a")) {
                    refuse(place.replace("{}", piece));
                }
            }
        }
        for segment in segments {
            for place in ["/a/{}/b", "/{}/b", "/a/{}/", "/api/v1/proxy/{}/keys"] {
                refuse(place.replace("{}", segment));
            }
            if !segment.is_empty() {
                refuse(format!("/a/{segment}"));
                refuse(format!("/{segment}"));
            }
        }
        for other in ["", "*", "a", "a/b", "%2fa", "//", "//a", "/a//", "///"] {
            refuse(other.to_owned());
        }
        assert!(cases >= 300, "{cases}");
    }

    #[test]
    fn a_prefix_ends_at_a_segment() {
        assert_eq!(below("/api/proxy", "/api/proxy"), Some("/"));
        assert_eq!(below("/api/proxy/", "/api/proxy"), Some("/"));
        assert_eq!(below("/api/proxy/a/b", "/api/proxy"), Some("/a/b"));
        assert_eq!(below("/api/proxyx", "/api/proxy"), None);
        assert_eq!(below("/api", "/api/proxy"), None);
    }

    proptest! {
        #[test]
        fn twice_is_once(raw in "/(\\PC|%[0-9a-fA-F]{2}|%25|%(3[0-9]|6[1-6])|[a-f0-9./%;]){0,24}") {
            if let Ok(once) = canonical(&raw) {
                prop_assert_eq!(canonical(&once), Ok(Cow::Borrowed(&*once)));
                prop_assert!(http::uri::PathAndQuery::try_from(&*once).is_ok());
            }
        }

        #[test]
        fn nothing_panics(raw in "\\PC*") {
            let _ = canonical(&raw);
        }

        /// Decoding the canonical form once more reveals no other structure.
        #[test]
        fn a_second_decoding_finds_the_same_segments(raw in "/([a-c./]|%[0-9a-fA-F]{2}){0,16}") {
            if let Ok(form) = canonical(&raw) {
                let mut bytes = Vec::new();
                let mut rest = form.as_bytes();
                while let Some((&first, after)) = rest.split_first() {
                    if first == b'%' {
                        bytes.push(hex_digit(after[0]).unwrap() << 4 | hex_digit(after[1]).unwrap());
                        rest = &after[2..];
                    } else {
                        bytes.push(first);
                        rest = after;
                    }
                }
                let decoded = String::from_utf8(bytes).unwrap();
                prop_assert_eq!(decoded.matches('/').count(), form.matches('/').count());
                prop_assert!(!decoded.split('/').any(|s| s == "." || s == ".."));
                prop_assert!(!decoded.contains(['\\', ';', '?', '#', '\0']));
            }
        }
    }
}
