//! What proxies in front of us say about the client, and whether to believe it.
//!
//! `X-Forwarded-*` counts only on a connection from a trusted proxy, and is read
//! from the right: each hop appends the peer that it saw, so everything left of
//! the first address that is not a trusted proxy may have been made up by that
//! address. `Forwarded` and `X-Real-IP` are never read.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;

use super::client::Scheme;
use crate::domain::address::canonical;

/// Client, scheme and host behind trusted proxies.
#[derive(Debug, PartialEq, Eq)]
pub struct Origin<'h> {
    pub address: IpAddr,
    pub scheme: Scheme,
    /// The value of `X-Forwarded-Host`, if it counts.
    pub host: Option<&'h str>,
}

/// Reads the proxies' fields; `scheme` is how the peer reached us. An entry that is no address ends the walk at the
/// hop that reported it.
pub fn origin<'h>(
    peer: IpAddr,
    scheme: Scheme,
    headers: &'h HeaderMap,
    trusted: &[IpNet],
) -> Origin<'h> {
    let peer = canonical(peer);
    if !is_trusted(peer, trusted) {
        return Origin { address: peer, scheme, host: None };
    }
    let scheme = match last(headers, "x-forwarded-proto") {
        Some(said) if said.eq_ignore_ascii_case("https") => Scheme::Https,
        Some(_) => Scheme::Http,
        None => scheme,
    };
    let host = last(headers, "x-forwarded-host").filter(|host| is_host(host.as_bytes()));
    Origin { address: walk(peer, headers, trusted), scheme, host }
}

/// Whether the bytes may be a `Host`: a name or address, perhaps with a port.
/// Nothing that could end an authority or begin a path, no user, and nothing of
/// which two readers could take another part for the name.
pub fn is_host(host: &[u8]) -> bool {
    if host.len() > 261 {
        return false;
    }
    let (name_is_good, rest) = if let Some(inner) = host.strip_prefix(b"[") {
        let Some(end) = inner.iter().position(|byte| *byte == b']') else { return false };
        let is_address =
            str::from_utf8(&inner[..end]).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok());
        (is_address, &inner[end + 1..])
    } else {
        let end = host.iter().position(|byte| *byte == b':').unwrap_or(host.len());
        (is_name(&host[..end]), &host[end..])
    };
    let port_is_good = match rest {
        [] => true,
        [b':', port @ ..] => port.len() <= 5 && port.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    name_is_good && port_is_good
}

/// Labels with dots between them, and perhaps one at the end.
fn is_name(name: &[u8]) -> bool {
    let name = name.strip_suffix(b".").unwrap_or(name);
    name.split(|byte| *byte == b'.').all(|label| {
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        !label.is_empty() && label.iter().all(is_plain)
    })
}

/// What is said in place of the host that a request asks for, where the public
/// URL is of `public`; `None`: nothing else. A name that the operator has given,
/// too, stays, at the public URL's port.
pub fn said_instead(
    asked: Option<&str>,
    public: &str,
    is_known: impl FnOnce(&str) -> bool,
) -> Option<HeaderValue> {
    let Some(asked) = asked else { return HeaderValue::from_str(public).ok() };
    if asked == public {
        return None;
    }
    let (public_name, name) = (without_port(public), without_port(asked));
    if name.eq_ignore_ascii_case(public_name) || !is_known(name) {
        return HeaderValue::from_str(public).ok();
    }
    let port = &public[public_name.len()..];
    if asked.len() == name.len() + port.len() && asked.ends_with(port) {
        return None;
    }
    HeaderValue::from_str(&format!("{name}{port}")).ok()
}

/// A host without its port, for comparisons.
pub fn without_port(host: &str) -> &str {
    if host.starts_with('[') {
        return host.split_inclusive(']').next().unwrap_or(host);
    }
    host.split_once(':').map_or(host, |(name, _)| name)
}

fn walk(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let mut hop = peer;
    for field in headers.get_all("x-forwarded-for").iter().rev() {
        let Ok(field) = field.to_str() else { return hop };
        for entry in field.rsplit(',') {
            let Some(address) = parse(entry) else { return hop };
            hop = address;
            if !is_trusted(hop, trusted) {
                return hop;
            }
        }
    }
    hop
}

/// An address, perhaps with a port; IPv6 may stand in brackets.
fn parse(entry: &str) -> Option<IpAddr> {
    let entry = entry.trim_matches([' ', '\t']);
    let bare = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = match bare {
        Some(inner) => IpAddr::V6(inner.parse().ok()?),
        None => entry
            .parse::<IpAddr>()
            .or_else(|_| entry.parse::<SocketAddr>().map(|socket| socket.ip()))
            .ok()?,
    };
    Some(canonical(address))
}

fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|net| net.contains(&address))
}

