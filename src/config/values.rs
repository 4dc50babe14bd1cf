//! Parsers of single values that need no other setting to be judged. Each says
//! what it expected, never what it got.

use std::{fmt::Display, ops::RangeInclusive, path::PathBuf, str::FromStr, time::Duration};

use super::{Algorithm, OnFull, OnStoreLoss, Registration, Rgb, reader::Parsed};
use crate::{
    domain::{
        money::{Currency, MAX_AMOUNT, NoCurrency},
        pass::RefundPolicy,
        policy::Demand,
    },
    gateway::{is_ours_to_set, trusted},
};

/// A whole number within a range.
pub(super) fn number<T: FromStr + PartialOrd + Display>(
    range: RangeInclusive<T>,
) -> impl Fn(&str) -> Parsed<T> {
    move |text| {
        text.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| {
            format!("expected a whole number from {} to {}", range.start(), range.end())
        })
    }
}

/// Seconds, fractions allowed, within a range.
pub(super) fn seconds(range: RangeInclusive<f64>) -> impl Fn(&str) -> Parsed<Duration> {
    move |text| {
        let seconds = text.parse().ok().filter(|seconds| range.contains(seconds));
        seconds.map(Duration::from_secs_f64).ok_or_else(|| {
            format!("expected a number of seconds from {} to {}", range.start(), range.end())
        })
    }
}

/// Minutes, fractions allowed. The unit is not named in the expectation: the
/// operator may have used an alias in hours.
pub(super) fn token_life(text: &str) -> Parsed<Duration> {
    const LONGEST_MINUTES: f64 = 30.0 * 24.0 * 60.0;
    let minutes = text.parse().ok().filter(|m| (1.0 / 60.0..=LONGEST_MINUTES).contains(m));
    minutes
        .map(|minutes: f64| Duration::from_secs_f64((minutes * 60.0).round()))
        .ok_or_else(|| "expected a length of time from 1 second to 30 days".to_owned())
}

pub(super) fn truth(text: &str) -> Parsed<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}

/// Comma-separated; every item must parse. Empty items do not count.
pub(super) fn list<T>(item: impl Fn(&str) -> Parsed<T>) -> impl Fn(&str) -> Parsed<Vec<T>> {
    move |text| {
        text.split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty())
            .enumerate()
            .map(|(at, text)| item(text).map_err(|e| format!("item {}: {e}", at + 1)))
            .collect()
    }
}

/// Six hexadecimal digits, perhaps after `#`.
pub(super) fn color(text: &str) -> Parsed<Rgb> {
    let digits = text.strip_prefix('#').unwrap_or(text);
    let mut rgb = [0; 3];
    hex::decode_to_slice(digits, &mut rgb)
        .map(|()| Rgb(rgb))
        .map_err(|_| "expected a colour as rrggbb or #rrggbb".to_owned())
}

/// Text of 1 to `most` characters on one line.
pub(super) fn line(most: usize) -> impl Fn(&str) -> Parsed<String> {
    move |text| {
        let fits = (1..=most).contains(&text.chars().count());
        (fits && !text.contains(char::is_control))
            .then(|| text.to_owned())
            .ok_or_else(|| format!("expected 1 to {most} characters on one line"))
    }
}

/// The path becomes part of a database URL, where `?`, `%` and `#` mean
/// something else.
pub(super) fn folder(text: &str) -> Parsed<PathBuf> {
    let plain = !text.contains(|c: char| c.is_control() || "?%#".contains(c));
    plain
        .then(|| PathBuf::from(text))
        .ok_or_else(|| "expected a folder without control characters and ? % #".to_owned())
}

pub(super) fn username(text: &str) -> Parsed<String> {
    let fits = (1..=64).contains(&text.chars().count());
    let plain = !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '@');
    (fits && plain)
        .then(|| text.to_owned())
        .ok_or_else(|| "expected 1 to 64 characters without spaces and @".to_owned())
}

pub(super) fn email(text: &str) -> Parsed<String> {
    let plain = !text.contains(|c: char| c.is_whitespace() || c.is_control());
    let parts = text.split_once('@');
    (plain && text.len() <= 254 && parts.is_some_and(|(a, b)| !a.is_empty() && !b.is_empty()))
        .then(|| text.to_owned())
        .ok_or_else(|| "expected an e-mail address".to_owned())
}

/// RFC 7617: the colon ends the user name.
pub(super) fn basic_user(text: &str) -> Parsed<String> {
    line(255)(text)
        .ok()
        .filter(|text| !text.contains(':'))
        .ok_or_else(|| "expected 1 to 255 characters without a colon".to_owned())
}

pub(super) fn algorithm(text: &str) -> Parsed<Algorithm> {
    match text.to_ascii_lowercase().as_str() {
        "hs256" => Ok(Algorithm::Hs256),
        "rs256" => Ok(Algorithm::Rs256),
        "eddsa" => Ok(Algorithm::EdDsa),
        _ => Err("expected HS256, RS256 or EdDSA".to_owned()),
    }
}

