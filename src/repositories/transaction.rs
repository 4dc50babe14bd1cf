//! A transaction on Postgres that leaves nothing behind, also when nobody
//! waits for it any more.
//!
//! sqlx 0.9's own forgets a `BEGIN` whose caller went away before the answer: the
//! connection goes back to the pool inside a transaction, where the next ones
//! read old rows and hold locks (<https://github.com/launchbadge/sqlx/issues/4393>).
//! A client that hangs up is enough for that.

use std::ops::{Deref, DerefMut};

use sqlx::{Executor, PgConnection, PgPool, Postgres, pool::PoolConnection};
use tokio::time::timeout;

use super::connection::ANSWER_DEADLINE;

/// An open transaction. Dropping it without [`Self::commit`] rolls back.
#[derive(Debug)]
pub struct PgTx(Option<PoolConnection<Postgres>>);

impl PgTx {
    /// Takes a connection of `pool` and begins with `statement`.
    pub(super) async fn begin(pool: &PgPool, statement: &'static str) -> sqlx::Result<Self> {
        // Dropped before the answer it rolls back, like any other.
        let mut tx = Self(Some(pool.acquire().await?));
        (&mut *tx).execute(statement).await?;
        Ok(tx)
    }

    /// Makes the changes last. An error leaves open whether they did.
    pub(super) async fn commit(mut self) -> sqlx::Result<()> {
        let mut conn = Uncertain(self.0.take());
        conn.execute("COMMIT").await?;
        drop(conn.known());
        Ok(())
    }
}

impl Deref for PgTx {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.0.as_ref().expect("only commit and drop take it")
    }
}

impl DerefMut for PgTx {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.0.as_mut().expect("only commit and drop take it")
    }
}

impl Drop for PgTx {
    fn drop(&mut self) {
        if let Some(conn) = self.0.take() {
            tokio::spawn(roll_back(conn));
        }
    }
}

/// Ends the transaction, and the connection if that is not answered.
async fn roll_back(conn: PoolConnection<Postgres>) {
    let mut conn = Uncertain(Some(conn));
    // Reads what is left of an interrupted query first.
    if let Ok(Ok(_)) = timeout(ANSWER_DEADLINE, conn.execute("ROLLBACK")).await {
        drop(conn.known());
    }
}

/// A connection of which nobody knows whether it is in a transaction. Dropped
/// so, it is closed: the server rolls back, and the pool makes another.
struct Uncertain(Option<PoolConnection<Postgres>>);

impl Uncertain {
    /// The last answer has told.
    fn known(mut self) -> PoolConnection<Postgres> {
        self.0.take().expect("taken once, by value")
    }

    fn execute(
        &mut self,
        statement: &'static str,
    ) -> impl Future<Output = sqlx::Result<sqlx::postgres::PgQueryResult>> {
        let conn = self.0.as_mut().expect("only `known` takes it");
        (&mut **conn).execute(statement)
    }
}

impl Drop for Uncertain {
    fn drop(&mut self) {
        if let Some(conn) = &mut self.0 {
            conn.close_on_drop();
        }
    }
}
