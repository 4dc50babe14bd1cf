//! The answer's body, which reports what was delivered, however it ends.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::{
    calls,
    stream::{End, Stream},
    tether::Tether,
    timer::StallTimer,
    upload::{Progress, UploadFault},
};
use crate::{
    domain::{
        stream::Passed,
        usage::{Outcome, UsageRecord},
    },
    services::limits::Permit,
    telemetry::trace::Asking,
};

/// Logged and recorded where a client left before there was an answer; nginx's
/// number for it.
pub const CLIENT_CLOSED_REQUEST: u16 = 499;

/// Takes the record of one request.
pub trait Sink: Send + 'static {
    /// `messages`: how many it counts as besides itself.
    fn record(self, record: UsageRecord, messages: u64);
}

/// One request under way, recorded exactly once: by [`Meter::finish`], or when
/// dropped. Made before the upstream is called, so that an exchange whose
/// client leaves early is recorded too.
///
/// A request whose body outlives its answer is recorded when that is over, and has
/// its place until then.
#[derive(Debug)]
pub struct Meter<S: Sink>(Option<Box<Open<S>>>);

#[derive(Debug)]
struct Open<S> {
    sink: S,
    record: UsageRecord,
    started: Instant,
    upload: Option<Arc<Progress>>,
    /// How the answer ended, where the upload goes on.
    outcome: Option<Outcome>,
    messages: u64,
    /// Its place among what is under way.
    permit: Option<Permit>,
    /// What the trace is told at the end.
    asking: Option<Box<Asking>>,
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
        let open = Open {
            sink,
            record,
            started,
            upload,
            outcome: None,
            messages: 0,
            permit: None,
            asking: None,
        };
        Self(Some(Box::new(open)))
    }

    /// Gives the permit back when it is over.
    #[must_use]
    pub fn holding(mut self, permit: Option<Permit>) -> Self {
        if let Some(open) = &mut self.0 {
            open.permit = permit;
        }
        self
    }

    /// The trace is told of the question that is put to the upstream.
    pub fn asking(&mut self, asking: Option<Box<Asking>>) {
        if let Some(open) = &mut self.0 {
            open.asking = asking;
        }
    }

    /// The upstream gave no answer, so this status is ours.
    pub fn unanswered(&mut self, status: StatusCode, why: &'static str) {
        self.set_status(status);
        if let Some(asking) = self.0.as_mut().and_then(|open| open.asking.as_mut()) {
            asking.fail(why);
        }
    }

    /// Of what is recorded elsewhere.
    pub fn over() -> Self {
        Self(None)
    }

    pub fn set_status(&mut self, status: StatusCode) {
        if let Some(open) = &mut self.0 {
            open.record.status = status.as_u16();
        }
    }

    /// What is known so far; `None` once it is over.
    pub(super) fn record(&self) -> Option<&UsageRecord> {
        self.0.as_ref().map(|open| &open.record)
    }

    /// Says what went through a tunnel so far. Each message of the client was
    /// charged like a request.
    pub fn tunnelled(&mut self, passed: &Passed) {
        let Passed { bytes_in, bytes_out, messages_in, messages_out } = *passed;
        if let Some(open) = &mut self.0 {
            (open.record.bytes_in, open.record.bytes_out) = (bytes_in, bytes_out);
            open.messages = messages_in;
            open.record.is_stream = true;
            open.record.messages = messages_in + messages_out;
        }
    }

    /// Says how many events of a stream went by so far.
    fn streamed(&mut self, events: u64) {
        if let Some(open) = &mut self.0 {
            open.record.is_stream = true;
            open.record.messages = events;
        }
    }

    fn add(&mut self, bytes: usize) {
        if let Some(open) = &mut self.0 {
            open.record.bytes_out += bytes as u64;
        }
    }

    /// The answer is over. Later calls change nothing.
    pub fn finish(&mut self, outcome: Outcome) {
        let Some(mut open) = self.0.take() else { return };
        open.outcome.get_or_insert(outcome);
        if let Some(upload) = open.upload.clone() {
            // Kept, it finishes again when it is dropped.
            let Some(mut back) = upload.keep(Self(Some(open))) else { return };
            let Some(same) = back.0.take() else { return };
            open = same;
        }
        open.close();
    }
}

impl<S: Sink> Open<S> {
    /// Request and answer are over.
    fn close(self) {
        let Self { sink, mut record, started, upload, outcome, messages, permit, asking } = self;
        record.outcome = outcome.unwrap_or(Outcome::Aborted);
        record.duration_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        if let Some(upload) = upload {
            record.bytes_in = upload.bytes();
            let is_cut = upload.fault().is_some_and(UploadFault::is_cut);
            if is_cut && record.outcome == Outcome::Completed {
                record.outcome = Outcome::Cut;
            }
        }
        if let Some(asking) = asking {
            calls::finish(*asking, &record);
        }
        sink.record(record, messages);
        drop(permit);
    }
}

