//! Cuts connections on which nothing happens.
//!
//! hyper times request heads only; this wraps the socket instead and knows from
//! [`Connection`] what the silence means. One timer per connection is re-armed
//! only when it fires or must fire earlier, so a busy connection does not touch
//! the timer wheel.
//!
//! | state | limit |
//! |---|---|
//! | no request yet | `header_timeout` from accept |
//! | a head has begun | `header_timeout` from its first byte |
//! | between requests | [`KEEP_ALIVE`] |
//! | refused by a worker that is overloaded | not read from for a while |
//! | a write is pending | `io_timeout` without one byte taken |
//!
//! A request under way has no limit here: its body's and its answer's own timers
//! watch it.

use std::{
    io::{self, IoSlice},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};

use super::{client::Scheme, outbox::Line};
use crate::gateway::Tunnel;

/// How long a connection may wait for its next request.
pub const KEEP_ALIVE: Duration = Duration::from_mins(1);

/// What socket and requests of one connection tell each other.
pub struct Connection {
    peer: IpAddr,
    /// Whether it is encrypted.
    secure: bool,
    opened: Instant,
    /// One of the last: for routes of ours only.
    reserved: AtomicBool,
    /// Nothing is read until then, in milliseconds after `opened`; 0: at once.
    paused_until: AtomicU64,
    /// Requests begun so far.
    requests: AtomicU64,
    in_flight: AtomicU32,
    /// When the last request ended, in milliseconds after `opened`.
    idle_since: AtomicU64,
    multiplexed: AtomicBool,
    reset: AtomicBool,
    /// Taken over by a tunnel, which has clocks of its own.
    tunnelled: AtomicBool,
    tunnel: Mutex<Option<Tunnel>>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Connection {
    pub fn new(peer: SocketAddr, secure: bool, reserved: bool) -> Arc<Self> {
        Arc::new(Self {
            peer: peer.ip().to_canonical(),
            secure,
            opened: Instant::now(),
            reserved: AtomicBool::new(reserved),
            paused_until: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            idle_since: AtomicU64::new(0),
            multiplexed: AtomicBool::new(false),
            reset: AtomicBool::new(false),
            tunnelled: AtomicBool::new(false),
            tunnel: Mutex::default(),
        })
    }

    pub fn peer(&self) -> IpAddr {
        self.peer
    }

    /// How what is at the other end has reached us.
    pub fn scheme(&self) -> Scheme {
        if self.secure { Scheme::Https } else { Scheme::Http }
    }

    pub fn opened(&self) -> Instant {
        self.opened
    }

    /// Whether a request has come on it.
    pub fn is_used(&self) -> bool {
        self.requests.load(Relaxed) > 0
    }

    /// Whether only routes of ours are served on it.
    pub fn is_reserved(&self) -> bool {
        self.reserved.load(Relaxed)
    }

    pub fn unreserve(&self) {
        self.reserved.store(false, Relaxed);
    }

    /// Whether what is written to it may be an answer, or follow one.
    fn answers(&self) -> bool {
        self.is_used() && !self.tunnelled.load(Relaxed)
    }

    /// Nothing more is read from it for so long.
    pub fn pause(&self, span: Duration) {
        let until = (self.opened.elapsed() + span).as_millis();
        self.paused_until.store(u64::try_from(until).unwrap_or(u64::MAX), Relaxed);
    }

    /// A request's head has arrived.
    pub fn begin(&self, version: http::Version) {
        self.requests.fetch_add(1, Relaxed);
        self.in_flight.fetch_add(1, Relaxed);
        self.multiplexed.store(version == http::Version::HTTP_2, Relaxed);
    }

    /// A request has ended.
    pub fn end(&self, now: Instant) {
        let after = now.saturating_duration_since(self.opened).as_millis();
        self.idle_since.store(u64::try_from(after).unwrap_or(u64::MAX), Relaxed);
        self.in_flight.fetch_sub(1, Relaxed);
    }

    /// The answer under way ends HTTP here; then `tunnel` is to be run.
    pub fn take_over(&self, tunnel: Tunnel) {
        self.tunnelled.store(true, Relaxed);
        *self.tunnel.lock().unwrap_or_else(PoisonError::into_inner) = Some(tunnel);
    }

    /// What is to be run now that HTTP has ended.
    pub fn tunnel(&self) -> Option<Tunnel> {
        self.tunnel.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Closes with a reset instead of a clean end: an answer broke off that ends
    /// where the connection does, so a clean end would look like its own.
    pub fn reset_at_close(&self) {
        self.reset.store(true, Relaxed);
    }

    pub fn is_reset_at_close(&self) -> bool {
        self.reset.load(Relaxed)
    }
}

/// Time limits of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    pub head: Duration,
    pub stuck_write: Duration,
}

/// A client's socket, watched.
#[derive(Debug)]
pub struct Guarded {
    socket: Arc<Line>,
    connection: Arc<Connection>,
    patience: Patience,
    /// How many requests had begun when the head now being read did, and when
    /// that was; known once a read found no more of it.
    head: Option<(u64, Option<Instant>)>,
    read_timer: Pin<Box<Sleep>>,
    /// The timer was polled since it was set, so it will wake the connection's
    /// task without being polled each time.
    read_timer_armed: bool,
    write_timer: Option<Pin<Box<Sleep>>>,
    write_pending: bool,
    pause_timer: Option<Pin<Box<Sleep>>>,
}

impl Guarded {
    pub fn new(socket: TcpStream, connection: Arc<Connection>, patience: Patience) -> Self {
        let read_timer = Box::pin(sleep_until(connection.opened + patience.head));
        Self {
            socket: Line::new(socket),
            connection,
            patience,
            head: None,
            read_timer,
            read_timer_armed: false,
            write_timer: None,
            write_pending: false,
            pause_timer: None,
        }
    }

