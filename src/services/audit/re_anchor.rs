//! Going on after the key of the seals was lost.
//!
//! Without the key the seals of the two ends cannot be judged, and an instance
//! seals no head that follows one which it does not know to be good. An operator
//! who knows why says so once: the chain of hashes is walked as far as it can be
//! judged, a row tells who went on and from where, and the ends are sealed anew.

use serde_json::json;

use super::{AuditService, Fault, FaultKind, Place, seals::Looked, verify::Walk};
use crate::{
    domain::audit::{Action, Actor, Event},
    repositories::{Repositories as _, StoreError, Tx},
};

/// Rows that are read at once.
const ROWS: u32 = 1000;

#[derive(Debug, thiserror::Error)]
pub enum ReAnchorError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Rows are not what they were, which no seal can mend.
    #[error("{0}")]
    Broken(Fault),
    /// Rows were appended meanwhile.
    #[error("the log moved on; try again")]
    Moved,
}

impl AuditService {
    /// Seals both ends anew if all hashes are good, and appends a row that says
    /// so; what was wrong with the seals before.
    ///
    /// # Errors
    /// A row was changed, is missing, or has a seal of a key that is known and did
    /// not make it.
    pub async fn re_anchor(
        &self,
        by: &Actor,
        reason: &str,
    ) -> Result<Option<Fault>, ReAnchorError> {
        let before = self.verify(None).await?.fault;
        // Walked before others have to wait for it.
        let mut snapshot = self.db.snapshot().await?;
        let (seq, hash) = self.walk_hashes(&mut snapshot).await?;
        drop(snapshot);
        let mut tx = self.db.begin().await?;
        let ends = tx.audit().lock_ends().await?;
        if (ends.head.seq, ends.head.hash) != (seq, hash) {
            return Err(ReAnchorError::Moved);
        }
        if ends.dropped.seq > 0 {
            let mut dropped = ends.dropped;
            self.seals.seal_end(Place::Dropped, &mut dropped);
            tx.audit().mark_dropped(&dropped).await?;
        }
        let event = Event::of_all(Action::AuditReAnchored, "audit").after(json!({
            "reason": reason,
            "from": format!("{seq}:{}", hex::encode(hash)),
            "fault": before.map(|fault| fault.to_string()),
        }));
        self.append_after(&mut tx, by, event, true).await?;
        tx.commit().await?;
        Ok(before)
    }

    async fn walk_hashes(
        &self,
        snapshot: &mut Tx,
    ) -> Result<(i64, crate::domain::audit::Hash), ReAnchorError> {
        let broken = |seq, kind| ReAnchorError::Broken(Fault { seq, kind });
        let ends = snapshot.audit().ends().await?.ok_or(broken(0, FaultKind::Head))?;
        if self.seals.look_at_end(Place::Dropped, &ends.dropped) == Looked::Bad {
            return Err(broken(ends.dropped.seq, FaultKind::Dropped));
        }
        let mut walk = Walk::behind(&self.seals, &ends.dropped);
        loop {
            let rows = snapshot.audit().after(walk.seq, ROWS).await?;
            if rows.is_empty() {
                break;
            }
            for row in &rows {
                walk.take(row).map_err(ReAnchorError::Broken)?;
            }
        }
        if walk.seq < ends.head.seq {
            return Err(broken(walk.seq + 1, FaultKind::CutOff));
        }
        if walk.seq > ends.head.seq {
            return Err(broken(ends.head.seq + 1, FaultKind::BehindHead));
        }
        if walk.hash != ends.head.hash {
            return Err(broken(walk.seq, FaultKind::Head));
        }
        Ok((walk.seq, walk.hash))
    }
}
