//! A Postgres that is away, or there but silent.

use std::time::{Duration, Instant};

use secrecy::ExposeSecret;
use sqlx::postgres::PgConnectOptions;
use tokio::net::TcpListener;
use tollgate::{
    config::DatabaseConfig,
    repositories::{Database, MigrateError, Repositories, StoreError},
};

use crate::support::{
    LATE, TestDatabase, epoch,
    fault::{Faults, Proxy, Way},
};

/// A fresh database, what it is reached by, and the pool that goes that way.
/// `None` on SQLite, which is not reached by a network.
async fn behind_a_proxy() -> Option<(TestDatabase, Proxy, Database)> {
    let files = TestDatabase::fresh().await;
    let TestDatabase::Postgres { .. } = &files else { return None };
    let config = files.config();
    let server: PgConnectOptions = config.url.expose_secret().parse().unwrap();
    let address = format!("{}:{}", server.get_host(), server.get_port());
    let proxy = Proxy::start(address.clone()).await;
    let url = config.url.expose_secret().replace(&address, &proxy.address().to_string());
    assert_ne!(url, config.url.expose_secret(), "give host and port in TEST_DATABASE_URL");
    let db = Database::open(&DatabaseConfig { url: url.into(), ..config }).await.unwrap();
    db.migrate().await.unwrap();
    Some((files, proxy, db))
}

#[tokio::test]
async fn a_database_that_is_away_can_be_opened_and_fails_soon() {
    // Taken and given back: nothing listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("postgres://tollgate@127.0.0.1:{port}/tollgate");
    let config = DatabaseConfig { url: url.into(), max_connections: 2 };
    let db = Database::open(&config).await.unwrap();
    let start = Instant::now();
    assert!(matches!(db.ping().await, Err(StoreError::Unavailable(_))));
    assert!(start.elapsed() < Duration::from_secs(3) + LATE, "{:?}", start.elapsed());
    assert!(matches!(db.begin().await, Err(StoreError::Unavailable(_))));
    let migrated = db.migrate().await;
    assert!(matches!(migrated, Err(MigrateError::Unavailable(_))), "{migrated:?}");
}

#[tokio::test]
async fn a_server_that_accepts_and_says_nothing_fails_as_soon() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://x@{}/x", silent.local_addr().unwrap());
    let config = DatabaseConfig { url: url.into(), max_connections: 2 };
    let db = Database::open(&config).await.unwrap();
    let start = Instant::now();
    assert!(matches!(db.ping().await, Err(StoreError::Unavailable(_))));
    assert!(start.elapsed() < Duration::from_secs(3) + LATE, "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_server_that_falls_silent_is_given_up_and_found_again() {
    let Some((_files, proxy, db)) = behind_a_proxy().await else { return };

    let mut session = db.session().await.unwrap();
    assert_eq!(session.settings().get("name").await.unwrap(), None);
    let mut tx = db.begin().await.unwrap();
    assert!(tx.settings().claim("name", "value", epoch()).await.unwrap());
    let silent = Way { swallow: true, ..Way::default() };
    proxy.set(Faults { to_server: silent, to_client: silent, ..Faults::default() });
    let start = Instant::now();
    let (read, committed) =
        tokio::join!(async { session.settings().get("name").await }, tx.commit());
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    assert!(matches!(committed, Err(StoreError::Unavailable(_))), "{committed:?}");
    assert!(start.elapsed() < Duration::from_secs(7) + LATE, "{:?}", start.elapsed());
    assert!(matches!(db.ping().await, Err(StoreError::Unavailable(_))));
    assert!(proxy.fired().swallowed >= 2, "{:?}", proxy.fired());
    drop(session);

    proxy.set(Faults::default());
    let start = Instant::now();
    while db.ping().await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(10) + LATE);
    }
    let mut tx = db.begin().await.unwrap();
    tx.settings().claim("another", "value", epoch()).await.unwrap();
    tx.commit().await.unwrap();
}

/// Whether it happened cannot be known without asking again, so neither success
/// nor a plain failure may be reported (G-24).
#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_unavailable_though_it_happened() {
    let Some((_files, proxy, db)) = behind_a_proxy().await else { return };
    let mut tx = db.begin().await.unwrap();
    assert!(tx.settings().claim("name", "value", epoch()).await.unwrap());
    proxy.set(Faults { cut_after: Some(b"COMMIT"), ..Faults::default() });
    let committed = tx.commit().await;
    assert!(matches!(committed, Err(StoreError::Unavailable(_))), "{committed:?}");
    assert_eq!(proxy.fired().cuts, 1);

    proxy.set(Faults::default());
    // The next caller does not get the connection that was cut.
    let mut session = db.session().await.unwrap();
    let found = session.settings().get("name").await.unwrap();
    assert_eq!(found.as_deref(), Some("value"));
}
