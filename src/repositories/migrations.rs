//! Brings the schema up to what this version expects.
//!
//! Any number of instances may start at once: one migrates, the others wait.
//! A schema newer than this version is accepted, since changes are made so
//! that the version before still runs on them (expand, then contract).

use std::{collections::BTreeMap, sync::LazyLock, time::Duration};

use sqlx::{Connection, PgConnection, PgPool, SqlitePool, migrate::Migrator};
use tokio::time::{Instant, sleep};

use super::{
    Database, Repositories, StoreResult, connection::on_conn, database::Pools, error::is_temporary,
};

static POSTGRES: LazyLock<Migrator> =
    LazyLock::new(|| configured(sqlx::migrate!("migrations/postgres")));
static SQLITE: LazyLock<Migrator> =
    LazyLock::new(|| configured(sqlx::migrate!("migrations/sqlite")));

/// Longest wait for another instance that migrates.
const LOCK_DEADLINE: Duration = Duration::from_mins(1);
/// The advisory lock, per database: `tollgate` in ASCII.
const LOCK_ID: i64 = i64::from_be_bytes(*b"tollgate");

#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// May succeed later, without a change.
    #[error("the database is busy or unreachable")]
    Unavailable(#[source] sqlx::Error),
    #[error(
        "another instance has been migrating the database for more than {} s",
        LOCK_DEADLINE.as_secs()
    )]
    Locked,
    #[error(transparent)]
    Failed(sqlx::migrate::MigrateError),
}

impl From<sqlx::migrate::MigrateError> for MigrateError {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        use sqlx::migrate::MigrateError::{Execute, ExecuteMigration};
        match error {
            Execute(cause) | ExecuteMigration(cause, _) if is_temporary(&cause) => {
                Self::Unavailable(cause)
            }
            error => Self::Failed(error),
        }
    }
}

impl From<sqlx::Error> for MigrateError {
    fn from(error: sqlx::Error) -> Self {
        sqlx::migrate::MigrateError::Execute(error).into()
    }
}

/// One migration, known to this version or found in the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrationStatus {
    pub version: i64,
    pub description: String,
    pub applied: bool,
}

impl Database {
    /// Applies what is missing; nothing when called again.
    ///
    /// Each migration is all or nothing: a process that is killed half-way
    /// leaves a database that the next start continues from.
    pub async fn migrate(&self) -> Result<(), MigrateError> {
        match &self.pools {
            Pools::Postgres { pool, .. } => migrate_postgres(pool).await,
            Pools::Sqlite { writer, .. } => migrate_sqlite(writer).await,
        }
    }

    /// All migrations in order, also those of a newer version that already
    /// ran. Changes nothing, not even on an empty database.
    pub async fn migration_status(&self) -> StoreResult<Vec<MigrationStatus>> {
        let applied = self.applied_migrations().await?;
        let known = match &self.pools {
            Pools::Postgres { .. } => &*POSTGRES,
            Pools::Sqlite { .. } => &*SQLITE,
        };
        let mut all: BTreeMap<i64, MigrationStatus> = known
            .iter()
            .map(|migration| MigrationStatus {
                version: migration.version,
                description: migration.description.to_string(),
                applied: false,
            })
            .map(|status| (status.version, status))
            .collect();
        for (version, description) in applied {
            let status = MigrationStatus { version, description, applied: true };
            all.insert(version, status);
        }
        Ok(all.into_values().collect())
    }

    async fn applied_migrations(&self) -> StoreResult<Vec<(i64, String)>> {
        const ON_POSTGRES: &str = "SELECT to_regclass('_sqlx_migrations') IS NOT NULL";
        const ON_SQLITE: &str =
            "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = '_sqlx_migrations')";
        const SQL: &str =
            "SELECT version, description FROM _sqlx_migrations WHERE success ORDER BY version";

        let mut session = self.session().await?;
        let exists = match &self.pools {
            Pools::Postgres { .. } => ON_POSTGRES,
            Pools::Sqlite { .. } => ON_SQLITE,
        };
        let exists: bool =
            on_conn!(session.conn(), |conn| sqlx::query_scalar(exists).fetch_one(conn).await)?;
        if !exists {
            return Ok(vec![]);
        }
        on_conn!(session.conn(), |conn| sqlx::query_as(SQL).fetch_all(conn).await)
    }
}

fn configured(mut migrator: Migrator) -> Migrator {
    migrator.set_ignore_missing(true).set_locking(false);
    migrator
}

/// One transaction around everything: SQLite can roll a schema back, and its
/// write lock makes other processes wait.
async fn migrate_sqlite(writer: &SqlitePool) -> Result<(), MigrateError> {
    let mut tx = writer.begin_with("BEGIN IMMEDIATE").await?;
    SQLITE.run_direct(None, &mut *tx, false).await?;
    Ok(tx.commit().await?)
}

/// On a connection of its own, so that what is set on it, and the lock, end
/// with it however this ends.
async fn migrate_postgres(pool: &PgPool) -> Result<(), MigrateError> {
    let mut conn = pool.acquire().await?.detach();
    // Building an index may take long; waiting for a lock may not, because
    // every query behind it waits as well.
    sqlx::query("SET statement_timeout = 0").execute(&mut conn).await?;
    lock(&mut conn).await?;
    let done = POSTGRES.run_direct(None, &mut conn, false).await;
    // Says goodbye, which frees the lock at once.
    conn.close().await.ok();
    Ok(done?)
}

/// Polls instead of waiting in the server: a waiting statement holds a
/// snapshot, which `CREATE INDEX CONCURRENTLY` in the instance that holds the
/// lock would wait for in turn, a deadlock.
async fn lock(conn: &mut PgConnection) -> Result<(), MigrateError> {
    let start = Instant::now();
    loop {
        let taken: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
            .bind(LOCK_ID)
            .fetch_one(&mut *conn)
            .await?;
        if taken {
            return Ok(());
        }
        if start.elapsed() > LOCK_DEADLINE {
            return Err(MigrateError::Locked);
        }
        sleep(Duration::from_millis(rand::random_range(50..150))).await;
    }
}
