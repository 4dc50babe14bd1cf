//! The body of every answer: the API's or the gateway's, followed to its end.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::observe::Flight;
use crate::gateway;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An answer's body. Dropping it ends the request for log and metrics.
pub struct Tracked {
    inner: Inner,
    flight: Flight,
}

#[expect(clippy::large_enum_variant, reason = "the gateway's is on the hot path")]
pub enum Inner {
    Api(axum::body::Body),
    Proxied(gateway::Body),
}

impl Tracked {
    pub fn new(inner: Inner, flight: Flight) -> Self {
        Self { inner, flight }
    }
}

impl Body for Tracked {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Self { inner, flight } = self.get_mut();
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
