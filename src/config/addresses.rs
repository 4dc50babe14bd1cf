//! Parsers of hosts, networks, URLs, origins and mounts. What they answer is
//! canonical: lower case, no default port, no trailing slash, so that others
//! compare text with text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::{Uri, uri::Scheme};
use ipnet::IpNet;
use rustls::pki_types::ServerName;

use super::{Mount, reader::Parsed};
use crate::domain::destination::is_allowed;

/// An address to listen on. `localhost` is the only name: resolving others
/// could bind elsewhere than the operator thinks.
pub(super) fn listen_address(text: &str) -> Parsed<IpAddr> {
    if text.eq_ignore_ascii_case("localhost") {
        return Ok(Ipv4Addr::LOCALHOST.into());
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_err(|_| "expected an IP address or localhost".to_owned())
}

/// A CIDR; a bare address is a network of its own.
pub(super) fn network(text: &str) -> Parsed<IpNet> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    address.or_else(|_| text.parse()).map_err(|_| "expected an address or a CIDR".to_owned())
}

/// A host name or address without port, in lower case.
pub(super) fn host(text: &str) -> Parsed<String> {
    is_host(text).then(|| text.to_ascii_lowercase()).ok_or_else(|| {
        "expected a host name without scheme and port (leave it empty for any)".to_owned()
    })
}

/// `http(s)://host[:port]` for something that is spoken to or linked to.
pub(super) fn base_url(text: &str) -> Parsed<String> {
    let url = Parts::of(text)?;
    Ok(format!("{}://{}", url.scheme, url.authority))
}

/// The same for an upstream. What a name stands for is judged when it is
/// connected to; an address that no upstream may have is refused here already,
/// and so are the spellings of addresses that only some programs understand
/// (`127.1`, `0x7f000001`).
pub(super) fn target(text: &str) -> Parsed<String> {
    let url = base_url(text)?;
    let host = Parts::of(&url)?.host;
    let name = host.strip_suffix('.').unwrap_or(&host);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse::<IpAddr>() {
        return if is_allowed(address, false, true) {
            Ok(url)
        } else {
            Err("expected the address of a server; this one is never connected to".to_owned())
        };
    }
    let last = name.rsplit('.').next().unwrap_or_default();
    let hex = |rest: &str| rest.bytes().all(|b| b.is_ascii_hexdigit());
    let is_number =
        last.bytes().all(|b| b.is_ascii_digit()) || last.strip_prefix("0x").is_some_and(hex);
    if is_number {
        return Err("expected an address in its usual form, or a host name".to_owned());
    }
    if ServerName::try_from(name).is_err() {
        return Err("expected a host name that a certificate can be of".to_owned());
    }
    Ok(url)
}

/// Where a workflow is asked: the server, as of an upstream, and a path.
pub(super) fn webhook(text: &str) -> Parsed<(String, String)> {
    let at = text.find("://").map_or(0, |at| at + 3);
    let slash = text[at..].find('/').map_or(text.len(), |slash| at + slash);
    let (server, path) = text.split_at(slash);
    let path = if path.is_empty() { "/" } else { path };
    if path.contains(['?', '#']) {
        return Err("expected a URL without query and fragment".to_owned());
    }
    Ok((target(server)?, plain_path(path)?))
}

/// An origin as browsers send it (RFC 6454, 6.2): without the scheme's own
/// port.
pub(super) fn origin(text: &str) -> Parsed<String> {
    if text.contains('*') {
        return Err("expected exact origins; there is no wildcard".to_owned());
    }
    let url = Parts::of(text)?;
    let default_port = if url.scheme == "https" { ":443" } else { ":80" };
    let authority = url.authority.strip_suffix(default_port).unwrap_or(&url.authority);
    Ok(format!("{}://{authority}", url.scheme))
}

