//! One wallet's chain, row by row. No database here.

use super::{Check, Difference, Tell};
use crate::{
    domain::{
        ledger::{Account, ChainHash, Kind, Transaction},
        money::MAX_BALANCE,
    },
    repositories::{LedgerEntry, Reference, WalletRow},
};

/// What the rows so far say about the next one.
pub(super) struct ChainCheck {
    wallet: WalletRow,
    seq: i64,
    previous: ChainHash,
    balance: i128,
    /// Of the wallet's own entries.
    entries: i128,
    transactions: u64,
}

impl ChainCheck {
    pub(super) fn new(wallet: WalletRow) -> Self {
        let previous = ChainHash::START;
        Self { wallet, seq: 0, previous, balance: 0, entries: 0, transactions: 0 }
    }

    /// The number of the last row seen.
    pub(super) fn last_seq(&self) -> i64 {
        self.seq
    }

    /// The next row, with its entries. Whatever it says is the basis for the one
    /// after it, so that one bad row is not reported for all that follow.
    pub(super) fn transaction<'a>(
        &mut self,
        booked: &Transaction,
        entries: impl Iterator<Item = &'a LedgerEntry>,
        tell: Tell<'_>,
    ) {
        let of = |check| Difference::of(check).wallet(booked.user_id).transaction(booked.id);
        if booked.seq != self.seq + 1 {
            tell(of(Check::Seq).expected(self.seq + 1).found(booked.seq));
        }
        if booked.link(self.previous) != booked.hash {
            tell(of(Check::Hash).expected("what was booked").found("another row"));
        }
        let after = self.balance + i128::from(booked.amount_minor);
        if after != i128::from(booked.balance_after_minor) {
            tell(of(Check::BalanceAfter).expected(after).found(booked.balance_after_minor));
        }
        if !(0..=MAX_BALANCE).contains(&booked.balance_after_minor) {
            let expected = format!("0 to {MAX_BALANCE}");
            tell(of(Check::Negative).expected(expected).found(booked.balance_after_minor));
        }
        self.seq = booked.seq;
        self.previous = booked.hash;
        self.balance = booked.balance_after_minor.into();
        self.transactions += 1;

        let wallet = booked.user_id.as_uuid();
        let (mut own, mut others) = (vec![], vec![]);
        for entry in entries {
            let side = if entry.account_id == wallet { &mut own } else { &mut others };
            side.push(*entry);
        }
        self.entries += own.iter().map(|entry| i128::from(entry.amount_minor)).sum::<i128>();
        let amounts =
            |side: &[LedgerEntry]| side.iter().map(|entry| entry.amount_minor).collect::<Vec<_>>();
        let found = (amounts(&own), amounts(&others));
        let expected = (vec![booked.amount_minor], vec![-booked.amount_minor]);
        if found != expected {
            tell(of(Check::Entries).expected(shown(&expected)).found(shown(&found)));
        }
        if let [other] = others[..]
            && !counters(booked.kind).iter().any(|account| account.id() == other.account_id)
        {
            let expected = format!("an account for a {}", booked.kind.as_str());
            tell(of(Check::Counter).expected(expected).found(other.account_id));
        }
    }

    /// What the purchases and refunds of a page point at.
    pub(super) fn references(page: &[Transaction], references: &[Reference], tell: Tell<'_>) {
        let mut rows = page.iter();
        // Both are in the order of the chain.
        for reference in references {
            let Some(booked) = rows.find(|row| row.id == reference.transaction_id) else { return };
            match booked.kind {
                Kind::Purchase => purchase(booked, reference, tell),
                Kind::Refund => refund(booked, reference, tell),
                Kind::Credit | Kind::Topup | Kind::Adjustment => {}
            }
        }
    }

    /// Compares the sums with what the wallet says; how many rows there were.
    pub(super) fn end(self, tell: Tell<'_>) -> u64 {
        let of = |check| Difference::of(check).wallet(self.wallet.id);
        let WalletRow { balance_minor, seq, .. } = self.wallet;
        if seq != self.seq {
            tell(of(Check::Seq).expected(seq).found(self.seq));
        }
        if i128::from(balance_minor) != self.balance {
            tell(of(Check::Balance).expected(self.balance).found(balance_minor));
        } else if i128::from(balance_minor) != self.entries {
            tell(of(Check::Balance).expected(self.entries).found(balance_minor));
        }
        if balance_minor < 0 {
            tell(of(Check::Negative).expected("0 or more").found(balance_minor));
        }
        self.transactions
    }
}

/// Where money of this kind comes from or goes to.
fn counters(kind: Kind) -> &'static [Account] {
    match kind {
        Kind::Purchase | Kind::Refund => &[Account::Revenue],
        Kind::Topup => &[Account::Topup],
        Kind::Credit => &[Account::Topup, Account::Promotion],
        Kind::Adjustment => &[Account::Revenue, Account::Topup, Account::Promotion],
    }
}

fn shown((own, others): &(Vec<i64>, Vec<i64>)) -> String {
    format!("{own:?} for the wallet and {others:?} for the house")
}

fn purchase(booked: &Transaction, reference: &Reference, tell: Tell<'_>) {
    let mut of = Difference::of(Check::Purchase).wallet(booked.user_id).transaction(booked.id);
    of.token_id = booked.pass_id;
    match (reference.pass_user_id, reference.pass_price_minor) {
        (Some(user), Some(price)) => {
            if (user, -price) != (booked.user_id, booked.amount_minor) {
                let expected =
                    format!("a token of user {} for {}", booked.user_id, -booked.amount_minor);
                tell(of.expected(expected).found(format!("one of user {user} for {price}")));
            }
        }
        // Gone with its user.
        _ if !reference.user_exists => {}
        _ => tell(of.expected("a token").found("none")),
    }
}

fn refund(booked: &Transaction, reference: &Reference, tell: Tell<'_>) {
    let mut of = Difference::of(Check::Refund).wallet(booked.user_id).transaction(booked.id);
    of.token_id = booked.pass_id;
    let Some(price) = reference.purchase_amount_minor.map(|paid| -paid) else {
        tell(of.expected("the purchase that it gives back").found("none"));
        return;
    };
    let bought = (reference.purchase_user_id, reference.purchase_pass_id);
    if bought != (Some(booked.user_id), booked.pass_id) {
        tell(of.expected("a purchase of the same user and token").found("another's"));
    } else if booked.amount_minor > price {
        tell(of.expected(format!("at most {price}")).found(booked.amount_minor));
    }
}
