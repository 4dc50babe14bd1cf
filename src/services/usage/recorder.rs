//! The bounded buffer between finished requests and the database.

use std::{
    borrow::Borrow,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use crate::domain::usage::UsageRecord;

/// The buffer is full: usage could not be recorded, so the request must not
/// be served.
#[derive(Debug, thiserror::Error)]
#[error("too many requests await being recorded")]
pub struct Saturated;

/// A record and how many requests it counts as.
pub(super) struct Entry {
    pub(super) record: UsageRecord,
    pub(super) requests: u64,
    /// Of the requests, those that were messages within it: they have no
    /// duration of their own.
    pub(super) messages: u64,
}

impl Borrow<UsageRecord> for Entry {
    fn borrow(&self) -> &UsageRecord {
        &self.record
    }
}

/// Takes records from any thread; cheap to clone.
#[derive(Clone)]
pub struct Recorder(Arc<Inner>);

struct Inner {
    capacity: usize,
    /// Records in the buffer, being written, and slots that were given out.
    taken: AtomicUsize,
    buffer: Mutex<Vec<Entry>>,
    dropped: AtomicU64,
}

/// Room for one record. Dropping it unused gives the room back.
#[must_use = "a slot that is dropped records nothing"]
pub struct Slot {
    inner: Option<Arc<Inner>>,
}

impl Recorder {
    pub fn new(capacity: usize) -> Self {
        let inner = Inner {
            capacity,
            taken: AtomicUsize::new(0),
            buffer: Mutex::new(vec![]),
            dropped: AtomicU64::new(0),
        };
        Self(Arc::new(inner))
    }

    /// Makes sure that one record will fit, before the request is let through.
    pub fn reserve(&self) -> Result<Slot, Saturated> {
        if self.0.taken.fetch_add(1, Ordering::Relaxed) >= self.0.capacity {
            self.0.taken.fetch_sub(1, Ordering::Relaxed);
            return Err(Saturated);
        }
        Ok(Slot { inner: Some(self.0.clone()) })
    }

    /// Records without a reservation, for what was refused anyway.
    pub(super) fn push_unreserved(&self, record: UsageRecord, requests: u64) {
        match self.reserve() {
            Ok(slot) => slot.push(Entry { record, requests, messages: 0 }),
            Err(Saturated) => {
                self.0.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Records that found no room, since the start.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Records that wait to be written, and slots of requests under way.
    pub fn pending(&self) -> usize {
        self.0.taken.load(Ordering::Relaxed)
    }

    /// Records that wait to be written.
    pub fn waiting(&self) -> usize {
        self.0.lock().len()
    }

    /// Everything that has gathered; its room stays taken until
    /// [`Recorder::release`].
    pub(super) fn take(&self) -> Vec<Entry> {
        let mut buffer = self.0.lock();
        // As much will probably gather again; growing step by step copies it all
        // several times.
        let next = Vec::with_capacity(buffer.len());
        std::mem::replace(&mut *buffer, next)
    }

    pub(super) fn release(&self, written: usize) {
        self.0.taken.fetch_sub(written, Ordering::Relaxed);
    }

    /// Returns what could not be written, before what came since.
    pub(super) fn put_back(&self, mut batch: Vec<Entry>) {
        let mut buffer = self.0.lock();
        batch.append(&mut buffer);
        *buffer = batch;
    }
}

impl Inner {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Entry>> {
        // A push cannot panic half-way, so the buffer is whole.
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// `messages`: as how many requests it counts besides itself.
    pub fn record(self, record: UsageRecord, messages: u64) {
        self.push(Entry { record, requests: 1, messages });
    }

    fn push(mut self, entry: Entry) {
        if let Some(inner) = self.inner.take() {
            inner.lock().push(entry);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.take() {
            inner.taken.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
