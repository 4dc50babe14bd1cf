//! Where one thread writes: a lock of its own that nobody else waits for, and a
//! file that grows.

use std::{
    collections::VecDeque,
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
};

use super::{
    home,
    record::{self, Entry},
    segments::Segment,
};

/// What the records of a moment need; memory beyond it is given back.
const USUAL: usize = 16 * 1024;

pub(super) struct Lane {
    number: u16,
    tail: Mutex<Tail>,
    /// Up to here everything is written.
    written: AtomicU64,
    /// Records taken since the start.
    records: AtomicU64,
    /// Bytes that were taken and are not written.
    unwritten: AtomicUsize,
    /// Up to here everything is in the database.
    drained: AtomicU64,
    /// Something was written since it was last synced.
    dirty: AtomicBool,
}

struct Tail {
    /// The file that grows, and where it begins.
    current: Option<(Arc<File>, u64)>,
    /// Full ones that are not synced yet.
    unsynced: Vec<Arc<File>>,
    /// Where each file that is there begins, the growing one last.
    bases: VecDeque<u64>,
    /// Records that are not written, one behind the other.
    buffer: Vec<u8>,
}

impl Lane {
    pub fn new(number: u16) -> Self {
        let tail = Tail { current: None, unsynced: vec![], bases: VecDeque::new(), buffer: vec![] };
        Self {
            number,
            tail: Mutex::new(tail),
            written: AtomicU64::new(0),
            records: AtomicU64::new(0),
            unwritten: AtomicUsize::new(0),
            drained: AtomicU64::new(0),
            dirty: AtomicBool::new(false),
        }
    }

    pub fn number(&self) -> u16 {
        self.number
    }

    pub fn written(&self) -> u64 {
        self.written.load(Acquire)
    }

    pub fn records(&self) -> u64 {
        self.records.load(Relaxed)
    }

    /// Bytes that wait in memory.
    pub fn unwritten(&self) -> usize {
        self.unwritten.load(Acquire)
    }

    pub fn drained(&self) -> u64 {
        self.drained.load(Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Tail> {
        // Positions move only after what they stand for has been done.
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one record, which [`Self::write`] is to write; `false` if more than
    /// `most` bytes wait already.
    pub fn push(&self, entry: &Entry, most: usize) -> bool {
        let mut tail = self.lock();
        if tail.buffer.len() > most {
            return false;
        }
        record::encode(entry, &mut tail.buffer);
        self.unwritten.store(tail.buffer.len(), Release);
        self.records.fetch_add(1, Relaxed);
        true
    }

    /// Writes what was taken, at once; whether it is the first since the last
    /// sync. What failed has left nothing behind that counts: the next time writes
    /// over it.
    pub fn write(&self, folder: &Path, segment_bytes: u64) -> io::Result<bool> {
        let mut tail = self.lock();
        let tail = &mut *tail;
        if tail.buffer.is_empty() {
            return Ok(false);
        }
        let position = self.written.load(Relaxed);
        let length = tail.buffer.len() as u64;
        if let Some((file, base)) = &tail.current
            // One that nothing is in yet is as good as the next.
            && position > *base
            && position - base + length > segment_bytes
        {
            tail.unsynced.push(Arc::clone(file));
            tail.current = None;
        }
        if tail.current.is_none() {
            let segment = Segment { lane: self.number, base: position };
            let file = home::private().open(segment.path(folder))?;
            // One that failed before anything was in it is begun anew.
            if tail.bases.back() != Some(&position) {
                tail.bases.push_back(position);
            }
            tail.current = Some((Arc::new(file), position));
        }
        let (file, base) = tail.current.as_ref().expect("opened just now");
        file.write_all_at(&tail.buffer, position - base)?;
        tail.buffer.clear();
        tail.buffer.shrink_to(USUAL);
        self.written.store(position + length, Release);
        // After that, so that what waits is always in one of them.
        self.unwritten.store(0, Release);
        Ok(!self.dirty.swap(true, Relaxed))
    }

    /// Makes what was written so far survive a loss of power.
    pub fn sync(&self) -> io::Result<()> {
        if !self.dirty.swap(false, Relaxed) {
            return Ok(());
        }
        let files = {
            let mut tail = self.lock();
            let current = tail.current.as_ref().map(|(file, _)| Arc::clone(file));
            let mut files = std::mem::take(&mut tail.unsynced);
            files.extend(current);
            files
        };
        let mut synced = Ok(());
        for file in files {
            synced = synced.and(file.sync_data());
        }
        if synced.is_err() {
            // What the kernel gave up on is not in the file's pages any more; it
            // is drained from there before long, or it is lost with the machine.
            self.dirty.store(true, Relaxed);
            let mut tail = self.lock();
            if let Some((file, _)) = tail.current.take() {
                drop(file);
            }
        }
        synced
    }

    /// The file that holds what waits first, and where that begins and ends: at
    /// the next file, or at what is written. A part of which there is no file is
    /// passed over.
    pub fn waiting(&self) -> Option<(Segment, u64, u64)> {
        let tail = self.lock();
        let (from, written) = (self.drained(), self.written.load(Relaxed));
        let index = tail.bases.partition_point(|base| *base <= from).saturating_sub(1);
        let base = *tail.bases.get(index)?;
        let end = tail.bases.get(index + 1).copied().unwrap_or(written);
        let from = from.max(base);
        (from < end).then_some((Segment { lane: self.number, base }, from, end))
    }

    /// All before `position` is in the database, and nothing behind it. Names the
    /// files that nobody needs any more; the growing one stays.
    pub fn release(&self, position: u64) -> Vec<Segment> {
        self.drained.store(position.min(self.written()), Relaxed);
        let mut tail = self.lock();
        let mut over = vec![];
        while tail.bases.len() > 1 && tail.bases[1] <= position {
            let base = tail.bases.pop_front().expect("there are two");
            over.push(Segment { lane: self.number, base });
        }
        over
    }
}
