//! The ledger as it is stored, read to be checked: in pages, so that no answer
//! grows with it.

use chrono::{DateTime, Utc};
use sqlx::QueryBuilder;
use uuid::Uuid;

use super::{COLUMNS, Ledger, TransactionRow};
use crate::{
    domain::{
        id::{PassId, TransactionId, UserId},
        ledger::Transaction,
    },
    repositories::{
        StoreResult,
        connection::{LONG_DEADLINE, on_conn},
    },
};

/// A wallet as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct WalletRow {
    pub id: UserId,
    pub balance_minor: i64,
    pub seq: i64,
}

/// One side of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct LedgerEntry {
    pub transaction_id: TransactionId,
    pub account_id: Uuid,
    pub amount_minor: i64,
}

/// What a purchase or a refund points at, as far as it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Reference {
    pub transaction_id: TransactionId,
    /// Passes go with their user.
    pub user_exists: bool,
    pub pass_user_id: Option<UserId>,
    pub pass_price_minor: Option<i64>,
    /// Of the purchase that a refund gives back.
    pub purchase_user_id: Option<UserId>,
    pub purchase_pass_id: Option<PassId>,
    pub purchase_amount_minor: Option<i64>,
}

/// A pass, and what the ledger has about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct PassAccount {
    pub id: PassId,
    pub user_id: UserId,
    pub is_purchase: bool,
    pub price_minor: i64,
    pub refunded_minor: Option<i64>,
    pub is_revoked: bool,
    /// Purchases of this pass, whoever paid.
    pub purchases: i64,
    /// Those by its user at its price.
    pub fitting_purchases: i64,
    pub refunds: i64,
    pub refunds_minor: i64,
}

/// The entries of one transaction, added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct EntrySum {
    pub transaction_id: TransactionId,
    pub sum_minor: i64,
    /// Whether the transaction is there, and is a wallet's.
    pub has_wallet: bool,
}

