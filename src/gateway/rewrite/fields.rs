//! What an answer's fields say of the upstream's place, told as the client sees
//! it. For every answer of a mount, whatever becomes of its body.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        ACCESS_CONTROL_ALLOW_ORIGIN, ALT_SVC, CONTENT_LOCATION, LINK, LOCATION, REFRESH,
        SET_COOKIE, STRICT_TRANSPORT_SECURITY,
    },
};

use super::{
    markup,
    names::{self, Names},
};

/// Fields that are one URL.
const URLS: [HeaderName; 4] = [
    LOCATION,
    CONTENT_LOCATION,
    HeaderName::from_static("sourcemap"),
    HeaderName::from_static("x-sourcemap"),
];
const SERVICE_WORKER_ALLOWED: HeaderName = HeaderName::from_static("service-worker-allowed");
/// What speaks for a whole origin. Under a path prefix that is not the
/// upstream's: it must not sign people out of its neighbours, nor have what they
/// fail at reported to itself. What the operator sets comes later and stays.
const WHOLE_ORIGIN: [HeaderName; 5] = [
    STRICT_TRANSPORT_SECURITY,
    HeaderName::from_static("clear-site-data"),
    HeaderName::from_static("nel"),
    HeaderName::from_static("report-to"),
    HeaderName::from_static("reporting-endpoints"),
];

pub fn map_fields(names: &Names, headers: &mut HeaderMap) {
    // One look at the few names that there are is cheaper than one for each name
    // that there might be.
    if !headers.keys().any(|name| is_of_a_place(name.as_str())) {
        return;
    }
    let map = |url: &str| names.map(url, true);
    for name in &URLS {
        change(headers, name, map);
    }
    change(headers, &REFRESH, |text| markup::refresh(text, &map));
    change(headers, &LINK, |text| link(text, &map));
    change_bytes(headers, &SET_COOKIE, |text| cookie(names, text));
    worker_scope(names, headers);
    if !names.site.place.is_empty() {
        for name in &WHOLE_ORIGIN {
            headers.remove(name);
        }
    }
    change(headers, &ACCESS_CONTROL_ALLOW_ORIGIN, |text| {
        let of_upstream = text.contains("://") && names.map(text, true).is_some();
        of_upstream.then(|| names.our_origin()).flatten()
    });
    // Of its port and host, of which the client is not to know.
    headers.remove(ALT_SVC);
}

/// Whether [`map_fields`] looks at a field.
fn is_of_a_place(name: &str) -> bool {
    matches!(
        name,
        "location"
            | "content-location"
            | "sourcemap"
            | "x-sourcemap"
            | "service-worker-allowed"
            | "refresh"
            | "link"
            | "set-cookie"
            | "access-control-allow-origin"
            | "alt-svc"
    )
}

/// Changes every value of a field. Nothing is copied where none changes.
pub fn change(headers: &mut HeaderMap, name: &HeaderName, change: impl Fn(&str) -> Option<String>) {
    change_bytes(headers, name, |text| Some(change(std::str::from_utf8(text).ok()?)?.into_bytes()));
}

/// The same, whatever the charset.
fn change_bytes(
    headers: &mut HeaderMap,
    name: &HeaderName,
    change: impl Fn(&[u8]) -> Option<Vec<u8>>,
) {
    let changed = |value: &HeaderValue| HeaderValue::try_from(change(value.as_bytes())?).ok();
    let http::header::Entry::Occupied(mut entry) = headers.entry(name) else { return };
    for value in entry.iter_mut() {
        if let Some(new) = changed(value) {
            *value = new;
        }
    }
}

/// Keeps a worker below the upstream's place. Of several values, which browsers
/// join, none is kept.
fn worker_scope(names: &Names, headers: &mut HeaderMap) {
    let mut values = headers.get_all(&SERVICE_WORKER_ALLOWED).iter();
    let Some(first) = values.next() else { return };
    let scope = names.worker_scope(if values.next().is_some() { b"/" } else { first.as_bytes() });
    if let Some(value) = scope.and_then(|scope| HeaderValue::try_from(scope).ok()) {
        headers.insert(SERVICE_WORKER_ALLOWED, value);
    }
}

