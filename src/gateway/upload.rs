//! The client's body on its way to the upstream.
//!
//! Passed on frame by frame, only as fast as the upstream takes it; nothing is
//! collected. Trailers are dropped: they could carry the fields that were
//! removed from the head. What happened to the body is told through
//! [`Progress`], since the body itself is gone with the connection that took it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, header::CONTENT_LENGTH};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

pub use super::progress::{Progress, UploadFault};
use super::{carrier, http1::Patience, pace::Pace, timer::StallTimer};

/// For how long a request of ours may wait to be taken.
const WHOLE_IDLE: Duration = Duration::from_secs(10);

/// What an upload may use.
#[derive(Clone, Copy, Debug)]
pub struct UploadLimits {
    pub max_bytes: u64,
    /// The client may pause for this long.
    pub idle: Duration,
}

/// A request body, limited and watched. An absent body is a variant of its own,
/// so that it costs nothing.
#[derive(Debug)]
pub enum RequestBody<B = Incoming> {
    Empty,
    /// Boxed: most requests have none, and each is moved several times.
    Streamed(Box<Upload<B>>),
    /// Of a request of ours; boxed for the same reason.
    Whole(Box<Option<Bytes>>),
}

#[derive(Debug)]
pub struct Upload<B> {
    inner: B,
    left: u64,
    idle: Duration,
    timer: StallTimer,
    pace: Pace,
    /// Nothing is taken from this instant.
    until: Option<Instant>,
    progress: Arc<Progress>,
    /// In a task that the [`super::carrier`] holds.
    is_carried: bool,
}

/// Wraps a body. A declared length over the limit is refused before anything is
/// read.
pub fn limited<B: Body>(
    headers: &HeaderMap,
    body: B,
    limits: UploadLimits,
    started: Instant,
) -> Result<(RequestBody<B>, Option<Arc<Progress>>), UploadFault> {
    if body.is_end_stream() {
        return Ok((RequestBody::Empty, None));
    }
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if declared.is_some_and(|length: u64| length > limits.max_bytes) {
        return Err(UploadFault::TooLarge);
    }
    let progress = Progress::new(started);
    let timer = StallTimer::new(limits.idle, None);
    let upload = Upload {
        inner: body,
        left: limits.max_bytes,
        idle: limits.idle,
        timer,
        pace: Pace::default(),
        until: None,
        progress: Arc::clone(&progress),
        is_carried: false,
    };
    Ok((RequestBody::Streamed(Box::new(upload)), Some(progress)))
}

impl<B> RequestBody<B> {
    /// What ends it where it goes on beside its answer.
    pub fn patience(&self) -> Patience {
        match self {
            Self::Streamed(upload) => upload.patience(),
            Self::Empty | Self::Whole(_) => Patience { idle: WHOLE_IDLE, progress: None },
        }
    }

    /// It is sent over HTTP/2.
    pub(super) fn is_carried(&mut self) {
        if let Self::Streamed(upload) = self {
            upload.is_carried = true;
        }
    }

    /// Ends it at this instant, also while its bytes are always ready. To be
    /// said before it is first asked for any.
    pub fn end_at(&mut self, until: Option<Instant>) {
        if let (Self::Streamed(upload), Some(_)) = (self, until) {
            upload.until = until;
            upload.timer = StallTimer::new(upload.idle, until);
        }
    }
}

impl<B> Drop for Upload<B> {
    fn drop(&mut self) {
        self.progress.leave();
    }
}

impl<B> Upload<B> {
    fn patience(&self) -> Patience {
        Patience { idle: self.idle, progress: Some(Arc::clone(&self.progress)) }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Upload<B> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, UploadFault>>> {
        loop {
            if self.is_over() {
                return self.fail(UploadFault::Expired);
            }
            if let Some(fault) = self.progress.killed() {
                return self.fail(fault);
            }
            let frame = match Pin::new(&mut self.inner).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(Some(Err(_))) => return self.fail(UploadFault::ClientGone),
                Poll::Ready(None) => {
                    self.progress.finish();
                    return Poll::Ready(None);
                }
                Poll::Pending if self.timer.poll(cx).is_ready() => {
                    let over = self.is_over();
                    let fault = if over { UploadFault::Expired } else { UploadFault::Stalled };
                    return self.fail(fault);
                }
                Poll::Pending => {
                    self.pace.waits();
                    let fault = ready!(self.progress.poll_killed(cx));
                    return self.fail(fault);
                }
            };
            self.timer.moved();
            let Ok(data) = frame.into_data() else { continue };
            let Some(left) = self.left.checked_sub(data.len() as u64) else {
                return self.fail(UploadFault::TooLarge);
            };
            self.left = left;
            if self.pace.is_too_slow(data.len(), self.idle) && !self.inner.is_end_stream() {
                return self.fail(UploadFault::Stalled);
            }
            self.progress.moved(data.len());
            // The end may not be asked for once the length is reached.
            if self.inner.is_end_stream() {
                self.progress.finish();
            }
            return Poll::Ready(Some(Ok(data)));
        }
    }

    fn is_over(&self) -> bool {
        self.until.is_some_and(|until| until <= Instant::now())
    }

    fn fail<T>(&self, fault: UploadFault) -> Poll<Option<Result<T, UploadFault>>> {
        self.progress.failed(fault);
        Poll::Ready(Some(Err(fault)))
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for RequestBody<B> {
    type Data = Bytes;
    type Error = UploadFault;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadFault>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Streamed(upload) => {
                if upload.is_carried {
                    carrier::asked(upload.patience());
                }
                upload.poll(cx).map(|next| next.map(|data| data.map(Frame::data)))
            }
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streamed(upload) => upload.inner.is_end_stream(),
            Self::Whole(bytes) => bytes.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Streamed(upload) => upload.inner.size_hint(),
        }
    }
}

#[cfg(test)]
#[path = "upload_tests.rs"]
mod tests;
