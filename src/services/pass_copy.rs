//! A time pass as it is kept in memory and in Redis.
//!
//! What is in Redis is a promise to others: under `active_token:` and the
//! SHA-256 of the text there is a JSON object with `user_id`, `token_id`,
//! `expires_at` and `duration_hours`, from the first use of the pass until it
//! ends, and nothing about a pass that is unused, revoked or refunded.
//!
//! It may stay there for a month, so how long it was there says nothing about
//! whether it is still true: it counts for [`FRESH`] after `checked_at`, the
//! instant it was read from the database, in Redis and in memory together.
//! Without any word from Redis a revoked pass is refused everywhere after that.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    cache::Cached,
    domain::{
        id::{PassId, UserId},
        pass::{MAX_HOURS, Origin, Pass, Status},
        token::TokenHash,
    },
};

/// How long a copy is used without looking again: passes are sold, so their end
/// is seen sooner than a key's (RELIABILITY G-85).
const FRESH: Duration = Duration::from_secs(4);
/// How long it is remembered that a pass changed: longer than any writer can be
/// late.
const REMEMBERED: Duration = Duration::from_mins(1);
/// How far the clocks of two instances may be apart.
const SKEW: TimeDelta = TimeDelta::seconds(1);

/// A pass, and when that was the truth.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Form", try_from = "Form")]
pub struct CachedPass {
    pub pass: Arc<Pass>,
    /// Before it was read from the database.
    pub checked_at: DateTime<Utc>,
}

/// The JSON in Redis, of an active pass.
#[derive(Serialize, Deserialize)]
struct Form {
    version: i64,
    user_id: UserId,
    token_id: PassId,
    expires_at: Option<DateTime<Utc>>,
    duration_hours: u32,
    upstream: Option<String>,
    token_prefix: String,
    origin: Origin,
    price_minor: i64,
    created_at: DateTime<Utc>,
    checked_at: DateTime<Utc>,
}

/// Not what an instance of ours wrote.
#[derive(Debug, thiserror::Error)]
#[error("not an active pass")]
struct NotAPass;

impl From<CachedPass> for Form {
    fn from(copy: CachedPass) -> Self {
        let CachedPass { pass, checked_at } = copy;
        let expires_at = pass.expires_at();
        let Pass { id, user_id, prefix, duration_hours, upstream, origin, .. } = &*pass;
        Self {
            version: pass.version,
            user_id: *user_id,
            token_id: *id,
            expires_at,
            duration_hours: *duration_hours,
            upstream: upstream.clone(),
            token_prefix: prefix.clone(),
            origin: *origin,
            price_minor: pass.price_minor,
            created_at: pass.created_at,
            checked_at,
        }
    }
}

impl TryFrom<Form> for CachedPass {
    type Error = NotAPass;

    fn try_from(form: Form) -> Result<Self, NotAPass> {
        let Form { expires_at, duration_hours, checked_at, .. } = form;
        let length = (1..=MAX_HOURS).contains(&duration_hours).then_some(duration_hours);
        let length = length.map(|hours| TimeDelta::hours(i64::from(hours)));
        let began = expires_at.zip(length).and_then(|(end, length)| end.checked_sub_signed(length));
        let pass = Pass {
            id: form.token_id,
            user_id: form.user_id,
            prefix: form.token_prefix,
            duration_hours,
            upstream: form.upstream,
            origin: form.origin,
            price_minor: form.price_minor,
            refunded_minor: None,
            created_at: form.created_at,
            activated_at: Some(began.ok_or(NotAPass)?),
            revoked_at: None,
            version: form.version,
        };
        Ok(Self { pass: Arc::new(pass), checked_at })
    }
}

impl Cached for CachedPass {
    type Key = TokenHash;
    const NAMESPACE: &'static str = "pass:2";
    const FRESH: Duration = FRESH;
    const SHARED: Duration = REMEMBERED;
    const NEGATIVE: Duration = FRESH;

    fn version(&self) -> i64 {
        self.pass.version
    }

    fn shared_name(key: &TokenHash) -> String {
        format!("active_token:{key}")
    }

    /// Up to the end of an active pass. A copy that is not fresh any more is
    /// not written: whoever was held up for so long may come when it is forgotten
    /// that the pass was revoked.
    fn shared_for(&self, now: DateTime<Utc>) -> Option<Duration> {
        let fresh = self.age(now).is_some_and(|age| age < FRESH);
        let active = self.pass.status(now) == Status::Active;
        let end = self.pass.expires_at().filter(|_| fresh && active)?;
        (end - now).to_std().ok()
    }