    /// When silence becomes too long; `None` while a request is under way.
    fn read_deadline(&mut self) -> Option<Instant> {
        let connection = &self.connection;
        if connection.in_flight.load(Relaxed) > 0 || connection.tunnelled.load(Relaxed) {
            return None;
        }
        let requests = connection.requests.load(Relaxed);
        let idle_end = || {
            let idle_since = Duration::from_millis(connection.idle_since.load(Relaxed));
            connection.opened + idle_since + KEEP_ALIVE
        };
        Some(match &mut self.head {
            _ if requests == 0 => connection.opened + self.patience.head,
            // Frames of HTTP/2 are not all part of a request.
            _ if connection.multiplexed.load(Relaxed) => idle_end(),
            Some((before, begun)) if *before == requests => {
                *begun.get_or_insert_with(Instant::now) + self.patience.head
            }
            _ => idle_end(),
        })
    }

    /// Until a pause is over.
    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let until = Duration::from_millis(self.connection.paused_until.load(Relaxed));
        let until = self.connection.opened + until;
        let timer = self.pause_timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if timer.deadline() != until {
            timer.as_mut().reset(until);
        }
        ready!(timer.as_mut().poll(cx));
        self.connection.paused_until.store(0, Relaxed);
        Poll::Ready(())
    }

    /// Called when there is nothing to read.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let deadline = self.read_deadline();
        if let Some(deadline) = deadline
            && deadline < self.read_timer.deadline()
        {
            self.read_timer.as_mut().reset(deadline);
            self.read_timer_armed = false;
        }
        if self.read_timer_armed && !self.read_timer.is_elapsed() {
            return Poll::Pending;
        }
        while self.read_timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            match deadline {
                Some(deadline) if deadline <= now => {
                    return Poll::Ready(timed_out("no request in time"));
                }
                Some(deadline) => self.read_timer.as_mut().reset(deadline),
                // A request of a multiplexed connection may end without a read
                // being tried, so look again later in any case.
                None => self.read_timer.as_mut().reset(now + KEEP_ALIVE),
            }
        }
        self.read_timer_armed = true;
        Poll::Pending
    }

    fn note_read(&mut self) {
        let requests = self.connection.requests.load(Relaxed);
        let begun = self.head.is_some_and(|(before, _)| before == requests);
        if !begun && requests > 0 && self.connection.in_flight.load(Relaxed) == 0 {
            self.head = Some((requests, None));
        }
    }

    fn watch_write<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.write_pending = false;
            return written;
        }
        if !self.write_pending {
            self.write_pending = true;
            let end = Instant::now() + self.patience.stuck_write;
            match &mut self.write_timer {
                Some(timer) => timer.as_mut().reset(end),
                None => self.write_timer = Some(Box::pin(sleep_until(end))),
            }
        }
        if let Some(timer) = &mut self.write_timer {
            ready!(timer.as_mut().poll(cx));
            return Poll::Ready(Err(timed_out("the peer takes nothing")));
        }
        Poll::Pending
    }
}

fn timed_out(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl AsyncRead for Guarded {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.connection.paused_until.load(Relaxed) > 0 {
            ready!(this.poll_pause(cx));
        }
        let read = this.socket.poll_read(cx, buf);
        if read.is_ready() {
            this.note_read();
            return read;
        }
        this.poll_silence(cx).map(Err)
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let answers = this.connection.answers();
        let written = this.socket.poll_write(cx, &[IoSlice::new(buf)], answers);
        this.watch_write(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let answers = this.connection.answers();
        let written = this.socket.poll_write(cx, bufs, answers);
        this.watch_write(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = this.socket.poll_flush(cx);
        this.watch_write(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.connection.reset.load(Relaxed) {
            return Poll::Ready(Ok(()));
        }
        let shut = this.socket.poll_shutdown(cx);
        this.watch_write(cx, shut)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if self.connection.reset.load(Relaxed) {
            // Failing leaves a clean end, which is all that is possible then.
            let _ = self.socket.reset();
        }
    }
}
