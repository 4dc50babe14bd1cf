//! What is done where there is no room: some is kept for requests under way,
//! and what finds none waits in memory.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::OpenOptionsExt as _,
    sync::{
        MutexGuard, PoisonError,
        atomic::Ordering::{Relaxed, SeqCst},
    },
};

use super::{Entry, Inner, Journal, home::remove};
use crate::config::OnFull;

/// Room that is kept for the records of requests under way: some thousand.
const LARGEST_RESERVE: u64 = 8 * 1024 * 1024;
/// Records in memory that found no place on the disk at all.
const HELD_BACK: usize = 10_000;
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
        if too_much || !inner.write_held_back() {
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
    /// Writes it, if need be in the room that was kept for that.
    pub fn write(&self, mut entry: Entry) {
        if self.full.load(Relaxed) && self.config.on_full == OnFull::Unmetered {
            self.dropped.fetch_add(1, Relaxed);
            return;
        }
        entry.record.place = self.next_place(entry.record.ended_us());
        let Err(error) = self.append(&entry) else { return };
        self.become_full_by(&error);
        self.give_up_reserve();
        if self.append(&entry).is_ok() {
            return;
        }
        let mut held = self.held_back();
        if held.len() < HELD_BACK {
            held.push(entry);
            self.held.store(held.len(), SeqCst);
        } else {
            self.dropped.fetch_add(1, Relaxed);
        }
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

    fn held_back(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.held_back.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether all that had no place has one now.
    fn write_held_back(&self) -> bool {
        let mut held = self.held_back();
        let placed = held.iter().take_while(|entry| self.append(entry).is_ok()).count();
        held.drain(..placed);
        self.held.store(held.len(), SeqCst);
        held.is_empty()
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
