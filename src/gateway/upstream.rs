//! The far side: one pool of connections per worker, and what may go wrong.
//!
//! A request is sent at most once. It is tried again only where it cannot have
//! been seen: the connection was never made (one extra attempt, in
//! [`super::connector`]), or a pooled connection turned out dead before a byte
//! of it was written ([`super::pool`]). Anything else is an error to the client, since a second delivery may charge twice.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, Uri, request::Parts};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use secrecy::ExposeSecret;
use tokio::time::Instant;

use super::{
    connector::Connector,
    echo,
    error::{SendError, UpstreamError},
    pool::{Pool, PooledBody},
    timer::Timeouts,
    upload::{Progress, RequestBody},
};
use crate::config::UpstreamConfig;

/// Where requests go.
pub enum Upstream {
    /// Nothing is configured: answers itself.
    Echo,
    Http(Box<HttpUpstream>),
}

/// One server behind the gateway.
pub struct HttpUpstream {
    pool: Pool,
    host: HeaderValue,
    authorization: Option<HeaderValue>,
    first_byte: Timeouts,
}

/// An upstream's URL that is none: it needs a scheme of `http` or `https`, a
/// host, and nothing after it.
#[derive(Debug, thiserror::Error)]
#[error("the upstream's URL must be http:// or https:// with a host and without a path")]
pub struct BadUrl;

impl Upstream {
    /// Must be called within the runtime that will serve the requests: the pool
    /// of connections belongs to it.
    pub fn new(config: &UpstreamConfig) -> Result<Self, BadUrl> {
        match &config.url {
            None => Ok(Self::Echo),
            Some(url) => HttpUpstream::new(url, config).map(|http| Self::Http(Box::new(http))),
        }
    }

    /// What the request's `Host` must be.
    pub fn host(&self) -> &HeaderValue {
        static ECHO: HeaderValue = HeaderValue::from_static("echo.invalid");
        match self {
            Self::Echo => &ECHO,
            Self::Http(http) => &http.host,
        }
    }

    pub fn authorization(&self) -> Option<&HeaderValue> {
        match self {
            Self::Echo => None,
            Self::Http(http) => http.authorization.as_ref(),
        }
    }

    /// Sends a request whose URI is only path and query, and waits for the head
    /// of the answer. What is sent of `parts` is taken.
    pub async fn send(
        &self,
        parts: &mut Parts,
        body: RequestBody,
        upload: Option<&Arc<Progress>>,
    ) -> Result<Response<AnswerBody>, SendError> {
        match self {
            Self::Echo => Ok(Box::pin(echo::answer(parts, body)).await?.map(AnswerBody::Made)),
            Self::Http(http) => {
                let sent = pin!(http.send(parts, body, upload)).await;
                // The upload's own fault ends the connection too, and is the
                // cause then.
                sent.map(|answer| answer.map(AnswerBody::Wire)).map_err(|error| {
                    upload
                        .and_then(|upload| upload.fault())
                        .map_or_else(|| error.into(), Into::into)
                })
            }
        }
    }
}

impl HttpUpstream {
    fn new(url: &str, config: &UpstreamConfig) -> Result<Self, BadUrl> {
        let url: Uri = url.parse().map_err(|_| BadUrl)?;
        let Some(authority) = url.authority() else {
            return Err(BadUrl);
        };
        if !matches!(url.scheme_str(), Some("http" | "https"))
            || url.path() != "/"
            || url.query().is_some()
            || authority.as_str().contains('@')
        {
            return Err(BadUrl);
        }
        let authorization = config.basic_auth.as_ref().map(|(user, password)| {
            let pair = format!("{user}:{}", password.expose_secret());
            let value = format!("Basic {}", BASE64_STANDARD.encode(pair));
            let mut value = HeaderValue::try_from(value).expect("base64 is ASCII");
            value.set_sensitive(true);
            value
        });
        let connector = Connector::new(config.connect_timeout, config.verify_tls);
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| BadUrl)?;
        Ok(Self {
            pool: Pool::new(connector, url, config.pool_idle),
            host,
            authorization,
            first_byte: Timeouts::new(config.first_byte_timeout),
        })
    }

    async fn send(
        &self,
        parts: &mut Parts,
        body: RequestBody,
        upload: Option<&Arc<Progress>>,
    ) -> Result<Response<PooledBody>, UpstreamError> {
        let mut answer = pin!(self.pool.send(parts, body, upload));
        let mut timeout = self.first_byte.begin(Instant::now());
        loop {
            tokio::select! {
                biased;
                answer = &mut answer => {
                    let answer = answer?;
                    // The request did not ask for another protocol.
                    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                        return Err(UpstreamError::BadAnswer);
                    }
                    return Ok(answer);
                }
                () = &mut timeout => {
                    // An upstream need not answer while it is still being told
                    // the question.
                    let moved = upload.is_some_and(|upload| timeout.begin_at(upload.last_move()));
                    if !moved {
                        return Err(UpstreamError::Timeout);
                    }
                }
            }
        }
    }
}

/// The body of an upstream's answer.
#[derive(Debug)]
pub enum AnswerBody {
    Wire(PooledBody),
    /// The echo's.
    Made(Full<Bytes>),
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Wire(body) => Pin::new(body).poll_frame(cx),
            Self::Made(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|next| next.map(|frame| frame.map_err(|never| match never {}))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Wire(body) => body.is_end_stream(),
            Self::Made(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Wire(body) => body.size_hint(),
            Self::Made(body) => body.size_hint(),
        }
    }
}
