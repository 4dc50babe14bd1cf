//! Which URLs point at the upstream, and what they are called under the prefix.
//!
//! An upstream that knows nothing of its prefix writes `/x`, `//host/x` or
//! `http://host/x`, where the host is its own or, if it reads
//! `X-Forwarded-Host`, ours. All of these become `/prefix/x`; everything else
//! stays. So does what begins with the prefix already, which makes mapping
//! idempotent, at the price that an upstream's own path of the same name must
//! carry the prefix twice. `/.tollgate/` is ours on every host and stays too.
//!
//! Only the beginning of a URL is ever replaced, see [`Edit`]; the rest is not
//! looked at, whatever its charset.

use std::{borrow::Cow, sync::Arc};

use http::HeaderValue;
use url::{Position, Url};

use super::Site;
use crate::gateway::Arrival;
use crate::server::client::Scheme;

/// What belongs to us on every host.
const RESERVED: &[u8] = b"/.tollgate";

/// The names that one request knows upstream and gateway by.
#[derive(Clone, Debug)]
pub struct Names {
    pub site: Arc<Site>,
    /// What the client knows us by, with its port.
    pub host: Option<HeaderValue>,
    pub scheme: Scheme,
}

/// A URL's first `strip` bytes become `insert`.
#[derive(Debug, PartialEq, Eq)]
pub struct Edit<'a> {
    pub strip: usize,
    pub insert: Cow<'a, str>,
}

/// The kinds of URL by their beginning.
enum Form {
    /// The scheme says that it is for a WebSocket.
    Absolute {
        socket: bool,
    },
    Rooted,
}

impl Names {
    pub fn of(arrival: &Arrival<'_>) -> Self {
        let client = arrival.client;
        let site = Arc::clone(arrival.route.site());
        Self { site, host: client.said_host().cloned(), scheme: client.browser_scheme }
    }

    pub fn prefix(&self) -> &str {
        &self.site.prefix
    }

    /// What to replace for a URL to point at the upstream's place here. `None`:
    /// nothing. `rooted`: whether a path alone points at the upstream, which
    /// it does unless the document has another base.
    pub fn edit(&self, url: &[u8], rooted: bool) -> Option<Edit<'_>> {
        // Browsers skip these.
        let start = url.iter().take_while(|byte| **byte <= b' ').count();
        let (form, after) = split(&url[start..])?;
        let at = start + after;
        let authority = match form {
            Form::Rooted if !rooted => return None,
            Form::Rooted => None,
            Form::Absolute { .. } => Some(authority(&url[at..])),
        };
        let path_at = at + authority.map_or(0, <[u8]>::len);
        let path = &url[path_at..];
        let slash = path.first().is_some_and(|byte| is_slash(*byte));
        let placed =
            slash && (is_below(path, self.prefix().as_bytes()) || is_below(path, RESERVED));
        let prefix = if placed { "" } else { self.prefix() };
        let upstream = match authority {
            None if placed || prefix.is_empty() => return None,
            None => return Some(Edit { strip: start, insert: Cow::Borrowed(prefix) }),
            Some(authority) => self.site.upstreams.iter().any(|own| is_same(authority, own)),
        };
        let host = self.host.as_ref().map_or(&b""[..], |host| host.as_bytes());
        let ours = authority.is_some_and(|authority| is_same(authority, host));
        if !upstream && (!ours || placed || prefix.is_empty()) {
            return None;
        }
        let slash = if slash { "" } else { "/" };
        let insert = match form {
            // A path alone would be an http URL.
            Form::Absolute { socket: true } => {
                let scheme = if self.scheme == Scheme::Https { "wss" } else { "ws" };
                let host = std::str::from_utf8(host).ok().filter(|host| !host.is_empty())?;
                Cow::Owned(format!("{scheme}://{host}{prefix}{slash}"))
            }
            // `//x` would be a host.
            _ if prefix.is_empty() && path.get(1).is_some_and(|byte| is_slash(*byte)) => {
                Cow::Borrowed("/.")
            }
            _ if slash.is_empty() => Cow::Borrowed(prefix),
            _ => Cow::Owned(format!("{prefix}/")),
        };
        Some(Edit { strip: path_at, insert })
    }

    /// The mapped URL, if it is another.
    pub fn map(&self, url: &str, rooted: bool) -> Option<String> {
        let edit = self.edit(url.as_bytes(), rooted)?;
        // All that is stripped is ASCII or part of an authority of ours.
        Some(format!("{}{}", edit.insert, url.get(edit.strip..)?))
    }

    /// What an upstream that is told `host` believes its origin to be.
    pub fn told_origin(&self, host: Option<&HeaderValue>) -> Option<String> {
        let told = host?;
        if self.host.as_ref().is_some_and(|own| is_same(own.as_bytes(), told.as_bytes())) {
            return self.our_origin();
        }
        Some(format!("{}://{}", self.site.scheme, told.to_str().ok()?))
    }

    /// What the upstream calls a URL of a request's field that points here, where
    /// it believes to be at `origin`.
    pub fn unmap(&self, url: &str, origin: &str) -> Option<String> {
        let (form, after) = split(url.as_bytes())?;
        let path = match form {
            Form::Rooted => url,
            Form::Absolute { .. } => {
                let rest = url.get(after..)?;
                let authority = authority(rest.as_bytes());
                let host = self.host.as_ref()?;
                if !is_same(authority, host.as_bytes()) {
                    return None;
                }
                rest.get(authority.len()..)?
            }
        };
        let bare =
            if self.prefix().is_empty() || is_below(path.as_bytes(), self.prefix().as_bytes()) {
                path.get(self.prefix().len()..)?
            } else {
                // Another page of this origin: only that is said.
                ""
            };
        let slash = if bare.starts_with('/') { "" } else { "/" };
        let origin = match form {
            Form::Rooted => "",
            Form::Absolute { .. } => origin,
        };
        Some(format!("{origin}{slash}{bare}"))
    }

    /// Whether an `Origin` is the one the client knows us by.
    pub fn is_our_origin(&self, origin: &str) -> bool {
        self.is_our_url(origin) && !origin[self.scheme.as_str().len() + 3..].contains('/')
    }

    /// Whether a whole URL is of the origin that the client knows us by. Another
    /// scheme or port is another origin, which the upstream must not trust.
    pub fn is_our_url(&self, url: &str) -> bool {
        let Some(host) = &self.host else { return false };
        let scheme = self.scheme.as_str();
        let rest = url.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://"));
        let port: &[u8] = if self.scheme == Scheme::Https { b":443" } else { b":80" };
        let bare = |authority: &'_ [u8]| {
            authority.strip_suffix(port).unwrap_or(authority).to_ascii_lowercase()
        };
        rest.is_some_and(|rest| bare(authority(rest.as_bytes())) == bare(host.as_bytes()))
    }

    /// Whether a browser that reads this URL in a page of ours would ask us for
    /// it. Read as browsers do, however it is spelled. `None`: no saying.
    pub fn leads_here(&self, url: &str, rooted: bool) -> Option<bool> {
        let unknown = || "http://gate.invalid".to_owned();
        let ours = Url::parse(&self.our_origin().unwrap_or_else(unknown)).ok()?;
        let base = if rooted { ours.clone() } else { Url::parse("http://base.invalid").ok()? };
        let mapped = self.map(url, rooted);
        let whole = base.join(mapped.as_deref().unwrap_or(url)).ok()?;
        let authority = |url: &Url| url[Position::BeforeHost..Position::AfterPort].to_owned();
        matches!(whole.scheme(), "http" | "https")
            .then(|| is_same(authority(&whole).as_bytes(), authority(&ours).as_bytes()))
    }

    /// How far a worker may reach that a script asks for with this
    /// `Service-Worker-Allowed`: as it says, where that is below our place, else
    /// all of that, never beyond. `None`: as it says.
    pub fn worker_scope(&self, text: &[u8]) -> Option<String> {
        if self.site.place.is_empty() {
            let text = std::str::from_utf8(text).ok()?;
            return self.map(text, true);
        }
        let all = format!("{}/", self.site.place);
        let scope = self.scope_below(text, &all).unwrap_or(all);
        (scope.as_bytes() != text).then_some(scope)
    }

    /// `None`: it is not below `all`, or there is no saying.
    fn scope_below(&self, text: &[u8], all: &str) -> Option<String> {
        let text = std::str::from_utf8(text).ok()?;
        let mapped = self.map(text, true);
        let value = mapped.as_deref().unwrap_or(text);
        let origin = Url::parse(&self.our_origin()?).ok()?;
        // What climbs from neither of two places is no way up from any below.
        let reached = |from: &str| {
            let scope = origin.join(from).ok()?.join(value).ok()?;
            let below = scope.origin() == origin.origin() && scope.path().starts_with(all);
            below.then(|| scope.path().to_owned())
        };
        let (high, deep) = (reached(all)?, reached(&format!("{all}a/"))?);
        // What is relative is so to the script, which we do not know.
        Some(if high == deep { high } else { text.to_owned() })
    }

    /// `https://gate.example.com`, if it is known.
    pub fn our_origin(&self) -> Option<String> {
        let host = self.host.as_ref()?.to_str().ok()?;
        Some(format!("{}://{host}", self.scheme.as_str()))
    }
}

