//! Sends each request to the gateway or to the API.
//!
//! The gateway comes first and without the router: its path is the hot one. What
//! every answer carries, whoever made it, is set here and nowhere else.

use std::{
    mem,
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    sync::Arc,
};

use axum::{Router, extract::MatchedPath};
use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use http::{HeaderValue, Method, Request, Response, Version, request::Parts};
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;
use tower::ServiceExt;

use super::{
    answer::{complete, take_body},
    body::{Inner, Tracked},
    client::{ClientInfo, RequestId, Scheme},
    crowd::Scarcity,
    fault::Fault,
    forwarded,
    io::Connection,
    memory::Memory,
    observe::{Caller, Excess, Flight, Line, Metrics},
    pressure::Pressure,
    reply::{Answer, explained, refuse},
    screen,
};
use crate::{
    api::error::ApiError,
    config::ServerConfig,
    domain::{clock::SharedClock, principal::Principal, text},
    gateway::{
        Arrival, Gateway, Route, Seen, Table, path, path_and_query,
        query::{holds_credential, without_credentials},
        rate_headers,
        upload::{self, UploadLimits},
    },
    services::{
        health::{HealthService, Phase},
        room::{Class, Room},
    },
    telemetry::trace::{Arriving, Tracer, within},
};

/// Tells whether a canonical path is one of our own routes; asked only where the
/// upstream is mounted at the root.
pub type Ours = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// Characters of a refused path that are logged.
const LOGGED_PATH: usize = 512;

/// One worker's way of answering.
pub struct Dispatcher {
    pub gateway: Gateway,
    pub router: Router,
    /// Where the API runs.
    pub main: Handle,
    pub ours: Ours,
    pub config: Arc<ServerConfig>,
    /// What browsers are told that came over https.
    pub only_https: Option<HeaderValue>,
    pub clock: SharedClock,
    pub metrics: Arc<Metrics>,
    pub room: Arc<Room>,
    pub health: Arc<HealthService>,
    pub pressure: Arc<Pressure>,
    pub memory: Arc<Memory>,
    pub scarcity: Scarcity,
    /// `None`: there are no traces.
    pub tracer: Option<Arc<Tracer>>,
}

impl Dispatcher {
    pub async fn handle(
        &self,
        connection: Arc<Connection>,
        parts: &mut Parts,
        body: Incoming,
    ) -> Response<Tracked> {
        let mut flight = Flight::begin(&self.metrics, connection, parts.version);
        let at = self.clock.now();
        let table = self.gateway.table();
        let (mut client, fault) = self.identify(parts, flight.connection(), at, &table);
        if let Some(tracer) = &self.tracer {
            let (started, peer) = (flight.started(), client.peer);
            let is_probe = Class::of(false, parts.uri.path()) == Class::Probe;
            let arriving = Arriving { at, started, peer, is_probe };
            client.trace = Some(tracer.begin(&parts.headers, &arriving));
        }

        let checked = fault.map_or_else(|| screen::check(parts), Err);
        let uri = parts.uri.clone();
        let path = checked.and_then(|()| Ok(path::canonical(uri.path())?));
        flight.log_with(client.trace.as_ref(), || Line {
            request_id: client.request_id.clone(),
            method: parts.method.clone(),
            path: path.as_deref().map_or_else(
                |_| text::clean(&without_credentials(uri.path()), LOGGED_PATH),
                str::to_owned,
            ),
            address: client.address,
            caller: Caller::default(),
            upstream: None,
            trace: client.trace.clone(),
            route: None,
            host: client.host.clone(),
            scheme: client.scheme,
            version: parts.version,
        });
        let version = parts.version;
        let head = parts.method == Method::HEAD;
        let asks = screen::asks_for_socket(parts);
        let path = match path {
            Ok(path) => path,
            Err(fault) => {
                let shown = without_credentials(uri.path());
                let mut answer = refuse(fault, version);
                answer.end_if(asks);
                return self.finish(answer, &client, at, &shown, head, flight);
            }
        };
        let route = table.route(client.host.as_ref(), &path, |path| (self.ours)(path));
        let takes = |route: &Route<'_>| route.upstream.config.takes_sockets();
        let in_url = asks && !route.as_ref().is_some_and(takes);
        if let Some(route) = &route {
            flight.goes_to(&route.upstream.state.traffic);
            flight.route_with(|| {
                let config = &route.upstream.config;
                Some(format!("{}{}", config.mount.prefix(), config.route_of(route.path)))
            });
        }
        let class = Class::of(route.is_some(), &path);
        let mut answer = if in_url && uri.query().is_some_and(holds_credential) {
            refuse(Fault::CredentialInUrl, version)
        } else if let Err(excess) = self.let_in(class, &mut flight) {
            self.metrics.refused(class, excess);
            // Behind a proxy others have the same connection.
            if client.address == client.peer {
                flight.pause(self.pressure.pause());
            }
            refuse(Fault::Overloaded, version)
        } else if let Some(route) = route {
            let arrival =
                Arrival { client: &client, path: &path, route, at, started: flight.started() };
            pin!(self.proxy(parts, body, &arrival, &mut flight)).await
        } else {
            parts.uri = path_and_query(&uri, &path).into();
            // Boxed, so that the gateway's path does not carry its size.
            Box::pin(self.api(parts, body, client.clone(), &mut flight)).await
        };
        // Told to end it, a balancer does not send what follows into a closing port.
        let alone = flight.is_reserved() || self.health.phase() == Phase::Draining;
        answer.end_if(asks || (alone && version < Version::HTTP_2));
        self.finish(answer, &client, at, &path, head, flight)
    }

