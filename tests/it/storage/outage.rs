//! A Postgres that is away, or there but silent.

use std::time::{Duration, Instant};

use secrecy::ExposeSecret;
use sqlx::postgres::PgConnectOptions;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tollgate::{
    config::DatabaseConfig,
    repositories::{Database, MigrateError, Repositories, StoreError},
};

use crate::support::{TestDatabase, epoch};

#[tokio::test]
async fn a_database_that_is_away_can_be_opened_and_fails_soon() {
    // Taken and given back: nothing listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("postgres://tollgate@127.0.0.1:{port}/tollgate");
    let config = DatabaseConfig { url: url.into(), max_connections: 2 };
    let db = Database::open(&config).await.unwrap();
    let start = Instant::now();
    assert!(matches!(db.ping().await, Err(StoreError::Unavailable(_))));
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
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
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_server_that_falls_silent_is_given_up_and_found_again() {
    let files = TestDatabase::fresh().await;
    let config = files.config();
    let TestDatabase::Postgres { .. } = &files else { return };
    let server: PgConnectOptions = config.url.expose_secret().parse().unwrap();
    let address = format!("{}:{}", server.get_host(), server.get_port());
    let (silence, silent) = watch::channel(false);
    let port = relay(address.clone(), silent).await;
    let url = config.url.expose_secret().replace(&address, &format!("127.0.0.1:{port}"));
    assert_ne!(url, config.url.expose_secret(), "give host and port in TEST_DATABASE_URL");
    let db = Database::open(&DatabaseConfig { url: url.into(), ..config }).await.unwrap();
    db.migrate().await.unwrap();

    let mut session = db.session().await.unwrap();
    assert_eq!(session.settings().get("name").await.unwrap(), None);
    let mut tx = db.begin().await.unwrap();
    assert!(tx.settings().claim("name", "value", epoch()).await.unwrap());
    silence.send_replace(true);
    let start = Instant::now();
    let (read, committed) =
        tokio::join!(async { session.settings().get("name").await }, tx.commit());
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    assert!(matches!(committed, Err(StoreError::Unavailable(_))), "{committed:?}");
    assert!(start.elapsed() < Duration::from_secs(7), "{:?}", start.elapsed());
    assert!(matches!(db.ping().await, Err(StoreError::Unavailable(_))));
    drop(session);

    silence.send_replace(false);
    let start = Instant::now();
    while db.ping().await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(10));
    }
    let mut tx = db.begin().await.unwrap();
    tx.settings().claim("another", "value", epoch()).await.unwrap();
    tx.commit().await.unwrap();
}

/// Relays to `server` whatever comes in, unless it is `silent`; returns the
/// port.
async fn relay(server: String, silent: watch::Receiver<bool>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&server).await.unwrap();
            let (client, server) = (client.into_split(), server.into_split());
            for (mut from, mut to) in [(client.0, server.1), (server.0, client.1)] {
                let mut silent = silent.clone();
                tokio::spawn(async move {
                    let mut buffer = [0; 4096];
                    while let Ok(read @ 1..) = from.read(&mut buffer).await {
                        if silent.wait_for(|silent| !silent).await.is_err()
                            || to.write_all(&buffer[..read]).await.is_err()
                        {
                            break;
                        }
                    }
                });
            }
        }
    });
    port
}
