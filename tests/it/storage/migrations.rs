use std::collections::BTreeSet;

use secrecy::ExposeSecret as _;
use sqlx::{Connection as _, PgConnection, SqliteConnection};
use tollgate::repositories::{DbConn, MigrationStatus, Repositories};

use crate::support::TestDatabase;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn instances_that_start_together_migrate_an_empty_database_once() {
    for round in 0..10 {
        let files = TestDatabase::fresh().await;
        let mut racing = vec![];
        for _ in 0..3 {
            let db = files.open().await;
            racing.push(tokio::spawn(async move { db.migrate().await }));
        }
        for task in racing {
            assert!(task.await.unwrap().is_ok(), "round {round}");
        }
        let status = files.open().await.migration_status().await.unwrap();
        assert!(status.iter().all(|migration| migration.applied), "{status:?}");
    }
}

#[tokio::test]
async fn the_status_tells_what_is_applied_and_changes_nothing() {
    let files = TestDatabase::fresh().await;
    let db = files.open().await;
    for _ in 0..2 {
        let status = db.migration_status().await.unwrap();
        let first = MigrationStatus { version: 1, description: "init".to_owned(), applied: false };
        assert_eq!(status[0], first);
    }
    db.migrate().await.unwrap();
    db.migrate().await.unwrap();
    let status = db.migration_status().await.unwrap();
    assert!(status.iter().all(|migration| migration.applied), "{status:?}");
}

#[tokio::test]
async fn a_schema_of_a_newer_version_is_accepted_and_shown() {
    const NEWER: &str = "
        INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
        VALUES ($1, 'from the future', TRUE, $2, 0)";

    let files = TestDatabase::fresh().await;
    let db = files.connect().await;
    let mut tx = db.begin().await.unwrap();
    let checksum: &[u8] = b"x";
    match tx.conn() {
        DbConn::Postgres(conn) => {
            sqlx::query(NEWER).bind(9999_i64).bind(checksum).execute(conn).await.map(drop)
        }
        DbConn::Sqlite(conn) => {
            sqlx::query(NEWER).bind(9999_i64).bind(checksum).execute(conn).await.map(drop)
        }
    }
    .unwrap();
    tx.commit().await.unwrap();

    db.migrate().await.unwrap();
    let status = db.migration_status().await.unwrap();
    let last = status.last().unwrap();
    assert_eq!((last.version, last.description.as_str()), (9999, "from the future"));
    assert!(last.applied);
}

#[test]
fn both_engines_have_the_same_tables_constraints_and_indexes() {
    fn names(sql: &str) -> BTreeSet<&str> {
        let words: Vec<_> = sql
            .lines()
            .filter(|line| !line.trim_start().starts_with("--"))
            .flat_map(str::split_whitespace)
            .collect();
        words
            .windows(2)
            .filter(|pair| ["TABLE", "CONSTRAINT", "INDEX"].contains(&pair[0]))
            .map(|pair| pair[1].trim_end_matches(';'))
            // SQLite has no booleans, so it alone must check for them.
            .filter(|name| !name.ends_with("_is_active_check"))
            .collect()
    }

    let (mut ours, mut theirs) = (String::new(), String::new());
    for file in std::fs::read_dir("migrations/postgres").unwrap() {
        let postgres = file.unwrap().path();
        let sqlite = std::path::Path::new("migrations/sqlite").join(postgres.file_name().unwrap());
        let read = |path: &std::path::Path| std::fs::read_to_string(path).unwrap();
        ours += &read(&postgres);
        theirs += &read(&sqlite);
    }
    // Over all files: where Postgres changes a table, SQLite makes it anew, under
    // another name first.
    let mut theirs = names(&theirs);
    theirs.retain(|name| !name.ends_with("_new"));
    assert!(names(&ours).len() > 100);
    assert_eq!(names(&ours), theirs);
}

/// A database as an older version left it.
pub struct Before {
    pub files: TestDatabase,
}

impl Before {
    /// With the migrations up to this one.
    pub async fn version(last: i64) -> Self {
        let files = TestDatabase::fresh().await;
        // The file of SQLite is made by whoever opens it first.
        drop(files.open().await);
        let engine = match &files {
            TestDatabase::Sqlite(_) => "sqlite",
            TestDatabase::Postgres { .. } => "postgres",
        };
        let folder = std::path::Path::new("migrations").join(engine);
        let mut migrator = sqlx::migrate::Migrator::new(folder).await.unwrap();
        migrator.migrations.to_mut().retain(|migration| migration.version <= last);
        let url = files.config().url;
        let url = url.expose_secret();
        match &files {
            TestDatabase::Sqlite(_) => {
                let mut conn = SqliteConnection::connect(url).await.unwrap();
                migrator.run(&mut conn).await.unwrap();
                conn.close().await.unwrap();
            }
            TestDatabase::Postgres { .. } => {
                let mut conn = PgConnection::connect(url).await.unwrap();
                migrator.run(&mut conn).await.unwrap();
                conn.close().await.unwrap();
            }
        }
        Self { files }
    }
}
