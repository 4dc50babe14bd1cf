//! Reads limits: those that hold everywhere, and those of one upstream.

use super::{
    Concurrent, LimitsConfig, UpstreamLimits,
    reader::{Parsed, Reader},
    tables::Table,
    values::{self, number},
};
use crate::domain::{
    limit::Per,
    pass::MAX_HOURS,
    rates::{OnStoreLoss, OwnRates, Rates},
};

/// Largest number of requests.
const MOST: u64 = u32::MAX as u64;
/// Most requests at once.
const MOST_AT_ONCE: u32 = 1_000_000;

/// The settings of one subject, in the order of [`Per::ALL`], and its policy.
type Names = ([&'static str; Per::ALL.len()], &'static str);

macro_rules! names {
    ($prefix:literal, $policy:literal) => {
        (
            [
                concat!($prefix, "PER_SECOND"),
                concat!($prefix, "PER_MINUTE"),
                concat!($prefix, "PER_HOUR"),
                concat!($prefix, "PER_DAY"),
                concat!($prefix, "PER_MONTH"),
            ],
            $policy,
        )
    };
}

const ADDRESS: Names = names!("RATE_LIMIT_", "RATE_LIMIT_ADDRESS_ON_STORE_LOSS");
const USER: Names = names!("RATE_LIMIT_USER_", "RATE_LIMIT_USER_ON_STORE_LOSS");
const KEY: Names = names!("RATE_LIMIT_KEY_", "RATE_LIMIT_KEY_ON_STORE_LOSS");
const PASS: Names = names!("RATE_LIMIT_TOKEN_", "RATE_LIMIT_TOKEN_ON_STORE_LOSS");
const ORIGIN: Names = names!("RATE_LIMIT_ORIGIN_", "RATE_LIMIT_ORIGIN_ON_STORE_LOSS");
const SESSION: Names = names!("RATE_LIMIT_SESSION_", "RATE_LIMIT_SESSION_ON_STORE_LOSS");
const UPSTREAM: Names = names!("RATE_LIMIT_UPSTREAM_", "RATE_LIMIT_UPSTREAM_ON_STORE_LOSS");

pub(super) fn limits(reader: &mut Reader) -> LimitsConfig {
    let on_loss = reader.required("RATE_LIMIT_ON_STORE_LOSS", values::on_store_loss);
    let mut rates = |(limits, policy): Names| Rates {
        limits: limits.map(|name| reader.required(name, number(0..=MOST))),
        on_loss: reader.optional(policy, values::on_store_loss).unwrap_or(on_loss),
    };
    let (address, user, key, pass) = (rates(ADDRESS), rates(USER), rates(KEY), rates(PASS));
    let (origin, session, upstream) = (rates(ORIGIN), rates(SESSION), rates(UPSTREAM));
    let mut at_once = |name| reader.required(name, number(0..=MOST_AT_ONCE));
    let concurrent = Concurrent {
        user: at_once("RATE_LIMIT_USER_MAX_CONCURRENT"),
        key: at_once("RATE_LIMIT_KEY_MAX_CONCURRENT"),
        pass: at_once("RATE_LIMIT_TOKEN_MAX_CONCURRENT"),
        upstream: at_once("RATE_LIMIT_UPSTREAM_MAX_CONCURRENT"),
    };
    let totals = reader.optional("RATE_LIMIT_TOKEN_TOTAL", values::list(total)).unwrap_or_default();
    let mut hours: Vec<u32> = totals.iter().map(|(hours, _)| *hours).collect();
    hours.sort_unstable();
    if hours.windows(2).any(|pair| pair[0] == pair[1]) {
        reader.refuse("RATE_LIMIT_TOKEN_TOTAL", "expected each length once");
    }
    LimitsConfig {
        address,
        user,
        key,
        pass,
        origin,
        session,
        upstream,
        pass_totals: totals,
        pass_own_day: reader.required("RATE_LIMIT_TOKEN_PER_OWN_DAY", number(0..=MOST)),
        concurrent,
    }
}

/// `24:1000`: a token of 24 hours is good for 1000 requests.
fn total(text: &str) -> Parsed<(u32, u64)> {
    let parts = text.split_once(':').ok_or("expected hours:requests, as 24:1000")?;
    Ok((number(1..=MAX_HOURS)(parts.0.trim())?, number(1..=MOST)(parts.1.trim())?))
}

/// The table `limits` of an upstream.
pub(super) fn of_upstream(table: &mut Table<'_>) -> UpstreamLimits {
    const ALL: [&str; Per::ALL.len()] =
        ["per_second", "per_minute", "per_hour", "per_day", "per_month"];
    const OF_USER: [&str; Per::ALL.len()] =
        ["user_per_second", "user_per_minute", "user_per_hour", "user_per_day", "user_per_month"];
    let on_loss = table.get("on_store_loss", values::on_store_loss);
    let limits = ALL.map(|name| table.get(name, number(0..=MOST)));
    let user = OF_USER.map(|name| table.get(name, number(0..=MOST)).unwrap_or(0));
    UpstreamLimits {
        all: OwnRates { limits, on_loss },
        user: Rates { limits: user, on_loss: on_loss.unwrap_or(OnStoreLoss::Share) },
        max_concurrent: table.get("max_concurrent", number(0..=MOST_AT_ONCE)),
    }
}
