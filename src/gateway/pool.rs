//! Connections to one target, kept by one worker.
//!
//! hyper-util's pooled client does the same for any number of hosts and costs a
//! task, two boxed futures and a map look-up per request; here there is one
//! host and one thread. What it promises:
//!
//! - over HTTP/1.1 a connection is used by one exchange at a time and comes back
//!   only when both bodies have ended, so an answer never reaches another
//!   request ([`super::http1`]); over HTTP/2 all exchanges share one
//!   ([`super::http2`]);
//! - a request is sent again only while no byte of it was written: the
//!   connection was never made, an idle one turns out to be closed, or hyper hands
//!   the request back unsent (RFC 9110, 9.2.2; RELIABILITY G-34, G-35);
//! - an idle connection is not used for longer than `pool_idle`, which lies
//!   below what upstreams keep theirs open for;
//! - all workers together open no more than `max_connections`. Who comes later
//!   waits, and is given what comes back: a connection of this worker as it is,
//!   another worker's by its being closed.

use std::{
    fmt,
    future::poll_fn,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use http::Uri;
use rand::RngExt as _;
use tokio::{
    sync::Notify,
    task::unconstrained,
    time::{Instant, sleep_until},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    connect::{ConnectError, Connector, Network, Offer, Stream},
    error::UpstreamError,
    http1::Connection,
    http2::Multiplexed,
    lease::{Lease, Sender},
};
use crate::{
    config::UpstreamConfig,
    services::upstreams::{Connected, IdleConnections, TargetState},
};

/// Idle connections kept; more are closed as they come back.
const MAX_IDLE: usize = 1024;

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
    /// Wakes the one who watches over the idle ones.
    watcher: OnceLock<Waker>,
    _watch: AbortOnDropHandle<()>,
}

struct Limits {
    idle_for: Duration,
    wait: Duration,
    connections: usize,
    pending: usize,
}

struct Idle {
    connection: Box<Connection>,
    since: Instant,
}

/// What a request that waited was given.
enum Given {
    Connection(Box<Connection>),
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
        let inner = Arc::new_cyclic(|inner| Inner {
            state: Arc::clone(state),
            connector,
            limits,
            idle: Mutex::default(),
            waiting: AtomicUsize::default(),
            returned: Notify::default(),
            multiplexed,
            watcher: OnceLock::new(),
            _watch: AbortOnDropHandle::new(tokio::spawn(watch(Weak::clone(inner)))),
        });
        let idle: Weak<dyn IdleConnections> = Arc::<Inner>::downgrade(&inner);
        state.register(idle);
        Self(inner)
    }

    /// A connection for one exchange, asked for `now`; a new one is made within
    /// `limit`.
    pub async fn lease(&self, limit: Duration, now: Instant) -> Result<Lease, UpstreamError> {
        if let Some(sender) = self.0.multiplexed.as_ref().and_then(Multiplexed::sender) {
            return Ok(self.leased(Sender::Http2(sender), false));
        }
        // A turn that is used up would let every connection seem quiet.
        let newest = poll_fn(|cx| Poll::Ready(self.0.newest(cx, now)));
        if let Some(idle) = unconstrained(newest).await {
            return Ok(self.leased(Sender::Http1(idle), false));
        }
        // Boxed: connecting is rare and its future is large.
        let sender = Box::pin(self.open(limit)).await?;
        Ok(self.leased(sender, true))
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

    fn leased(&self, sender: Sender, fresh: bool) -> Lease {
        Lease::new(sender, Arc::clone(&self.0), fresh)
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
        Ok(Sender::Http1(Box::new(Connection::new(stream))))
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
            let newest = poll_fn(|cx| Poll::Ready(self.0.newest(cx, Instant::now())));
            if let Some(idle) = unconstrained(newest).await {
                return Ok(Given::Connection(idle));
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

    /// The connection used last that is still open, unless even that is too old
    /// `now`; then all are.
    fn newest(&self, cx: &mut Context<'_>, now: Instant) -> Option<Box<Connection>> {
        let mut idle = self.idle();
        loop {
            let Idle { mut connection, since } = idle.pop()?;
            if now.saturating_duration_since(since) >= self.limits.idle_for {
                idle.clear();
                return None;
            }
            if connection.is_quiet(cx) {
                return Some(connection);
            }
        }
    }

    pub fn put_back(&self, mut connection: Box<Connection>) {
        if self.state.pending() > 0 && !self.is_for_us() {
            // Whoever waits at another worker opens one of its own.
            return;
        }
        let now = Instant::now();
        let mut idle = self.idle();
        // The oldest come first; here they are closed although nobody asks.
        let stale = idle.iter().take_while(|idle| now - idle.since >= self.limits.idle_for).count();
        idle.drain(..stale);
        // The watcher looks at all of them when it begins.
        let watcher = self.watcher.get().unwrap_or(Waker::noop());
        if idle.len() < MAX_IDLE && connection.is_quiet(&mut Context::from_waker(watcher)) {
            idle.push(Idle { connection, since: now });
        }
        drop(idle);
        if self.waiting.load(Relaxed) > 0 {
            self.returned.notify_one();
        }
    }

    /// Closes what its target has closed, or has said something on. The task is
    /// woken when that happens to one of those that are left.
    fn look(&self, cx: &mut Context<'_>) {
        let mut idle = self.idle();
        self.watcher.get_or_init(|| cx.waker().clone());
        idle.retain_mut(|idle| idle.connection.is_quiet(cx));
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

/// Watches over the idle connections.
async fn watch(pool: Weak<Inner>) {
    poll_fn(|cx| {
        let Some(pool) = pool.upgrade() else { return Poll::Ready(()) };
        pool.look(cx);
        Poll::Pending
    })
    .await;
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
