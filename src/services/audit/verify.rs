//! The chain walked from end to end, in one snapshot: also while others append.
//!
//! Each row is judged by itself (its hash, its seal) and by the row before it
//! (its number, the hash it names). Where rows were sealed with a key that is
//! not configured any more, the seal of the head stands for them: it covers the
//! last hash, and that covers everything before it.

use std::fmt;

use serde::Serialize;

use super::{
    AuditService, Place,
    seals::{Looked, Seals},
};
use crate::{
    domain::audit::{AuditRow, Hash},
    repositories::{End, Ends, Repositories as _, StoreError, Tx},
};

/// Rows that are read at once.
const ROWS: u32 = 1000;

/// A row that somebody wrote down elsewhere, to hold the log to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    pub seq: i64,
    pub hash: Hash,
}

/// What walking the chain came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Rows that are good.
    pub rows: u64,
    /// The last row that was dropped when its time was over; 0: none was.
    pub dropped: i64,
    /// The number and the hash of the last good row: an anchor.
    pub last: i64,
    pub hash: String,
    /// The first thing that is wrong.
    pub fault: Option<Fault>,
}

/// What is wrong with a row, or where one should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    pub seq: i64,
    pub kind: FaultKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// It is not what it was: edited, or swapped with another.
    Changed,
    /// It is whole, but made for another place or by somebody without the key.
    Forged,
    /// It does not name the hash of the row before it.
    Unlinked,
    /// It is not there, and later ones are.
    Missing,
    /// It is not there, nor are later ones, and the head says that they were.
    CutOff,
    /// It lies behind the head: inserted, or the head was moved back.
    BehindHead,
    /// The head is missing, or not what was written.
    Head,
    /// What says which rows were dropped is not what was written.
    Dropped,
    /// Nothing that is written reads like this.
    Unreadable,
    /// The seal of the head, or of what was dropped, is of a key that is not
    /// configured: it cannot be judged.
    UnknownKey,
    /// It is not the row that was written down.
    Anchor,
    /// The row that was written down is past its retention.
    AnchorDropped,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = match self.kind {
            FaultKind::Changed => "was changed or swapped",
            FaultKind::Forged => "has a seal that was not made for it",
            FaultKind::Unlinked => "does not follow the row before it",
            FaultKind::Missing => "is missing",
            FaultKind::CutOff => "is missing, with every row behind it",
            FaultKind::BehindHead => "lies behind the head of the log",
            FaultKind::Head => "is not what the head of the log was made for",
            FaultKind::Dropped => "is not what the mark of dropped rows was made for",
            FaultKind::Unreadable => "cannot be read",
            FaultKind::UnknownKey => {
                "was sealed with a key that is neither SECRETS_KEY nor in SECRETS_PREVIOUS_KEYS"
            }
            FaultKind::Anchor => "is not the row that was written down",
            FaultKind::AnchorDropped => "was written down and is past its retention by now",
        };
        write!(f, "row {} {said}", self.seq)
    }
}

/// How far the chain is good.
pub(super) struct Walk<'a> {
    seals: &'a Seals,
    /// The last good row.
    pub seq: i64,
    pub hash: Hash,
    rows: u64,
}

impl<'a> Walk<'a> {
    pub fn behind(seals: &'a Seals, dropped: &End) -> Self {
        Self { seals, seq: dropped.seq, hash: dropped.hash, rows: 0 }
    }

    /// Goes one row further.
    pub fn take(&mut self, row: &AuditRow) -> Result<(), Fault> {
        let next = self.seq + 1;
        if row.seq != next {
            return Err(Fault { seq: next, kind: FaultKind::Missing });
        }
        let fault = |kind| Err(Fault { seq: next, kind });
        if row.own_hash() != row.hash {
            return fault(FaultKind::Changed);
        }
        if row.previous != self.hash {
            return fault(FaultKind::Unlinked);
        }
        if self.seals.look(Place::Row, row.seq, &row.hash, &row.key, &row.seal) == Looked::Bad {
            return fault(FaultKind::Forged);
        }
        (self.seq, self.hash) = (next, row.hash);
        self.rows += 1;
        Ok(())
    }
}

