//! Where the upstream appears among our paths.

use http::{HeaderValue, Uri, uri::PathAndQuery};

use super::path::below;
use crate::config::Mount;

/// The default place, which has a short form too.
const DEFAULT_PREFIX: &str = "/api/v1/proxy";
const SHORT_PREFIX: &str = "/api/proxy";

/// The places of the upstream.
#[derive(Clone, Debug)]
pub enum Places {
    Under(Vec<Prefix>),
    /// Every path that is not ours.
    Root,
}

/// A path prefix without trailing slash.
#[derive(Clone, Debug)]
pub struct Prefix {
    path: String,
    header: HeaderValue,
}

/// A request's way to the upstream.
#[derive(Clone, Copy, Debug)]
pub struct Route<'p> {
    /// What is left of the canonical path; begins with a slash.
    path: &'p str,
    /// What was taken off.
    prefix: Option<&'p Prefix>,
}

impl Places {
    pub fn new(mount: &Mount) -> Self {
        let Mount::Prefix(prefix) = mount else { return Self::Root };
        let mut all = vec![Prefix::new(prefix)];
        if prefix == DEFAULT_PREFIX {
            all.push(Prefix::new(SHORT_PREFIX));
        }
        Self::Under(all)
    }

    /// The way of a canonical path; `None` if it is not the upstream's. With
    /// [`Places::Root`] a path is the upstream's unless `ours` claims it.
    pub fn route<'p>(
        &'p self,
        path: &'p str,
        ours: impl FnOnce(&str) -> bool,
    ) -> Option<Route<'p>> {
        match self {
            Self::Root => (!ours(path)).then_some(Route { path, prefix: None }),
            Self::Under(prefixes) => prefixes.iter().find_map(|prefix| {
                below(path, &prefix.path).map(|path| Route { path, prefix: Some(prefix) })
            }),
        }
    }
}

impl Prefix {
    fn new(path: &str) -> Self {
        let header = HeaderValue::from_str(path).expect("a checked path prefix");
        Self { path: path.to_owned(), header }
    }
}

impl Route<'_> {
    /// The value of `X-Forwarded-Prefix`.
    pub fn prefix(&self) -> Option<&HeaderValue> {
        self.prefix.map(|prefix| &prefix.header)
    }

    /// The URI for the upstream: this path, and the query as it came.
    pub fn uri(&self, original: &Uri) -> Uri {
        Uri::from(path_and_query(original, self.path))
    }
}

/// A canonical path with the query of `original`. Nothing is copied where the
/// path is the same.
pub fn path_and_query(original: &Uri, path: &str) -> PathAndQuery {
    match original.path_and_query() {
        Some(whole) if whole.path() == path => whole.clone(),
        _ => {
            let query = original.query();
            let mut text = String::with_capacity(path.len() + 1 + query.map_or(0, str::len));
            text.push_str(path);
            if let Some(query) = query {
                text.push('?');
                text.push_str(query);
            }
            PathAndQuery::try_from(text).expect("a canonical path and a parsed query")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_prefix_has_a_short_form() {
        let places = Places::new(&Mount::Prefix("/api/v1/proxy".to_owned()));
        let never = |_: &str| unreachable!("prefixes do not ask");
        let uri = |path: &str, original: &'static str| {
            places.route(path, never).map(|route| {
                let prefix = route.prefix().unwrap().to_str().unwrap().to_owned();
                (prefix, route.uri(&Uri::from_static(original)).to_string())
            })
        };
        let way = |prefix: &str, uri: &str| Some((prefix.to_owned(), uri.to_owned()));
        let found = uri("/api/v1/proxy/a/b", "/api/v1/proxy/%61/b?x=%2f&y");
        assert_eq!(found, way("/api/v1/proxy", "/a/b?x=%2f&y"));
        assert_eq!(uri("/api/proxy", "/api/proxy?"), way("/api/proxy", "/?"));
        assert_eq!(uri("/api/v1/proxyx", "/api/v1/proxyx"), None);
        let other = Places::new(&Mount::Prefix("/app".to_owned()));
        assert!(other.route("/api/proxy/a", never).is_none());
    }

    #[test]
    fn at_the_root_everything_that_is_not_ours_passes_unchanged() {
        let places = Places::new(&Mount::Root);
        let ours = |path: &str| path.starts_with("/api/");
        assert!(places.route("/api/keys", ours).is_none());
        let route = places.route("/x", ours).unwrap();
        assert_eq!(route.uri(&Uri::from_static("/x?a=1")), "/x?a=1");
        assert_eq!(route.uri(&Uri::from_static("http://h/x?a=1")), "/x?a=1");
        assert!(route.prefix().is_none());
    }
}