pub(super) fn registration(text: &str) -> Parsed<Registration> {
    match text {
        "open" => Ok(Registration::Open),
        "closed" => Ok(Registration::Closed),
        "invite" => Err("invite is not supported by this version; open or closed is".to_owned()),
        _ => Err("expected open or closed".to_owned()),
    }
}

/// What keys and passes name it by: short, and good in a label of a metric.
pub(super) fn upstream_name(text: &str) -> Parsed<String> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    let fits = (1..=64).contains(&text.len()) && text.bytes().all(plain);
    fits.then(|| text.to_owned())
        .ok_or_else(|| "expected 1 to 64 lower-case letters, digits, - and _".to_owned())
}

/// A field that may be set or removed: not one that frames a message, nor one
/// that tells an upstream who asks, in whatever spelling.
pub(super) fn header_name(text: &str) -> Parsed<http::HeaderName> {
    const FRAMING: [&str; 5] = ["content-length", "expect", "host", "http2-settings", "via"];
    let expected = "expected a field's name, none that frames a message or that Tollgate sets";
    let name = http::HeaderName::try_from(text).ok();
    name.filter(|name| !FRAMING.contains(&name.as_str()) && !is_ours_to_set(name.as_str()))
        .ok_or_else(|| expected.to_owned())
}

/// Certificates of authorities, PEM; what else stands between them is skipped.
pub(super) fn authorities(pem: &str) -> Parsed<()> {
    let expected = "expected a file of one or more CA certificates, PEM";
    trusted(pem).map(drop).ok_or_else(|| expected.to_owned())
}

pub(super) fn demand(text: &str) -> Parsed<Demand> {
    match text {
        "public" => Ok(Demand::Public),
        "optional" => Ok(Demand::Optional),
        "required" => Ok(Demand::Required),
        _ => Err("expected public, optional or required".to_owned()),
    }
}

pub(super) fn on_store_loss(text: &str) -> Parsed<OnStoreLoss> {
    OnStoreLoss::parse(text).ok_or_else(|| "expected share, deny or allow".to_owned())
}

pub(super) fn on_full(text: &str) -> Parsed<OnFull> {
    match text {
        "block" => Ok(OnFull::Block),
        "unmetered" => Ok(OnFull::Unmetered),
        _ => Err("expected block or unmetered".to_owned()),
    }
}

/// Minor units; `None` for what is not sold.
pub(super) fn price(text: &str) -> Parsed<Option<i64>> {
    if text == "off" {
        return Ok(None);
    }
    let price = text.parse().ok().filter(|price| (0..=MAX_AMOUNT).contains(price));
    price.map(Some).ok_or_else(|| {
        format!("expected whole minor units from 0 to {MAX_AMOUNT} (12.50 is 1250), or off")
    })
}

pub(super) fn currency(text: &str) -> Parsed<Currency> {
    text.parse().map_err(|error: NoCurrency| error.to_string())
}

pub(super) fn refund_policy(text: &str) -> Parsed<RefundPolicy> {
    match text {
        "never" | "none" => Ok(RefundPolicy::Never),
        "unused" => Ok(RefundPolicy::Unused),
        "pro_rata" => Ok(RefundPolicy::ProRata),
        _ => Err("expected never, unused or pro_rata".to_owned()),
    }
}

/// A level, or `EnvFilter` directives. A bare word that is no level is
/// refused: `EnvFilter` would take `verbose` for the name of a module.
pub fn log_level(text: &str) -> Parsed<String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let is_clear = |directive: &str| {
        directive.contains(['=', '[']) || LEVELS.contains(&directive.to_ascii_lowercase().as_str())
    };
    let is_filter = tracing_subscriber::EnvFilter::try_new(text).is_ok();
    (is_filter && text.split(',').map(str::trim).all(is_clear)).then(|| text.to_owned()).ok_or_else(
        || "expected a level (error, warn, info, debug, trace, off) or target=level".to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_take_fractions_and_keep_their_range() {
        assert_eq!(seconds(0.0..=1.0)("0.25"), Ok(Duration::from_millis(250)));
        for text in ["-1", "NaN", "inf", "2", "", "1s"] {
            assert!(seconds(0.0..=1.0)(text).is_err(), "{text}");
        }
        assert_eq!(token_life("0.05"), Ok(Duration::from_secs(3)));
        assert!(token_life("0").is_err());
    }

    #[test]
    fn levels_and_directives_are_told_from_slips() {
        for text in ["INFO", "info,tollgate=debug", "tollgate::gateway=trace,warn", "off"] {
            assert!(log_level(text).is_ok(), "{text}");
        }
        for text in ["verbose", "info,hyper", "tollgate=loud", "="] {
            assert!(log_level(text).is_err(), "{text}");
        }
    }
}
