//! Storage of vouchers and of their uses.

use chrono::{DateTime, Utc};
use sqlx::QueryBuilder;

use super::{
    DbConn, StoreError, StoreResult,
    connection::on_conn,
    row::{self, narrow},
};
use crate::domain::{
    id::{BatchId, PassId, RedemptionId, TransactionId, UserId, VoucherId},
    page::{Page, PageRequest},
    token::TokenHash,
    voucher::{Gift, Voucher},
};

pub struct Vouchers<'c> {
    conn: DbConn<'c>,
}

/// What vouchers can be listed by.
#[derive(Clone, Copy, Debug, Default)]
pub struct VoucherFilter {
    pub batch_id: Option<BatchId>,
}

/// One use of a voucher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Redemption {
    pub id: RedemptionId,
    pub voucher_id: VoucherId,
    pub user_id: UserId,
    /// What came of it: one of the two.
    pub transaction_id: Option<TransactionId>,
    pub pass_id: Option<PassId>,
    pub created_at: DateTime<Utc>,
}

#[derive(sqlx::FromRow)]
struct VoucherRow {
    id: VoucherId,
    prefix: String,
    batch_id: BatchId,
    note: Option<String>,
    amount_minor: Option<i64>,
    duration_hours: Option<i64>,
    upstream: Option<String>,
    expires_at: Option<DateTime<Utc>>,
    max_uses: i64,
    max_uses_per_user: i64,
    uses: i64,
    created_by: Option<UserId>,
    created_at: DateTime<Utc>,
    revoked_at: Option<DateTime<Utc>>,
}

impl TryFrom<VoucherRow> for Voucher {
    type Error = StoreError;

    fn try_from(row: VoucherRow) -> StoreResult<Self> {
        let gift = match (row.amount_minor, row.duration_hours) {
            (Some(minor), _) => Gift::Balance(minor),
            (None, Some(hours)) => Gift::Pass {
                duration_hours: narrow("duration_hours", hours)?,
                upstream: row.upstream,
            },
            (None, None) => return Err(StoreError::corrupt("amount_minor", "a gift of nothing")),
        };
        Ok(Self {
            id: row.id,
            prefix: row.prefix,
            batch_id: row.batch_id,
            note: row.note,
            gift,
            expires_at: row.expires_at,
            max_uses: narrow("max_uses", row.max_uses)?,
            max_uses_per_user: narrow("max_uses_per_user", row.max_uses_per_user)?,
            uses: narrow("uses", row.uses)?,
            created_by: row.created_by,
            created_at: row.created_at,
            revoked_at: row.revoked_at,
        })
    }
}

const COLUMNS: &str = "
    SELECT id, prefix, batch_id, note, amount_minor, duration_hours, upstream, expires_at,
           max_uses, max_uses_per_user, uses, created_by, created_at, revoked_at
    FROM vouchers WHERE ";

impl<'c> Vouchers<'c> {
    pub(super) fn new(conn: DbConn<'c>) -> Self {
        Self { conn }
    }

    pub async fn insert(&mut self, voucher: &Voucher, hash: &TokenHash) -> StoreResult<()> {
        self.insert_all(&[(voucher, *hash)]).await
    }

    /// All or, in a transaction that is dropped after an error, none.
    pub async fn insert_all(&mut self, vouchers: &[(&Voucher, TokenHash)]) -> StoreResult<()> {
        const SQL: &str = "
            INSERT INTO vouchers
                (id, hash, prefix, batch_id, note, amount_minor, duration_hours, upstream,
                 expires_at, max_uses, max_uses_per_user, uses, created_by, created_at, revoked_at) ";
        /// Far below what either engine can bind.
        const AT_ONCE: usize = 100;

        for some in vouchers.chunks(AT_ONCE) {
            on_conn!(self.conn, |conn| {
                let mut sql = QueryBuilder::new(SQL);
                sql.push_values(some, |mut row, (voucher, hash)| {
                    let (amount, hours, upstream) = match &voucher.gift {
                        Gift::Balance(minor) => (Some(*minor), None, None),
                        Gift::Pass { duration_hours, upstream } => {
                            (None, Some(i64::from(*duration_hours)), upstream.as_deref())
                        }
                    };
                    row.push_bind(voucher.id)
                        .push_bind(hash.as_bytes())
                        .push_bind(&voucher.prefix)
                        .push_bind(voucher.batch_id)
                        .push_bind(&voucher.note)
                        .push_bind(amount)
                        .push_bind(hours)
                        .push_bind(upstream)
                        .push_bind(voucher.expires_at)
                        .push_bind(i64::from(voucher.max_uses))
                        .push_bind(i64::from(voucher.max_uses_per_user))
                        .push_bind(i64::from(voucher.uses))
                        .push_bind(voucher.created_by)
                        .push_bind(voucher.created_at)
                        .push_bind(voucher.revoked_at);
                });
                sql.build().execute(conn).await.map(drop)
            })?;
        }
        Ok(())
    }

