//! What is told of one piece of work once it is over.

use std::borrow::Cow;

use super::context::{SpanId, TraceId};

/// Longest text of an attribute or name, bytes.
const LONGEST: usize = 512;

/// Who asks whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Somebody asked us.
    Server,
    /// We asked somebody.
    Client,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Text(Cow<'static, str>),
    Number(i64),
}

/// A piece of work that is over. Nothing in it can be a secret: no query, no
/// header field, no text of another program.
#[derive(Clone, Debug)]
pub struct Span {
    pub trace: TraceId,
    pub id: SpanId,
    pub parent: Option<SpanId>,
    /// The parent is another program's.
    pub is_parent_remote: bool,
    pub name: Cow<'static, str>,
    pub kind: Kind,
    /// Nanoseconds since 1970.
    pub started: u64,
    pub ended: u64,
    pub attributes: Vec<(&'static str, Value)>,
    pub failed: bool,
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value {
    fn from(mut text: String) -> Self {
        cut(&mut text);
        Self::Text(Cow::Owned(text))
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

/// To a whole number of characters.
pub fn cut(text: &mut String) {
    if text.len() > LONGEST {
        text.truncate(text.floor_char_boundary(LONGEST));
        text.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let Value::Text(text) = Value::from("ä".repeat(400) + "x") else { panic!() };
        assert_eq!(text.len(), LONGEST);
        let Value::Text(text) = Value::from("x".to_owned() + &"ä".repeat(400)) else { panic!() };
        assert_eq!(text.len(), LONGEST - 1);
    }
}
