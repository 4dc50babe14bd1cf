//! Connections to one upstream, kept by one worker.
//!
//! hyper-util's pooled client does the same for any number of hosts and costs a
//! task, two boxed futures and a map look-up per request; here there is one
//! host and one thread. What it promises:
//!
//! - a connection is used by one exchange at a time and comes back only when
//!   both bodies have ended, so an answer never reaches another request;
//! - a request is sent again only while no byte of it was written: the
//!   connection was never made, or hyper hands the request back unsent
//!   (RFC 9110, 9.2.2; RELIABILITY G-34, G-35);
//! - an idle connection is not used for longer than `pool_idle`, which lies
//!   below what upstreams keep theirs open for.

use std::{
    fmt, mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, Uri, request::Parts};
use http_body::{Body, Frame, SizeHint};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use tokio::time::Instant;
use tower::Service;

use super::{
    connector::Connector,
    error::UpstreamError,
    upload::{Progress, RequestBody},
};
use crate::services::upstreams::InFlight;

/// Idle connections kept; more are closed as they come back.
const MAX_IDLE: usize = 1024;
/// How often a request that was handed back unsent is tried on another
/// connection. Each time one dead connection is found, so this is a bound for
/// upstreams that close every connection at once.
const HANDED_BACK: usize = 8;

type Sender = SendRequest<RequestBody>;

/// The connections of one worker to one upstream. Cheap to clone.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

struct Inner {
    connector: Connector,
    target: Uri,
    idle_for: Duration,
    /// Uncontended: all users are on one thread. The newest is used first, so
    /// that those not needed grow old.
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    sender: Sender,
    since: Instant,
}

/// A connection in use. Dropping it closes the connection.
struct Lease {
    sender: Sender,
    /// Where it is not finished, the connection is still busy with it.
    upload: Option<Arc<Progress>>,
    pool: Arc<Inner>,
}

impl Pool {
    /// `target` names scheme and authority of the upstream.
    pub fn new(connector: Connector, target: Uri, idle_for: Duration) -> Self {
        Self(Arc::new(Inner { connector, target, idle_for, idle: Mutex::default() }))
    }

    /// Sends a request whose URI is only path and query, and takes its parts for
    /// that. `upload` follows its body, if it has one.
    pub async fn send(
        &self,
        parts: &mut Parts,
        mut body: RequestBody,
        upload: Option<&Arc<Progress>>,
    ) -> Result<Response<PooledBody>, UpstreamError> {
        for _ in 0..HANDED_BACK {
            let mut lease = self.lease(upload).await?;
            match lease.sender.try_send_request(request(parts, body)).await {
                Ok(answer) => return Ok(answer.map(|body| PooledBody::new(body, lease))),
                Err(mut error) => match error.take_message() {
                    // Not a byte of it was written: the connection had died.
                    Some(unsent) => body = take_back(parts, unsent),
                    None => return Err(UpstreamError::Broken(error.into_error().into())),
                },
            }
        }
        Err(UpstreamError::Broken("every connection was closed before use".into()))
    }

    async fn lease(&self, upload: Option<&Arc<Progress>>) -> Result<Lease, UpstreamError> {
        while let Some(mut sender) = self.0.newest() {
            // Just after an answer hyper needs a moment to be ready again.
            if sender.is_ready() || sender.ready().await.is_ok() {
                return Ok(self.leased(sender, upload));
            }
        }
        // Boxed: connecting is rare and its future is large.
        let sender = Box::pin(self.connect()).await?;
        Ok(self.leased(sender, upload))
    }

    fn leased(&self, sender: Sender, upload: Option<&Arc<Progress>>) -> Lease {
        Lease { sender, upload: upload.cloned(), pool: Arc::clone(&self.0) }
    }

    async fn connect(&self) -> Result<Sender, UpstreamError> {
        let mut connector = self.0.connector.clone();
        let stream =
            connector.call(self.0.target.clone()).await.map_err(UpstreamError::connecting)?;
        let (sender, connection) = http1::handshake(stream)
            .await
            .map_err(|error| UpstreamError::Unreachable(error.into()))?;
        // What ends the connection is seen by the exchange that uses it.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }
}

/// An HTTP/1.1 request made of what a client's consisted of.
fn request(parts: &mut Parts, body: RequestBody) -> Request<RequestBody> {
    let mut request = Request::new(body);
    mem::swap(request.method_mut(), &mut parts.method);
    mem::swap(request.uri_mut(), &mut parts.uri);
    mem::swap(request.headers_mut(), &mut parts.headers);
    request
}

/// Undoes [`request`].
fn take_back(parts: &mut Parts, request: Request<RequestBody>) -> RequestBody {
    let (unsent, body) = request.into_parts();
    *parts = unsent;
    body
}

impl Inner {
    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection used last, unless even that is too old; then all are.
    fn newest(&self) -> Option<Sender> {
        let mut idle = self.idle();
        loop {
            let Idle { sender, since } = idle.pop()?;
            if since.elapsed() >= self.idle_for {
                idle.clear();
                return None;
            }
            if !sender.is_closed() {
                return Some(sender);
            }
        }
    }

    fn put_back(&self, sender: Sender) {
        let now = Instant::now();
        let mut idle = self.idle();
        // The oldest come first; here they are closed although nobody asks.
        let stale = idle.iter().take_while(|idle| now - idle.since >= self.idle_for).count();
        idle.drain(..stale);
        if idle.len() < MAX_IDLE && !sender.is_closed() {
            idle.push(Idle { sender, since: now });
        }
    }
}

/// An answer's body, which gives its connection back at its end.
pub struct PooledBody {
    inner: Incoming,
    lease: Option<Lease>,
    /// Counts while it is there.
    in_flight: Option<InFlight>,
}

impl fmt::Debug for PooledBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PooledBody").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl PooledBody {
    fn new(inner: Incoming, lease: Lease) -> Self {
        let mut this = Self { inner, lease: Some(lease), in_flight: None };
        this.release_at_end();
        this
    }

    /// Counts as under way until it is dropped.
    pub fn counted(mut self, in_flight: InFlight) -> Self {
        self.in_flight = Some(in_flight);
        self
    }

    fn release_at_end(&mut self) {
        if self.inner.is_end_stream() {
            self.release();
        }
    }

    fn release(&mut self) {
        if let Some(Lease { sender, upload, pool }) = self.lease.take()
            && upload.is_none_or(|upload| upload.is_finished())
        {
            pool.put_back(sender);
        }
    }
}

impl Body for PooledBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let next = Pin::new(&mut self.inner).poll_frame(cx);
        match &next {
            Poll::Ready(None) => self.release(),
            Poll::Ready(Some(Ok(_))) => self.release_at_end(),
            Poll::Ready(Some(Err(_))) => drop(self.lease.take()),
            Poll::Pending => {}
        }
        next
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