    /// What every answer carries. A proxied one belongs to the upstream, so it gets
    /// nothing that would change how a browser treats it.
    fn finish(
        &self,
        answer: Answer,
        client: &ClientInfo,
        at: DateTime<Utc>,
        path: &str,
        to_head: bool,
        mut flight: Flight,
    ) -> Response<Tracked> {
        match answer {
            Answer::Proxied(response) => {
                flight.answered(response.status());
                response.map(|body| Tracked::new(Inner::Proxied(body), flight))
            }
            Answer::Api(mut response) => {
                let is_problem = response.extensions().get::<ApiError>().is_some();
                let is_https = client.browser_scheme == Scheme::Https;
                let only_https = self.only_https.as_ref().filter(|_| is_https);
                complete(&mut response, &client.request_id, path, only_https, at);
                if is_problem && to_head {
                    take_body(&mut response);
                }
                flight.answered(response.status());
                // The place was for the work. Whoever does not take the answer, or follows
                // it for long, is not to keep others out.
                drop(flight.release());
                response.map(|body| Tracked::new(Inner::Api(body), flight))
            }
        }
    }

    /// Takes a place for the request, or says of what there is too much. Nothing
    /// but where it goes was looked at: refusing must cost little.
    fn let_in(&self, class: Class, flight: &mut Flight) -> Result<(), Excess> {
        if let Some(excess) = self.memory.refuses(class) {
            return Err(excess);
        }
        if class == Class::Proxied && flight.is_reserved() {
            if self.scarcity.is_there() {
                return Err(Excess::Connections);
            }
            flight.unreserve();
        }
        if self.pressure.refuses(class, flight.started()) {
            return Err(Excess::Lag);
        }
        flight.hold(Some(self.room.enter(class).ok_or(Excess::InFlight)?));
        Ok(())
    }

    /// Who asks, and what is wrong with how the host is named.
    fn identify(
        &self,
        parts: &Parts,
        connection: &Connection,
        at: DateTime<Utc>,
        table: &Table,
    ) -> (ClientInfo, Option<Fault>) {
        let ServerConfig { trusted_proxies, trusted_hosts, public_url, .. } = &*self.config;
        let (peer, scheme) = (connection.peer(), connection.scheme());
        let origin = forwarded::origin(peer, scheme, &parts.headers, trusted_proxies);
        let (named, fault) = match screen::host(&parts.uri, &parts.headers, parts.version) {
            Ok(host) => (host, None),
            Err(fault) => (None, Some(fault)),
        };
        let host = origin.host.and_then(|host| HeaderValue::from_str(host).ok()).or(named);
        let trusted = screen::is_trusted_host(host.as_ref(), trusted_hosts);
        let fault = fault.or_else(|| (!trusted).then_some(Fault::UntrustedHost));
        let public_host = public_url.as_deref().and_then(|url| {
            let (_, public) = url.split_once("://")?;
            let asked = host.as_ref().and_then(|host| host.to_str().ok());
            let listed =
                |name: &str| trusted_hosts.iter().any(|one| one.eq_ignore_ascii_case(name));
            forwarded::said_instead(asked, public, |name| {
                listed(name) || table.has_host(host.as_ref())
            })
        });
        let client = ClientInfo {
            address: origin.address,
            peer,
            scheme: origin.scheme,
            browser_scheme: origin.scheme.at_browser(public_url.as_deref()),
            host,
            public_host,
            request_id: RequestId::of(&parts.headers, at),
            trace: None,
        };
        (client, fault)
    }

