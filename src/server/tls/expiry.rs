//! When a certificate expires: a walk to one field of its DER (RFC 5280, 4.1).
//!
//! Nothing is verified here; it is for metrics and logs.

use chrono::NaiveDate;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// `notAfter`, seconds since 1970; `None` for what is not a usual certificate.
pub fn of(certificate: &[u8]) -> Option<i64> {
    let (certificate, _) = take(certificate, SEQUENCE)?;
    let (signed, _) = take(certificate, SEQUENCE)?;
    let after_version = take(signed, VERSION).map_or(signed, |(_, rest)| rest);
    let (_serial, rest) = take(after_version, INTEGER)?;
    let (_algorithm, rest) = take(rest, SEQUENCE)?;
    let (_issuer, rest) = take(rest, SEQUENCE)?;
    let (validity, _) = take(rest, SEQUENCE)?;
    let (_, _, not_after) = any(validity)?;
    let (tag, text, _) = any(not_after)?;
    time(tag, std::str::from_utf8(text).ok()?)
}

/// `YYMMDDHHMMSSZ` of the years 1950 to 2049, or the same with four digits.
fn time(tag: u8, text: &str) -> Option<i64> {
    let digits = text.strip_suffix('Z')?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, rest) = match tag {
        UTC_TIME if digits.len() == 12 => {
            let year: i32 = digits[..2].parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, &digits[2..])
        }
        GENERALIZED_TIME if digits.len() == 14 => (digits[..4].parse().ok()?, &digits[4..]),
        _ => return None,
    };
    let part = |at: usize| rest[at..at + 2].parse::<u32>().ok();
    let day = NaiveDate::from_ymd_opt(year, part(0)?, part(2)?)?;
    Some(day.and_hms_opt(part(4)?, part(6)?, part(8)?)?.and_utc().timestamp())
}

/// The content of the element with this tag that `der` begins with, and what
/// follows it.
fn take(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    any(der).and_then(|(found, content, rest)| (found == tag).then_some((content, rest)))
}

/// Tag and content of the first element, and what follows it.
fn any(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // More than four bytes of length are no certificate.
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(not_after: (i32, u8, u8)) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        let (year, month, day) = not_after;
        params.not_before = date_time_ymd(1999, 1, 1);
        params.not_after = date_time_ymd(year, month, day);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn the_end_of_a_certificate_is_found_in_both_forms() {
        for (day, at) in [
            ((2026, 11, 23), 1_795_392_000),
            ((2000, 2, 29), 951_782_400),
            ((2049, 12, 31), 2_524_521_600),
            // From here on with four digits.
            ((2050, 1, 1), 2_524_608_000),
            ((4096, 1, 1), 67_090_118_400),
        ] {
            assert_eq!(of(&certificate(day)), Some(at), "{day:?}");
        }
    }

    #[test]
    fn what_is_cut_or_no_certificate_has_none() {
        let whole = certificate((2026, 11, 23));
        for length in 0..whole.len() {
            assert_eq!(of(&whole[..length]), None, "{length}");
        }
        for bytes in [&b""[..], b"0", b"0\x84\xff\xff\xff\xff", b"0\x80", &[0x30; 64]] {
            assert_eq!(of(bytes), None, "{bytes:?}");
        }
        for (tag, text) in [
            (UTC_TIME, "2611230000Z"),
            (UTC_TIME, "261323000000Z"),
            (UTC_TIME, "26112300000\u{e9}"),
            (GENERALIZED_TIME, "261123000000Z"),
            (0x16, "261123000000Z"),
        ] {
            assert_eq!(time(tag, text), None, "{text}");
        }
    }
}
