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
use crate::{
    config::{HostHeader, UpstreamConfig},
    services::upstreams::{TargetState, UpstreamState},
};

/// One upstream, as one worker reaches it.
pub struct Upstream {
    pub config: Arc<UpstreamConfig>,
    /// Empty: the built-in echo answers.
    targets: Vec<Target>,
    authorization: Option<HeaderValue>,
    first_byte: Timeouts,
}

/// One server behind the gateway.
pub struct Target {
    state: Arc<TargetState>,
    pool: Pool,
    host: HeaderValue,
}

impl Upstream {
    /// Must be called within the runtime that will serve the requests: the pools
    /// of connections belong to it.
    pub fn new(state: &UpstreamState) -> Self {
        let config = Arc::clone(&state.config);
        let authorization = config.basic_auth.as_ref().map(|(user, password)| {
            let pair = format!("{user}:{}", password.expose_secret());
            let value = format!("Basic {}", BASE64_STANDARD.encode(pair));
            let mut value = HeaderValue::try_from(value).expect("base64 is ASCII");
            value.set_sensitive(true);
            value
        });
        let targets = state.targets.iter().map(|target| Target::new(target, &config)).collect();
        let first_byte = Timeouts::new(config.first_byte_timeout);
        Self { config, targets, authorization, first_byte }
    }

    /// Which of its targets takes the next request; `None` for the echo.
    pub fn choose(&self) -> Option<&Target> {
        self.targets.iter().min_by_key(|target| target.state.in_flight())
    }

    /// What `Host` is to be, where the client asked for `asked`.
    pub fn host(&self, target: Option<&Target>, asked: Option<&HeaderValue>) -> HeaderValue {
        static ECHO: HeaderValue = HeaderValue::from_static("echo.invalid");
        let own = target.map_or(&ECHO, |target| &target.host);
        match (&self.config.host, asked) {
            (HostHeader::Fixed(host), _) => {
                HeaderValue::from_str(host).expect("the configuration checked it")
            }
            (HostHeader::Client, Some(asked)) => asked.clone(),
            (HostHeader::Client | HostHeader::Target, _) => own.clone(),
        }
    }

    pub fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }

    /// Sends a request whose URI is only path and query, and waits for the head
    /// of the answer. What is sent of `parts` is taken.
    pub async fn send(
        &self,
        target: Option<&Target>,
        parts: &mut Parts,
        body: RequestBody,
        upload: Option<&Arc<Progress>>,
    ) -> Result<Response<AnswerBody>, SendError> {
        let Some(target) = target else {
            return Ok(Box::pin(echo::answer(parts, body)).await?.map(AnswerBody::Made));
        };
        let in_flight = target.state.enter();
        match pin!(self.exchange(target, parts, body, upload)).await {
            Ok(answer) => Ok(answer.map(|body| AnswerBody::Wire(body.counted(in_flight)))),
            // The upload's own fault ends the connection too, and is the cause
            // then.
            Err(error) => Err(upload
                .and_then(|upload| upload.fault())
                .map_or_else(|| error.into(), Into::into)),
        }
    }

    async fn exchange(
        &self,
        target: &Target,
        parts: &mut Parts,
        body: RequestBody,
        upload: Option<&Arc<Progress>>,
    ) -> Result<Response<PooledBody>, UpstreamError> {
        let mut answer = pin!(target.pool.send(parts, body, upload));
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

impl Target {
    fn new(state: &Arc<TargetState>, config: &UpstreamConfig) -> Self {
        let url: Uri = state.config.url.parse().expect("the configuration checked it");
        let authority = url.authority().expect("the configuration checked it").as_str();
        let host = HeaderValue::from_str(authority).expect("an authority is ASCII");
        let connector = Connector::new(config.connect_timeout, config.tls.verify);
        let pool = Pool::new(connector, url, config.pool_idle);
        Self { state: Arc::clone(state), pool, host }
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
