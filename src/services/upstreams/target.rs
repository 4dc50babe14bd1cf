//! One server of an upstream, as this instance sees it.
//!
//! Everything is counted in atomics that all workers share; a lock is taken
//! only where a connection is waited for.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{
            AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, AtomicUsize,
            Ordering::{AcqRel, Acquire, Relaxed},
        },
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use tokio::sync::{Notify, futures::Notified};

use super::breaker::{Breaker, BreakerState};
use crate::{config::TargetConfig, domain::clock::SharedClock};

/// Checks that must fail, one after the other, before a server counts as ill.
const CHECKS_TO_FAIL: u32 = 2;

/// How an exchange with a server failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// No name, no route, refused.
    Unreachable,
    /// None of its addresses may be connected to.
    AddressRefused,
    /// Its certificate, or TLS itself.
    Tls,
    ConnectTimeout,
    /// Connected, but no answer began in time.
    Timeout,
    /// The connection broke, or what came was not HTTP.
    Broken,
    /// It switched protocols unasked.
    BadAnswer,
    /// 502, 503 or 504: what a server says of itself, or of what it leans on.
    /// Not so a 500, which one bad request may cause.
    Status,
}

#[derive(Debug)]
pub struct TargetState {
    pub config: TargetConfig,
    /// The upstream's name, for the log.
    upstream: &'static str,
    clock: SharedClockDebug,
    pub(super) breaker: Breaker,
    in_flight: AtomicUsize,
    connections: AtomicUsize,
    pending: AtomicUsize,
    freed: Notify,
    /// The workers' idle connections.
    idle: Mutex<Vec<Weak<dyn IdleConnections>>>,
    ill: AtomicBool,
    checks_failed: AtomicU32,
    failures: [AtomicU64; FailureKind::ALL.len()],
    /// The last one's number, and when, in milliseconds since 1970.
    last_failure: AtomicU8,
    last_failure_at: AtomicI64,
}

/// Connections that nobody uses now, and that may be asked for.
pub trait IdleConnections: Send + Sync + std::fmt::Debug {
    /// Closes the one used least lately; whether there was one.
    fn close_one(&self) -> bool;
}

/// Counts an exchange with a target while it lives.
#[derive(Debug)]
pub struct InFlight {
    target: Arc<TargetState>,
    /// What becomes of it closes or opens the breaker.
    probe: bool,
}

/// Counts an open connection while it lives.
#[derive(Debug)]
pub struct Connected(Arc<TargetState>);

/// Counts who waits for a connection while it lives.
#[derive(Debug)]
pub struct Pending(Arc<TargetState>);

/// A look at one target.
#[derive(Clone, Debug)]
pub struct TargetStatus {
    pub url: String,
    pub weight: u32,
    /// As far as the active checks know.
    pub healthy: bool,
    pub breaker: BreakerState,
    pub in_flight: usize,
    pub connections: usize,
    pub pending: usize,
    pub last_failure: Option<(FailureKind, DateTime<Utc>)>,
}

struct SharedClockDebug(SharedClock);

impl std::fmt::Debug for SharedClockDebug {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

impl FailureKind {
    pub const ALL: [Self; 8] = [
        Self::Unreachable,
        Self::AddressRefused,
        Self::Tls,
        Self::ConnectTimeout,
        Self::Timeout,
        Self::Broken,
        Self::BadAnswer,
        Self::Status,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::AddressRefused => "address_refused",
            Self::Tls => "tls",
            Self::ConnectTimeout => "connect_timeout",
            Self::Timeout => "timeout",
            Self::Broken => "broken",
            Self::BadAnswer => "bad_answer",
            Self::Status => "status",
        }
    }

    /// Whether there never was a connection, so that nothing was sent.
    pub fn is_connecting(self) -> bool {
        matches!(self, Self::Unreachable | Self::AddressRefused | Self::Tls | Self::ConnectTimeout)
    }
}

impl TargetState {
    pub(super) fn new(config: &TargetConfig, upstream: &'static str, clock: SharedClock) -> Self {
        Self {
            config: config.clone(),
            upstream,
            clock: SharedClockDebug(clock),
            breaker: Breaker::default(),
            in_flight: AtomicUsize::default(),
            connections: AtomicUsize::default(),
            pending: AtomicUsize::default(),
            freed: Notify::default(),
            idle: Mutex::default(),
            ill: AtomicBool::default(),
            checks_failed: AtomicU32::default(),
            failures: Default::default(),
            last_failure: AtomicU8::default(),
            last_failure_at: AtomicI64::default(),
        }
    }

    pub(super) fn now(&self) -> u64 {
        self.clock.0.monotonic_us()
    }

    /// Exchanges of this instance under way.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// Requests that wait for a connection.
    pub fn pending(&self) -> usize {
        self.pending.load(Relaxed)
    }

    /// Whether the active checks, if there are any, found it well.
    pub fn is_healthy(&self) -> bool {
        !self.ill.load(Relaxed)
    }

