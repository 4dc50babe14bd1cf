//! How a record lies in the file.
//!
//! ```text
//! magic u16 | length of the payload u16 | CRC-32 of length and payload u32 | payload
//! ```
//!
//! All numbers are little-endian. A kill in the middle of a write leaves a record
//! that is cut; a bad disk one that is damaged. The reader knows both by the
//! checksum, and finds the next whole record by the magic and the checksum after
//! it, so that only what is damaged is lost (RELIABILITY G-06).

use std::borrow::Cow;

use chrono::DateTime;
use uuid::Uuid;

use crate::domain::{
    id::{ApiKeyId, LogPlace, PassId, RecordId, UserId},
    route,
    usage::{Outcome, UsageRecord, Used},
};

const MAGIC: [u8; 2] = [0x7a, 0xe1];
const HEAD: usize = 8;
const VERSION: u8 = 1;
const HAS_USER: u8 = 1;
const HAS_KEY: u8 = 2;
/// Its id comes behind the texts, where a reader that does not know of it stops
/// before.
const HAS_PASS: u8 = 4;
const IS_STREAM: u8 = 8;
/// The same of the route, the place in the log and what went through a stream.
const HAS_MORE: u8 = 16;
/// Bytes of a text that are kept; paths are recorded at up to 512 characters.
const LONGEST_TEXT: usize = 4096;

/// A request, and as how many it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub record: UsageRecord,
    pub requests: u64,
    /// Beside them, the messages within it that were charged like requests: they
    /// have no duration of their own.
    pub messages: u64,
}

/// The same as it is read: its texts are the file's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub id: RecordId,
    pub at_us: i64,
    pub status: u16,
    pub outcome: Outcome,
    pub duration_us: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub user_id: Option<UserId>,
    pub key_id: Option<ApiKeyId>,
    pub pass_id: Option<PassId>,
    pub requests: u64,
    /// Those that were charged like requests.
    pub messages: u64,
    pub is_stream: bool,
    /// All of them.
    pub passed: u64,
    pub place: LogPlace,
    pub method: &'a str,
    pub upstream: &'a str,
    pub request_id: &'a str,
    pub path: &'a str,
    pub route: &'a str,
}

/// Appends `entry` to `buffer`.
pub(super) fn encode(entry: &Entry, buffer: &mut Vec<u8>) {
    let Entry { record, requests, messages } = entry;
    let start = buffer.len();
    buffer.extend_from_slice(&MAGIC);
    buffer.extend_from_slice(&[0; HEAD - MAGIC.len()]);
    let given = |bit, is: bool| if is { bit } else { 0 };
    let flags = given(HAS_USER, record.user_id.is_some())
        | given(HAS_KEY, record.key_id.is_some())
        | given(HAS_PASS, record.pass_id.is_some())
        | given(IS_STREAM, record.is_stream)
        | HAS_MORE;
    let outcome = Outcome::ALL.iter().position(|known| *known == record.outcome);
    let outcome = outcome.and_then(|at| u8::try_from(at).ok()).expect("one of a few");
    buffer.extend_from_slice(&[VERSION, flags, outcome]);
    buffer.extend_from_slice(record.id.as_uuid().as_bytes());
    buffer.extend_from_slice(&record.at.timestamp_micros().to_le_bytes());
    buffer.extend_from_slice(&record.status.to_le_bytes());
    for number in [record.duration_us, record.bytes_in, record.bytes_out, *requests, *messages] {
        buffer.extend_from_slice(&number.to_le_bytes());
    }
    if let Some(id) = record.user_id {
        buffer.extend_from_slice(id.as_uuid().as_bytes());
    }
    if let Some(id) = record.key_id {
        buffer.extend_from_slice(id.as_uuid().as_bytes());
    }
    for text in [&*record.method, &*record.upstream, &record.request_id, &record.path] {
        put_text(text, buffer);
    }
    if let Some(id) = record.pass_id {
        buffer.extend_from_slice(id.as_uuid().as_bytes());
    }
    buffer.extend_from_slice(&record.messages.to_le_bytes());
    buffer.extend_from_slice(record.place.as_uuid().as_bytes());
    put_text(&record.route, buffer);
    let length = u16::try_from(buffer.len() - start - HEAD).expect("five texts of at most 4 KiB");
    buffer[start + 2..start + 4].copy_from_slice(&length.to_le_bytes());
    let checksum = checksum(length, &buffer[start + HEAD..]);
    buffer[start + 4..start + HEAD].copy_from_slice(&checksum.to_le_bytes());
}

fn put_text(text: &str, buffer: &mut Vec<u8>) {
    let text = cut(text, LONGEST_TEXT);
    let length = u16::try_from(text.len()).expect("cut to less");
    buffer.extend_from_slice(&length.to_le_bytes());
    buffer.extend_from_slice(text.as_bytes());
}

fn checksum(length: u16, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// At most `bytes` of it, in whole characters.
fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "nearly all are records, read and used in place")]
pub enum Next<'a> {
    Record(Frame<'a>),
    /// So many bytes that are no record.
    Damaged(usize),
}

/// Reads records one after the other, until the bytes end.
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Nothing follows: what is cut at the end stays so.
    whole: bool,
}

