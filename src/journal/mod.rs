//! What was used, on disk before the answer has ended.
//!
//! A process that is killed loses nothing that a client got an answer for
//! (RELIABILITY G-01): its record was written to a file by then, and what the
//! file holds beyond the mark in the database is added to it by the next start.
//! The mark moves in the same transaction as the sums, so nothing is added twice
//! either, wherever it is killed.
//!
//! - Each thread writes to a [`lane`] of its own, without waiting: the kernel keeps
//!   it when the process dies. `fdatasync` follows within about [`SYNC_AFTER`],
//!   for when the machine does. A thread that holds answers back until then may
//!   write the records of several [`together`].
//! - No more than `max_bytes` wait for the database. Beyond that, and where the
//!   disk takes no more, requests are refused before they go upstream, or served
//!   without being recorded if the operator wants that (G-54).
//! - Some room is kept on the disk, so that requests which are under way when it
//!   is full find a place for their records.
//! - A folder is one process's, locked while that lives. The folder of one that
//!   died is an [`Orphan`].

mod home;
mod lane;
mod orphan;
mod record;
mod room;
mod segments;
pub mod together;

use std::{
    cell::Cell,
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::sync::Notify;
use uuid::Uuid;

use self::{home::Home, lane::Lane};
pub use self::{
    orphan::{Orphan, orphans},
    record::{Entry, Frame, Frames, Next},
};
use crate::{
    config::{JournalConfig, OnFull},
    domain::{id::LogPlace, usage::UsageRecord},
};

/// How long what was written may wait for `fdatasync`.
pub const SYNC_AFTER: Duration = Duration::from_millis(50);
/// Largest file. Several, so that what is drained is freed step by step.
const LARGEST_SEGMENT: u64 = 64 * 1024 * 1024;
/// Of a lane at once. More than any record, also one whose length was damaged:
/// what is cut at the end of it must not be all that was read.
const LEAST_READ: usize = 128 * 1024;
const LOCK: &str = "lock";

/// Nothing more can be recorded: usage that cannot be recorded must not happen.
#[derive(Debug, thiserror::Error)]
#[error("too much usage waits to be recorded")]
pub struct Saturated;

#[derive(Debug, thiserror::Error)]
#[error("the journal of usage cannot be written in {}", folder.display())]
pub struct OpenError {
    folder: PathBuf,
    #[source]
    source: io::Error,
}

/// The journal of this process. Cheap to clone; any thread may write.
#[derive(Clone)]
pub struct Journal(Arc<Inner>);

struct Inner {
    /// Which one the marks in the database are about.
    id: Uuid,
    config: JournalConfig,
    segment_bytes: u64,
    home: OnceLock<Home>,
    /// Held while the folder is made.
    making: Mutex<()>,
    /// Held while it is looked for room.
    looking: Mutex<()>,
    lanes: Vec<Lane>,
    /// Nothing is recorded at all.
    off: AtomicBool,
    /// Requests are refused, or go unrecorded, until there is room again.
    full: AtomicBool,
    dropped: AtomicU64,
    damaged: AtomicU64,
    sync_failures: AtomicU64,
    written: Notify,
    /// When the last record ended, microseconds since 1970; each has its own, in
    /// the order of their coming.
    ended: AtomicU64,
}

/// Part of a lane that was taken into the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub lane: u16,
    pub from: u64,
    pub to: u64,
}

/// What waits in a lane: records from a position on, the last one perhaps cut.
#[derive(Debug)]
pub struct Chunk {
    lane: u16,
    /// Where the mark of the lane is.
    mark: u64,
    /// Where the bytes begin.
    from: u64,
    bytes: Vec<u8>,
    /// Nothing will be written behind it.
    whole: bool,
}

/// Leave to record one request.
#[must_use = "a slot that is dropped records nothing"]
pub struct Slot(Arc<Inner>);

