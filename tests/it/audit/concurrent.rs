//! Many at once: no gap, no fork, no deadlock.

use serde_json::json;
use tokio::task::JoinSet;

use super::{assert_good, count, rows};
use crate::support::{TestApp, UNLIMITED, unique};

const AT_ONCE: usize = 50;

/// Instances that share what seals the log; one, where tests have no Postgres.
async fn apps(n: usize) -> Vec<TestApp> {
    let free = ("RATE_LIMIT_USER_PER_MINUTE", "0");
    let secret = ("SECRETS_KEY", "a sealing key of Zebras, 0123456789!");
    let settings = [UNLIMITED[0], UNLIMITED[1], free, secret];
    match TestApp::without_redis(n, &settings).await {
        Some(apps) => apps,
        None => vec![TestApp::configured(settings).await],
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_at_once_on_two_instances_make_one_chain_without_gaps() {
    let apps = apps(2).await;
    let (admin, ada) = (apps[0].admin().await, apps[0].user(&unique("ada")).await);
    let id = ada.get("/api/v1/users/me").await.text("id").to_owned();
    let key = ada.post("/api/v1/keys", json!({ "name": "k" })).await.expect(201);
    let before = count(&apps[0].app.services).await;
    let mut tasks = JoinSet::new();
    for n in 0..AT_ONCE {
        let base = &apps[n % apps.len()].base;
        let (admin, ada) = (admin.at(base), ada.at(base));
        let path = format!("/api/v1/keys/{}", key.text("id"));
        let credit = format!("/api/v1/admin/users/{id}/wallet/credit");
        tasks.spawn(async move {
            match n % 5 {
                0 => ada.post("/api/v1/keys", json!({ "name": "k" })).await.expect(201),
                // Of one row: this may be too much for the retries.
                1 => ada.patch(&path, json!({ "name": format!("k{n}") })).await,
                2 => ada.post("/api/v1/tokens/purchase", json!({ "duration_hours": 24 })).await,
                3 => {
                    let admin = admin.with("idempotency-key", &unique("k"));
                    let credit = admin.post(&credit, json!({ "amount_minor": 5, "reason": "r" }));
                    credit.await.expect(201)
                }
                _ => {
                    let new = json!({ "amount_minor": 5 });
                    admin.post("/api/v1/admin/vouchers", new).await.expect(201)
                }
            }
        });
    }
    // While they append.
    let mut done: i64 = 0;
    while let Some(answer) = tasks.join_next().await {
        let answer = answer.unwrap();
        if answer.status == 409 {
            answer.expect_problem(409, "conflict");
        } else {
            assert!(answer.status.is_success(), "{answer:?}");
            done += 1;
        }
        if done % 10 == 0 {
            assert_good(&apps[0].app.services.audit.verify(None).await.unwrap());
        }
    }
    let all = rows(&apps[0].app.services).await;
    assert!(done >= 40, "{done}");
    assert_eq!(count(&apps[0].app.services).await, before + done);
    assert!(all.iter().map(|row| row.seq).eq(1..=before + done), "{all:#?}");
    for app in &apps {
        let verified = app.app.services.audit.verify(None).await.unwrap();
        assert_good(&verified);
        assert_eq!(verified.last, before + done);
    }
}
