//! Connections to one target, kept by one worker.
//!
//! hyper-util's pooled client does the same for any number of hosts and costs a
//! task, two boxed futures and a map look-up per request; here there is one
//! host and one thread. What it promises:
//!
//! - over HTTP/1.1 a connection is used by one exchange at a time and comes back
//!   only when both bodies have ended, so an answer never reaches another
//!   request; over HTTP/2 all exchanges share one ([`super::http2`]);
//! - a request is sent again only while no byte of it was written: the
//!   connection was never made, or hyper hands the request back unsent
//!   (RFC 9110, 9.2.2; RELIABILITY G-34, G-35);
//! - an idle connection is not used for longer than `pool_idle`, which lies
//!   below what upstreams keep theirs open for;
//! - all workers together open no more than `max_connections`. Who comes later
//!   waits, and is given what comes back: a connection of this worker as it is,
//!   another worker's by its being closed.

use std::{
    fmt,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use http::Uri;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rand::RngExt as _;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    connect::{ConnectError, Connector, Network, Offer, Stream},
    error::UpstreamError,
    http2::Multiplexed,
    lease::{Lease, Sender},
    upload::{Progress, RequestBody},
};
use crate::{
    config::UpstreamConfig,
    services::upstreams::{Connected, IdleConnections, TargetState},
};

/// Idle connections kept; more are closed as they come back.
const MAX_IDLE: usize = 1024;
/// Bytes that one read of an answer may take, and with them the longest head.
/// While what was read is on its way to the client, the next read needs another
/// buffer: a long answer costs this a few times over, whatever its length.
const READ_AT_MOST: usize = 128 * 1024;

/// The connections of one worker to one target. Cheap to clone.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

pub(super) struct Inner {
    state: Arc<TargetState>,
    connector: Connector,
    limits: Limits,
    /// Uncontended: nearly all users are on one thread. The newest is used
    /// first, so that those not needed grow old.
    idle: Mutex<Vec<Idle>>,
    /// Requests of this worker that wait for a connection.
    waiting: AtomicUsize,
    /// A connection came back for one of them.
    returned: Notify,
    /// Where the target may speak HTTP/2.
    multiplexed: Option<Multiplexed>,
}

struct Limits {
    idle_for: Duration,
    wait: Duration,
    connections: usize,
    pending: usize,
}

/// An HTTP/1.1 connection and the task that drives it, which ends with this: one
/// that writes what the upstream does not take would not end by itself.
pub(super) struct Exclusive {
    pub sender: SendRequest<RequestBody>,
    task: AbortOnDropHandle<()>,
}

impl Exclusive {
    /// Lets what is under way come to its end; then it is closed.
    pub fn finish(self) {
        self.task.detach();
    }
}

struct Idle {
    connection: Exclusive,
    since: Instant,
}

/// What a request that waited was given.
enum Given {
    Connection(Exclusive),
    Leave(Connected),
}

impl Pool {
    pub fn new(
        state: &Arc<TargetState>,
        network: &Network,
        url: &Uri,
        config: &UpstreamConfig,
    ) -> Self {
        let connector = Connector::new(network, url);
        let limits = Limits {
            idle_for: config.pool_idle,
            wait: config.first_byte_timeout,
            connections: config.max_connections,
            pending: config.max_pending,
        };
        let multiplexed = (config.tls.http2 && connector.may_be_http2()).then(|| {
            let authority = url.authority().expect("the configuration checked it");
            Multiplexed::new(authority.clone(), config.pool_idle)
        });
        let inner = Arc::new(Inner {
            state: Arc::clone(state),
            connector,
            limits,
            idle: Mutex::default(),
            waiting: AtomicUsize::default(),
            returned: Notify::default(),
            multiplexed,
        });
        let idle: Weak<dyn IdleConnections> = Arc::<Inner>::downgrade(&inner);
        state.register(idle);
        Self(inner)
    }

    /// A connection for one exchange, asked for `now`. `upload` follows the
    /// request's body, if it has one; a new connection is made within `limit`.
    pub async fn lease(
        &self,
        upload: Option<&Arc<Progress>>,
        limit: Duration,
        mut now: Instant,
    ) -> Result<Lease, UpstreamError> {
        if let Some(sender) = self.0.multiplexed.as_ref().and_then(Multiplexed::sender) {
            return Ok(self.leased(Sender::Http2(sender), upload, false));
        }
        while let Some(mut idle) = self.0.newest(now) {
            // Just after an answer hyper needs a moment to be ready again.
            if idle.sender.is_ready() || idle.sender.ready().await.is_ok() {
                return Ok(self.leased(Sender::Http1(idle), upload, false));
            }
            now = Instant::now();
        }
        // Boxed: connecting is rare and its future is large.
        let sender = Box::pin(self.open(limit)).await?;
        Ok(self.leased(sender, upload, true))
    }

    /// A connection of its own, for a protocol that takes it over. It speaks
    /// HTTP/1.1 and counts as open until it is dropped.
    pub async fn dial(&self, limit: Duration) -> Result<Stream, UpstreamError> {
        let connected = loop {
            match self.leave().await? {
                Given::Leave(connected) => break connected,
                Given::Connection(unwanted) => drop(unwanted),
            }
        };
        Ok(self.0.connector.connect(Offer::Http1, limit, Some(connected)).await?)
    }

