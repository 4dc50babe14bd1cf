//! HTTP/1.1 towards an upstream: one exchange after the other on a connection.
//!
//! No task drives a connection. The request's own does, until the head of the
//! answer is there, and whoever takes the answer's body after that: hyper's client
//! does the same work twice over, in a task of its own that is woken and told by
//! channels. What is understood of an answer, and what is refused, is the same as
//! there, or less.
//!
//! One case has a task: an answer that begins before the request was told to its
//! end. A client may take nothing of it until it has sent everything, so its upload
//! goes on by itself, for as long as [`Patience`] has it.

mod body;
mod chunked;
mod head;
mod input;
mod request;
mod telling;

use std::{
    future::poll_fn,
    io, mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Response, request::Parts};
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::task::AbortOnDropHandle;

pub use self::telling::Patience;
use self::{
    body::Decoder,
    chunked::Part,
    head::{Head, Parsed},
    input::Input,
    request::Outgoing,
    telling::Telling,
};
use super::connect::Stream;

/// What of the memory for heads an idle connection keeps.
const KEPT: usize = 8 * 1024;

/// Why an exchange came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("the connection failed")]
    Io(#[from] io::Error),
    #[error("the connection was closed before the answer was over")]
    Closed,
    #[error("the head of the answer is too long")]
    TooLong,
    #[error("the answer is not HTTP: {0}")]
    Malformed(&'static str),
    #[error("the answer is not HTTP")]
    Unparsed(#[from] httparse::Error),
    #[error("the request's body did not come to its end")]
    Upload,
}

/// An open connection. Dropped within an exchange, it is closed.
pub struct Connection<S = Stream> {
    /// Shared while an upload goes on beside its answer.
    stream: Arc<Mutex<S>>,
    input: Input,
    /// For the next request's head.
    memory: Vec<u8>,
}

/// An answer's body on its way here; the connection is with whoever has it.
#[derive(Debug)]
pub struct Receiving {
    body: Decoder,
    keep_alive: bool,
    /// Of what is still being told. Where the answer is dropped it ends.
    upload: Option<AbortOnDropHandle<Result<(), Fault>>>,
    /// What is to be told next.
    fault: Option<Fault>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Connection<S> {
    pub fn new(stream: S) -> Self {
        let stream = Arc::new(Mutex::new(stream));
        Self { stream, input: Input::new(), memory: vec![] }
    }

    /// Whether nothing came between two exchanges, not even the end. The task is
    /// woken if something does.
    pub fn is_quiet(&mut self, cx: &mut Context<'_>) -> bool {
        let mut byte = [0];
        let mut unwanted = ReadBuf::new(&mut byte);
        Pin::new(&mut *lock(&self.stream)).poll_read(cx, &mut unwanted).is_pending()
    }

    /// Sends a request whose URI is only path and query, and waits for the head of
    /// the answer; the fields are used up. The patience is for what of the body is
    /// sent after that.
    pub async fn send<B>(
        &mut self,
        parts: &mut Parts,
        body: Option<B>,
        patience: impl FnOnce() -> Patience,
    ) -> Result<Response<Receiving>, Fault>
    where
        B: Body<Data = Bytes> + Unpin + Send + 'static,
    {
        let mut fields = mem::take(&mut parts.headers);
        let memory = mem::take(&mut self.memory);
        let mut outgoing = Outgoing::new(memory, &parts.method, &parts.uri, &fields, body);
        // The answer's are put where the request's were.
        fields.clear();
        let mut sending = Sending { is_told: false, broke: None, looked: false, seen: 0 };
        let method = &parts.method;
        let head = poll_fn(|cx| sending.poll(cx, self, &mut outgoing, method, &mut fields)).await?;
        let Head { answer, body, keep_alive } = head;
        let mut receiving = Receiving { body, keep_alive, upload: None, fault: None };
        if sending.is_told {
            self.memory = outgoing.into_memory();
        } else if sending.broke.is_some() {
            // It may have said why, and hears no more.
            receiving.keep_alive = false;
        } else {
            let stream = Arc::clone(&self.stream);
            let telling = Telling::new(outgoing, stream, patience());
            receiving.upload = Some(AbortOnDropHandle::new(tokio::spawn(telling)));
        }
        Ok(answer.map(|()| receiving))
    }
}

/// How far a request has come that was not answered yet.
struct Sending {
    /// To its end.
    is_told: bool,
    /// The upstream takes no more of it.
    broke: Option<io::Error>,
    /// After that it was looked once more for an answer.
    looked: bool,
    /// Bytes of a head that are not all of it.
    seen: usize,
}

impl Sending {
    fn poll<S, B>(
        &mut self,
        cx: &mut Context<'_>,
        connection: &mut Connection<S>,
        outgoing: &mut Outgoing<B>,
        method: &Method,
        fields: &mut HeaderMap,
    ) -> Poll<Result<Head, Fault>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
        B: Body<Data = Bytes> + Unpin,
    {
        let Connection { stream, input, .. } = connection;
        let mut stream = lock(stream);
        if !self.is_told && self.broke.is_none() {
            match outgoing.poll(cx, &mut *stream) {
                Poll::Ready(Ok(())) => self.is_told = true,
                // Why it takes no more may be said in an answer that is here.
                Poll::Ready(Err(Fault::Io(error))) => self.broke = Some(error),
                Poll::Ready(Err(fault)) => return Poll::Ready(Err(fault)),
                Poll::Pending => {}
            }
        }
        loop {
            let is_new = self.seen == 0 && !input.bytes.is_empty();
            if is_new || head::may_have_ended(&input.bytes, self.seen) {
                match head::take(&mut input.bytes, method, fields)? {
                    Parsed::Head(head) => return Poll::Ready(Ok(head)),
                    Parsed::Interim => {
                        self.seen = 0;
                        continue;
                    }
                    Parsed::Partial => {}
                }
            }
            self.seen = input.bytes.len();
            let fault = match input.poll_head(cx, &mut *stream) {
                Poll::Ready(Ok(1..)) => continue,
                Poll::Ready(Err(fault)) => fault,
                Poll::Pending if self.broke.is_none() => return Poll::Pending,
                // It may be here and not be known yet.
                Poll::Pending if !mem::replace(&mut self.looked, true) => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Ready(Ok(0)) | Poll::Pending => Fault::Closed,
            };
            return Poll::Ready(Err(self.broke.take().map_or(fault, Fault::Io)));
        }
    }
}

impl Receiving {
    /// Whether all of it was handed on.
    pub fn is_over(&self) -> bool {
        self.body.is_over()
    }

    pub fn size_hint(&self) -> SizeHint {
        self.body.exact().map_or_else(SizeHint::default, SizeHint::with_exact)
    }

    /// The next part. Must not be asked again after a fault.
    pub fn poll_frame<S>(
        &mut self,
        cx: &mut Context<'_>,
        connection: &mut Connection<S>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if let Some(fault) = self.fault.take() {
            return Poll::Ready(Some(Err(fault)));
        }
        Poll::Ready(match ready!(self.poll_part(cx, connection)) {
            Ok(Some(Part::Data(data))) => Some(Ok(Frame::data(data))),
            Ok(Some(Part::Trailers(fields))) => Some(Ok(Frame::trailers(fields))),
            Ok(None) => None,
            Err(fault) => {
                // A server drops what it has not sent when it hears of a fault, so
                // what came before is given its turn.
                self.fault = Some(fault);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        })
    }

    fn poll_part<S>(
        &mut self,
        cx: &mut Context<'_>,
        connection: &mut Connection<S>,
    ) -> Poll<Result<Option<Part>, Fault>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.poll_upload(cx)?;
        let Connection { stream, input, .. } = connection;
        loop {
            let part = self.body.next(&mut input.bytes)?;
            if part.is_some() || self.body.is_over() {
                return Poll::Ready(Ok(part));
            }
            let mut stream = lock(stream);
            if ready!(input.poll_body(cx, &mut *stream, self.body.left()))? == 0 {
                self.body.end()?;
                self.keep_alive = false;
            }
        }
    }

    /// An upload that broke off on the client's side ends its answer too.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
        let Some(upload) = &mut self.upload else { return Ok(()) };
        let Poll::Ready(told) = Pin::new(upload).poll(cx) else { return Ok(()) };
        self.upload = None;
        match told {
            Ok(Ok(())) => Ok(()),
            // The upstream need not hear it all to give its answer.
            Ok(Err(Fault::Io(_))) => {
                self.keep_alive = false;
                Ok(())
            }
            Ok(Err(fault)) => Err(fault),
            Err(_) => Err(Fault::Upload),
        }
    }

    /// The connection, if another exchange may use it; to be asked when the answer
    /// is over. An upload that is not goes on, and the connection is closed then.
    pub fn into_idle<S>(self, mut connection: Box<Connection<S>>) -> Option<Box<Connection<S>>> {
        let Self { body, keep_alive, upload, .. } = self;
        if let Some(mut upload) = upload {
            let mut cx = Context::from_waker(Waker::noop());
            match Pin::new(&mut upload).poll(&mut cx) {
                Poll::Ready(Ok(Ok(()))) => {}
                Poll::Ready(_) => return None,
                Poll::Pending => {
                    drop(upload.detach());
                    return None;
                }
            }
        }
        // What is left over is no answer to anything.
        let is_usable = keep_alive && body.is_over() && connection.input.bytes.is_empty();
        let is_alone = Arc::strong_count(&connection.stream) == 1;
        if !is_usable || !is_alone {
            return None;
        }
        connection.input.rest();
        if connection.memory.capacity() > KEPT {
            connection.memory = vec![];
        }
        Some(connection)
    }
}

fn lock<S>(stream: &Mutex<S>) -> MutexGuard<'_, S> {
    stream.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod differential_tests;
#[cfg(test)]
mod exchange_tests;
