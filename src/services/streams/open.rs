//! One open stream.

use std::{
    net::IpAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
};

use chrono::{DateTime, Utc};
use metrics::counter;

use super::{super::door, StreamService};
use crate::{
    config::UpstreamConfig,
    domain::{
        address::network_of,
        id::StreamId,
        kill::KillSwitch,
        principal::{Principal, Proof},
        stream::{Passed, StreamInfo, StreamKind},
    },
};

/// What is known of a stream when it begins.
#[derive(Clone, Debug)]
pub struct Opening {
    pub id: StreamId,
    pub kind: StreamKind,
    pub principal: Option<Principal>,
    pub upstream: Arc<UpstreamConfig>,
    /// The part of the upstream whose policy holds, as
    /// [`UpstreamConfig::part_of`] has it.
    pub part: Option<usize>,
    /// Canonical, for people.
    pub path: String,
    pub address: IpAddr,
    /// The `Origin` it was asked for with, where the key has a list of them.
    pub origin: Option<Box<str>>,
    pub opened_at: DateTime<Utc>,
}

/// An open stream: who opened it, what went through, and the switch that ends
/// it.
#[derive(Debug)]
pub struct OpenStream {
    pub id: StreamId,
    pub kind: StreamKind,
    pub kill: KillSwitch,
    opening: Opening,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    messages_in: AtomicU64,
    messages_out: AtomicU64,
    /// When its credential is over by itself, as last seen; microseconds.
    until: AtomicI64,
    /// When its credential was last proven; microseconds of the monotonic clock.
    proven: AtomicU64,
}

impl OpenStream {
    pub(super) fn new(opening: Opening, now_us: u64) -> Self {
        let zero = || AtomicU64::new(0);
        let until = opening.principal.as_ref().and_then(first_end);
        Self {
            id: opening.id,
            kind: opening.kind,
            kill: KillSwitch::new(),
            opening,
            bytes_in: zero(),
            bytes_out: zero(),
            messages_in: zero(),
            messages_out: zero(),
            until: AtomicI64::new(micros(until)),
            proven: AtomicU64::new(now_us),
        }
    }

    /// `None`: it needs no credential.
    pub fn proof(&self) -> Option<Proof> {
        self.opening.principal.as_ref().map(|principal| principal.proof)
    }

    /// Whether who opened it might still do so, being what they are now.
    pub(super) fn admits(&self, principal: &Principal) -> bool {
        let Opening { upstream, part, address, origin, .. } = &self.opening;
        let policy = upstream.policy_at(*part);
        door::check(upstream, policy, principal, *address, origin.as_deref()).is_ok()
    }

    pub(super) fn is_over(&self, now: DateTime<Utc>) -> bool {
        self.until.load(Relaxed) <= now.timestamp_micros()
    }

    pub(super) fn was_proven(&self, until: Option<DateTime<Utc>>, now_us: u64) {
        self.until.store(micros(until), Relaxed);
        self.proven.store(now_us, Relaxed);
    }

    /// Microseconds since its credential was last proven.
    pub(super) fn unproven_for(&self, now_us: u64) -> u64 {
        now_us.saturating_sub(self.proven.load(Relaxed))
    }

    pub fn passed(&self) -> Passed {
        let read = |counter: &AtomicU64| counter.load(Relaxed);
        Passed {
            bytes_in: read(&self.bytes_in),
            bytes_out: read(&self.bytes_out),
            messages_in: read(&self.messages_in),
            messages_out: read(&self.messages_out),
        }
    }

    /// Whether both were opened with the same credential, or from the same
    /// network without one.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        match (self.proof(), other.proof()) {
            (None, None) => network_of(self.opening.address) == network_of(other.opening.address),
            // Its tokens differ in when they end.
            (
                Some(Proof::Login { session: one, .. }),
                Some(Proof::Login { session: other, .. }),
            ) => one == other,
            (one, other) => one == other,
        }
    }

    pub(super) fn info(&self, instance: &str) -> StreamInfo {
        let Opening { principal, upstream, path, address, opened_at, .. } = &self.opening;
        let principal = principal.as_ref();
        StreamInfo {
            id: self.id,
            instance: instance.to_owned(),
            kind: self.kind,
            user_id: principal.map(Principal::user_id),
            username: principal.map(|principal| principal.account.username.clone()),
            key_id: principal.and_then(Principal::key_id),
            token_id: principal.and_then(Principal::pass_id),
            session_id: principal.and_then(Principal::session_id),
            upstream: upstream.name.to_owned(),
            path: path.clone(),
            address: *address,
            opened_at: *opened_at,
            passed: self.passed(),
        }
    }
}

/// Keeps a stream in the list while it lives. Whoever serves the stream tells it
/// what passes.
pub struct StreamHandle {
    service: Arc<StreamService>,
    stream: Arc<OpenStream>,
    ended: OnceLock<&'static str>,
}

impl StreamHandle {
    pub(super) fn new(service: Arc<StreamService>, stream: Arc<OpenStream>) -> Self {
        Self { service, stream, ended: OnceLock::new() }
    }

    pub(super) fn stream(&self) -> &OpenStream {
        &self.stream
    }

    pub fn kill(&self) -> &KillSwitch {
        &self.stream.kill
    }

    pub fn passed(&self) -> Passed {
        self.stream.passed()
    }

    /// Sets what went through so far.
    pub fn set_passed(&self, passed: Passed) {
        let Passed { bytes_in, bytes_out, messages_in, messages_out } = passed;
        self.stream.bytes_in.store(bytes_in, Relaxed);
        self.stream.bytes_out.store(bytes_out, Relaxed);
        self.stream.messages_in.store(messages_in, Relaxed);
        self.stream.messages_out.store(messages_out, Relaxed);
    }

    /// Why it ends, for the metric; without this the client left. What is said
    /// first stays.
    pub fn ended(&self, why: &'static str) {
        let _ = self.ended.set(why);
    }
}

impl Drop for StreamHandle {
    fn drop(&mut self) {
        self.service.open().remove(&self.stream.id);
        let kind = self.stream.kind.as_str();
        let reason = *self.ended.get().unwrap_or(&"aborted");
        counter!("tollgate_streams_ended_total", "kind" => kind, "reason" => reason).increment(1);
    }
}

impl std::fmt::Debug for StreamHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("StreamHandle").field(&self.stream.id).finish()
    }
}

/// When a credential is over by itself, as far as it says so itself.
fn first_end(principal: &Principal) -> Option<DateTime<Utc>> {
    match principal.proof {
        Proof::Login { until, .. } => Some(until),
        Proof::ApiKey(_) => principal.key().and_then(|key| key.expires_at),
        Proof::Pass(_) => principal.pass().and_then(|pass| pass.expires_at()),
    }
}

fn micros(until: Option<DateTime<Utc>>) -> i64 {
    until.map_or(i64::MAX, |until| until.timestamp_micros())
}