pub(super) fn database_url(text: &str) -> Parsed<()> {
    let rest = ["sqlite://", "postgres://", "postgresql://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme));
    rest.filter(|rest| !rest.is_empty() && !rest.contains(char::is_control))
        .map(drop)
        .ok_or_else(|| "expected sqlite://FILE or postgres://USER@HOST/DATABASE".to_owned())
}

pub(super) fn redis_url(text: &str) -> Parsed<()> {
    if text.contains(',') || text.contains("sentinel://") || text.contains("cluster://") {
        return Err("Sentinel and Cluster are not supported by this version".to_owned());
    }
    let rest = ["redis://", "rediss://"].iter().find_map(|scheme| text.strip_prefix(scheme));
    rest.filter(|rest| !rest.is_empty() && !rest.starts_with('/') && !rest.ends_with('@'))
        .map(drop)
        .ok_or_else(|| "expected redis://HOST or rediss://HOST".to_owned())
}

/// Where an upstream appears. A prefix must not hide routes of ours.
pub(super) fn mount(text: &str) -> Parsed<Mount> {
    if text == "/" {
        return Ok(Mount::Root);
    }
    let Some(path) = text.strip_prefix('/') else {
        let name = text.strip_suffix('.').unwrap_or(text);
        return if is_host(text) && name.contains('.') || name == "localhost" {
            Ok(Mount::Host(name.to_ascii_lowercase()))
        } else {
            Err("expected /, a path prefix that begins with /, or a host name".to_owned())
        };
    };
    if text.ends_with('/') {
        return Err("expected a path prefix without a slash at the end".to_owned());
    }
    let segments: Vec<_> = path.split('/').collect();
    if !segments.iter().all(|segment| is_canonical_segment(segment)) {
        return Err("expected segments of letters, digits and - . _ ~, none of them . or ..".into());
    }
    let is_ours = match segments.as_slice() {
        ["api", "proxy", ..] | ["api", "v1", "proxy", ..] => false,
        [first, ..] => {
            ["api", "health", "metrics", "console", "login", "logout", ".tollgate", ".well-known"]
                .contains(first)
        }
        [] => true,
    };
    if is_ours {
        return Err("expected a prefix that hides no route of Tollgate's own".to_owned());
    }
    Ok(Mount::Prefix(text.to_owned()))
}

/// A path in the one form that requests are brought to.
pub(super) fn plain_path(text: &str) -> Parsed<String> {
    match crate::gateway::path::canonical(text) {
        Ok(path) if path == text => Ok(text.to_owned()),
        _ => Err("expected a path that begins with / and needs no escape".to_owned()),
    }
}

/// Such a path, or one with `/*` at its end.
pub(super) fn path_pattern(text: &str) -> Parsed<String> {
    let path = match text.strip_suffix("/*") {
        Some("") => "/",
        Some(path) => path,
        None => text,
    };
    if path.contains('*') {
        return Err("expected a path, or one with /* at its end".to_owned());
    }
    plain_path(path).map(|_| text.to_owned())
}

/// Such a path in which a segment may be `*`, and the last one `**`.
pub(super) fn route_pattern(text: &str) -> Parsed<String> {
    const LONGEST: usize = 200;
    let expected = "expected a path of at most 200 characters; a segment may be *, the last one **";
    let path = text.strip_suffix("/**").unwrap_or(text);
    let plain: Vec<_> = path.split('/').map(|part| if part == "*" { "x" } else { part }).collect();
    let plain = if path.is_empty() { "/".to_owned() } else { plain.join("/") };
    let fits = text.len() <= LONGEST && !plain.contains('*') && plain_path(&plain).is_ok();
    if fits && !text.is_empty() { Ok(text.to_owned()) } else { Err(expected.to_owned()) }
}

/// RFC 3986, 2.3: the characters that never need an escape, so that a prefix
/// has one spelling only.
fn is_canonical_segment(segment: &str) -> bool {
    !matches!(segment, "" | "." | "..")
        && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b))
}

