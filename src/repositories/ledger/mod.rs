//! Storage of the ledger. Rows are added, never changed; the database refuses
//! anything else. A wallet's balance is the one thing that changes, in one
//! conditional statement.
//!
//! What reads the ledger as a whole is in [`audit`].

mod audit;

use chrono::{DateTime, Utc};
use sqlx::QueryBuilder;
use uuid::Uuid;

pub use self::audit::{EntrySum, LedgerEntry, PassAccount, Reference, WalletRow};
use super::{DbConn, StoreError, StoreResult, connection::on_conn, row};
use crate::domain::{
    id::{PassId, TransactionId, UserId, VoucherId},
    ledger::{ChainHash, Kind, Movement, Transaction},
    money::MAX_BALANCE,
    page::{Page, PageRequest},
};

pub struct Ledger<'c> {
    conn: DbConn<'c>,
}

/// A wallet after a change of its balance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balance {
    pub minor: i64,
    /// The number of the transaction that is to be booked for it.
    pub seq: i64,
}

#[derive(sqlx::FromRow)]
struct TransactionRow {
    id: TransactionId,
    wallet_id: UserId,
    seq: i64,
    kind: String,
    amount_minor: i64,
    balance_after_minor: i64,
    pass_id: Option<PassId>,
    voucher_id: Option<VoucherId>,
    reverses_id: Option<TransactionId>,
    reason: Option<String>,
    actor_id: Option<UserId>,
    created_at: DateTime<Utc>,
    hash: Vec<u8>,
}

impl TryFrom<TransactionRow> for Transaction {
    type Error = StoreError;

    fn try_from(row: TransactionRow) -> StoreResult<Self> {
        let kind = Kind::parse(&row.kind)
            .ok_or_else(|| StoreError::corrupt("kind", "no kind of transaction"))?;
        Ok(Self {
            id: row.id,
            user_id: row.wallet_id,
            seq: row.seq,
            kind,
            amount_minor: row.amount_minor,
            balance_after_minor: row.balance_after_minor,
            pass_id: row.pass_id,
            voucher_id: row.voucher_id,
            reverses_id: row.reverses_id,
            reason: row.reason,
            actor_id: row.actor_id,
            created_at: row.created_at,
            hash: chain_hash(&row.hash)?,
        })
    }
}

const COLUMNS: &str = "
    SELECT id, wallet_id, seq, kind, amount_minor, balance_after_minor, pass_id, voucher_id,
           reverses_id, reason, actor_id, created_at, hash
    FROM ledger_transactions ";

impl<'c> Ledger<'c> {
    pub(super) fn new(conn: DbConn<'c>) -> Self {
        Self { conn }
    }

    /// Makes the user's wallet unless there is one.
    pub async fn open_wallet(&mut self, user: UserId, at: DateTime<Utc>) -> StoreResult<()> {
        const SQL: &str = "
            INSERT INTO ledger_accounts (id, kind, balance_minor, seq, created_at)
            VALUES ($1, 'wallet', 0, 0, $2)
            ON CONFLICT (id) DO NOTHING";

        on_conn!(self.conn, |conn| sqlx::query(SQL)
            .bind(user)
            .bind(at)
            .execute(conn)
            .await
            .map(drop))
    }

    /// What the wallet holds; `None` if there is none yet, which is as good as
    /// empty.
    pub async fn balance(&mut self, user: UserId) -> StoreResult<Option<i64>> {
        const SQL: &str =
            "SELECT balance_minor FROM ledger_accounts WHERE id = $1 AND kind = 'wallet'";

        on_conn!(self.conn, |conn| sqlx::query_scalar(SQL).bind(user).fetch_optional(conn).await)
    }

    /// Changes a wallet's balance unless it would leave 0..=[`MAX_BALANCE`];
    /// `None` then, or if there is no wallet. The wallet stays locked until the
    /// transaction ends; [`Ledger::book`] must follow.
    pub async fn change_balance(
        &mut self,
        user: UserId,
        amount_minor: i64,
    ) -> StoreResult<Option<Balance>> {
        const SQL: &str = "
            UPDATE ledger_accounts SET balance_minor = balance_minor + $2, seq = seq + 1
            WHERE id = $1 AND kind = 'wallet' AND balance_minor + $2 BETWEEN 0 AND $3
            RETURNING balance_minor, seq";

        let row: Option<(i64, i64)> = on_conn!(self.conn, |conn| sqlx::query_as(SQL)
            .bind(user)
            .bind(amount_minor)
            .bind(MAX_BALANCE)
            .fetch_optional(conn)
            .await)?;
        Ok(row.map(|(minor, seq)| Balance { minor, seq }))
    }

