//! The rate-limit fields of a response.
//!
//! Both the common `X-RateLimit-*` and the IETF fields
//! (draft-ietf-httpapi-ratelimit-headers, structured fields), so that old and
//! new clients find what they look for. They describe the limit nearest to its
//! end.

use std::cell::RefCell;

use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::memo::Memo;
use crate::{
    domain::{
        limit::{TierState, Window},
        rates::LimitName,
    },
    services::limits::Rule,
};

const X_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const STATE: HeaderName = HeaderName::from_static("ratelimit");

/// Whether somebody who knows a nearer limit has said so.
pub fn are_set(headers: &HeaderMap) -> bool {
    headers.contains_key(X_LIMIT)
}

/// Sets the fields, replacing any of an upstream. The reset is rounded up to a
/// whole second, so that a client that waits for it is not early.
pub fn set(headers: &mut HeaderMap, state: &TierState, now: DateTime<Utc>) {
    let TierState { window, limit, remaining, reset_in_ms, .. } = *state;
    let name = state.name();
    let reset_in = seconds(reset_in_ms);
    let reset_at = now.timestamp_millis().unsigned_abs().saturating_add(reset_in_ms).div_ceil(1000);
    let Fixed { limit: limit_text, policy } = FIXED.with_borrow_mut(|memo| {
        let is_it = |held: &Key| (held.0, held.1) == (window, limit) && held.2 == state.name;
        let make = || ((window, limit, state.name.clone()), Fixed::of(name, window, limit));
        memo.get(limit.to_le_bytes()[0], is_it, make)
    });
    let reset_text = RESETS.with_borrow_mut(|memo| {
        let make = || (reset_at, Text::new().number(reset_at).take());
        memo.get(reset_at.to_le_bytes()[0], |held| *held == reset_at, make)
    });
    // Digits by hand: this runs for every limited request, and `format!` would
    // cost more than deciding the limit.
    let mut text = Text::new();
    let (digits, start) = digits_of(remaining);
    let remaining_text = text.push(&digits[start..]).take();
    let state =
        text.quoted(name).push(b";r=").push(&digits[start..]).push(b";t=").number(reset_in).take();
    headers.insert(X_LIMIT, limit_text);
    headers.insert(X_REMAINING, remaining_text);
    headers.insert(X_RESET, reset_text);
    headers.insert(POLICY, policy);
    headers.insert(STATE, state);
}

/// What they follow from.
type Key = (Window, u64, Option<LimitName>);

/// The values that follow from a limit alone.
#[derive(Clone, Debug)]
struct Fixed {
    limit: HeaderValue,
    policy: HeaderValue,
}

thread_local! {
    static FIXED: RefCell<Memo<Key, Fixed>> = const { RefCell::new(Memo::new()) };
    static RESETS: RefCell<Memo<u64, HeaderValue>> = const { RefCell::new(Memo::new()) };
}

impl Fixed {
    fn of(name: &str, window: Window, limit: u64) -> Self {
        let length = window.seconds();
        let mut text = Text::new();
        Self {
            limit: text.number(limit).take(),
            policy: text
                .quoted(name)
                .push(b";q=")
                .number(limit)
                .push(b";w=")
                .number(u64::from(length))
                .take(),
        }
    }
}

/// Values written one after the other, without an allocation but their own.
struct Text {
    bytes: [u8; Self::ROOM],
    end: usize,
    taken: usize,
}

impl Text {
    /// Above what two values of three numbers and the longest name need.
    const ROOM: usize = 192;

    fn new() -> Self {
        Self { bytes: [0; Self::ROOM], end: 0, taken: 0 }
    }

    fn push(&mut self, text: &[u8]) -> &mut Self {
        let end = self.end + text.len();
        self.bytes[self.end..end].copy_from_slice(text);
        self.end = end;
        self
    }

    fn quoted(&mut self, name: &str) -> &mut Self {
        self.push(b"\"").push(name.as_bytes()).push(b"\"")
    }

    fn number(&mut self, number: u64) -> &mut Self {
        let (digits, start) = digits_of(number);
        self.push(&digits[start..])
    }

    /// What was pushed since the last time, as a value.
    fn take(&mut self) -> HeaderValue {
        let text = &self.bytes[self.taken..self.end];
        self.taken = self.end;
        HeaderValue::from_bytes(text).expect("visible ASCII")
    }
}

/// Of the longest number the digits, and where those of this one begin.
fn digits_of(mut number: u64) -> ([u8; 20], usize) {
    let mut digits = [b'0'; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] += u8::try_from(number % 10).expect("a digit");
        number /= 10;
        if number == 0 {
            return (digits, start);
        }
    }
}

/// Adds to the policy that refused what else the request was under, so that a
/// client knows all that it has to keep to.
pub fn list(headers: &mut HeaderMap, others: &[Rule]) {
    for Rule { of, name, window, limit } in others {
        let (per, length) = (window.name(), window.seconds());
        let policy = match name {
            Some(name) => format!("\"{}\";q={limit};w={length}", name.as_str()),
            None => format!("\"{of}-{per}\";q={limit};w={length}"),
        };
        headers.append(POLICY, HeaderValue::try_from(policy).expect("visible ASCII"));
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

    #[test]
    fn every_field_says_the_same() {
        let state = TierState {
            tier: "key",
            name: None,
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

        // As long as it can be, and not mixed up with that of no name.
        let longest = "n".repeat(LimitName::LONGEST);
        let name = LimitName::try_from(longest.clone()).unwrap();
        let remaining = u64::MAX;
        let named = TierState { name: Some(name.clone()), remaining, ..state.clone() };
        set(&mut headers, &named, now);
        assert_eq!(headers["ratelimit-policy"], format!("\"{longest}\";q=60;w=60"));
        assert_eq!(headers["ratelimit"], format!("\"{longest}\";r={};t=12", u64::MAX));
        let rule = |name| Rule { of: "user", name, window: Window::DAY, limit: 7 };
        list(&mut headers, &[rule(None), rule(Some(name))]);
        let all: Vec<_> = headers.get_all("ratelimit-policy").iter().collect();
        assert_eq!(all[1], "\"user-day\";q=7;w=86400");
        assert_eq!(all[2], format!("\"{longest}\";q=7;w=86400").as_str());
        assert_eq!(retry_after(&TierState { reset_in_ms: 0, ..state }), "1");
    }
}
