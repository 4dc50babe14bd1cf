//! What a verification found.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::domain::id::{PassId, TransactionId, UserId};

/// What was compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// A transaction has two entries that add up to 0, the wallet's one being
    /// its amount (I1).
    Entries,
    /// The other entry is of an account that its kind moves money from or to.
    Counter,
    /// The balance is the sum of the entries and the last balance booked (I2).
    Balance,
    /// No balance was ever below 0 (I3).
    Negative,
    /// Transactions are numbered without a gap (I4).
    Seq,
    /// A transaction is what was booked, behind the one before it (I4).
    Hash,
    /// The balance after it is the one before it and its amount (I4).
    BalanceAfter,
    /// What came back of a pass was booked, once, and is no more than its price
    /// (I6).
    Refund,
    /// A pass with a price was paid, once, by its user; nothing else was (I7).
    Purchase,
    /// Every entry belongs to a wallet's transaction (I8).
    Orphan,
    /// All entries add up to 0 (I8).
    Total,
    /// The rows can be read at all.
    Unreadable,
}

impl Check {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Entries => "entries",
            Self::Counter => "counter",
            Self::Balance => "balance",
            Self::Negative => "negative",
            Self::Seq => "seq",
            Self::Hash => "hash",
            Self::BalanceAfter => "balance_after",
            Self::Refund => "refund",
            Self::Purchase => "purchase",
            Self::Orphan => "orphan",
            Self::Total => "total",
            Self::Unreadable => "unreadable",
        }
    }
}

/// One thing that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    pub check: Check,
    pub wallet_id: Option<UserId>,
    pub transaction_id: Option<TransactionId>,
    pub token_id: Option<PassId>,
    pub expected: String,
    pub found: String,
}

impl Difference {
    pub(super) fn of(check: Check) -> Self {
        Self {
            check,
            wallet_id: None,
            transaction_id: None,
            token_id: None,
            expected: String::new(),
            found: String::new(),
        }
    }

    pub(super) fn wallet(self, id: UserId) -> Self {
        Self { wallet_id: Some(id), ..self }
    }

    pub(super) fn transaction(self, id: TransactionId) -> Self {
        Self { transaction_id: Some(id), ..self }
    }

    pub(super) fn pass(self, id: PassId) -> Self {
        Self { token_id: Some(id), ..self }
    }

    pub(super) fn expected(self, what: impl fmt::Display) -> Self {
        Self { expected: what.to_string(), ..self }
    }

    pub(super) fn found(self, what: impl fmt::Display) -> Self {
        Self { found: what.to_string(), ..self }
    }
}

/// On one line: whose, what, and the two values.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(id) = self.wallet_id {
            write!(f, "wallet {id} ")?;
        }
        if let Some(id) = self.transaction_id {
            write!(f, "transaction {id} ")?;
        }
        if let Some(id) = self.token_id {
            write!(f, "token {id} ")?;
        }
        let Self { check, expected, found, .. } = self;
        write!(f, "{}: expected {expected}, found {found}", check.as_str())
    }
}

/// How much was looked at, and how much of it differs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    pub wallets: u64,
    pub transactions: u64,
    pub passes: u64,
    pub differences: u64,
    /// When it ended; `None` until it was noted.
    pub at: Option<DateTime<Utc>>,
}
