//! The proxied request, step by step.
//!
//! Read [`Gateway::serve`] first: it is the whole pipeline, in order. What one step learns and a later one needs is a value that is passed
//! on, never an untyped request extension. One [`Gateway`] belongs to one
//! worker, since its pool of upstream connections does; services are shared.
//!
//! No body of an error is made here: a [`GatewayError`] says what happened, and
//! the API's error module says how that looks.

mod admission;
mod answer;
mod assertion;
pub mod browser;
mod calls;
mod carrier;
mod checkup;
mod collector;
mod connect;
pub mod cookies;
pub mod credentials;
mod demo;
mod echo;
mod error;
mod escort;
mod events;
pub mod forward;
mod framing;
mod headers;
mod http1;
mod http2;
mod identity;
mod lease;
mod memo;
mod metered;
pub mod next;
mod pace;
pub mod path;
mod pool;
mod progress;
mod proof;
pub mod query;
pub mod rate_headers;
mod record;
pub mod rewrite;
mod route;
mod scope;
pub mod socket;
mod stream;
mod tether;
mod timer;
pub mod tunnel;
pub mod upload;
mod upstream;
mod webhook;

use std::{pin::pin, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use chrono::{DateTime, Utc};
use http::{Method, Response, StatusCode, request::Parts};
use hyper::body::Incoming;
use tokio::time::Instant;

use self::{
    admission::{activate, check_method, part_of},
    answer::Known,
    escort::Escorted,
    headers::Ours,
    metered::{Meter, Metered},
    record::{elapsed_us, record},
    rewrite::{Names, Plan, Rewritten},
    scope::{page_of, scope_of},
    socket::Asked,
    stream::{MOMENT, Opener, origin_of},
    timer::Timeouts,
    upload::UploadLimits,
};
pub use self::{
    checkup::Checkup,
    collector::CollectorClient,
    connect::{client_config, trusted},
    demo::DemoWorkflow,
    error::{GatewayError, SendError, UpstreamError},
    headers::{X_REQUEST_ID, is_ours_to_set, is_reserved},
    metered::{AnswerBroken, CLIENT_CLOSED_REQUEST, Sink},
    route::{Route, Table, path_and_query},
    socket::Tunnel,
    stream::End,
    tether::{TOO_SLOW, Tether},
    upload::UploadFault,
    upstream::{AnswerBody, Upstream},
    webhook::WebhookClient,
};
use crate::{
    config::ServerConfig,
    domain::{
        limit::TierState,
        origin::OriginHost,
        principal::Principal,
        usage::{Outcome, UsageRecord},
    },
    server::client::ClientInfo,
    services::{
        Services,
        health::Phase,
        limits::{LimitError, Permit, Scope},
        room::Place,
        usage::Slot,
    },
};

/// The body of a proxied answer.
pub type Body = Metered<Rewritten<AnswerBody>, Slot>;

impl Sink for Slot {
    fn record(self, record: UsageRecord, messages: u64) {
        Self::record(self, record, messages);
    }
}

pub struct Gateway {
    services: Services,
    /// Made anew when the settings were read again.
    table: ArcSwap<Table>,
    io_timeout: Duration,
    /// After it an upload is looked after.
    moment: Timeouts,
}

/// What the server knows about a request before the gateway sees it.
#[derive(Clone, Copy)]
pub struct Arrival<'a> {
    pub client: &'a ClientInfo,
    /// The whole canonical path, for the record.
    pub path: &'a str,
    pub route: Route<'a>,
    pub at: DateTime<Utc>,
    pub started: Instant,
}

/// What is known about a request however it ended.
#[derive(Default)]
pub struct Seen {
    pub principal: Option<Principal>,
    /// Belongs on the answer, whatever that is.
    pub limit: Option<TierState>,
    /// Of the page that sends it, where that is counted.
    pub origin: Option<OriginHost>,
    /// To be run in place of the connection, once the answer was sent.
    pub tunnel: Option<Tunnel>,
    /// Among the requests under way; none once it is a stream.
    pub place: Option<Place>,
    /// What becomes of its body, if it has one.
    pub upload: Option<Arc<upload::Progress>>,
}

