//! Clients that leave in the middle of a change (RELIABILITY G-29).
//!
//! `TOLLGATE_RACE_ROUNDS` sets how many.

use std::time::{Duration, Instant};

use secrecy::ExposeSecret as _;
use serde_json::json;
use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinSet;

use crate::{
    money_races::rounds,
    support::{LATE, PASSWORD, TestApp, TestDatabase, raw::Raw},
};

const CLIENTS: usize = 8;
/// Longer than a change takes, microseconds.
const SPAN: u64 = 6000;

/// Sessions of this database that are in a transaction, or hold a lock of ours
/// outside of one.
async fn left_open(database: &TestDatabase) -> i64 {
    let mut server = PgConnection::connect(database.config().url.expose_secret()).await.unwrap();
    let count = sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity a
         WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()
            AND (a.state <> 'idle' OR EXISTS (
                SELECT 1 FROM pg_locks l
                WHERE l.pid = a.pid AND l.locktype = 'advisory'))",
    );
    count.fetch_one(&mut server).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_leaves_no_transaction_behind() {
    let app = TestApp::unlimited().await;
    let admin = app.admin().await;
    let (id, _) = app.key(&admin, json!({ "name": "k" })).await;
    let token = app.login("admin", PASSWORD).await;
    let token = token.text("access_token").to_owned();
    let address = app.base.strip_prefix("http://").unwrap().parse().unwrap();
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let (id, token) = (id.clone(), token.clone());
        clients.spawn(async move {
            for round in 0..rounds(600) / CLIENTS {
                let body = json!({ "name": format!("{client}-{round}") }).to_string();
                let request = format!(
                    "PATCH /api/v1/keys/{id} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
                     Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                let mut raw = Raw::connect(address).await;
                raw.send(&request).await;
                tokio::time::sleep(Duration::from_micros(rand::random_range(0..SPAN))).await;
                raw.reset();
            }
        });
    }
    clients.join_all().await;
    let begun = Instant::now();
    if let TestDatabase::Postgres { .. } = &*app.database {
        while left_open(&app.database).await > 0 {
            assert!(begun.elapsed() < Duration::from_secs(5) + LATE, "something is left open");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    // Each connection is as good as before, and no lock is left.
    for round in 0..3 * CLIENTS {
        let name = format!("after {round}");
        let path = format!("/api/v1/keys/{id}");
        let changed = admin.patch(&path, json!({ "name": name })).await.expect(200);
        assert_eq!(changed.text("name"), name);
    }
    assert!(begun.elapsed() < Duration::from_secs(5) + LATE, "{:?}", begun.elapsed());
}
