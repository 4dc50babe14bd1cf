//! A WebSocket through the gateway, from the request that asks for it to the
//! relay that runs while it is open.
//!
//! Nothing of the client's goes upstream before the upstream has switched
//! (RELIABILITY G-113): what the client sends early waits in the buffer of its
//! connection, and where the upstream answers otherwise that connection is
//! closed, so that those bytes are never read as a request either.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode,
    header::{CONNECTION, ORIGIN, UPGRADE},
    request::Parts,
};
use http_body_util::Empty;
use hyper::{
    body::Incoming,
    client::conn::http1,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, sleep_until, timeout};

use super::{
    AnswerBody, Arrival, Body, Gateway, GatewayError,
    answer::{self, Known},
    browser::{self, CrossSite},
    error::UpstreamError,
    metered::Meter,
    query::SocketQuery,
    rewrite::Plan,
    stream::Opener,
    tunnel::{
        ByFuture, Cause, Passed as Through, Policy, Refusal, frame::Side, frame::Sizes, handshake,
        relay,
    },
    upstream::Picked,
};
use crate::{
    config::UpstreamConfig,
    domain::{
        id::StreamId, kill::KillReason, origin::OriginHost, principal::Principal,
        stream::StreamKind, usage::Outcome,
    },
    server::ClientInfo,
    services::{
        LimitService,
        limits::{LimitError, Scope},
        room::Place,
        streams::{self, StreamHandle},
        upstreams::InFlight,
        usage::Slot,
    },
};

/// From the upstream's 101 until both connections are ours to relay between. A
/// client that is gone by then is not waited for longer (G-128).
const HAND_OVER: Duration = Duration::from_secs(10);

/// Runs while a socket is open; in place of the connection that it took over.
pub type Tunnel = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A request for a WebSocket, with the credentials that its query may hold.
pub struct Asked {
    key: handshake::Key,
    pub query: SocketQuery,
}

/// What is used up by opening a socket.
pub(super) struct Opening<'a> {
    pub asked: &'a Asked,
    pub picked: Picked,
    pub plan: Plan,
    pub meter: Meter<Slot>,
}

/// What became of it.
enum Opened {
    Open(Response<()>, Tunnel),
    /// The upstream would rather say something.
    Answered(Response<AnswerBody>, Box<Meter<Slot>>),
}

impl Asked {
    /// `None` where the request is a plain one, or sockets are not let through.
    pub fn of(parts: &mut Parts, config: &UpstreamConfig) -> Result<Option<Self>, GatewayError> {
        // The cheap question first: nearly no request has the field.
        if !parts.headers.contains_key(UPGRADE) || !config.takes_sockets() {
            return Ok(None);
        }
        let key = handshake::asked(&parts.method, parts.version, &parts.headers)?;
        let Some(key) = key else { return Ok(None) };
        let query = SocketQuery::take(&mut parts.uri);
        Ok(Some(Self { key, query }))
    }

    /// Whether a page may open it with a cookie. A browser asks nobody before it
    /// does, so the page's origin must be ours or known.
    pub fn check_origin(
        headers: &HeaderMap,
        config: &UpstreamConfig,
        client: &ClientInfo,
    ) -> Result<(), CrossSite> {
        let mut origins = headers.get_all(ORIGIN).iter();
        let (origin, second) = (origins.next(), origins.next());
        let listed = origin.filter(|_| second.is_none()).is_some_and(|origin| {
            config.origins.iter().any(|known| known.as_bytes() == origin.as_bytes())
        });
        let own = browser::has_own_origin(headers, client);
        if listed || own { Ok(()) } else { Err(CrossSite) }
    }
}

impl Gateway {
    /// The answer to a request for a socket; where that opens it, `tunnel` is
    /// what is to be run then.
    pub(super) async fn serve_socket(
        &self,
        parts: &mut Parts,
        arrival: &Arrival<'_>,
        opening: Opening<'_>,
        known: Known<'_>,
        (tunnel, place): (&mut Option<Tunnel>, &mut Option<Place>),
    ) -> Result<Response<Body>, GatewayError> {
        let Opening { asked, picked, plan, meter } = opening;
        match self.open_socket(parts, arrival, asked, picked, meter, known).await? {
            Opened::Open(answer, opened) => {
                *tunnel = Some(opened);
                // It is among the streams.
                *place = None;
                Ok(answer::switching(answer, plan, arrival))
            }
            Opened::Answered(answered, meter) => {
                let streams = &self.services.streams;
                Ok(answer::pass_on(answered, plan, *meter, arrival, known, streams, place)?)
            }
        }
    }