    fn leased(&self, sender: Sender, upload: Option<&Arc<Progress>>, fresh: bool) -> Lease {
        Lease::new(sender, upload.cloned(), Arc::clone(&self.0), fresh)
    }

    async fn open(&self, limit: Duration) -> Result<Sender, UpstreamError> {
        let Some(shared) = &self.0.multiplexed else { return self.connect(limit).await };
        // One of them connects for all, where that is to be expected.
        let _turn = if shared.is_expected() {
            let turn = if let Ok(turn) = shared.connecting.try_lock() {
                turn
            } else {
                let queued = self.0.state.queue(self.0.limits.pending);
                let _queued = queued.ok_or(UpstreamError::Overloaded)?;
                let turn = tokio::time::timeout(limit, shared.connecting.lock()).await;
                turn.map_err(|_| ConnectError::TimedOut)?
            };
            if let Some(sender) = shared.sender() {
                return Ok(Sender::Http2(sender));
            }
            Some(turn)
        } else {
            None
        };
        self.connect(limit).await
    }

    async fn connect(&self, limit: Duration) -> Result<Sender, UpstreamError> {
        let connected = match self.leave().await? {
            Given::Connection(idle) => return Ok(Sender::Http1(idle)),
            Given::Leave(connected) => connected,
        };
        let stream = self.0.connector.connect(Offer::Any, limit, Some(connected)).await?;
        if let Some(shared) = &self.0.multiplexed {
            if stream.is_http2() {
                return Ok(Sender::Http2(shared.begin(stream).await?));
            }
            shared.expect(false);
        }
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(READ_AT_MOST)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| UpstreamError::Broken(error.into()))?;
        // What ends the connection is seen by the exchange that uses it.
        let task = tokio::spawn(async move { drop(connection.await) });
        Ok(Sender::Http1(Exclusive { sender, task: AbortOnDropHandle::new(task) }))
    }

    /// Leave to open one more connection; where there are too many, whatever is
    /// given first.
    async fn leave(&self) -> Result<Given, UpstreamError> {
        let Inner { state, limits, .. } = &*self.0;
        if let Some(connected) = state.try_connect(limits.connections) {
            return Ok(Given::Leave(connected));
        }
        let _pending = state.queue(limits.pending).ok_or(UpstreamError::Overloaded)?;
        let _waiting = Waiting::new(&self.0.waiting);
        let mut over = pin!(sleep_until(Instant::now() + limits.wait));
        loop {
            // Listened for before it is looked, so that nothing slips between.
            let mut returned = pin!(self.0.returned.notified());
            let mut freed = pin!(state.freed());
            returned.as_mut().enable();
            freed.as_mut().enable();
            while let Some(mut idle) = self.0.newest(Instant::now()) {
                if idle.sender.ready().await.is_ok() {
                    return Ok(Given::Connection(idle));
                }
            }
            if let Some(connected) = state.try_connect(limits.connections) {
                return Ok(Given::Leave(connected));
            }
            state.reclaim();
            tokio::select! {
                () = returned => {}
                () = freed => {}
                () = &mut over => return Err(UpstreamError::Overloaded),
            }
        }
    }
}

impl Inner {
    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn multiplexed(&self) -> Option<&Multiplexed> {
        self.multiplexed.as_ref()
    }

    pub fn state(&self) -> &TargetState {
        &self.state
    }

    /// The connection used last, unless even that is too old `now`; then all are.
    fn newest(&self, now: Instant) -> Option<Exclusive> {
        let mut idle = self.idle();
        loop {
            let Idle { connection, since } = idle.pop()?;
            if now.saturating_duration_since(since) >= self.limits.idle_for {
                idle.clear();
                return None;
            }
            if !connection.sender.is_closed() {
                return Some(connection);
            }
        }
    }

    pub fn put_back(&self, connection: Exclusive) {
        if self.state.pending() > 0 && !self.is_for_us() {
            // Whoever waits at another worker opens one of its own.
            return;
        }
        let now = Instant::now();
        let mut idle = self.idle();
        // The oldest come first; here they are closed although nobody asks.
        let stale = idle.iter().take_while(|idle| now - idle.since >= self.limits.idle_for).count();
        idle.drain(..stale);
        if idle.len() < MAX_IDLE && !connection.sender.is_closed() {
            idle.push(Idle { connection, since: now });
        }
        drop(idle);
        if self.waiting.load(Relaxed) > 0 {
            self.returned.notify_one();
        }
    }

    /// Of those who wait, at this worker and elsewhere, each is as likely to be
    /// the one that gets what has come free.
    fn is_for_us(&self) -> bool {
        let all = self.state.pending().max(1);
        rand::rng().random_range(0..all) < self.waiting.load(Relaxed)
    }
}

impl IdleConnections for Inner {
    fn close_one(&self) -> bool {
        let oldest = {
            let mut idle = self.idle();
            (!idle.is_empty()).then(|| idle.remove(0))
        };
        oldest.is_some() || self.multiplexed.as_ref().is_some_and(Multiplexed::close_if_idle)
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("target", &self.state.config.url).finish_non_exhaustive()
    }
}

/// Counts who waits while it lives.
struct Waiting<'w>(&'w AtomicUsize);

impl<'w> Waiting<'w> {
    fn new(waiting: &'w AtomicUsize) -> Self {
        waiting.fetch_add(1, Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
