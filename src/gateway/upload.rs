//! The client's body on its way to the upstream.
//!
//! Passed on frame by frame, only as fast as the upstream takes it; nothing is
//! collected. Trailers are dropped: they could carry the fields that were
//! removed from the head. What happened to the body is told through
//! [`Progress`], since the body itself is gone with the connection that took it.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header::CONTENT_LENGTH};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::{metered::CLIENT_CLOSED_REQUEST, timer::StallTimer};

/// Why a request's body was not taken to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UploadFault {
    #[error("the request body is larger than allowed")]
    TooLarge,
    #[error("the request body stopped coming")]
    Stalled,
    #[error("the client broke off")]
    ClientGone,
    /// It took longer than the credential that opened the door is good for.
    #[error("the credential's time is over")]
    Expired,
}

impl UploadFault {
    pub fn status(self) -> StatusCode {
        match self {
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Stalled => StatusCode::REQUEST_TIMEOUT,
            Self::Expired => StatusCode::UNAUTHORIZED,
            Self::ClientGone => {
                StatusCode::from_u16(CLIENT_CLOSED_REQUEST).expect("a status of three digits")
            }
        }
    }
}

/// What became of a request body so far; shared between the body and whoever
/// waits for the answer.
#[derive(Debug)]
pub struct Progress {
    started: Instant,
    bytes: AtomicU64,
    /// Milliseconds after `started`.
    last_move: AtomicU64,
    fault: AtomicU8,
    finished: AtomicBool,
}

impl Progress {
    fn new(started: Instant) -> Arc<Self> {
        let zero = AtomicU64::new(0);
        Arc::new(Self {
            started,
            bytes: zero,
            last_move: AtomicU64::new(0),
            fault: AtomicU8::new(0),
            finished: AtomicBool::new(false),
        })
    }

    /// Bytes of the body that were taken in.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Whether the upstream's connection took the body to its end.
    pub fn is_finished(&self) -> bool {
        self.finished.load(Relaxed)
    }

    /// When a part of the body was last taken over by the upstream's
    /// connection.
    pub fn last_move(&self) -> Instant {
        self.started + Duration::from_millis(self.last_move.load(Relaxed))
    }

    pub fn fault(&self) -> Option<UploadFault> {
        match self.fault.load(Relaxed) {
            0 => None,
            1 => Some(UploadFault::TooLarge),
            2 => Some(UploadFault::Stalled),
            3 => Some(UploadFault::Expired),
            _ => Some(UploadFault::ClientGone),
        }
    }

    fn moved(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Relaxed);
        let elapsed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_move.store(elapsed, Relaxed);
    }

    fn failed(&self, fault: UploadFault) {
        let code = match fault {
            UploadFault::TooLarge => 1,
            UploadFault::Stalled => 2,
            UploadFault::Expired => 3,
            UploadFault::ClientGone => 4,
        };
        self.fault.store(code, Relaxed);
    }
}

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
}

#[derive(Debug)]
pub struct Upload<B> {
    inner: B,
    left: u64,
    idle: Duration,
    timer: StallTimer,
    /// Nothing is taken from this instant.
    until: Option<Instant>,
    progress: Arc<Progress>,
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
        until: None,
        progress: Arc::clone(&progress),
    };
    Ok((RequestBody::Streamed(Box::new(upload)), Some(progress)))
}

