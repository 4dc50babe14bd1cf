//! Passes that are sold, and passes that an admin gives.

use super::{Draft, Order, OwnedPass, PassError, PassService, state};
use crate::{
    domain::{
        audit::{Action, Actor, Event},
        id::{PassId, TransactionId, UserId},
        idempotency::{Claim, IdempotencyKey, RequestHash},
        ledger::{Account, Kind, Movement},
        pass::{MAX_HOURS, Origin, Pass},
    },
    failpoint,
    repositories::{Balance, Repositories as _, StoreError, Tx},
    services::once,
};

impl PassService {
    /// Sells a pass at today's price. Asked again with the same key it answers
    /// what it answered first, the pass as it was then, whatever became of it.
    ///
    /// # Errors
    /// [`PassError::NotOffered`], [`PassError::NoSuchUpstream`],
    /// [`PassError::BalanceTooLow`], [`PassError::KeyReused`].
    pub async fn purchase(
        &self,
        by: &Actor,
        user: UserId,
        order: Order,
        key: Option<IdempotencyKey>,
    ) -> Result<OwnedPass, PassError> {
        let Order { duration_hours, upstream } = &order;
        let request = RequestHash::of(
            "purchase",
            &[duration_hours, &upstream.is_some(), &upstream.as_deref().unwrap_or_default()],
        );
        let repeatable = key.is_some();
        let claim = once::claim(user, key, request);
        let price = match self.offer(&order) {
            Ok(price) => price,
            Err(refused) if repeatable => return self.given_before(&claim, user, refused).await,
            Err(refused) => return Err(refused),
        };
        let draft = self.draft(user, order, Origin::Purchase, price, self.clock.now());
        once::settle(|| self.try_purchase(by, &claim, &draft)).await
    }

    async fn try_purchase(
        &self,
        by: &Actor,
        claim: &Claim,
        draft: &Draft,
    ) -> Result<OwnedPass, PassError> {
        let Draft { pass, token, sealed } = draft;
        let mut tx = self.db.begin().await?;
        failpoint::reach("purchase.begun").await;
        let outcome = tx.idempotency().claim(claim, pass.id.as_uuid(), pass.created_at).await?;
        if let Some(id) = once::done_before(outcome)? {
            return self.as_given(tx, claim.user_id, id).await?.ok_or(PassError::NotFound);
        }
        failpoint::reach("purchase.claimed").await;
        let balance = match pass.price_minor {
            0 => None,
            price => Some(charge(&mut tx, pass.user_id, price).await?),
        };
        failpoint::reach("purchase.charged").await;
        tx.passes().insert(pass, &token.hash(), sealed).await?;
        failpoint::reach("purchase.inserted").await;
        if let Some(balance) = balance {
            tx.ledger().book(sold(pass), balance).await?;
        }
        failpoint::reach("purchase.booked").await;
        let event = Event::new(Action::TokenPurchased, "token", pass.id).after(state(pass));
        self.audit.commit(tx, by, event).await?;
        failpoint::reach("purchase.committed").await;
        Ok(self.with_text(pass.clone(), sealed))
    }

    /// Gives a pass for nothing, on an operator's word. The length is free.
    ///
    /// # Errors
    /// [`PassError::NoSuchUser`], [`PassError::NotOffered`] for a length outside
    /// 1..=[`MAX_HOURS`], [`PassError::NoSuchUpstream`], [`PassError::KeyReused`].
    pub async fn grant(
        &self,
        by: &Actor,
        user: UserId,
        order: Order,
        key: Option<IdempotencyKey>,
    ) -> Result<OwnedPass, PassError> {
        let Order { duration_hours, upstream } = &order;
        if !(1..=MAX_HOURS).contains(duration_hours) {
            return Err(PassError::NotOffered(*duration_hours));
        }
        let request = RequestHash::of(
            "grant",
            &[&user, duration_hours, &upstream.is_some(), &upstream.as_deref().unwrap_or_default()],
        );
        let repeatable = key.is_some();
        let claim = once::claim(by.id.unwrap_or(once::COMMAND_LINE), key, request);
        match self.check_upstream(upstream.as_deref()) {
            Ok(()) => {}
            Err(refused) if repeatable => return self.given_before(&claim, user, refused).await,
            Err(refused) => return Err(refused),
        }
        let draft = self.draft(user, order, Origin::Grant, 0, self.clock.now());
        once::settle(|| self.try_grant(by, &claim, &draft)).await
    }

