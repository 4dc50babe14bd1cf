//! Refuses requests that two servers could read differently.
//!
//! hyper has already refused what it cannot frame: differing or malformed
//! lengths, a transfer coding that does not end in `chunked`, `Transfer-Encoding`
//! in HTTP/1.0, whitespace before a colon, folded lines, NUL. What it tolerates
//! and a server behind the gateway might not is refused here.

use http::{
    HeaderMap, HeaderValue, Method, Uri, Version,
    header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING},
    request::Parts,
};

use super::{
    fault::Fault,
    forwarded::{is_host, without_port},
};
use crate::gateway::{query, tunnel::handshake};

/// Longest path and query, bytes. With the method and version it keeps a
/// request line below 8 KiB + 32 bytes.
const MAX_URI: usize = 8 * 1024;

/// Everything that is wrong with a request's head by itself.
pub fn check(parts: &Parts) -> Result<(), Fault> {
    if matches!(parts.method, Method::CONNECT | Method::TRACE) {
        return Err(Fault::Method);
    }
    if parts.uri.path_and_query().is_some_and(|whole| whole.as_str().len() > MAX_URI) {
        return Err(Fault::UriTooLong);
    }
    let well_named = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let mut frames = false;
    for name in parts.headers.keys() {
        if !well_named(name.as_str()) {
            return Err(Fault::HeaderName);
        }
        frames |= *name == CONTENT_LENGTH || *name == TRANSFER_ENCODING;
    }
    if frames {
        check_framing(&parts.headers)?;
    }
    // Nearly no query looks like it, so what sort of request it is comes second.
    let in_query = |text: &str| {
        query::holds_credential(text)
            && (query::holds_credential_elsewhere(text) || !asks_for_socket(parts))
    };
    if parts.uri.query().is_some_and(in_query) || query::path_holds_credential(parts.uri.path()) {
        return Err(Fault::CredentialInUrl);
    }
    Ok(())
}

/// Whether it asks for a WebSocket, as far as one can see here: where none are
/// let through, it is a plain request still.
pub fn asks_for_socket(parts: &Parts) -> bool {
    handshake::is_asked(&parts.method, parts.version, &parts.headers)
}

/// The host that a request asks for. `None` only for HTTP/1.0.
///
/// It stands in `Host`, in `:authority`, or in the request line; where it stands
/// twice both must agree (RFC 9112, 3.2.2 would let the request line win, but a
/// server behind us may look at the other).
pub fn host(
    uri: &Uri,
    headers: &HeaderMap,
    version: Version,
) -> Result<Option<HeaderValue>, Fault> {
    let mut fields = headers.get_all(HOST).iter();
    let field = fields.next();
    if fields.next().is_some() {
        return Err(Fault::Host);
    }
    let authority = uri.authority().map(|authority| authority.as_str().as_bytes());
    let host = match (field, authority) {
        (Some(field), authority) => {
            let agrees = |authority| field.as_bytes().eq_ignore_ascii_case(authority);
            if !authority.is_none_or(agrees) {
                return Err(Fault::Host);
            }
            field.clone()
        }
        // HTTP/2 has its own place for it; HTTP/1.1 must have the field too.
        (None, Some(authority)) if version == Version::HTTP_2 => {
            HeaderValue::from_bytes(authority).map_err(|_| Fault::Host)?
        }
        (None, _) if version == Version::HTTP_10 => return Ok(None),
        (None, _) => return Err(Fault::Host),
    };
    if is_host(host.as_bytes()) { Ok(Some(host)) } else { Err(Fault::Host) }
}

/// Whether a host is on the list; an empty list admits all.
pub fn is_trusted_host(host: Option<&HeaderValue>, trusted: &[String]) -> bool {
    trusted.is_empty()
        || host
            .and_then(|host| host.to_str().ok())
            .map(without_port)
            .is_some_and(|host| trusted.iter().any(|trusted| trusted.eq_ignore_ascii_case(host)))
}

