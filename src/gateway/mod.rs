//! The proxied request, step by step.
//!
//! Read [`Gateway::serve`] first: it is the whole pipeline, in order. What one step learns and a later one needs is a value that is passed
//! on, never an untyped request extension. One [`Gateway`] belongs to one
//! worker, since its pool of upstream connections does; services are shared.
//!
//! No body of an error is made here: a [`GatewayError`] says what happened, and
//! the API's error module says how that looks. Upgrades (WebSocket), several
//! upstreams and rewriting are not built; an upgrade is treated as the plain
//! request that it also is.

mod connector;
pub mod credentials;
mod echo;
mod error;
mod headers;
mod identity;
mod memo;
mod metered;
pub mod path;
mod pool;
pub mod query;
pub mod rate_headers;
pub mod rewrite;
mod route;
mod timer;
pub mod upload;
mod upstream;

use std::{borrow::Cow, pin::pin};

use chrono::{DateTime, Utc};
use http::{HeaderMap, Method, Response, StatusCode, Version, header, request::Parts};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::Instant;

pub use self::{
    error::{GatewayError, SendError, UpstreamError},
    headers::{X_REQUEST_ID, is_reserved},
    metered::{AnswerBroken, CLIENT_CLOSED_REQUEST, Sink},
    route::{Places, Route, path_and_query},
    upload::UploadFault,
    upstream::{AnswerBody, BadUrl, Upstream},
};
use self::{
    headers::Ours,
    metered::{Meter, Metered},
    timer::StallTimer,
    upload::{Progress, UploadLimits},
};
use crate::{
    config::{ServerConfig, UpstreamAuth, UpstreamConfig},
    domain::{
        id::RecordId,
        limit::TierState,
        pass::Pass,
        principal::Principal,
        text,
        token::TokenHash,
        usage::{Outcome, UsageRecord},
    },
    server::client::{ClientInfo, new_uuid},
    services::{Services, access::AccessError, health::Phase, limits::LimitError, usage::Slot},
};

/// An answer of known length above this counts as a stream: it has no total
/// time limit, since it may take as long as the client's line needs. Bytes.
const LONG_ANSWER: u64 = 1024 * 1024;
/// Characters of a path that are recorded.
const RECORDED_PATH: usize = 512;

/// The body of a proxied answer.
pub type Body = Metered<AnswerBody, Slot>;

impl Sink for Slot {
    fn record(self, record: UsageRecord) {
        Self::record(self, record);
    }
}

pub struct Gateway {
    services: Services,
    upstream: Upstream,
    config: UpstreamConfig,
    uploads: UploadLimits,
}

/// What the server knows about a request before the gateway sees it.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    pub client: &'a ClientInfo,
    /// The whole canonical path, for the record.
    pub path: &'a str,
    pub route: Route<'a>,
    pub at: DateTime<Utc>,
    pub started: Instant,
}

/// What an answer needs to know of who asked.
#[derive(Clone, Copy)]
struct Known {
    authenticated: bool,
    /// When the time of the pass that opened the door is over.
    ends: Option<Instant>,
}

/// What is known about a request however it ended.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub principal: Option<Principal>,
    /// Belongs on the answer, whatever that is.
    pub limit: Option<TierState>,
}

impl Gateway {
    /// Must be called within the worker's runtime (see [`Upstream::new`]).
    pub fn new(
        services: Services,
        config: UpstreamConfig,
        server: &ServerConfig,
    ) -> Result<Self, BadUrl> {
        let upstream = Upstream::new(&config)?;
        let uploads = UploadLimits { max_bytes: config.max_body_bytes, idle: server.io_timeout };
        Ok(Self { services, upstream, config, uploads })
    }

