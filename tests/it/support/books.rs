//! The books, checked from outside: what must be true of money, passes and
//! vouchers whatever happened (RELIABILITY, ledger invariants), in SQL of its
//! own that runs on both engines.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};

/// Each of these finds rows that must not be there.
const INVARIANTS: &[(&str, &str)] = &[
    (
        "I1: a transaction has two entries, one in its wallet, and they add up to nothing",
        "SELECT t.id FROM ledger_transactions t
         LEFT JOIN ledger_entries e ON e.transaction_id = t.id
         GROUP BY t.id, t.wallet_id, t.amount_minor
         HAVING COUNT(e.amount_minor) <> 2 OR SUM(e.amount_minor) <> 0
             OR SUM(CASE WHEN e.account_id = t.wallet_id THEN e.amount_minor ELSE 0 END)
                <> t.amount_minor",
    ),
    (
        "I2: a balance is the sum of the wallet's entries",
        "SELECT a.id FROM ledger_accounts a
         LEFT JOIN ledger_entries e ON e.account_id = a.id
         WHERE a.kind = 'wallet'
         GROUP BY a.id, a.balance_minor
         HAVING a.balance_minor <> COALESCE(SUM(e.amount_minor), 0)",
    ),
    (
        "I2: a wallet's transactions are numbered without a gap and each adds to the last",
        "SELECT id FROM (
             SELECT id, seq, balance_after_minor,
                    ROW_NUMBER() OVER (PARTITION BY wallet_id ORDER BY seq) AS number,
                    SUM(amount_minor) OVER (PARTITION BY wallet_id ORDER BY seq) AS total
             FROM ledger_transactions) t
         WHERE seq <> number OR balance_after_minor <> total",
    ),
    (
        "I2: a wallet knows how many transactions it has had",
        "SELECT a.id FROM ledger_accounts a
         LEFT JOIN ledger_transactions t ON t.wallet_id = a.id
         WHERE a.kind = 'wallet'
         GROUP BY a.id, a.seq HAVING a.seq <> COUNT(t.id)",
    ),
    (
        "I3: nobody has less than nothing",
        "SELECT id FROM ledger_accounts WHERE balance_minor < 0
         UNION ALL SELECT id FROM ledger_transactions WHERE balance_after_minor < 0",
    ),
    (
        "I5: a key has one effect, and no two keys have the same",
        "SELECT result_id FROM idempotency_keys
         GROUP BY result_id, request_hash HAVING COUNT(*) <> 1",
    ),
    (
        "I5: what was claimed was done",
        "SELECT result_id FROM idempotency_keys
         WHERE result_id NOT IN (SELECT id FROM passes)
           AND result_id NOT IN (SELECT id FROM ledger_transactions)
           AND result_id NOT IN (SELECT id FROM voucher_redemptions)",
    ),
    (
        "I5: what was done was claimed",
        "SELECT id FROM ledger_transactions
         WHERE kind IN ('purchase', 'refund')
           AND pass_id NOT IN (SELECT result_id FROM idempotency_keys)
         UNION ALL
         SELECT id FROM ledger_transactions
         WHERE kind = 'credit' AND voucher_id IS NULL
           AND id NOT IN (SELECT result_id FROM idempotency_keys)
         UNION ALL
         SELECT id FROM voucher_redemptions
         WHERE id NOT IN (SELECT result_id FROM idempotency_keys)",
    ),
    (
        "I6: what came back is what the pass says, and no more than was paid",
        "SELECT p.id FROM passes p
         LEFT JOIN ledger_transactions t ON t.kind = 'refund' AND t.pass_id = p.id
         GROUP BY p.id, p.refunded_minor, p.price_minor
         HAVING COUNT(t.id) > 1 OR COALESCE(SUM(t.amount_minor), 0) > p.price_minor
             OR COALESCE(SUM(t.amount_minor), 0) <> COALESCE(p.refunded_minor, 0)",
    ),
    (
        "I6: a refund gives back its own purchase",
        "SELECT r.id FROM ledger_transactions r
         LEFT JOIN ledger_transactions p ON p.id = r.reverses_id AND p.kind = 'purchase'
         WHERE r.kind = 'refund'
           AND (p.id IS NULL OR p.pass_id <> r.pass_id OR p.wallet_id <> r.wallet_id)",
    ),
    (
        "I6: what was given back in full was never used, and what was given back is ended",
        "SELECT id FROM passes
         WHERE refunded_minor IS NOT NULL
           AND (revoked_at IS NULL
                OR price_minor > 0 AND refunded_minor = price_minor AND activated_us IS NOT NULL)",
    ),
    (
        "I7: a pass was paid once, by its owner, with its price",
        "SELECT p.id FROM passes p
         LEFT JOIN ledger_transactions t ON t.kind = 'purchase' AND t.pass_id = p.id
         GROUP BY p.id, p.user_id, p.price_minor
         HAVING COUNT(t.id) <> CASE WHEN p.price_minor > 0 THEN 1 ELSE 0 END
             OR COALESCE(SUM(t.amount_minor), 0) <> -p.price_minor
             OR COUNT(CASE WHEN t.wallet_id <> p.user_id THEN 1 END) > 0",
    ),
    (
        "I7: what was paid for is there",
        "SELECT id FROM ledger_transactions
         WHERE kind = 'purchase' AND pass_id NOT IN (SELECT id FROM passes)",
    ),
    (
        "I8: money comes from where its kind says",
        "SELECT t.id FROM ledger_transactions t
         JOIN ledger_entries e ON e.transaction_id = t.id AND e.account_id <> t.wallet_id
         JOIN ledger_accounts a ON a.id = e.account_id
         WHERE a.kind <> CASE WHEN t.kind IN ('purchase', 'refund') THEN 'revenue'
                              WHEN t.voucher_id IS NOT NULL THEN 'promotion'
                              ELSE 'topup' END",
    ),
    (
        "I8: what wallets hold is what came in less what was sold",
        "SELECT 1 FROM (SELECT
             (SELECT COALESCE(SUM(balance_minor), 0) FROM ledger_accounts) AS held,
             (SELECT COALESCE(SUM(amount_minor), 0) FROM ledger_transactions) AS moved,
             (SELECT COALESCE(SUM(e.amount_minor), 0) FROM ledger_entries e
              JOIN ledger_accounts a ON a.id = e.account_id WHERE a.kind <> 'wallet') AS house) s
         WHERE held <> moved OR held + house <> 0",
    ),
    (
        "a voucher was used as often as it was redeemed, and no more often than it may",
        "SELECT v.id FROM vouchers v
         LEFT JOIN voucher_redemptions r ON r.voucher_id = v.id
         GROUP BY v.id, v.uses, v.max_uses HAVING v.uses <> COUNT(r.id) OR v.uses > v.max_uses",
    ),
    (
        "nobody redeemed a voucher more often than one may",
        "SELECT v.id FROM vouchers v
         JOIN voucher_redemptions r ON r.voucher_id = v.id
         GROUP BY v.id, v.max_uses_per_user, r.user_id HAVING COUNT(*) > v.max_uses_per_user",
    ),
    (
        "a voucher gave what it says to whom it says",
        "SELECT r.id FROM voucher_redemptions r
         JOIN vouchers v ON v.id = r.voucher_id
         LEFT JOIN ledger_transactions t ON t.id = r.transaction_id
         LEFT JOIN passes p ON p.id = r.pass_id
         WHERE (v.amount_minor IS NOT NULL AND (t.id IS NULL OR t.wallet_id <> r.user_id
                OR t.voucher_id <> v.id OR t.amount_minor <> v.amount_minor))
            OR (v.duration_hours IS NOT NULL AND (p.id IS NULL OR p.user_id <> r.user_id
                OR p.duration_hours <> v.duration_hours OR p.origin <> 'voucher'))",
    ),
    (
        "what a voucher gave was redeemed",
        "SELECT id FROM ledger_transactions
         WHERE voucher_id IS NOT NULL AND id NOT IN (
             SELECT transaction_id FROM voucher_redemptions WHERE transaction_id IS NOT NULL)
         UNION ALL
         SELECT id FROM passes
         WHERE origin = 'voucher' AND id NOT IN (
             SELECT pass_id FROM voucher_redemptions WHERE pass_id IS NOT NULL)",
    ),
];