/// The right-most element: what the nearest proxy said.
fn last<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let value = headers.get_all(name).iter().next_back()?;
    value.to_str().ok()?.rsplit(',').next().map(|element| element.trim_matches([' ', '\t']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(peer: &str, fields: &[&str]) -> String {
        let trusted: Vec<IpNet> =
            ["10.0.0.0/8", "2001:db8:ffff::/48"].map(|net| net.parse().unwrap()).into();
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append("x-forwarded-for", HeaderValue::from_bytes(field.as_bytes()).unwrap());
        }
        origin(peer.parse().unwrap(), Scheme::Http, &headers, &trusted).address.to_string()
    }

    #[test]
    fn the_right_most_untrusted_hop_is_the_client() {
        for (peer, fields, client) in [
            // A stranger may claim what it likes.
            ("192.0.2.9", &["1.1.1.1"][..], "192.0.2.9"),
            ("::ffff:192.0.2.9", &["1.1.1.1"], "192.0.2.9"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.7"], "203.0.113.7"),
            ("::ffff:10.0.0.1", &["203.0.113.7"], "203.0.113.7"),
            ("10.0.0.1", &["1.1.1.1, 203.0.113.7"], "203.0.113.7"),
            ("10.0.0.1", &["1.1.1.1", "203.0.113.7"], "203.0.113.7"),
            ("10.0.0.1", &["203.0.113.7", "10.0.0.2,10.0.0.3"], "203.0.113.7"),
            ("10.0.0.1", &["1.1.1.1,203.0.113.7,\t10.9.9.9 "], "203.0.113.7"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", &["203.0.113.7:4711"], "203.0.113.7"),
            ("10.0.0.1", &["[2001:db8::7]:443"], "2001:db8::7"),
            ("10.0.0.1", &["[2001:db8::7]"], "2001:db8::7"),
            ("10.0.0.1", &["2001:db8::7"], "2001:db8::7"),
            ("10.0.0.1", &["::ffff:203.0.113.7"], "203.0.113.7"),
            ("2001:db8:ffff::1", &["203.0.113.7"], "203.0.113.7"),
            // Garbage ends the walk at the hop that reported it.
            ("10.0.0.1", &["unknown"], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.7, "], "10.0.0.1"),
            ("10.0.0.1", &[""], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.7, unknown, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["203.0.113.007"], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.7/24"], "10.0.0.1"),
            ("10.0.0.1", &["fe80::1%eth0"], "10.0.0.1"),
            ("10.0.0.1", &["\"203.0.113.7\""], "10.0.0.1"),
            ("10.0.0.1", &["[203.0.113.7]"], "10.0.0.1"),
            ("10.0.0.1", &["é"], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.7;x"], "10.0.0.1"),
        ] {
            assert_eq!(address(peer, fields), client, "{peer} {fields:?}");
        }
    }

    #[test]
    fn scheme_and_host_count_only_from_a_trusted_peer() {
        use Scheme::{Http, Https};
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let mut headers = HeaderMap::new();
        let seen = |peer: &str, own, headers: &HeaderMap| {
            let seen = origin(peer.parse().unwrap(), own, headers, &trusted);
            (seen.scheme, seen.host.map(str::to_owned))
        };
        for own in [Http, Https] {
            assert_eq!(seen("10.0.0.1", own, &headers), (own, None));
            assert_eq!(seen("192.0.2.1", own, &headers), (own, None));
        }
        headers.insert("x-forwarded-proto", HeaderValue::from_static("http, HTTPS"));
        headers.insert("x-forwarded-host", HeaderValue::from_static("evil, a.example:8443"));
        let host = Some("a.example:8443".to_owned());
        assert_eq!(seen("10.0.0.1", Http, &headers), (Https, host.clone()));
        assert_eq!(seen("192.0.2.1", Http, &headers), (Http, None));
        headers.insert("x-forwarded-proto", HeaderValue::from_static("https, http"));
        assert_eq!(seen("10.0.0.1", Https, &headers), (Http, host));
        assert_eq!(seen("192.0.2.1", Https, &headers), (Https, None));
        headers.insert("x-forwarded-host", HeaderValue::from_static("a/b"));
        assert_eq!(seen("10.0.0.1", Http, &headers).1, None);
    }

    #[test]
    fn hosts_are_compared_without_port() {
        for (host, name) in [
            ("a.example", "a.example"),
            ("a.example:80", "a.example"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
        ] {
            assert_eq!(without_port(host), name);
        }
        let long = "a".repeat(300);
        for bad in [
            "", "a b", "a/b", "a@b", "a?b", "a#b", "a\\b", "é", &long, ":80", "a:b", "a:80:90",
            "a:123456", "a:+1", "[::1", "::1", "[]", "[::1]80", "[::1]:x", "[a]b", "a[b]", "[g]",
            "a,b",
        ] {
            assert!(!is_host(bad.as_bytes()), "{bad}");
        }
        for bad in [".", "a..", "a..b", ".a", "a:1:2", "a:", "a:b", "a:123456", "[a.example]"] {
            // An empty port is allowed by RFC 3986.
            assert_eq!(is_host(bad.as_bytes()), bad == "a:", "{bad}");
        }
        for bad in ["[::1", "[::1]a", "[::1]:x", "[]", "::1", "[::1]:1:2"] {
            assert!(!is_host(bad.as_bytes()), "{bad}");
        }
        for good in ["a", "a.", "a_b.example:80", "[::1]", "[::1]:80", "127.0.0.1:1"] {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        for good in ["a", "a.b.", "a_b:65535", "A-1:80", "[::1]", "[::ffff:1.2.3.4]:80", "a:"] {
            assert!(is_host(good.as_bytes()), "{good}");
        }
    }

    #[test]
    fn only_hosts_that_the_operator_knows_are_said() {
        let public = "gate.example:8443";
        for (asked, said) in [
            (None, Some(public)),
            (Some("gate.example:8443"), None),
            (Some("gate.example"), Some(public)),
            (Some("GATE.example:8443"), Some(public)),
            (Some("gate.example:1"), Some(public)),
            (Some("evil.example"), Some(public)),
            (Some("evil.example:8443"), Some(public)),
            (Some("known.example:8443"), None),
            (Some("known.example"), Some("known.example:8443")),
            (Some("known.example:1"), Some("known.example:8443")),
        ] {
            let instead = said_instead(asked, public, |name| name == "known.example");
            assert_eq!(instead.as_ref().map(|host| host.to_str().unwrap()), said, "{asked:?}");
        }
        assert_eq!(said_instead(Some("[::1]"), "[::1]", |_| false), None);
        let known = said_instead(Some("[::1]:81"), "gate.example", |name| name == "[::1]");
        assert_eq!(known.unwrap(), "[::1]");
    }
}
