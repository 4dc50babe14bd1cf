//! Transactions whose caller goes away in the middle, as a client that hangs up
//! makes it do.

use std::{pin::pin, task::Poll, time::Duration};

use tollgate::{
    config::DatabaseConfig,
    repositories::{Database, Repositories, StoreResult},
};

use crate::support::{TestDatabase, epoch};

/// In a transaction, and waiting for more.
const OPEN: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND state LIKE 'idle in transaction%'";

/// Polls this often, with a moment for the server in between, and gives up.
async fn interrupted<T>(polls: usize, call: impl Future<Output = StoreResult<T>>) {
    let mut call = pin!(call);
    for _ in 0..polls {
        let polled = std::future::poll_fn(|context| Poll::Ready(call.as_mut().poll(context)));
        if polled.await.is_ready() {
            return;
        }
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}

#[tokio::test]
async fn no_transaction_stays_open_whose_caller_went_away() {
    let files = TestDatabase::fresh().await;
    files.connect().await.close().await;
    // One connection, so that the next caller gets the one in question.
    let config = DatabaseConfig { max_connections: 1, ..files.config() };
    let db = Database::open(&config).await.unwrap();
    for polls in 1..12 {
        for what in ["begin", "snapshot", "read", "write", "commit"] {
            match what {
                "begin" => interrupted(polls, db.begin()).await,
                "snapshot" => interrupted(polls, db.snapshot()).await,
                "commit" => {
                    let mut tx = db.begin().await.unwrap();
                    let name = format!("{what} {polls}");
                    tx.settings().claim(&name, "value", epoch()).await.unwrap();
                    interrupted(polls, tx.commit()).await;
                }
                _ => {
                    let mut tx = db.begin().await.unwrap();
                    let mut settings = tx.settings();
                    match what {
                        "read" => interrupted(polls, settings.get("name")).await,
                        _ => interrupted(polls, settings.claim("lost", "value", epoch())).await,
                    }
                }
            }
            let mut session = db.session().await.unwrap();
            // Nobody committed it, so nobody may see it.
            assert_eq!(session.settings().get("lost").await.unwrap(), None, "{what} {polls}");
            if let TestDatabase::Postgres { .. } = files {
                assert_eq!(files.number(OPEN).await, 0, "{what} after {polls} polls");
            }
            drop(session);
            let mut tx = db.begin().await.unwrap();
            let name = format!("{what} {polls} after");
            assert!(tx.settings().claim(&name, "value", epoch()).await.unwrap());
            tx.commit().await.unwrap();
        }
    }
}
