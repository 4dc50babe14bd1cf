//! Who sent a request, as far as the connection and trusted proxies tell.

use std::{net::IpAddr, ops::Deref, sync::Arc};

use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderValue};
use rand::Rng;
use uuid::Uuid;

use super::forwarded::without_port;
use crate::{gateway::X_REQUEST_ID, telemetry::trace::Trace};

/// The client's view of a request. The API finds it in the request's
/// extensions.
#[derive(Clone, Debug)]
pub struct ClientInfo {
    /// The client itself; behind trusted proxies the one that they report.
    pub address: IpAddr,
    /// The other end of the connection.
    pub peer: IpAddr,
    /// How the client reached the first trusted proxy, or us.
    pub scheme: Scheme,
    /// What a browser sees, also where a proxy that is not trusted is in front:
    /// https if the public URL is, else `scheme`. Cookies and origins go by it.
    pub browser_scheme: Scheme,
    /// The host that the client asked for, with its port if it gave one.
    /// `None`: an HTTP/1.0 request without `Host`.
    pub host: Option<HeaderValue>,
    /// What is said in place of `host`, where the public URL says another and
    /// nobody but the client says that one.
    pub public_host: Option<HeaderValue>,
    pub request_id: RequestId,
    /// `None`: there are no traces.
    pub trace: Option<Arc<Trace>>,
}

impl ClientInfo {
    /// The host of links, redirects and rewritten answers, and the one that the
    /// upstream is told (RELIABILITY G-117). Not what a request is routed or its
    /// origin judged by.
    pub fn said_host(&self) -> Option<&HeaderValue> {
        self.public_host.as_ref().or(self.host.as_ref())
    }

    /// The same, if it is the one that the client asked for, but for the port.
    pub fn asked_host(&self) -> Option<&str> {
        let name = |host: &'_ HeaderValue| Some(without_port(host.to_str().ok()?).to_lowercase());
        let said = self.said_host()?;
        (name(said)? == name(self.host.as_ref()?)?).then(|| said.to_str().ok())?
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// What a browser sees of a request that came by this scheme.
    #[must_use]
    pub fn at_browser(self, public_url: Option<&str>) -> Self {
        let public = public_url.is_some_and(|url| url.starts_with("https:"));
        if public { Self::Https } else { self }
    }
}

/// Names one request in answers, logs and records: 1..=128 visible ASCII
/// characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId {
    text: HeaderValue,
    /// What the text stands for, if it is ours.
    uuid: Option<Uuid>,
}

impl RequestId {
    /// Longest value taken over from a client.
    pub const MAX_LEN: usize = 128;

    /// The client's own `X-Request-Id` if it is fit, else a new UUIDv7.
    pub fn of(headers: &HeaderMap, at: DateTime<Utc>) -> Self {
        match headers.get(X_REQUEST_ID) {
            Some(value) if is_fit(value) => Self { text: value.clone(), uuid: None },
            _ => Self::new(at),
        }
    }

    pub fn new(at: DateTime<Utc>) -> Self {
        let uuid = new_uuid(at);
        let mut text = Uuid::encode_buffer();
        let text = uuid.hyphenated().encode_lower(&mut text);
        Self { text: HeaderValue::from_str(text).expect("a UUID is ASCII"), uuid: Some(uuid) }
    }

    /// Unlike any other request's; `None` for an id that a client sent.
    pub fn uuid(&self) -> Option<Uuid> {
        self.uuid
    }

    pub fn header(&self) -> &HeaderValue {
        &self.text
    }
}

impl Deref for RequestId {
    type Target = str;

    fn deref(&self) -> &str {
        self.text.to_str().expect("checked when made")
    }
}

/// A UUIDv7 from the thread's generator; `Uuid::new_v7` would ask the system
/// for random bytes each time.
pub fn new_uuid(at: DateTime<Utc>) -> Uuid {
    let mut random = [0; 10];
    // In words: filling a slice costs several times as much.
    let mut rng = rand::rng();
    let (eight, two) = random.split_at_mut(8);
    eight.copy_from_slice(&rng.next_u64().to_le_bytes());
    two.copy_from_slice(&rng.next_u32().to_le_bytes()[..2]);
    let millis = u64::try_from(at.timestamp_millis()).expect("clock is past 1970");
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}

fn is_fit(value: &HeaderValue) -> bool {
    (1..=RequestId::MAX_LEN).contains(&value.len())
        && value.as_bytes().iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_short_visible_ids_are_taken_over() {
        let at = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        let id_for = |value: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert("x-request-id", HeaderValue::from_bytes(value).unwrap());
            RequestId::of(&headers, at).to_string()
        };
        assert_eq!(id_for(b"abc-123"), "abc-123");
        assert_eq!(id_for(&[b'a'; 128]).len(), 128);
        for unfit in [&b""[..], b"a b", b"a\tb", "é".as_bytes(), &[b'a'; 129]] {
            let id = id_for(unfit);
            assert_eq!(id.parse::<Uuid>().unwrap().get_version_num(), 7, "{unfit:?}");
        }
        assert!(RequestId::of(&HeaderMap::new(), at).parse::<Uuid>().is_ok());
    }
}
