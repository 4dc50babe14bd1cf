//! What opens a WebSocket: the client's request and the upstream's answer
//! (RFC 6455, 4.2.1 and 4.1).
//!
//! `websocket` is the only protocol that a connection here becomes. A request
//! that asks for another one (`h2c`, anything unknown), or asks in a way that
//! HTTP says to ignore, is the plain request that it also is, and its `Upgrade`
//! is dropped. One that does ask for a WebSocket but asks wrongly is refused,
//! since an upstream might read it otherwise.

use base64::{
    Engine as _, alphabet,
    engine::{GeneralPurpose, GeneralPurposeConfig, general_purpose},
};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version,
    header::{
        CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
        TRANSFER_ENCODING, UPGRADE,
    },
};
use ring::digest;

/// What the key is joined with (RFC 6455, 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The only version there is.
pub const VERSION: &str = "13";

/// Bits of a key beyond its 16 bytes mean nothing, and some clients set them.
const KEY: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// A client's `Sec-WebSocket-Key`. It goes to the upstream as it is, and what
/// the upstream makes of it shows that it speaks the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(HeaderValue);

/// Why a request for a WebSocket is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// To be answered 426 with `Sec-WebSocket-Version: 13`.
    #[error("the WebSocket version must be 13")]
    Version,
    #[error("Sec-WebSocket-Key must stand once and be 16 bytes in base64")]
    Key,
    #[error("a request for a WebSocket has no body")]
    Body,
}

/// Why an upstream's 101 opens no WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAnswer {
    #[error("the upstream did not switch protocols")]
    Status,
    #[error("the upstream switched to something else than a WebSocket")]
    Protocol,
    #[error("the upstream's Sec-WebSocket-Accept is not that of the key")]
    Accept,
}

/// Whether a request asks for a WebSocket, be it well or badly.
pub fn is_asked(method: &Method, version: Version, headers: &HeaderMap) -> bool {
    // The cheap question first: most requests have no such field.
    has_token(headers, &UPGRADE, "websocket")
        && has_token(headers, &CONNECTION, "upgrade")
        && method == Method::GET
        && version == Version::HTTP_11
}

/// The key of a request that asks for a WebSocket; `None` when it is a plain
/// request, whatever its `Upgrade` says.
pub fn asked(
    method: &Method,
    version: Version,
    headers: &HeaderMap,
) -> Result<Option<Key>, BadRequest> {
    if !is_asked(method, version, headers) {
        return Ok(None);
    }
    if single(headers, &SEC_WEBSOCKET_VERSION).is_none_or(|value| value.as_bytes() != b"13") {
        return Err(BadRequest::Version);
    }
    let has_length = headers.get_all(CONTENT_LENGTH).iter().any(|length| length != "0");
    if has_length || headers.contains_key(TRANSFER_ENCODING) {
        return Err(BadRequest::Body);
    }
    let key = single(headers, &SEC_WEBSOCKET_KEY).filter(|key| is_key(key.as_bytes()));
    key.map(|key| Some(Key(key.clone()))).ok_or(BadRequest::Key)
}

/// Whether this answer opens the WebSocket that was asked for with `key`.
pub fn check_answer(key: &Key, status: StatusCode, headers: &HeaderMap) -> Result<(), BadAnswer> {
    if status != StatusCode::SWITCHING_PROTOCOLS {
        return Err(BadAnswer::Status);
    }
    let switched = single(headers, &UPGRADE)
        .is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"));
    if !switched || !has_token(headers, &CONNECTION, "upgrade") {
        return Err(BadAnswer::Protocol);
    }
    let accepted = single(headers, &SEC_WEBSOCKET_ACCEPT)
        .is_some_and(|accept| accept.as_bytes() == key.accept().as_bytes());
    if accepted { Ok(()) } else { Err(BadAnswer::Accept) }
}

impl Key {
    pub fn value(&self) -> &HeaderValue {
        &self.0
    }

    /// The `Sec-WebSocket-Accept` that answers it.
    pub fn accept(&self) -> String {
        let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
        hash.update(self.0.as_bytes());
        hash.update(GUID);
        general_purpose::STANDARD.encode(hash.finish())
    }
}

fn is_key(text: &[u8]) -> bool {
    let mut bytes = [0; 18];
    text.len() == 24 && KEY.decode_slice(text, &mut bytes) == Ok(16)
}