fn is_host(text: &str) -> bool {
    let v6 = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if let Some(address) = v6 {
        return address.parse::<Ipv6Addr>().is_ok();
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    text.len() <= 253 && text.strip_suffix('.').unwrap_or(text).split('.').all(label)
}

/// Scheme and authority of a URL that has nothing else.
struct Parts {
    scheme: &'static str,
    authority: String,
    /// Without the port.
    host: String,
}

impl Parts {
    fn of(text: &str) -> Parsed<Self> {
        let expected = || "expected http://HOST or https://HOST".to_owned();
        // `Uri` drops a fragment silently.
        if text.contains('#') {
            return Err("expected a URL without fragment".to_owned());
        }
        let uri: Uri = text.parse().map_err(|_| expected())?;
        let scheme = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => "http",
            Some(scheme) if *scheme == Scheme::HTTPS => "https",
            _ => return Err(expected()),
        };
        let authority = uri.authority().ok_or_else(expected)?.as_str();
        if authority.contains('@') {
            return Err("expected a URL without user name and password".to_owned());
        }
        if uri.query().is_some() || !matches!(uri.path(), "" | "/") {
            return Err("expected a URL without path and query".to_owned());
        }
        let port_at = authority.rfind(':').filter(|at| !authority[*at..].contains(']'));
        let (host, port) = authority.split_at(port_at.unwrap_or(authority.len()));
        let port_fits = || port[1..].parse::<u16>().is_ok_and(|port| port > 0);
        if !is_host(host) || !(port.is_empty() || port_fits()) {
            return Err(expected());
        }
        let lower = str::to_ascii_lowercase;
        Ok(Self { scheme, authority: lower(authority), host: lower(host) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_made_canonical() {
        assert_eq!(origin("HTTPS://Gate.Example:443"), Ok("https://gate.example".to_owned()));
        assert_eq!(origin("http://[::1]:3000"), Ok("http://[::1]:3000".to_owned()));
        assert_eq!(base_url("https://gate.example/"), Ok("https://gate.example".to_owned()));
        assert_eq!(network("10.0.0.1").unwrap().to_string(), "10.0.0.1/32");
        assert_eq!(network("2001:db8::1").unwrap().to_string(), "2001:db8::1/128");
        assert_eq!(host("Gate.Example"), Ok("gate.example".to_owned()));
        assert_eq!(listen_address("[::]").unwrap().to_string(), "::");
    }

    #[test]
    fn a_mount_has_one_spelling_and_hides_nothing() {
        for text in ["/api/v1/proxy", "/api/proxy", "/app", "/a.b/c~d", "/apis", "/healthy"] {
            assert_eq!(mount(text), Ok(Mount::Prefix(text.to_owned())));
        }
        assert_eq!(mount("/"), Ok(Mount::Root));
        assert_eq!(mount("App.Example.com."), Ok(Mount::Host("app.example.com".to_owned())));
        for text in [
            "",
            "app",
            "/app/",
            "//app",
            "/a//b",
            "/a/../b",
            "/a%2fb",
            "/ä",
            "/a b",
            "/a;b",
            "/a?b",
            "/api",
            "/api/v1",
            "/api/v1/keys",
            "/health",
            "/health/x",
            "/metrics",
            "/login",
            "/console",
            "a..example.com",
            "/.well-known",
            "/.tollgate",
            "/logout",
        ] {
            assert!(mount(text).is_err(), "{text}");
        }
    }

    #[test]
    fn urls_with_more_than_host_and_port_are_refused() {
        for text in [
            "backend:80",
            "ftp://backend",
            "http://",
            "http://u:p@backend",
            "http://backend/path",
            "http://backend?x",
            "http://backend#x",
            "http://backend:0",
            "http://backend:99999",
            "http://back end",
            "http://a..b",
            "http://-a",
            "http://[::1",
            "//backend",
        ] {
            assert!(base_url(text).is_err(), "{text}");
        }
    }
}
