//! What one request used, and how many requests add up.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::id::{ApiKeyId, RecordId, UserId};

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The whole answer was handed to the client.
    Completed,
    /// The client left; what it received is counted.
    Aborted,
    /// The upstream broke off or could not be reached.
    Failed,
    /// We ended a stream before its end: its credential counts no more, an
    /// operator cut it, it was open for too long, or the process stops.
    Cut,
    /// A rate limit or quota refused it before it reached the upstream.
    Rejected,
}

impl Outcome {
    pub const ALL: [Self; 5] =
        [Self::Completed, Self::Aborted, Self::Failed, Self::Cut, Self::Rejected];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Aborted => "aborted",
            Self::Failed => "failed",
            Self::Cut => "cut",
            Self::Rejected => "rejected",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == text)
    }
}

/// One request, as it is recorded when its body has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRecord {
    pub id: RecordId,
    pub request_id: String,
    /// When the request arrived.
    pub at: DateTime<Utc>,
    pub method: Cow<'static, str>,
    /// The canonical path without its query, cut to 512 characters.
    pub path: String,
    pub status: u16,
    pub outcome: Outcome,
    pub duration_us: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub user_id: Option<UserId>,
    pub key_id: Option<ApiKeyId>,
    pub upstream: Cow<'static, str>,
}

/// The part of a record that is added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    pub outcome: Outcome,
    pub duration_us: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

impl UsageRecord {
    pub fn used(&self) -> Used {
        let Self { outcome, duration_us, bytes_in, bytes_out, .. } = *self;
        Used { outcome, duration_us, bytes_in, bytes_out }
    }
}

/// 2 for 200..=299 and so on; 3xx count as succeeded in totals.
pub fn class_of(status: u16) -> i16 {
    i16::try_from(status / 100).unwrap_or(5)
}

/// What requests are added up by: one row of the hourly roll-up.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RollupKey {
    /// The first instant of the hour, UTC.
    pub hour: DateTime<Utc>,
    pub user_id: Option<UserId>,
    pub key_id: Option<ApiKeyId>,
    pub upstream: String,
    pub status_class: i16,
}

/// Sums of one roll-up row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rollup {
    /// Let through, however they ended.
    pub requests: u64,
    /// Refused by a limit; not part of `requests`.
    pub rejected: u64,
    /// Of `requests`: the client left early.
    pub aborted: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub duration_us: u64,
    pub latency: Histogram,
}

impl Rollup {
    /// Adds something that counts as so many requests, each of the same
    /// duration; its bytes went over the wire once.
    pub fn add(&mut self, used: &Used, requests: u64) {
        if used.outcome == Outcome::Rejected {
            self.rejected += requests;
            return;
        }
        self.requests += requests;
        self.aborted += if used.outcome == Outcome::Aborted { requests } else { 0 };
        self.bytes_in += used.bytes_in;
        self.bytes_out += used.bytes_out;
        self.duration_us += used.duration_us.saturating_mul(requests);
        self.latency.add(Histogram::bucket(used.duration_us), requests);
    }

    pub fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.rejected += other.rejected;
        self.aborted += other.aborted;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.duration_us += other.duration_us;
        self.latency.merge(&other.latency);
    }

    /// Mean duration in milliseconds; `None` without requests.
    #[expect(clippy::cast_precision_loss, reason = "a mean for people")]
    pub fn mean_ms(&self) -> Option<f64> {
        (self.requests > 0).then(|| self.duration_us as f64 / self.requests as f64 / 1000.0)
    }
}

/// Sums over a span, by how the requests were answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Of `sum.requests`: answered with a status below 400.
    pub succeeded: u64,
    /// With 400..=499.
    pub client_errors: u64,
    /// With 500 and above.
    pub server_errors: u64,
    pub sum: Rollup,
}

impl Totals {
    pub fn merge(&mut self, other: &Self) {
        self.succeeded += other.succeeded;
        self.client_errors += other.client_errors;
        self.server_errors += other.server_errors;
        self.sum.merge(&other.sum);
    }
}

/// A histogram of durations that can be added up over any span.
///
/// Bucket `b` holds durations below [`Histogram::upper_us`]`(b)` and not below
/// that of `b - 1`; four buckets per doubling, so a percentile is off by less
/// than 19 %. Sparse: only buckets that hold something are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram(std::collections::BTreeMap<i16, u64>);

impl Histogram {
    /// Durations from here on (about 19 hours) share the last bucket.
    const LAST: i16 = 119;

    /// The bucket of a duration in microseconds. Bucket 0 ends at 64 µs.
    #[expect(clippy::cast_possible_truncation, reason = "at most 4 * 58")]
    pub fn bucket(duration_us: u64) -> i16 {
        const FIRST: u64 = 64;
        if duration_us < FIRST {
            return 0;
        }
        let doubling = duration_us.ilog2() - 6;
        let quarter = duration_us >> (doubling + 4) & 3;
        (1 + doubling as i16 * 4 + quarter as i16).min(Self::LAST)
    }

    /// The exclusive upper bound of a bucket, microseconds.
    pub fn upper_us(bucket: i16) -> u64 {
        if bucket <= 0 {
            return 64;
        }
        let step = u64::from(bucket.unsigned_abs()) - 1;
        let (doubling, quarter) = (step / 4, step % 4);
        (5 + quarter) << (doubling + 4)
    }

    pub fn record(&mut self, duration_us: u64) {
        *self.0.entry(Self::bucket(duration_us)).or_default() += 1;
    }

    pub fn add(&mut self, bucket: i16, count: u64) {
        *self.0.entry(bucket).or_default() += count;
    }

    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in other.buckets() {
            self.add(bucket, count);
        }
    }

    /// The buckets that hold something, shortest first.
    pub fn buckets(&self) -> impl Iterator<Item = (i16, u64)> {
        self.0.iter().map(|(bucket, count)| (*bucket, *count))
    }

    /// The upper bound, in milliseconds, of the bucket that holds the
    /// `quantile` (0..=1); `None` when empty.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank among fewer than 2^52 requests"
    )]
    pub fn quantile_ms(&self, quantile: f64) -> Option<f64> {
        let total: u64 = self.0.values().sum();
        let rank = ((total as f64 * quantile).ceil() as u64).max(1);
        let mut seen = 0;
        self.buckets().find_map(|(bucket, count)| {
            seen += count;
            (seen >= rank).then(|| Self::upper_us(bucket) as f64 / 1000.0)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_duration_lies_within_its_bucket(us in 0u64..(1 << 35)) {
            let bucket = Histogram::bucket(us);
            prop_assert!(us < Histogram::upper_us(bucket));
            if bucket > 0 {
                prop_assert!(us >= Histogram::upper_us(bucket - 1));
            }
        }
    }

    #[test]
    fn quantiles_come_from_the_merged_whole() {
        let (mut fast, mut slow) = (Histogram::default(), Histogram::default());
        (0..99).for_each(|_| fast.record(1_000));
        slow.record(1_000_000);
        fast.merge(&slow);
        let p50 = fast.quantile_ms(0.5).unwrap();
        let p100 = fast.quantile_ms(1.0).unwrap();
        assert!((1.0..1.2).contains(&p50), "{p50}");
        assert!((1000.0..1190.0).contains(&p100), "{p100}");
        assert_eq!(Histogram::default().quantile_ms(0.5), None);
    }
}
