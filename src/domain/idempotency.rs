//! What makes a repeated request have one effect.
//!
//! The field is `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header).
//! A key belongs to one user; the same key with another request is refused.

use std::fmt;

use sha2::{Digest, Sha256};

use super::id::UserId;

/// Longest key of a client, bytes.
pub const MAX_KEY: usize = 255;

/// A client's own name for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey(String);

/// The text cannot be a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 1 to {MAX_KEY} visible ASCII characters")]
pub struct NoKey;

impl IdempotencyKey {
    /// Visible ASCII, 1..=[`MAX_KEY`]. The draft writes the value as a string
    /// of structured fields; the quotes around one do not count.
    pub fn parse(text: &str) -> Result<Self, NoKey> {
        let text = text.trim_matches([' ', '\t']);
        let bare = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
        let fits =
            (1..=MAX_KEY).contains(&bare.len()) && bare.bytes().all(|b| b.is_ascii_graphic());
        fits.then(|| Self(bare.to_owned())).ok_or(NoKey)
    }

    /// A key that nobody else has, for a request that came without one: what
    /// became of it can then be looked up after an answer was lost.
    pub fn fresh() -> Self {
        Self(format!("{:032x}", rand::random::<u128>()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One request that is to have one effect.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Who asks; keys of different users have nothing to do with each other.
    pub user_id: UserId,
    pub key: IdempotencyKey,
    pub request: RequestHash,
}

/// What was asked for, so that a key that comes back for something else is
/// noticed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestHash([u8; 32]);

impl RequestHash {
    /// The digest of an operation and what it is asked to do. Parts are length
    /// prefixed, so that none can run into the next.
    pub fn of(operation: &str, parts: &[&dyn fmt::Display]) -> Self {
        let mut digest = Sha256::new();
        let mut add = |text: &str| {
            digest.update((text.len() as u64).to_be_bytes());
            digest.update(text.as_bytes());
        };
        add(operation);
        for part in parts {
            add(&part.to_string());
        }
        Self(digest.finalize().into())
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for RequestHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RequestHash(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_visible_and_short() {
        let longest = "k".repeat(MAX_KEY);
        for (text, key) in
            [("a", "a"), ("\"8e03978e\"", "8e03978e"), (" b ", "b"), (&longest, &longest)]
        {
            assert_eq!(IdempotencyKey::parse(text).unwrap().as_str(), key);
        }
        for text in ["", " ", "\"\"", "a b", "é", "a\u{7f}", &"k".repeat(MAX_KEY + 1)] {
            assert_eq!(IdempotencyKey::parse(text), Err(NoKey), "{text}");
        }
    }

    #[test]
    fn different_requests_have_different_hashes() {
        let all = [
            RequestHash::of("purchase", &[&24, &""]),
            RequestHash::of("purchase", &[&24, &"x"]),
            RequestHash::of("purchase", &[&2, &"4"]),
            RequestHash::of("purchase", &[&"24"]),
            RequestHash::of("refund", &[&24, &""]),
        ];
        for (at, hash) in all.iter().enumerate() {
            assert_eq!(all.iter().position(|other| other == hash), Some(at));
        }
    }
}
