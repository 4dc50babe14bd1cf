//! From the journal into the database.

use std::{collections::BTreeSet, sync::atomic::Ordering::Relaxed};

use uuid::Uuid;

use super::{UsageService, batch::Batch};
use crate::{
    domain::{
        span::Grain,
        usage::{Rollup, RollupKey, UsageRecord},
    },
    failpoint::reach,
    journal::{self, Chunk, Mark, Orphan},
    repositories::{Repositories as _, StoreError},
};

/// Bytes of a journal that are written in one transaction.
const AT_ONCE: usize = 4 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the journal of usage cannot be read")]
    Journal(#[from] std::io::Error),
}

/// What became of some chunks.
enum Added {
    /// They are in the database, with so many records.
    Whole { marks: Vec<Mark>, records: usize, damaged: u64 },
    /// The database is not where these begin; nothing was added.
    Elsewhere,
}

impl UsageService {
    /// Writes everything that waits; how many records. What fails stays where
    /// it is, for the next call.
    pub async fn flush(&self) -> Result<usize, DrainError> {
        // One at a time: each begins where the one before ended.
        let mut unsure = self.draining.lock().await;
        self.look_for_room().await;
        let mut written = 0;
        loop {
            if *unsure {
                self.ask_for_positions().await?;
                *unsure = false;
            }
            let chunks = self.read().await?;
            if chunks.is_empty() {
                self.caught_up();
                if self.journal.is_full() {
                    self.look_for_room().await;
                }
                return Ok(written);
            }
            // Whether an error came before or after the commit is not known.
            *unsure = true;
            if let Added::Whole { marks, records, damaged } =
                self.add(self.journal.id(), &chunks).await?
            {
                *unsure = false;
                self.journal.release(&marks);
                self.tell_damaged(damaged);
                self.flushed.fetch_add(records as u64, Relaxed);
                written += records;
            }
        }
    }

    /// To be called also while the database holds up a flush.
    pub async fn look_for_room(&self) {
        let journal = self.journal.clone();
        // A panic in there is told by the task itself.
        let _ = tokio::task::spawn_blocking(move || journal.look_for_room()).await;
    }

    async fn read(&self) -> std::io::Result<Vec<Chunk>> {
        let journal = self.journal.clone();
        tokio::task::spawn_blocking(move || journal.read(AT_ONCE)).await?
    }

    async fn ask_for_positions(&self) -> Result<(), StoreError> {
        let mut session = self.db.session().await?;
        for (lane, position) in session.usage().journal_positions(self.journal.id()).await? {
            self.journal.move_to(lane, position);
        }
        Ok(())
    }

    fn tell_damaged(&self, bytes: u64) {
        if bytes > 0 {
            self.journal.add_damaged(bytes);
            tracing::error!(bytes, "a part of the journal of usage was damaged and is lost");
        }
    }

    /// Adds what processes left that were killed, and removes their folders;
    /// how many records. What fails with one of them holds up no other.
    pub async fn adopt(&self) -> Result<usize, DrainError> {
        let folder = self.folder.clone();
        let found = tokio::task::spawn_blocking(move || journal::orphans(&folder));
        let (mut written, mut failed) = (0, None);
        for orphan in found.await.map_err(std::io::Error::other)?? {
            match self.adopt_one(orphan).await {
                Ok(records) => written += records,
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(written), Err)
    }

    async fn adopt_one(&self, orphan: Orphan) -> Result<usize, DrainError> {
        let (journal, folder) = (orphan.id, orphan.folder().display().to_string());
        let records = self.add_orphan(&orphan).await?;
        reach("usage.adopted").await;
        tracing::info!(records, folder, "the usage that another process left was added");
        let removed = tokio::task::spawn_blocking(move || orphan.remove()).await;
        removed.map_err(std::io::Error::other)??;
        // Only now: with its files a journal without a mark would be added again.
        let mut tx = self.db.begin().await?;
        tx.usage().forget_journal(journal).await?;
        tx.commit().await?;
        Ok(records)
    }

    /// Adds all of a journal that is not in the database yet; how many records.
    /// Another time adds nothing.
    pub async fn add_orphan(&self, orphan: &Orphan) -> Result<usize, DrainError> {
        let mut written = 0;
        for lane in orphan.lanes() {
            loop {
                let mut session = self.db.session().await?;
                let positions = session.usage().journal_positions(orphan.id).await?;
                drop(session);
                let known = positions.into_iter().find(|(of, _)| *of == lane);
                let from = known.map_or(0, |(_, position)| position);
                let Some(chunk) = orphan.read(lane, from, AT_ONCE)? else { break };
                if let Added::Whole { records, damaged, .. } = self.add(orphan.id, &[chunk]).await?
                {
                    self.tell_damaged(damaged);
                    written += records;
                }
            }
        }
        Ok(written)
    }

    /// Sees to the tables of the months that a batch is of. Nearly always that is
    /// this month, whose table is known to be there: it is not dropped.
    async fn make_room(
        &self,
        rollups: &[(RollupKey, Rollup)],
        logged: &[UsageRecord],
    ) -> Result<(), StoreError> {
        let hours = rollups.iter().map(|(key, _)| key.hour);
        let ends = logged.iter().map(|record| record.place.time());
        let months: BTreeSet<_> = hours.chain(ends).map(|at| Grain::Month.floor(at)).collect();
        for month in months {
            self.add_month(month).await?;
        }
        Ok(())
    }

    /// One transaction: the sums, the log, and the mark that says so.
    async fn add(&self, journal: Uuid, chunks: &[Chunk]) -> Result<Added, StoreError> {
        let Batch { rollups, last_used, logged, marks, records, damaged } =
            Batch::of(chunks, self.request_log_max as usize);
        self.make_room(&rollups, &logged).await?;
        let mut tx = self.db.begin().await?;
        let now = self.clock.now();
        reach("usage.begun").await;
        for Mark { lane, from, to } in marks.iter().copied() {
            if !tx.usage().advance_journal(journal, lane, from, to, now).await? {
                return Ok(Added::Elsewhere);
            }
        }
        reach("usage.marked").await;
        tx.usage().add_rollups(&rollups).await?;
        tx.usage().log_requests(&logged).await?;
        tx.api_keys().touch(&last_used).await?;
        reach("usage.added").await;
        tx.commit().await?;
        reach("usage.committed").await;
        self.count_logged(logged.len());
        Ok(Added::Whole { marks, records, damaged })
    }
}
