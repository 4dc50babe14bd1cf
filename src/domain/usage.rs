//! What one request used, and how many requests add up.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::id::{ApiKeyId, LogPlace, PassId, RecordId, UserId};

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
    pub pass_id: Option<PassId>,
    pub upstream: Cow<'static, str>,
    /// The pattern of its route, one of those that the upstream lists.
    pub route: Cow<'static, str>,
    /// A socket or an event stream, which is paid by the time that it is open.
    pub is_stream: bool,
    /// Messages of a socket both ways, or events of a stream.
    pub messages: u64,
    /// Set when it is written down.
    pub place: LogPlace,
}

/// The part of a record that is added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    pub outcome: Outcome,
    pub duration_us: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub is_stream: bool,
    pub messages: u64,
}

impl UsageRecord {
    pub fn used(&self) -> Used {
        let Self { outcome, duration_us, bytes_in, bytes_out, is_stream, messages, .. } = *self;
        Used { outcome, duration_us, bytes_in, bytes_out, is_stream, messages }
    }

    /// When it ended, in microseconds since 1970.
    pub fn ended_us(&self) -> u64 {
        let began = u64::try_from(self.at.timestamp_micros()).unwrap_or(0);
        began.saturating_add(self.duration_us)
    }
}

impl LogPlace {
    /// Microseconds that a version 7 id has room for: until the year 10889.
    const MOST: u64 = ((1 << 48) - 1) * 1000;

    /// The place of what ended `us` microseconds after 1970, in the log of one
    /// `instance` of several. A UUIDv7, with the microseconds where RFC 9562
    /// (6.2, method 3) has them.
    pub fn at(us: u64, instance: Uuid) -> Self {
        let us = us.min(Self::MOST);
        let high = ((us / 1000) << 16) | 0x7000 | (us % 1000);
        let low = 1 << 63 | instance.as_u64_pair().1 & (u64::MAX >> 2);
        Self::from(Uuid::from_u64_pair(high, low))
    }

    /// Before all that ended at `at` or later, and behind all that did before.
    pub fn first_of(at: DateTime<Utc>) -> Self {
        let ms = u64::try_from(at.timestamp_millis()).unwrap_or(0).min(Self::MOST / 1000);
        Self::from(Uuid::from_u64_pair(ms << 16, 0))
    }

    /// When, to the millisecond.
    pub fn time(self) -> DateTime<Utc> {
        let ms = self.as_uuid().as_u64_pair().0 >> 16;
        let ms = i64::try_from(ms).expect("48 bits");
        DateTime::from_timestamp_millis(ms).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }
}

/// 2 for 200..=299 and so on; 3xx count as succeeded in totals.
pub fn class_of(status: u16) -> i16 {
    i16::try_from(status / 100).unwrap_or(5)
}

/// What requests are added up by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RollupKey {
    /// The first instant of the hour, UTC.
    pub hour: DateTime<Utc>,
    pub user_id: Option<UserId>,
    pub key_id: Option<ApiKeyId>,
    pub pass_id: Option<PassId>,
    pub upstream: String,
    pub route: String,
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
    /// How long sockets and event streams were open.
    pub stream_us: u64,
    /// Messages of sockets both ways, and events of streams.
    pub messages: u64,
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
        self.stream_us += if used.is_stream { used.duration_us } else { 0 };
        self.messages += used.messages;
        self.latency.add(Histogram::bucket(used.duration_us), requests);
    }

    pub fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.rejected += other.rejected;
        self.aborted += other.aborted;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.duration_us += other.duration_us;
        self.stream_us += other.stream_us;
        self.messages += other.messages;
        self.latency.merge(&other.latency);
    }

    #[expect(clippy::cast_precision_loss, reason = "exact to the microsecond for 285 years")]
    pub fn stream_seconds(&self) -> f64 {
        self.stream_us as f64 / 1_000_000.0
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Histogram(std::collections::BTreeMap<i16, u64>);

impl FromIterator<(i16, u64)> for Histogram {
    fn from_iter<I: IntoIterator<Item = (i16, u64)>>(buckets: I) -> Self {
        let mut this = Self::default();
        buckets.into_iter().for_each(|(bucket, count)| this.add(bucket, count));
        this
    }
}

impl Histogram {
    /// Durations from here on (about 19 hours) share the last bucket.
    const LAST: i16 = 119;
    /// How many buckets there are.
    pub const BUCKETS: usize = 120;

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
    fn places_in_the_log_follow_time_to_the_microsecond() {
        let at = DateTime::from_timestamp_micros(1_767_225_600_001_999).unwrap();
        let (one, other) = (Uuid::from_u128(u128::MAX), Uuid::nil());
        let us = u64::try_from(at.timestamp_micros()).unwrap();
        let place = |us, of| LogPlace::at(us, of);
        assert!(place(us, one) < place(us + 1, other) && place(us, other) < place(us, one));
        assert!(LogPlace::first_of(at) < place(us, other));
        assert!(LogPlace::first_of(at) > place(us - 1000, one));
        assert_eq!(place(us, one).time().timestamp_millis(), at.timestamp_millis());
        let uuid = place(us, one).as_uuid();
        assert_eq!((uuid.get_version_num(), uuid.get_variant()), (7, uuid::Variant::RFC4122));
        assert!(place(u64::MAX, one) > place(us, one));
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
