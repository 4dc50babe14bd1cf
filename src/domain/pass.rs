//! Time passes: what is sold, when one begins and ends, what comes back.
//!
//! A pass runs from its first admitted use and is dead *at* its end, not one
//! tick after it. The end is computed from the beginning and the length, so
//! that nothing can make the two disagree.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::id::{PassId, UserId};

/// Longest pass, hours: ten years.
pub const MAX_HOURS: u32 = 87_600;

/// A pass, without its text: that exists only as a digest and sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pass {
    pub id: PassId,
    pub user_id: UserId,
    /// The first characters of the text, for recognition.
    pub prefix: String,
    /// 1..=[`MAX_HOURS`].
    pub duration_hours: u32,
    /// The one upstream it opens. `None`: all.
    pub upstream: Option<String>,
    pub origin: Origin,
    /// What was paid, in minor units; 0 unless it was bought.
    pub price_minor: i64,
    /// What came back of it. `Some` if and only if it was refunded, which may be
    /// 0 of a price of 0.
    pub refunded_minor: Option<i64>,
    pub created_at: DateTime<Utc>,
    /// Its first admitted use.
    pub activated_at: Option<DateTime<Utc>>,
    pub revoked_at: Option<DateTime<Utc>>,
    /// Grows with every change that a cached copy must not miss.
    pub version: i64,
}

/// The text of a pass as it is kept for its owner: unreadable without the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Which key it was sealed with.
    pub key: String,
    pub bytes: Vec<u8>,
}

/// Where a pass came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    Purchase,
    /// An admin gave it.
    Grant,
    Voucher,
    /// The trial of a new account.
    Registration,
}

/// What a pass is good for at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Its time has not begun.
    Unused,
    Active,
    Expired,
    Revoked,
    Refunded,
}

/// What a refund gives back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefundPolicy {
    /// Nothing, ever.
    Never,
    /// The whole price while unused, nothing afterwards.
    Unused,
    /// As [`RefundPolicy::Unused`], and of an active pass the whole hours that
    /// have not begun.
    ProRata,
}

/// Why there is no refund.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRefundable {
    #[error("the token was refunded already")]
    Refunded,
    #[error("the token was revoked")]
    Revoked,
    #[error("the token is used up")]
    Expired,
    #[error("a token in use is not refunded here")]
    InUse,
    #[error("tokens are not refunded here")]
    Never,
}

impl Origin {
    pub const ALL: [Self; 4] = [Self::Purchase, Self::Grant, Self::Voucher, Self::Registration];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Purchase => "purchase",
            Self::Grant => "grant",
            Self::Voucher => "voucher",
            Self::Registration => "registration",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|origin| origin.as_str() == text)
    }
}

impl Status {
    pub const ALL: [Self; 5] =
        [Self::Unused, Self::Active, Self::Expired, Self::Revoked, Self::Refunded];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unused => "unused",
            Self::Active => "active",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Refunded => "refunded",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }

    /// Whether a pass in this state opens anything.
    pub fn is_usable(self) -> bool {
        matches!(self, Self::Unused | Self::Active)
    }
}

impl Pass {
    /// When it ends; `None` before its first use.
    pub fn expires_at(&self) -> Option<DateTime<Utc>> {
        self.activated_at.map(|at| at + TimeDelta::hours(i64::from(self.duration_hours)))
    }

    pub fn status(&self, now: DateTime<Utc>) -> Status {
        if self.refunded_minor.is_some() {
            Status::Refunded
        } else if self.revoked_at.is_some() {
            Status::Revoked
        } else {
            match self.expires_at() {
                None => Status::Unused,
                Some(end) if end <= now => Status::Expired,
                Some(_) => Status::Active,
            }
        }
    }

    /// Whether it opens the upstream of this name.
    pub fn opens(&self, upstream: &str) -> bool {
        self.upstream.as_deref().is_none_or(|own| own == upstream)
    }

    /// What a refund gives back now, in minor units; 0 for what cost nothing.
    /// An hour that has begun is used; of what is left, fractions of a minor
    /// unit stay with the house.
    pub fn refund(&self, policy: RefundPolicy, now: DateTime<Utc>) -> Result<i64, NotRefundable> {
        match self.status(now) {
            Status::Refunded => Err(NotRefundable::Refunded),
            Status::Revoked => Err(NotRefundable::Revoked),
            Status::Expired => Err(NotRefundable::Expired),
            _ if policy == RefundPolicy::Never => Err(NotRefundable::Never),
            Status::Unused => Ok(self.price_minor),
            Status::Active if policy == RefundPolicy::Unused => Err(NotRefundable::InUse),
            Status::Active => Ok(self.unused_share(now)),
        }
    }

