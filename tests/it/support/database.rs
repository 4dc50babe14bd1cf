//! A database that nobody else uses: SQLite in a temporary folder, or a new
//! database on the server that `TEST_DATABASE_URL` names
//! (`postgres://user@host:port/any_database`). Gone when dropped.

use secrecy::ExposeSecret as _;
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};
use tempfile::TempDir;
use tollgate::{config::DatabaseConfig, repositories::Database};
use uuid::Uuid;

pub enum TestDatabase {
    Sqlite(TempDir),
    Postgres { server: String, name: String },
}

impl TestDatabase {
    pub async fn fresh() -> Self {
        match std::env::var("TEST_DATABASE_URL") {
            Ok(server) if !server.is_empty() => {
                let name = format!("tollgate_test_{}", Uuid::now_v7().simple());
                execute(&server, format!(r#"CREATE DATABASE "{name}""#)).await.unwrap();
                Self::Postgres { server, name }
            }
            _ => Self::Sqlite(tempfile::tempdir().unwrap()),
        }
    }

    pub fn config(&self) -> DatabaseConfig {
        let url = match self {
            Self::Sqlite(folder) => {
                format!("sqlite://{}", folder.path().join("data/tollgate.db").display())
            }
            Self::Postgres { server, name } => {
                let (base, query) = server.split_once('?').unwrap_or((server, ""));
                let (base, _) = base.rsplit_once('/').unwrap();
                format!("{base}/{name}?{query}")
            }
        };
        DatabaseConfig { url: url.into(), max_connections: 8 }
    }

    /// Changes what no service would: for tests that need a state of before.
    pub async fn execute(&self, sql: impl Into<String>) {
        self.try_execute(sql).await.unwrap();
    }

    /// The same where the database may refuse.
    pub async fn try_execute(&self, sql: impl Into<String>) -> sqlx::Result<()> {
        let (url, sql) = (self.config().url, sql.into());
        match self {
            Self::Sqlite(_) => {
                let mut connection = SqliteConnection::connect(url.expose_secret()).await?;
                sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await?;
                connection.close().await
            }
            Self::Postgres { .. } => execute(url.expose_secret(), sql).await,
        }
    }

    /// What a query of one number says.
    pub async fn number(&self, sql: impl Into<String>) -> i64 {
        let (url, sql) = (self.config().url, AssertSqlSafe(sql.into()));
        let url = url.expose_secret();
        match self {
            Self::Sqlite(_) => {
                let mut connection = SqliteConnection::connect(url).await.unwrap();
                sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap()
            }
            Self::Postgres { .. } => {
                let mut connection = PgConnection::connect(url).await.unwrap();
                sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap()
            }
        }
    }

    /// How SQLite would answer a query.
    pub async fn plan(&self, sql: &str) -> String {
        let sql = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
        let url = self.config().url;
        let mut connection = SqliteConnection::connect(url.expose_secret()).await.unwrap();
        let rows: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(sql).fetch_all(&mut connection).await.unwrap();
        rows.into_iter().map(|row| row.3).collect::<Vec<_>>().join("\n")
    }

    /// Opened, without tables.
    pub async fn open(&self) -> Database {
        Database::open(&self.config()).await.unwrap()
    }

    /// Opened, with all tables.
    pub async fn connect(&self) -> Database {
        let db = self.open().await;
        db.migrate().await.unwrap();
        db
    }

    /// Everything in it as text, binary values in hexadecimal.
    pub async fn dump(&self) -> String {
        let url = self.config().url;
        let rows = match self {
            Self::Sqlite(_) => sqlite_rows(url.expose_secret()).await,
            Self::Postgres { .. } => postgres_rows(url.expose_secret()).await,
        };
        rows.unwrap().join("\n")
    }
}

async fn sqlite_rows(url: &str) -> sqlx::Result<Vec<String>> {
    const COLUMNS: &str = "
        SELECT t.name, c.name FROM sqlite_schema t JOIN pragma_table_info(t.name) c
        WHERE t.type = 'table'";

    let mut conn = SqliteConnection::connect(url).await?;
    let columns: Vec<(String, String)> = sqlx::query_as(COLUMNS).fetch_all(&mut conn).await?;
    let mut rows = vec![];
    for (table, column) in columns {
        let sql = format!(r#"SELECT quote("{column}") FROM "{table}""#);
        rows.extend(
            sqlx::query_scalar::<_, String>(AssertSqlSafe(sql)).fetch_all(&mut conn).await?,
        );
    }
    Ok(rows)
}

async fn postgres_rows(url: &str) -> sqlx::Result<Vec<String>> {
    const TABLES: &str = "
        SELECT tablename::text FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')";

    let mut conn = PgConnection::connect(url).await?;
    let tables: Vec<String> = sqlx::query_scalar(TABLES).fetch_all(&mut conn).await?;
    let mut rows = vec![];
    for table in tables {
        let sql = format!(r#"SELECT t::text FROM "{table}" t"#);
        rows.extend(
            sqlx::query_scalar::<_, String>(AssertSqlSafe(sql)).fetch_all(&mut conn).await?,
        );
    }
    Ok(rows)
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let Self::Postgres { server, name } = self else { return };
        let sql = format!(r#"DROP DATABASE IF EXISTS "{name}" WITH (FORCE)"#);
        let server = server.clone();
        // A destructor cannot wait on the runtime it may be running in.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(execute(&server, sql)).map_err(std::io::Error::other)
        });
        if !matches!(dropping.join(), Ok(Ok(()))) {
            eprintln!("could not drop the test database {name}");
        }
    }
}

async fn execute(server: &str, sql: String) -> sqlx::Result<()> {
    let mut admin = PgConnection::connect(server).await?;
    sqlx::query(AssertSqlSafe(sql)).execute(&mut admin).await?;
    admin.close().await
}
