//! kill -9 while it writes (RELIABILITY G-09).

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use serde_json::json;
use sqlx::{ConnectOptions as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::task::JoinSet;

use super::{PATIENCE, Setup, alone, attempt};

const ROUNDS: usize = 5;
/// How many keys and accounts each round confirms, at least, before the kill.
const KEYS: usize = 40;
const USERS: usize = 2;

/// What the program has confirmed.
#[derive(Default)]
struct Confirmed {
    users: Mutex<Vec<String>>,
    keys: Mutex<Vec<String>>,
    dead: AtomicBool,
}

impl Confirmed {
    fn counts(&self) -> (usize, usize) {
        (self.keys.lock().unwrap().len(), self.users.lock().unwrap().len())
    }
}

#[tokio::test]
async fn what_was_confirmed_survives_a_kill() {
    let _alone = alone().await;
    let setup = Setup::sqlite();
    let confirmed = Arc::new(Confirmed::default());
    for round in 0..ROUNDS {
        let mut process = setup.serve().await;
        let admin = format!("Bearer {}", process.token("admin", super::PASSWORD).await);
        confirmed.dead.store(false, SeqCst);
        let (keys, users) = confirmed.counts();
        let mut writers = JoinSet::new();
        for writer in 0..4 {
            let (base, admin, confirmed) = (process.base.clone(), admin.clone(), confirmed.clone());
            writers.spawn(async move {
                if writer == 0 {
                    register(&base, round, &confirmed).await;
                } else {
                    make_keys(&base, &admin, &confirmed).await;
                }
            });
        }
        let enough = async || {
            let (now_keys, now_users) = confirmed.counts();
            now_keys >= keys + KEYS && now_users >= users + USERS
        };
        process.until("writing", PATIENCE, enough).await;
        process.kill();
        confirmed.dead.store(true, SeqCst);
        writers.join_all().await;
        assert!(setup.path().join("data/tollgate.db.lock").exists());
        check_file(&setup).await;
    }
    let process = setup.serve().await;
    let admin = process.admin().await;
    let keys = confirmed.keys.lock().unwrap().clone();
    let users = confirmed.users.lock().unwrap().clone();
    println!("{} keys and {} accounts were confirmed", keys.len(), users.len());
    for id in &keys {
        admin.get(&format!("/api/v1/keys/{id}")).await.expect(200);
    }
    let mut file = open(&setup).await;
    let names: Vec<String> =
        sqlx::query_scalar("SELECT username FROM users").fetch_all(&mut file).await.unwrap();
    let lost: Vec<_> = users.iter().filter(|name| !names.contains(name)).collect();
    assert!(lost.is_empty(), "{lost:?}");
}

async fn register(base: &str, round: usize, confirmed: &Confirmed) {
    for number in 0.. {
        let name = format!("user-{round}-{number}");
        let email = format!("{name}@example.com");
        let body = json!({ "username": name, "email": email, "password": super::PASSWORD });
        let url = format!("{base}/api/v1/auth/register");
        let media = [("content-type", "application/json")];
        match attempt("POST", &url, &media, &body.to_string()).await {
            Some(answer) if answer.status == 201 => confirmed.users.lock().unwrap().push(name),
            Some(answer) => panic!("{answer:?}"),
            None if confirmed.dead.load(SeqCst) => return,
            // Between the kill and its being noted.
            None => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

async fn make_keys(base: &str, admin: &str, confirmed: &Confirmed) {
    loop {
        let url = format!("{base}/api/v1/keys");
        let fields = [("content-type", "application/json"), ("authorization", admin)];
        match attempt("POST", &url, &fields, r#"{"name":"crash"}"#).await {
            Some(answer) if answer.status == 201 => {
                confirmed.keys.lock().unwrap().push(answer.text("id").to_owned());
            }
            Some(answer) => panic!("{answer:?}"),
            None if confirmed.dead.load(SeqCst) => return,
            None => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

async fn open(setup: &Setup) -> SqliteConnection {
    let file = setup.path().join("data/tollgate.db");
    SqliteConnectOptions::new().filename(file).connect().await.unwrap()
}

async fn check_file(setup: &Setup) {
    let mut file = open(setup).await;
    let verdict: Vec<String> =
        sqlx::query_scalar("PRAGMA integrity_check").fetch_all(&mut file).await.unwrap();
    assert_eq!(verdict, ["ok"]);
    let broken: Vec<String> = sqlx::query_scalar("SELECT \"table\" FROM pragma_foreign_key_check")
        .fetch_all(&mut file)
        .await
        .unwrap();
    assert!(broken.is_empty(), "{broken:?}");
}
