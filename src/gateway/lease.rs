//! A connection in use by one exchange, from its request to the end of its
//! answer.

use std::{
    fmt, mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header, request::Parts};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::{
    error::UpstreamError,
    http2::{Multiplex, Multiplexed, Unanswered},
    pool::{Exclusive, Inner},
    upload::{Progress, RequestBody},
};
use crate::services::upstreams::{FailureKind, InFlight};

pub(super) enum Sender {
    Http1(Exclusive),
    Http2(Multiplex),
}

/// A connection in use. Dropping it closes an HTTP/1.1 connection, and ends a
/// stream of HTTP/2.
pub struct Lease {
    sender: Sender,
    /// Where it is not finished, the connection is still busy with it.
    upload: Option<Arc<Progress>>,
    pool: Arc<Inner>,
    /// Whether it was made for this exchange.
    pub fresh: bool,
}

/// What became of a request.
pub enum Sent {
    Answer(Response<Incoming>),
    /// Not a byte of it was written: the connection had died.
    Unsent(RequestBody),
}

impl Lease {
    pub(super) fn new(
        sender: Sender,
        upload: Option<Arc<Progress>>,
        pool: Arc<Inner>,
        fresh: bool,
    ) -> Self {
        Self { sender, upload, pool, fresh }
    }

    /// Sends a request whose URI is only path and query, and takes its parts for
    /// that; they are back where it was not sent.
    pub async fn send(
        &mut self,
        parts: &mut Parts,
        body: RequestBody,
    ) -> Result<Sent, UpstreamError> {
        let mut request = request(parts, body);
        let sent = match &mut self.sender {
            Sender::Http1(connection) => {
                say_that_a_body_comes(&mut request);
                connection.sender.try_send_request(request).await.map_err(Unanswered::from)
            }
            Sender::Http2(sender) => Box::pin(sender.send(request)).await,
        };
        match sent {
            Ok(answer) => Ok(Sent::Answer(answer)),
            Err(Unanswered { unsent: Some(unsent), .. }) => {
                Ok(Sent::Unsent(take_back(parts, unsent)))
            }
            Err(Unanswered { error, .. }) => Err(UpstreamError::Broken(error.into())),
        }
    }

    /// No further exchange is to use this connection: it does not answer.
    pub fn retire(&self) {
        if let (Sender::Http2(sender), Some(shared)) = (&self.sender, self.pool.multiplexed()) {
            shared.retire(sender);
        }
    }

    fn is_multiplexed(&self) -> bool {
        matches!(self.sender, Sender::Http2(_))
    }

    fn release(self) {
        let Self { sender, upload, pool, .. } = self;
        match sender {
            Sender::Http1(connection) if upload.is_none_or(|upload| upload.is_finished()) => {
                pool.put_back(connection);
            }
            // It answered before it was told everything, and may read on.
            Sender::Http1(connection) => connection.finish(),
            Sender::Http2(stream) => {
                drop(stream);
                if pool.state().pending() > 0 {
                    pool.multiplexed().map(Multiplexed::close_if_idle);
                }
            }
        }
    }
}

/// A request made of what a client's consisted of.
fn request(parts: &mut Parts, body: RequestBody) -> Request<RequestBody> {
    let mut request = Request::new(body);
    mem::swap(request.method_mut(), &mut parts.method);
    mem::swap(request.uri_mut(), &mut parts.uri);
    mem::swap(request.headers_mut(), &mut parts.headers);
    request
}

/// hyper takes requests by these methods for such without a body, and drops it,
/// where neither its length is known nor a field says that one comes.
fn say_that_a_body_comes(request: &mut Request<RequestBody>) {
    let usually_without = matches!(*request.method(), Method::GET | Method::HEAD);
    if usually_without && request.body().size_hint().exact().is_none() {
        let chunked = HeaderValue::from_static("chunked");
        request.headers_mut().insert(header::TRANSFER_ENCODING, chunked);
    }
}

/// Undoes [`request`].
fn take_back(parts: &mut Parts, request: Request<RequestBody>) -> RequestBody {
    let (unsent, body) = request.into_parts();
    *parts = unsent;
    // Said again where it is sent over HTTP/1.1 again.
    parts.headers.remove(header::TRANSFER_ENCODING);
    body
}

/// Why an answer has no end.
#[derive(Debug, thiserror::Error)]
pub enum AnswerFault {
    #[error(transparent)]
    Wire(#[from] hyper::Error),
    /// The stream was ended by a reset that hyper takes for a polite end.
    #[error("the stream was reset within the answer")]
    Reset,
}

/// An answer's body, which gives its connection back at its end.
pub struct PooledBody {
    inner: Incoming,
    lease: Option<Lease>,
    /// Counts while it is there.
    in_flight: InFlight,
}

impl fmt::Debug for PooledBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PooledBody").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl PooledBody {
    /// Counts as under way until it is dropped.
    pub fn new(inner: Incoming, lease: Lease, in_flight: InFlight) -> Self {
        let mut this = Self { inner, lease: Some(lease), in_flight };
        this.release_at_end();
        this
    }

    fn release_at_end(&mut self) {
        if self.inner.is_end_stream() {
            self.release();
        }
    }

    fn release(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.release();
        }
    }

    fn broke(&mut self) {
        if self.lease.take().is_some() {
            self.in_flight.failed(FailureKind::Broken);
        }
    }

    /// A stream may be reset with a code that means no error, and still lack its
    /// end: only the flag of a last frame is one, or that as much came as was
    /// announced (a server may end like that what it need not read to its end).
    fn is_cut(&self) -> bool {
        let multiplexed = self.lease.as_ref().is_some_and(Lease::is_multiplexed);
        let whole = self.inner.is_end_stream() || self.inner.size_hint().exact() == Some(0);
        multiplexed && !whole
    }
}

impl Body for PooledBody {
    type Data = Bytes;
    type Error = AnswerFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, AnswerFault>>> {
        let next = Pin::new(&mut self.inner).poll_frame(cx);
        match &next {
            Poll::Ready(None) if self.is_cut() => {
                self.broke();
                return Poll::Ready(Some(Err(AnswerFault::Reset)));
            }
            Poll::Ready(None) => self.release(),
            Poll::Ready(Some(Ok(_))) => self.release_at_end(),
            Poll::Ready(Some(Err(_))) => self.broke(),
            Poll::Pending => {}
        }
        next.map(|next| next.map(|frame| frame.map_err(AnswerFault::Wire)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