    /// On this worker. A panic is this request's alone.
    async fn proxy(
        &self,
        parts: &mut Parts,
        body: Incoming,
        arrival: &Arrival<'_>,
        flight: &mut Flight,
    ) -> Answer {
        let version = parts.version;
        let mut seen = Seen { place: flight.release(), ..Seen::default() };
        let served = {
            // Pinned before it is wrapped: what is wrapped is moved.
            let serving = pin!(self.gateway.serve(parts, body, arrival, &mut seen));
            match arrival.client.trace.as_ref().filter(|trace| trace.is_sampled()) {
                None => AssertUnwindSafe(serving).catch_unwind().await,
                Some(trace) => {
                    // Of no type, since the other one has nearly too deep a one.
                    let serving = within(Arc::clone(trace), serving);
                    let serving: Pin<Box<dyn Future<Output = _> + Send + '_>> = Box::pin(serving);
                    AssertUnwindSafe(serving).catch_unwind().await
                }
            }
        };
        // Of a stream nothing is left of it.
        flight.hold(seen.place.take());
        flight.uploads(seen.upload.take());
        let Ok(result) = served else {
            return refuse(Fault::Panicked, version);
        };
        let caller = Caller {
            user_id: seen.principal.as_ref().map(Principal::user_id),
            key_id: seen.principal.as_ref().and_then(Principal::key_id),
        };
        flight.called_by(caller, Some(arrival.route.upstream.config.name));
        let mut answer = match result {
            Ok(response) => Answer::Proxied(response),
            Err(error) => Answer::Api(explained(error)),
        };
        if let Some(tunnel) = seen.tunnel {
            flight.take_over(tunnel);
        }
        if let Some(limit) = &seen.limit {
            rate_headers::set(answer.headers_mut(), limit, arrival.at);
        }
        answer
    }

    /// On the main runtime; ends with the request if the client leaves.
    async fn api(
        &self,
        parts: &mut Parts,
        body: Incoming,
        client: ClientInfo,
        flight: &mut Flight,
    ) -> Answer {
        let version = parts.version;
        // How much a route takes is the route's decision.
        let limits = UploadLimits { max_bytes: u64::MAX, idle: self.config.io_timeout };
        let limited = upload::limited(&parts.headers, body, limits, flight.started());
        let Ok((body, upload)) = limited else {
            return refuse(Fault::Framing, version);
        };
        flight.uploads(upload);
        let mut parts = mem::replace(parts, Request::new(()).into_parts().0);
        let trace = client.trace.clone();
        parts.extensions.insert(client);
        let request = Request::from_parts(parts, axum::body::Body::new(body));
        let answering = self.router.clone().oneshot(request);
        let running = match trace {
            None => self.main.spawn(answering),
            Some(trace) => self.main.spawn(within(trace, answering)),
        };
        match AbortOnDropHandle::new(running).await {
            Ok(Ok(response)) => {
                if let Some(caller) = response.extensions().get::<Caller>() {
                    flight.called_by(*caller, None);
                }
                flight.route_with(|| {
                    let matched = response.extensions().get::<MatchedPath>()?;
                    Some(matched.as_str().to_owned())
                });
                Answer::Api(response)
            }
            Ok(Err(never)) => match never {},
            Err(_) => refuse(Fault::Panicked, version),
        }
    }
}
