//! The body of every answer: the API's or the gateway's, followed to its end.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{observe::Flight, watch::Watch};
use crate::gateway;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An answer's body. Dropping it ends the request for log and metrics.
pub struct Tracked {
    inner: Inner,
    flight: Flight,
    /// None of what is over with its first frame, as most answers are.
    watch: Option<Arc<Watch>>,
}

#[expect(clippy::large_enum_variant, reason = "the gateway's is on the hot path")]
pub enum Inner {
    Api(axum::body::Body),
    Proxied(gateway::Body),
}

impl Tracked {
    pub fn new(inner: Inner, flight: Flight) -> Self {
        let mut this = Self { inner, flight, watch: None };
        // Held by HTTP/2 until its last byte could be sent.
        if this.flight.is_multiplexed() && !this.is_end_stream() {
            this.watch = Some(this.begin_watch());
        }
        this
    }

    fn begin_watch(&self) -> Arc<Watch> {
        let tether = match &self.inner {
            Inner::Api(_) => None,
            Inner::Proxied(body) => Some(body.tether()),
        };
        self.flight.watch(tether)
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        let Some(watch) = &self.watch else { return };
        if let (Some(why), Inner::Proxied(body)) = (watch.end(), &mut self.inner) {
            body.cut_off(why);
        }
    }
}

impl Body for Tracked {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let Self { inner, flight, .. } = &mut *this;
        let next: Poll<Option<Result<Frame<Bytes>, BoxError>>> = match inner {
            Inner::Api(body) => {
                Pin::new(body).poll_frame(cx).map(|next| next.map(|f| f.map_err(Into::into)))
            }
            Inner::Proxied(body) => {
                Pin::new(body).poll_frame(cx).map(|next| next.map(|f| f.map_err(Into::into)))
            }
        };
        match &next {
            Poll::Ready(Some(Ok(frame))) => flight.sent(frame.data_ref().map_or(0, Bytes::len)),
            Poll::Ready(Some(Err(_))) => flight.broke(),
            Poll::Ready(None) | Poll::Pending => {}
        }
        let goes_on = match &next {
            Poll::Ready(Some(Ok(_))) => !this.is_end_stream(),
            Poll::Ready(Some(Err(_)) | None) => false,
            Poll::Pending => true,
        };
        if goes_on && this.watch.is_none() {
            this.watch = Some(this.begin_watch());
        }
        if let Some(watch) = &this.watch {
            watch.polled(next.is_pending());
        }
        next
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Api(body) => body.is_end_stream(),
            Inner::Proxied(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Api(body) => body.size_hint(),
            Inner::Proxied(body) => body.size_hint(),
        }
    }
}
