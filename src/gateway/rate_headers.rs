//! The rate-limit fields of a response.
//!
//! Both the common `X-RateLimit-*` and the IETF fields
//! (draft-ietf-httpapi-ratelimit-headers, structured fields), so that old and
//! new clients find what they look for. They describe the limit nearest to its
//! end.

use std::fmt::Write;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::domain::limit::TierState;

const X_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const STATE: HeaderName = HeaderName::from_static("ratelimit");

/// Sets the fields, replacing any of an upstream. The reset is rounded up to a
/// whole second, so that a client that waits for it is not early.
pub fn set(headers: &mut HeaderMap, state: &TierState, now: DateTime<Utc>) {
    let TierState { window, limit, remaining, reset_in_ms, .. } = *state;
    let reset_in = seconds(reset_in_ms);
    let reset_at = now.timestamp_millis().unsigned_abs().saturating_add(reset_in_ms).div_ceil(1000);
    let (name, length) = (window.name(), window.seconds());

    // One buffer for all five values: this runs for every limited request.
    let mut text = String::with_capacity(128);
    let mut ends = [0; 5];
    let parts = [
        format_args!("{limit}"),
        format_args!("{remaining}"),
        format_args!("{reset_at}"),
        format_args!("\"{name}\";q={limit};w={length}"),
        format_args!("\"{name}\";r={remaining};t={reset_in}"),
    ];
    for (part, end) in parts.into_iter().zip(&mut ends) {
        text.write_fmt(part).expect("writing to a string");
        *end = text.len();
    }
    let text = Bytes::from(text);
    let mut start = 0;
    for (field, end) in [X_LIMIT, X_REMAINING, X_RESET, POLICY, STATE].into_iter().zip(ends) {
        let value = HeaderValue::from_maybe_shared(text.slice(start..end)).expect("visible ASCII");
        headers.insert(field, value);
        start = end;
    }
}

/// The value of `Retry-After` for a refusal: whole seconds, at least 1.
pub fn retry_after(state: &TierState) -> HeaderValue {
    HeaderValue::from(seconds(state.reset_in_ms).max(1))
}

fn seconds(milliseconds: u64) -> u64 {
    milliseconds.div_ceil(1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::limit::Window;

    #[test]
    fn every_field_says_the_same() {
        let state = TierState {
            tier: "key",
            window: Window::MINUTE,
            limit: 60,
            remaining: 59,
            reset_in_ms: 11_001,
        };
        let now = DateTime::from_timestamp_millis(1_700_000_000_500).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("ratelimit", HeaderValue::from_static("upstream's"));
        set(&mut headers, &state, now);
        assert_eq!(headers["x-ratelimit-limit"], "60");
        assert_eq!(headers["x-ratelimit-remaining"], "59");
        assert_eq!(headers["x-ratelimit-reset"], "1700000012");
        assert_eq!(headers["ratelimit-policy"], "\"minute\";q=60;w=60");
        assert_eq!(headers["ratelimit"], "\"minute\";r=59;t=12");
        assert_eq!(headers.len(), 5);
        assert_eq!(retry_after(&state), "12");
        assert_eq!(retry_after(&TierState { reset_in_ms: 0, ..state }), "1");
    }
}