    /// Writes the transaction and both its entries behind the wallet's last
    /// one. `balance` is what [`Ledger::change_balance`] answered for the same
    /// amount in the same transaction.
    pub async fn book(&mut self, movement: Movement, balance: Balance) -> StoreResult<Transaction> {
        let counter = movement.counter.id();
        let previous = self.last_hash(movement.user_id, balance.seq - 1).await?;
        let booked = Transaction::book(movement, balance.seq, balance.minor, previous);
        self.insert(&booked).await?;
        self.insert_entry(booked.id, booked.user_id.as_uuid(), booked.amount_minor).await?;
        self.insert_entry(booked.id, counter, -booked.amount_minor).await?;
        Ok(booked)
    }

    async fn last_hash(&mut self, user: UserId, seq: i64) -> StoreResult<ChainHash> {
        const SQL: &str = "SELECT hash FROM ledger_transactions WHERE wallet_id = $1 AND seq = $2";

        if seq == 0 {
            return Ok(ChainHash::START);
        }
        let hash: Option<Vec<u8>> = on_conn!(self.conn, |conn| sqlx::query_scalar(SQL)
            .bind(user)
            .bind(seq)
            .fetch_optional(conn)
            .await)?;
        let hash =
            hash.ok_or_else(|| StoreError::corrupt("seq", "the wallet's chain has a gap"))?;
        chain_hash(&hash)
    }

    async fn insert(&mut self, transaction: &Transaction) -> StoreResult<()> {
        const SQL: &str = "
            INSERT INTO ledger_transactions
                (id, wallet_id, seq, kind, amount_minor, balance_after_minor, pass_id, voucher_id,
                 reverses_id, reason, actor_id, created_at, hash)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";

        on_conn!(self.conn, |conn| sqlx::query(SQL)
            .bind(transaction.id)
            .bind(transaction.user_id)
            .bind(transaction.seq)
            .bind(transaction.kind.as_str())
            .bind(transaction.amount_minor)
            .bind(transaction.balance_after_minor)
            .bind(transaction.pass_id)
            .bind(transaction.voucher_id)
            .bind(transaction.reverses_id)
            .bind(&transaction.reason)
            .bind(transaction.actor_id)
            .bind(transaction.created_at)
            .bind(&transaction.hash.0[..])
            .execute(conn)
            .await
            .map(drop))
    }

    async fn insert_entry(
        &mut self,
        transaction: TransactionId,
        account: Uuid,
        amount_minor: i64,
    ) -> StoreResult<()> {
        const SQL: &str = "
            INSERT INTO ledger_entries (transaction_id, account_id, amount_minor)
            VALUES ($1, $2, $3)";

        on_conn!(self.conn, |conn| sqlx::query(SQL)
            .bind(transaction)
            .bind(account)
            .bind(amount_minor)
            .execute(conn)
            .await
            .map(drop))
    }

    pub async fn find(&mut self, id: TransactionId) -> StoreResult<Option<Transaction>> {
        let row: Option<TransactionRow> = on_conn!(self.conn, |conn| {
            let mut sql = QueryBuilder::new(COLUMNS);
            sql.push("WHERE id = ").push_bind(id);
            sql.build_query_as().fetch_optional(conn).await
        })?;
        row.map(Transaction::try_from).transpose()
    }

    /// The transaction that paid for a pass; `None` for one that cost nothing.
    pub async fn purchase_of(&mut self, pass: PassId) -> StoreResult<Option<Transaction>> {
        let row: Option<TransactionRow> = on_conn!(self.conn, |conn| {
            let mut sql = QueryBuilder::new(COLUMNS);
            sql.push("WHERE kind = 'purchase' AND pass_id = ").push_bind(pass);
            sql.build_query_as().fetch_optional(conn).await
        })?;
        row.map(Transaction::try_from).transpose()
    }

    /// A wallet's transactions, the last one first.
    pub async fn list(
        &mut self,
        user: UserId,
        page: PageRequest,
    ) -> StoreResult<Page<Transaction>> {
        let rows: Vec<TransactionRow> = on_conn!(self.conn, |conn| {
            let mut sql = QueryBuilder::new(COLUMNS);
            sql.push("WHERE wallet_id = ").push_bind(user);
            if let Some(after) = page.after {
                // The wallet again: a cursor of another wallet leads nowhere.
                sql.push(" AND seq < (SELECT seq FROM ledger_transactions WHERE wallet_id = ")
                    .push_bind(user)
                    .push(" AND id = ")
                    .push_bind(after.0)
                    .push(")");
            }
            sql.push(" ORDER BY seq DESC LIMIT ").push_bind(row::limit(page));
            sql.build_query_as().fetch_all(conn).await
        })?;
        let page = Page::from_rows(rows, page.limit, |row| row.id.as_uuid());
        let items =
            page.items.into_iter().map(Transaction::try_from).collect::<StoreResult<_>>()?;
        Ok(Page { items, next: page.next })
    }
}

fn chain_hash(bytes: &[u8]) -> StoreResult<ChainHash> {
    let bytes = bytes.try_into().map_err(|_| StoreError::corrupt("hash", "not 32 bytes"))?;
    Ok(ChainHash(bytes))
}
