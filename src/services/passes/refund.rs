//! What comes back of a pass, once.

use serde_json::json;

use super::{Holder, OwnedPass, PassError, PassService, RETRIES, state};
use crate::{
    domain::{
        audit::{Action, Actor, Event},
        id::{PassId, TransactionId, UserId},
        idempotency::{Claim, IdempotencyKey, RequestHash},
        ledger::{Account, Kind, Movement},
    },
    failpoint,
    repositories::{Repositories as _, StoreError},
    services::once,
};

impl PassService {
    /// Ends a pass and gives back what the policy says, in one transaction.
    /// Asked again with the same key it answers the same; without, a second
    /// refund is refused.
    ///
    /// # Errors
    /// [`PassError::NotFound`] also for another user's pass,
    /// [`PassError::NotRefundable`], [`PassError::KeyReused`],
    /// [`PassError::WalletFull`], [`PassError::Conflict`].
    pub async fn refund(
        &self,
        by: &Actor,
        user: UserId,
        id: PassId,
        key: Option<IdempotencyKey>,
    ) -> Result<OwnedPass, PassError> {
        let claim = once::claim(user, key, RequestHash::of("refund", &[&id]));
        for _ in 0..RETRIES {
            match once::settle(|| self.try_refund(by, &claim, id)).await {
                // Begun or ended in between: what comes back may be another sum.
                Err(PassError::Conflict) => {}
                settled => return settled,
            }
        }
        Err(PassError::Conflict)
    }

    async fn try_refund(
        &self,
        by: &Actor,
        claim: &Claim,
        id: PassId,
    ) -> Result<OwnedPass, PassError> {
        let (now, user) = (self.clock.now(), claim.user_id);
        let mut tx = self.db.begin().await?;
        failpoint::reach("refund.begun").await;
        let outcome = tx.idempotency().claim(claim, id.as_uuid(), now).await?;
        let found = tx.passes().find(id, Holder::User(user).filter()).await?;
        let (pass, sealed) = found.ok_or(PassError::NotFound)?;
        let hash = tx.passes().hash(id).await?.ok_or(PassError::NotFound)?;
        if once::done_before::<PassId>(outcome)?.is_some() {
            // Others may want the connection while a slow Redis is told.
            drop(tx);
            // Whoever did it may not have come to tell the caches.
            self.cache.pass_changed(&hash, pass.version).await;
            return Ok(self.with_text(pass, &sealed));
        }
        failpoint::reach("refund.claimed").await;
        let back = pass.refund(self.config.refund, now)?;
        let ended = tx.passes().end(id, pass.version, Some(back), now).await?;
        let ended = ended.ok_or(PassError::Conflict)?;
        failpoint::reach("refund.ended").await;
        if back > 0 {
            let purchase = tx.ledger().purchase_of(id).await?.ok_or_else(missing_purchase)?;
            let balance = tx.ledger().change_balance(user, back).await?;
            let balance = balance.ok_or(PassError::WalletFull)?;
            failpoint::reach("refund.credited").await;
            let movement = Movement {
                id: TransactionId::new(now),
                user_id: user,
                kind: Kind::Refund,
                amount_minor: back,
                counter: Account::Revenue,
                pass_id: Some(id),
                voucher_id: None,
                reverses_id: Some(purchase.id),
                reason: None,
                actor_id: None,
                at: now,
            };
            tx.ledger().book(movement, balance).await?;
        }
        failpoint::reach("refund.booked").await;
        let event = Event::new(Action::TokenRefunded, "token", id)
            .before(state(&pass))
            .after(json!({ "refunded_minor": back }));
        self.audit.commit(tx, by, event).await?;
        failpoint::reach("refund.committed").await;
        self.cache.pass_changed(&hash, ended.version).await;
        Ok(self.with_text(ended, &sealed))
    }
}

/// A pass with a price that nobody paid cannot be: the two are written
/// together.
fn missing_purchase() -> StoreError {
    StoreError::inconsistent("a pass was paid for but its purchase is missing")
}
