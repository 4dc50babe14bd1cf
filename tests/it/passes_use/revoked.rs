//! What ends a pass ends it on every instance (RELIABILITY G-85, G-87).

use std::time::Duration;

use http::Method;
use serde_json::json;

use super::{Given, HELLO, give, id_of};
use crate::{
    instances::{Outage, Proof, on_private_redis, outlived},
    support::{Client, LATE, PASSWORD, TestApp, assert_in_time, redis::regained},
};

/// No limits, and refunds of what was used.
const SETTINGS: [(&str, &str); 5] = [
    ("RATE_LIMIT_PER_MINUTE", "0"),
    ("RATE_LIMIT_PER_HOUR", "0"),
    ("RATE_LIMIT_USER_PER_MINUTE", "0"),
    ("RATE_LIMIT_USER_PER_HOUR", "0"),
    ("TOKEN_REFUND", "pro_rata"),
];

/// Every way, and how long it may take where Redis is away: an account is looked
/// at again after 10 s.
const WAYS: [(&str, Duration); 4] = [
    ("revoke", Duration::from_secs(5)),
    ("refund", Duration::from_secs(5)),
    ("leave", Duration::from_secs(5)),
    ("disable", Duration::from_secs(10)),
];

struct Holder {
    user: Client,
    pass: Given,
}

async fn holder(app: &TestApp, name: &str) -> Holder {
    let user = app.user(name).await;
    let pass = give(app, id_of(&user).await, 1).await;
    Holder { user, pass }
}

impl Holder {
    async fn end(&self, app: &TestApp, admin: &Client, way: &str) {
        match way {
            "revoke" => self.pass.revoke(app).await,
            "refund" => self.pass.refund(app).await,
            "leave" => {
                let body = json!({ "password": PASSWORD });
                self.user.json(Method::DELETE, "/api/v1/users/me", &body).await.expect(204);
            }
            "disable" => {
                let account = format!("/api/v1/admin/users/{}", self.pass.owner);
                admin.patch(&account, json!({ "is_active": false })).await.expect(200);
            }
            _ => unreachable!("one of the above"),
        }
    }

    /// At every instance.
    fn proofs(&self, apps: &[TestApp]) -> Vec<Proof> {
        apps.iter().map(|app| Proof::Credential(self.pass.bearer(app))).collect()
    }

    async fn is_refused(&self, apps: &[TestApp]) {
        for app in apps {
            self.pass.bearer(app).get(HELLO).await.expect_problem(401, "invalid_credential");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_instance_ends_three_refuse_within_a_second() {
    let Some(apps) = TestApp::instances(3, &SETTINGS).await else { return };
    let admin = apps[0].admin().await;
    let mut delays = vec![];
    for (n, (way, _)) in WAYS.into_iter().enumerate() {
        let holder = holder(&apps[1], &format!("user{n}")).await;
        let change = Box::pin(holder.end(&apps[0], &admin, way));
        let delay = Box::pin(outlived(&holder.proofs(&apps), change)).await;
        println!("{way}: accepted {} ms longer", delay.as_millis());
        delays.push(delay);
        holder.is_refused(&apps).await;
    }
    assert_in_time(Duration::from_secs(1), &delays, "each way");
}

/// On one instance there is nothing to wait for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ends_a_pass_ends_it_at_once_where_it_happens() {
    let app = TestApp::configured(SETTINGS).await;
    let apps = std::slice::from_ref(&app);
    let admin = app.admin().await;
    for (n, (way, _)) in WAYS.into_iter().enumerate() {
        let holder = holder(&app, &format!("user{n}")).await;
        holder.pass.bearer(&app).get(HELLO).await.expect(200);
        holder.end(&app, &admin, way).await;
        holder.is_refused(apps).await;
    }
}

/// G-10, G-11: no word gets through, so every copy must age.
async fn without_redis(outage: Outage) {
    let Some((mut redis, apps)) = on_private_redis(3, &SETTINGS).await else { return };
    let admin = apps[0].admin().await;
    let mut holders = vec![];
    for n in 0..WAYS.len() {
        let holder = holder(&apps[1], &format!("user{n}")).await;
        for app in &apps {
            holder.pass.bearer(app).get(HELLO).await.expect(200);
        }
        holders.push(holder);
    }
    match outage {
        Outage::Killed => redis.kill(),
        Outage::Stopped => redis.stop(),
    }
    for ((way, bound), holder) in WAYS.into_iter().zip(&holders) {
        let change = Box::pin(holder.end(&apps[0], &admin, way));
        let delay = Box::pin(outlived(&holder.proofs(&apps), change)).await;
        println!("{way}: accepted {} ms longer without redis", delay.as_millis());
        assert!(delay <= bound + LATE, "{way}: {delay:?}");
    }
    match outage {
        Outage::Killed => redis.restart(),
        Outage::Stopped => redis.resume(),
    }
    for app in &apps {
        regained(app.app.redis.as_ref().unwrap()).await;
    }
    // Not revived by what Redis still held.
    for holder in &holders {
        holder.is_refused(&apps).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_redis_lets_nobody_in_for_longer_than_a_copy_lives() {
    Box::pin(without_redis(Outage::Killed)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_does_not_answer_lets_nobody_in_for_longer_than_a_copy_lives() {
    Box::pin(without_redis(Outage::Stopped)).await;
}
