//! Rows past their retention, dropped from the front of the chain.
//!
//! What is dropped is looked at first: a row that was tampered with stays, and
//! with it everything behind it, for somebody to see. The last row that went
//! leaves its number and its hash, sealed, from where a verification begins.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

use super::{AuditService, Place, verify::Walk};
use crate::{
    domain::audit::{Action, Event, SYSTEM},
    repositories::{End, Repositories as _, StoreError},
};

/// Also the name under which the turn is taken.
const TURN: &str = "audit_retention";
/// Dropping is noted, so more often would fill the log by itself.
const PAUSE: TimeDelta = TimeDelta::days(1);
/// Dropped at once, while appends wait.
const ROWS: u32 = 500;

impl AuditService {
    /// Drops rows past their retention if the last time is a day ago, by one
    /// instance for all of them.
    pub async fn prune(&self) -> Result<(), StoreError> {
        let Some(retention) = self.retention else { return Ok(()) };
        let now = self.clock.now();
        let turn = self.db.session().await?.settings().turn(TURN).await?;
        if turn.is_some_and(|turn| !turn.is_over(PAUSE, now)) {
            return Ok(());
        }
        let mut tx = self.db.begin().await?;
        let ours = tx.settings().take_turn(TURN, PAUSE, now).await?;
        tx.commit().await?;
        if !ours {
            return Ok(());
        }
        let mut dropped = 0;
        loop {
            match self.drop_some(now - retention).await? {
                0 => break,
                rows => dropped += rows,
            }
        }
        if dropped > 0 {
            tracing::info!(rows = dropped, "rows of the audit log were past their retention");
        }
        Ok(())
    }

    /// How many rows of before `before` were dropped. The clocks of instances
    /// differ: up to the first row that is to stay, whatever lies behind it.
    async fn drop_some(&self, before: DateTime<Utc>) -> Result<usize, StoreError> {
        let mut tx = self.db.begin().await?;
        let ends = tx.audit().lock_ends().await?;
        let rows = tx.audit().after(ends.dropped.seq, ROWS).await?;
        let mut walk = Walk::behind(&self.seals, &ends.dropped);
        let mut dropped = 0;
        for row in rows.iter().take_while(|row| row.at < before) {
            if let Err(fault) = walk.take(row) {
                let fault = fault.to_string();
                tracing::error!(fault, "the audit log was tampered with; nothing is dropped");
                return Ok(0);
            }
            dropped += 1;
        }
        if dropped == 0 {
            return Ok(0);
        }
        if !self.seals.is_good(Place::Dropped, &ends.dropped) {
            tracing::error!("the audit log's mark of dropped rows is not good; nothing is dropped");
            return Ok(0);
        }
        let mut end = End { seq: walk.seq, hash: walk.hash, key: String::new(), seal: vec![] };
        self.seals.seal_end(Place::Dropped, &mut end);
        // In the same transaction, or they could be gone and nothing tell of it. First,
        // since the log is never without a row.
        let event = Event::of_all(Action::AuditPruned, "audit").after(json!({ "rows": dropped }));
        self.append(&mut tx, &SYSTEM, event).await?;
        tx.audit().drop_through(&end).await?;
        tx.commit().await?;
        Ok(dropped)
    }
}