    fn age(&self, now: DateTime<Utc>) -> Option<Duration> {
        let age = now - self.checked_at;
        (age >= -SKEW).then(|| age.to_std().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_767_225_600 + seconds, 0).unwrap()
    }

    fn copy(change: impl FnOnce(&mut Pass)) -> CachedPass {
        let mut pass = Pass {
            id: PassId::NIL,
            user_id: UserId::NIL,
            prefix: "tga_abcd".into(),
            duration_hours: 24,
            upstream: Some("images".into()),
            origin: Origin::Purchase,
            price_minor: 1000,
            refunded_minor: None,
            created_at: at(0),
            activated_at: Some(at(10)),
            revoked_at: None,
            version: 2,
        };
        change(&mut pass);
        CachedPass { pass: Arc::new(pass), checked_at: at(20) }
    }

    #[test]
    fn others_find_what_they_are_promised() {
        let copy = copy(|_| {});
        let text = serde_json::to_string(&copy).unwrap();
        assert!(text.starts_with(r#"{"version":2,"#), "{text}");
        let found: serde_json::Value = serde_json::from_str(&text).unwrap();
        let nil = "00000000-0000-0000-0000-000000000000";
        for (field, value) in [
            ("user_id", json!(nil)),
            ("token_id", json!(nil)),
            ("expires_at", json!("2026-01-02T00:00:10Z")),
            ("duration_hours", json!(24)),
        ] {
            assert_eq!(found[field], value, "{field}");
        }
        assert_eq!(serde_json::from_str::<CachedPass>(&text).unwrap(), copy);
        let hash = TokenHash::from_bytes(&[0xab; 32]).unwrap();
        assert_eq!(CachedPass::shared_name(&hash), format!("active_token:{}", "ab".repeat(32)));
    }

    #[test]
    fn what_is_no_active_pass_is_not_read() {
        let good = serde_json::to_value(copy(|_| {})).unwrap();
        for (field, value) in [
            ("expires_at", json!(null)),
            ("expires_at", json!("soon")),
            ("duration_hours", json!(0)),
            ("duration_hours", json!(u32::MAX)),
            ("duration_hours", json!(-1)),
            ("user_id", json!(null)),
            ("checked_at", json!(null)),
            ("checked_at", json!("+262142-12-31T23:59:59Z")),
            ("expires_at", json!("-262143-01-01T00:00:00Z")),
        ] {
            let mut bad = good.clone();
            bad[field] = value;
            let read = serde_json::from_value::<CachedPass>(bad.clone());
            let usable = read.ok().and_then(|copy| copy.age(at(20)));
            assert_eq!(usable, None, "{bad}");
        }
    }

    #[test]
    fn only_an_active_pass_that_was_just_read_is_shared_and_only_until_its_end() {
        let end = 10 + 24 * 3600;
        let unused = copy(|pass| pass.activated_at = None);
        let revoked = copy(|pass| pass.revoked_at = Some(at(15)));
        let refunded = copy(|pass| {
            pass.revoked_at = Some(at(15));
            pass.refunded_minor = Some(0);
        });
        for other in [&unused, &revoked, &refunded] {
            assert_eq!(other.shared_for(at(20)), None, "{other:?}");
        }
        let mut active = copy(|_| {});
        let left = |seconds: i64| Some(Duration::from_secs(u64::try_from(end - seconds).unwrap()));
        assert_eq!(active.shared_for(at(20)), left(20));
        assert_eq!(active.shared_for(at(23)), left(23));
        assert_eq!(active.shared_for(at(24)), None, "not fresh");
        active.checked_at = at(end - 1);
        assert_eq!(active.shared_for(at(end - 1)), left(end - 1));
        assert_eq!(active.shared_for(at(end)), None, "ended");
    }

    #[test]
    fn a_copy_ages_from_when_it_was_read_and_a_clock_that_is_ahead_is_borne_for_a_second() {
        let copy = copy(|_| {});
        for (seconds, age) in [(18, None), (19, Some(0)), (20, Some(0)), (23, Some(3))] {
            assert_eq!(copy.age(at(seconds)), age.map(Duration::from_secs), "{seconds}");
        }
    }
}