impl<'a> Frames<'a> {
    /// `whole`: the file ends where `bytes` do. Otherwise the rest of a record
    /// that is cut there is left for the next time.
    pub fn new(bytes: &'a [u8], whole: bool) -> Self {
        Self { bytes, at: 0, whole }
    }

    /// Up to where all is read.
    pub fn position(&self) -> usize {
        self.at
    }

    fn record_at(&self, at: usize) -> Found<'a> {
        let bytes = &self.bytes[at..];
        if bytes.len() < HEAD {
            let cut = bytes.iter().zip(&MAGIC).all(|(byte, magic)| byte == magic);
            return if cut { Found::Cut } else { Found::Nothing };
        }
        if bytes[..2] != MAGIC {
            return Found::Nothing;
        }
        let length = u16::from_le_bytes([bytes[2], bytes[3]]);
        let end = HEAD + usize::from(length);
        let Some(payload) = bytes.get(HEAD..end) else { return Found::Cut };
        let expected = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        if checksum(length, payload) != expected {
            return Found::Nothing;
        }
        parse(payload).map_or(Found::Nothing, |frame| Found::Record(frame, at + end))
    }
}

#[expect(clippy::large_enum_variant, reason = "as `Next`")]
enum Found<'a> {
    Record(Frame<'a>, usize),
    /// The beginning of one.
    Cut,
    Nothing,
}

impl<'a> Iterator for Frames<'a> {
    type Item = Next<'a>;

    fn next(&mut self) -> Option<Next<'a>> {
        if let Found::Record(frame, end) = self.record_at(self.at) {
            self.at = end;
            return Some(Next::Record(frame));
        }
        // The next one that is whole. A length that is damaged looks like a
        // record that is cut, so one that is whole after it counts for more.
        let start = self.at;
        let mut first_cut = None;
        for at in start..self.bytes.len() {
            match self.record_at(at) {
                Found::Record(..) => {
                    self.at = at;
                    return Some(Next::Damaged(at - start));
                }
                Found::Cut if !self.whole => first_cut = first_cut.or(Some(at)),
                Found::Cut | Found::Nothing => {}
            }
        }
        self.at = first_cut.unwrap_or(self.bytes.len());
        (self.at > start).then(|| Next::Damaged(self.at - start))
    }
}

fn parse(payload: &[u8]) -> Option<Frame<'_>> {
    let mut rest = Rest(payload);
    let [version, flags, outcome] = rest.array()?;
    if version != VERSION {
        return None;
    }
    let outcome = *Outcome::ALL.get(usize::from(outcome))?;
    let id = RecordId::from(rest.uuid()?);
    let at_us = i64::from_le_bytes(rest.array()?);
    let status = u16::from_le_bytes(rest.array()?);
    let [duration_us, bytes_in, bytes_out, requests, messages] =
        [rest.number()?, rest.number()?, rest.number()?, rest.number()?, rest.number()?];
    let user_id = if flags & HAS_USER > 0 { Some(UserId::from(rest.uuid()?)) } else { None };
    let key_id = if flags & HAS_KEY > 0 { Some(ApiKeyId::from(rest.uuid()?)) } else { None };
    let [method, upstream, request_id, path] =
        [rest.text()?, rest.text()?, rest.text()?, rest.text()?];
    let pass_id = if flags & HAS_PASS > 0 { Some(PassId::from(rest.uuid()?)) } else { None };
    let (passed, place, route) = if flags & HAS_MORE > 0 {
        (rest.number()?, LogPlace::from(rest.uuid()?), rest.text()?)
    } else {
        // What was known of messages before, and the order that the log had.
        (messages, LogPlace::from(id.as_uuid()), route::OTHER)
    };
    DateTime::from_timestamp_micros(at_us)?;
    Some(Frame {
        id,
        at_us,
        status,
        outcome,
        duration_us,
        bytes_in,
        bytes_out,
        user_id,
        key_id,
        pass_id,
        requests,
        messages,
        is_stream: flags & IS_STREAM > 0,
        passed,
        place,
        method,
        upstream,
        request_id,
        path,
        route,
    })
}

struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn uuid(&mut self) -> Option<Uuid> {
        self.array().map(Uuid::from_bytes)
    }

    fn number(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = u16::from_le_bytes(self.array()?);
        let (text, rest) = self.0.split_at_checked(usize::from(length))?;
        self.0 = rest;
        str::from_utf8(text).ok()
    }
}

impl Frame<'_> {
    pub fn used(&self) -> Used {
        let Self { outcome, duration_us, bytes_in, bytes_out, is_stream, .. } = *self;
        Used { outcome, duration_us, bytes_in, bytes_out, is_stream, messages: self.passed }
    }

    /// The record with texts of its own.
    pub fn to_record(self) -> UsageRecord {
        UsageRecord {
            id: self.id,
            request_id: self.request_id.to_owned(),
            at: DateTime::from_timestamp_micros(self.at_us).expect("checked as it was read"),
            method: Cow::Owned(self.method.to_owned()),
            path: self.path.to_owned(),
            status: self.status,
            outcome: self.outcome,
            duration_us: self.duration_us,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            user_id: self.user_id,
            key_id: self.key_id,
            pass_id: self.pass_id,
            upstream: Cow::Owned(self.upstream.to_owned()),
            route: Cow::Owned(self.route.to_owned()),
            is_stream: self.is_stream,
            messages: self.passed,
            place: self.place,
        }
    }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