    /// Asks the upstream for it, over a connection of its own.
    async fn open_socket(
        &self,
        parts: &mut Parts,
        arrival: &Arrival<'_>,
        asked: &Asked,
        mut picked: Picked,
        mut meter: Meter<Slot>,
        known: Known<'_>,
    ) -> Result<Opened, GatewayError> {
        let upstream = arrival.route.upstream;
        let Known { opener, ends, .. } = known;
        let handle = match self.enter(arrival, &opener, &meter) {
            Ok(handle) => handle,
            Err(error) => {
                meter.set_status(match error {
                    GatewayError::TooManyStreams(_) => StatusCode::SERVICE_UNAVAILABLE,
                    _ => StatusCode::TOO_MANY_REQUESTS,
                });
                meter.finish(Outcome::Rejected);
                return Err(error);
            }
        };
        let client = parts.extensions.remove::<OnUpgrade>().ok_or(GatewayError::NoUpgrade)?;
        parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        let limit = upstream.config.first_byte_timeout;
        let asking = ask(upstream, &mut picked, parts);
        let answered = timeout(limit, asking).await.unwrap_or(Err(UpstreamError::Timeout));
        let mut answer = match answered {
            Ok(answer) => answer,
            Err(error) => {
                if let Some(kind) = error.kind() {
                    picked.in_flight().failed(kind);
                }
                meter.unanswered(error.status(), error.name());
                meter.finish(Outcome::Failed);
                return Err(error.into());
            }
        };
        picked.answered(answer.status());
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            let in_flight = picked.into_in_flight();
            let answer = answer.map(|body| AnswerBody::Alone(Box::new((body, in_flight))));
            return Ok(Opened::Answered(answer, Box::new(meter)));
        }
        if let Err(error) = handshake::check_answer(&asked.key, answer.status(), answer.headers()) {
            meter.unanswered(StatusCode::BAD_GATEWAY, "bad_answer");
            meter.finish(Outcome::Failed);
            return Err(UpstreamError::Broken(error.into()).into());
        }
        meter.set_status(StatusCode::SWITCHING_PROTOCOLS);
        let switched = hyper::upgrade::on(&mut answer);
        let socket = Socket { meter, handle, _in_flight: picked.into_in_flight() };
        let life = Instant::now() + upstream.config.stream_life;
        let sizes = Sizes {
            frame: upstream.config.websocket.max_frame_bytes,
            message: upstream.config.websocket.max_message_bytes,
        };
        let policy = Policy { idle: None, max_life: Some(life), sizes, ..Policy::default() };
        let toll = Toll {
            limits: Arc::clone(&self.services.limits),
            principal: opener.principal.cloned(),
            address: arrival.client.address,
            upstream: Arc::clone(&upstream.config),
            page: opener.page,
        };
        let tunnel = async move {
            let both = async { tokio::try_join!(client, switched) };
            if let Ok(Ok((client, upstream))) = timeout(HAND_OVER, both).await {
                socket.relay(client, upstream, policy, toll, ends).await;
            }
        };
        Ok(Opened::Open(answer.map(drop), Box::pin(tunnel)))
    }

    /// Enters the socket into the list, unless its opener has too many there, or
    /// there are too many in all.
    fn enter(
        &self,
        arrival: &Arrival<'_>,
        opener: &Opener<'_>,
        meter: &Meter<Slot>,
    ) -> Result<StreamHandle, GatewayError> {
        let config = &arrival.route.upstream.config;
        let registry = &self.services.streams;
        let record = meter.record().expect("it is not over yet");
        let handle = registry.enter(streams::Opening {
            id: StreamId::from(record.id.as_uuid()),
            kind: StreamKind::Websocket,
            principal: opener.principal.cloned(),
            upstream: Arc::clone(config),
            part: opener.part,
            path: record.path.clone(),
            address: arrival.client.address,
            origin: opener.origin.and_then(|origin| origin.to_str().ok()).map(Box::from),
            opened_at: record.at,
        })?;
        // Itself among them.
        if registry.sockets_like(&handle) > config.websocket.per_credential {
            return Err(GatewayError::TooManySockets);
        }
        Ok(handle)
    }
}

