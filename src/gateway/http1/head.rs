//! The head of an answer.
//!
//! Parsed by httparse, as hyper does, and judged as there (RFC 9112, 6.3). What it
//! says of the body's length twice is settled later ([`crate::gateway::framing`]).

use std::mem::{self, MaybeUninit};

use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING},
};
use httparse::ParserConfig;
use hyper::ext::ReasonPhrase;

use super::{Fault, body::Decoder, chunked::Chunked};

/// Fields of one head.
pub(super) const MOST_FIELDS: usize = 100;
const USUAL_FIELDS: usize = 24;
/// Where two lengths begin to be none, as hyper counts.
const MOST_LENGTH: u64 = u64::MAX - 2;

/// What the beginning of the input is.
pub(super) enum Parsed {
    Partial,
    /// An answer that another one follows.
    Interim,
    Head(Head),
}

pub(super) struct Head {
    pub answer: Response<()>,
    pub body: Decoder,
    /// Whether the connection may be used again.
    pub keep_alive: bool,
}

/// Where a field lies in its head.
struct Place {
    name: (usize, usize),
    value: (usize, usize),
}

/// What a head says of its body's length.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Length {
    Unsaid,
    Said(u64),
    /// Nothing that could be understood in one way.
    Wrong,
}

/// What follows the status line.
struct Lines {
    status: StatusCode,
    version: Version,
    reason: Option<Bytes>,
    /// Bytes of the head.
    len: usize,
    places: Vec<Place>,
}

/// Takes the head of an answer to a request with this method off `input`. Its
/// fields are put into the memory of `fields`, which must be empty.
pub(super) fn take(
    input: &mut BytesMut,
    method: &Method,
    fields: &mut HeaderMap,
) -> Result<Parsed, Fault> {
    let Some(lines) = parse(input)? else { return Ok(Parsed::Partial) };
    let Lines { status, version, reason, len, places } = lines;
    let text = input.split_to(len).freeze();
    if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(Parsed::Interim);
    }
    let (mut length, mut coding, mut closes) = (Length::Unsaid, None, version != Version::HTTP_11);
    fields.reserve(places.len());
    for Place { name, value } in places {
        let name = HeaderName::from_bytes(&text[name.0..name.1])
            .map_err(|_| Fault::Malformed("a field has no name"))?;
        let value = HeaderValue::from_maybe_shared(text.slice(value.0..value.1))
            .map_err(|_| Fault::Malformed("a field has no value"))?;
        if name == CONTENT_LENGTH {
            length = length.and(value.as_bytes());
        } else if name == CONNECTION {
            closes |= has_close(value.as_bytes());
        } else if name == TRANSFER_ENCODING {
            coding = Some(is_chunked(value.as_bytes()));
        }
        fields.append(name, value);
    }
    let body = match (coding, length) {
        _ if status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED => {
            Decoder::NOTHING
        }
        _ if *method == Method::HEAD => Decoder::NOTHING,
        // What follows is no body, and no further answer either.
        _ if status == StatusCode::SWITCHING_PROTOCOLS
            || (*method == Method::CONNECT && status.is_success()) =>
        {
            closes = true;
            Decoder::NOTHING
        }
        (Some(_), _) if version != Version::HTTP_11 => {
            return Err(Fault::Malformed("HTTP/1.0 knows no codings of the transfer"));
        }
        (Some(true), _) => Decoder::Chunked(Chunked::default()),
        (Some(false), _) | (None, Length::Unsaid) => Decoder::Closing,
        (None, Length::Said(length)) => Decoder::Length(length),
        (None, Length::Wrong) => return Err(Fault::Malformed("the length is none")),
    };
    let mut answer = Response::new(());
    *answer.status_mut() = status;
    *answer.version_mut() = version;
    *answer.headers_mut() = mem::take(fields);
    if let Some(reason) = reason.and_then(|reason| ReasonPhrase::try_from(reason).ok()) {
        answer.extensions_mut().insert(reason);
    }
    Ok(Parsed::Head(Head { answer, body, keep_alive: !closes }))
}

/// `None`: it is not all there.
fn parse(input: &[u8]) -> Result<Option<Lines>, Fault> {
    // The compiler fills room for fields with zeros, so most are given little.
    match parse_within::<USUAL_FIELDS>(input) {
        Err(Fault::Unparsed(httparse::Error::TooManyHeaders)) => parse_within::<MOST_FIELDS>(input),
        parsed => parsed,
    }
}

fn parse_within<const FIELDS: usize>(input: &[u8]) -> Result<Option<Lines>, Fault> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS];
    let mut answer = httparse::Response::new(&mut []);
    let parser = ParserConfig::default();
    let parsed = parser.parse_response_with_uninit_headers(&mut answer, input, &mut fields)?;
    let httparse::Status::Complete(len) = parsed else { return Ok(None) };
    let place = |part: &[u8]| {
        let begin = part.as_ptr().addr() - input.as_ptr().addr();
        (begin, begin + part.len())
    };
    let places = answer.headers.iter().map(|field| {
        let (name, value) = (place(field.name.as_bytes()), place(field.value));
        Place { name, value }
    });
    let places = places.collect();
    let status = StatusCode::from_u16(answer.code.unwrap_or_default())
        .map_err(|_| Fault::Malformed("the status is none"))?;
    let version = if answer.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    let reason = answer.reason.filter(|reason| Some(*reason) != status.canonical_reason());
    let reason = reason.map(|reason| Bytes::copy_from_slice(reason.as_bytes()));
    Ok(Some(Lines { status, version, reason, len, places }))
}

/// Whether a head may have come to its end after `seen` bytes that did not hold
/// it: parsing anew after each byte of a long one would take its square.
pub(super) fn may_have_ended(input: &[u8], seen: usize) -> bool {
    let unseen = &input[seen.saturating_sub(3)..];
    unseen.windows(2).any(|pair| pair == b"\n\n") || unseen.windows(3).any(|it| it == b"\n\r\n")
}

impl Length {
    /// One more field, which may be a list (RFC 9110, 8.6): all must agree.
    fn and(self, value: &[u8]) -> Self {
        let members = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        members.fold(self, |so_far, member| match (so_far, number(member)) {
            (Self::Unsaid, Some(length)) => Self::Said(length),
            (Self::Said(known), Some(length)) if known == length => so_far,
            _ => Self::Wrong,
        })
    }
}

fn number(text: &[u8]) -> Option<u64> {
    let number = text.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    });
    number.filter(|number| !text.is_empty() && *number <= MOST_LENGTH)
}

fn has_close(value: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|it| it.trim_ascii().eq_ignore_ascii_case(b"close"))
}

/// Whether the last coding is `chunked`, as it must be.
fn is_chunked(value: &[u8]) -> bool {
    let last = value.rsplit(|byte| *byte == b',').next().unwrap_or_default();
    last.trim_ascii().eq_ignore_ascii_case(b"chunked")
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
