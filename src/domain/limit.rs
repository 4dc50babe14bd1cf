//! Rate limits: what is counted, over which window, and what a decision says.
//!
//! A window slides: at no instant do the last `window` seconds hold more than
//! `limit` admitted requests. Limits up to [`EXACT_UP_TO`] keep every instant;
//! larger ones count in [`BUCKETS`] sub-buckets and err on the strict side:
//! quota comes back at most one sub-bucket late.

use std::{
    hash::{Hash, Hasher},
    net::IpAddr,
};

use chrono::{DateTime, Datelike, TimeZone, Utc};

use super::id::{ApiKeyId, PassId, UserId};

/// Up to this limit a window is an exact log of instants.
pub const EXACT_UP_TO: u64 = 200;
/// Sub-buckets per window above it.
pub const BUCKETS: u64 = 60;

/// Whose requests are counted together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A client address; IPv6 by its /64 (see [`super::address::network_of`]).
    Address(IpAddr),
    User(UserId),
    Key {
        id: ApiKeyId,
        owner: UserId,
    },
    Pass {
        id: PassId,
        owner: UserId,
    },
    /// Failed or pending logins of one account name from one network; the
    /// account is a digest, so that no name is kept.
    LoginPair {
        account: u64,
        address: IpAddr,
    },
    LoginAddress(IpAddr),
    LoginAccount(u64),
    /// Codes of vouchers that were tried.
    Redeem(UserId),
    RedeemAddress(IpAddr),
}

/// By no more than tells subjects apart, since each request has several looked
/// up. Ids are unlike each other whatever they name, and an owner follows from
/// what it owns.
impl Hash for Subject {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::User(id) | Self::Redeem(id) => state.write_u128(id.as_uuid().as_u128()),
            Self::Key { id, .. } => state.write_u128(id.as_uuid().as_u128()),
            Self::Pass { id, .. } => state.write_u128(id.as_uuid().as_u128()),
            Self::LoginPair { account, address } => (account, address).hash(state),
            Self::LoginAccount(account) => account.hash(state),
            Self::Address(address) | Self::LoginAddress(address) | Self::RedeemAddress(address) => {
                address.hash(state);
            }
        }
    }
}

impl Subject {
    /// The name of the tier, as the refusal and the metrics show it.
    pub fn tier(&self) -> &'static str {
        match self {
            Self::Address(_) => "address",
            Self::User(_) => "user",
            Self::Key { .. } => "key",
            Self::Pass { .. } => "token",
            Self::LoginPair { .. } => "login",
            Self::LoginAddress(_) => "login_address",
            Self::LoginAccount(_) => "login_account",
            Self::Redeem(_) => "redeem",
            Self::RedeemAddress(_) => "redeem_address",
        }
    }
}

/// Over what a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Window {
    /// The last so many seconds, at every instant.
    Sliding { seconds: u32 },
    /// The calendar month in UTC.
    Month,
}

impl Window {
    pub const MINUTE: Self = Self::Sliding { seconds: 60 };
    pub const HOUR: Self = Self::Sliding { seconds: 3600 };
    pub const DAY: Self = Self::Sliding { seconds: 86_400 };

    /// The window's length for the `w` parameter of `RateLimit-Policy`. A
    /// month counts as 31 days there.
    pub fn seconds(self) -> u32 {
        match self {
            Self::Sliding { seconds } => seconds,
            Self::Month => 31 * 86_400,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::MINUTE => "minute",
            Self::HOUR => "hour",
            Self::DAY => "day",
            Self::Month => "month",
            Self::Sliding { .. } => "window",
        }
    }
}

/// One limit to hold: at most `limit` per `window` for `subject`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tier {
    pub subject: Subject,
    pub window: Window,
    pub limit: u64,
}

/// The state of one tier after a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TierState {
    pub tier: &'static str,
    pub window: Window,
    pub limit: u64,
    pub remaining: u64,
    /// Milliseconds until quota comes back: the oldest counted request leaves
    /// the window. 0 when nothing is counted.
    pub reset_in_ms: u64,
}

/// The answer to "may this request pass?" over all its tiers at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Every tier had room and all were charged. The state is that of the tier
    /// nearest to its end; `None` when there was nothing to hold.
    Admitted(Option<TierState>),
    /// A tier had no room; nothing was charged anywhere.
    Refused(TierState),
    /// A month's counter is not known here and must be seeded from the usage
    /// records; nothing was charged. Call again with the seed.
    NeedsSeed,
}

/// The first instant of the month that `now` lies in, UTC.
pub fn month_start(now: DateTime<Utc>) -> DateTime<Utc> {
    Utc.with_ymd_and_hms(now.year(), now.month(), 1, 0, 0, 0).single().expect("a first of a month")
}

/// The first instant of the month after the one that `now` lies in, UTC.
pub fn month_end(now: DateTime<Utc>) -> DateTime<Utc> {
    let (year, month) =
        if now.month() == 12 { (now.year() + 1, 1) } else { (now.year(), now.month() + 1) };
    Utc.with_ymd_and_hms(year, month, 1, 0, 0, 0).single().expect("a first of a month")
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, RandomState};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equal_subjects_have_equal_hashes_and_others_are_not_equal() {
        let (a, b) = (UserId::NIL, UserId::from(uuid::Uuid::max()));
        let here = IpAddr::from([192, 0, 2, 1]);
        let all = || {
            [
                Subject::User(a),
                Subject::User(b),
                Subject::Redeem(a),
                Subject::Key { id: ApiKeyId::NIL, owner: a },
                Subject::Pass { id: PassId::NIL, owner: a },
                Subject::LoginPair { account: 1, address: here },
                Subject::LoginAccount(1),
                Subject::Address(here),
                Subject::LoginAddress(here),
                Subject::RedeemAddress(here),
            ]
        };
        let state = RandomState::new();
        for (at, one) in all().iter().enumerate() {
            for (other_at, other) in all().iter().enumerate() {
                assert_eq!(one == other, at == other_at);
                if one == other {
                    assert_eq!(state.hash_one(one), state.hash_one(other));
                }
            }
        }
    }

    proptest! {
        #[test]
        fn months_have_no_gap_and_no_overlap(at in 0i64..7_258_118_400) {
            let now = DateTime::from_timestamp(at, 0).unwrap();
            prop_assert!(month_start(now) <= now && now < month_end(now));
            prop_assert_eq!(month_start(month_end(now)), month_end(now));
            prop_assert_eq!(month_end(month_start(now)), month_end(now));
        }
    }
}