impl Journal {
    /// `lanes`: threads that write. Touches nothing on the disk.
    pub fn new(config: &JournalConfig, lanes: usize) -> Self {
        let lanes = u16::try_from(lanes.max(1)).unwrap_or(u16::MAX);
        Self(Arc::new(Inner {
            id: Uuid::now_v7(),
            segment_bytes: (config.max_bytes / 8).clamp(64 * 1024, LARGEST_SEGMENT),
            config: config.clone(),
            home: OnceLock::new(),
            making: Mutex::default(),
            looking: Mutex::default(),
            lanes: (0..lanes).map(Lane::new).collect(),
            off: AtomicBool::new(false),
            full: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
            damaged: AtomicU64::new(0),
            sync_failures: AtomicU64::new(0),
            written: Notify::new(),
            ended: AtomicU64::new(0),
        }))
    }

    pub fn id(&self) -> Uuid {
        self.0.id
    }

    /// Makes the folder and takes its lock; nothing more the second time. Where
    /// the disk is full it is, too, until there is room.
    pub fn open(&self) -> Result<(), OpenError> {
        let failed = |source| OpenError { folder: self.0.config.folder.clone(), source };
        self.0.home().map_err(failed)?;
        if let Err(error) = self.0.keep_reserve() {
            self.0.become_full_by(&error);
        }
        Ok(())
    }

    /// Records nothing from now on: only to measure what that costs.
    pub fn switch_off(&self) {
        self.0.off.store(true, Relaxed);
    }

    /// Leave to record one request, before it is let through.
    pub fn reserve(&self) -> Result<Slot, Saturated> {
        if self.0.full.load(Relaxed) && self.0.config.on_full == OnFull::Block {
            return Err(Saturated);
        }
        Ok(Slot(Arc::clone(&self.0)))
    }

    /// Records what was refused anyway.
    pub fn record(&self, record: UsageRecord) {
        self.0.write_refused(Entry { record, requests: 1, messages: 0 });
    }

    /// Bytes that wait for the database.
    pub fn waiting(&self) -> u64 {
        self.0.waiting()
    }

    /// Records that were taken since the start.
    pub fn records(&self) -> u64 {
        self.0.lanes.iter().map(Lane::records).sum()
    }

    /// Whether nothing waits, neither on the disk nor in memory.
    pub fn is_drained(&self) -> bool {
        // In this order: what is taken first waits here, then there.
        self.0.lanes.iter().all(|lane| lane.unwritten() == 0) && self.waiting() == 0
    }

