//! What an API key may be given: the rules for each field, in one place.

use std::{collections::HashSet, net::IpAddr};

use chrono::{DateTime, Datelike as _, SubsecRound as _, Utc};
use ipnet::IpNet;
use serde_json::{Map, Value};

use crate::domain::{
    api_key::{ApiKey, MAX_LIMITS},
    limit::Per,
    rates::{LimitName, NamedLimit, OnStoreLoss},
};

/// Most entries of a list, most characters of an entry.
const MAX_ENTRIES: usize = 100;
const MAX_ENTRY: usize = 200;
/// Largest limit: what the document's 32-bit integer can say.
const MAX_LIMIT: u32 = i32::MAX.unsigned_abs();
/// Most bytes of `metadata` as JSON.
const MAX_METADATA: usize = 8192;

/// A change of a key's fields: `None` leaves one as it is; where the inner
/// value is an option, `Some(None)` clears it.
#[derive(Clone, Debug, Default)]
pub struct KeyChange {
    pub name: Option<String>,
    pub scopes: Option<Vec<String>>,
    pub upstreams: Option<Vec<String>>,
    pub allowed_ips: Option<Vec<String>>,
    pub allowed_origins: Option<Vec<String>>,
    pub rate_limit: Option<Option<u32>>,
    pub rate_limit_per_minute: Option<Option<u32>>,
    pub monthly_quota: Option<Option<u64>>,
    pub limits: Option<Vec<LimitInput>>,
    pub max_concurrent: Option<Option<u32>>,
    pub expires_at: Option<Option<DateTime<Utc>>>,
    pub metadata: Option<Map<String, Value>>,
    pub is_active: Option<bool>,
}

/// A named limit as it was given.
#[derive(Clone, Debug)]
pub struct LimitInput {
    pub name: String,
    pub limit: u64,
    pub window: String,
    pub on_store_loss: Option<String>,
}

/// One field that cannot be taken as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    pub field: &'static str,
    pub message: &'static str,
}

/// Applies the change to `key`, or reports every field that is wrong and
/// changes nothing.
pub fn apply(
    key: &mut ApiKey,
    change: KeyChange,
    now: DateTime<Utc>,
) -> Result<(), Vec<FieldError>> {
    let mut wrong = vec![];
    let mut changed = key.clone();
    if let Some(name) = change.name {
        check(
            &mut wrong,
            "name",
            is_name(&name),
            "must have 1 to 100 characters, none of them control characters",
        );
        changed.name = name;
    }
    if let Some(scopes) = change.scopes {
        check(&mut wrong, "scopes", is_list(&scopes, is_word), WORDS);
        changed.scopes = scopes;
    }
    if let Some(upstreams) = change.upstreams {
        check(&mut wrong, "upstreams", is_list(&upstreams, is_word), WORDS);
        changed.upstreams = upstreams;
    }
    if let Some(networks) = change.allowed_ips {
        let parsed: Option<Vec<IpNet>> = networks.iter().map(|text| parse_network(text)).collect();
        let parsed = parsed.filter(|networks| networks.len() <= MAX_ENTRIES);
        check(
            &mut wrong,
            "allowed_ips",
            parsed.is_some(),
            "must be addresses or networks (CIDR), at most 100",
        );
        changed.allowed_ips = parsed.unwrap_or_default();
    }
    if let Some(origins) = change.allowed_origins {
        check(
            &mut wrong,
            "allowed_origins",
            is_list(&origins, is_origin),
            "must be origins such as https://app.example.com, at most 100",
        );
        changed.allowed_origins = origins;
    }
    for (field, limit, place) in [
        ("rate_limit", change.rate_limit, &mut changed.rate_limit),
        ("rate_limit_per_minute", change.rate_limit_per_minute, &mut changed.rate_limit_per_minute),
    ] {
        if let Some(limit) = limit {
            let fits = limit.is_none_or(|limit| (1..=MAX_LIMIT).contains(&limit));
            check(&mut wrong, field, fits, "must be 1 to 2147483647");
            *place = limit;
        }
    }
    if let Some(quota) = change.monthly_quota {
        let fits = quota.is_none_or(|quota| (1..=i64::MAX as u64).contains(&quota));
        check(&mut wrong, "monthly_quota", fits, "must be at least 1");
        changed.monthly_quota = quota;
    }
    if let Some(limits) = change.limits {
        let parsed = parse_limits(limits);
        check(&mut wrong, "limits", parsed.is_some(), LIMITS);
        changed.limits = parsed.unwrap_or_default();
    }
    if let Some(most) = change.max_concurrent {
        let fits = most.is_none_or(|most| most <= MAX_LIMIT);
        check(&mut wrong, "max_concurrent", fits, "must be 0 to 2147483647");
        changed.max_concurrent = most;
    }
    if let Some(expires_at) = change.expires_at {
        let fits = expires_at.is_none_or(|at| at > now && at.year() <= 9999);
        check(&mut wrong, "expires_at", fits, "must lie in the future, before the year 10000");
        // Microseconds, as both engines can keep them.
        changed.expires_at = expires_at.map(|at| at.trunc_subsecs(6));
    }
    if let Some(metadata) = change.metadata {
        let size = serde_json::to_string(&metadata).map_or(usize::MAX, |text| text.len());
        check(
            &mut wrong,
            "metadata",
            size <= MAX_METADATA && !has_nul(&metadata),
            "must be an object of at most 8 KiB, without NUL characters",
        );
        changed.metadata = metadata;
    }
    if let Some(is_active) = change.is_active {
        changed.is_active = is_active;
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    *key = changed;
    Ok(())
}

const LIMITS: &str = "must be at most 8 limits of at least 1 per second, minute, hour, day or \
    month, with different names of a-z, 0-9, - and _, and on_store_loss share, deny or allow";
const WORDS: &str = "must be names of letters, digits and `.:_-*/`, at most 100";

fn check(wrong: &mut Vec<FieldError>, field: &'static str, right: bool, message: &'static str) {
    if !right {
        wrong.push(FieldError { field, message });
    }
}

fn parse_limits(limits: Vec<LimitInput>) -> Option<Vec<NamedLimit>> {
    if limits.len() > MAX_LIMITS {
        return None;
    }
    let mut names = HashSet::new();
    let parse = |given: LimitInput| {
        let LimitInput { name, limit, window, on_store_loss } = given;
        let name = LimitName::try_from(name).ok()?;
        // As much as JSON numbers say exactly, and as both engines keep.
        let fits = (1..=i64::MAX as u64).contains(&limit) && names.insert(name.clone());
        let on_store_loss = match on_store_loss {
            Some(policy) => Some(OnStoreLoss::parse(&policy)?),
            None => None,
        };
        let window = Per::parse(&window)?;
        fits.then_some(NamedLimit { name, limit, window, on_store_loss })
    };
    limits.into_iter().map(parse).collect()
}

fn is_name(name: &str) -> bool {
    (1..=100).contains(&name.chars().count()) && !name.chars().any(char::is_control)
}

fn is_list(entries: &[String], is_entry: impl Fn(&str) -> bool) -> bool {
    entries.len() <= MAX_ENTRIES && entries.iter().all(|entry| is_entry(entry))
}

fn is_word(text: &str) -> bool {
    (1..=MAX_ENTRY).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b".:_-*/".contains(&b))
}

