//! Lists in pages.
//!
//! A cursor is the position after the last item of a page. All lists run from
//! the newest id to the oldest and ids are time-ordered, so inserts never
//! shift a page.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use uuid::Uuid;

/// How many items and from where.
#[derive(Clone, Copy, Debug)]
pub struct PageRequest {
    /// 1..=200.
    pub limit: u32,
    pub after: Option<Cursor>,
}

impl PageRequest {
    pub const DEFAULT_LIMIT: u32 = 50;
    pub const MAX_LIMIT: u32 = 200;

    /// The largest page from the beginning.
    pub const FIRST: Self = Self { limit: Self::MAX_LIMIT, after: None };

    /// The request for the page behind this one, if one follows.
    pub fn followed_by(self, next: Option<Cursor>) -> Option<Self> {
        next.map(|cursor| Self { after: Some(cursor), ..self })
    }
}

/// The id of the last item seen; opaque to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor(pub Uuid);

impl Cursor {
    pub fn encode(self) -> String {
        URL_SAFE_NO_PAD.encode(self.0.as_bytes())
    }

    pub fn decode(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        Uuid::from_slice(&bytes).ok().map(Self)
    }
}

/// One page of a list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// `None` on the last page.
    pub next: Option<Cursor>,
}

impl<T> Page<T> {
    /// Builds a page from up to `limit + 1` rows: the extra row only proves
    /// that another page follows.
    pub fn from_rows(mut rows: Vec<T>, limit: u32, id: impl Fn(&T) -> Uuid) -> Self {
        let limit = limit as usize;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = more.then(|| rows.last().map(|row| Cursor(id(row)))).flatten();
        Self { items: rows, next }
    }

    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(f).collect(), next: self.next }
    }
}
