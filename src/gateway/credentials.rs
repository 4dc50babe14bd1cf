//! Where a request carries our credentials, and how they are kept from the
//! upstream.
//!
//! A field that holds a credential may stand once; with two there is no saying
//! which of them another server would believe, so the request is refused.
//! `Authorization` is ours when its scheme is `Bearer`; any other scheme belongs
//! to the upstream and passes.

use std::pin::pin;

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{self, AUTHORIZATION, COOKIE, SET_COOKIE},
};

use super::cookies::pairs;
use crate::{
    domain::{principal::Principal, token::looks_like_api_key},
    services::access::{AccessError, AccessService, Presented},
};

pub const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
pub const X_ACCESS_TOKEN: HeaderName = HeaderName::from_static("x-access-token");

/// Names of our cookies begin so; compared without regard to case, as browsers
/// compare the `__Host-` prefix.
const COOKIE_PREFIXES: [&[u8]; 2] = [b"__Host-tollgate", b"tollgate_"];

/// What a request presents, unproven. `Some("")` is a field that holds no text:
/// present, and good for nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credentials<'h> {
    /// `X-Access-Token`.
    pub access_token: Option<&'h str>,
    /// `X-API-Key`.
    pub api_key: Option<&'h str>,
    /// `Authorization: Bearer tg_…`.
    pub bearer_key: Option<&'h str>,
    /// `Authorization: Bearer` with anything else.
    pub jwt: Option<&'h str>,
}

impl Credentials<'_> {
    /// Who presents them; `None` when there are none. All that are present must
    /// be valid; of several the first in the order of the fields decides.
    pub async fn prove(&self, access: &AccessService) -> Result<Option<Principal>, AccessError> {
        let Self { access_token, api_key, bearer_key, jwt } = *self;
        if api_key.is_some() && bearer_key.is_some() {
            let second = Presented { api_key: bearer_key, ..Presented::default() };
            // Boxed: rare, and as large as the one below.
            Box::pin(access.authenticate(second)).await?;
        }
        let first = Presented { access_token, api_key: api_key.or(bearer_key), jwt };
        pin!(access.authenticate(first)).await
    }
}

/// A field for a credential stands more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the field {0} may stand once")]
pub struct RepeatedField(pub &'static str);

/// Reads all credentials of a request.
pub fn read(headers: &HeaderMap) -> Result<Credentials<'_>, RepeatedField> {
    let mut found = Credentials {
        access_token: single(headers, &X_ACCESS_TOKEN, "X-Access-Token")?.map(text),
        api_key: single(headers, &X_API_KEY, "X-API-Key")?.map(text),
        ..Credentials::default()
    };
    if let Some(value) = single(headers, &AUTHORIZATION, "Authorization")?
        && let Some(token) = bearer(value)
    {
        if looks_like_api_key(token) {
            found.bearer_key = Some(token);
        } else {
            found.jwt = Some(token);
        }
    }
    Ok(found)
}

/// Removes what [`read`] reads, and our cookies, from a request's fields.
/// Several `Cookie` fields, as HTTP/2 may send them, become one (RFC 9113,
/// 8.2.3).
pub fn remove(headers: &mut HeaderMap) {
    // One look at the names that there are; most requests hold one credential.
    let (mut token, mut key, mut authorization, mut cookie) = (false, false, false, false);
    for name in headers.keys() {
        match name.as_str() {
            "x-access-token" => token = true,
            "x-api-key" => key = true,
            "authorization" => authorization = true,
            "cookie" => cookie = true,
            _ => {}
        }
    }
    if token {
        headers.remove(X_ACCESS_TOKEN);
    }
    if key {
        headers.remove(X_API_KEY);
    }
    if authorization && headers.get_all(AUTHORIZATION).iter().any(|value| bearer(value).is_some()) {
        headers.remove(AUTHORIZATION);
    }
    if cookie {
        remove_own_cookies(headers);
    }
}

