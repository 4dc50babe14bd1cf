//! What one instance revokes the others refuse.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::TimeDelta;
use serde_json::{Value, json};
use tollgate::domain::clock::{Clock as _, SystemClock};

use super::{HELLO, VERIFY, issue};
use crate::support::{Client, PASSWORD, TestApp, assert_in_time};

/// What proves somebody to an instance, and whether it still does.
#[derive(Clone)]
pub enum Proof {
    /// Sent with a proxied request.
    Credential(Client),
    /// Asked about, as an application would.
    Asked(Client, String),
}

impl Proof {
    pub async fn holds(&self) -> bool {
        match self {
            Self::Credential(client) => client.get(HELLO).await.status == 200,
            Self::Asked(client, key) => {
                client.post(VERIFY, json!({ "key": key })).await.json["valid"] == true
            }
        }
    }
}

/// Uses `proofs` all the time, lets `change` happen, and tells how long after
/// it the last of them was last good.
pub async fn outlived(proofs: &[Proof], change: impl Future<Output = ()>) -> Duration {
    const QUIET: Duration = Duration::from_millis(300);
    for proof in proofs {
        assert!(proof.holds().await, "good before the change");
    }
    let (stop, hot) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let tasks: Vec<_> = proofs
        .iter()
        .flat_map(|proof| [proof; 3])
        .map(|proof| {
            let (proof, stop, hot) = (proof.clone(), stop.clone(), hot.clone());
            tokio::spawn(async move {
                let mut last = Instant::now();
                let mut used = false;
                while !stop.load(Ordering::Relaxed) {
                    let sent = Instant::now();
                    if proof.holds().await {
                        last = sent;
                        if !std::mem::replace(&mut used, true) {
                            hot.fetch_add(1, Ordering::Relaxed);
                        }
                    } else {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                }
                last
            })
        })
        .collect();
    let begun = Instant::now();
    while hot.load(Ordering::Relaxed) < tasks.len() {
        assert!(begun.elapsed() < Duration::from_secs(30), "served hot");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    change.await;
    let changed = Instant::now();
    // Until it was refused for a while, or for longer than any bound.
    let mut last = changed;
    while last.elapsed() < QUIET && changed.elapsed() < Duration::from_secs(15) {
        for proof in proofs {
            if proof.holds().await {
                last = Instant::now();
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut outlived = last.saturating_duration_since(changed);
    for task in tasks {
        let last = task.await.unwrap();
        outlived = outlived.max(last.saturating_duration_since(changed));
    }
    outlived
}

/// Each way to take a credential away on one instance ends it on the others,
/// which serve it all the time, within a second (G-85, G-87).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_instance_revokes_the_other_refuses_within_a_second() {
    let Some(apps) = TestApp::instances(2, &[("RATE_LIMIT_PER_MINUTE", "0")]).await else {
        return;
    };
    every_revocation_is_heard_of(&apps).await;
}

/// The same without Redis: the database tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_the_other_refuses_within_a_second_too() {
    let Some(apps) = TestApp::without_redis(2, &[("RATE_LIMIT_PER_MINUTE", "0")]).await else {
        return;
    };
    every_revocation_is_heard_of(&apps).await;
}

async fn every_revocation_is_heard_of(apps: &[TestApp]) {
    let [a, b] = apps else { unreachable!("two were asked for") };
    let admin = a.admin().await;
    let mut delays = vec![];
    for (n, what) in [
        "disable",
        "expire",
        "network",
        "upstream",
        "limit",
        "rotate",
        "delete",
        "verify",
        "owner",
        "role login",
        "logout",
        "logout-all",
        "password",
        "end session",
        "leave",
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("user{n}");
        let user = a.user(&name).await;
        let other = a.log_in(&name, PASSWORD).await;
        let (path, key) = issue(b, &user, json!({ "name": "k" })).await;
        let owner = user.get("/api/v1/users/me").await.text("id").to_owned();
        let login = Proof::Credential(user.at(&b.base));
        let by_key = Proof::Credential(b.anonymous().with_key(&key));
        let proof = match what {
            "verify" => Proof::Asked(b.anonymous(), key),
            "role login" | "logout" | "logout-all" | "password" | "end session" => login,
            _ => by_key,
        };
        let soon = (SystemClock.now() + TimeDelta::milliseconds(200)).to_rfc3339();
        let set = async |change: Value| {
            user.patch(&path, change).await.expect(200);
        };
        let change = async {
            match what {
                "disable" | "verify" => set(json!({ "is_active": false })).await,
                "expire" => set(json!({ "expires_at": soon })).await,
                "network" => set(json!({ "allowed_ips": ["203.0.113.1"] })).await,
                "upstream" => set(json!({ "upstreams": ["other"] })).await,
                "limit" => set(json!({ "rate_limit": 1 })).await,
                "rotate" => drop(user.post_empty(&format!("{path}/rotate")).await.expect(200)),
                "delete" => drop(user.delete(&path).await.expect(204)),
                "owner" | "role login" => {
                    let account = format!("/api/v1/admin/users/{owner}");
                    admin.patch(&account, json!({ "is_active": false })).await.expect(200);
                }
                "logout" => drop(user.post_empty("/api/v1/auth/logout").await.expect(204)),
                "logout-all" => drop(other.post_empty("/api/v1/auth/logout-all").await.expect(204)),
                "password" => {
                    let new =
                        json!({ "current_password": PASSWORD, "new_password": "a new staple" });
                    other.post("/api/v1/auth/password", new).await.expect(204);
                }
                "end session" => {
                    let sessions = other.get("/api/v1/auth/sessions").await.expect(200);
                    for session in sessions.json["items"].as_array().unwrap() {
                        let id = session["id"].as_str().unwrap();
                        user.delete(&format!("/api/v1/auth/sessions/{id}")).await;
                    }
                }
                "leave" => {
                    let body = json!({ "password": PASSWORD });
                    let left = user.json(http::Method::DELETE, "/api/v1/users/me", &body).await;
                    left.expect(204);
                }
                _ => unreachable!("one of the above"),
            }
        };
        let delay = outlived(&[proof], change).await;
        println!("{what}: the other instance accepted it {} ms longer", delay.as_millis());
        delays.push(delay);
    }
    assert_in_time(Duration::from_secs(1), &delays, "each way");
}

/// Three instances serve a key all the time when it is disabled on one of them, again
/// and again: `make torture` shows how the delays are distributed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_instances_hear_of_it_in_moments() {
    let rounds = if std::env::var_os("TOLLGATE_TORTURE").is_some() { 300 } else { 10 };
    let none = [("RATE_LIMIT_PER_MINUTE", "0")];
    let with_redis = TestApp::instances(3, &none).await;
    let without = TestApp::without_redis(3, &none).await;
    for (how, apps) in [("with redis", with_redis), ("without redis", without)] {
        let Some(apps) = apps else { continue };
        let user = apps[0].user("ada").await;
        let mut delays = vec![];
        for round in 0..rounds {
            let (path, key) = issue(&apps[0], &user, json!({ "name": "k" })).await;
            let everywhere: Vec<_> =
                apps.iter().map(|app| Proof::Credential(app.anonymous().with_key(&key))).collect();
            let revoker = user.at(&apps[round % 3].base);
            let delay = outlived(&everywhere, async {
                revoker.patch(&path, json!({ "is_active": false })).await.expect(200);
            });
            delays.push(delay.await);
            user.delete(&path).await.expect(204);
        }
        assert_in_time(Duration::from_secs(1), &delays, how);
        delays.sort_unstable();
        let at = |share: usize| delays[(delays.len() - 1) * share / 100];
        println!("{how}: p50 {:?}, p99 {:?}, most {:?}", at(50), at(99), at(100));
        if rounds >= 100 {
            assert!(at(99) < Duration::from_millis(250), "{how}: {:?}", at(99));
        }
    }
}
