//! Where upstreams appear among hosts and paths.

use std::{collections::HashMap, sync::Arc};

use http::{HeaderValue, Uri, uri::PathAndQuery};

use super::{path::below, rewrite::Site, upstream::Upstream};
use crate::{
    config::{HostHeader, Mount},
    services::upstreams::UpstreamState,
};

/// The default place, which has a short form too.
const DEFAULT_PREFIX: &str = "/api/v1/proxy";
const SHORT_PREFIX: &str = "/api/proxy";

/// Reserved on every host: what browsers need of us.
const OWN: &str = "/.tollgate";

/// The upstreams of one worker, and the way to each.
#[derive(Default)]
pub struct Table {
    /// Of the directory that it was made from.
    pub generation: u64,
    hosts: HashMap<String, Place>,
    /// The longest prefix first.
    prefixes: Vec<Place>,
    root: Option<Place>,
}

/// One place of an upstream.
struct Place {
    upstream: Arc<Upstream>,
    /// Without trailing slash; empty where every path is the upstream's.
    prefix: String,
    header: HeaderValue,
    site: Arc<Site>,
}

/// A request's way to an upstream.
#[derive(Clone, Copy)]
pub struct Route<'p> {
    pub upstream: &'p Upstream,
    /// What is left of the canonical path; begins with a slash.
    pub path: &'p str,
    /// The canonical path.
    whole: &'p str,
    place: &'p Place,
}

impl Table {
    pub fn new(generation: u64, upstreams: impl IntoIterator<Item = Arc<Upstream>>) -> Self {
        let mut table = Self { generation, ..Self::default() };
        for upstream in upstreams {
            match &upstream.config.mount {
                Mount::Root => table.root = Some(Place::new(&upstream, "")),
                Mount::Host(host) => {
                    table.hosts.insert(host.clone(), Place::new(&upstream, ""));
                }
                Mount::Prefix(prefix) => {
                    table.prefixes.push(Place::new(&upstream, prefix));
                    if prefix == DEFAULT_PREFIX {
                        table.prefixes.push(Place::new(&upstream, SHORT_PREFIX));
                    }
                }
            }
        }
        table.prefixes.sort_by_key(|place| std::cmp::Reverse(place.prefix.len()));
        table
    }

    /// The upstream that was made from this very state.
    pub fn of(&self, state: &Arc<UpstreamState>) -> Option<Arc<Upstream>> {
        let places = self.hosts.values().chain(&self.prefixes).chain(&self.root);
        let mut upstreams = places.map(|place| &place.upstream);
        upstreams.find(|upstream| Arc::ptr_eq(&upstream.state, state)).cloned()
    }

    /// The way of a canonical path on a host; `None` if it is no upstream's. At
    /// the root a path is the upstream's unless `ours` claims it.
    pub fn route<'p>(
        &'p self,
        host: Option<&HeaderValue>,
        path: &'p str,
        ours: impl FnOnce(&str) -> bool,
    ) -> Option<Route<'p>> {
        if let Some(place) = self.host(host) {
            return below(path, OWN).is_none().then(|| place.route(path, path));
        }
        let by_prefix = self
            .prefixes
            .iter()
            .find_map(|place| below(path, &place.prefix).map(|below| place.route(path, below)));
        by_prefix.or_else(|| {
            let root = self.root.as_ref()?;
            (below(path, OWN).is_none() && !ours(path)).then(|| root.route(path, path))
        })
    }

    /// Whether an upstream is mounted at this host.
    pub fn has_host(&self, host: Option<&HeaderValue>) -> bool {
        self.host(host).is_some()
    }

    fn host(&self, host: Option<&HeaderValue>) -> Option<&Place> {
        if self.hosts.is_empty() {
            return None;
        }
        let host = host?.to_str().ok()?;
        let name = match host.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => name,
            _ => host,
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        self.hosts.get(&name.to_ascii_lowercase())
    }
}

impl Place {
    fn new(upstream: &Arc<Upstream>, prefix: &str) -> Self {
        let config = &upstream.config;
        let mut names: Vec<_> = config.targets.iter().map(|target| target.url.clone()).collect();
        if let HostHeader::Fixed(host) = &config.host {
            names.push(format!("http://{host}"));
        }
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let mapped = if config.strip_prefix { prefix } else { "" };
        Self {
            upstream: Arc::clone(upstream),
            prefix: prefix.to_owned(),
            header: HeaderValue::from_str(prefix).expect("a checked path prefix"),
            site: Arc::new(Site::new(config.rewrite.clone(), mapped, &names).placed_at(prefix)),
        }
    }

    fn route<'p>(&'p self, whole: &'p str, path: &'p str) -> Route<'p> {
        Route { upstream: &self.upstream, path, whole, place: self }
    }
}

