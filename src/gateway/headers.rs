//! Which header fields cross the gateway, in both directions.
//!
//! The order is the point: everything that the client may not say is removed
//! first, the fields that its `Connection` lists among it, and only then are
//! ours set. A client can therefore neither forge an identity nor have ours
//! dropped as hop-by-hop by the next proxy. Fields that are not named here pass
//! untouched and without a copy.

use http::{
    HeaderMap, HeaderName, HeaderValue, Version,
    header::{self, Entry},
};

use super::{credentials, identity};
use crate::{
    config::HeaderChanges, domain::principal::Principal, server::client::ClientInfo,
    telemetry::trace::Onward,
};

pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// Names that only the gateway may set towards an upstream.
const RESERVED: [&str; 8] = [
    "x-user-id",
    "x-username",
    "x-roles",
    "x-token-id",
    "x-key-id",
    "x-request-id",
    "x-real-ip",
    "forwarded",
];
/// Fields that may be added to a request: our identity, forwarding, `Via`.
const ADDED: usize = 12;
const RESERVED_PREFIXES: [&str; 2] = ["x-forwarded-", "x-tollgate-"];

/// What the upstream is told beside the client's own fields.
pub struct Ours<'a> {
    pub client: &'a ClientInfo,
    /// `None`: no identity field is sent at all.
    pub principal: Option<&'a Principal>,
    /// The path prefix that was taken off.
    pub prefix: Option<&'a HeaderValue>,
    /// The upstream's authority.
    pub host: &'a HeaderValue,
    /// The upstream's own credential.
    pub authorization: Option<&'a HeaderValue>,
    /// In which version the client spoke.
    pub version: Version,
    /// Of which trace it is; `None`: what the client says of that passes.
    pub onward: Option<Onward>,
    /// What the operator wants different.
    pub changes: &'a HeaderChanges,
}

/// Turns a client's fields into those sent upstream.
pub fn rewrite_request(headers: &mut HeaderMap, ours: Ours<'_>) {
    remove_all(headers, is_kept_from_upstream);
    credentials::remove(headers);

    let Ours { client, principal, prefix, host, authorization, version, onward, changes } = ours;
    if let Some(onward) = onward {
        onward.set(headers);
    }
    // Before ours are set, so that ours hold whatever the operator wrote.
    change(headers, changes);
    // At once: a map that grows step by step hashes everything again each time.
    headers.reserve(ADDED);
    headers.insert(header::HOST, host.clone());
    headers.insert(X_REQUEST_ID, client.request_id.header().clone());
    headers.insert(X_FORWARDED_FOR, identity::address_value(client.address));
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(client.scheme.as_str()));
    if let Some(host) = client.said_host() {
        headers.insert(X_FORWARDED_HOST, host.clone());
    }
    if let Some(prefix) = prefix {
        headers.insert(X_FORWARDED_PREFIX, prefix.clone());
    }
    if let Some(authorization) = authorization {
        headers.insert(header::AUTHORIZATION, authorization.clone());
    }
    if let Some(principal) = principal {
        identity::set(headers, principal);
    }
    append_via(headers, version);
}

/// Turns an upstream's fields into those sent to the client.
///
/// An answer to a proven identity that says nothing about caching is marked
/// `private`, so that no shared cache hands it to somebody else; what the
/// upstream says itself is left alone.
pub fn rewrite_response(
    headers: &mut HeaderMap,
    client: &ClientInfo,
    authenticated: bool,
    changes: &HeaderChanges,
) {
    remove_all(headers, is_hop_by_hop);
    credentials::remove_reserved_set_cookies(headers);
    change(headers, changes);
    // Ours, and those of the limits.
    headers.reserve(8);
    headers.insert(X_REQUEST_ID, client.request_id.header().clone());
    if authenticated && let Entry::Vacant(vacant) = headers.entry(header::CACHE_CONTROL) {
        vacant.insert(HeaderValue::from_static("private"));
    }
    append_via(headers, Version::HTTP_11);
}

/// What the operator wants different.
fn change(headers: &mut HeaderMap, changes: &HeaderChanges) {
    for name in &changes.remove {
        headers.remove(name);
    }
    for (name, value) in &changes.set {
        headers.insert(name, value.clone());
    }
}

/// Removes what `drops` names, `Connection`, and what that lists. Allocates only
/// when there is more than a `Connection` to remove, as upstreams send it with
/// every answer.
fn remove_all(headers: &mut HeaderMap, drops: impl Fn(&str) -> bool) {
    let mut doomed: Vec<HeaderName> = Vec::new();
    let mut lists = false;
    for name in headers.keys() {
        if *name == header::CONNECTION {
            lists = true;
        } else if drops(name.as_str()) {
            doomed.push(name.clone());
        }
    }
    if lists && let Entry::Occupied(connection) = headers.entry(header::CONNECTION) {
        for value in connection.iter() {
            let listed = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            let listed = listed.filter(|token| !is_option(token));
            // A token that is no field name lists nothing.
            doomed.extend(listed.flat_map(HeaderName::from_bytes));
        }
        connection.remove();
    }
    for name in doomed {
        headers.remove(name);
    }
}

/// The options that `Connection` commonly holds; both are removed anyway.
fn is_option(token: &[u8]) -> bool {
    token.eq_ignore_ascii_case(b"keep-alive") || token.eq_ignore_ascii_case(b"close")
}

/// Fields for this connection only (RFC 9110, 7.6.1). An `Upgrade` is among
/// them: what asks for a WebSocket is given one of its own.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// `Expect` is answered by the server in front; `HTTP2-Settings` belongs to an
/// upgrade that is not offered. `X-Original-URL` and `X-Rewrite-URL` name another
/// path than the one that was judged, to servers that go by them, and `Proxy`
/// another proxy to scripts (httpoxy). Credentials are [`credentials::remove`]'s.
fn is_kept_from_upstream(name: &str) -> bool {
    is_hop_by_hop(name)
        || matches!(
            name,
            "expect" | "http2-settings" | "proxy" | "x-original-url" | "x-rewrite-url"
        )
        || is_reserved(name)
}

/// Whether a field's name is one of ours when every character that is not a
/// letter or digit counts as a hyphen: many application servers read
/// `X_User_Id` and `X-User-Id` as the same.
pub fn is_reserved(name: &str) -> bool {
    if !matches!(name.as_bytes().first(), Some(b'x' | b'f')) {
        return false;
    }
    RESERVED.iter().any(|reserved| name.len() == reserved.len() && begins_alike(name, reserved))
        || RESERVED_PREFIXES.iter().any(|prefix| begins_alike(name, prefix))
}

/// Whether an operator may not set or remove a field either: it frames a message
/// or says who asks.
pub fn is_ours_to_set(name: &str) -> bool {
    is_hop_by_hop(name) || is_reserved(name)
}

/// Names are lower case in a `HeaderMap`.
fn begins_alike(name: &str, prefix: &str) -> bool {
    let normal = |byte: u8| if byte.is_ascii_alphanumeric() { byte } else { b'-' };
    name.len() >= prefix.len() && name.bytes().map(normal).zip(prefix.bytes()).all(|(a, b)| a == b)
}

fn append_via(headers: &mut HeaderMap, version: Version) {
    let via = match version {
        Version::HTTP_2 => "2 tollgate",
        Version::HTTP_10 => "1.0 tollgate",
        _ => "1.1 tollgate",
    };
    headers.append(header::VIA, HeaderValue::from_static(via));
}

#[cfg(test)]
#[path = "headers_tests.rs"]
mod tests;
