//! The one currency, which is the ledger's from the first transaction on: an
//! amount has none of its own, so another setting would turn euros into dollars.

use super::WalletService;
use crate::{
    domain::money::Currency,
    repositories::{Repositories as _, StoreError},
};

const NOTE: &str = "wallet_currency";

#[derive(Debug, thiserror::Error)]
pub enum CurrencyError {
    #[error(
        "WALLET_CURRENCY is {configured}, but the money in the ledger is {noted}; \
         set WALLET_CURRENCY={noted}"
    )]
    Fixed { configured: Currency, noted: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl WalletService {
    /// Notes the configured currency as the ledger's, or finds that it is.
    ///
    /// # Errors
    /// [`CurrencyError::Fixed`] where there is money in another one.
    pub async fn settle_currency(&self) -> Result<(), CurrencyError> {
        let configured = self.currency;
        let is_ours = |noted: &Option<String>| noted.as_deref() == Some(configured.as_str());
        // Nearly always, and a read keeps nobody waiting.
        if is_ours(&self.db.session().await?.settings().get(NOTE).await?) {
            return Ok(());
        }
        let mut tx = self.db.begin().await?;
        let now = self.clock.now();
        // Whoever else starts waits here.
        if tx.settings().claim(NOTE, configured.as_str(), now).await? {
            tx.commit().await?;
            return Ok(());
        }
        match tx.settings().get(NOTE).await? {
            noted if is_ours(&noted) => Ok(()),
            // What is promised is an amount as well as what is booked.
            Some(noted) if tx.ledger().any().await? || tx.vouchers().any_balance().await? => {
                Err(CurrencyError::Fixed { configured, noted })
            }
            _ => {
                tx.settings().set(NOTE, configured.as_str(), now).await?;
                Ok(tx.commit().await?)
            }
        }
    }
}