/// Scheme, host and perhaps a port, as a browser writes `Origin` (RFC 6454,
/// 6.2): lower case, nothing after the authority.
fn is_origin(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else {
        return false;
    };
    let authority: Result<http::uri::Authority, _> = rest.parse();
    text.len() <= MAX_ENTRY
        && !rest.contains('@')
        && rest.bytes().all(|b| !b.is_ascii_uppercase())
        && authority
            .is_ok_and(|authority| authority.as_str() == rest && !authority.host().is_empty())
}

/// A bare address is the network of that one address. IPv4 mapped into IPv6 is
/// that IPv4, as it is where a client's address is read.
fn parse_network(text: &str) -> Option<IpNet> {
    const MAPPED_BITS: u8 = 96;
    let network: Option<IpNet> = text.parse().ok();
    let network = network.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?.trunc();
    match (network.addr().to_canonical(), network.prefix_len().checked_sub(MAPPED_BITS)) {
        (v4 @ IpAddr::V4(_), Some(length)) => IpNet::new(v4, length).ok(),
        _ => Some(network),
    }
}

/// Postgres cannot store NUL in text; nobody needs it in a note.
fn has_nul(metadata: &Map<String, Value>) -> bool {
    fn value_has(value: &Value) -> bool {
        match value {
            Value::String(text) => text.contains('\0'),
            Value::Array(items) => items.iter().any(value_has),
            Value::Object(map) => has_nul(map),
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }
    metadata.iter().any(|(key, value)| key.contains('\0') || value_has(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_what_a_browser_sends() {
        for good in ["https://app.example.com", "http://localhost:3000", "https://[::1]:8443"] {
            assert!(is_origin(good), "{good}");
        }
        for bad in [
            "",
            "*",
            "null",
            "app.example.com",
            "https://",
            "https://a.example/",
            "ftp://a.example",
            "https://u@a.example",
            "https://A.example",
            "https://a.example?x",
            "https://a.example#x",
        ] {
            assert!(!is_origin(bad), "{bad}");
        }
    }

    #[test]
    fn a_bare_address_is_a_network_of_one() {
        assert_eq!(parse_network("192.0.2.7").unwrap().to_string(), "192.0.2.7/32");
        assert_eq!(parse_network("2001:db8::1").unwrap().to_string(), "2001:db8::1/128");
        assert_eq!(parse_network("10.1.2.3/8").unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(parse_network("::ffff:10.1.2.3").unwrap().to_string(), "10.1.2.3/32");
        assert_eq!(parse_network("::ffff:10.1.2.3/104").unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(parse_network("::ffff:0.0.0.0/95").unwrap().to_string(), "::fffe:0:0/95");
        assert_eq!(parse_network("10.0.0.0/33"), None);
        assert_eq!(parse_network("localhost"), None);
    }
}
