//! W3C Trace Context: how programs tell each other which trace a request is of.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};
use rand::Rng;

pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

const SAMPLED: u8 = 1;
/// `00-<32>-<16>-<2>`.
const LENGTH: usize = 55;
/// Members of a list, and its bytes. The specification wants 512 bytes passed on.
const MOST_MEMBERS: usize = 32;
const MOST_BYTES: usize = 1024;

/// Not all zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId(pub [u8; 16]);

/// Not all zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpanId(pub [u8; 8]);

/// What whoever sent a request says of its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    pub trace: TraceId,
    pub span: SpanId,
    pub sampled: bool,
}

impl TraceId {
    pub fn random() -> Self {
        let mut rng = rand::rng();
        loop {
            let id = (u128::from(rng.next_u64()) << 64) | u128::from(rng.next_u64());
            if id != 0 {
                return Self(id.to_be_bytes());
            }
        }
    }

    /// Whether a part of all traces so large has this one among it; the same for
    /// every program that asks so.
    pub fn is_within(self, ratio: f64) -> bool {
        let bits = u128::from_be_bytes(self.0) & u128::from(u64::MAX);
        is_below(u64::try_from(bits).unwrap_or_default(), ratio)
    }
}

/// Whether it is among this part of all numbers. The lowest bit does not count,
/// as elsewhere.
pub fn is_below(number: u64, ratio: f64) -> bool {
    if ratio >= 1.0 {
        return true;
    }
    #[expect(clippy::cast_precision_loss, reason = "a part of all traces is no exact number")]
    let (number, all) = ((number >> 1) as f64, (1_u64 << 63) as f64);
    number < ratio * all
}

impl SpanId {
    pub fn random() -> Self {
        let mut rng = rand::rng();
        loop {
            let id = rng.next_u64();
            if id != 0 {
                return Self(id.to_be_bytes());
            }
        }
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl Parent {
    /// `None` where there is none, more than one, or one that is not valid.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut all = headers.get_all(TRACEPARENT).iter();
        let (first, second) = (all.next()?, all.next());
        if second.is_some() { None } else { Self::parse(first.as_bytes()) }
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let (text, rest) = text.split_at_checked(LENGTH)?;
        let later = match &text[..2] {
            b"00" => false,
            b"ff" => return None,
            _ => true,
        };
        // Versions to come may say more behind it.
        let ends = rest.is_empty() || (later && rest[0] == b'-');
        let dashes = [2, 35, 52].iter().all(|at| text[*at] == b'-');
        let lower = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-');
        if !(ends && dashes && text.iter().all(lower)) {
            return None;
        }
        let (mut version, mut trace, mut span, mut flags) = ([0], [0; 16], [0; 8], [0]);
        hex::decode_to_slice(&text[..2], &mut version).ok()?;
        hex::decode_to_slice(&text[3..35], &mut trace).ok()?;
        hex::decode_to_slice(&text[36..52], &mut span).ok()?;
        hex::decode_to_slice(&text[53..55], &mut flags).ok()?;
        let nil = trace == [0; 16] || span == [0; 8];
        let sampled = flags[0] & SAMPLED != 0;
        (!nil).then_some(Self { trace: TraceId(trace), span: SpanId(span), sampled })
    }

    /// As it is told to whoever is asked.
    pub fn header(&self) -> HeaderValue {
        let text = format!("00-{}-{}-{:02x}", self.trace, self.span, u8::from(self.sampled));
        HeaderValue::try_from(text).expect("digits and dashes")
    }
}

/// Whether `tracestate` may be passed on: a list of members that are what they
/// must be, and not too many.
pub fn is_state_valid(headers: &HeaderMap) -> bool {
    let (mut members, mut bytes) = (0, 0);
    for value in headers.get_all(TRACESTATE) {
        bytes += value.len();
        for member in value.as_bytes().split(|byte| *byte == b',') {
            let member = member.trim_ascii();
            if member.is_empty() {
                continue;
            }
            members += 1;
            if !is_member(member) {
                return false;
            }
        }
    }
    members <= MOST_MEMBERS && bytes <= MOST_BYTES
}

/// `key=value` (Trace Context, 3.3.1.3).
fn is_member(member: &[u8]) -> bool {
    let Some(at) = member.iter().position(|byte| *byte == b'=') else { return false };
    let (key, value) = (&member[..at], &member[at + 1..]);
    let begins = matches!(key.first(), Some(b'a'..=b'z' | b'0'..=b'9'));
    let of_key =
        |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@');
    let of_value = |byte: &u8| matches!(byte, 0x20..=0x7e) && !matches!(byte, b',' | b'=');
    begins
        && key.len() <= 256
        && key.iter().all(of_key)
        && (1..=256).contains(&value.len())
        && value.iter().all(of_value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    #[test]
    fn a_parent_is_taken_if_it_is_one() {
        for (text, sampled) in [
            (format!("00-{TRACE}-{SPAN}-01"), true),
            (format!("00-{TRACE}-{SPAN}-00"), false),
            (format!("00-{TRACE}-{SPAN}-fe"), false),
            (format!("00-{TRACE}-{SPAN}-03"), true),
            (format!("cc-{TRACE}-{SPAN}-01"), true),
            (format!("cc-{TRACE}-{SPAN}-01-what-comes"), true),
        ] {
            let parent = Parent::parse(text.as_bytes()).unwrap();
            assert_eq!(parent.trace.to_string(), TRACE);
            assert_eq!(parent.span.to_string(), SPAN);
            assert_eq!(parent.sampled, sampled, "{text}");
            let told = Parent::parse(parent.header().as_bytes());
            assert_eq!(told, Some(parent));
        }
        let upper = TRACE.to_uppercase();
        for text in [
            String::new(),
            "nonsense".to_owned(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("cc-{TRACE}-{SPAN}-01x"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("0x-{TRACE}-{SPAN}-01"),
            format!("00-{upper}-{SPAN}-01"),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{TRACE}_{SPAN}-01"),
            format!("00-{}g-{SPAN}-01", &TRACE[1..]),
            format!("00--{}-{SPAN}-01", &TRACE[1..]),
            format!("00-{TRACE}-{SPAN}-0-"),
        ] {
            assert_eq!(Parent::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_state_is_a_short_list_of_members() {
        let valid = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(TRACESTATE, HeaderValue::from_str(value).unwrap());
            }
            is_state_valid(&headers)
        };
        let many = (0..33).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        assert!(valid(&[]) && valid(&["a=1"]) && valid(&["a=1, b@c=x y ,", "d=2"]));
        for bad in [&["a"][..], &["=1"], &["a="], &["A=1"], &["a=1", "b"], &[&many], &["a=b=c"]] {
            assert!(!valid(bad), "{bad:?}");
        }
        assert!(!valid(&[&format!("a={}", "x".repeat(257))]));
    }

    #[test]
    fn a_ratio_is_that_part_of_all_traces() {
        let kept = |ratio| (0..4000).filter(|_| TraceId::random().is_within(ratio)).count();
        assert_eq!((kept(0.0), kept(1.0)), (0, 4000));
        assert!((800..1200).contains(&kept(0.25)), "about a quarter");
    }
}