/// The targets of a `Link`, between `<` and `>`.
fn link(text: &str, map: markup::Mapper<'_>) -> Option<String> {
    let mut out = String::with_capacity(text.len() + 64);
    let mut changed = false;
    let mut quoted = false;
    let mut rest = text;
    while let Some(at) = rest.find(['<', '"']) {
        let (before, after) = rest.split_at(at + 1);
        out.push_str(before);
        rest = after;
        if before.ends_with('"') {
            quoted = !quoted;
        } else if !quoted {
            // Not sought for again.
            let Some(end) = rest.find('>') else { break };
            let url = &rest[..end];
            let mapped = map(url);
            changed |= mapped.is_some();
            out.push_str(mapped.as_deref().unwrap_or(url));
            rest = &rest[end..];
        }
    }
    out.push_str(rest);
    changed.then_some(out)
}

/// `Path` gets the prefix; a `Domain` that is the upstream's goes, which leaves
/// the cookie to our host alone. A `__Host-` cookie must keep its path.
fn cookie(names: &Names, text: &[u8]) -> Option<Vec<u8>> {
    let mut parts = text.split(|byte| *byte == b';');
    let pair = parts.next()?.trim_ascii_start();
    let bound = pair.get(..7).is_some_and(|name| name.eq_ignore_ascii_case(b"__Host-"));
    let mut out = pair.to_vec();
    let mut changed = false;
    for part in parts {
        let equals = part.iter().position(|byte| *byte == b'=').unwrap_or(part.len());
        let (name, value) = (&part[..equals], part.get(equals + 1..).unwrap_or_default());
        let (name, value) = (name.trim_ascii(), value.trim_ascii());
        if name.eq_ignore_ascii_case(b"path") && !bound {
            if let Some(path) = cookie_path(names, value) {
                changed = true;
                out.extend_from_slice(b"; Path=");
                out.extend_from_slice(&path);
                continue;
            }
        } else if name.eq_ignore_ascii_case(b"domain")
            && is_foreign(names, &String::from_utf8_lossy(value))
        {
            changed = true;
            continue;
        }
        out.push(b';');
        out.extend_from_slice(part);
    }
    changed.then_some(out)
}

fn cookie_path(names: &Names, path: &[u8]) -> Option<Vec<u8>> {
    let prefix = names.prefix().as_bytes();
    let placed = names::is_below(path, prefix);
    if prefix.is_empty() || placed || !path.starts_with(b"/") {
        return None;
    }
    // `/prefix/` would not match `/prefix`.
    Some([prefix, if path == b"/" { b"" } else { path }].concat())
}

