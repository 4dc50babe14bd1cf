//! What is different where a browser asks: it is led to the login page, it has
//! cookies, and other sites can make it ask.
//!
//! A cookie is sent by the browser whoever made it ask, so a request that may
//! change something must come from a page of the same origin (RELIABILITY
//! G-97): browsers say so in `Sec-Fetch-Site`, and where that is missing in
//! `Origin`.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{ACCEPT, CACHE_CONTROL, ORIGIN, UPGRADE},
};

use super::{
    cookies::{self, Cookie},
    error::GatewayError,
    next::Next,
};
use crate::{
    server::{ClientInfo, Scheme},
    services::{
        Services,
        browser::{Issued, Visitor},
    },
};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// The login page, where the upstream leaves us paths of our own.
pub const SIGN_IN: &str = "/login";
/// The same on every host.
pub const SIGN_IN_RESERVED: &str = "/.tollgate/login";

/// Another site had the browser send this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a request with a cookie must come from a page of this site")]
pub struct CrossSite;

/// A field as far as it says one thing.
enum Said<'h> {
    Nothing,
    One(&'h [u8]),
    Several,
}

/// Whether a person waits for a page to be shown.
pub fn is_navigation(method: &Method, headers: &HeaderMap) -> bool {
    let or_absent = |name: HeaderName, expected: &[&str]| match said(headers, &name) {
        Said::Nothing => true,
        Said::One(value) => expected.iter().any(|one| value.eq_ignore_ascii_case(one.as_bytes())),
        Said::Several => false,
    };
    matches!(*method, Method::GET | Method::HEAD)
        && headers.get_all(ACCEPT).iter().any(takes_html)
        && or_absent(SEC_FETCH_MODE, &["navigate"])
        && or_absent(SEC_FETCH_DEST, &["document", "iframe"])
        && !headers.contains_key(UPGRADE)
}

/// Whether a request that a cookie proves may do what its method does.
pub fn check_site(
    method: &Method,
    headers: &HeaderMap,
    client: &ClientInfo,
) -> Result<(), CrossSite> {
    if method.is_safe() || is_same_origin(headers, client) { Ok(()) } else { Err(CrossSite) }
}

/// Whether a browser says that a page of the same origin, or the person in front
/// of it, asks. A request without a word about it was not shown to.
pub fn is_same_origin(headers: &HeaderMap, client: &ClientInfo) -> bool {
    match said(headers, &SEC_FETCH_SITE) {
        Said::One(site) => site == b"same-origin" || site == b"none",
        Said::Several => false,
        Said::Nothing => has_own_origin(headers, client),
    }
}

/// Whether `Origin` is the request's own. A browser lets any site open a
/// WebSocket, and this is what tells them apart.
pub fn has_own_origin(headers: &HeaderMap, client: &ClientInfo) -> bool {
    let Said::One(origin) = said(headers, &ORIGIN) else { return false };
    let Some(host) = &client.host else { return false };
    let scheme = client.browser_scheme;
    let begin = [scheme.as_str().as_bytes(), b"://"].concat();
    let host = without_usual_port(host.as_bytes(), scheme);
    origin.strip_prefix(&*begin).is_some_and(|named| named.eq_ignore_ascii_case(host))
}

/// The origin of our own page that asks: of such a request, unless it changes
/// something, browsers do not name it. As far as we know by which name we are asked.
pub fn own_origin(headers: &HeaderMap, client: &ClientInfo) -> Option<String> {
    if !matches!(said(headers, &SEC_FETCH_SITE), Said::One(b"same-origin")) {
        return None;
    }
    let scheme = client.browser_scheme;
    let host = without_usual_port(client.host.as_ref()?.as_bytes(), scheme);
    let host = std::str::from_utf8(host).ok()?.to_ascii_lowercase();
    Some(format!("{}://{host}", scheme.as_str()))
}

/// Where to sign in first and come back to this request's page.
pub fn sign_in_page(page: &str, path: &str, query: Option<&str>) -> String {
    let Some(next) = Next::of(path, query) else { return page.to_owned() };
    let next: String = form_urlencoded::byte_serialize(next.as_str().as_bytes()).collect();
    format!("{page}?next={next}")
}

/// Who has the request's cookies.
pub async fn prove(
    services: &Services,
    headers: &HeaderMap,
    client: &ClientInfo,
) -> Result<Option<Box<Visitor>>, GatewayError> {
    let cookies = cookies::read(headers, client)?;
    Ok(services.browser.prove(cookies).await?.map(Box::new))
}

/// The cookie that the answer to a navigation brings in place of an old one.
pub fn renewed(
    services: &Services,
    visitor: &Visitor,
    method: &Method,
    headers: &HeaderMap,
) -> Option<Box<Issued>> {
    if !is_navigation(method, headers) {
        return None;
    }
    services.browser.renewed(visitor).map(Box::new)
}

/// Adds a renewed login cookie to an upstream's answer, which no cache may then
/// hand to somebody else.
pub fn renew(headers: &mut HeaderMap, issued: &Issued, client: &ClientInfo) {
    let kept = headers.get_all(CACHE_CONTROL).iter().any(|value| {
        let text = value.as_bytes().to_ascii_lowercase();
        let mut parts = text.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        parts.any(|part| part == b"private" || part == b"no-store")
    });
    if !kept {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    }
    cookies::add(headers, Cookie::Login, issued, client);
}

fn said<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Said<'h> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Said::Nothing,
        (Some(value), None) => Said::One(value.as_bytes()),
        (Some(_), Some(_)) => Said::Several,
    }
}

fn takes_html(accept: &HeaderValue) -> bool {
    let mut ranges = accept.as_bytes().split(|byte| *byte == b',');
    ranges.any(|range| {
        let media = range.split(|byte| *byte == b';').next().unwrap_or_default();
        media.trim_ascii().eq_ignore_ascii_case(b"text/html")
    })
}

/// A scheme's own port is never in an `Origin` (RFC 6454, 6.2).
fn without_usual_port(host: &[u8], scheme: Scheme) -> &[u8] {
    let port: &[u8] = match scheme {
        Scheme::Http => b":80",
        Scheme::Https => b":443",
    };
    host.strip_suffix(port).unwrap_or(host)
}