/// Leaves out cookies, so that the rest has `most` bytes at most. Those of
/// the deepest paths come first (RFC 6265, 5.4) and stay: what a browser keeps
/// for other applications of the same host must not lock it out of this one.
pub fn limit_cookies(headers: &mut HeaderMap, most: Option<usize>) {
    let Some(most) = most else { return };
    let Some(value) = headers.get(COOKIE).filter(|value| value.len() > most) else { return };
    let mut kept = Vec::with_capacity(most);
    for pair in pairs(value) {
        let gap = if kept.is_empty() { 0 } else { 2 };
        if kept.len() + gap + pair.len() <= most {
            kept.extend_from_slice(&b"; "[..gap]);
            kept.extend_from_slice(pair);
        }
    }
    headers.remove(COOKIE);
    if !kept.is_empty() {
        headers.insert(COOKIE, HeaderValue::from_bytes(&kept).expect("parts of a good value"));
    }
}

/// Keeps an upstream from setting cookies with our names.
pub fn remove_reserved_set_cookies(headers: &mut HeaderMap) {
    if !headers.get_all(SET_COOKIE).iter().any(|value| is_refused(value.as_bytes())) {
        return;
    }
    let kept: Vec<HeaderValue> = headers
        .get_all(SET_COOKIE)
        .iter()
        .filter(|value| !is_refused(value.as_bytes()))
        .cloned()
        .collect();
    headers.remove(SET_COOKIE);
    for value in kept {
        headers.append(SET_COOKIE, value);
    }
}

fn single<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
    shown: &'static str,
) -> Result<Option<&'h HeaderValue>, RepeatedField> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() { Err(RepeatedField(shown)) } else { Ok(first) }
}

fn text(value: &HeaderValue) -> &str {
    value.to_str().unwrap_or_default().trim_matches([' ', '\t'])
}

/// What follows the scheme `Bearer` (RFC 9110, 11.1: in any case); `None` for
/// another scheme. A value that is not ASCII has the empty token if it begins
/// like ours.
fn bearer(value: &HeaderValue) -> Option<&str> {
    let bytes = value.as_bytes();
    let (scheme, rest) = bytes.split_at_checked(6).unwrap_or((bytes, b""));
    let ours = scheme.eq_ignore_ascii_case(b"bearer")
        && matches!(rest.first(), None | Some(b' ' | b'\t' | b','));
    ours.then(|| value.to_str().ok().and_then(|text| text.get(6..)).unwrap_or_default())
        .map(|token| token.trim_matches([' ', '\t']))
}

fn remove_own_cookies(headers: &mut HeaderMap) {
    let mut fields = headers.get_all(COOKIE).iter();
    let Some(first) = fields.next() else { return };
    let several = fields.next().is_some();
    if !several && !pairs(first).any(is_ours) {
        return;
    }
    let mut joined = Vec::with_capacity(first.len());
    for pair in headers.get_all(COOKIE).iter().flat_map(pairs).filter(|pair| !is_ours(pair)) {
        if !joined.is_empty() {
            joined.extend_from_slice(b"; ");
        }
        joined.extend_from_slice(pair);
    }
    headers.remove(header::COOKIE);
    if !joined.is_empty() {
        let value = HeaderValue::from_bytes(&joined).expect("parts of good values");
        headers.insert(header::COOKIE, value);
    }
}

/// Whether an upstream may not set this cookie: it has our name, or reads like it
/// to somebody who takes off quotes, or has none. A browser sends one without a
/// name as its value alone, in which any name may stand.
fn is_refused(cookie: &[u8]) -> bool {
    let pair = cookie.split(|byte| *byte == b';').next().unwrap_or_default();
    let mut halves = pair.splitn(2, |byte| *byte == b'=');
    let name = halves.next().unwrap_or_default();
    let is_odd = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'');
    let skipped = name.iter().take_while(|byte| is_odd(byte)).count();
    halves.next().is_none() || skipped == name.len() || is_ours(&name[skipped..])
}

