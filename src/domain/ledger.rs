//! The ledger: what moved money, between which accounts, in which order.
//!
//! Double entry: every transaction takes from one account what it gives to
//! another, so all entries together are nothing (invariants I1 to I8 of the
//! design). A wallet's transactions are numbered and chained: each carries the
//! balance after it and a hash over itself and its predecessor, so a row that
//! was changed, removed or slipped in is found, and the first one is named.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::id::{PassId, TransactionId, UserId, VoucherId};

/// Who holds money.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// What a user may spend; never below 0.
    Wallet(UserId),
    /// What was sold.
    Revenue,
    /// What came in from outside: payments, and an admin's credit.
    Topup,
    /// What was given away: vouchers, starting balances.
    Promotion,
}

impl Account {
    /// Its id in the ledger; those of the house are fixed.
    pub fn id(self) -> Uuid {
        match self {
            Self::Wallet(user) => user.as_uuid(),
            Self::Revenue => Uuid::from_u128(1),
            Self::Topup => Uuid::from_u128(2),
            Self::Promotion => Uuid::from_u128(3),
        }
    }
}

/// Why a wallet changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Purchase,
    Refund,
    Credit,
    Topup,
    Adjustment,
}

impl Kind {
    pub const ALL: [Self; 5] =
        [Self::Purchase, Self::Refund, Self::Credit, Self::Topup, Self::Adjustment];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Purchase => "purchase",
            Self::Refund => "refund",
            Self::Credit => "credit",
            Self::Topup => "topup",
            Self::Adjustment => "adjustment",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// Whether the text can stand as the reason of a transaction: 1 to 500
/// characters that show, on one line.
pub fn is_reason(text: &str) -> bool {
    let length = text.chars().count();
    length <= 500 && !text.trim().is_empty() && !text.chars().any(char::is_control)
}

/// A movement that is to be booked.
#[derive(Clone, Debug)]
pub struct Movement {
    pub id: TransactionId,
    pub user_id: UserId,
    pub kind: Kind,
    /// What it does to the wallet, minor units; never 0.
    pub amount_minor: i64,
    /// Where it comes from or goes to.
    pub counter: Account,
    pub pass_id: Option<PassId>,
    pub voucher_id: Option<VoucherId>,
    /// The purchase that a refund gives back.
    pub reverses_id: Option<TransactionId>,
    pub reason: Option<String>,
    /// Who did it, unless it was the wallet's user.
    pub actor_id: Option<UserId>,
    pub at: DateTime<Utc>,
}

/// A movement as it was booked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    pub id: TransactionId,
    /// Whose wallet.
    pub user_id: UserId,
    /// 1 for the wallet's first, without a gap.
    pub seq: i64,
    pub kind: Kind,
    pub amount_minor: i64,
    pub balance_after_minor: i64,
    pub pass_id: Option<PassId>,
    pub voucher_id: Option<VoucherId>,
    pub reverses_id: Option<TransactionId>,
    pub reason: Option<String>,
    pub actor_id: Option<UserId>,
    pub created_at: DateTime<Utc>,
    pub hash: ChainHash,
}

/// A link of a wallet's chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainHash(pub [u8; 32]);

impl ChainHash {
    /// What the first transaction of a wallet follows.
    pub const START: Self = Self([0; 32]);
}

impl Transaction {
    /// The movement, booked as number `seq` behind `previous`.
    pub fn book(
        movement: Movement,
        seq: i64,
        balance_after_minor: i64,
        previous: ChainHash,
    ) -> Self {
        let mut booked = Self {
            id: movement.id,
            user_id: movement.user_id,
            seq,
            kind: movement.kind,
            amount_minor: movement.amount_minor,
            balance_after_minor,
            pass_id: movement.pass_id,
            voucher_id: movement.voucher_id,
            reverses_id: movement.reverses_id,
            reason: movement.reason,
            actor_id: movement.actor_id,
            created_at: movement.at,
            hash: ChainHash::START,
        };
        booked.hash = booked.link(previous);
        booked
    }

    /// The hash that this row must have behind `previous`.
    pub fn link(&self, previous: ChainHash) -> ChainHash {
        let optional = |id: Option<Uuid>| id.unwrap_or(Uuid::nil());
        let mut digest = Sha256::new();
        digest.update(previous.0);
        digest.update(self.id.as_uuid());
        digest.update(self.user_id.as_uuid());
        digest.update(self.seq.to_be_bytes());
        digest.update([self.kind.code()]);
        digest.update(self.amount_minor.to_be_bytes());
        digest.update(self.balance_after_minor.to_be_bytes());
        digest.update(optional(self.pass_id.map(PassId::as_uuid)));
        digest.update(optional(self.voucher_id.map(VoucherId::as_uuid)));
        digest.update(optional(self.reverses_id.map(TransactionId::as_uuid)));
        digest.update(optional(self.actor_id.map(UserId::as_uuid)));
        digest.update(self.created_at.timestamp_micros().to_be_bytes());
        // Last, since its length is open. `None` and "" are told apart.
        digest.update([u8::from(self.reason.is_some())]);
        digest.update(self.reason.as_deref().unwrap_or_default());
        ChainHash(digest.finalize().into())
    }
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Self::Purchase => 1,
            Self::Refund => 2,
            Self::Credit => 3,
            Self::Topup => 4,
            Self::Adjustment => 5,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_any_field_breaks_the_link() {
        let at = DateTime::from_timestamp(1_767_225_600, 0).unwrap();
        let user = UserId::new(at);
        let movement = Movement {
            id: TransactionId::new(at),
            user_id: user,
            kind: Kind::Credit,
            amount_minor: 500,
            counter: Account::Topup,
            pass_id: None,
            voucher_id: None,
            reverses_id: None,
            reason: None,
            actor_id: None,
            at,
        };
        let booked = Transaction::book(movement, 1, 500, ChainHash::START);
        assert_eq!(booked.link(ChainHash::START), booked.hash);
        assert_ne!(booked.link(booked.hash), booked.hash);
        let changes: [fn(&mut Transaction); 10] = [
            |t| t.id = TransactionId::new(t.created_at),
            |t| t.user_id = UserId::new(t.created_at),
            |t| t.seq += 1,
            |t| t.kind = Kind::Topup,
            |t| t.amount_minor += 1,
            |t| t.balance_after_minor += 1,
            |t| t.pass_id = Some(PassId::new(t.created_at)),
            |t| t.reason = Some(String::new()),
            |t| t.actor_id = Some(UserId::new(t.created_at)),
            |t| t.created_at += chrono::TimeDelta::microseconds(1),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut other = booked.clone();
            change(&mut other);
            assert_ne!(other.link(ChainHash::START), booked.hash, "{number}");
        }
    }
}