impl Gateway {
    pub fn new(services: Services, server: &ServerConfig) -> Self {
        let (io_timeout, moment) = (server.io_timeout, Timeouts::new(MOMENT));
        Self { services, table: ArcSwap::default(), io_timeout, moment }
    }

    /// The upstreams in force. Must be called within the worker's runtime (see
    /// [`Upstream::new`]).
    pub fn table(&self) -> Arc<Table> {
        let table = self.table.load_full();
        if table.generation == self.services.upstreams.generation() {
            return table;
        }
        let directory = self.services.upstreams.current();
        // What stays as it is keeps its connections.
        let upstream = |state| table.of(state).unwrap_or_else(|| Arc::new(Upstream::new(state)));
        let table =
            Arc::new(Table::new(directory.generation, directory.upstreams.iter().map(upstream)));
        self.table.store(Arc::clone(&table));
        table
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
        let upstream = arrival.route.upstream;
        let part = part_of(&upstream.config, arrival.route.path)?;
        let policy = upstream.config.policy_at(part);
        check_method(policy, &parts.method, &parts.headers)?;
        let asked = Asked::of(parts, &upstream.config)?;
        seen.origin = page_of(&self.services, &parts.headers);
        let identifying =
            self.identify(policy, parts, arrival, asked.as_ref(), &mut seen.principal);
        let identified = pin!(identifying).await;
        let renewed = match identified {
            Err(refusal) if asked.is_some() => {
                let refusing = self.refuse_socket(refusal, arrival, &parts.method, seen);
                return Err(Box::pin(refusing).await);
            }
            identified => identified?,
        };
        let principal = seen.principal.as_ref();
        let scope = scope_of(principal, arrival, seen.origin);
        let limits =
            UploadLimits { max_bytes: upstream.config.max_body_bytes, idle: self.io_timeout };
        let (mut body, upload) = upload::limited(&parts.headers, body, limits, arrival.started)?;
        seen.upload.clone_from(&upload);
        // The record's place first: a full recorder refuses work instead of
        // serving it unmetered, and what it refuses must not be charged.
        let slot = self.services.usage.journal().reserve()?;
        let permit = pin!(self.take_place(scope, arrival, &parts.method)).await?;
        pin!(self.admit(scope, arrival, &parts.method, &mut seen.limit)).await?;
        let mut picked = match upstream.pick() {
            Ok(picked) => picked,
            Err(error) => {
                let record = record(principal, arrival, &parts.method);
                let mut meter = Meter::new(slot, record, arrival.started, None);
                meter.set_status(error.status());
                meter.finish(Outcome::Failed);
                return Err(error.into());
            }
        };
        // Only now: what is refused must not begin the time that was paid for.
        let ends = pin!(self.begin(principal)).await?;
        body.end_at(ends);
        let record = record(principal, arrival, &parts.method);
        let mut meter = Meter::new(slot, record, arrival.started, upload.clone()).holding(permit);

        let host = upstream.host(picked.as_ref(), arrival.client.said_host());
        let (asking, onward) = calls::ask(arrival, &parts.method, host);
        meter.asking(asking);
        let origin = origin_of(principal, &parts.headers);
        parts.uri = arrival.route.uri(&parts.uri);
        headers::rewrite_request(
            &mut parts.headers,
            Ours {
                client: arrival.client,
                principal,
                prefix: arrival.route.prefix(),
                host,
                onward,
                authorization: upstream.authorization(),
                version: parts.version,
                changes: &upstream.config.request_headers,
            },
        );
        credentials::limit_cookies(&mut parts.headers, upstream.config.max_cookie_bytes);
        if let Some(principal) = principal.filter(|_| upstream.config.assertion) {
            let (keyring, upstream) = (&self.services.keyring, upstream.config.name);
            assertion::set(&mut parts.headers, keyring, principal, upstream, arrival.at);
        }

        let (names, path) = (Names::of(arrival), arrival.route.path);
        let plan = Plan::for_request(names, &parts.method, path, &mut parts.headers);
        let opener = Opener { principal, part, origin: origin.as_ref(), page: seen.origin };
        if let (Some(asked), Some(picked)) = (&asked, picked.take_if(|_| asked.is_some())) {
            let known = Known { opener, ends, upload: None };
            let opening = socket::Opening { asked, picked, plan, meter };
            let taken = (&mut seen.tunnel, &mut seen.place);
            return Box::pin(self.serve_socket(parts, arrival, opening, known, taken)).await;
        }
        let mut sending = pin!(upstream.send(picked, parts, body, upload.as_ref()));
        let sent = match &upload {
            None => sending.await,
            Some(upload) => {
                let of = Escorted { upload, opener, arrival, meter: &meter };
                Box::pin(self.escort(sending.as_mut(), of, &mut seen.place)).await
            }
        };
        let answered = match sent {
            Ok(answer) => answer,
            Err(error) => {
                meter.unanswered(error.status(), error.name());
                meter.finish(error.outcome());
                return Err(error.into());
            }
        };
        let known = Known { opener, ends, upload: upload.as_ref() };
        let (streams, place) = (&self.services.streams, &mut seen.place);
        let mut answer = answer::pass_on(answered, plan, meter, arrival, known, streams, place)?;
        if let Some(cookie) = renewed {
            browser::renew(answer.headers_mut(), &cookie, arrival.client);
        }
        Ok(answer)
    }

