//! Whether the ledger is what it must be: every invariant of the design, worked
//! out again from what is stored (RELIABILITY, I1 to I8).
//!
//! It reads in pages, so that its memory does not grow with the ledger, and each
//! wallet in one snapshot, so that it is right while others write. It tells what
//! differs and mends nothing: which of two numbers is the wrong one is for a
//! person to say.

mod chain;
mod found;

use self::chain::ChainCheck;
pub use self::found::{Check, Difference, Verification};
use super::WalletService;
use crate::{
    domain::{
        id::{PassId, TransactionId},
        ledger::Kind,
    },
    repositories::{PassAccount, Repositories as _, StoreError, Tx, WalletRow},
};

/// Wallets that are read in one snapshot.
const WALLETS: u32 = 50;
/// Transactions, passes or sums of one query.
const ROWS: u32 = 500;

/// Where differences go as they are found.
type Tell<'a> = &'a mut (dyn FnMut(Difference) + Send);

impl WalletService {
    /// Works everything out again and tells `found` every difference.
    ///
    /// # Errors
    /// The database did not answer: what was told until then holds, the rest is
    /// not known.
    pub async fn verify(
        &self,
        mut found: impl FnMut(Difference) + Send,
    ) -> Result<Verification, StoreError> {
        let mut done = Verification::default();
        let mut differences = 0;
        let mut tell = |difference| {
            differences += 1;
            found(difference);
        };
        self.verify_wallets(&mut done, &mut tell).await?;
        self.verify_passes(&mut done, &mut tell).await?;
        self.verify_total(&mut tell).await?;
        done.differences = differences;
        Ok(done)
    }

    /// I1 to I3 and what the ledger knows of I6 and I7, wallet by wallet.
    async fn verify_wallets(
        &self,
        done: &mut Verification,
        tell: Tell<'_>,
    ) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let mut snapshot = self.db.snapshot().await?;
            let wallets = snapshot.ledger().wallets(after, WALLETS).await?;
            if wallets.is_empty() {
                return Ok(());
            }
            for wallet in wallets {
                after = Some(wallet.id);
                done.wallets += 1;
                match verify_wallet(&mut snapshot, wallet, tell).await {
                    Ok(transactions) => done.transactions += transactions,
                    // Nothing that we write reads like this. After an error
                    // the snapshot is good for nothing.
                    Err(StoreError::Database(error)) => {
                        let what = Difference::of(Check::Unreadable).wallet(wallet.id);
                        tell(what.expected("rows of the ledger").found(error));
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// I6 and I7 from the side of the passes.
    async fn verify_passes(
        &self,
        done: &mut Verification,
        tell: Tell<'_>,
    ) -> Result<(), StoreError> {
        let mut after: Option<PassId> = None;
        loop {
            let mut session = self.db.session().await?;
            let passes = session.ledger().pass_accounts(after, ROWS).await?;
            drop(session);
            let Some(last) = passes.last() else { return Ok(()) };
            after = Some(last.id);
            for pass in &passes {
                done.passes += 1;
                verify_pass(pass, tell);
            }
        }
    }

    /// I8, and entries that no wallet's transaction has.
    async fn verify_total(&self, tell: Tell<'_>) -> Result<(), StoreError> {
        let mut after: Option<TransactionId> = None;
        let mut total = 0i128;
        loop {
            let mut session = self.db.session().await?;
            let sums = session.ledger().entry_sums(after, ROWS).await?;
            drop(session);
            let Some(last) = sums.last() else { break };
            after = Some(last.transaction_id);
            for sum in &sums {
                total += i128::from(sum.sum_minor);
                if !sum.has_wallet {
                    let what = Difference::of(Check::Orphan).transaction(sum.transaction_id);
                    tell(what.expected("entries of a wallet's transaction").found("entries alone"));
                }
            }
        }
        if total != 0 {
            tell(Difference::of(Check::Total).expected(0).found(total));
        }
        Ok(())
    }
}

/// How many transactions it has.
async fn verify_wallet(
    snapshot: &mut Tx,
    wallet: WalletRow,
    tell: Tell<'_>,
) -> Result<u64, StoreError> {
    let mut check = ChainCheck::new(wallet);
    loop {
        let seq = check.last_seq();
        let page = snapshot.ledger().chain(wallet.id, seq, ROWS).await?;
        let (Some(first), Some(last)) = (page.first(), page.last()) else { break };
        let (first, last) = (first.seq, last.seq);
        let entries = snapshot.ledger().entries(wallet.id, first, last).await?;
        for booked in &page {
            let own = entries.iter().filter(|entry| entry.transaction_id == booked.id);
            check.transaction(booked, own, tell);
        }
        if page.iter().any(|booked| matches!(booked.kind, Kind::Purchase | Kind::Refund)) {
            let references = snapshot.ledger().references(wallet.id, first, last).await?;
            ChainCheck::references(&page, &references, tell);
        }
    }
    Ok(check.end(tell))
}

fn verify_pass(pass: &PassAccount, tell: Tell<'_>) {
    let of = |check| Difference::of(check).wallet(pass.user_id).pass(pass.id);
    let due = i64::from(pass.is_purchase && pass.price_minor > 0);
    if (pass.purchases, pass.fitting_purchases) != (due, due) {
        let expected = format!("{due} purchase of {} by its user", pass.price_minor);
        let found = format!("{} of {}", pass.fitting_purchases, pass.purchases);
        tell(of(Check::Purchase).expected(expected).found(found));
    }
    let refunded = pass.refunded_minor.unwrap_or(0);
    if pass.refunds_minor != refunded {
        tell(of(Check::Refund).expected(refunded).found(pass.refunds_minor));
    }
    if pass.refunds > 1 {
        tell(of(Check::Refund).expected("one refund").found(pass.refunds));
    }
    if refunded > pass.price_minor {
        let expected = format!("at most {}", pass.price_minor);
        tell(of(Check::Refund).expected(expected).found(refunded));
    }
    if pass.refunded_minor.is_some() && !pass.is_revoked {
        tell(of(Check::Refund).expected("refunded and revoked").found("not revoked"));
    }
}
