//! What an instance remembers of the log outside of the database.
//!
//! Whoever owns the database can put all of it back, or empty it, head included,
//! and what is left is good by itself. So every instance keeps the last row that it
//! saw, number and hash, in its data directory, and never replaces it by one
//! that the log does not lead to.

use std::path::Path;

use tokio::{fs, io::AsyncWriteExt as _};

use super::{Anchor, AuditService, Place};
use crate::repositories::{Repositories as _, StoreError};

/// Its name in the data directory.
pub const ANCHOR_FILE: &str = "audit.anchor";

#[derive(Debug, thiserror::Error)]
pub enum AnchorError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the file {ANCHOR_FILE} of the data directory")]
    File(#[from] std::io::Error),
    #[error("the file {ANCHOR_FILE} of the data directory is not a number, a colon and a hash")]
    Unreadable,
}

impl Anchor {
    /// `SEQ:HASH`.
    pub fn parse(text: &str) -> Option<Self> {
        let (seq, hash) = text.trim_end().split_once(':')?;
        let hash = hex::decode(hash).ok()?.try_into().ok()?;
        Some(Self { seq: seq.parse().ok()?, hash })
    }

    /// The one that is kept in this data directory, if any is.
    pub async fn kept(folder: &Path) -> Result<Option<Self>, AnchorError> {
        match fs::read_to_string(folder.join(ANCHOR_FILE)).await {
            Ok(text) => Self::parse(&text).map(Some).ok_or(AnchorError::Unreadable),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn keep(self, folder: &Path) -> Result<(), AnchorError> {
        let Self { seq, hash } = self;
        let (path, new) = (folder.join(ANCHOR_FILE), folder.join(format!("{ANCHOR_FILE}.new")));
        let mut file = fs::File::create(&new).await?;
        file.write_all(format!("{seq}:{}\n", hex::encode(hash)).as_bytes()).await?;
        file.sync_all().await?;
        Ok(fs::rename(new, path).await?)
    }
}

impl AuditService {
    /// Writes the head of the chain to the log and to the data directory, unless it
    /// does not come after what is there.
    pub async fn keep_anchor(&self, folder: &Path) -> Result<(), AnchorError> {
        let kept = Anchor::kept(folder).await?;
        let mut snapshot = self.db.snapshot().await?;
        let Some(ends) = snapshot.audit().ends().await? else { return Ok(()) };
        if let Some(kept) = kept {
            let row = match kept.seq.checked_sub(1) {
                Some(before) => snapshot.audit().after(before, 1).await?.pop(),
                None => None,
            };
            let is_there = row.is_some_and(|row| (row.seq, row.hash) == (kept.seq, kept.hash));
            // Dropped for its age, which only a mark that is sealed says.
            let dropped = &ends.dropped;
            let is_past =
                kept.seq < dropped.seq || (kept.seq, kept.hash) == (dropped.seq, dropped.hash);
            let is_past = is_past && self.seals.is_good(Place::Dropped, dropped);
            if ends.head.seq < kept.seq || !(is_there || is_past) {
                tracing::error!(
                    seq = kept.seq,
                    hash = hex::encode(kept.hash),
                    "the audit log does not hold a row any more that it held: `tollgate audit verify`"
                );
                return Ok(());
            }
        }
        drop(snapshot);
        if ends.head.seq == 0 || !self.seals.is_good(Place::Head, &ends.head) {
            return Ok(());
        }
        let hash = hex::encode(ends.head.hash);
        tracing::info!(seq = ends.head.seq, hash, "the head of the audit log");
        Anchor { seq: ends.head.seq, hash: ends.head.hash }.keep(folder).await
    }

    /// Keeps the head as it is now, whatever was kept.
    pub async fn replace_anchor(&self, folder: &Path) -> Result<(), AnchorError> {
        match self.head().await? {
            Some(head) => Anchor { seq: head.seq, hash: head.hash }.keep(folder).await,
            None => Ok(()),
        }
    }
}
