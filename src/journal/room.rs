//! What is done where there is no room: some is kept for requests under way,
//! and what finds none waits in memory.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::OpenOptionsExt as _,
    sync::{PoisonError, atomic::Ordering::Relaxed},
};

use super::{Entry, Inner, Journal, home::remove, lane::Lane, together};
use crate::config::OnFull;

/// Room that is kept for the records of requests under way: some thousand.
const LARGEST_RESERVE: u64 = 8 * 1024 * 1024;
/// Bytes of records that a lane keeps in memory where they find no place on the
/// disk at all: about ten thousand.
const MOST_UNWRITTEN: usize = 2 * 1024 * 1024;
const RESERVE: &str = "reserve";

impl Journal {
    /// Looks whether there is room, and finds a place for what had none. To be
    /// called twice a second or so; touches the disk.
    pub fn look_for_room(&self) {
        let inner = &*self.0;
        // Two at once would undo each other's reserve.
        let _one = inner.looking.lock().unwrap_or_else(PoisonError::into_inner);
        let too_much = inner.waiting() >= inner.config.max_bytes;
        if !inner.full.load(Relaxed) {
            if too_much {
                inner.become_full("too much usage waits for the database");
            }
            return;
        }
        if too_much || !inner.lanes.iter().all(|lane| inner.write_lane(lane).is_ok()) {
            return;
        }
        match inner.keep_reserve() {
            Ok(()) => {
                inner.full.store(false, Relaxed);
                tracing::info!("there is room for the journal of usage again");
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "there is no room for the journal of usage yet");
            }
        }
    }
}

impl Inner {
    /// Takes it, and writes it unless this thread does that later.
    pub fn write(&self, mut entry: Entry) {
        let lacks_room = self.full.load(Relaxed) && self.config.on_full == OnFull::Unmetered;
        if lacks_room || self.off.load(Relaxed) {
            self.dropped.fetch_add(1, Relaxed);
            return;
        }
        entry.record.place = self.next_place(entry.record.ended_us());
        let lane = self.lane();
        if !lane.push(&entry, MOST_UNWRITTEN) {
            self.dropped.fetch_add(1, Relaxed);
        } else if !together::put_off() {
            self.write_out(lane);
        }
    }

    /// Writes what a lane has taken, if need be in the room that was kept for
    /// that. What finds none stays with the lane.
    pub fn write_out(&self, lane: &Lane) {
        let Err(error) = self.write_lane(lane) else { return };
        self.become_full_by(&error);
        self.give_up_reserve();
        if let Err(error) = self.write_lane(lane) {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(error, "usage waits in memory until there is room for it");
        }
    }

    fn write_lane(&self, lane: &Lane) -> io::Result<()> {
        if lane.unwritten() > 0 && lane.write(&self.home()?.folder, self.segment_bytes)? {
            self.written.notify_one();
        }
        Ok(())
    }

    /// The same for what was refused. While nothing can be recorded it comes as
    /// fast as anybody asks, and must not fill the disk.
    pub fn write_refused(&self, entry: Entry) {
        let most = self.config.max_bytes + self.config.max_bytes / 8;
        if self.full.load(Relaxed) && self.waiting() >= most {
            self.dropped.fetch_add(1, Relaxed);
        } else {
            self.write(entry);
        }
    }

    /// Refuses, or leaves unrecorded, what comes until there is room.
    pub fn become_full_by(&self, error: &io::Error) {
        if !self.full.swap(true, Relaxed) {
            let error = error as &dyn std::error::Error;
            let policy = self.config.on_full.as_str();
            tracing::error!(error, policy, "the journal of usage cannot be written");
        }
    }

    fn become_full(&self, why: &'static str) {
        if !self.full.swap(true, Relaxed) {
            tracing::error!(policy = self.config.on_full.as_str(), "{why}");
        }
    }

    /// Takes room on the disk that nobody else can have. It is written, since a
    /// file with a hole takes none.
    pub fn keep_reserve(&self) -> io::Result<()> {
        let path = self.home()?.folder.join(RESERVE);
        let wanted = (self.config.max_bytes / 8).min(LARGEST_RESERVE);
        if fs::metadata(&path).is_ok_and(|found| found.len() == wanted) {
            return Ok(());
        }
        let mut file =
            File::options().create(true).write(true).truncate(true).mode(0o600).open(&path)?;
        let taken = io::copy(&mut io::Read::take(io::repeat(1), wanted), &mut file)
            .and_then(|_| file.sync_all());
        if taken.is_err() {
            remove(&path);
        }
        taken
    }

    fn give_up_reserve(&self) {
        if let Some(home) = self.home.get() {
            remove(&home.folder.join(RESERVE));
        }
    }
}
