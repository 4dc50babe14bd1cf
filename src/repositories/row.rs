//! Between the types of the domain and those that both engines can store.

use serde::{Serialize, de::DeserializeOwned};

use super::{StoreError, StoreResult};
use crate::domain::{page::PageRequest, token::TokenHash};

/// Both engines have signed integers only; a count beyond them stays at the
/// largest.
pub(super) fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The counterpart of [`stored`]; the schema keeps counts from being negative.
pub(super) fn count(number: i64) -> u64 {
    number.max(0).cast_unsigned()
}

pub(super) fn narrow<T: TryFrom<i64>>(column: &'static str, number: i64) -> StoreResult<T>
where
    T::Error: std::error::Error + Send + Sync + 'static,
{
    T::try_from(number).map_err(|error| StoreError::corrupt(column, error))
}

pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("lists and maps of plain values are always JSON")
}

pub(super) fn parse_json<T: DeserializeOwned>(column: &'static str, text: &str) -> StoreResult<T> {
    serde_json::from_str(text).map_err(|error| StoreError::corrupt(column, error))
}

pub(super) fn token_hash(bytes: &[u8]) -> StoreResult<TokenHash> {
    TokenHash::from_bytes(bytes).ok_or_else(|| StoreError::corrupt("hash", "not 32 bytes"))
}

/// A `LIKE … ESCAPE '\'` pattern that finds `text` anywhere and takes nothing
/// in it for a wildcard.
pub(super) fn contains(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 2);
    pattern.push('%');
    for c in text.chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        // No stored text has a NUL. Postgres would refuse it, and SQLite would
        // take it for the end of the pattern.
        pattern.push(if c == '\0' { char::REPLACEMENT_CHARACTER } else { c });
    }
    pattern.push('%');
    pattern
}

/// Rows to ask for: one more than the page holds, which tells whether another
/// page follows.
pub(super) fn limit(page: PageRequest) -> i64 {
    i64::from(page.limit) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_are_taken_literally() {
        assert_eq!(contains(r"50%_\x"), r"%50\%\_\\x%");
    }

    #[test]
    fn counts_survive_and_stop_at_the_largest() {
        assert_eq!(count(stored(7)), 7);
        assert_eq!(stored(u64::MAX), i64::MAX);
        assert_eq!(count(-1), 0);
    }
}
