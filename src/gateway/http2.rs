//! One HTTP/2 connection to a target, shared by all exchanges of a worker.
//!
//! A request that no answer began for in time retires the connection: it may be
//! dead without anybody having said so, and exchanges to come should not find
//! out one by one. Those under way keep it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize,
            Ordering::{AcqRel, Relaxed},
        },
    },
    time::Duration,
};

use http::{
    Request, Response, Uri, header,
    uri::{Authority, PathAndQuery, Scheme},
};
use hyper::{
    body::Incoming,
    client::conn::{
        TrySendError,
        http2::{self, SendRequest},
    },
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{sync::Mutex as AsyncMutex, time::Instant};

use super::{
    carrier::Carrier,
    connect::{ConnectError, Stream},
    upload::RequestBody,
};

/// What an upstream may send before it is taken: on one stream, on all.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What of a request is kept ready for sending, bytes.
const SEND_BUFFER: usize = 64 * 1024;
/// Most bytes of an answer's fields.
const HEADER_LIST: u32 = 64 * 1024;
/// A connection on which nothing comes is asked whether it lives.
const PING_AFTER: Duration = Duration::from_secs(10);
const PONG_WITHIN: Duration = Duration::from_secs(5);

pub(super) struct Multiplexed {
    /// The target's own, where a client's host is none.
    authority: Authority,
    idle_for: Duration,
    current: Mutex<Option<Shared>>,
    /// Held by the one that connects for all.
    pub connecting: AsyncMutex<()>,
    /// Whether the target spoke HTTP/2 last time, or was not asked yet.
    expected: AtomicBool,
}

struct Shared {
    sender: SendRequest<RequestBody>,
    used: Arc<Use>,
}

/// Who uses a connection.
struct Use {
    since: Instant,
    exchanges: AtomicUsize,
    /// Since when nobody does, in milliseconds after `since`.
    idle_from: AtomicU64,
}

/// A request that no answer came to.
pub(super) struct Unanswered {
    /// The request, if not a byte of it was written.
    pub unsent: Option<Request<RequestBody>>,
    pub error: hyper::Error,
}

impl From<TrySendError<Request<RequestBody>>> for Unanswered {
    fn from(mut error: TrySendError<Request<RequestBody>>) -> Self {
        Self { unsent: error.take_message(), error: error.into_error() }
    }
}

/// The connection, for one exchange.
pub(super) struct Multiplex {
    sender: SendRequest<RequestBody>,
    authority: Authority,
    used: Arc<Use>,
}

impl Multiplexed {
    pub fn new(authority: Authority, idle_for: Duration) -> Self {
        Self {
            authority,
            idle_for,
            current: Mutex::default(),
            connecting: AsyncMutex::default(),
            expected: AtomicBool::new(true),
        }
    }

    /// The connection there is, if it can take an exchange.
    pub fn sender(&self) -> Option<Multiplex> {
        let mut current = self.current();
        let Shared { sender, used } = current.as_ref()?;
        if sender.is_closed() || used.is_idle_for(self.idle_for) {
            *current = None;
            return None;
        }
        Some(self.exchange(sender.clone(), Arc::clone(used)))
    }

    /// Takes a new connection into use.
    pub async fn begin(&self, stream: Stream) -> Result<Multiplex, ConnectError> {
        let (sender, connection) = http2::Builder::new(Carrier)
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .max_header_list_size(HEADER_LIST)
            .keep_alive_interval(PING_AFTER)
            .keep_alive_timeout(PONG_WITHIN)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(ConnectError::Http2)?;
        // What ends the connection is seen by the exchanges that use it.
        tokio::spawn(async move { drop(connection.await) });
        self.expect(true);
        let (exchanges, idle_from) = (AtomicUsize::default(), AtomicU64::default());
        let used = Arc::new(Use { since: Instant::now(), exchanges, idle_from });
        let exchange = self.exchange(sender.clone(), Arc::clone(&used));
        *self.current() = Some(Shared { sender, used });
        Ok(exchange)
    }

    pub fn is_expected(&self) -> bool {
        self.expected.load(Relaxed)
    }

    pub fn expect(&self, http2: bool) {
        self.expected.store(http2, Relaxed);
    }

    /// No further exchange gets this connection.
    pub fn retire(&self, of: &Multiplex) {
        let mut current = self.current();
        if current.as_ref().is_some_and(|shared| Arc::ptr_eq(&shared.used, &of.used)) {
            *current = None;
        }
    }

    /// Whether there was one that nobody uses.
    pub fn close_if_idle(&self) -> bool {
        let mut current = self.current();
        let idle = current.as_ref().is_some_and(|s| s.used.exchanges.load(Relaxed) == 0);
        if idle {
            *current = None;
        }
        idle
    }

    fn exchange(&self, sender: SendRequest<RequestBody>, used: Arc<Use>) -> Multiplex {
        used.exchanges.fetch_add(1, AcqRel);
        Multiplex { sender, authority: self.authority.clone(), used }
    }

    fn current(&self) -> MutexGuard<'_, Option<Shared>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Use {
    fn is_idle_for(&self, time: Duration) -> bool {
        let from = Duration::from_millis(self.idle_from.load(Relaxed));
        self.exchanges.load(Relaxed) == 0 && self.since.elapsed() >= from + time
    }
}

impl Multiplex {
    /// Takes a request as it is sent over HTTP/1.1, where the host is a field,
    /// and gives it back so where it was not sent.
    pub async fn send(
        &mut self,
        mut request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, Unanswered> {
        request.body_mut().is_carried();
        let host = request.headers_mut().remove(header::HOST);
        let asked = host.as_ref().and_then(|host| Authority::try_from(host.as_bytes()).ok());
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = Uri::builder()
            .scheme(Scheme::HTTPS)
            .authority(asked.unwrap_or_else(|| self.authority.clone()))
            .path_and_query(path.clone().unwrap_or(PathAndQuery::from_static("/")))
            .build()
            .expect("all three parts are there");
        let sent = self.sender.try_send_request(request).await;
        sent.map_err(|error| {
            let mut unanswered = Unanswered::from(error);
            if let Some(unsent) = &mut unanswered.unsent {
                *unsent.uri_mut() = path.map(Uri::from).unwrap_or_default();
                unsent.headers_mut().extend(host.map(|host| (header::HOST, host)));
            }
            unanswered
        })
    }
}

impl Drop for Multiplex {
    fn drop(&mut self) {
        let idle_from = u64::try_from(self.used.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.used.idle_from.store(idle_from, Relaxed);
        self.used.exchanges.fetch_sub(1, AcqRel);
    }
}
