//! One access-log line and one set of metrics per request, when its answer has
//! ended, and its body.
//!
//! Handles of metrics are made once. Of the line nothing is kept while its level
//! is off, and nothing in it can be a secret: no query, no header field.

use std::{net::IpAddr, sync::Arc, time::Duration};

use http::{HeaderValue, Method, StatusCode, Version};
use metrics::{Counter, Gauge, counter, gauge};
use tokio::time::Instant;

use super::{
    client::{RequestId, Scheme},
    io::Connection,
    span::{self, Ending},
    watch::Watch,
};
use crate::{
    domain::id::{ApiKeyId, UserId},
    gateway::{CLIENT_CLOSED_REQUEST, Tether, Tunnel, upload::Progress},
    services::room::{Class, Place},
    telemetry::{Exchange, Traffic, trace::Trace},
};

/// Who called the API: put into a response's extensions, it appears in the
/// access log.
#[derive(Clone, Copy, Debug, Default)]
pub struct Caller {
    pub user_id: Option<UserId>,
    pub key_id: Option<ApiKeyId>,
}

/// Handles of all metrics of the server.
#[derive(Debug)]
pub struct Metrics {
    api: Arc<Traffic>,
    in_flight: Gauge,
    pub connections: Gauge,
    /// Workers that are overloaded.
    pub overloaded: Gauge,
    /// Connections of an address that had as many as it may.
    pub turned_away: Counter,
    /// By class and reason.
    refused: [[Counter; Excess::ALL.len()]; Class::ALL.len()],
}

/// Of what there is too much for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    /// Its connection is one of the last ones, kept for routes of ours.
    Connections,
    InFlight,
    /// Its worker is behind.
    Lag,
    /// The process has nearly all it may.
    Memory,
}

impl Excess {
    const ALL: [Self; 4] = [Self::Connections, Self::InFlight, Self::Lag, Self::Memory];

    fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::InFlight => "in_flight",
            Self::Lag => "lag",
            Self::Memory => "memory",
        }
    }
}

impl Metrics {
    /// To be made after the recorder of metrics is installed.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            api: Traffic::of_api(),
            in_flight: gauge!("tollgate_in_flight"),
            connections: gauge!("tollgate_connections"),
            overloaded: gauge!("tollgate_overloaded_workers"),
            turned_away: counter!("tollgate_refused_connections_total"),
            refused: Class::ALL.map(|class| {
                let class = class.as_str();
                Excess::ALL.map(|of| {
                    let of = of.as_str();
                    counter!("tollgate_refused_total", "class" => class, "reason" => of)
                })
            }),
        })
    }

    /// A request was refused before anything looked at what it wants.
    pub fn refused(&self, class: Class, of: Excess) {
        self.refused[class as usize][of as usize].increment(1);
    }
}

/// A request under way. Dropping it is its end, unless its body still comes: then
/// that is. One whose client left before an answer counts as status 499.
#[derive(Debug)]
pub struct Flight {
    metrics: Arc<Metrics>,
    connection: Arc<Connection>,
    version: Version,
    started: Instant,
    /// Where it goes, if not to a route of ours.
    traffic: Option<Arc<Traffic>>,
    status: u16,
    upload: Option<Arc<Progress>>,
    bytes_out: u64,
    broke: bool,
    line: Option<Box<Line>>,
    /// Among the requests under way.
    place: Option<Place>,
}

/// The parts of an access-log line that are known before the end.
#[derive(Debug)]
pub struct Line {
    pub request_id: RequestId,
    pub method: Method,
    pub path: String,
    pub address: IpAddr,
    pub caller: Caller,
    pub upstream: Option<&'static str>,
    /// The rest is for its trace, if it is of one.
    pub trace: Option<Arc<Trace>>,
    /// The pattern that its path is of.
    pub route: Option<String>,
    pub host: Option<HeaderValue>,
    pub scheme: Scheme,
    pub version: Version,
}

impl Flight {
    pub fn begin(metrics: &Arc<Metrics>, connection: Arc<Connection>, version: Version) -> Self {
        connection.begin(version);
        metrics.in_flight.increment(1.0);
        Self {
            metrics: Arc::clone(metrics),
            connection,
            version,
            started: Instant::now(),
            traffic: None,
            status: CLIENT_CLOSED_REQUEST,
            upload: None,
            bytes_out: 0,
            broke: false,
            line: None,
            place: None,
        }
    }

    pub fn started(&self) -> Instant {
        self.started
    }

    /// It is counted there.
    pub fn goes_to(&mut self, traffic: &Arc<Traffic>) {
        self.traffic = Some(Arc::clone(traffic));
    }

    /// What becomes of its body, if it has one.
    pub fn uploads(&mut self, upload: Option<Arc<Progress>>) {
        self.upload = upload;
    }