impl Ledger<'_> {
    /// Whether anything was ever booked.
    pub async fn any(&mut self) -> StoreResult<bool> {
        const SQL: &str = "SELECT EXISTS (SELECT 1 FROM ledger_transactions)";

        on_conn!(self.conn, |conn| sqlx::query_scalar(SQL).fetch_one(conn).await)
    }

    /// A wallet's transactions behind number `seq`, oldest first, at most `most`.
    pub async fn chain(
        &mut self,
        user: UserId,
        seq: i64,
        most: u32,
    ) -> StoreResult<Vec<Transaction>> {
        self.statement(user, seq, None, None, most).await
    }

    /// The same, but only what was booked from `from` on and before `to`.
    pub async fn statement(
        &mut self,
        user: UserId,
        seq: i64,
        from: Option<DateTime<Utc>>,
        to: Option<DateTime<Utc>>,
        most: u32,
    ) -> StoreResult<Vec<Transaction>> {
        let rows: Vec<TransactionRow> = on_conn!(self.conn, within LONG_DEADLINE, |conn| {
            let mut sql = QueryBuilder::new(COLUMNS);
            sql.push("WHERE wallet_id = ").push_bind(user);
            sql.push(" AND seq > ").push_bind(seq);
            if let Some(from) = from {
                sql.push(" AND created_at >= ").push_bind(from);
            }
            if let Some(to) = to {
                sql.push(" AND created_at < ").push_bind(to);
            }
            sql.push(" ORDER BY seq LIMIT ").push_bind(i64::from(most));
            sql.build_query_as().fetch_all(conn).await
        })?;
        rows.into_iter().map(Transaction::try_from).collect()
    }

    /// Wallets by id behind `after`, at most `most`.
    pub async fn wallets(
        &mut self,
        after: Option<UserId>,
        most: u32,
    ) -> StoreResult<Vec<WalletRow>> {
        const SQL: &str = "
            SELECT id, balance_minor, seq FROM ledger_accounts
            WHERE kind = 'wallet' AND id > $1
            ORDER BY id LIMIT $2";

        on_conn!(self.conn, within LONG_DEADLINE, |conn| sqlx::query_as(SQL)
            .bind(after.unwrap_or(UserId::NIL))
            .bind(i64::from(most))
            .fetch_all(conn)
            .await)
    }

    /// The entries of a wallet's transactions numbered `first..=last`.
    pub async fn entries(
        &mut self,
        user: UserId,
        first: i64,
        last: i64,
    ) -> StoreResult<Vec<LedgerEntry>> {
        const SQL: &str = "
            SELECT entry.transaction_id, entry.account_id, entry.amount_minor
            FROM ledger_entries entry
            JOIN ledger_transactions booked ON booked.id = entry.transaction_id
            WHERE booked.wallet_id = $1 AND booked.seq BETWEEN $2 AND $3
            ORDER BY booked.seq, entry.account_id";

        on_conn!(self.conn, within LONG_DEADLINE, |conn| sqlx::query_as(SQL)
            .bind(user)
            .bind(first)
            .bind(last)
            .fetch_all(conn)
            .await)
    }

    /// What the purchases and refunds among a wallet's transactions numbered
    /// `first..=last` point at.
    pub async fn references(
        &mut self,
        user: UserId,
        first: i64,
        last: i64,
    ) -> StoreResult<Vec<Reference>> {
        const SQL: &str = "
            SELECT booked.id AS transaction_id,
                   EXISTS (SELECT 1 FROM users WHERE id = booked.wallet_id) AS user_exists,
                   pass.user_id AS pass_user_id, pass.price_minor AS pass_price_minor,
                   bought.wallet_id AS purchase_user_id, bought.pass_id AS purchase_pass_id,
                   bought.amount_minor AS purchase_amount_minor
            FROM ledger_transactions booked
            LEFT JOIN passes pass ON pass.id = booked.pass_id
            LEFT JOIN ledger_transactions bought
                ON bought.id = booked.reverses_id AND bought.kind = 'purchase'
            WHERE booked.wallet_id = $1 AND booked.seq BETWEEN $2 AND $3
              AND booked.kind IN ('purchase', 'refund')
            ORDER BY booked.seq";

        on_conn!(self.conn, within LONG_DEADLINE, |conn| sqlx::query_as(SQL)
            .bind(user)
            .bind(first)
            .bind(last)
            .fetch_all(conn)
            .await)
    }

    /// Passes by id behind `after` with what the ledger has about them, at most
    /// `most`.
    pub async fn pass_accounts(
        &mut self,
        after: Option<PassId>,
        most: u32,
    ) -> StoreResult<Vec<PassAccount>> {
        const SQL: &str = "
            SELECT pass.id, pass.user_id, pass.origin = 'purchase' AS is_purchase,
                   pass.price_minor, pass.refunded_minor,
                   pass.revoked_at IS NOT NULL AS is_revoked,
                   (SELECT COUNT(*) FROM ledger_transactions bought
                    WHERE bought.kind = 'purchase' AND bought.pass_id = pass.id) AS purchases,
                   (SELECT COUNT(*) FROM ledger_transactions bought
                    WHERE bought.kind = 'purchase' AND bought.pass_id = pass.id
                      AND bought.wallet_id = pass.user_id
                      AND bought.amount_minor = -pass.price_minor) AS fitting_purchases,
                   (SELECT COUNT(*) FROM ledger_transactions bought
                    JOIN ledger_transactions back
                        ON back.kind = 'refund' AND back.reverses_id = bought.id
                    WHERE bought.kind = 'purchase' AND bought.pass_id = pass.id) AS refunds,
                   (SELECT CAST(COALESCE(SUM(back.amount_minor), 0) AS bigint)
                    FROM ledger_transactions bought
                    JOIN ledger_transactions back
                        ON back.kind = 'refund' AND back.reverses_id = bought.id
                    WHERE bought.kind = 'purchase' AND bought.pass_id = pass.id) AS refunds_minor
            FROM passes pass
            WHERE pass.id > $1
            ORDER BY pass.id LIMIT $2";

        on_conn!(self.conn, within LONG_DEADLINE, |conn| sqlx::query_as(SQL)
            .bind(after.unwrap_or(PassId::NIL))
            .bind(i64::from(most))
            .fetch_all(conn)
            .await)
    }

    /// All entries, added up by transaction, by its id behind `after`, at most
    /// `most` transactions.
    pub async fn entry_sums(
        &mut self,
        after: Option<TransactionId>,
        most: u32,
    ) -> StoreResult<Vec<EntrySum>> {
        const SQL: &str = "
            SELECT entry.transaction_id, entry.sum_minor, account.id IS NOT NULL AS has_wallet
            FROM (
                SELECT transaction_id, CAST(SUM(amount_minor) AS bigint) AS sum_minor
                FROM ledger_entries WHERE transaction_id > $1
                GROUP BY transaction_id ORDER BY transaction_id LIMIT $2
            ) entry
            LEFT JOIN ledger_transactions booked ON booked.id = entry.transaction_id
            LEFT JOIN ledger_accounts account
                ON account.id = booked.wallet_id AND account.kind = 'wallet'
            ORDER BY entry.transaction_id";

        on_conn!(self.conn, within LONG_DEADLINE, |conn| sqlx::query_as(SQL)
            .bind(after.unwrap_or(TransactionId::NIL))
            .bind(i64::from(most))
            .fetch_all(conn)
            .await)
    }
}
