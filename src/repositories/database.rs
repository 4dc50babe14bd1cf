//! Pools over the two supported engines.
//!
//! Opening a Postgres database does not talk to it: the process can start
//! first and is not ready until [`Database::ping`] succeeds.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use secrecy::ExposeSecret;
use sqlx::{
    Connection, PgPool, SqlitePool,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::{
    fs::{DirBuilder, OpenOptions},
    sync::Notify,
    time::timeout,
};

use super::{
    Session, StoreError, StoreResult, Tx,
    connecting::Connecting,
    connection::{ANSWER_DEADLINE, LONG_DEADLINE, in_time, measured},
    transaction::PgTx,
};
use crate::config::DatabaseConfig;

/// Longest wait for a connection to Postgres, a new one included.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for the write lock of SQLite.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that served within this time is taken without asking whether
/// it still lives.
const FRESH: Duration = Duration::from_secs(1);
const IDLE_TIMEOUT: Duration = Duration::from_mins(5);
/// Lets connections move after a failover, and gives memory of old ones back.
const MAX_LIFETIME: Duration = Duration::from_mins(30);
/// Each reader of SQLite is a thread with a page cache of its own.
const MAX_READERS: u32 = 4;

/// The pools of one database. Clones share them.
#[derive(Clone, Debug)]
pub struct Database {
    pub(super) pools: Pools,
    acquired: Arc<AtomicU64>,
}

/// A look at one pool.
#[derive(Clone, Copy, Debug)]
pub struct PoolStatus {
    pub name: &'static str,
    pub in_use: usize,
    pub idle: usize,
    pub most: u32,
}

#[derive(Clone, Debug)]
pub(super) enum Pools {
    Postgres {
        pool: PgPool,
        connecting: Arc<Connecting>,
    },
    /// SQLite has one writer at a time whatever we do: a queue in front of one
    /// connection is fair, while many connections would poll for the lock.
    Sqlite {
        writer: SqlitePool,
        reader: SqlitePool,
    },
}

impl Database {
    /// Prepares the pools. Postgres need not be up; an SQLite file, and its
    /// folder, are made if missing, for the owner's eyes only.
    pub async fn open(config: &DatabaseConfig) -> StoreResult<Self> {
        let url = config.url.expose_secret();
        let pools = match sqlite_options(url)? {
            Some(options) => open_sqlite(options, config.max_connections).await?,
            None => open_postgres(url.parse()?, config.max_connections),
        };
        Ok(Self { pools, acquired: Arc::default() })
    }

    /// Whether the database answers now, within 2 s.
    pub async fn ping(&self) -> StoreResult<()> {
        let answer = async {
            match &self.pools {
                Pools::Postgres { pool, connecting } => {
                    let leave = connecting.leave(pool).await;
                    let mut session = pool.acquire().await?;
                    drop(leave);
                    session.ping().await
                }
                // A ping of SQLite would not touch the file.
                Pools::Sqlite { reader, .. } => sqlx::query("SELECT 1 FROM sqlite_schema LIMIT 1")
                    .fetch_optional(reader)
                    .await
                    .map(drop),
            }
        };
        match timeout(ACQUIRE_TIMEOUT, answer).await {
            Ok(answer) => answer.map_err(StoreError::from),
            Err(_) => Err(StoreError::timed_out()),
        }
    }

    /// A connection for reads, outside any transaction. On SQLite it refuses
    /// to write.
    pub async fn session(&self) -> StoreResult<Session> {
        let session = self.background().await?;
        self.acquired.fetch_add(1, Ordering::Relaxed);
        Ok(session)
    }

    /// The same for work that belongs to no request: not counted by
    /// [`Self::acquired`].
    pub async fn background(&self) -> StoreResult<Session> {
        measured("session", Box::pin(self.connect())).await
    }

    async fn connect(&self) -> StoreResult<Session> {
        Ok(match &self.pools {
            Pools::Postgres { pool, connecting } => {
                let session = async {
                    let _leave = connecting.leave(pool).await;
                    pool.acquire().await
                };
                // The pool's own limit begins only when it is asked.
                let session = timeout(ACQUIRE_TIMEOUT, session).await;
                Session::Postgres(session.map_err(|_| StoreError::timed_out())??)
            }
            Pools::Sqlite { reader, .. } => Session::Sqlite(reader.acquire().await?),
        })
    }

    /// Hears of changed credentials, on a connection of its own. `None`: this
    /// engine tells nobody.
    pub async fn listen(&self) -> StoreResult<Option<ChangeListener>> {
        let Pools::Postgres { pool, .. } = &self.pools else { return Ok(None) };
        let own = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_lazy_with((*pool.connect_options()).clone());
        let mut listener = PgListener::connect_with(&own).await?;
        listener.listen("tollgate_credentials").await?;
        Ok(Some(ChangeListener(listener)))
    }

    /// A unit of work. Dropping it without [`Tx::commit`] rolls back.
    ///
    /// Never open one while holding another, or a session: with every
    /// connection held that way the pool waits for itself.
    pub async fn begin(&self) -> StoreResult<Tx> {
        let deadline = match &self.pools {
            Pools::Postgres { .. } => ANSWER_DEADLINE,
            Pools::Sqlite { .. } => LONG_DEADLINE,
        };
        let tx = in_time("begin", deadline, async {
            Ok(match &self.pools {
                Pools::Postgres { pool, connecting } => {
                    let _leave = connecting.leave(pool).await;
                    Tx::Postgres(PgTx::begin(pool, "BEGIN").await?)
                }
                // A deferred transaction that reads first and writes later
                // fails with SQLITE_BUSY at once instead of waiting, so take
                // the write lock up front.
                Pools::Sqlite { writer, .. } => {
                    Tx::Sqlite(writer.begin_with("BEGIN IMMEDIATE").await?)
                }
            })
        })
        .await?;
        self.acquired.fetch_add(1, Ordering::Relaxed);
        Ok(tx)
    }

    /// A transaction that only reads: all of it sees the database as it was at
    /// its first query, whatever is written meanwhile. To be dropped soon, since
    /// it keeps the engine from tidying up.
    pub async fn snapshot(&self) -> StoreResult<Tx> {
        let snapshot = in_time("snapshot", LONG_DEADLINE, async {
            Ok(match &self.pools {
                Pools::Postgres { pool, connecting } => {
                    let _leave = connecting.leave(pool).await;
                    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
                    Tx::Postgres(PgTx::begin(pool, begin).await?)
                }
                // In WAL mode a reader keeps its snapshot until it ends.
                Pools::Sqlite { reader, .. } => Tx::Sqlite(reader.begin_with("BEGIN").await?),
            })
        })
        .await?;
        self.acquired.fetch_add(1, Ordering::Relaxed);
        Ok(snapshot)
    }

    /// How many sessions and transactions were handed out since the start. It
    /// stands still while requests are served without the database.
    pub fn acquired(&self) -> u64 {
        self.acquired.load(Ordering::Relaxed)
    }

    /// How full each pool is.
    pub fn pools(&self) -> Vec<PoolStatus> {
        fn status<D: sqlx::Database>(name: &'static str, pool: &sqlx::Pool<D>) -> PoolStatus {
            // The two are not read at one moment.
            let idle = pool.num_idle();
            let open = usize::try_from(pool.size()).unwrap_or(usize::MAX).max(idle);
            let most = pool.options().get_max_connections();
            PoolStatus { name, in_use: open - idle, idle, most }
        }
        match &self.pools {
            Pools::Postgres { pool, .. } => vec![status("postgres", pool)],
            Pools::Sqlite { writer, reader } => {
                vec![status("writer", writer), status("reader", reader)]
            }
        }
    }

    /// Waits for connections in use to come back and closes all. Later calls
    /// answer [`StoreError::Unavailable`].
    pub async fn close(&self) {
        match &self.pools {
            Pools::Postgres { pool, .. } => pool.close().await,
            // The last connection folds the write-ahead log into the file,
            // which a reader could not.
            Pools::Sqlite { writer, reader } => {
                reader.close().await;
                writer.close().await;
            }
        }
    }
}

/// What the database says by itself.
pub struct ChangeListener(PgListener);

impl ChangeListener {
    /// Waits until credentials have changed, or may have: also when the connection
    /// was lost and is there again.
    ///
    /// # Errors
    /// It cannot be had again now; listen anew.
    pub async fn changed(&mut self) -> StoreResult<()> {
        Ok(self.0.try_recv().await.map(drop)?)
    }
}

/// The options of an `sqlite:` URL; `None` for another scheme.
pub(super) fn sqlite_options(url: &str) -> sqlx::Result<Option<SqliteConnectOptions>> {
    if !url.starts_with("sqlite:") {
        return Ok(None);
    }
    let options: SqliteConnectOptions = url.parse()?;
    if options.get_filename().to_string_lossy().starts_with("file:") {
        return Err(sqlx::Error::Configuration("the database must be a file".into()));
    }
    Ok(Some(options))
}

/// Makes the folder of `file`, with mode 0700, unless it exists.
pub(super) async fn make_parent(file: &Path) -> std::io::Result<()> {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => {
            let mut builder = DirBuilder::new();
            builder.recursive(true);
            #[cfg(unix)]
            builder.mode(0o700);
            builder.create(folder).await
        }
        _ => Ok(()),
    }
}