fn check_framing(headers: &HeaderMap) -> Result<(), Fault> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let chunked = match codings.next() {
        None => false,
        Some(coding) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => true,
        Some(_) => return Err(Fault::Framing),
    };
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let length = lengths.next();
    let plain = |value: &HeaderValue| value.as_bytes().iter().all(u8::is_ascii_digit);
    if codings.next().is_some()
        || lengths.next().is_some()
        || length.is_some_and(|length| chunked || length.is_empty() || !plain(length))
    {
        return Err(Fault::Framing);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn parts(method: &str, uri: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn what_has_two_readings_is_refused() {
        let long = format!("/{}", "a".repeat(MAX_URI));
        let secret = format!("/?k=tg_{}", "a".repeat(49));
        for (method, uri, fields, fault) in [
            ("TRACE", "/", &[][..], Fault::Method),
            ("CONNECT", "a.example:1", &[], Fault::Method),
            ("GET", &*long, &[], Fault::UriTooLong),
            ("GET", &*secret, &[], Fault::CredentialInUrl),
            ("GET", "/", &[("x_user_id", "1")], Fault::HeaderName),
            ("GET", "/", &[("x.user.id", "1")], Fault::HeaderName),
            ("POST", "/", &[("transfer-encoding", "gzip, chunked")], Fault::Framing),
            ("POST", "/", &[("transfer-encoding", "xchunked")], Fault::Framing),
            (
                "POST",
                "/",
                &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
                Fault::Framing,
            ),
            (
                "POST",
                "/",
                &[("transfer-encoding", "chunked"), ("content-length", "3")],
                Fault::Framing,
            ),
            ("POST", "/", &[("content-length", "3"), ("content-length", "3")], Fault::Framing),
            ("POST", "/", &[("content-length", "+3")], Fault::Framing),
            ("POST", "/", &[("content-length", "3,3")], Fault::Framing),
            ("POST", "/", &[("content-length", "")], Fault::Framing),
        ] {
            assert_eq!(check(&parts(method, uri, fields)), Err(fault), "{method} {uri} {fields:?}");
        }
        let fine = [("transfer-encoding", "Chunked"), ("x-a", "1"), ("accept", "*/*")];
        assert_eq!(check(&parts("PUT", "/a?b=c", &fine)), Ok(()));
    }

    #[test]
    fn exactly_one_host() {
        let host = |uri, fields: &[(&str, &str)], version| {
            let parts = parts("GET", uri, fields);
            super::host(&parts.uri, &parts.headers, version)
                .map(|host| host.map(|host| host.to_str().unwrap().to_owned()))
        };
        let (h10, h11, h2) = (Version::HTTP_10, Version::HTTP_11, Version::HTTP_2);
        let a = || Ok(Some("a.example".to_owned()));
        assert_eq!(host("/", &[("host", "a.example")], h11), a());
        assert_eq!(host("http://A.example/", &[("host", "a.example")], h11), a());
        assert_eq!(host("http://a.example/", &[], h2), a());
        assert_eq!(host("/", &[], h10), Ok(None));
        for (uri, fields, version) in [
            ("/", &[][..], h11),
            ("/", &[], h2),
            ("/", &[("host", "a"), ("host", "a")], h11),
            ("/", &[("host", "a"), ("host", "b")], h10),
            ("http://a.example/", &[], h11),
            ("http://a.example/", &[("host", "b.example")], h11),
            ("http://a.example/", &[("host", "b.example")], h2),
            ("/", &[("host", "")], h11),
            ("/", &[("host", "a/b")], h11),
            ("/", &[("host", "u@a")], h11),
            ("/", &[("host", "a, b")], h11),
        ] {
            assert_eq!(host(uri, fields, version), Err(Fault::Host), "{uri} {fields:?}");
        }
    }

    #[test]
    fn the_list_of_hosts_ignores_port_and_case() {
        let list = ["a.example".to_owned(), "[::1]".to_owned()];
        let on_list =
            |host: &'static str| is_trusted_host(Some(&HeaderValue::from_static(host)), &list);
        assert!(on_list("a.example") && on_list("A.Example:8080") && on_list("[::1]:80"));
        assert!(!on_list("b.a.example") && !on_list("a.example.evil") && !on_list("a.exampl"));
        assert!(!is_trusted_host(None, &list));
        assert!(is_trusted_host(None, &[]));
    }
}