impl<S: Sink> Drop for Meter<S> {
    fn drop(&mut self) {
        // A panic further up is our failure, not the client's leaving.
        let is_answered = self.0.as_ref().is_none_or(|open| open.outcome.is_some());
        if std::thread::panicking() && !is_answered {
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
    #[error("the stream was ended: {}", .0.code())]
    Ended(End),
}

/// An answer's body, counted and watched. Trailers are dropped, as `Trailer`
/// is.
#[derive(Debug)]
pub struct Metered<B, S: Sink> {
    inner: B,
    meter: Meter<S>,
    timer: StallTimer,
    /// Nothing is handed on from this instant.
    until: Option<(Instant, End)>,
    /// Boxed: most answers are none.
    stream: Option<Box<Stream>>,
    /// All was said; what the upstream has still to say is not heard.
    over: bool,
}

impl<B: Body, S: Sink> Metered<B, S> {
    pub fn new(inner: B, mut meter: Meter<S>, timer: StallTimer) -> Self {
        if inner.is_end_stream() {
            meter.finish(Outcome::Completed);
        }
        Self { inner, meter, timer, until: None, stream: None, over: false }
    }

    /// Ends it at this instant, also while its bytes are always ready. The timer
    /// must know the instant too: only that wakes one that waits.
    #[must_use]
    pub fn until(mut self, until: (Instant, End)) -> Self {
        self.until = Some(until);
        self
    }

    /// Makes it one that may be ended from elsewhere.
    #[must_use]
    pub fn stream(mut self, stream: Stream) -> Self {
        if stream.is_of_events() {
            self.meter.streamed(0);
        }
        self.stream = Some(Box::new(stream));
        self
    }

    /// What is known so far; `None` once it is over.
    pub fn record(&self) -> Option<&UsageRecord> {
        self.meter.record()
    }

    /// What ends it from outside while it is not polled.
    pub fn tether(&self) -> Tether {
        Tether {
            stream: self.stream.as_ref().map(|stream| Arc::downgrade(stream.entry())),
            until: self.until.map(|(at, end)| (at, end.code())),
            deadline: self.timer.deadline(),
            idle: self.timer.idle(),
        }
    }

    /// It is not handed on at all; the client is told this status.
    pub fn refuse(&mut self, status: StatusCode) {
        self.meter.unanswered(status, "no_room");
        self.meter.finish(Outcome::Failed);
    }

    /// It is about to be dropped from outside, for this reason.
    pub fn cut_off(&mut self, why: &'static str) {
        self.finish(Outcome::Cut, why);
    }

    /// Why it must end now, if it must.
    fn due(&self) -> Option<End> {
        // What has come to its own end is not ended again.
        self.meter.record()?;
        let killed = self.stream.as_ref().and_then(|stream| stream.reason());
        let over = || self.until.filter(|(at, _)| *at <= Instant::now()).map(|(_, end)| end);
        killed.map(End::Killed).or_else(over)
    }

    /// Ends it from our side, with a word where its kind has one.
    fn end<E>(&mut self, end: End) -> Result<Frame<Bytes>, AnswerBroken<E>> {
        self.finish(Outcome::Cut, end.code());
        match self.stream.as_ref().and_then(|stream| stream.last_words(end)) {
            Some(words) => {
                self.over = true;
                Ok(Frame::data(Bytes::from(words)))
            }
            None => Err(AnswerBroken::Ended(end)),
        }
    }

    fn finish(&mut self, outcome: Outcome, why: &'static str) {
        self.meter.finish(outcome);
        if let Some(stream) = &self.stream {
            stream.ended(why);
        }
    }

    /// Nothing is ready, so from now on it may be a stream. Whether it is to end.
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let Some(stream) = &self.stream else { return Poll::Pending };
        stream.register();
        stream.poll_killed(cx).map(End::Killed)
    }

    fn pass(&mut self, data: &[u8]) {
        self.meter.add(data.len());
        if let Some(stream) = &mut self.stream {
            stream.pass(data);
            if stream.is_of_events() {
                self.meter.streamed(stream.events());
            }
        }
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
        if this.over {
            return Poll::Ready(None);
        }
        loop {
            if let Some(end) = this.due() {
                return Poll::Ready(Some(this.end(end)));
            }
            let frame = match Pin::new(&mut this.inner).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(Some(Err(error))) => {
                    this.finish(Outcome::Failed, "failed");
                    return Poll::Ready(Some(Err(AnswerBroken::Upstream(error))));
                }
                Poll::Ready(None) => {
                    this.finish(Outcome::Completed, "completed");
                    return Poll::Ready(None);
                }
                Poll::Pending => {
                    if let Poll::Ready(end) = this.poll_waiting(cx) {
                        return Poll::Ready(Some(this.end(end)));
                    }
                    ready!(this.timer.poll(cx));
                    if let Some(end) = this.due() {
                        return Poll::Ready(Some(this.end(end)));
                    }
                    let (error, why) = if this.timer.is_past_deadline() {
                        (AnswerBroken::Deadline, "failed")
                    } else {
                        (AnswerBroken::Idle, "idle")
                    };
                    this.finish(Outcome::Failed, why);
                    return Poll::Ready(Some(Err(error)));
                }
            };
            this.timer.moved();
            let Ok(data) = frame.into_data() else { continue };
            this.pass(&data);
            // A server stops polling once it has sent `Content-Length` bytes, so
            // the final `None` may never be asked for.
            if this.inner.is_end_stream() {
                this.finish(Outcome::Completed, "completed");
            }
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
#[path = "metered_tests.rs"]
mod tests;