    fn unused_share(&self, now: DateTime<Utc>) -> i64 {
        let Some(began) = self.activated_at else { return self.price_minor };
        // An instance whose clock is behind must not give back more than all.
        let used_us = (now - began).num_microseconds().unwrap_or(i64::MAX).max(0);
        let hour_us = 3_600_000_000;
        // The hour that begins at this very instant is not used yet, but the
        // first one is, from the first use on.
        let used_hours = used_us.div_euclid(hour_us) + i64::from(used_us % hour_us != 0);
        let left = i64::from(self.duration_hours) - used_hours.max(1);
        let share = i128::from(self.price_minor) * i128::from(left.max(0))
            / i128::from(self.duration_hours);
        i64::try_from(share).expect("a share of the price")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_767_225_600 + seconds, 0).unwrap()
    }

    fn pass(activated_at: Option<DateTime<Utc>>) -> Pass {
        Pass {
            id: PassId::new(at(0)),
            user_id: UserId::new(at(0)),
            prefix: "tga_abcd".into(),
            duration_hours: 24,
            upstream: None,
            origin: Origin::Purchase,
            price_minor: 1000,
            refunded_minor: None,
            created_at: at(0),
            activated_at,
            revoked_at: None,
            version: 1,
        }
    }

    #[test]
    fn a_pass_is_dead_at_its_end_and_not_before() {
        let day = 24 * 3600;
        let used = pass(Some(at(5)));
        assert_eq!(pass(None).status(at(1_000_000_000)), Status::Unused);
        assert_eq!(used.expires_at(), Some(at(5 + day)));
        let tick = TimeDelta::microseconds(1);
        assert_eq!(used.status(at(5 + day) - tick), Status::Active);
        assert_eq!(used.status(at(5 + day)), Status::Expired);
        let revoked = Pass { revoked_at: Some(at(9)), ..used.clone() };
        assert_eq!(revoked.status(at(10)), Status::Revoked);
        let refunded = Pass { refunded_minor: Some(0), ..revoked };
        assert_eq!(refunded.status(at(10)), Status::Refunded);
    }

    #[test]
    fn whole_hours_that_have_not_begun_come_back() {
        let used = pass(Some(at(0)));
        let pro_rata = |seconds| used.refund(RefundPolicy::ProRata, at(seconds));
        for (seconds, back) in [
            // The clock of the instance is behind.
            (-10, 1000 * 23 / 24),
            (0, 1000 * 23 / 24),
            (1, 1000 * 23 / 24),
            (3600, 1000 * 23 / 24),
            (3601, 1000 * 22 / 24),
            (23 * 3600, 1000 / 24),
            (23 * 3600 + 1, 0),
        ] {
            assert_eq!(pro_rata(seconds), Ok(back), "{seconds}");
        }
        assert_eq!(pro_rata(24 * 3600), Err(NotRefundable::Expired));
    }

    #[test]
    fn the_policy_decides_what_comes_back() {
        use RefundPolicy::{Never, ProRata, Unused};
        let used = pass(Some(at(0)));
        let revoked = Pass { revoked_at: Some(at(1)), ..pass(None) };
        let refunded = Pass { refunded_minor: Some(1000), ..revoked.clone() };
        for (pass, policy, expected) in [
            (pass(None), Never, Err(NotRefundable::Never)),
            (pass(None), Unused, Ok(1000)),
            (pass(None), ProRata, Ok(1000)),
            (used.clone(), Never, Err(NotRefundable::Never)),
            (used, Unused, Err(NotRefundable::InUse)),
            (revoked, ProRata, Err(NotRefundable::Revoked)),
            (refunded, ProRata, Err(NotRefundable::Refunded)),
        ] {
            assert_eq!(pass.refund(policy, at(60)), expected, "{policy:?}");
        }
    }

    #[test]
    fn a_bound_pass_opens_only_its_upstream() {
        let bound = Pass { upstream: Some("images".into()), ..pass(None) };
        assert!(bound.opens("images") && !bound.opens("Images") && !bound.opens("default"));
        assert!(pass(None).opens("default"));
    }
}