async fn ask(
    upstream: &super::Upstream,
    picked: &mut Picked,
    parts: &Parts,
) -> Result<Response<Incoming>, UpstreamError> {
    let stream = upstream.dial(picked).await?;
    let broken = |error: hyper::Error| UpstreamError::Broken(error.into());
    let (mut sender, connection) =
        http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await.map_err(broken)?;
    // What ends the connection is seen by whoever uses it.
    tokio::spawn(async move { drop(connection.with_upgrades().await) });
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = parts.uri.clone();
    *request.headers_mut() = parts.headers.clone();
    sender.send_request(request).await.map_err(broken)
}

/// Charges the client's messages to the limits that its request was under.
struct Toll {
    limits: Arc<LimitService>,
    principal: Option<Principal>,
    address: std::net::IpAddr,
    upstream: Arc<UpstreamConfig>,
    page: Option<OriginHost>,
}

impl Toll {
    fn charge(&self) -> impl Future<Output = Result<(), Refusal>> + Send + use<> {
        let Self { limits, principal, address, upstream, page } = self;
        let (limits, upstream) = (Arc::clone(limits), Arc::clone(upstream));
        let (principal, address, origin) = (principal.clone(), *address, *page);
        async move {
            let principal = principal.as_ref();
            let scope = Scope { principal, address, upstream: &upstream, origin };
            match limits.admit(scope, 1).await {
                Ok(_) => Ok(()),
                Err(LimitError::Exceeded(_)) => Err(Refusal::OverLimit),
                Err(LimitError::Store(_)) => Err(Refusal::Unavailable),
            }
        }
    }
}

/// An open socket. However its tunnel ends, dropped in the middle too, it is
/// recorded with what went through.
struct Socket {
    meter: Meter<Slot>,
    handle: StreamHandle,
    _in_flight: InFlight,
}

impl Socket {
    async fn relay(
        mut self,
        client: Upgraded,
        upstream: Upgraded,
        policy: Policy,
        toll: Toll,
        ends: Option<Instant>,
    ) {
        let handle = &self.handle;
        let count = |side: Side, so_far: Through| {
            let Through { messages, bytes } = so_far;
            let mut passed = handle.passed();
            match side {
                Side::Client => (passed.messages_in, passed.bytes_in) = (messages, bytes),
                Side::Upstream => (passed.messages_out, passed.bytes_out) = (messages, bytes),
            }
            handle.set_passed(passed);
        };
        let mut gate = ByFuture::new(|| toll.charge(), count);
        let (client, upstream) = (TokioIo::new(client), TokioIo::new(upstream));
        let ended = {
            let mut relaying = pin!(relay(client, upstream, &policy, &mut gate, handle.kill()));
            match ends {
                None => relaying.await,
                // The very instant; the sweep over all streams comes a little later.
                Some(at) => tokio::select! {
                    ended = &mut relaying => ended,
                    () = sleep_until(at) => {
                        handle.kill().trip(KillReason::Expired);
                        relaying.await
                    }
                },
            }
        };
        let (outcome, why) = told_as(ended.cause);
        self.handle.ended(why);
        self.settle();
        self.meter.finish(outcome);
    }

    fn settle(&mut self) {
        self.meter.tunnelled(&self.handle.passed());
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.settle();
    }
}

/// How an ending is recorded, and what the metric calls it.
fn told_as(cause: Cause) -> (Outcome, &'static str) {
    match cause {
        Cause::Closed(_) => (Outcome::Completed, "closed"),
        Cause::Gone(Side::Client) => (Outcome::Aborted, "aborted"),
        Cause::Gone(Side::Upstream) | Cause::Fault(Side::Upstream, _) => {
            (Outcome::Failed, "upstream")
        }
        Cause::Stalled(Side::Upstream) => (Outcome::Failed, "upstream"),
        Cause::Killed(reason) => (Outcome::Cut, reason.code()),
        Cause::Silent | Cause::Idle => (Outcome::Cut, "idle"),
        Cause::TooOld => (Outcome::Cut, "open_too_long"),
        Cause::Stalled(Side::Client) => (Outcome::Cut, "too_slow"),
        Cause::Fault(Side::Client, _) | Cause::Chatter => (Outcome::Cut, "protocol"),
        Cause::Refused(_) => (Outcome::Cut, "limit"),
    }
}
