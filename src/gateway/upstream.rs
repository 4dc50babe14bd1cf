//! The far side: an upstream's targets as one worker reaches them, and what may
//! go wrong.
//!
//! A request is sent at most once. It is tried again only where it cannot have
//! been seen: the connection was never made (one extra attempt, at another
//! target if there is one, and within a budget), or a pooled connection turned
//! out dead before a byte of it was written ([`super::pool`]). Anything else is
//! an error to the client, since a second delivery may charge twice.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, Uri, header, request::Parts};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use secrecy::ExposeSecret;
use tokio::time::Instant;

use super::{
    connect::{Network, Stream},
    echo,
    error::{SendError, UpstreamError},
    framing,
    lease::{AnswerFault, Lease, PooledBody, Received, Sent},
    pool::Pool,
    timer::Timeouts,
    upload::{Progress, RequestBody},
};
use crate::{
    config::{BasicAuth, HostHeader, UpstreamConfig},
    services::upstreams::{FailureKind, InFlight, TargetState, Unavailable, UpstreamState},
};

/// How often a request that was handed back unsent is tried on another
/// connection. Each time one dead connection is found, so this is a bound for
/// upstreams that close every connection at once.
const HANDED_BACK: usize = 8;

/// One upstream, as one worker reaches it.
pub struct Upstream {
    pub config: Arc<UpstreamConfig>,
    pub state: Arc<UpstreamState>,
    /// As the state has them. Empty: the built-in echo answers.
    targets: Vec<Target>,
    authorization: Option<HeaderValue>,
    first_byte: Timeouts,
}

/// One server behind the gateway.
struct Target {
    pool: Pool,
    host: HeaderValue,
}

/// The target that takes a request; counted there while this lives.
pub struct Picked {
    at: usize,
    in_flight: InFlight,
}

impl Picked {
    pub fn in_flight(&mut self) -> &mut InFlight {
        &mut self.in_flight
    }

    /// What the status says of the target.
    pub fn answered(&mut self, status: StatusCode) {
        if is_gateways(status) {
            self.in_flight.failed(FailureKind::Status);
        } else {
            self.in_flight.succeeded();
        }
    }

    pub fn into_in_flight(self) -> InFlight {
        self.in_flight
    }
}

impl Upstream {
    /// Must be called within the runtime that will serve the requests: the pools
    /// of connections belong to it.
    pub fn new(state: &Arc<UpstreamState>) -> Self {
        let config = Arc::clone(&state.config);
        let authorization = Self::basic(&config);
        let network = Network::new(state);
        let target = |target| Target::new(target, &network, &config);
        let targets = state.targets.iter().map(target).collect();
        let first_byte = Timeouts::new(config.first_byte_timeout);
        Self { config, state: Arc::clone(state), targets, authorization, first_byte }
    }

    /// Which of its targets takes the next request; `None` for the echo.
    pub fn pick(&self) -> Result<Option<Picked>, UpstreamError> {
        if self.targets.is_empty() {
            return Ok(None);
        }
        match self.state.pick(None) {
            Ok((at, in_flight)) => Ok(Some(Picked { at, in_flight })),
            Err(Unavailable(wait)) => Err(UpstreamError::Unavailable(wait)),
        }
    }