/// Whether a `Domain` is of the upstream, or a browser would refuse it from us.
fn is_foreign(names: &Names, domain: &str) -> bool {
    let domain = domain.trim_start_matches('.').to_ascii_lowercase();
    let covers = |authority: &[u8]| {
        let authority = String::from_utf8_lossy(authority).to_ascii_lowercase();
        let host = match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => &authority,
        };
        host.strip_suffix(domain.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    let ours = names.host.as_ref().is_none_or(|host| covers(host.as_bytes()));
    !ours || names.site.upstreams.iter().any(|own| covers(own))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{
        super::test_support::{names, names_at},
        *,
    };
    use crate::config::rewrite::RewriteConfig;

    #[test]
    fn a_path_is_cut_whatever_the_charset_of_the_cookie() {
        let mut headers = HeaderMap::new();
        headers.insert(SET_COOKIE, HeaderValue::from_bytes(b"a=\xff; Path=/").unwrap());
        map_fields(&names(), &mut headers);
        assert_eq!(headers[SET_COOKIE].as_bytes(), b"a=\xff; Path=/app");
    }

    #[test]
    fn only_an_upstream_with_a_host_to_itself_speaks_for_the_whole_of_it() {
        let knows_its_prefix = || {
            let names = names_at("", None);
            let site = super::super::Site::new(RewriteConfig::default(), "", &[]).placed_at("/lab");
            Names { site: std::sync::Arc::new(site), ..names }
        };
        for (names, passes) in
            [(names(), false), (names_at("", None), true), (knows_its_prefix(), false)]
        {
            let mut headers = HeaderMap::new();
            for name in &WHOLE_ORIGIN {
                headers.append(name, HeaderValue::from_static("x"));
                headers.append(name, HeaderValue::from_static("y"));
            }
            headers.insert(SERVICE_WORKER_ALLOWED, HeaderValue::from_static("/"));
            map_fields(&names, &mut headers);
            let scope = headers.remove(SERVICE_WORKER_ALLOWED).unwrap();
            assert_eq!(headers.is_empty(), !passes, "{}", names.site.place);
            assert_eq!(scope, format!("{}/", names.site.place));
        }
    }

    #[test]
    fn values_that_browsers_would_join_do_not_widen_a_workers_reach() {
        let mut headers = HeaderMap::new();
        headers.append(SERVICE_WORKER_ALLOWED, HeaderValue::from_static("x/"));
        headers.append(SERVICE_WORKER_ALLOWED, HeaderValue::from_static("y/"));
        map_fields(&names(), &mut headers);
        let values: Vec<_> = headers.get_all(SERVICE_WORKER_ALLOWED).iter().collect();
        assert_eq!(values, ["/app/"]);
    }

    #[test]
    fn a_link_without_an_end_takes_no_longer_than_any() {
        let links = [format!("</a>, {}", "<".repeat(300_000)), "<".repeat(300_000)];
        for (text, expected) in links.iter().zip(["</app/a>, <", "<<<<"]) {
            let mut headers = HeaderMap::new();
            headers.insert(LINK, HeaderValue::from_str(text).unwrap());
            let begun = Instant::now();
            map_fields(&names(), &mut headers);
            assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
            assert!(headers[LINK].as_bytes().starts_with(expected.as_bytes()));
            assert!(headers[LINK].len() >= text.len());
        }
    }

    #[test]
    fn no_field_of_a_place_is_overlooked() {
        let others = [REFRESH, LINK, SET_COOKIE, ACCESS_CONTROL_ALLOW_ORIGIN, ALT_SVC];
        for name in URLS.iter().chain(&others) {
            assert!(is_of_a_place(name.as_str()), "{name}");
        }
        let mut headers = HeaderMap::from_iter([(ALT_SVC, HeaderValue::from_static("h3"))]);
        map_fields(&names(), &mut headers);
        assert!(headers.is_empty());
    }

    #[test]
    fn fields_that_name_a_place_name_ours() {
        let cases: &[(&str, &str, &str)] = &[
            ("location", "http://up.example:8188/x?y#z", "/app/x?y#z"),
            ("location", "/x", "/app/x"),
            ("location", "/app/x", "/app/x"),
            ("location", "x", "x"),
            ("location", "https://other.example/x", "https://other.example/x"),
            ("content-location", "/x", "/app/x"),
            ("refresh", "0; url=/x", "0; url=/app/x"),
            (
                "link",
                "</a>; rel=preload, <b>; t=\"</c>\", <//up.example:8188/d>",
                "</app/a>; rel=preload, <b>; t=\"</c>\", </app/d>",
            ),
            ("sourcemap", "/m.map", "/app/m.map"),
            ("access-control-allow-origin", "http://up.example:8188", "https://gate.example"),
            ("access-control-allow-origin", "*", "*"),
            ("set-cookie", "a=/b; Path=/; HttpOnly", "a=/b; Path=/app; HttpOnly"),
            ("set-cookie", "a=b;path=/x;Secure", "a=b; Path=/app/x;Secure"),
            ("set-cookie", "a=b; Path=/app", "a=b; Path=/app"),
            ("set-cookie", "__Host-a=b; Path=/; Secure", "__Host-a=b; Path=/; Secure"),
            ("set-cookie", "a=b; Domain=up.example", "a=b"),
            ("set-cookie", "a=b; Domain=.example; Path=/", "a=b; Path=/app"),
            ("set-cookie", "a=b; Domain=gate.example", "a=b; Domain=gate.example"),
            ("set-cookie", "a=b; Domain=else.example", "a=b"),
        ];
        for (name, value, expected) in cases {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            let mut headers = HeaderMap::new();
            headers.append(&name, HeaderValue::from_static("untouched"));
            headers.append(&name, HeaderValue::from_static(value));
            for _ in 0..2 {
                map_fields(&names(), &mut headers);
                let values: Vec<_> = headers.get_all(&name).iter().collect();
                assert_eq!(values, ["untouched", expected], "{name}: {value}");
            }
        }
    }
}
