use std::time::{Duration, Instant};

use tollgate::{
    config::DatabaseConfig,
    domain::id::UserId,
    repositories::{
        Database, DbConn, InstanceLock, LockError, Repositories, Session, StoreError, StoreResult,
        Tx,
    },
};

use super::{Store, key, refresh_token, secret, session, user};
use crate::support::{LATE, TestDatabase, epoch};

#[tokio::test]
async fn every_postgres_session_has_its_time_limits() {
    let store = Store::fresh().await;
    let Session::Postgres(mut conn) = store.db.session().await.unwrap() else { return };
    for (show, value) in [
        ("SHOW statement_timeout", "5s"),
        ("SHOW lock_timeout", "2s"),
        ("SHOW idle_in_transaction_session_timeout", "10s"),
        ("SHOW application_name", "tollgate"),
    ] {
        let shown: String = sqlx::query_scalar(show).fetch_one(&mut *conn).await.unwrap();
        assert_eq!(shown, value, "{show}");
    }
}

#[tokio::test]
async fn sqlite_is_durable_and_checks_references() {
    let store = Store::fresh().await;
    let Tx::Sqlite(mut tx) = store.begin().await else { return };
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut *tx).await.unwrap();
    assert_eq!(mode, "wal");
    for (pragma, value) in
        [("PRAGMA synchronous", 2), ("PRAGMA foreign_keys", 1), ("PRAGMA busy_timeout", 5000)]
    {
        let set: i64 = sqlx::query_scalar(pragma).fetch_one(&mut *tx).await.unwrap();
        assert_eq!(set, value, "{pragma}");
    }
}

