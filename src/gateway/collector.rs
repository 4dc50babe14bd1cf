//! The way to the collector of traces, like an upstream that only we ask.
//! Redirects are not followed.

use std::{pin::Pin, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use http::{
    HeaderMap, HeaderValue, Method, Request, Uri,
    header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT},
};
use http_body_util::BodyDataStream;

use super::{SendError, Upstream, upload::RequestBody};
use crate::{
    config::TracesConfig,
    domain::clock::SharedClock,
    services::upstreams::{UpstreamService, resolver::SharedResolver},
    telemetry::trace::{Collector, Reply},
};

/// What is read of an answer; a good one says next to nothing.
const MOST_READ: usize = 64 * 1024;

/// Sends spans.
pub struct CollectorClient {
    upstream: Upstream,
    path: Uri,
    headers: Vec<(http::HeaderName, HeaderValue)>,
}

impl CollectorClient {
    /// Must be called within the runtime that will send (see [`Upstream::new`]).
    pub fn new(config: &TracesConfig, clock: SharedClock, resolver: SharedResolver) -> Self {
        let upstreams = vec![Arc::clone(&config.collector)];
        let directory = UpstreamService::new(&upstreams, clock, resolver).current();
        Self {
            upstream: Upstream::new(&directory.upstreams[0]),
            path: config.path.parse().expect("the configuration checked it"),
            headers: config.headers.clone(),
        }
    }

    async fn send(&self, body: Bytes) -> Result<Reply, &'static str> {
        let picked = self.upstream.pick().map_err(|_| "unavailable")?;
        let mut parts = Request::new(()).into_parts().0;
        parts.method = Method::POST;
        parts.uri = self.path.clone();
        let headers = &mut parts.headers;
        headers.insert(HOST, self.upstream.host(picked.as_ref(), None).clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        headers.insert(CONTENT_LENGTH, body.len().into());
        headers.insert(USER_AGENT, HeaderValue::from_static("tollgate"));
        headers.extend(self.headers.iter().cloned());
        let body = RequestBody::Whole(Box::new(Some(body)));
        let sent = self.upstream.send(picked, &mut parts, body, None).await;
        let answer = sent.map_err(|error| error.name())?;
        let status = answer.status().as_u16();
        let retry_after = retry_after(answer.headers());
        let mut read = BytesMut::new();
        let mut body = BodyDataStream::new(answer.into_body());
        while let Some(part) = body.next().await {
            // The status said what counts.
            let Ok(part) = part else { break };
            if read.len() + part.len() > MOST_READ {
                break;
            }
            read.extend_from_slice(&part);
        }
        Ok(Reply { status, retry_after, body: read.freeze() })
    }
}

impl Collector for CollectorClient {
    fn export(
        &self,
        body: Bytes,
    ) -> Pin<Box<dyn Future<Output = Result<Reply, &'static str>> + Send + '_>> {
        Box::pin(self.send(body))
    }
}

impl SendError {
    /// What went wrong, in a word.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Upload(_) => "upload",
            Self::Upstream(error) => error.name(),
        }
    }
}

/// Seconds; a date is not understood.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}