/// The form of a URL, and how many bytes precede its path or authority. `None`:
/// relative, or of another scheme.
fn split(url: &[u8]) -> Option<(Form, usize)> {
    match url {
        [a, b, ..] if is_slash(*a) && is_slash(*b) => Some((Form::Absolute { socket: false }, 2)),
        [a, ..] if is_slash(*a) => Some((Form::Rooted, 0)),
        _ => {
            let colon = url.iter().take(6).position(|byte| *byte == b':')?;
            let scheme = url[..colon].to_ascii_lowercase();
            let socket = match scheme.as_slice() {
                b"http" | b"https" => false,
                b"ws" | b"wss" => true,
                _ => return None,
            };
            let slashes = url[colon + 1..].iter().take(2).all(|byte| is_slash(*byte));
            (slashes && url.len() >= colon + 3).then_some((Form::Absolute { socket }, colon + 3))
        }
    }
}

fn is_slash(byte: u8) -> bool {
    matches!(byte, b'/' | b'\\')
}

fn authority(rest: &[u8]) -> &[u8] {
    let end = rest.iter().position(|byte| is_slash(*byte) || matches!(byte, b'?' | b'#'));
    &rest[..end.unwrap_or(rest.len())]
}

/// Whether a path is `prefix` or lies below it.
pub fn is_below(path: &[u8], prefix: &[u8]) -> bool {
    !prefix.is_empty()
        && path.strip_prefix(prefix).is_some_and(|rest| {
            rest.first().is_none_or(|byte| is_slash(*byte) || matches!(byte, b'?' | b'#'))
        })
}

/// Whether two authorities are the same host and port. Default ports are not
/// told apart, since an upstream may not know that there is TLS before it.
pub fn is_same(a: &[u8], b: &[u8]) -> bool {
    let (a, b) = (bare(a), bare(b));
    !a.is_empty() && a.eq_ignore_ascii_case(b)
}

/// An authority without a default port.
pub fn bare(authority: &[u8]) -> &[u8] {
    let without = authority.strip_suffix(b":80").or_else(|| authority.strip_suffix(b":443"));
    without.unwrap_or(authority)
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
