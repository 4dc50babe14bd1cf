//! Wallets: what somebody may spend, and how it came to be.

mod currency;
mod reconcile;
mod statement;
mod verify;

use std::sync::Arc;

use chrono::TimeDelta;
use serde_json::json;

pub use self::{
    currency::CurrencyError,
    statement::Statement,
    verify::{Check, Difference, Verification},
};
use super::{
    AuditService,
    once::{self, KeyReused, Passing},
};
use crate::{
    config::WalletConfig,
    domain::{
        audit::{Action, Actor, Event},
        clock::SharedClock,
        id::{TransactionId, UserId},
        idempotency::{Claim, IdempotencyKey, RequestHash},
        ledger::{Account, Kind, Movement, Transaction},
        money::{Amount, Currency},
        page::{Page, PageRequest},
    },
    failpoint,
    repositories::{Database, Repositories as _, StoreError, Tx},
};

#[derive(Debug, thiserror::Error)]
pub enum WalletError {
    #[error("no such user")]
    NoSuchUser,
    #[error("a wallet holds no more than that")]
    Full,
    #[error(transparent)]
    KeyReused(#[from] KeyReused),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Passing for WalletError {
    fn store(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error) => Some(error),
            _ => None,
        }
    }
}

/// How long a request's key is known (RELIABILITY, defaults).
const KEYS_KEPT: TimeDelta = TimeDelta::days(7);

pub struct WalletService {
    db: Database,
    clock: SharedClock,
    currency: Currency,
    audit: Arc<AuditService>,
}

impl WalletService {
    pub fn new(
        db: Database,
        clock: SharedClock,
        config: &WalletConfig,
        audit: Arc<AuditService>,
    ) -> Self {
        Self { db, clock, currency: config.currency, audit }
    }

    pub fn currency(&self) -> Currency {
        self.currency
    }

    /// What the user may spend, in minor units.
    pub async fn balance(&self, user: UserId) -> Result<i64, WalletError> {
        Ok(self.db.session().await?.ledger().balance(user).await?.unwrap_or(0))
    }

    /// What happened to the wallet, the last thing first.
    pub async fn transactions(
        &self,
        user: UserId,
        page: PageRequest,
    ) -> Result<Page<Transaction>, WalletError> {
        Ok(self.db.session().await?.ledger().list(user, page).await?)
    }

    /// A wallet for an operator: what it holds, and the last things that happened.
    /// It outlives its user.
    pub async fn of_user(
        &self,
        user: UserId,
        most: u32,
    ) -> Result<(i64, Vec<Transaction>), WalletError> {
        let mut session = self.db.session().await?;
        let Some(balance) = session.ledger().balance(user).await? else {
            session.users().find(user).await?.ok_or(WalletError::NoSuchUser)?;
            return Ok((0, vec![]));
        };
        let page = PageRequest { limit: most, after: None };
        Ok((balance, session.ledger().list(user, page).await?.items))
    }

    /// Forgets what requests asked for under their keys a week ago and before.
    /// Safe to run on every instance.
    pub async fn prune_keys(&self) -> Result<(), StoreError> {
        const AT_ONCE: u32 = 5000;

        let before = self.clock.now() - KEYS_KEPT;
        loop {
            let mut tx = self.db.begin().await?;
            let dropped = tx.idempotency().prune(before, AT_ONCE).await?;
            tx.commit().await?;
            if dropped == 0 {
                return Ok(());
            }
        }
    }

    /// Puts money into a wallet on an operator's word.
    /// Asked again with the same key it answers the same and does nothing.
    pub async fn credit(
        &self,
        by: &Actor,
        user: UserId,
        amount: Amount,
        reason: String,
        key: Option<IdempotencyKey>,
    ) -> Result<Transaction, WalletError> {
        let request = RequestHash::of("credit", &[&user, &amount, &reason]);
        let claim = once::claim(by.id.unwrap_or(once::COMMAND_LINE), key, request);
        let now = self.clock.now();
        let movement = Movement {
            id: TransactionId::new(now),
            user_id: user,
            kind: Kind::Credit,
            amount_minor: amount.minor(),
            counter: Account::Topup,
            pass_id: None,
            voucher_id: None,
            reverses_id: None,
            reason: Some(reason),
            actor_id: by.id,
            at: now,
        };
        once::settle(|| self.try_credit(by, &claim, &movement)).await
    }

    async fn try_credit(
        &self,
        by: &Actor,
        claim: &Claim,
        movement: &Movement,
    ) -> Result<Transaction, WalletError> {
        let mut tx = self.db.begin().await?;
        failpoint::reach("credit.begun").await;
        let outcome = tx.idempotency().claim(claim, movement.id.as_uuid(), movement.at).await?;
        if let Some(id) = once::done_before(outcome)? {
            let before = tx.ledger().find(id).await?;
            return before.ok_or_else(|| {
                StoreError::inconsistent("a credit was claimed but is not in the ledger").into()
            });
        }
        failpoint::reach("credit.claimed").await;
        tx.users().find(movement.user_id).await?.ok_or(WalletError::NoSuchUser)?;
        let booked = deposit(&mut tx, movement.clone()).await?.ok_or(WalletError::Full)?;
        failpoint::reach("credit.booked").await;
        let event = Event::new(Action::WalletCredited, "account", booked.user_id).after(json!({
            "transaction_id": booked.id,
            "amount_minor": booked.amount_minor,
            "balance_after_minor": booked.balance_after_minor,
            "reason": booked.reason,
        }));
        self.audit.commit(tx, by, event).await?;
        failpoint::reach("credit.committed").await;
        Ok(booked)
    }
}

/// Books money that comes into a wallet, which is made if there is none.
/// `None`: it would hold too much.
pub(super) async fn deposit(
    tx: &mut Tx,
    movement: Movement,
) -> Result<Option<Transaction>, StoreError> {
    tx.ledger().open_wallet(movement.user_id, movement.at).await?;
    let balance = tx.ledger().change_balance(movement.user_id, movement.amount_minor).await?;
    failpoint::reach("credit.credited").await;
    match balance {
        Some(balance) => tx.ledger().book(movement, balance).await.map(Some),
        None => Ok(None),
    }
}
