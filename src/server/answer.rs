//! What answers of ours have in common.

use axum::response::Response;
use chrono::{DateTime, Utc};
use http::{
    HeaderName, HeaderValue,
    header::{
        CONTENT_LENGTH, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS,
        X_FRAME_OPTIONS,
    },
};
use http_body::Body as _;

use super::client::RequestId;
use crate::{api::error::ApiError, gateway::X_REQUEST_ID};

/// For answers of ours (OWASP ASVS 3.4); a route may have set its own.
const SECURITY: [(HeaderName, &str); 3] = [
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (X_FRAME_OPTIONS, "DENY"),
];
/// What answers over https tell browsers; `None` where nothing is to be told. For
/// this host alone: others of its domain are not ours to bind.
pub fn only_https(seconds: u32) -> Option<HeaderValue> {
    let text = format!("max-age={seconds}");
    (seconds > 0).then(|| text.try_into().expect("digits can stand in a field"))
}

/// Makes an answer of ours whole: the problem of an error, and the fields that
/// all have.
pub fn complete(
    response: &mut Response,
    request_id: &RequestId,
    path: &str,
    only_https: Option<&HeaderValue>,
    at: DateTime<Utc>,
) {
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        error.complete(response, request_id, path, at);
    }
    let headers = response.headers_mut();
    headers.insert(X_REQUEST_ID, request_id.header().clone());
    for (name, value) in SECURITY {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if let Some(only_https) = only_https {
        headers.entry(STRICT_TRANSPORT_SECURITY).or_insert_with(|| only_https.clone());
    }
}

/// Leaves of a body its length: an answer to `HEAD` has none, and over HTTP/2
/// hyper would send it.
pub fn take_body(response: &mut Response) {
    let length = response.body().size_hint().exact();
    *response.body_mut() = axum::body::Body::empty();
    if let Some(length) = length {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
}
