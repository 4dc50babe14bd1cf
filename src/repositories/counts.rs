//! Counts over everything, for operators. Each is answered from an index of its
//! own (migration 0015): reading the tables would take seconds where there are
//! millions of rows.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::QueryBuilder;
use uuid::Uuid;

use super::{
    DbConn, StoreResult,
    connection::{LONG_DEADLINE, on_conn},
};
use crate::domain::{
    id::{ApiKeyId, TransactionId, UserId},
    ledger::Account,
};

pub struct Counts<'c> {
    conn: DbConn<'c>,
}

/// How many accounts there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct UserCounts {
    pub total: i64,
    pub disabled: i64,
    /// Those with the role that are not disabled.
    pub admins: i64,
    /// Made since the first of the two instants that were asked for.
    pub new_since_first: i64,
    pub new_since_second: i64,
}

/// How many passes there are; those that went with their user are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct PassCounts {
    pub total: i64,
    /// Can be used still.
    pub unused: i64,
    /// Their time runs.
    pub active: i64,
}

/// What was sold, by the ledger: also to who is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Sales {
    /// Passes that were paid.
    pub sold: i64,
    pub refunded: i64,
    /// What was paid less what was given back.
    pub revenue_minor: i64,
}

impl<'c> Counts<'c> {
    pub(super) fn new(conn: DbConn<'c>) -> Self {
        Self { conn }
    }

    /// Counts accounts, those made since either instant too.
    pub async fn users(
        &mut self,
        first: DateTime<Utc>,
        second: DateTime<Utc>,
    ) -> StoreResult<UserCounts> {
        const SQL: &str = "
            SELECT
                (SELECT COUNT(*) FROM users) AS total,
                (SELECT COUNT(*) FROM users WHERE is_active = FALSE) AS disabled,
                (SELECT COUNT(*) FROM users WHERE (roles & 4) <> 0 AND is_active) AS admins,
                (SELECT COUNT(*) FROM users WHERE id >= $1) AS new_since_first,
                (SELECT COUNT(*) FROM users WHERE id >= $2) AS new_since_second";

        on_conn!(self.conn, within LONG_DEADLINE, |conn| sqlx::query_as(SQL)
            .bind(UserId::least_of(first))
            .bind(UserId::least_of(second))
            .fetch_one(conn)
            .await)
    }

    /// Counts passes by their state at `now`.
    pub async fn passes(&mut self, now: DateTime<Utc>) -> StoreResult<PassCounts> {
        const SQL: &str = "
            SELECT
                (SELECT COUNT(*) FROM passes) AS total,
                (SELECT COUNT(*) FROM passes
                 WHERE activated_us IS NULL AND revoked_at IS NULL) AS unused,
                (SELECT COUNT(*) FROM passes
                 WHERE activated_us IS NOT NULL AND revoked_at IS NULL
                     AND activated_us + duration_hours * 3600000000 > $1) AS active";

        on_conn!(self.conn, within LONG_DEADLINE, |conn| sqlx::query_as(SQL)
            .bind(now.timestamp_micros())
            .fetch_one(conn)
            .await)
    }

    /// Adds up what was sold since `from`; `None`: ever.
    pub async fn sales(&mut self, from: Option<DateTime<Utc>>) -> StoreResult<Sales> {
        const SQL: &str = "
            SELECT
                COUNT(CASE WHEN amount_minor > 0 THEN 1 END) AS sold,
                COUNT(CASE WHEN amount_minor < 0 THEN 1 END) AS refunded,
                CAST(COALESCE(SUM(amount_minor), 0) AS bigint) AS revenue_minor
            FROM ledger_entries
            WHERE account_id = $1 AND transaction_id >= $2";

        on_conn!(self.conn, within LONG_DEADLINE, |conn| sqlx::query_as(SQL)
            .bind(Account::Revenue.id())
            .bind(from.map_or(TransactionId::NIL, TransactionId::least_of))
            .fetch_one(conn)
            .await)
    }

    /// The names of those of the accounts that are there.
    pub async fn usernames(&mut self, ids: &[UserId]) -> StoreResult<BTreeMap<UserId, String>> {
        let ids = ids.iter().map(|id| id.as_uuid());
        let rows = self.names("SELECT id, username FROM users WHERE id IN (", ids).await?;
        Ok(rows.into_iter().map(|(id, name)| (id.into(), name)).collect())
    }

    /// The names of those of the keys that are there.
    pub async fn key_names(&mut self, ids: &[ApiKeyId]) -> StoreResult<BTreeMap<ApiKeyId, String>> {
        let ids = ids.iter().map(|id| id.as_uuid());
        let rows = self.names("SELECT id, name FROM api_keys WHERE id IN (", ids).await?;
        Ok(rows.into_iter().map(|(id, name)| (id.into(), name)).collect())
    }

    async fn names(
        &mut self,
        select: &'static str,
        ids: impl Iterator<Item = Uuid>,
    ) -> StoreResult<Vec<(Uuid, String)>> {
        let ids: Vec<Uuid> = ids.collect();
        if ids.is_empty() {
            return Ok(vec![]);
        }
        on_conn!(self.conn, |conn| {
            let mut sql = QueryBuilder::new(select);
            let mut list = sql.separated(", ");
            for id in &ids {
                list.push_bind(*id);
            }
            sql.push(")").build_query_as().fetch_all(conn).await
        })
    }
}
