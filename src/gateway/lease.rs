//! A connection in use by one exchange, from its request to the end of its
//! answer.

use std::{
    fmt, mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, request::Parts};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::{
    error::UpstreamError,
    http1::{self, Connection, Receiving},
    http2::{Multiplex, Multiplexed, Unanswered},
    pool::Inner,
    upload::RequestBody,
};
use crate::services::upstreams::{FailureKind, InFlight};

pub(super) enum Sender {
    Http1(Box<Connection>),
    Http2(Multiplex),
}

/// A connection in use. Dropping it closes an HTTP/1.1 connection, and ends a
/// stream of HTTP/2.
pub struct Lease {
    sender: Sender,
    pool: Arc<Inner>,
    /// Whether it was made for this exchange.
    pub fresh: bool,
}

/// What became of a request.
pub enum Sent {
    Answer(Response<Received>),
    /// Not a byte of it was written: the connection had died.
    Unsent(RequestBody),
}

/// An answer's body as it comes.
#[derive(Debug)]
pub enum Received {
    Http1(Receiving),
    Http2(Incoming),
}

impl Lease {
    pub(super) fn new(sender: Sender, pool: Arc<Inner>, fresh: bool) -> Self {
        Self { sender, pool, fresh }
    }

    /// Sends a request whose URI is only path and query, and takes its parts for
    /// that; they are back where it was not sent.
    pub async fn send(
        &mut self,
        parts: &mut Parts,
        body: RequestBody,
    ) -> Result<Sent, UpstreamError> {
        let sender = match &mut self.sender {
            Sender::Http1(connection) => {
                let patience = body.patience();
                let body = (!matches!(body, RequestBody::Empty)).then_some(body);
                return match connection.send(parts, body, || patience).await {
                    Ok(answer) => Ok(Sent::Answer(answer.map(Received::Http1))),
                    Err(fault) => Err(UpstreamError::Broken(fault.into())),
                };
            }
            Sender::Http2(sender) => sender,
        };
        match Box::pin(sender.send(request(parts, body))).await {
            Ok(answer) => Ok(Sent::Answer(answer.map(Received::Http2))),
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

    /// After the end of an answer.
    fn release(self, received: Received) {
        let Self { sender, pool, .. } = self;
        match (sender, received) {
            (Sender::Http1(connection), Received::Http1(receiving)) => {
                if let Some(connection) = receiving.into_idle(connection) {
                    pool.put_back(connection);
                }
            }
            (sender, _) => {
                drop(sender);
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

/// Undoes [`request`].
fn take_back(parts: &mut Parts, request: Request<RequestBody>) -> RequestBody {
    let (unsent, body) = request.into_parts();
    *parts = unsent;
    body
}

/// Why an answer has no end.
#[derive(Debug, thiserror::Error)]
pub enum AnswerFault {
    #[error(transparent)]
    Wire(#[from] hyper::Error),
    #[error(transparent)]
    Http1(#[from] http1::Fault),
    /// The stream was ended by a reset that hyper takes for a polite end.
    #[error("the stream was reset within the answer")]
    Reset,
}

/// An answer's body, which gives its connection back at its end.
pub struct PooledBody {
    under_way: Option<(Received, Lease)>,
    /// Counts while it is there.
    in_flight: InFlight,
}

impl fmt::Debug for PooledBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let received = self.under_way.as_ref().map(|(received, _)| received);
        f.debug_struct("PooledBody").field("received", &received).finish_non_exhaustive()
    }
}

impl Received {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        lease: &mut Lease,
    ) -> Poll<Option<Result<Frame<Bytes>, AnswerFault>>> {
        match (self, &mut lease.sender) {
            (Self::Http1(receiving), Sender::Http1(connection)) => receiving
                .poll_frame(cx, connection)
                .map(|next| next.map(|frame| frame.map_err(AnswerFault::Http1))),
            (Self::Http2(incoming), _) => match Pin::new(&mut *incoming).poll_frame(cx) {
                // A stream may be reset with a code that means no error, and still
                // lack its end: only the flag of a last frame is one, or that as
                // much came as was announced (a server may end like that what it
                // need not read to its end).
                Poll::Ready(None)
                    if !incoming.is_end_stream() && incoming.size_hint().exact() != Some(0) =>
                {
                    Poll::Ready(Some(Err(AnswerFault::Reset)))
                }
                next => next.map(|next| next.map(|frame| frame.map_err(AnswerFault::Wire))),
            },
            (Self::Http1(_), Sender::Http2(_)) => unreachable!("an answer is of its connection"),
        }
    }

    fn is_over(&self) -> bool {
        match self {
            Self::Http1(receiving) => receiving.is_over(),
            Self::Http2(incoming) => incoming.is_end_stream(),
        }
    }
}

impl PooledBody {
    /// Counts as under way until it is dropped.
    pub fn new(received: Received, lease: Lease, in_flight: InFlight) -> Self {
        let is_over = received.is_over();
        let mut this = Self { under_way: Some((received, lease)), in_flight };
        if is_over {
            this.release();
        }
        this
    }

    fn release(&mut self) {
        if let Some((received, lease)) = self.under_way.take() {
            lease.release(received);
        }
    }
}

impl Body for PooledBody {
    type Data = Bytes;
    type Error = AnswerFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, AnswerFault>>> {
        let Some((received, lease)) = &mut self.under_way else { return Poll::Ready(None) };
        let next = received.poll_frame(cx, lease);
        match &next {
            Poll::Ready(Some(Err(fault))) => {
                self.under_way = None;
                // What the client does to its upload is not the target's fault.
                if !matches!(fault, AnswerFault::Http1(http1::Fault::Upload)) {
                    self.in_flight.failed(FailureKind::Broken);
                }
            }
            Poll::Ready(None) => self.release(),
            Poll::Ready(Some(Ok(_))) if received.is_over() => self.release(),
            _ => {}
        }
        next
    }

    fn is_end_stream(&self) -> bool {
        self.under_way.as_ref().is_none_or(|(received, _)| received.is_over())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.under_way {
            Some((Received::Http1(receiving), _)) => receiving.size_hint(),
            Some((Received::Http2(incoming), _)) => incoming.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}
