//! The answer's body, which reports what was delivered, however it ends.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::{timer::StallTimer, upload::Progress};
use crate::domain::usage::{Outcome, UsageRecord};

/// Logged and recorded where a client left before there was an answer; nginx's
/// number for it.
pub const CLIENT_CLOSED_REQUEST: u16 = 499;

/// Takes the record of one request.
pub trait Sink {
    fn record(self, record: UsageRecord);
}

/// One request under way, recorded exactly once: by [`Meter::finish`], or when
/// dropped. Made before the upstream is called, so that an exchange whose
/// client leaves early is recorded too.
#[derive(Debug)]
pub struct Meter<S: Sink>(Option<Box<Open<S>>>);

#[derive(Debug)]
struct Open<S> {
    sink: S,
    record: UsageRecord,
    started: Instant,
    upload: Option<Arc<Progress>>,
}

impl<S: Sink> Meter<S> {
    /// `record` holds what is known before the answer; status, outcome,
    /// duration and bytes are filled in at the end.
    pub fn new(
        sink: S,
        record: UsageRecord,
        started: Instant,
        upload: Option<Arc<Progress>>,
    ) -> Self {
        Self(Some(Box::new(Open { sink, record, started, upload })))
    }

    pub fn set_status(&mut self, status: StatusCode) {
        if let Some(open) = &mut self.0 {
            open.record.status = status.as_u16();
        }
    }

    fn add(&mut self, bytes: usize) {
        if let Some(open) = &mut self.0 {
            open.record.bytes_out += bytes as u64;
        }
    }

    /// The exchange is over. Later calls change nothing.
    pub fn finish(&mut self, outcome: Outcome) {
        let Some(open) = self.0.take() else { return };
        let Open { sink, mut record, started, upload } = *open;
        record.outcome = outcome;
        record.duration_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        record.bytes_in = upload.map_or(0, |upload| upload.bytes());
        sink.record(record);
    }
}

impl<S: Sink> Drop for Meter<S> {
    fn drop(&mut self) {
        // A panic further up is our failure, not the client's leaving.
        if std::thread::panicking() {
            self.set_status(StatusCode::INTERNAL_SERVER_ERROR);
            self.finish(Outcome::Failed);
        } else {
            self.finish(Outcome::Aborted);
        }
    }
}

/// Why an answer ended before its end. The client sees broken framing, never an
/// answer that merely looks short.
#[derive(Debug, thiserror::Error)]
pub enum AnswerBroken<E> {
    #[error("the upstream broke off within its answer")]
    Upstream(#[source] E),
    #[error("nothing moved for too long")]
    Idle,
    #[error("the exchange took too long")]
    Deadline,
    /// It was open for longer than the credential that opened it.
    #[error("the credential's time is over")]
    Expired,
}

/// An answer's body, counted and watched. Trailers are dropped, as `Trailer`
/// is.
#[derive(Debug)]
pub struct Metered<B, S: Sink> {
    inner: B,
    meter: Meter<S>,
    timer: StallTimer,
    /// Nothing is handed on from this instant. Where streams are to be ended
    /// early as well, because what opened them is revoked, it is here.
    until: Option<Instant>,
}

impl<B: Body, S: Sink> Metered<B, S> {
    pub fn new(inner: B, mut meter: Meter<S>, timer: StallTimer) -> Self {
        if inner.is_end_stream() {
            meter.finish(Outcome::Completed);
        }
        Self { inner, meter, timer, until: None }
    }

    /// Ends it at this instant, also while its bytes are always ready. The timer
    /// must know the instant too: only that wakes one that waits.
    #[must_use]
    pub fn until(mut self, until: Option<Instant>) -> Self {
        self.until = until;
        self
    }

