//! Which route of an upstream a path belongs to: one of the patterns that the
//! operator wrote down, so that there are only as many as those.

/// All that no pattern matches.
pub const OTHER: &str = "/**";

/// A path in which `*` stands for any one segment, and `/**` at the end for all
/// below and the path itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutePattern {
    /// As the operator wrote it. It lives as long as the process, since records
    /// hold on to it.
    text: &'static str,
}

impl RoutePattern {
    /// `text` must be canonical but for the wildcards; the configuration checks
    /// that.
    pub fn new(text: &'static str) -> Self {
        Self { text }
    }

    pub fn as_str(&self) -> &'static str {
        self.text
    }

    /// Whether a canonical path is of this route. Allocates nothing.
    pub fn matches(&self, path: &str) -> bool {
        let (pattern, below) = match self.text.strip_suffix("/**") {
            Some(pattern) => (pattern, true),
            None => (self.text, false),
        };
        let mut segments = path.split('/');
        for expected in pattern.split('/') {
            match segments.next() {
                Some(segment) if expected == segment => {}
                Some(segment) if expected == "*" && !segment.is_empty() => {}
                _ => return false,
            }
        }
        below || segments.next().is_none()
    }
}

/// The first of `patterns` that a path matches.
pub fn route_of(patterns: &[RoutePattern], path: &str) -> &'static str {
    patterns.iter().find(|pattern| pattern.matches(path)).map_or(OTHER, RoutePattern::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_one_segment_and_two_are_all_below() {
        for (pattern, path, matches) in [
            ("/", "/", true),
            ("/", "/a", false),
            ("/a", "/a", true),
            ("/a", "/a/", false),
            ("/a", "/ab", false),
            ("/a/", "/a/", true),
            ("/a/*", "/a/b", true),
            ("/a/*", "/a/", false),
            ("/a/*", "/a", false),
            ("/a/*", "/a/b/c", false),
            ("/a/*/c", "/a/b/c", true),
            ("/a/*/c", "/a/b/d", false),
            ("/*/b", "/a/b", true),
            ("/*", "/", false),
            ("/*", "/a", true),
            ("/a/**", "/a", true),
            ("/a/**", "/a/", true),
            ("/a/**", "/a/b/c", true),
            ("/a/**", "/ab", false),
            ("/a/*/**", "/a", false),
            ("/a/*/**", "/a/b", true),
            ("/a/*/**", "/a/b/c/d", true),
            ("/**", "/", true),
            ("/**", "/a/b", true),
        ] {
            assert_eq!(RoutePattern::new(pattern).matches(path), matches, "{pattern} {path}");
        }
    }

    #[test]
    fn the_first_that_matches_counts() {
        let patterns = ["/v1/chat/*", "/v1/**", "/v1/chat/x"].map(RoutePattern::new);
        for (path, route) in
            [("/v1/chat/x", "/v1/chat/*"), ("/v1/chat", "/v1/**"), ("/v2", OTHER), ("/", OTHER)]
        {
            assert_eq!(route_of(&patterns, path), route, "{path}");
        }
        assert_eq!(route_of(&[], "/x"), OTHER);
    }
}
