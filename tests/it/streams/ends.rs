//! Every way to take a credential away, over every kind of credential, on one
//! instance and on three: the stream it opened ends, and no other.

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use http::Method;
use serde_json::json;
use tollgate::domain::clock::{Clock as _, SystemClock};

use super::{FREE, HELLO, Open, SOON, Source, listed, put_in_front, told};
use crate::support::{Client, PASSWORD, TestApp};

/// An upstream that asks moderators in, and of keys a scope.
pub const SETTINGS: &str = "roles = ['user', 'moderator']\nscopes = ['go']\n\
    [[upstreams.paths]]\npath = '/mod'\nroles = ['moderator']";

/// What is done, by what the stream was opened, and the code that it is told.
pub const WAYS: [(&str, &str, &str); 26] = [
    ("logout", "login", "revoked"),
    ("logout of all", "login", "revoked"),
    ("session ended", "login", "revoked"),
    ("password changed", "login", "revoked"),
    ("account disabled", "login", "revoked"),
    ("account left", "login", "revoked"),
    ("role taken", "login", "revoked"),
    ("key deleted", "key", "revoked"),
    ("key disabled", "key", "revoked"),
    ("key expires", "key", "expired"),
    ("key rotated", "key", "revoked"),
    ("grace ends", "key", "expired"),
    ("network", "key", "revoked"),
    ("origin", "key", "revoked"),
    ("upstream", "key", "revoked"),
    ("scope", "key", "revoked"),
    ("account disabled", "key", "revoked"),
    ("account left", "key", "revoked"),
    ("role taken", "key", "revoked"),
    ("pass revoked", "pass", "revoked"),
    ("pass revoked by an admin", "pass", "revoked"),
    ("pass refunded", "pass", "revoked"),
    ("account disabled", "pass", "revoked"),
    ("account left", "pass", "revoked"),
    ("role taken", "pass", "revoked"),
    ("cut", "login", "cut"),
];

