//! The ledger verified now and then, by one instance for all of them, and what
//! came of it noted where every instance reads it (RELIABILITY G-76).

use chrono::TimeDelta;

use super::{Difference, Verification, WalletService};
use crate::repositories::{Repositories as _, StoreError};

/// Also the name of the note.
const TURN: &str = "ledger_verification";
/// How long after one verification began the next one does.
const PAUSE: TimeDelta = TimeDelta::hours(1);
/// Differences that are logged one by one; the rest is counted. `tollgate wallet
/// verify` lists them all.
const LOGGED: u64 = 20;

impl WalletService {
    /// Verifies the ledger if the last time is an hour ago and no other instance
    /// does; what the last verification said, whoever made it.
    pub async fn reconcile(&self) -> Result<Option<Verification>, StoreError> {
        let now = self.clock.now();
        let turn = self.db.session().await?.settings().turn(TURN).await?;
        if turn.as_ref().is_none_or(|turn| turn.is_over(PAUSE, now)) {
            let mut tx = self.db.begin().await?;
            let ours = tx.settings().take_turn(TURN, PAUSE, now).await?;
            tx.commit().await?;
            if ours {
                return self.verify_and_log().await.map(Some);
            }
        }
        Ok(turn.and_then(|turn| serde_json::from_str(&turn.value).ok()))
    }

    async fn verify_and_log(&self) -> Result<Verification, StoreError> {
        let mut logged = 0;
        let log = |difference: Difference| {
            logged += 1;
            if logged <= LOGGED {
                tracing::error!(difference = difference.to_string(), "the ledger is wrong");
            }
        };
        let done = self.verify_and_note(log).await?;
        let Verification { wallets, transactions, passes, differences, .. } = done;
        if differences > LOGGED {
            tracing::error!(differences, "the ledger is wrong in more places");
        }
        tracing::info!(wallets, transactions, passes, differences, "the ledger was verified");
        Ok(done)
    }

    /// [`WalletService::verify`], noted for every instance.
    pub async fn verify_and_note(
        &self,
        found: impl FnMut(Difference) + Send,
    ) -> Result<Verification, StoreError> {
        let mut done = self.verify(found).await?;
        let now = self.clock.now();
        done.at = Some(now);
        let note = serde_json::to_string(&done).expect("numbers and a time are JSON");
        let mut tx = self.db.begin().await?;
        tx.settings().set(TURN, &note, now).await?;
        tx.commit().await?;
        Ok(done)
    }
}
