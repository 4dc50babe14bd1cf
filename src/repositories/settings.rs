//! Values that all instances share and that one of them makes once.

use chrono::{DateTime, TimeDelta, Utc};

use super::{DbConn, StoreResult, connection::on_conn};

pub struct Settings<'c> {
    conn: DbConn<'c>,
}

/// Who last did what is to be done now and then.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Turn {
    pub taken_at: DateTime<Utc>,
    pub value: String,
}

impl Turn {
    /// Whether [`Settings::take_turn`] would give the next one.
    pub fn is_over(&self, pause: TimeDelta, at: DateTime<Utc>) -> bool {
        (at - self.taken_at).abs() >= pause
    }
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

    /// Sets `name`, whatever it was.
    pub async fn set(&mut self, name: &str, value: &str, at: DateTime<Utc>) -> StoreResult<()> {
        const SQL: &str = "
            INSERT INTO settings (name, value, created_at) VALUES ($1, $2, $3)
            ON CONFLICT (name) DO UPDATE SET value = excluded.value";

        on_conn!(self.conn, |conn| sqlx::query(SQL)
            .bind(name)
            .bind(value)
            .bind(at)
            .execute(conn)
            .await
            .map(drop))
    }

    /// Takes the turn at what is to be done by one instance now and then: `true`
    /// for one caller, unless somebody took it less than `pause` before or after
    /// `at`. One that was taken later was taken by a clock that was wrong, and
    /// must not be waited for. What is noted under the name stays.
    pub async fn take_turn(
        &mut self,
        name: &str,
        pause: TimeDelta,
        at: DateTime<Utc>,
    ) -> StoreResult<bool> {
        const SQL: &str = "
            INSERT INTO settings (name, value, created_at) VALUES ($1, '', $2)
            ON CONFLICT (name) DO UPDATE SET created_at = excluded.created_at
            WHERE settings.created_at <= $3 OR settings.created_at >= $4";

        on_conn!(self.conn, |conn| sqlx::query(SQL)
            .bind(name)
            .bind(at)
            .bind(at - pause)
            .bind(at + pause)
            .execute(conn)
            .await
            .map(|done| done.rows_affected() == 1))
    }

    /// When the turn was last taken, and what was noted.
    pub async fn turn(&mut self, name: &str) -> StoreResult<Option<Turn>> {
        const SQL: &str = "SELECT created_at AS taken_at, value FROM settings WHERE name = $1";

        on_conn!(self.conn, |conn| sqlx::query_as(SQL).bind(name).fetch_optional(conn).await)
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
