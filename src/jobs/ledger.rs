//! The ledger's verification: by one instance an hour, seen by all.

use crate::services::{Services, StoreError};

/// Verifies the ledger if it is time and nobody else does, and takes over what
/// the last verification said, whoever made it, into health and metrics.
pub async fn reconcile(services: &Services) -> Result<(), StoreError> {
    let verified = services.wallet.reconcile().await?;
    services.health.saw_ledger(verified);
    Ok(())
}