    async fn try_grant(
        &self,
        by: &Actor,
        claim: &Claim,
        draft: &Draft,
    ) -> Result<OwnedPass, PassError> {
        let Draft { pass, token, sealed } = draft;
        let mut tx = self.db.begin().await?;
        let outcome = tx.idempotency().claim(claim, pass.id.as_uuid(), pass.created_at).await?;
        if let Some(id) = once::done_before(outcome)? {
            return self.as_given(tx, pass.user_id, id).await?.ok_or(PassError::NotFound);
        }
        tx.users().find(pass.user_id).await?.ok_or(PassError::NoSuchUser)?;
        tx.passes().insert(pass, &token.hash(), sealed).await?;
        let event = Event::new(Action::TokenGranted, "token", pass.id).after(state(pass));
        self.audit.commit(tx, by, event).await?;
        Ok(self.with_text(pass.clone(), sealed))
    }

    /// Today's price of what is ordered.
    fn offer(&self, order: &Order) -> Result<i64, PassError> {
        let hours = order.duration_hours;
        let sold = self.config.prices.iter().find(|(sold, _)| *sold == hours);
        let (_, price) = sold.ok_or(PassError::NotOffered(hours))?;
        self.check_upstream(order.upstream.as_deref())?;
        Ok(*price)
    }

    /// What the same request was given when it was not `refused` yet: prices and
    /// upstreams change with a restart, and a client may ask again after it.
    async fn given_before(
        &self,
        claim: &Claim,
        user: UserId,
        refused: PassError,
    ) -> Result<OwnedPass, PassError> {
        let outcome = self.db.session().await?.idempotency().find(claim).await?;
        let Some(id) = outcome.map(once::done_before).transpose()?.flatten() else {
            return Err(refused);
        };
        let tx = self.db.begin().await?;
        self.as_given(tx, user, id).await?.ok_or(PassError::NotFound)
    }

    /// The pass as the first answer showed it: a repeated request gets the same.
    /// `None` if it is gone with its user.
    pub(in crate::services) async fn as_given(
        &self,
        mut tx: Tx,
        user: UserId,
        id: PassId,
    ) -> Result<Option<OwnedPass>, StoreError> {
        let found = tx.passes().find(id, Some(user)).await?;
        Ok(found.map(|(pass, sealed)| {
            let first = Pass {
                activated_at: None,
                revoked_at: None,
                refunded_minor: None,
                version: 1,
                ..pass
            };
            self.with_text(first, &sealed)
        }))
    }
}

async fn charge(tx: &mut Tx, user: UserId, price: i64) -> Result<Balance, PassError> {
    if let Some(balance) = tx.ledger().change_balance(user, -price).await? {
        return Ok(balance);
    }
    let balance_minor = tx.ledger().balance(user).await?.unwrap_or(0);
    Err(PassError::BalanceTooLow { balance_minor, missing_minor: (price - balance_minor).max(1) })
}

fn sold(pass: &Pass) -> Movement {
    Movement {
        id: TransactionId::new(pass.created_at),
        user_id: pass.user_id,
        kind: Kind::Purchase,
        amount_minor: -pass.price_minor,
        counter: Account::Revenue,
        pass_id: Some(pass.id),
        voucher_id: None,
        reverses_id: None,
        reason: None,
        actor_id: None,
        at: pass.created_at,
    }
}