impl AuditService {
    /// Looks at every row, up to the first that is wrong. Mends nothing.
    pub async fn verify(&self, anchor: Option<Anchor>) -> Result<Verified, StoreError> {
        let mut snapshot = self.db.snapshot().await?;
        let Some(ends) = snapshot.audit().ends().await? else {
            let fault = Some(Fault { seq: 0, kind: FaultKind::Head });
            return Ok(Verified { rows: 0, dropped: 0, last: 0, hash: String::new(), fault });
        };
        let mut walk = Walk::behind(&self.seals, &ends.dropped);
        let fault = match self.judge_dropped(&ends.dropped, anchor) {
            Err(fault) => Some(fault),
            Ok(()) => self.walk(&mut snapshot, &ends, &mut walk, anchor).await?.err(),
        };
        // Whoever made an account left a row.
        let emptied = fault.is_none() && ends.head.seq == 0 && snapshot.users().any().await?;
        let fault = fault.or(emptied.then_some(Fault { seq: 1, kind: FaultKind::CutOff }));
        Ok(Verified {
            rows: walk.rows,
            dropped: ends.dropped.seq,
            last: walk.seq,
            hash: hex::encode(walk.hash),
            fault,
        })
    }

    fn judge_dropped(&self, dropped: &End, anchor: Option<Anchor>) -> Result<(), Fault> {
        self.judge_end(Place::Dropped, dropped, FaultKind::Dropped)?;
        match anchor {
            Some(anchor) if anchor.seq < dropped.seq => {
                Err(Fault { seq: anchor.seq, kind: FaultKind::AnchorDropped })
            }
            Some(anchor) if anchor.seq == dropped.seq && anchor.hash != dropped.hash => {
                Err(Fault { seq: anchor.seq, kind: FaultKind::Anchor })
            }
            _ => Ok(()),
        }
    }

    fn judge_end(&self, place: Place, end: &End, bad: FaultKind) -> Result<(), Fault> {
        let kind = match self.seals.look_at_end(place, end) {
            Looked::Good => return Ok(()),
            Looked::Bad => bad,
            Looked::UnknownKey => FaultKind::UnknownKey,
        };
        Err(Fault { seq: end.seq, kind })
    }

    async fn walk(
        &self,
        snapshot: &mut Tx,
        ends: &Ends,
        walk: &mut Walk<'_>,
        anchor: Option<Anchor>,
    ) -> Result<Result<(), Fault>, StoreError> {
        let mut at_once = ROWS;
        loop {
            let rows = match snapshot.audit().after(walk.seq, at_once).await {
                Ok(rows) => rows,
                // Which one it is shows when they are read one by one.
                Err(StoreError::Database(_)) if at_once > 1 => {
                    at_once = 1;
                    continue;
                }
                Err(StoreError::Database(_)) => {
                    return Ok(Err(Fault { seq: walk.seq + 1, kind: FaultKind::Unreadable }));
                }
                Err(error) => return Err(error),
            };
            if rows.is_empty() {
                return Ok(self.judge_head(walk, &ends.head, anchor));
            }
            for row in &rows {
                if walk.seq == ends.head.seq {
                    return Ok(Err(Fault { seq: row.seq, kind: FaultKind::BehindHead }));
                }
                if let Err(fault) = walk.take(row) {
                    return Ok(Err(fault));
                }
                if anchor.is_some_and(|anchor| anchor.seq == row.seq && anchor.hash != row.hash) {
                    return Ok(Err(Fault { seq: row.seq, kind: FaultKind::Anchor }));
                }
            }
        }
    }

    fn judge_head(&self, walk: &Walk<'_>, head: &End, anchor: Option<Anchor>) -> Result<(), Fault> {
        if walk.seq < head.seq {
            return Err(Fault { seq: walk.seq + 1, kind: FaultKind::CutOff });
        }
        if walk.hash != head.hash {
            return Err(Fault { seq: head.seq, kind: FaultKind::Head });
        }
        self.judge_end(Place::Head, head, FaultKind::Head)?;
        if anchor.is_some_and(|anchor| anchor.seq > head.seq) {
            return Err(Fault { seq: head.seq + 1, kind: FaultKind::CutOff });
        }
        Ok(())
    }
}