    /// Records that found no place, since the start.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Relaxed)
    }

    /// Bytes that could not be read again, since the start.
    pub fn damaged(&self) -> u64 {
        self.0.damaged.load(Relaxed)
    }

    /// Counts bytes that could not be read.
    pub fn add_damaged(&self, bytes: u64) {
        self.0.damaged.fetch_add(bytes, Relaxed);
    }

    pub fn sync_failures(&self) -> u64 {
        self.0.sync_failures.load(Relaxed)
    }

    /// Whether requests are refused, or not recorded, for want of room.
    pub fn is_full(&self) -> bool {
        self.0.full.load(Relaxed)
    }

    /// What waits, at most about `most` bytes, and for each lane from where on.
    /// Reads files: not for an async thread.
    pub fn read(&self, most: usize) -> io::Result<Vec<Chunk>> {
        let Some(home) = self.0.home.get() else { return Ok(vec![]) };
        let each = (most / self.0.lanes.len()).max(LEAST_READ);
        let mut chunks = vec![];
        for lane in &self.0.lanes {
            // What a thread was about to write.
            self.0.write_out(lane);
            let mark = lane.drained();
            let Some((segment, from, end)) = lane.waiting() else { continue };
            let bytes = segments::read(&home.folder, &segment, from, end, each)?;
            // What is behind the end is not written yet, or in the next file.
            let whole = from + bytes.len() as u64 == end;
            chunks.push(Chunk { lane: lane.number(), mark, from, bytes, whole });
        }
        Ok(chunks)
    }

    /// Everything up to the end of `marks` is in the database.
    pub fn release(&self, marks: &[Mark]) {
        for Mark { lane, to, .. } in marks {
            self.move_to(*lane, *to);
        }
    }

    /// The mark of a lane is at `position`, as the database says: what is behind
    /// it waits, also if it was in the database before that lost it.
    pub fn move_to(&self, lane: u16, position: u64) {
        let Some(lane) = self.0.lanes.get(usize::from(lane)) else { return };
        let over = lane.release(position);
        if let Some(home) = self.0.home.get() {
            for segment in over {
                home::remove(&segment.path(&home.folder));
            }
        }
    }

    /// Waits until something was written, then syncs it a little later; again and
    /// again. Ends with the task that runs it.
    pub async fn keep_synced(&self) {
        loop {
            self.0.written.notified().await;
            tokio::time::sleep(SYNC_AFTER).await;
            let journal = self.clone();
            let synced = tokio::task::spawn_blocking(move || journal.sync()).await;
            if let Ok(Err(error)) = synced {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "the journal of usage could not be synced to its disk");
                self.0.written.notify_one();
            }
        }
    }

    /// Makes what was written survive a loss of power.
    pub fn sync(&self) -> io::Result<()> {
        let mut synced = Ok(());
        for lane in &self.0.lanes {
            let lane = lane.sync();
            if lane.is_err() {
                self.0.sync_failures.fetch_add(1, Relaxed);
            }
            synced = synced.and(lane);
        }
        synced
    }

    /// Removes the folder if nothing in it waits; what is written afterwards is
    /// lost. For the end of the process.
    pub fn close(&self) {
        if let (Some(home), true) = (self.0.home.get(), self.is_drained())
            && let Err(error) = orphan::remove_folder(&home.folder)
        {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the folder of the journal could not be removed");
        }
    }
}

impl Slot {
    /// `messages`: as how many requests it counts besides itself.
    pub fn record(self, record: UsageRecord, messages: u64) {
        self.0.write(Entry { record, requests: 1, messages });
    }

    /// One that counts as `requests`, as it was charged. The log shows it once.
    pub fn record_many(self, record: UsageRecord, requests: u64) {
        self.0.write(Entry { record, requests, messages: 0 });
    }
}

impl Inner {
    fn waiting(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.written().saturating_sub(lane.drained())).sum()
    }

    fn home(&self) -> io::Result<&Home> {
        if let Some(home) = self.home.get() {
            return Ok(home);
        }
        let _one = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(home) = self.home.get() {
            return Ok(home);
        }
        let home = Home::make(&self.config.folder, self.id)?;
        Ok(self.home.get_or_init(|| home))
    }

    fn lane(&self) -> &Lane {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static THREAD: Cell<Option<usize>> = const { Cell::new(None) };
        }
        let thread = THREAD.with(|own| {
            own.get().unwrap_or_else(|| {
                let number = THREADS.fetch_add(1, Relaxed);
                own.set(Some(number));
                number
            })
        });
        &self.lanes[thread % self.lanes.len()]
    }

    /// The next place in the log for what ended at `us`. Where the clock stands
    /// still, or goes back, places go on.
    fn next_place(&self, us: u64) -> LogPlace {
        let next = |last: u64| us.max(last.saturating_add(1));
        let last = self.ended.fetch_update(Relaxed, Relaxed, |last| Some(next(last)));
        LogPlace::at(last.map_or(us, next), self.id)
    }
}

impl Chunk {
    pub fn frames(&self) -> Frames<'_> {
        Frames::new(&self.bytes, self.whole)
    }

    /// What `frames` of it have read so far.
    pub fn mark(&self, frames: &Frames<'_>) -> Mark {
        let Self { lane, mark, from, .. } = *self;
        Mark { lane, from: mark, to: from + frames.position() as u64 }
    }
}