    /// Asking for a socket counts however it ends: who guesses is limited as who
    /// is let in (RELIABILITY G-124).
    async fn refuse_socket(
        &self,
        refusal: GatewayError,
        arrival: &Arrival<'_>,
        method: &Method,
        seen: &mut Seen,
    ) -> GatewayError {
        let Seen { principal, limit, origin, .. } = seen;
        let scope = scope_of(principal.as_ref(), arrival, *origin);
        let counted = self.admit(scope, arrival, method, limit).await;
        counted.err().unwrap_or(refusal)
    }

    /// When the time of the pass that opens the door is over. It begins now
    /// unless it has before.
    async fn begin(&self, principal: Option<&Principal>) -> Result<Option<Instant>, GatewayError> {
        let Some((principal, pass)) = principal.and_then(|it| Some((it, it.pass()?))) else {
            return Ok(None);
        };
        let end = match pass.expires_at() {
            Some(end) => end,
            // Boxed, since it happens once.
            None => Box::pin(activate(&self.services, principal, pass)).await?,
        };
        Ok(Some(self.instant_of(end)))
    }

    /// A place among the requests that are under way, where those are limited.
    async fn take_place(
        &self,
        scope: Scope<'_>,
        arrival: &Arrival<'_>,
        method: &Method,
    ) -> Result<Option<Permit>, GatewayError> {
        self.services.limits.enter(scope).await.map_err(|crowded| {
            self.record_rejected(scope, arrival, method, crowded.status());
            crowded.into()
        })
    }

    async fn admit(
        &self,
        scope: Scope<'_>,
        arrival: &Arrival<'_>,
        method: &Method,
        seen: &mut Option<TierState>,
    ) -> Result<(), GatewayError> {
        let admitted = self.services.limits.admit(scope, 1).await;
        if let Err(LimitError::Exceeded(exceeded)) = &admitted {
            *seen = Some(exceeded.state.clone());
            self.record_rejected(scope, arrival, method, StatusCode::TOO_MANY_REQUESTS);
        }
        *seen = admitted?;
        Ok(())
    }

    fn record_rejected(
        &self,
        scope: Scope<'_>,
        arrival: &Arrival<'_>,
        method: &Method,
        status: StatusCode,
    ) {
        let mut record = record(scope.principal, arrival, method);
        record.status = status.as_u16();
        record.outcome = Outcome::Rejected;
        record.duration_us = elapsed_us(arrival.started);
        self.services.usage.record_unreserved(record);
    }

    /// When our clock will show `at`; now if it has.
    fn instant_of(&self, at: DateTime<Utc>) -> Instant {
        let left = (at - self.services.clock.now()).to_std().unwrap_or_default();
        Instant::now() + left
    }
}