    /// What `Host` is to be, where the client asked for `asked`.
    pub fn host<'a>(
        &'a self,
        picked: Option<&Picked>,
        asked: Option<&'a HeaderValue>,
    ) -> &'a HeaderValue {
        static ECHO: HeaderValue = HeaderValue::from_static("echo.invalid");
        let own = picked.map_or(&ECHO, |picked| &self.targets[picked.at].host);
        match (&self.config.host, asked) {
            (HostHeader::Client, Some(asked)) => asked,
            _ => own,
        }
    }

    /// What `Host` is where no client asks.
    pub fn own_host(config: &UpstreamConfig, target: &Uri) -> HeaderValue {
        let host = match &config.host {
            HostHeader::Fixed(host) => host,
            HostHeader::Client | HostHeader::Target => {
                target.authority().expect("the configuration checked it").as_str()
            }
        };
        HeaderValue::from_str(host).expect("the configuration checked it")
    }

    /// The upstream's own credential.
    pub fn basic(config: &UpstreamConfig) -> Option<HeaderValue> {
        let BasicAuth { user, password } = config.basic_auth.as_ref()?;
        let pair = format!("{user}:{}", password.expose_secret());
        let value = format!("Basic {}", BASE64_STANDARD.encode(pair));
        let mut value = HeaderValue::try_from(value).expect("base64 is ASCII");
        value.set_sensitive(true);
        Some(value)
    }

    pub fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }

    /// Sends a request whose URI is only path and query, and waits for the head
    /// of the answer. What is sent of `parts` is taken.
    pub async fn send(
        &self,
        picked: Option<Picked>,
        parts: &mut Parts,
        body: RequestBody,
        upload: Option<&Arc<Progress>>,
    ) -> Result<Response<AnswerBody>, SendError> {
        let Some(mut picked) = picked else {
            return Ok(Box::pin(echo::answer(parts, body)).await?.map(AnswerBody::Made));
        };
        let exchanged = pin!(self.exchange(&mut picked, parts, body, upload)).await;
        match exchanged {
            Ok((answer, lease)) => {
                picked.answered(answer.status());
                let in_flight = picked.into_in_flight();
                Ok(answer.map(|body| AnswerBody::Wire(PooledBody::new(body, lease, in_flight))))
            }
            // The upload's own fault ends the connection too, and is the cause
            // then; it says nothing of the target.
            Err(error) => {
                if let Some(fault) = upload.and_then(|upload| upload.fault()) {
                    return Err(fault.into());
                }
                if let Some(kind) = error.kind() {
                    picked.in_flight.failed(kind);
                }
                Err(error.into())
            }
        }
    }

    /// A connection of its own to one of the targets, for a protocol that takes
    /// it over: HTTP/1.1 is spoken first.
    pub async fn dial(&self, picked: &mut Picked) -> Result<Stream, UpstreamError> {
        let dialled = self.targets[picked.at].pool.dial(self.config.connect_timeout).await;
        if let Err(error) = &dialled
            && let Some(kind) = error.kind()
        {
            picked.in_flight.failed(kind);
        }
        dialled
    }

    async fn exchange(
        &self,
        picked: &mut Picked,
        parts: &mut Parts,
        mut body: RequestBody,
        upload: Option<&Arc<Progress>>,
    ) -> Result<(Response<Received>, Lease), UpstreamError> {
        let begun = Instant::now();
        let pool = &self.targets[picked.at].pool;
        let leased = pin!(pool.lease(self.first_limit(), begun)).await;
        let mut lease = match leased {
            Ok(lease) => lease,
            Err(error) => Box::pin(self.lease_elsewhere(picked, error, begun, parts)).await?,
        };
        let mut timeout = self.first_byte.begin(if lease.fresh { Instant::now() } else { begun });
        for _ in 0..HANDED_BACK {
            let sent = {
                let mut answer = pin!(lease.send(parts, body));
                loop {
                    tokio::select! {
                        biased;
                        sent = &mut answer => break Some(sent?),
                        () = &mut timeout => {
                            // An upstream need not answer while it is still being
                            // told the question.
                            let moved = upload.map(|upload| upload.last_move());
                            if !moved.is_some_and(|moved| timeout.begin_at(moved)) {
                                break None;
                            }
                        }
                    }
                }
            };
            match sent {
                // The request did not ask for another protocol.
                Some(Sent::Answer(answer))
                    if answer.status() == StatusCode::SWITCHING_PROTOCOLS =>
                {
                    return Err(UpstreamError::BadAnswer);
                }
                Some(Sent::Answer(mut answer)) => {
                    let status = answer.status();
                    if !framing::settle(status, answer.headers_mut()) {
                        return Err(UpstreamError::BadAnswer);
                    }
                    return Ok((answer, lease));
                }
                Some(Sent::Unsent(unsent)) => body = unsent,
                None => {
                    lease.retire();
                    return Err(UpstreamError::Timeout);
                }
            }
            let pool = &self.targets[picked.at].pool;
            let limit = self.config.connect_timeout;
            lease = Box::pin(pool.lease(limit, Instant::now())).await?;
        }
        Err(UpstreamError::Broken("every connection was closed before use".into()))
    }

    /// How long the first attempt to connect may take: where there is another
    /// target, it is to have its share.
    fn first_limit(&self) -> Duration {
        let limit = self.config.connect_timeout;
        if self.targets.len() > 1 { limit / 2 } else { limit }
    }

    /// A connection to another target, or to the same if it is the only one,
    /// since the first could not be made. Nothing was sent yet, so this is the
    /// one retry that is always safe.
    async fn lease_elsewhere(
        &self,
        picked: &mut Picked,
        error: UpstreamError,
        begun: Instant,
        parts: &mut Parts,
    ) -> Result<Lease, UpstreamError> {
        let left = self.config.connect_timeout.saturating_sub(begun.elapsed());
        let connecting = error.kind().filter(|kind| kind.is_connecting());
        let Some(kind) = connecting.filter(|_| !left.is_zero() && self.state.may_retry()) else {
            return Err(error);
        };
        let besides = (self.targets.len() > 1).then_some(picked.at);
        let Ok((at, in_flight)) = self.state.pick(besides) else { return Err(error) };
        let mut failed = std::mem::replace(picked, Picked { at, in_flight });
        failed.in_flight.failed(kind);
        if self.config.host == HostHeader::Target {
            parts.headers.insert(header::HOST, self.targets[at].host.clone());
        }
        self.targets[at].pool.lease(left, Instant::now()).await
    }
}

/// What a server says when it, or what it leans on, is not up to its work; 500
/// may be one request's own fault, and one caller could close the door to all.
fn is_gateways(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
    )
}

impl Target {
    fn new(state: &Arc<TargetState>, network: &Network, config: &UpstreamConfig) -> Self {
        let url: Uri = state.config.url.parse().expect("the configuration checked it");
        let host = Upstream::own_host(config, &url);
        Self { pool: Pool::new(state, network, &url, config), host }
    }
}

/// The body of an upstream's answer.
#[derive(Debug)]
pub enum AnswerBody {
    Wire(PooledBody),
    /// Of a connection that no other exchange uses; it counts as under way.
    Alone(Box<(Incoming, InFlight)>),
    /// The echo's.
    Made(Full<Bytes>),
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = AnswerFault;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, AnswerFault>>> {
        match self.get_mut() {
            Self::Wire(body) => Pin::new(body).poll_frame(cx),
            Self::Alone(alone) => Pin::new(&mut alone.0)
                .poll_frame(cx)
                .map(|next| next.map(|frame| frame.map_err(AnswerFault::Wire))),
            Self::Made(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|next| next.map(|frame| frame.map_err(|never| match never {}))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Wire(body) => body.is_end_stream(),
            Self::Alone(alone) => alone.0.is_end_stream(),
            Self::Made(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Wire(body) => body.size_hint(),
            Self::Alone(alone) => alone.0.size_hint(),
            Self::Made(body) => body.size_hint(),
        }
    }
}
