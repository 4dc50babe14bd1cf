//! The audit log: written in the transaction of the change, searched, verified,
//! and dropped in time without breaking the chain.
//!
//! Every append waits for the row with the head of the chain, so it is the last
//! thing that a transaction does: [`AuditService::commit`] appends and commits.
//! Whoever holds the head takes no other lock, so no two can wait for each
//! other, and it is held for two round trips and the commit.
//!
//! What is not a change of a row is noted in a transaction of its own
//! ([`AuditService::note`]), and refused logins are counted and noted once a
//! minute ([`Attempts`]): nobody fills the log or holds up others by guessing.

mod anchors;
mod attempts;
mod prune;
mod re_anchor;
mod seals;
mod verify;

use chrono::TimeDelta;

use self::seals::Seals;
pub use self::{
    anchors::{ANCHOR_FILE, AnchorError},
    attempts::{Attempts, Refused},
    re_anchor::ReAnchorError,
    seals::Place,
    verify::{Anchor, Fault, FaultKind, Verified},
};
use super::{Sealer, StoreError};
/// What the log can be searched by, and an end of its chain.
pub use crate::repositories::{AuditFilter, End};
use crate::{
    config::AuditConfig,
    domain::{
        audit::{Action, Actor, AuditRow, Event, Hash, SYSTEM, Unplaced},
        clock::SharedClock,
        page::{Page, PageRequest},
    },
    failpoint,
    repositories::{Database, Repositories as _, Tx},
};

/// The seal of a head that is not known to be ours.
const UNSEALED: Hash = [0; 32];

pub struct AuditService {
    db: Database,
    clock: SharedClock,
    seals: Seals,
    attempts: Attempts,
    /// `None`: for ever.
    retention: Option<TimeDelta>,
}

impl AuditService {
    pub fn new(db: Database, clock: SharedClock, sealer: &Sealer, config: AuditConfig) -> Self {
        let days = config.retention_days;
        let retention = (days > 0).then(|| TimeDelta::days(i64::from(days)));
        Self { db, clock, seals: Seals::new(sealer), attempts: Attempts::default(), retention }
    }

    /// Appends what was done to the log and commits it with the change: both or
    /// neither. A change of nothing has no row.
    pub(super) async fn commit(
        &self,
        mut tx: Tx,
        by: &Actor,
        event: Event,
    ) -> Result<(), StoreError> {
        failpoint::reach("audit.begun").await;
        if event.changes_nothing() {
            return tx.commit().await;
        }
        self.append(&mut tx, by, event).await?;
        failpoint::reach("audit.appended").await;
        tx.commit().await?;
        failpoint::reach("audit.committed").await;
        Ok(())
    }

    /// Appends what is no change in the database.
    pub async fn note(&self, by: &Actor, event: Event) -> Result<(), StoreError> {
        let tx = self.db.begin().await?;
        self.commit(tx, by, event).await
    }

    async fn append(&self, tx: &mut Tx, by: &Actor, event: Event) -> Result<(), StoreError> {
        self.append_after(tx, by, event, false).await
    }

    /// `vouched`: somebody answers for the head that is there, whatever its seal.
    async fn append_after(
        &self,
        tx: &mut Tx,
        by: &Actor,
        event: Event,
        vouched: bool,
    ) -> Result<(), StoreError> {
        // All that can be done before others have to wait.
        let row = Unplaced::new(by, event, self.clock.now());
        let last = tx.audit().lock_ends().await?.head;
        let is_good = vouched || self.seals.is_good(Place::Head, &last);
        let mut row = row.placed(last.seq, last.hash);
        (row.key, row.seal) = self.seals.seal(Place::Row, row.seq, &row.hash);
        let (_, mut head_seal) = self.seals.seal(Place::Head, row.seq, &row.hash);
        if !is_good {
            // A good seal would stand for whatever was done to the rows before. The
            // change itself is not to wait for somebody who looks into it.
            tracing::error!(seq = row.seq, "the end of the audit log is not as it was written");
            head_seal = UNSEALED;
        }
        tx.audit().append(&row, &head_seal).await
    }

    /// What is refused at a login is counted here.
    pub fn attempts(&self) -> &Attempts {
        &self.attempts
    }

    /// Notes the logins that were refused since the last time, if there were any.
    pub async fn note_attempts(&self) -> Result<(), StoreError> {
        let Some(counted) = self.attempts.take() else { return Ok(()) };
        let event = Event::of_all(Action::LoginsRefused, "login").after(counted.state());
        let noted = self.note(&SYSTEM, event).await;
        if noted.is_err() {
            self.attempts.put_back(counted);
        }
        noted
    }

    /// Newest first.
    pub async fn list(
        &self,
        filter: &AuditFilter,
        page: PageRequest,
    ) -> Result<Page<AuditRow>, StoreError> {
        self.db.session().await?.audit().list(filter, page).await
    }

    /// Some rows behind `seq` in their order; none at the end.
    pub async fn after(&self, seq: i64) -> Result<Vec<AuditRow>, StoreError> {
        const ROWS: u32 = 1000;
        self.db.session().await?.audit().after(seq, ROWS).await
    }

    /// The last row: what to write down elsewhere.
    pub async fn head(&self) -> Result<Option<End>, StoreError> {
        Ok(self.db.session().await?.audit().ends().await?.map(|ends| ends.head))
    }

    /// Gives the log its first row where there are accounts already, as after an
    /// upgrade: from then on an empty log is one that was emptied.
    pub async fn begin(&self) -> Result<(), StoreError> {
        let mut session = self.db.session().await?;
        let is_empty = session.audit().ends().await?.is_some_and(|ends| ends.head.seq == 0);
        if !is_empty || !session.users().any().await? {
            return Ok(());
        }
        drop(session);
        tracing::warn!("the audit log is empty and accounts are there: it begins now");
        self.note(&SYSTEM, Event::of_all(Action::AuditBegun, "audit")).await
    }

    /// Notes that everything sealed was sealed again, and does so with the ends
    /// of the chain.
    pub(super) async fn rotated(&self, by: &Actor, event: Event) -> Result<(), StoreError> {
        let mut tx = self.db.begin().await?;
        let mut dropped = tx.audit().lock_ends().await?.dropped;
        if dropped.seq > 0 && self.seals.is_good(Place::Dropped, &dropped) {
            self.seals.seal_end(Place::Dropped, &mut dropped);
            tx.audit().mark_dropped(&dropped).await?;
        }
        self.commit(tx, by, event).await
    }
}
