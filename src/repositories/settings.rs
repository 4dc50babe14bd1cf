//! Values that all instances share and that one of them makes once.

use chrono::{DateTime, Utc};

use super::{DbConn, StoreResult, connection::on_conn};

pub struct Settings<'c> {
    conn: DbConn<'c>,
}

impl<'c> Settings<'c> {
    pub(super) fn new(conn: DbConn<'c>) -> Self {
        Self { conn }
    }

    /// Sets `name` if nobody has: `true` for the one caller who did, however
    /// many race. A racing caller waits until the winner commits or rolls back.
    pub async fn claim(&mut self, name: &str, value: &str, at: DateTime<Utc>) -> StoreResult<bool> {
        const SQL: &str = "
            INSERT INTO settings (name, value, created_at) VALUES ($1, $2, $3)
            ON CONFLICT (name) DO NOTHING";

        on_conn!(self.conn, |conn| sqlx::query(SQL)
            .bind(name)
            .bind(value)
            .bind(at)
            .execute(conn)
            .await
            .map(|done| done.rows_affected() == 1))
    }

    /// Makes every other transaction that locks the same name wait until this
    /// one ends.
    pub async fn lock(&mut self, name: &str, at: DateTime<Utc>) -> StoreResult<()> {
        const SQL: &str = "
            INSERT INTO settings (name, value, created_at) VALUES ($1, 'lock', $2)
            ON CONFLICT (name) DO UPDATE SET value = excluded.value";

        on_conn!(self.conn, |conn| sqlx::query(SQL)
            .bind(name)
            .bind(at)
            .execute(conn)
            .await
            .map(drop))
    }

    pub async fn get(&mut self, name: &str) -> StoreResult<Option<String>> {
        const SQL: &str = "SELECT value FROM settings WHERE name = $1";

        on_conn!(self.conn, |conn| sqlx::query_scalar(SQL).bind(name).fetch_optional(conn).await)
    }
}
