//! Everything that is open for long: registered, looked at again and again,
//! shown to operators, and ended.
//!
//! | file | promise |
//! |---|---|
//! | [`open`] | a stream is in the list exactly while its [`StreamHandle`] lives |
//! | [`sweep`] | one whose credential counts no more is ended within a second |
//! | [`shown`] | operators see and cut the streams of all instances |
//!
//! Whoever serves a stream polls its [`KillSwitch`](crate::domain::kill::KillSwitch)
//! and ends it in the way of its kind; nothing here touches a connection.

pub mod open;
pub mod shown;
pub mod sweep;

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

pub use self::{
    open::{OpenStream, Opening, StreamHandle},
    shown::{CutError, StreamFilter},
};
use metrics::counter;

use super::{AccessService, AuditService};
use crate::{
    cache::CacheHub,
    domain::{clock::SharedClock, id::StreamId, kill::KillReason, stream::StreamKind},
};

/// As many streams as may be are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many streams are open; try again later")]
pub struct Full;

/// The open streams of this instance, and the way to those of the others.
pub struct StreamService {
    access: Arc<AccessService>,
    clock: SharedClock,
    hub: CacheHub,
    audit: Arc<AuditService>,
    open: Mutex<HashMap<StreamId, Arc<OpenStream>>>,
    /// As many may be open.
    most: usize,
    leaving: AtomicBool,
    /// Whether the others are shown something of this instance.
    sharing: AtomicBool,
}

impl StreamService {
    pub fn new(
        access: Arc<AccessService>,
        hub: &CacheHub,
        clock: SharedClock,
        most: usize,
        audit: Arc<AuditService>,
    ) -> Arc<Self> {
        let service = Arc::new(Self {
            access,
            clock,
            hub: hub.clone(),
            audit,
            open: Mutex::default(),
            most,
            leaving: AtomicBool::new(false),
            sharing: AtomicBool::new(false),
        });
        let weak = Arc::downgrade(&service);
        hub.on_cut(move |id| weak.upgrade().is_some_and(|service| service.cut_here(id.into())));
        service
    }

    /// Enters a stream that is about to begin into the list, until the handle is
    /// dropped; not if as many as may be are open.
    pub fn enter(self: &Arc<Self>, opening: Opening) -> Result<StreamHandle, Full> {
        self.insert(opening, self.most)
    }

    /// The same for what turned out to be a stream while it was under way, and is
    /// entered in any case.
    pub fn register(self: &Arc<Self>, opening: Opening) -> StreamHandle {
        self.insert(opening, usize::MAX).expect("there are never so many")
    }

    /// Whether more are open than may be. What came last is then to keep its place
    /// among the plain requests.
    pub fn is_crowded(&self) -> bool {
        self.open().len() > self.most
    }

    fn insert(self: &Arc<Self>, opening: Opening, most: usize) -> Result<StreamHandle, Full> {
        let stream = Arc::new(OpenStream::new(opening, self.clock.monotonic_us()));
        {
            let mut open = self.open();
            if open.len() >= most {
                counter!("tollgate_refused_total", "class" => "proxied", "reason" => "streams")
                    .increment(1);
                return Err(Full);
            }
            open.insert(stream.id, Arc::clone(&stream));
        }
        // Looked at after it is in the list: one of the two sees the other.
        if self.leaving.load(Ordering::SeqCst) {
            say_goodbye(&stream);
        }
        Ok(StreamHandle::new(Arc::clone(self), stream))
    }

    /// The process stops: event streams and sockets end now, since they would
    /// not by themselves, also those that are still to come. Other answers and
    /// uploads may go on for as long as the process does.
    pub fn go_away(&self) {
        self.leaving.store(true, Ordering::SeqCst);
        self.all().iter().for_each(|stream| say_goodbye(stream));
    }

    /// What this instance is called, and how many there are, itself included.
    pub fn instances(&self) -> (&str, usize) {
        (self.hub.instance(), self.hub.instances())
    }

    /// As many may be open here.
    pub fn most(&self) -> usize {
        self.most
    }

    /// How many of a kind are open here.
    pub fn count(&self, kind: StreamKind) -> usize {
        self.open().values().filter(|stream| stream.kind == kind).count()
    }

    /// How many sockets are open here by the credential of this one, itself
    /// among them; without one, from its network.
    pub fn sockets_like(&self, handle: &StreamHandle) -> usize {
        let stream = handle.stream();
        let sockets = |open: &&Arc<OpenStream>| open.kind == StreamKind::Websocket;
        self.open().values().filter(sockets).filter(|open| open.is_like(stream)).count()
    }

    /// Ends one of this instance's; whether it was there.
    fn cut_here(&self, id: StreamId) -> bool {
        let stream = self.open().get(&id).cloned();
        stream.is_some_and(|stream| {
            stream.kill.trip(KillReason::Cut);
            true
        })
    }

    fn all(&self) -> Vec<Arc<OpenStream>> {
        self.open().values().cloned().collect()
    }

    fn open(&self) -> MutexGuard<'_, HashMap<StreamId, Arc<OpenStream>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for StreamService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamService").finish_non_exhaustive()
    }
}

fn say_goodbye(stream: &OpenStream) {
    if matches!(stream.kind, StreamKind::Sse | StreamKind::Websocket) {
        stream.kill.trip(KillReason::GoingAway);
    }
}
