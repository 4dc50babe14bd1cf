//! What some chunks of a journal add up to.
//!
//! A busy process leaves thousands of records twice a second. Each is read once,
//! in place, and added to the sum that it belongs to; none is kept but those that
//! go to the request log.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use crate::{
    domain::{
        id::{ApiKeyId, PassId, UserId},
        usage::{Outcome, Rollup, RollupKey, UsageRecord, class_of},
    },
    journal::{Chunk, Frame, Mark, Next},
    repositories::LOGGED_TOGETHER,
};

/// Requests of one batch that reach the request log. Above 2,000 per second the
/// log is therefore a sample; sums are always of everything. Writing a row costs
/// a third of what proxying a request does. Even, so that a sample can be halved.
const LOGGED_AT_ONCE: usize = 16 * LOGGED_TOGETHER;
const HOUR_US: i64 = 3_600_000_000;

#[derive(Debug, Default)]
pub(super) struct Batch {
    /// In one order on every instance, so that none waits for another in turn.
    pub rollups: Vec<(RollupKey, Rollup)>,
    /// When each key was last let through.
    pub last_used: Vec<(ApiKeyId, DateTime<Utc>)>,
    /// In the order of their end.
    pub logged: Vec<UsageRecord>,
    pub marks: Vec<Mark>,
    pub records: usize,
    pub damaged: u64,
}

impl Batch {
    /// All of `chunks`, with at most the newest `most` requests for the log.
    pub fn of(chunks: &[Chunk], most: usize) -> Self {
        let mut batch = Self::default();
        let (mut sums, mut sample) = (Sums::default(), Sample::default());
        for chunk in chunks {
            let mut frames = chunk.frames();
            for next in &mut frames {
                match next {
                    Next::Record(frame) => {
                        batch.records += 1;
                        sums.add(&frame);
                        sample.offer(frame);
                    }
                    Next::Damaged(bytes) => batch.damaged += bytes as u64,
                }
            }
            batch.marks.push(chunk.mark(&frames));
        }
        batch.last_used = sums.last_used();
        batch.rollups = sums.into_rollups();
        batch.logged = sample.newest(most);
        batch
    }
}

/// What a record is added up by, its texts borrowed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Of<'a> {
    /// Since 1970.
    hour: i64,
    user_id: Option<UserId>,
    key_id: Option<ApiKeyId>,
    pass_id: Option<PassId>,
    upstream: &'a str,
    route: &'a str,
    status_class: i16,
}

impl<'a> Of<'a> {
    fn frame(frame: &Frame<'a>) -> Self {
        let Frame { at_us, user_id, key_id, pass_id, upstream, route, status, .. } = *frame;
        let (hour, status_class) = (at_us.div_euclid(HOUR_US), class_of(status));
        Self { hour, user_id, key_id, pass_id, upstream, route, status_class }
    }
}

#[derive(Default)]
struct Sum {
    rollup: Rollup,
    /// Of what was let through.
    newest_us: Option<i64>,
}

#[derive(Default)]
struct Sums<'a> {
    all: Vec<(Of<'a>, Sum)>,
    places: HashMap<Of<'a>, usize>,
    /// Who is busy sends many in a row: most belong where the one before did.
    last: usize,
}

impl<'a> Sums<'a> {
    fn add(&mut self, frame: &Frame<'a>) {
        let of = Of::frame(frame);
        if self.all.get(self.last).is_none_or(|(last, _)| *last != of) {
            self.last = *self.places.entry(of).or_insert(self.all.len());
            if self.last == self.all.len() {
                self.all.push((of, Sum::default()));
            }
        }
        let (_, sum) = &mut self.all[self.last];
        sum.rollup.add(&frame.used(), frame.requests);
        sum.rollup.requests += frame.messages;
        if frame.outcome != Outcome::Rejected {
            sum.newest_us = sum.newest_us.max(Some(frame.at_us));
        }
    }

    fn last_used(&self) -> Vec<(ApiKeyId, DateTime<Utc>)> {
        let mut last = HashMap::new();
        for (of, sum) in &self.all {
            let newest = sum.newest_us.and_then(DateTime::from_timestamp_micros);
            if let (Some(key), Some(newest)) = (of.key_id, newest) {
                let at = last.entry(key).or_insert(newest);
                *at = newest.max(*at);
            }
        }
        last.into_iter().collect()
    }

    fn into_rollups(self) -> Vec<(RollupKey, Rollup)> {
        let own = |(of, sum): (Of<'_>, Sum)| {
            let Of { hour, user_id, key_id, pass_id, upstream, route, status_class } = of;
            let hour = DateTime::from_timestamp(hour * 3600, 0).expect("the hour of a record");
            let (upstream, route) = (upstream.to_owned(), route.to_owned());
            let key = RollupKey { hour, user_id, key_id, pass_id, upstream, route, status_class };
            (key, sum.rollup)
        };
        let mut rollups: Vec<_> = self.all.into_iter().map(own).collect();
        rollups.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        rollups
    }
}

/// Some of many, evenly spread: all, then every second, every fourth and so on;
/// what ended last always.
struct Sample<'a> {
    frames: Vec<Frame<'a>>,
    last: Option<Frame<'a>>,
    every: usize,
    skip: usize,
}

impl Default for Sample<'_> {
    fn default() -> Self {
        Self { frames: vec![], last: None, every: 1, skip: 0 }
    }
}

impl<'a> Sample<'a> {
    fn offer(&mut self, frame: Frame<'a>) {
        if self.skip > 0 {
            self.skip -= 1;
            if self.last.is_none_or(|last| last.place < frame.place) {
                self.last = Some(frame);
            }
            return;
        }
        if self.frames.len() == LOGGED_AT_ONCE {
            let mut keeps = false;
            self.frames.retain(|_| {
                keeps = !keeps;
                keeps
            });
            self.every *= 2;
        }
        self.frames.push(frame);
        self.skip = self.every - 1;
    }

    /// The `most` that ended last, in the order of their end.
    fn newest(mut self, most: usize) -> Vec<UsageRecord> {
        self.frames.extend(self.last);
        self.frames.sort_unstable_by_key(|frame| frame.place);
        let total = self.frames.len();
        // Of a sample as many as are written without a remainder.
        let fit = if self.every > 1 { total - total % LOGGED_TOGETHER } else { total };
        let first = total - fit.min(most);
        self.frames[first..].iter().map(|frame| frame.to_record()).collect()
    }
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