    /// Until its end.
    pub fn hold(&mut self, place: Option<Place>) {
        self.place = place;
    }

    pub fn release(&mut self) -> Option<Place> {
        self.place.take()
    }

    /// Whether only routes of ours are served on its connection.
    pub fn is_reserved(&self) -> bool {
        self.connection.is_reserved()
    }

    /// There is room again: its connection is one like the others.
    pub fn unreserve(&self) {
        self.connection.unreserve();
    }

    /// Its connection is not read from for so long after it. Streams of HTTP/2
    /// would pause each other.
    pub fn pause(&self, span: Duration) {
        if !self.is_multiplexed() && !span.is_zero() {
            self.connection.pause(span);
        }
    }

    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Keeps what the line needs, if it will be written at all, or told to a trace.
    pub fn log_with(&mut self, trace: Option<&Arc<Trace>>, line: impl FnOnce() -> Line) {
        let is_sampled = trace.is_some_and(|trace| trace.is_sampled());
        if is_sampled || tracing::enabled!(target: "access", tracing::Level::INFO) {
            self.line = Some(Box::new(line()));
        }
    }

    /// The pattern of its path, where a trace wants to know.
    pub fn route_with(&mut self, route: impl FnOnce() -> Option<String>) {
        if let Some(line) = &mut self.line
            && line.trace.as_ref().is_some_and(|trace| trace.is_sampled())
        {
            line.route = route();
        }
    }

    pub fn called_by(&mut self, caller: Caller, upstream: Option<&'static str>) {
        if let Some(line) = &mut self.line {
            line.caller = caller;
            line.upstream = upstream;
        }
    }

    pub fn answered(&mut self, status: StatusCode) {
        self.status = status.as_u16();
    }

    pub fn sent(&mut self, bytes: usize) {
        self.bytes_out += bytes as u64;
    }

    /// The answer ends HTTP on its connection.
    pub fn take_over(&self, tunnel: Tunnel) {
        self.connection.take_over(tunnel);
    }

    /// Looks at the answer from now on, also while it is not polled.
    pub fn watch(&self, tether: Option<Tether>) -> Arc<Watch> {
        Watch::begin(&self.connection, self.is_multiplexed(), tether)
    }

    /// Whether the answer may stand still while its connection moves.
    pub fn is_multiplexed(&self) -> bool {
        self.version == Version::HTTP_2
    }

    /// The answer's body failed.
    pub fn broke(&mut self) {
        self.broke = true;
        // HTTP/1.0 has no framing that would show it.
        if self.version == Version::HTTP_10 {
            self.connection.reset_at_close();
        }
    }
}

impl Flight {
    /// All that ends with it, to end elsewhere.
    fn take(&mut self, upload: &Arc<Progress>) -> Self {
        Self {
            metrics: Arc::clone(&self.metrics),
            connection: Arc::clone(&self.connection),
            version: self.version,
            started: self.started,
            traffic: self.traffic.take(),
            status: self.status,
            upload: Some(Arc::clone(upload)),
            bytes_out: self.bytes_out,
            broke: self.broke,
            line: self.line.take(),
            place: self.place.take(),
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        // A request is under way for as long as its body comes, if that is longer.
        if let Some(upload) = &self.upload
            && !upload.is_gone()
        {
            let upload = Arc::clone(upload);
            drop(upload.keep(self.take(&upload)));
            return;
        }
        let now = Instant::now();
        let elapsed = now.duration_since(self.started);
        self.connection.end(now);
        self.metrics.in_flight.decrement(1.0);
        let bytes_in = self.upload.as_ref().map_or(0, |upload| upload.bytes());
        self.traffic.as_ref().unwrap_or(&self.metrics.api).count(Exchange {
            status: self.status,
            seconds: elapsed.as_secs_f64(),
            bytes_in,
            bytes_out: self.bytes_out,
        });
        if let Some(line) = &self.line {
            let Caller { user_id, key_id } = line.caller;
            tracing::info!(
                target: "access",
                method = line.method.as_str(),
                request_id = &*line.request_id,
                path = line.path,
                status = self.status,
                duration_ms = elapsed.as_secs_f64() * 1000.0,
                bytes_in,
                bytes_out = self.bytes_out,
                client_address = %line.address,
                user_id = user_id.map(tracing::field::display),
                key_id = key_id.map(tracing::field::display),
                upstream = line.upstream,
                trace_id = line.trace.as_ref().map(|trace| tracing::field::display(trace.id())),
                "request"
            );
            if let Some(trace) = line.trace.as_ref().filter(|trace| trace.is_sampled()) {
                let (status, bytes_out, broke) = (self.status, self.bytes_out, self.broke);
                let ending = Ending { status, bytes_in, bytes_out, broke, at: now };
                span::tell(trace, line, &ending);
            }
        }
    }
}