    fn is_over(&self) -> bool {
        self.until.is_some_and(|until| until <= Instant::now())
    }
}

impl<B, S> Body for Metered<B, S>
where
    B: Body<Data = Bytes> + Unpin,
    S: Sink + Unpin,
{
    type Data = Bytes;
    type Error = AnswerBroken<B::Error>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        loop {
            if this.is_over() {
                this.meter.finish(Outcome::Failed);
                return Poll::Ready(Some(Err(AnswerBroken::Expired)));
            }
            let frame = match Pin::new(&mut this.inner).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(Some(Err(error))) => {
                    this.meter.finish(Outcome::Failed);
                    return Poll::Ready(Some(Err(AnswerBroken::Upstream(error))));
                }
                Poll::Ready(None) => {
                    this.meter.finish(Outcome::Completed);
                    return Poll::Ready(None);
                }
                Poll::Pending if this.timer.poll(cx).is_ready() => {
                    this.meter.finish(Outcome::Failed);
                    let error = match this.timer.is_past_deadline() {
                        _ if this.is_over() => AnswerBroken::Expired,
                        true => AnswerBroken::Deadline,
                        false => AnswerBroken::Idle,
                    };
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Pending => return Poll::Pending,
            };
            this.timer.moved();
            let Ok(data) = frame.into_data() else { continue };
            this.meter.add(data.len());
            // A server stops polling once it has sent `Content-Length` bytes, so
            // the final `None` may never be asked for.
            if this.inner.is_end_stream() {
                this.meter.finish(Outcome::Completed);
            }
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use chrono::DateTime;
    use futures_util::{StreamExt, stream};
    use http_body_util::{BodyExt, Empty, Full, StreamBody};

    use super::*;
    use crate::domain::id::RecordId;

    impl Sink for mpsc::Sender<UsageRecord> {
        fn record(self, record: UsageRecord) {
            self.send(record).unwrap();
        }
    }

    fn meter() -> (Meter<mpsc::Sender<UsageRecord>>, mpsc::Receiver<UsageRecord>) {
        let (sender, receiver) = mpsc::channel();
        let at = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        let record = UsageRecord {
            id: RecordId::new(at),
            request_id: "r".to_owned(),
            at,
            method: "GET".into(),
            path: "/".to_owned(),
            status: CLIENT_CLOSED_REQUEST,
            outcome: Outcome::Aborted,
            duration_us: 0,
            bytes_in: 0,
            bytes_out: 0,
            user_id: None,
            key_id: None,
            upstream: "default".into(),
        };
        (Meter::new(sender, record, Instant::now(), None), receiver)
    }

    fn timer() -> StallTimer {
        StallTimer::new(Duration::from_mins(5), None)
    }

    fn seen(receiver: &mpsc::Receiver<UsageRecord>) -> Vec<(Outcome, u64)> {
        receiver.try_iter().map(|record| (record.outcome, record.bytes_out)).collect()
    }

    #[tokio::test]
    async fn every_end_is_reported_exactly_once() {
        let (meter, receiver) = self::meter();
        drop(Metered::new(Empty::<Bytes>::new(), meter, timer()));
        assert_eq!(seen(&receiver), [(Outcome::Completed, 0)]);

        let (meter, receiver) = self::meter();
        let mut body = Metered::new(Full::new(Bytes::from_static(b"hello")), meter, timer());
        // Only the one frame is taken, as a server does with a known length.
        body.frame().await.unwrap().unwrap();
        assert_eq!(seen(&receiver), [(Outcome::Completed, 5)]);
        drop(body);
        assert_eq!(seen(&receiver), []);
    }

    #[tokio::test]
    async fn leaving_early_counts_what_was_taken() {
        let (meter, receiver) = self::meter();
        let endless =
            stream::repeat(()).map(|()| Ok::<_, ()>(Frame::data(Bytes::from_static(b"abc"))));
        let mut body = Metered::new(StreamBody::new(endless), meter, timer());
        body.frame().await.unwrap().unwrap();
        body.frame().await.unwrap().unwrap();
        drop(body);
        assert_eq!(seen(&receiver), [(Outcome::Aborted, 6)]);

        let (meter, receiver) = self::meter();
        drop(meter);
        let record = receiver.try_recv().unwrap();
        assert_eq!((record.outcome, record.status), (Outcome::Aborted, CLIENT_CLOSED_REQUEST));
    }

    #[tokio::test]
    async fn an_upstream_that_breaks_off_is_an_error() {
        let (meter, receiver) = self::meter();
        let frames = [Ok(Frame::data(Bytes::from_static(b"ab"))), Err("reset")];
        let body = Metered::new(StreamBody::new(stream::iter(frames)), meter, timer());
        assert!(body.collect().await.is_err());
        assert_eq!(seen(&receiver), [(Outcome::Failed, 2)]);
    }

    #[tokio::test]
    async fn silence_ends_an_answer() {
        let (meter, receiver) = self::meter();
        let first = stream::iter([Ok::<_, ()>(Frame::data(Bytes::from_static(b"x")))]);
        let body = StreamBody::new(first.chain(stream::pending()));
        let timer = StallTimer::new(Duration::from_millis(20), None);
        let error = Metered::new(body, meter, timer).collect().await.unwrap_err();
        assert!(matches!(error, AnswerBroken::Idle), "{error:?}");
        assert_eq!(seen(&receiver), [(Outcome::Failed, 1)]);
    }

    #[tokio::test]
    async fn the_deadline_ends_an_answer_that_still_moves() {
        let (meter, receiver) = self::meter();
        let ticks = Box::pin(stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(2)).await;
            Some((Ok::<_, ()>(Frame::data(Bytes::from_static(b"x"))), ()))
        }));
        let deadline = Instant::now() + Duration::from_millis(40);
        let timer = StallTimer::new(Duration::from_mins(1), Some(deadline));
        let body = Metered::new(StreamBody::new(ticks), meter, timer);
        let error = body.collect().await.unwrap_err();
        assert!(matches!(error, AnswerBroken::Deadline), "{error:?}");
        assert!(Instant::now() >= deadline);
        assert_eq!(seen(&receiver)[0].0, Outcome::Failed);
    }

    /// Whether its bytes are always ready or never come.
    #[tokio::test]
    async fn nothing_is_handed_on_once_the_credentials_time_is_over() {
        let chunk = || Ok::<_, ()>(Frame::data(Bytes::from_static(b"abc")));
        let ready = stream::repeat(()).map(move |()| chunk()).boxed();
        let silent = stream::iter([chunk()]).chain(stream::pending()).boxed();
        for (name, frames) in [("ready", ready), ("silent", silent)] {
            let (meter, receiver) = self::meter();
            let until = Instant::now() + Duration::from_millis(40);
            let timer = StallTimer::new(Duration::from_mins(1), Some(until));
            let mut body = Metered::new(StreamBody::new(frames), meter, timer).until(Some(until));
            let mut taken = 0;
            let error = loop {
                assert!(until.elapsed() < Duration::from_secs(2), "{name} goes on");
                match body.frame().await.unwrap() {
                    Ok(frame) => taken += frame.into_data().unwrap().len() as u64,
                    Err(error) => break error,
                }
            };
            let late = Instant::now().saturating_duration_since(until);
            assert!(matches!(error, AnswerBroken::Expired), "{name}: {error:?}");
            assert!(Instant::now() >= until && late < Duration::from_secs(2), "{name}: {late:?}");
            assert_eq!(seen(&receiver), [(Outcome::Failed, taken)], "{name}");
        }
    }

    #[test]
    fn a_panic_is_recorded_as_ours() {
        let (meter, receiver) = meter();
        let handle = std::thread::spawn(move || {
            let _meter = meter;
            panic!("on purpose");
        });
        assert!(handle.join().is_err());
        let record = receiver.try_recv().unwrap();
        assert_eq!((record.outcome, record.status), (Outcome::Failed, 500));
    }
}