/// The value of a field that stands once.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// Whether a field that is a list, perhaps over several lines, has this member.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers.get_all(name).iter().any(|value| {
        let mut members = value.as_bytes().split(|byte| *byte == b',');
        members.any(|member| member.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    type Fields<'a> = &'a [(&'static str, &'a str)];
    const GOOD: Fields = &[
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", SAMPLE),
    ];

    fn map(fields: Fields) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    /// [`GOOD`] with some fields taken out and others put in.
    fn but(without: &[&str], with: Fields) -> HeaderMap {
        let mut headers = map(GOOD);
        for name in without {
            headers.remove(*name);
        }
        for (name, value) in with {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    fn ask(headers: &HeaderMap) -> Result<Option<Key>, BadRequest> {
        asked(&Method::GET, Version::HTTP_11, headers)
    }

    fn sample() -> Key {
        Key(HeaderValue::from_static(SAMPLE))
    }

    #[test]
    fn the_sample_of_the_rfc_is_answered_as_there() {
        assert_eq!(ask(&map(GOOD)), Ok(Some(sample())));
        assert_eq!(sample().accept(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn fields_may_be_lists_in_any_case() {
        for (name, value) in [
            ("connection", "keep-alive, Upgrade"),
            ("connection", "UPGRADE,close"),
            ("upgrade", "WebSocket"),
            ("upgrade", "h2c, websocket"),
            ("content-length", "0"),
            ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAB=="),
        ] {
            let headers = but(&[name], &[(name, value)]);
            assert!(matches!(ask(&headers), Ok(Some(_))), "{name}: {value}");
        }
    }

    #[test]
    fn other_upgrades_are_plain_requests() {
        let settings = ("http2-settings", "AAMAAABkAAQAAP__");
        for (without, with) in [
            (&["upgrade"][..], &[][..]),
            (&["upgrade"], &[("upgrade", "h2c"), settings][..]),
            (&["upgrade"], &[("upgrade", "TLS/1.0")]),
            (&["upgrade"], &[("upgrade", "websocket/13")]),
            (&["upgrade"], &[("upgrade", "websockets")]),
            (&["upgrade"], &[("upgrade", "web socket")]),
            (&["upgrade"], &[("upgrade", "")]),
            (&["connection"], &[]),
            (&["connection"], &[("connection", "close")]),
            (&["connection"], &[("connection", "upgraded")]),
            (&["upgrade", "sec-websocket-key"], &[("upgrade", "connect-udp")]),
        ] {
            assert_eq!(ask(&but(without, with)), Ok(None), "{without:?} {with:?}");
        }
        for method in [Method::POST, Method::HEAD, Method::CONNECT, Method::OPTIONS] {
            assert_eq!(asked(&method, Version::HTTP_11, &map(GOOD)), Ok(None), "{method}");
        }
        for version in [Version::HTTP_10, Version::HTTP_2] {
            assert_eq!(asked(&Method::GET, version, &map(GOOD)), Ok(None), "{version:?}");
        }
    }

    #[test]
    fn a_request_for_a_websocket_that_is_none_is_refused() {
        let (version, key) = ("sec-websocket-version", "sec-websocket-key");
        for (without, with, fault) in [
            (&[version][..], &[][..], BadRequest::Version),
            (&[version], &[(version, "8")][..], BadRequest::Version),
            (&[version], &[(version, "13, 8")], BadRequest::Version),
            (&[], &[(version, "13")], BadRequest::Version),
            (&[key], &[], BadRequest::Key),
            (&[key], &[(key, "")], BadRequest::Key),
            (&[key], &[(key, "dGhlIHNhbXBsZQ==")], BadRequest::Key),
            (&[key], &[(key, "dGhlIHNhbXBsZSBub25jZQ")], BadRequest::Key),
            (&[key], &[(key, "dGhlIHNhbXBsZSBub25jZQE=")], BadRequest::Key),
            (&[key], &[(key, "dGhlIHNhbXBsZSBub25jZS==\t")], BadRequest::Key),
            (&[key], &[(key, "dGhl!HNhbXBsZSBub25jZQ==")], BadRequest::Key),
            (&[], &[(key, SAMPLE)], BadRequest::Key),
            (&[], &[("content-length", "5")], BadRequest::Body),
            (&[], &[("content-length", "0"), ("content-length", "1")], BadRequest::Body),
            (&[], &[("transfer-encoding", "chunked")], BadRequest::Body),
        ] {
            assert_eq!(ask(&but(without, with)), Err(fault), "{without:?} {with:?}");
        }
    }

    #[test]
    fn only_the_answer_to_this_very_key_opens_the_tunnel() {
        fn check(status: StatusCode, fields: Fields) -> Result<(), BadAnswer> {
            check_answer(&sample(), status, &map(fields))
        }

        let (up, on) = (("upgrade", "WebSocket"), ("connection", "upgrade"));
        let accept = ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let switching = StatusCode::SWITCHING_PROTOCOLS;
        assert_eq!(check(switching, &[up, on, accept]), Ok(()));
        for status in [StatusCode::OK, StatusCode::CONTINUE, StatusCode::FORBIDDEN] {
            assert_eq!(check(status, &[up, on, accept]), Err(BadAnswer::Status));
        }
        for fields in [
            &[on, accept][..],
            &[up, accept],
            &[up, up, on, accept],
            &[("upgrade", "h2c"), on, accept],
            &[("upgrade", "websocket, h2c"), on, accept],
            &[up, ("connection", "keep-alive"), accept],
        ] {
            assert_eq!(check(switching, fields), Err(BadAnswer::Protocol), "{fields:?}");
        }
        for fields in [
            &[up, on][..],
            &[up, on, accept, accept],
            &[up, on, ("sec-websocket-accept", "S3pPLMBiTxaQ9kYGzzhZRbK+xOo=")],
            &[up, on, ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo")],
            &[up, on, ("sec-websocket-accept", SAMPLE)],
        ] {
            assert_eq!(check(switching, fields), Err(BadAnswer::Accept), "{fields:?}");
        }
    }
}