    pub fn breaker(&self) -> BreakerState {
        self.breaker.state()
    }

    /// Whether requests go there as usual.
    pub fn is_available(&self) -> bool {
        self.is_healthy() && self.breaker.is_closed()
    }

    /// How often exchanges failed in this way since the start.
    pub fn failures(&self, kind: FailureKind) -> u64 {
        self.failures[kind as usize].load(Relaxed)
    }

    pub fn status(&self) -> TargetStatus {
        let last_failure = usize::from(self.last_failure.load(Relaxed)).checked_sub(1);
        let at = DateTime::from_timestamp_millis(self.last_failure_at.load(Relaxed));
        TargetStatus {
            url: self.config.url.clone(),
            weight: self.config.weight,
            healthy: self.is_healthy(),
            breaker: self.breaker.state(),
            in_flight: self.in_flight(),
            connections: self.connections(),
            pending: self.pending(),
            last_failure: last_failure.map(|kind| FailureKind::ALL[kind]).zip(at),
        }
    }

    /// Counts one more exchange, until the answer is dropped.
    pub(super) fn enter(self: &Arc<Self>, probe: bool) -> InFlight {
        self.in_flight.fetch_add(1, Relaxed);
        InFlight { target: Arc::clone(self), probe }
    }

    /// What an active check said.
    pub fn checked(&self, well: bool) {
        let failed = if well {
            self.checks_failed.store(0, Relaxed);
            0
        } else {
            self.checks_failed.fetch_add(1, Relaxed).saturating_add(1)
        };
        let ill = failed >= CHECKS_TO_FAIL;
        if (well || ill) && self.ill.swap(ill, Relaxed) != ill {
            let (upstream, url) = (self.upstream, &self.config.url);
            if ill {
                tracing::warn!(upstream.name = upstream, target.url = %url, "a target is ill");
            } else {
                tracing::info!(upstream.name = upstream, target.url = %url, "a target is well again");
            }
        }
    }

    /// Without active checks nothing is known to be ill.
    pub(super) fn unchecked(&self) {
        self.checks_failed.store(0, Relaxed);
        self.ill.store(false, Relaxed);
    }

    fn succeeded(&self, probe: bool) {
        if self.breaker.succeeded(self.now(), probe) {
            tracing::info!(
                upstream.name = self.upstream, target.url = %self.config.url,
                "a target answers again"
            );
        }
    }

    fn failed(&self, kind: FailureKind, probe: bool) {
        self.failures[kind as usize].fetch_add(1, Relaxed);
        self.last_failure.store(kind as u8 + 1, Relaxed);
        self.last_failure_at.store(self.clock.0.now().timestamp_millis(), Relaxed);
        if self.breaker.failed(self.now(), kind.is_connecting(), probe) {
            tracing::warn!(
                upstream.name = self.upstream, target.url = %self.config.url,
                reason = kind.as_str(), "a target fails; it gets no requests for now"
            );
        }
    }

    /// Leave to open a connection, if there are fewer than `most`.
    pub fn try_connect(self: &Arc<Self>, most: usize) -> Option<Connected> {
        let more = |open: usize| (open < most).then_some(open + 1);
        self.connections.fetch_update(AcqRel, Acquire, more).ok()?;
        Some(Connected(Arc::clone(self)))
    }

    /// Leave to wait for a connection, if fewer than `most` do.
    pub fn queue(self: &Arc<Self>, most: usize) -> Option<Pending> {
        let more = |waiting: usize| (waiting < most).then_some(waiting + 1);
        self.pending.fetch_update(AcqRel, Acquire, more).ok()?;
        Some(Pending(Arc::clone(self)))
    }

    /// Ready when a connection was closed, for one of those who wait.
    pub fn freed(&self) -> Notified<'_> {
        self.freed.notified()
    }

    /// Makes known where idle connections are.
    pub fn register(&self, idle: Weak<dyn IdleConnections>) {
        let mut all = self.idle();
        all.retain(|idle| idle.strong_count() > 0);
        all.push(idle);
    }

    /// Closes an idle connection of whichever worker has one.
    pub fn reclaim(&self) {
        // Not while the lock is held: what is closed may tell others.
        let all: Vec<_> = self.idle().iter().filter_map(Weak::upgrade).collect();
        _ = all.iter().any(|idle| idle.close_one());
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Weak<dyn IdleConnections>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn retry_in(&self) -> Duration {
        self.breaker.retry_in(self.now())
    }
}

impl InFlight {
    /// The server answered, and well.
    pub fn succeeded(&mut self) {
        self.target.succeeded(std::mem::take(&mut self.probe));
    }

    /// Once for each exchange; a second time where an answer broke off after it
    /// had begun well.
    pub fn failed(&mut self, kind: FailureKind) {
        self.target.failed(kind, std::mem::take(&mut self.probe));
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.target.in_flight.fetch_sub(1, Relaxed);
        if self.probe {
            self.target.breaker.abandoned();
        }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, AcqRel);
        self.0.freed.notify_one();
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, AcqRel);
    }
}