#[tokio::test]
async fn a_session_of_sqlite_cannot_write() {
    let store = Store::fresh().await;
    let mut session = store.db.session().await.unwrap();
    if let DbConn::Sqlite(_) = session.conn() {
        let written = session.settings().claim("a", "b", epoch()).await;
        assert!(matches!(written, Err(StoreError::Database(_))), "{written:?}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn the_files_of_sqlite_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;

    let store = Store::fresh().await;
    let TestDatabase::Sqlite(folder) = &store.files else { return };
    let mode = |path: &str| {
        std::fs::metadata(folder.path().join(path)).unwrap().permissions().mode() & 0o777
    };
    assert_eq!(mode("data"), 0o700);
    for file in ["data/tollgate.db", "data/tollgate.db-wal"] {
        assert_eq!(mode(file), 0o600, "{file}");
    }
}

#[tokio::test]
async fn a_dropped_transaction_leaves_nothing_behind() {
    let store = Store::fresh().await;
    for _ in 0..20 {
        let mut tx = store.begin().await;
        assert!(tx.settings().claim("name", "value", epoch()).await.unwrap());
        drop(tx);
    }
    let mut tx = store.begin().await;
    assert_eq!(tx.settings().get("name").await.unwrap(), None);
    tx.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_caller_who_leaves_at_any_point_leaves_a_clean_pool() {
    let store = Store::fresh().await;
    for delay in 0..60 {
        let db = store.db.clone();
        let task = tokio::spawn(async move {
            let mut tx = db.begin().await?;
            tx.settings().claim("name", "value", epoch()).await?;
            tx.settings().get("name").await?;
            std::future::pending::<StoreResult<()>>().await
        });
        tokio::time::sleep(Duration::from_micros(delay * 50)).await;
        task.abort();
        task.await.unwrap_err();
    }
    let claims = super::winners(|| {
        let db = store.db.clone();
        async move {
            let mut tx = db.begin().await.unwrap();
            let won = tx.settings().claim("name", "value", epoch()).await.unwrap();
            tx.commit().await.unwrap();
            won
        }
    });
    assert_eq!(claims.await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_writers_at_once_all_get_their_turn() {
    let store = Store::fresh().await;
    // As from a command beside the server: a queue of its own.
    let dbs = [store.db.clone(), store.files.open().await];
    let tasks: Vec<_> = (0..50)
        .map(|number| {
            let db = dbs[number % 2].clone();
            tokio::spawn(async move {
                let mut tx = db.begin().await?;
                // Reading first is what makes a deferred transaction fail.
                tx.settings().get("x").await?;
                tx.settings().claim(&format!("n{number}"), "v", epoch()).await?;
                tx.commit().await
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let mut session = store.db.session().await.unwrap();
    for number in 0..50 {
        assert!(session.settings().get(&format!("n{number}")).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn duplicates_carry_the_same_constraint_names_on_both_engines() {
    async fn violated(
        store: &Store,
        name: &str,
        run: impl AsyncFnOnce(&mut Tx) -> StoreResult<()>,
    ) {
        let mut tx = store.begin().await;
        let error = run(&mut tx).await.unwrap_err();
        assert!(error.violates(name), "{name}: {error:?}");
        assert!(!error.violates("another"));
    }

    let store = Store::fresh().await;
    let alice = store.user("Alice").await;
    let login = store.session(alice.id, epoch()).await;
    let (_, hash) = store.key(alice.id, "ci").await;
    let token = refresh_token(login.id);
    let mut tx = store.begin().await;
    tx.refresh_tokens().insert(&token).await.unwrap();
    tx.commit().await.unwrap();

    let same_name = tollgate::domain::user::User { email: "other@x".into(), ..user("aLICE") };
    violated(&store, "users_username_key", async |tx| tx.users().insert(&same_name, "hash").await)
        .await;
    let same_email = tollgate::domain::user::User { username: "bob".into(), ..user("ALICE") };
    violated(&store, "users_email_key", async |tx| tx.users().insert(&same_email, "hash").await)
        .await;
    let same_id = tollgate::domain::user::User { id: alice.id, ..user("carol") };
    violated(&store, "users_pkey", async |tx| tx.users().insert(&same_id, "hash").await).await;
    violated(&store, "refresh_tokens_hash_key", async |tx| {
        let twin = tollgate::domain::login::RefreshToken {
            id: refresh_token(login.id).id,
            ..token.clone()
        };
        tx.refresh_tokens().insert(&twin).await
    })
    .await;
    violated(&store, "api_key_secrets_pkey", async |tx| {
        tx.api_keys().insert(&key(alice.id, "other"), &hash).await
    })
    .await;
}

#[tokio::test]
async fn a_reference_to_nobody_is_our_defect_and_not_a_duplicate() {
    let store = Store::fresh().await;
    let nobody = UserId::new(epoch());
    let mut tx = store.begin().await;
    let done = tx.login_sessions().insert(&session(nobody, epoch())).await;
    assert!(matches!(done, Err(StoreError::Database(_))), "{done:?}");
    drop(tx);
    let mut tx = store.begin().await;
    let done = tx.api_keys().insert(&key(nobody, "k"), &secret()).await;
    assert!(matches!(done, Err(StoreError::Database(_))), "{done:?}");
}

#[tokio::test]
async fn only_a_file_will_do_for_sqlite() {
    for url in ["sqlite::memory:", "sqlite://"] {
        let config = DatabaseConfig { url: url.into(), max_connections: 1 };
        assert!(Database::open(&config).await.is_err(), "{url}");
    }
}

#[tokio::test]
async fn what_was_handed_out_is_counted() {
    let store = Store::fresh().await;
    let before = store.db.acquired();
    drop(store.db.session().await.unwrap());
    store.db.clone().begin().await.unwrap().commit().await.unwrap();
    assert_eq!(store.db.acquired(), before + 2);
    store.db.ping().await.unwrap();
    assert_eq!(store.db.acquired(), before + 2);
}

#[tokio::test]
async fn a_closed_database_is_unavailable() {
    let store = Store::fresh().await;
    store.db.close().await;
    assert!(matches!(store.db.ping().await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.db.session().await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.db.begin().await, Err(StoreError::Unavailable(_))));
}

#[tokio::test]
async fn a_second_server_on_one_sqlite_file_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("data/tollgate.db");
    let url = format!("sqlite://{}", file.display());
    let config = DatabaseConfig { url: url.into(), max_connections: 1 };

    let first = InstanceLock::acquire(&config).await.unwrap().unwrap();
    let start = Instant::now();
    let refused = InstanceLock::acquire(&config).await.unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(2) + LATE);
    assert!(matches!(refused, LockError::Held { .. }), "{refused:?}");
    assert!(refused.to_string().contains("another Tollgate is running"), "{refused}");
    assert!(!file.exists());

    drop(first);
    InstanceLock::acquire(&config).await.unwrap().unwrap();
}

#[tokio::test]
async fn postgres_needs_no_instance_lock() {
    let url = "postgres://tollgate@127.0.0.1:1/tollgate".to_owned();
    let config = DatabaseConfig { url: url.into(), max_connections: 1 };
    assert!(InstanceLock::acquire(&config).await.unwrap().is_none());
}