    /// The upstream's name in keys, records and logs.
    pub fn upstream_name(&self) -> &'static str {
        self.config.name()
    }

    /// Answers, or says why not; `seen` is filled in on the way. Much of `parts`
    /// is used up.
    ///
    /// Large values are borrowed and not handed from one future to the next: a
    /// future holds its own copy of each, and is moved with it. Futures are pinned
    /// where they are made for the same reason.
    pub async fn serve(
        &self,
        parts: &mut Parts,
        body: Incoming,
        arrival: &Arrival<'_>,
        seen: &mut Seen,
    ) -> Result<Response<Body>, GatewayError> {
        if self.services.health.phase() == Phase::Starting {
            return Err(GatewayError::Starting);
        }
        seen.principal = pin!(self.prove(&parts.headers)).await?;
        let principal = seen.principal.as_ref();
        self.check_policy(principal, arrival.client, &parts.headers)?;
        let (mut body, upload) =
            upload::limited(&parts.headers, body, self.uploads, arrival.started)?;
        // The record's place first: a full recorder refuses work instead of
        // serving it unmetered, and what it refuses must not be charged.
        let slot = self.services.usage.recorder().reserve()?;
        pin!(self.admit(principal, arrival, &parts.method, &mut seen.limit)).await?;
        // Only now: what is refused must not begin the time that was paid for.
        let ends = pin!(self.begin(principal, &parts.headers)).await?;
        body.end_at(ends);
        let record = self.record(principal, arrival, &parts.method);
        let mut meter = Meter::new(slot, record, arrival.started, upload.clone());

        parts.uri = arrival.route.uri(&parts.uri);
        headers::rewrite_request(
            &mut parts.headers,
            &Ours {
                client: arrival.client,
                principal,
                prefix: arrival.route.prefix(),
                host: self.upstream.host(),
                authorization: self.upstream.authorization(),
                version: parts.version,
            },
        );

        let sent = pin!(self.upstream.send(parts, body, upload.as_ref())).await;
        let answer = match sent {
            Ok(answer) => {
                self.services.health.saw_upstream(true);
                answer
            }
            Err(error) => {
                if let SendError::Upstream(_) = &error {
                    self.services.health.saw_upstream(false);
                }
                meter.set_status(error.status());
                meter.finish(Outcome::Failed);
                return Err(error.into());
            }
        };
        let known = Known { authenticated: principal.is_some(), ends };
        Ok(self.pass_on(answer, meter, arrival, known, upload.as_deref()))
    }

    /// Who is asking. Everything that is presented must be good, also where
    /// nothing would be required; a public upstream looks at nothing.
    async fn prove(&self, headers: &HeaderMap) -> Result<Option<Principal>, GatewayError> {
        if self.config.auth == UpstreamAuth::Public {
            return Ok(None);
        }
        let found = credentials::read(headers)?;
        let principal = pin!(found.prove(&self.services.access)).await?;
        if principal.is_none() && self.config.auth == UpstreamAuth::Required {
            return Err(GatewayError::CredentialRequired);
        }
        Ok(principal)
    }

    /// When the time of the pass that opens the door is over. It begins now
    /// unless it has before.
    async fn begin(
        &self,
        principal: Option<&Principal>,
        headers: &HeaderMap,
    ) -> Result<Option<Instant>, GatewayError> {
        let Some(pass) = principal.and_then(Principal::pass) else { return Ok(None) };
        let end = match pass.expires_at() {
            Some(end) => end,
            // Boxed, since it happens once.
            None => Box::pin(self.activate(pass, headers)).await?,
        };
        Ok(Some(self.instant_of(end)))
    }

    /// Begins the time of a pass; when it will be over.
    async fn activate(
        &self,
        pass: &Pass,
        headers: &HeaderMap,
    ) -> Result<DateTime<Utc>, GatewayError> {
        let text = credentials::read(headers)?.access_token;
        let hash = text.and_then(TokenHash::of_pass).ok_or(AccessError::Invalid)?;
        let begun = self.services.passes.activate(&hash, pass.id).await?;
        // `None`: it was ended since we looked.
        Ok(begun.and_then(|pass| pass.expires_at()).ok_or(AccessError::Invalid)?)
    }

    /// Whether a good key or pass may be used from here and for this upstream.
    fn check_policy(
        &self,
        principal: Option<&Principal>,
        client: &ClientInfo,
        headers: &HeaderMap,
    ) -> Result<(), GatewayError> {
        if principal.and_then(Principal::pass).is_some_and(|pass| !pass.opens(self.config.name())) {
            return Err(GatewayError::PassRefused);
        }
        let Some(key) = principal.and_then(Principal::key) else { return Ok(()) };
        let origin = headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok());
        key.check_place(client.address, origin)
            .and_then(|()| key.check_upstream(self.config.name()))
            .map_err(GatewayError::KeyRefused)
    }

    async fn admit(
        &self,
        principal: Option<&Principal>,
        arrival: &Arrival<'_>,
        method: &Method,
        seen: &mut Option<TierState>,
    ) -> Result<(), GatewayError> {
        let admitted = self.services.limits.admit(principal, arrival.client.address, 1).await;
        if let Err(LimitError::Exceeded(state)) = &admitted {
            *seen = Some(*state);
            let mut record = self.record(principal, arrival, method);
            record.status = StatusCode::TOO_MANY_REQUESTS.as_u16();
            record.outcome = Outcome::Rejected;
            record.duration_us = elapsed_us(arrival.started);
            self.services.usage.record_unreserved(record);
        }
        *seen = admitted?;
        Ok(())
    }

    /// What is known before the answer; as it stands, the record of a request
    /// whose client left.
    fn record(
        &self,
        principal: Option<&Principal>,
        arrival: &Arrival<'_>,
        method: &Method,
    ) -> UsageRecord {
        let request_id = &arrival.client.request_id;
        UsageRecord {
            // One that a client made up is not used: it may come twice.
            id: RecordId::from(request_id.uuid().unwrap_or_else(|| new_uuid(arrival.at))),
            request_id: (**request_id).to_owned(),
            at: arrival.at,
            method: name_of(method),
            path: text::clean(arrival.path, RECORDED_PATH),
            status: CLIENT_CLOSED_REQUEST,
            outcome: Outcome::Aborted,
            duration_us: 0,
            bytes_in: 0,
            bytes_out: 0,
            user_id: principal.map(Principal::user_id),
            key_id: principal.and_then(Principal::key_id),
            upstream: Cow::Borrowed(self.config.name()),
        }
    }

    fn pass_on(
        &self,
        answer: Response<AnswerBody>,
        mut meter: Meter<Slot>,
        arrival: &Arrival<'_>,
        known: Known,
        upload: Option<&Progress>,
    ) -> Response<Body> {
        let (mut parts, body) = answer.into_parts();
        meter.set_status(parts.status);
        let stream = is_stream(&parts.headers, &body);
        let deadline = (!stream).then(|| {
            let begin = upload.map_or(arrival.started, Progress::last_move);
            begin + self.config.total_timeout
        });
        // A short answer to a request that was let in is given whole.
        let ends = known.ends.filter(|_| stream);
        headers::rewrite_response(&mut parts.headers, arrival.client, known.authenticated);
        parts.version = Version::HTTP_11;
        let timer = StallTimer::new(self.config.idle_timeout, deadline.or(ends));
        Response::from_parts(parts, Metered::new(body, meter, timer).until(ends))
    }

    /// When our clock will show `at`; now if it has.
    fn instant_of(&self, at: DateTime<Utc>) -> Instant {
        let left = (at - self.services.clock.now()).to_std().unwrap_or_default();
        Instant::now() + left
    }
}

/// Whether an answer may go on for as long as something moves: an event stream,
/// one of unknown length, or a long one.
fn is_stream(headers: &HeaderMap, body: &AnswerBody) -> bool {
    let events = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    events || body.size_hint().exact().is_none_or(|length| length > LONG_ANSWER)
}

/// The usual ones need no allocation.
fn name_of(method: &Method) -> Cow<'static, str> {
    const USUAL: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];
    let name = method.as_str();
    let usual = USUAL.into_iter().find(|usual| *usual == name);
    usual.map_or_else(|| Cow::Owned(name.to_owned()), Cow::Borrowed)
}

fn elapsed_us(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
