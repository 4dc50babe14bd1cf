//! A field of a PATCH: absent leaves it, null clears it, a value sets it.

use serde::{Deserialize, Deserializer};

/// `None`: absent. `Some(None)`: null.
pub(super) type DoubleOption<T> = Option<Option<T>>;

/// For `#[serde(default, deserialize_with = …)]`: whatever is present, null
/// included, is `Some`.
pub(super) fn some<'de, T, D>(deserializer: D) -> Result<DoubleOption<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::deserialize(deserializer).map(Some)
}