    pub async fn find(&mut self, id: VoucherId) -> StoreResult<Option<Voucher>> {
        let row: Option<VoucherRow> = on_conn!(self.conn, |conn| {
            let mut sql = QueryBuilder::new(COLUMNS);
            sql.push("id = ").push_bind(id);
            sql.build_query_as().fetch_optional(conn).await
        })?;
        row.map(Voucher::try_from).transpose()
    }

    /// Whatever state it is in.
    pub async fn find_by_hash(&mut self, hash: &TokenHash) -> StoreResult<Option<Voucher>> {
        let row: Option<VoucherRow> = on_conn!(self.conn, |conn| {
            let mut sql = QueryBuilder::new(COLUMNS);
            sql.push("hash = ").push_bind(hash.as_bytes());
            sql.build_query_as().fetch_optional(conn).await
        })?;
        row.map(Voucher::try_from).transpose()
    }

    /// Takes one of its uses, unless none is left, it is revoked, or it has
    /// expired at `now`: `false` then. The voucher stays locked until the
    /// transaction ends, so what is counted afterwards stays true.
    pub async fn take_use(&mut self, id: VoucherId, now: DateTime<Utc>) -> StoreResult<bool> {
        const SQL: &str = "
            UPDATE vouchers SET uses = uses + 1
            WHERE id = $1 AND uses < max_uses AND revoked_at IS NULL
              AND (expires_at IS NULL OR expires_at > $2)";

        on_conn!(self.conn, |conn| sqlx::query(SQL)
            .bind(id)
            .bind(now)
            .execute(conn)
            .await
            .map(|done| done.rows_affected() == 1))
    }

    /// Whether any was ever made that gives money.
    pub async fn any_balance(&mut self) -> StoreResult<bool> {
        const SQL: &str = "SELECT EXISTS (SELECT 1 FROM vouchers WHERE amount_minor IS NOT NULL)";

        on_conn!(self.conn, |conn| sqlx::query_scalar(SQL).fetch_one(conn).await)
    }

    /// How often the user has redeemed it.
    pub async fn uses_by(&mut self, id: VoucherId, user: UserId) -> StoreResult<u64> {
        const SQL: &str =
            "SELECT COUNT(*) FROM voucher_redemptions WHERE voucher_id = $1 AND user_id = $2";

        let taken: i64 = on_conn!(self.conn, |conn| sqlx::query_scalar(SQL)
            .bind(id)
            .bind(user)
            .fetch_one(conn)
            .await)?;
        Ok(row::count(taken))
    }

    pub async fn insert_redemption(&mut self, redemption: &Redemption) -> StoreResult<()> {
        const SQL: &str = "
            INSERT INTO voucher_redemptions
                (id, voucher_id, user_id, transaction_id, pass_id, created_at)
            VALUES ($1, $2, $3, $4, $5, $6)";

        on_conn!(self.conn, |conn| sqlx::query(SQL)
            .bind(redemption.id)
            .bind(redemption.voucher_id)
            .bind(redemption.user_id)
            .bind(redemption.transaction_id)
            .bind(redemption.pass_id)
            .bind(redemption.created_at)
            .execute(conn)
            .await
            .map(drop))
    }

    pub async fn find_redemption(&mut self, id: RedemptionId) -> StoreResult<Option<Redemption>> {
        const SQL: &str = "
            SELECT id, voucher_id, user_id, transaction_id, pass_id, created_at
            FROM voucher_redemptions
            WHERE id = $1";

        on_conn!(self.conn, |conn| sqlx::query_as(SQL).bind(id).fetch_optional(conn).await)
    }

    /// Stops it from being redeemed; `false` if it was stopped before.
    pub async fn revoke(&mut self, id: VoucherId, at: DateTime<Utc>) -> StoreResult<bool> {
        const SQL: &str =
            "UPDATE vouchers SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL";

        on_conn!(self.conn, |conn| sqlx::query(SQL)
            .bind(id)
            .bind(at)
            .execute(conn)
            .await
            .map(|done| done.rows_affected() == 1))
    }

    /// Newest first.
    pub async fn list(
        &mut self,
        filter: VoucherFilter,
        page: PageRequest,
    ) -> StoreResult<Page<Voucher>> {
        let rows: Vec<VoucherRow> = on_conn!(self.conn, |conn| {
            let mut sql = QueryBuilder::new(COLUMNS);
            sql.push("TRUE");
            if let Some(batch) = filter.batch_id {
                sql.push(" AND batch_id = ").push_bind(batch);
            }
            if let Some(after) = page.after {
                sql.push(" AND id < ").push_bind(after.0);
            }
            sql.push(" ORDER BY id DESC LIMIT ").push_bind(row::limit(page));
            sql.build_query_as().fetch_all(conn).await
        })?;
        let page = Page::from_rows(rows, page.limit, |row| row.id.as_uuid());
        let items = page.items.into_iter().map(Voucher::try_from).collect::<StoreResult<_>>()?;
        Ok(Page { items, next: page.next })
    }
}