impl<'p> Route<'p> {
    /// The value of `X-Forwarded-Prefix`; `None` where nothing was taken off.
    pub fn prefix(&self) -> Option<&'p HeaderValue> {
        let taken_off = !self.place.prefix.is_empty() && self.upstream.config.strip_prefix;
        taken_off.then_some(&self.place.header)
    }

    /// What answers are rewritten by.
    pub fn site(&self) -> &'p Arc<Site> {
        &self.place.site
    }

    /// The URI for the upstream: this path, and the query as it came.
    pub fn uri(&self, original: &Uri) -> Uri {
        let stripped = self.upstream.config.strip_prefix;
        Uri::from(path_and_query(original, if stripped { self.path } else { self.whole }))
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
    use crate::{
        config::{Config, Sources},
        domain::clock::SystemClock,
        services::upstreams::{UpstreamService, resolver::SystemResolver},
    };

    /// Of upstreams mounted at these places, named so.
    fn table(mounts: &[&str]) -> Table {
        table_with(mounts, &[])
    }

    /// The same, with more lines in their tables.
    fn table_with(mounts: &[&str], more: &[&str]) -> Table {
        let tables = mounts.iter().enumerate().map(|(at, mount)| {
            let more = more.get(at).unwrap_or(&"");
            format!(
                "[[upstreams]]\nname='u{at}'\nmount='{mount}'\nurl='http://127.0.0.1:1'\n{more}"
            )
        });
        let file = Some(tables.collect());
        let config = Config::load(&Sources { file, ..Sources::default() }).unwrap();
        let (clock, resolver) = (Arc::new(SystemClock), Arc::new(SystemResolver));
        let directory = UpstreamService::new(&config.upstreams, clock, resolver).current();
        let upstreams = directory.upstreams.iter().map(Upstream::new);
        Table::new(1, upstreams.map(Arc::new))
    }

    /// Upstream, prefix and path; `None` where it is no upstream's.
    type Way<'p> = Option<[&'p str; 3]>;

    fn way<'p>(table: &'p Table, host: &str, path: &'p str) -> Way<'p> {
        let host = HeaderValue::from_str(host).unwrap();
        let ours = |path: &str| path.starts_with("/api/keys");
        table.route(Some(&host), path, ours).map(|route| {
            let prefix = route.prefix().map_or("", |prefix| prefix.to_str().unwrap());
            [route.upstream.config.name, prefix, route.path]
        })
    }

    #[tokio::test]
    async fn the_default_prefix_has_a_short_form() {
        let table = self::table(&["/api/v1/proxy"]);
        assert_eq!(way(&table, "a", "/api/v1/proxy/x"), Some(["u0", "/api/v1/proxy", "/x"]));
        assert_eq!(way(&table, "a", "/api/proxy"), Some(["u0", "/api/proxy", "/"]));
        assert_eq!(way(&table, "a", "/api/v1/proxyx"), None);
        let other = self::table(&["/app"]);
        assert_eq!(way(&other, "a", "/api/proxy/a"), None);
        let host = HeaderValue::from_static("a");
        let route = table.route(Some(&host), "/api/v1/proxy/a/b", |_| false).unwrap();
        let uri = |text: &'static str| route.uri(&Uri::from_static(text)).to_string();
        assert_eq!(uri("/api/v1/proxy/%61/b?x=%2f&y"), "/a/b?x=%2f&y");
        assert_eq!(uri("/api/v1/proxy/a/b?"), "/a/b?");
    }

    #[tokio::test]
    async fn a_prefix_that_the_upstream_knows_stays_on_its_path() {
        let table = table_with(&["/app"], &["strip_prefix = false\n"]);
        let host = HeaderValue::from_static("a");
        for (asked, below) in [("/app", "/"), ("/app/x", "/x"), ("/app/app/x", "/app/x")] {
            let route = table.route(Some(&host), asked, |_| false).unwrap();
            // Policies speak of what is below the mount all the same.
            assert_eq!((route.path, route.prefix()), (below, None));
            assert_eq!(route.uri(&Uri::from_static("/app?q")).to_string(), format!("{asked}?q"));
        }
    }

    #[tokio::test]
    async fn host_then_longest_prefix_then_ours_then_root() {
        let table = self::table(&["/", "/app", "/app/inner", "a.example.com"]);
        for (host, path, expected) in [
            ("a.example.com", "/app/x", Some(["u3", "", "/app/x"])),
            ("A.example.com:8443", "/api/keys", Some(["u3", "", "/api/keys"])),
            ("a.example.com.", "/login", Some(["u3", "", "/login"])),
            ("a.example.com", "/.tollgate/login", None),
            ("b.example.com", "/app/x", Some(["u1", "/app", "/x"])),
            ("a.example.com.evil.com", "/app/x", Some(["u1", "/app", "/x"])),
            ("b", "/app/inner/x", Some(["u2", "/app/inner", "/x"])),
            ("b", "/app/innerx", Some(["u1", "/app", "/innerx"])),
            ("b", "/api/keys/1", None),
            ("b", "/.tollgate/login", None),
            ("b", "/elsewhere", Some(["u0", "", "/elsewhere"])),
            ("[::1]:80", "/", Some(["u0", "", "/"])),
        ] {
            assert_eq!(way(&table, host, path), expected, "{host} {path}");
        }
    }
}
