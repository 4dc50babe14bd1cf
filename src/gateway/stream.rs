//! What makes an answer's body a stream: it is in the registry, and may be
//! ended from there.
//!
//! An event stream is registered at once; any other answer when there was
//! nothing to hand on for the first time, or after [`MOMENT`]. So an answer that
//! is merely of unknown length, and all there, is none.

use std::{
    net::IpAddr,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderMap, HeaderValue, header};
use tokio::time::Instant;

use super::{Arrival, events::Events, upload::Progress};
use crate::{
    config::UpstreamConfig,
    domain::{
        id::StreamId,
        kill::KillReason,
        principal::Principal,
        stream::{Passed, StreamKind},
        usage::UsageRecord,
    },
    services::{
        StreamService,
        streams::{Opening, StreamHandle},
    },
};

/// An answer that is not over after this long is looked after.
const MOMENT: Duration = Duration::from_millis(100);

/// Why we end a stream before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Killed(KillReason),
    /// It was open for as long as one may be.
    TooOld,
}

impl End {
    /// The code that clients are told.
    pub fn code(self) -> &'static str {
        match self {
            Self::Killed(reason) => reason.code(),
            Self::TooOld => "open_too_long",
        }
    }
}

/// What is known of whoever opens a stream while its request is at hand.
#[derive(Clone, Copy)]
pub struct Opener<'a> {
    pub principal: Option<&'a Principal>,
    /// The part of the upstream that was asked for.
    pub part: Option<usize>,
    /// Where it matters.
    pub origin: Option<&'a HeaderValue>,
}

/// The origin of a request by a key that may be used from some only.
pub fn origin_of(principal: Option<&Principal>, headers: &HeaderMap) -> Option<HeaderValue> {
    let key = principal.and_then(Principal::key)?;
    if key.allowed_origins.is_empty() {
        return None;
    }
    headers.get(header::ORIGIN).cloned()
}

/// Belongs to one body.
#[derive(Debug)]
pub struct Stream {
    place: Place,
    /// Of an event stream that can be read and may be added to.
    events: Option<Events>,
    upload: Option<Arc<Progress>>,
    bytes_out: u64,
}

#[derive(Debug)]
enum Place {
    /// Not registered yet.
    Outside(Box<Candidate>),
    Registered(StreamHandle),
    /// Only on the way from the one to the other.
    Between,
}

#[derive(Debug)]
struct Candidate {
    service: Arc<StreamService>,
    kind: StreamKind,
    principal: Option<Principal>,
    upstream: Arc<UpstreamConfig>,
    part: Option<usize>,
    origin: Option<Box<str>>,
    address: IpAddr,
    /// To be registered then at the latest.
    due: Instant,
}

impl Stream {
    /// `open_ended`: something may be added to the body.
    pub fn new(
        service: &Arc<StreamService>,
        kind: StreamKind,
        opener: Opener<'_>,
        arrival: &Arrival<'_>,
        upload: Option<&Arc<Progress>>,
        open_ended: bool,
    ) -> Self {
        let Opener { principal, part, origin } = opener;
        let candidate = Candidate {
            service: Arc::clone(service),
            kind,
            principal: principal.cloned(),
            upstream: Arc::clone(&arrival.route.upstream.config),
            part,
            origin: origin.and_then(|origin| origin.to_str().ok()).map(Box::from),
            address: arrival.client.address,
            due: Instant::now() + MOMENT,
        };
        Self {
            place: Place::Outside(Box::new(candidate)),
            events: (kind == StreamKind::Sse && open_ended).then(Events::default),
            upload: upload.cloned(),
            bytes_out: 0,
        }
    }

    pub fn is_events(&self) -> bool {
        matches!(&self.place, Place::Outside(candidate) if candidate.kind == StreamKind::Sse)
    }

    /// Enters it into the registry, if it is not there yet. What is known of its
    /// request is in its record.
    pub fn register(&mut self, record: &UsageRecord) {
        self.place = match std::mem::replace(&mut self.place, Place::Between) {
            Place::Outside(candidate) => {
                let Candidate { service, kind, principal, upstream, part, origin, address, .. } =
                    *candidate;
                let handle = service.register(Opening {
                    id: StreamId::from(record.id.as_uuid()),
                    kind,
                    principal,
                    upstream,
                    part,
                    path: record.path.clone(),
                    address,
                    origin,
                    opened_at: record.at,
                });
                Place::Registered(handle)
            }
            place => place,
        };
        self.tell();
    }

    /// Whether it is time to register it.
    pub fn is_due(&self) -> bool {
        matches!(&self.place, Place::Outside(candidate) if candidate.due <= Instant::now())
    }

    pub fn is_outside(&self) -> bool {
        matches!(self.place, Place::Outside(_))
    }

    /// Whether it is to end now.
    pub fn reason(&self) -> Option<KillReason> {
        self.handle()?.kill().reason()
    }

    /// The same, and the task is woken when it is.
    pub fn poll_killed(&self, cx: &mut Context<'_>) -> Poll<KillReason> {
        self.handle().map_or(Poll::Pending, |handle| handle.kill().poll_tripped(cx))
    }

    pub fn pass(&mut self, bytes: &[u8]) {
        self.bytes_out += bytes.len() as u64;
        if let Some(events) = &mut self.events {
            events.pass(bytes);
        }
        self.tell();
    }

    /// What is to be said last; `None` if nothing can be.
    pub fn last_words(&self, end: End) -> Option<String> {
        self.events?.last(end.code())
    }

    /// How it ended, for the metric.
    pub fn ended(&mut self, why: &'static str) {
        if let Place::Registered(handle) = &mut self.place {
            handle.ended(why);
        }
    }

    fn handle(&self) -> Option<&StreamHandle> {
        match &self.place {
            Place::Registered(handle) => Some(handle),
            Place::Outside(_) | Place::Between => None,
        }
    }

    fn tell(&self) {
        let Some(handle) = self.handle() else { return };
        handle.set_passed(Passed {
            bytes_in: self.upload.as_ref().map_or(0, |upload| upload.bytes()),
            bytes_out: self.bytes_out,
            messages_in: 0,
            messages_out: self.events.map_or(0, |events| events.passed()),
        });
    }
}