/// Options that make a file which only its owner may read.
pub(super) fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    options.mode(0o600);
    options
}

async fn open_sqlite(options: SqliteConnectOptions, max_connections: u32) -> sqlx::Result<Pools> {
    make_parent(options.get_filename()).await?;
    // SQLite gives the files beside it the same mode.
    private_file().open(options.get_filename()).await?;

    let options = options.busy_timeout(BUSY_TIMEOUT).foreign_keys(true);
    let writing = options
        .clone()
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // NORMAL may lose commits when the power fails.
        .synchronous(SqliteSynchronous::Full);
    let writer = SqlitePoolOptions::new()
        .max_connections(1)
        .min_connections(1)
        .acquire_timeout(BUSY_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .connect_with(writing)
        .await?;
    let reader = SqlitePoolOptions::new()
        .max_connections(max_connections.clamp(1, MAX_READERS))
        .acquire_timeout(BUSY_TIMEOUT)
        .idle_timeout(IDLE_TIMEOUT)
        .max_lifetime(None)
        .test_before_acquire(false)
        .connect_lazy_with(options.read_only(true));
    Ok(Pools::Sqlite { writer, reader })
}

fn open_postgres(options: PgConnectOptions, max_connections: u32) -> Pools {
    let options = options.application_name("tollgate").options([
        ("statement_timeout", "5s"),
        ("lock_timeout", "2s"),
        ("idle_in_transaction_session_timeout", "10s"),
    ]);
    let returned = Arc::new(Notify::new());
    let connecting = Arc::new(Connecting::new(Arc::clone(&returned)));
    let pool = PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(IDLE_TIMEOUT)
        .max_lifetime(MAX_LIFETIME)
        // sqlx would ask before every use, one more round trip each. A
        // connection in steady use proves itself; one that idled may have died
        // with the server and would cost somebody an error.
        .test_before_acquire(false)
        .before_acquire(|conn, meta| {
            Box::pin(async move {
                if meta.idle_for > FRESH {
                    conn.ping().await?;
                }
                Ok(true)
            })
        })
        .after_release(move |_, _| {
            returned.notify_waiters();
            Box::pin(std::future::ready(Ok(true)))
        })
        .connect_lazy_with(options);
    Pools::Postgres { pool, connecting }
}
