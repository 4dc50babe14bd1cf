//! What an answer's fields say of the upstream's place, told as the client sees
//! it. For every answer of a mount, whatever becomes of its body.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        ACCESS_CONTROL_ALLOW_ORIGIN, ALT_SVC, CONTENT_LOCATION, LINK, LOCATION, REFRESH, SET_COOKIE,
    },
};

use super::{
    markup,
    names::{self, Names},
};

/// Fields that are one URL.
const URLS: [HeaderName; 5] = [
    LOCATION,
    CONTENT_LOCATION,
    HeaderName::from_static("sourcemap"),
    HeaderName::from_static("x-sourcemap"),
    // A path, and to be cut in the same way.
    HeaderName::from_static("service-worker-allowed"),
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
    change(headers, &SET_COOKIE, |text| cookie(names, text));
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
    let changed = |value: &HeaderValue| {
        let text = std::str::from_utf8(value.as_bytes()).ok()?;
        HeaderValue::try_from(change(text)?).ok()
    };
    let http::header::Entry::Occupied(mut entry) = headers.entry(name) else { return };
    for value in entry.iter_mut() {
        if let Some(new) = changed(value) {
            *value = new;
        }
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
        } else if !quoted && let Some(end) = rest.find('>') {
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
fn cookie(names: &Names, text: &str) -> Option<String> {
    let mut parts = text.split(';');
    let pair = parts.next()?;
    let bound = pair.trim_start().get(..7).is_some_and(|name| name.eq_ignore_ascii_case("__Host-"));
    let mut out = pair.to_owned();
    let mut changed = false;
    for part in parts {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let (name, value) = (name.trim(), value.trim());
        if name.eq_ignore_ascii_case("path") && !bound {
            if let Some(path) = cookie_path(names, value) {
                changed = true;
                out.push_str("; Path=");
                out.push_str(&path);
                continue;
            }
        } else if name.eq_ignore_ascii_case("domain") && is_foreign(names, value) {
            changed = true;
            continue;
        }
        out.push(';');
        out.push_str(part);
    }
    changed.then_some(out)
}

fn cookie_path(names: &Names, path: &str) -> Option<String> {
    let prefix = names.prefix();
    let placed = names::is_below(path.as_bytes(), prefix.as_bytes());
    if prefix.is_empty() || placed || !path.starts_with('/') {
        return None;
    }
    // `/prefix/` would not match `/prefix`.
    Some(format!("{prefix}{}", if path == "/" { "" } else { path }))
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
    use super::{super::test_support::names, *};

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
            ("service-worker-allowed", "/", "/app/"),
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