/// A connection of the test's own to the database of an instance.
pub enum Books {
    Postgres(PgConnection),
    Sqlite(SqliteConnection),
}

impl Books {
    pub async fn open(url: &str) -> Self {
        if url.starts_with("sqlite:") {
            Self::Sqlite(SqliteConnection::connect(url).await.unwrap())
        } else {
            Self::Postgres(PgConnection::connect(url).await.unwrap())
        }
    }

    /// The one number that a query answers.
    pub async fn number(&mut self, sql: &str) -> i64 {
        let sql = AssertSqlSafe(sql.to_owned());
        match self {
            Self::Postgres(conn) => sqlx::query_scalar(sql).fetch_one(conn).await.unwrap(),
            Self::Sqlite(conn) => sqlx::query_scalar(sql).fetch_one(conn).await.unwrap(),
        }
    }

    /// Runs statements; what the engine says to it.
    pub async fn run(&mut self, sql: &'static str) -> sqlx::Result<()> {
        match self {
            Self::Postgres(conn) => sqlx::raw_sql(sql).execute(conn).await.map(drop),
            Self::Sqlite(conn) => sqlx::raw_sql(sql).execute(conn).await.map(drop),
        }
    }

    /// The invariants that do not hold, each with how often.
    pub async fn broken(&mut self) -> Vec<(&'static str, i64)> {
        let mut broken = vec![];
        for (name, sql) in INVARIANTS {
            match self.number(&format!("SELECT COUNT(*) FROM ({sql}) found")).await {
                0 => {}
                rows => broken.push((*name, rows)),
            }
        }
        broken
    }

    /// A panic unless every invariant holds.
    pub async fn check(&mut self) {
        let broken = self.broken().await;
        assert!(broken.is_empty(), "{broken:#?}");
    }
}
