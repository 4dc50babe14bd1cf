//! Which site's pages send a request.

use sha2::{Digest, Sha256};

/// The host of an `Origin`, as a digest: counters hold no names, and whoever
/// makes hosts up cannot make long ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OriginHost(u64);

impl OriginHost {
    /// Stands for no host in particular.
    pub const NONE: Self = Self(0);

    /// Of the field's value: scheme, host and perhaps a port (RFC 6454, 6.2).
    /// `None` for `null` and whatever else names no host. The scheme and the
    /// port do not matter, nor does the case.
    pub fn of(origin: &[u8]) -> Option<Self> {
        /// Of a name in the DNS; also of an address in brackets.
        const LONGEST: usize = 253;
        let origin = std::str::from_utf8(origin).ok()?;
        let (scheme, authority) = origin.split_once("://")?;
        let is_scheme = !scheme.is_empty()
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
        let host = if authority.starts_with('[') {
            let end = authority.find(']')?;
            let (host, port) = authority.split_at(end + 1);
            host[1..end].parse::<std::net::Ipv6Addr>().ok()?;
            (port.is_empty() || is_port(port.strip_prefix(':')?)).then_some(host)?
        } else {
            let (host, port) = authority.split_once(':').unwrap_or((authority, "80"));
            is_port(port).then_some(host)?
        };
        let host = host.strip_suffix('.').unwrap_or(host);
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._[]:".contains(&b);
        if !is_scheme || host.is_empty() || host.len() > LONGEST || !host.bytes().all(plain) {
            return None;
        }
        let digest = Sha256::digest(host.to_ascii_lowercase());
        Some(Self(u64::from_be_bytes(digest[..8].try_into().expect("eight of 32 bytes"))))
    }

    pub fn digest(self) -> u64 {
        self.0
    }
}

fn is_port(text: &str) -> bool {
    (1..=5).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_host_matters() {
        let of = |origin: &str| OriginHost::of(origin.as_bytes());
        let known = of("https://app.example.com").unwrap();
        for same in
            ["http://app.example.com:8080", "https://APP.example.com", "https://app.example.com."]
        {
            assert_eq!(of(same), Some(known), "{same}");
        }
        for other in ["https://example.com", "https://app.example.co", "https://[::1]:3000"] {
            assert!(of(other).is_some_and(|host| host != known), "{other}");
        }
        for bad in [
            "",
            "null",
            "https://",
            "://a.example",
            "app.example.com",
            "https://a.example/",
            "https://u@a.example",
            "https://a.example:",
            "https://a.example:x",
            "https://a b",
            "https://[::1",
            "https://[a.example]",
            "https://.",
            &format!("https://{}", "a".repeat(254)),
        ] {
            assert_eq!(of(bad), None, "{bad}");
        }
        assert_eq!(OriginHost::of(b"https://\xff.example"), None);
    }
}