fn is_ours(pair: &[u8]) -> bool {
    let pair = pair.trim_ascii_start();
    COOKIE_PREFIXES.iter().any(|prefix| {
        pair.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn each_kind_is_read_from_its_own_place() {
        for scheme in ["Bearer ", "bearer ", "BEARER  ", "Bearer\t"] {
            let headers = map(&[("authorization", &format!("{scheme}tg_abc"))]);
            assert_eq!(read(&headers).unwrap().bearer_key, Some("tg_abc"));
            let headers = map(&[("authorization", &format!("{scheme}a.b.c"))]);
            assert_eq!(read(&headers).unwrap().jwt, Some("a.b.c"));
        }
        let headers = map(&[("x-api-key", "tg_a"), ("x-access-token", "tga_b")]);
        let found = read(&headers).unwrap();
        assert_eq!((found.api_key, found.access_token), (Some("tg_a"), Some("tga_b")));
    }

    #[test]
    fn a_present_field_without_a_usable_value_is_not_an_absent_one() {
        for value in ["Bearer", "Bearer ", "Bearer é"] {
            assert_eq!(read(&map(&[("authorization", value)])).unwrap().jwt, Some(""), "{value}");
        }
        assert_eq!(read(&map(&[("x-api-key", "")])).unwrap().api_key, Some(""));
        assert_eq!(read(&map(&[("x-api-key", "é")])).unwrap().api_key, Some(""));
    }

    #[test]
    fn a_repeated_field_is_refused_even_if_equal() {
        for name in ["x-api-key", "x-access-token", "authorization"] {
            let headers = map(&[(name, "Bearer a"), (name, "Bearer a")]);
            assert!(read(&headers).is_err(), "{name}");
        }
    }

    #[test]
    fn another_scheme_is_the_upstreams() {
        for value in ["Basic dXNlcjpw", "Digest x", "Bearerx y", "DPoP a"] {
            let mut headers = map(&[("authorization", value)]);
            assert_eq!(read(&headers).unwrap(), Credentials::default());
            remove(&mut headers);
            assert_eq!(headers["authorization"], value);
        }
    }

    #[test]
    fn nothing_of_ours_is_left() {
        let mut headers = map(&[
            ("authorization", "Bearer a.b.c"),
            ("x-api-key", "tg_a"),
            ("x-access-token", "tga_a"),
            ("cookie", "a=1; __Host-tollgate-sid=s;tollgate_x=2; b=2"),
            ("cookie", "c=3; __host-TOLLGATE_t=9"),
        ]);
        remove(&mut headers);
        assert_eq!(headers.len(), 1);
        assert_eq!(headers["cookie"], "a=1; b=2; c=3");
        let mut only_ours = map(&[("cookie", "tollgate_a=1")]);
        remove(&mut only_ours);
        assert!(only_ours.is_empty());
    }

    #[test]
    fn a_lone_foreign_cookie_passes_byte_for_byte() {
        let mut headers = map(&[("cookie", "a=1;b=\"x y\";  c")]);
        remove(&mut headers);
        assert_eq!(headers["cookie"], "a=1;b=\"x y\";  c");
    }

    #[test]
    fn cookies_that_do_not_fit_are_left_out() {
        for (most, expected) in [
            (22, Some("a=1; bb=22; c=333; d=4")),
            (21, Some("a=1; bb=22; c=333")),
            (13, Some("a=1; bb=22")),
            (11, Some("a=1; bb=22")),
            (8, Some("a=1; d=4")),
            (2, None),
        ] {
            let mut headers = map(&[("cookie", "a=1; bb=22; c=333; d=4")]);
            limit_cookies(&mut headers, Some(most));
            let left = headers.get("cookie").map(|value| value.to_str().unwrap());
            assert_eq!(left, expected, "{most}");
        }
    }

    #[test]
    fn an_upstream_cannot_set_our_cookies() {
        let mut headers = map(&[
            ("set-cookie", "__Host-tollgate-sid=evil; Path=/"),
            ("set-cookie", "session=1"),
            ("set-cookie", " Tollgate_x=1"),
            ("set-cookie", "=tollgate_sid=evil; Path=/"),
            ("set-cookie", " = __Host-tollgate-sid=evil"),
            ("set-cookie", "\"tollgate_sid=evil\""),
            ("set-cookie", "' tollgate_sid=evil"),
            ("set-cookie", "tollgate_sid"),
            ("set-cookie", "nameless; Path=/; a=b"),
            ("set-cookie", ""),
        ]);
        remove_reserved_set_cookies(&mut headers);
        let left: Vec<_> = headers.get_all("set-cookie").iter().collect();
        assert_eq!(left, ["session=1"]);
    }
}
