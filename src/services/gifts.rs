//! What a new account begins with, where the operator gives anything.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::{PassService, passes::Order, wallet};
use crate::{
    config::Config,
    domain::{
        id::{TransactionId, UserId},
        ledger::{Account, Kind, Movement},
        money::Amount,
        pass::Origin,
    },
    repositories::{StoreError, Tx},
};

/// For who registers, not for accounts that an operator makes.
pub struct Gifts {
    passes: Arc<PassService>,
    starting_balance: Option<Amount>,
    /// 0: none.
    trial_hours: u32,
}

impl Gifts {
    pub fn new(passes: Arc<PassService>, config: &Config) -> Self {
        let starting_balance = config.wallet.starting_balance;
        Self { passes, starting_balance, trial_hours: config.passes.trial_hours }
    }

    /// Gives them in the transaction that makes the account.
    pub(super) async fn give(
        &self,
        tx: &mut Tx,
        user: UserId,
        at: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        if let Some(amount) = self.starting_balance {
            let movement = Movement {
                id: TransactionId::new(at),
                user_id: user,
                kind: Kind::Credit,
                amount_minor: amount.minor(),
                counter: Account::Promotion,
                pass_id: None,
                voucher_id: None,
                reverses_id: None,
                reason: Some("registration".to_owned()),
                actor_id: None,
                at,
            };
            let booked = wallet::deposit(tx, movement).await?;
            booked.ok_or_else(|| StoreError::inconsistent("a new wallet is full"))?;
        }
        if self.trial_hours > 0 {
            let order = Order { duration_hours: self.trial_hours, upstream: None };
            self.passes.give(tx, user, order, Origin::Registration, at).await?;
        }
        Ok(())
    }
}
