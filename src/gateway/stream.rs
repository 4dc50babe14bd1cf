//! What makes an answer's body a stream: it is in the registry, and may be
//! ended from there.
//!
//! An event stream is registered at once; any other answer when there was
//! nothing to hand on for the first time, or after [`MOMENT`], be it polled or
//! not. So an answer that
//! is merely of unknown length, and all there, is none.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderMap, HeaderValue, header};
use tokio::time::Instant;

use super::{Arrival, answer::Known, events::Events, upload::Progress};
use crate::{
    domain::{
        id::StreamId,
        kill::KillReason,
        origin::OriginHost,
        principal::Principal,
        stream::{Passed, StreamKind},
        usage::UsageRecord,
    },
    services::{
        StreamService,
        room::Place,
        streams::{Full, Opening, StreamHandle},
    },
};

/// An answer that is not over after this long is looked after.
pub const MOMENT: Duration = Duration::from_millis(100);

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
    /// The page that asks, where that is counted.
    pub page: Option<OriginHost>,
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
    entry: Arc<Entry>,
    kind: StreamKind,
    /// Of an event stream that can be read and may be added to.
    events: Option<Events>,
}

/// A stream's place in the registry, or on the way there: also whoever looks at
/// the body from outside may enter it, since a body that its client does not
/// take is not polled.
#[derive(Debug)]
pub struct Entry {
    /// Until it is registered.
    candidate: Mutex<Option<Box<Candidate>>>,
    handle: OnceLock<StreamHandle>,
    /// Its place among the plain requests, where there was none among the streams.
    kept: OnceLock<Place>,
    /// To be registered then at the latest.
    due: Instant,
    upload: Option<Arc<Progress>>,
    bytes_out: AtomicU64,
}

#[derive(Debug)]
struct Candidate {
    service: Arc<StreamService>,
    opening: Opening,
    /// Among the plain requests, until it is registered.
    place: Option<Place>,
}

impl Stream {
    /// What is known of its request is in its record. `open_ended`: something
    /// may be added to the body. The place is taken, unless it is refused.
    pub fn new(
        service: &Arc<StreamService>,
        kind: StreamKind,
        known: Known<'_>,
        arrival: &Arrival<'_>,
        record: &UsageRecord,
        open_ended: bool,
        place: &mut Option<Place>,
    ) -> Result<Self, Full> {
        let id = StreamId::from(record.id.as_uuid());
        let opening = opening(kind, id, &known.opener, arrival, record);
        let (mut candidate, handle) = (None, OnceLock::new());
        // It would hold its place for as long as it likes.
        if kind == StreamKind::Sse {
            let _ = handle.set(service.enter(opening)?);
            *place = None;
        } else {
            let (service, place) = (Arc::clone(service), place.take());
            candidate = Some(Box::new(Candidate { service, opening, place }));
        }
        let entry = Entry {
            candidate: Mutex::new(candidate),
            handle,
            kept: OnceLock::new(),
            due: Instant::now() + MOMENT,
            upload: known.upload.cloned(),
            bytes_out: AtomicU64::new(0),
        };
        let this = Self {
            entry: Arc::new(entry),
            kind,
            events: (kind == StreamKind::Sse && open_ended).then(Events::default),
        };
        this.tell();
        Ok(this)
    }

    /// For whoever looks at it from outside.
    pub fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }

    /// Enters it into the registry, if it is not there yet.
    pub fn register(&self) {
        if self.entry.handle.get().is_none() {
            self.entry.register();
            self.tell();
        }
    }

    /// Whether it is a stream of events, be they readable or not.
    pub fn is_of_events(&self) -> bool {
        self.kind == StreamKind::Sse
    }

    /// Whole events that went by, as far as they could be read.
    pub fn events(&self) -> u64 {
        self.events.map_or(0, |events| events.passed())
    }

    /// Whether it is to end now.
    pub fn reason(&self) -> Option<KillReason> {
        self.entry.reason()
    }

    /// The same, and the task is woken when it is.
    pub fn poll_killed(&self, cx: &mut Context<'_>) -> Poll<KillReason> {
        self.entry.handle.get().map_or(Poll::Pending, |handle| handle.kill().poll_tripped(cx))
    }

    pub fn pass(&mut self, bytes: &[u8]) {
        self.entry.bytes_out.fetch_add(bytes.len() as u64, Relaxed);
        if let Some(events) = &mut self.events {
            events.pass(bytes);
        }
        self.entry.register_if_due(Instant::now());
        self.tell();
    }

    /// What is to be said last; `None` if nothing can be.
    pub fn last_words(&self, end: End) -> Option<String> {
        self.events?.last(end.code())
    }

    /// How it ended, for the metric.
    pub fn ended(&self, why: &'static str) {
        if let Some(handle) = self.entry.handle.get() {
            handle.ended(why);
        }
    }

    fn tell(&self) {
        self.entry.tell(self.events());
    }
}

impl Entry {
    /// Registers it if it is open for long enough.
    pub fn register_if_due(&self, now: Instant) {
        if self.due <= now && self.handle.get().is_none() {
            self.register();
            self.tell(0);
        }
    }

    /// Whether it is to end now.
    pub fn reason(&self) -> Option<KillReason> {
        self.handle.get()?.kill().reason()
    }

    fn register(&self) {
        let candidate = self.candidate.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(candidate) = candidate {
            let Candidate { service, opening, place } = *candidate;
            let _ = self.handle.set(service.register(opening));
            if let Some(place) = place.filter(|_| service.is_crowded()) {
                let _ = self.kept.set(place);
            }
        }
    }

    fn tell(&self, messages_out: u64) {
        let Some(handle) = self.handle.get() else { return };
        handle.set_passed(Passed {
            bytes_in: self.upload.as_ref().map_or(0, |upload| upload.bytes()),
            bytes_out: self.bytes_out.load(Relaxed),
            messages_in: 0,
            messages_out,
        });
    }
}

/// What the registry is told of a stream.
pub fn opening(
    kind: StreamKind,
    id: StreamId,
    opener: &Opener<'_>,
    arrival: &Arrival<'_>,
    record: &UsageRecord,
) -> Opening {
    Opening {
        id,
        kind,
        principal: opener.principal.cloned(),
        upstream: Arc::clone(&arrival.route.upstream.config),
        part: opener.part,
        path: record.path.clone(),
        address: arrival.client.address,
        origin: opener.origin.and_then(|origin| origin.to_str().ok()).map(Box::from),
        opened_at: record.at,
    }
}