impl<B> RequestBody<B> {
    /// Ends it at this instant, also while its bytes are always ready. To be
    /// said before it is first asked for any.
    pub fn end_at(&mut self, until: Option<Instant>) {
        if let (Self::Streamed(upload), Some(_)) = (self, until) {
            upload.until = until;
            upload.timer = StallTimer::new(upload.idle, until);
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Upload<B> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, UploadFault>>> {
        loop {
            if self.is_over() {
                return self.fail(UploadFault::Expired);
            }
            let frame = match Pin::new(&mut self.inner).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(Some(Err(_))) => return self.fail(UploadFault::ClientGone),
                Poll::Ready(None) => {
                    self.progress.finished.store(true, Relaxed);
                    return Poll::Ready(None);
                }
                Poll::Pending if self.timer.poll(cx).is_ready() => {
                    let over = self.is_over();
                    let fault = if over { UploadFault::Expired } else { UploadFault::Stalled };
                    return self.fail(fault);
                }
                Poll::Pending => return Poll::Pending,
            };
            self.timer.moved();
            let Ok(data) = frame.into_data() else { continue };
            let Some(left) = self.left.checked_sub(data.len() as u64) else {
                return self.fail(UploadFault::TooLarge);
            };
            self.left = left;
            self.progress.moved(data.len());
            // The end may not be asked for once the length is reached.
            if self.inner.is_end_stream() {
                self.progress.finished.store(true, Relaxed);
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
                upload.poll(cx).map(|next| next.map(|data| data.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streamed(upload) => upload.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streamed(upload) => upload.inner.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt, stream};
    use http::HeaderValue;
    use http_body_util::{BodyExt, Full, StreamBody};

    use super::*;

    const LIMITS: UploadLimits = UploadLimits { max_bytes: 10, idle: Duration::from_secs(30) };

    fn chunks(sizes: &'static [usize]) -> impl Body<Data = Bytes, Error = std::io::Error> + Unpin {
        let frames = sizes.iter().map(|size| Ok(Frame::data(Bytes::from(vec![b'x'; *size]))));
        StreamBody::new(stream::iter(frames))
    }

    #[tokio::test]
    async fn up_to_the_limit_and_not_a_byte_more() {
        let headers = HeaderMap::new();
        for (sizes, expected) in [(&[4, 6][..], Ok(10)), (&[4, 6, 1], Err(UploadFault::TooLarge))] {
            let (body, progress) =
                limited(&headers, chunks(sizes), LIMITS, Instant::now()).unwrap();
            let progress = progress.unwrap();
            let taken = body.collect().await.map(|all| all.to_bytes().len());
            assert_eq!(taken, expected);
            assert_eq!(progress.fault(), expected.err());
            assert_eq!(progress.bytes(), 10);
        }
    }

    #[tokio::test]
    async fn a_declared_length_over_the_limit_is_refused_unread() {
        let headers = HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from_static("11"))]);
        let refused = limited(&headers, chunks(&[1]), LIMITS, Instant::now());
        assert_eq!(refused.err(), Some(UploadFault::TooLarge));
    }

    #[tokio::test]
    async fn a_client_that_pauses_too_long_is_cut() {
        let limits = UploadLimits { idle: Duration::from_millis(20), ..LIMITS };
        let first = stream::iter([Ok::<_, ()>(Frame::data(Bytes::from_static(b"x")))]);
        let body = StreamBody::new(first.chain(stream::pending()));
        let (mut body, progress) =
            limited(&HeaderMap::new(), body, limits, Instant::now()).unwrap();
        assert!(body.frame().await.unwrap().is_ok());
        assert_eq!(body.frame().await.unwrap().err(), Some(UploadFault::Stalled));
        assert_eq!(progress.unwrap().fault(), Some(UploadFault::Stalled));
    }

    /// Whether its bytes are always ready or never come.
    #[tokio::test]
    async fn nothing_is_taken_once_the_credentials_time_is_over() {
        let chunk = || Ok::<_, ()>(Frame::data(Bytes::from_static(b"x")));
        let ready = stream::repeat(()).map(move |()| chunk()).boxed();
        let silent = stream::iter([chunk()]).chain(stream::pending()).boxed();
        for frames in [ready, silent] {
            let limits = UploadLimits { max_bytes: u64::MAX, ..LIMITS };
            let body = StreamBody::new(frames);
            let (mut body, progress) =
                limited(&HeaderMap::new(), body, limits, Instant::now()).unwrap();
            let until = Instant::now() + Duration::from_millis(40);
            body.end_at(Some(until));
            let fault = loop {
                assert!(until.elapsed() < Duration::from_secs(2), "it goes on");
                if let Err(fault) = body.frame().await.unwrap() {
                    break fault;
                }
            };
            assert!(Instant::now() >= until);
            assert_eq!(fault, UploadFault::Expired);
            assert_eq!(progress.unwrap().fault(), Some(UploadFault::Expired));
        }
    }

    #[tokio::test]
    async fn trailers_are_dropped() {
        let trailers = HeaderMap::from_iter([(
            http::HeaderName::from_static("x-user-id"),
            HeaderValue::from_static("forged"),
        )]);
        let inner = Full::new(Bytes::from_static(b"abc"))
            .with_trailers(async move { Some(Ok::<_, std::convert::Infallible>(trailers)) });
        let inner = Box::pin(inner);
        let (body, _) = limited(&HeaderMap::new(), inner, LIMITS, Instant::now()).unwrap();
        let collected = body.collect().await.unwrap();
        assert!(collected.trailers().is_none());
        assert_eq!(collected.to_bytes(), "abc");
    }
}
