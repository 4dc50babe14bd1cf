//! What can go wrong below the services, in terms they can act on.

use sqlx::{error::DatabaseError, postgres::PgDatabaseError};

/// Constraint names are part of the schema contract: they are equal in both
/// migration sets and are the only strings matched on.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The name of the violated unique or primary key.
    #[error("unique constraint {constraint} violated")]
    Duplicate { constraint: String },
    /// Nothing is wrong with the request: the same call may succeed later. The
    /// change may have happened if it was a commit that went unanswered.
    #[error("the database is busy or unreachable")]
    Unavailable(#[source] sqlx::Error),
    /// A defect of ours, or data that does not have the shape we gave it.
    #[error("database error")]
    Database(#[source] sqlx::Error),
}

pub type StoreResult<T> = Result<T, StoreError>;

impl StoreError {
    /// Whether this is a violation of the unique constraint `name`.
    pub fn violates(&self, name: &str) -> bool {
        matches!(self, Self::Duplicate { constraint } if constraint == name)
    }

    /// A stored value that cannot be what this crate wrote.
    pub(super) fn corrupt(
        column: &'static str,
        cause: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Database(sqlx::Error::ColumnDecode { index: column.to_owned(), source: cause.into() })
    }

    /// Rows that contradict each other, which the schema and the transactions
    /// should have prevented.
    pub fn inconsistent(what: &'static str) -> Self {
        Self::corrupt("", what)
    }

    /// The engine did not answer in time.
    pub fn timed_out() -> Self {
        Self::Unavailable(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(db) if db.is_unique_violation() => {
                Self::Duplicate { constraint: constraint_of(db.as_ref()) }
            }
            cause if is_temporary(cause) => Self::Unavailable(error),
            _ => Self::Database(error),
        }
    }
}

/// Whether the same call may succeed later.
pub(super) fn is_temporary(error: &sqlx::Error) -> bool {
    use sqlx::Error::{BeginFailed, Database, Io, PoolClosed, PoolTimedOut, Tls, WorkerCrashed};
    match error {
        PoolTimedOut | PoolClosed | WorkerCrashed | BeginFailed | Io(_) | Tls(_) => true,
        Database(db) => match db.try_downcast_ref::<PgDatabaseError>() {
            Some(db) => is_temporary_on_postgres(db.code()),
            None => {
                db.code().and_then(|code| code.parse().ok()).is_some_and(is_temporary_on_sqlite)
            }
        },
        _ => false,
    }
}

/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
fn is_temporary_on_postgres(code: &str) -> bool {
    match code {
        // A standby during a failover (read only), an idle transaction that was
        // cut, a serialization failure, a deadlock, a lock or statement timeout,
        // a server that stops, crashed or starts, an I/O error.
        "25006" | "25P03" | "40001" | "40P01" | "55P03" | "57014" | "57P01" | "57P02" | "57P03"
        | "57P05" | "58030" => true,
        // Connections that broke; disk, memory or connections exhausted.
        _ => code.starts_with("08") || code.starts_with("53"),
    }
}

/// <https://www.sqlite.org/rescode.html>: the low byte is the primary code.
fn is_temporary_on_sqlite(code: i32) -> bool {
    const BUSY: i32 = 5;
    const LOCKED: i32 = 6;
    const INTERRUPT: i32 = 9;
    const IOERR: i32 = 10;
    const FULL: i32 = 13;
    const CANTOPEN: i32 = 14;
    matches!(code & 0xff, BUSY | LOCKED | INTERRUPT | IOERR | FULL | CANTOPEN)
}

fn constraint_of(error: &dyn DatabaseError) -> String {
    match error.constraint() {
        Some(name) => name.to_owned(),
        None => sqlite_constraint(error.message(), error.code().as_deref() == Some("1555")),
    }
}

/// SQLite names columns (`UNIQUE constraint failed: users.email_key`) or, for
/// an index over an expression, the index.
fn sqlite_constraint(message: &str, primary_key: bool) -> String {
    let Some((_, what)) = message.split_once("constraint failed: ") else {
        return message.to_owned();
    };
    if let Some(index) = what.strip_prefix("index '") {
        return index.trim_end_matches('\'').to_owned();
    }
    let mut columns = what.split(", ").filter_map(|column| column.split_once('.'));
    let Some((table, first)) = columns.next() else { return what.to_owned() };
    if primary_key {
        return format!("{table}_pkey");
    }
    let mut name =
        columns.fold(format!("{table}_{first}"), |name, (_, column)| name + "_" + column);
    if !name.ends_with("_key") {
        name.push_str("_key");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlite_messages_become_the_names_that_postgres_reports() {
        for (message, primary, name) in [
            ("UNIQUE constraint failed: users.email_key", false, "users_email_key"),
            ("UNIQUE constraint failed: refresh_tokens.hash", false, "refresh_tokens_hash_key"),
            ("UNIQUE constraint failed: t.a, t.b", false, "t_a_b_key"),
            (
                "UNIQUE constraint failed: usage_hourly.start, usage_hourly.user_id",
                true,
                "usage_hourly_pkey",
            ),
            ("UNIQUE constraint failed: index 't_lower_key'", false, "t_lower_key"),
        ] {
            assert_eq!(sqlite_constraint(message, primary), name);
        }
    }

    #[test]
    fn what_may_be_tried_again_is_told_from_what_may_not() {
        for code in ["53300", "53100", "57P03", "40P01", "55P03", "57014", "08006"] {
            assert!(is_temporary_on_postgres(code), "{code}");
        }
        for code in ["23503", "23514", "42P01", "22001"] {
            assert!(!is_temporary_on_postgres(code), "{code}");
        }
        // SQLITE_BUSY_SNAPSHOT, SQLITE_LOCKED_SHAREDCACHE, SQLITE_FULL.
        for code in [517, 262, 13] {
            assert!(is_temporary_on_sqlite(code), "{code}");
        }
        // SQLITE_CONSTRAINT_CHECK, SQLITE_READONLY, SQLITE_CORRUPT.
        for code in [275, 8, 11] {
            assert!(!is_temporary_on_sqlite(code), "{code}");
        }
    }
}