/// Somebody with one of each.
pub struct Holder {
    id: String,
    login: Client,
    second: Client,
    key: String,
    token: String,
    /// The field that each is sent in.
    pub fields: [(&'static str, String); 3],
}

pub async fn holder(app: &TestApp, admin: &Client, name: &str) -> Holder {
    let id = app.register(name).await.text("id").to_owned();
    let roles = json!({ "roles": ["user", "moderator"] });
    admin.patch(&format!("/api/v1/admin/users/{id}"), roles).await.expect(200);
    let pair = app.login(name, PASSWORD).await.expect(200);
    let login = app.anonymous().with_bearer(pair.text("access_token"));
    let fields = json!({ "name": "k", "scopes": ["go"] });
    let key = login.post("/api/v1/keys", fields).await.expect(201);
    let day = json!({ "duration_hours": 24 });
    let token = login.post("/api/v1/tokens/purchase", day).await.expect(201);
    let sent = [
        ("login", format!("Authorization: Bearer {}", pair.text("access_token"))),
        ("key", format!("X-API-Key: {}", key.text("key"))),
        ("pass", format!("X-Access-Token: {}", token.text("token"))),
    ];
    Holder {
        id,
        second: app.log_in(name, PASSWORD).await,
        login,
        key: format!("/api/v1/keys/{}", key.text("id")),
        token: format!("/api/v1/tokens/{}", token.text("token_id")),
        fields: sent,
    }
}

impl Holder {
    pub fn field(&self, kind: &str) -> &str {
        &self.fields.iter().find(|(name, _)| *name == kind).unwrap().1
    }

    async fn set_key(&self, change: serde_json::Value) {
        self.login.patch(&self.key, change).await.expect(200);
    }

    pub async fn take(&self, admin: &Client, way: &str, instances: usize) {
        let account = format!("/api/v1/admin/users/{}", self.id);
        let soon = (SystemClock.now() + TimeDelta::milliseconds(400)).to_rfc3339();
        match way {
            "logout" => drop(self.login.post_empty("/api/v1/auth/logout").await.expect(204)),
            "logout of all" => {
                self.second.post_empty("/api/v1/auth/logout-all").await.expect(204);
            }
            "session ended" => {
                let sessions = self.second.get("/api/v1/auth/sessions").await.expect(200);
                let all = sessions.json["items"].as_array().unwrap();
                for session in all.iter().filter(|session| session["is_current"] == false) {
                    let id = session["id"].as_str().unwrap();
                    self.second.delete(&format!("/api/v1/auth/sessions/{id}")).await;
                }
            }
            "password changed" => {
                let new = json!({ "current_password": PASSWORD, "new_password": "a new staple" });
                self.second.post("/api/v1/auth/password", new).await.expect(204);
            }
            "account disabled" => {
                drop(admin.patch(&account, json!({ "is_active": false })).await.expect(200));
            }
            "account left" => {
                let body = json!({ "password": PASSWORD });
                self.second.json(Method::DELETE, "/api/v1/users/me", &body).await.expect(204);
            }
            "role taken" => {
                drop(admin.patch(&account, json!({ "roles": ["user"] })).await.expect(200));
            }
            "key deleted" => drop(self.login.delete(&self.key).await.expect(204)),
            "key disabled" => self.set_key(json!({ "is_active": false })).await,
            "key expires" => self.set_key(json!({ "expires_at": soon })).await,
            "key rotated" | "grace ends" => {
                let grace = json!({ "grace_period_seconds": i32::from(way == "grace ends") });
                self.login.post(&format!("{}/rotate", self.key), grace).await.expect(200);
            }
            "network" => self.set_key(json!({ "allowed_ips": ["203.0.113.1"] })).await,
            "origin" => self.set_key(json!({ "allowed_origins": ["https://a.example"] })).await,
            "upstream" => self.set_key(json!({ "upstreams": ["other"] })).await,
            "scope" => self.set_key(json!({ "scopes": ["stay"] })).await,
            "pass revoked" => {
                drop(self.login.post_empty(&format!("{}/revoke", self.token)).await.expect(200));
            }
            "pass revoked by an admin" => {
                let path = self.token.replace("/v1/", "/v1/admin/");
                admin.post_empty(&format!("{path}/revoke")).await.expect(200);
            }
            "pass refunded" => {
                let refund = self.login.with("idempotency-key", &self.id);
                refund.post_empty(&format!("{}/refund", self.token)).await.expect(200);
            }
            "cut" => {
                // On whichever instance they are.
                let query = format!("?user_id={}", self.id);
                for stream in listed(admin, &query, instances).await {
                    let id = stream["id"].as_str().unwrap();
                    admin.delete(&format!("/api/v1/admin/connections/{id}")).await.expect(204);
                }
            }
            _ => unreachable!("one of the above"),
        }
    }
}

/// The change is made at the first of these; streams are open at all.
async fn every_way_ends_its_own_stream(apps: &[TestApp]) {
    let source = Source::start().await;
    for app in apps {
        put_in_front(app, &source.url(), SETTINGS);
    }
    let admin = apps[0].admin().await;
    let bystander = holder(&apps[0], &admin, "bystander").await;
    let mut others = vec![];
    for app in apps {
        for (_, field) in &bystander.fields {
            others.push(Open::begin(app, "/mod", field).await);
        }
    }
    for (n, (way, kind, code)) in WAYS.into_iter().enumerate() {
        let holder = holder(&apps[0], &admin, &format!("user{n}")).await;
        let mut streams = vec![];
        for app in apps {
            streams.push(Open::begin(app, "/mod", holder.field(kind)).await);
        }
        holder.take(&admin, way, apps.len()).await;
        let taken = Instant::now();
        for (at, stream) in streams.into_iter().enumerate() {
            let what = format!("{way}: {kind} at {at}");
            let (answer, after) = stream.end(taken).await;
            println!("{what}: {} ms", after.as_millis());
            assert_eq!(answer.text(), format!("{HELLO}{}", told(code)), "{what}");
            assert!(answer.complete, "{what}: {answer:?}");
            // What has an end of its own is told beforehand.
            let own = if way == "grace ends" { SOON } else { Duration::ZERO };
            assert!(after < SOON + own, "{what}: {after:?}");
        }
    }
    // Nobody else was disturbed.
    for number in 0..others.len() {
        source.send(number, "data: still\n\n");
        source.finish(number);
    }
    for stream in others {
        let (answer, _) = stream.end(Instant::now()).await;
        assert_eq!(answer.text(), format!("{HELLO}data: still\n\n"));
        assert!(answer.complete);
    }
}

pub fn settings() -> Vec<(&'static str, &'static str)> {
    let more = [("TOKEN_REFUND", "pro_rata"), ("WALLET_STARTING_BALANCE", "100000")];
    FREE.into_iter().chain(more).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_ends_its_own_stream_within_a_second() {
    let settings = settings().into_iter().map(|(name, value)| (name, value.to_owned())).collect();
    let options = crate::support::Options { settings, ..Default::default() };
    every_way_ends_its_own_stream(&[TestApp::with(options).await]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_ends_its_own_stream_on_every_instance() {
    let Some(apps) = TestApp::instances(3, &settings()).await else { return };
    every_way_ends_its_own_stream(&apps).await;
}
