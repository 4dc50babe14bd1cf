//! Where a browser goes after it signed in: never to another site
//! (RELIABILITY G-99).

use std::fmt;

use http::Uri;
use url::Url;

use super::path;

/// Longest place that is remembered, bytes.
const MAX_LEN: usize = 4096;

/// A path and query at the origin that is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next(String);

impl Next {
    /// Takes what is a path in its canonical form, and perhaps a query, by every
    /// reading: ours, which is strict, and a browser's, which forgives much.
    pub fn parse(text: &str) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_graphic() && !b"\\#\"<>".contains(&byte);
        if text.len() > MAX_LEN || !text.bytes().all(plain) {
            return None;
        }
        let (path, query) = match text.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (text, None),
        };
        Self::of(path, query)
    }

    /// The place that a request asks for.
    pub fn of(path: &str, query: Option<&str>) -> Option<Self> {
        let mut text = path::canonical(path).ok()?.into_owned();
        if let Some(query) = query {
            text.push('?');
            text.push_str(query);
        }
        (text.len() <= MAX_LEN && stays_here(&text) && text.parse::<Uri>().is_ok())
            .then_some(Self(text))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Without its query.
    pub fn path(&self) -> &str {
        self.0.split('?').next().unwrap_or_default()
    }
}

impl fmt::Display for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a browser that is sent there stays at the origin (WHATWG URL).
fn stays_here(text: &str) -> bool {
    let here = Url::parse("https://here.invalid/").expect("a URL");
    here.join(text).is_ok_and(|there| {
        there.origin() == here.origin()
            && there.username().is_empty()
            && there.password().is_none()
            && there.fragment().is_none()
    })
}
