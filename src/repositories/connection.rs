//! Connections, in and out of transactions, and the way from them to the
//! repositories.

use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use metrics::{counter, histogram};
use sqlx::{PgConnection, Postgres, Sqlite, SqliteConnection, Transaction, pool::PoolConnection};

use crate::telemetry::operation as operation_of;

use super::{
    ApiKeys, Audit, Chat, Counts, CredentialChanges, Idempotency, Ledger, LoginSessions, Passes,
    RefreshTokens, Settings, StoreError, StoreResult, StreamTickets, Usage, Users, Vouchers,
    transaction::PgTx,
};

/// Longest wait for one answer of Postgres. It is for a server that says
/// nothing at all, for which sqlx has no limit: a caller is told so within 3 s
/// (RELIABILITY G-20), and every query on a request's way takes milliseconds.
pub(super) const ANSWER_DEADLINE: Duration = Duration::from_millis(2500);
/// The same for what may take long: reports, and SQLite, which waits for its
/// write lock. The engine's own limit (5 s) comes first and says more.
pub(super) const LONG_DEADLINE: Duration = Duration::from_secs(6);

/// A connection for reads, outside any transaction.
#[derive(Debug)]
pub enum Session {
    Postgres(PoolConnection<Postgres>),
    Sqlite(PoolConnection<Sqlite>),
}

/// A unit of work. Dropping it without [`Tx::commit`] rolls back.
#[derive(Debug)]
#[must_use = "a transaction that is not committed rolls back"]
pub enum Tx {
    Postgres(PgTx),
    Sqlite(Transaction<'static, Sqlite>),
}

impl Tx {
    /// Makes the changes last.
    ///
    /// [`StoreError::Unavailable`] leaves open whether they did: the answer
    /// may be what got lost.
    pub async fn commit(self) -> StoreResult<()> {
        match self {
            Self::Postgres(tx) => in_time("commit", ANSWER_DEADLINE, tx.commit()).await,
            Self::Sqlite(tx) => in_time("commit", LONG_DEADLINE, tx.commit()).await,
        }
    }
}

/// A borrowed connection, in or out of a transaction.
#[derive(Debug)]
pub enum DbConn<'c> {
    Postgres(&'c mut PgConnection),
    Sqlite(&'c mut SqliteConnection),
}

/// Reaches the repositories from anything that holds a connection.
pub trait Repositories {
    fn conn(&mut self) -> DbConn<'_>;

    fn users(&mut self) -> Users<'_> {
        Users::new(self.conn())
    }

    fn counts(&mut self) -> Counts<'_> {
        Counts::new(self.conn())
    }

    fn credential_changes(&mut self) -> CredentialChanges<'_> {
        CredentialChanges::new(self.conn())
    }

    fn audit(&mut self) -> Audit<'_> {
        Audit::new(self.conn())
    }

    fn login_sessions(&mut self) -> LoginSessions<'_> {
        LoginSessions::new(self.conn())
    }

    fn refresh_tokens(&mut self) -> RefreshTokens<'_> {
        RefreshTokens::new(self.conn())
    }

    fn api_keys(&mut self) -> ApiKeys<'_> {
        ApiKeys::new(self.conn())
    }

    fn chat(&mut self) -> Chat<'_> {
        Chat::new(self.conn())
    }

    fn passes(&mut self) -> Passes<'_> {
        Passes::new(self.conn())
    }

    fn ledger(&mut self) -> Ledger<'_> {
        Ledger::new(self.conn())
    }

    fn vouchers(&mut self) -> Vouchers<'_> {
        Vouchers::new(self.conn())
    }

    fn idempotency(&mut self) -> Idempotency<'_> {
        Idempotency::new(self.conn())
    }

    fn stream_tickets(&mut self) -> StreamTickets<'_> {
        StreamTickets::new(self.conn())
    }

    fn usage(&mut self) -> Usage<'_> {
        Usage::new(self.conn())
    }

    fn settings(&mut self) -> Settings<'_> {
        Settings::new(self.conn())
    }
}

impl Repositories for Session {
    fn conn(&mut self) -> DbConn<'_> {
        match self {
            Self::Postgres(conn) => DbConn::Postgres(conn),
            Self::Sqlite(conn) => DbConn::Sqlite(conn),
        }
    }
}

impl Repositories for Tx {
    fn conn(&mut self) -> DbConn<'_> {
        match self {
            Self::Postgres(tx) => DbConn::Postgres(tx),
            Self::Sqlite(tx) => DbConn::Sqlite(tx),
        }
    }
}

/// Waits for an answer, but not for ever. Measured as `operation`.
pub(super) async fn in_time<T: Send>(
    operation: &'static str,
    deadline: Duration,
    answer: impl Future<Output = sqlx::Result<T>> + Send,
) -> StoreResult<T> {
    // Boxed, since each `async fn` that a future is handed to makes room for it twice;
    // and without its type, which would be a part of the type of every caller's.
    let answered: BoxFuture<'_, StoreResult<T>> = Box::pin(async move {
        match tokio::time::timeout(deadline, answer).await {
            Ok(answer) => answer.map_err(StoreError::from),
            Err(_) => Err(StoreError::timed_out()),
        }
    });
    measured(operation, answered).await
}

/// Measures a call to the database: how long it takes, and whether it fails.
pub(super) async fn measured<T>(
    operation: &'static str,
    call: impl Future<Output = StoreResult<T>> + Unpin,
) -> StoreResult<T> {
    let started = Instant::now();
    let answer = operation_of("database", operation, call).await;
    histogram!("tollgate_database_call_duration_seconds", "operation" => operation)
        .record(started.elapsed().as_secs_f64());
    let kind = match &answer {
        // What a constraint says is an answer.
        Ok(_) | Err(StoreError::Duplicate { .. }) => return answer,
        Err(StoreError::Unavailable(_)) => "unavailable",
        Err(StoreError::Database(_)) => "defect",
    };
    let labels = [("operation", operation), ("kind", kind)];
    counter!("tollgate_database_errors_total", &labels).increment(1);
    answer
}

/// The repository that a module is or belongs to, as metrics name it.
pub(super) fn repository(module: &'static str) -> &'static str {
    module.split("::").nth(2).unwrap_or(module)
}

/// Runs one query on whichever engine the connection belongs to, within
/// [`ANSWER_DEADLINE`], or within the deadline that is given for a slow one.
///
/// The body is compiled once per engine, so a column type that only one of
/// them supports is a compile error rather than a surprise in production.
macro_rules! on_conn {
    ($conn:expr, |$c:ident| $body:expr) => {
        on_conn!($conn, within $crate::repositories::connection::ANSWER_DEADLINE, |$c| $body)
    };
    ($conn:expr, within $deadline:expr, |$c:ident| $body:expr) => {
        match &mut $conn {
            $crate::repositories::DbConn::Postgres(connection) => {
                let $c = &mut **connection;
                let of = $crate::repositories::connection::repository(module_path!());
                $crate::repositories::connection::in_time(of, $deadline, async { $body }).await
            }
            $crate::repositories::DbConn::Sqlite(connection) => {
                use $crate::repositories::connection::{LONG_DEADLINE, in_time};
                let $c = &mut **connection;
                let of = $crate::repositories::connection::repository(module_path!());
                in_time(of, LONG_DEADLINE, async { $body }).await
            }
        }
    };
}
pub(super) use on_conn;
