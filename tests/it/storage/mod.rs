//! The promises of the repositories, which both engines keep alike.

mod api_keys;
mod audit;
mod chat;
mod counts;
mod credential_changes;
mod database;
mod idempotency;
mod interrupted;
mod ledger;
mod ledger_audit;
mod login_sessions;
mod migrations;
mod outage;
mod passes;
mod passes_in_use;
mod refresh_tokens;
mod roll_up;
mod rollups;
mod settings;
mod stream_tickets;
mod usage;
mod users;
mod vouchers;

use chrono::{DateTime, TimeDelta, Utc};
use tollgate::{
    domain::{
        api_key::ApiKey,
        id::{ApiKeyId, RefreshTokenId, SessionId, UserId},
        limit::Per,
        login::{LoginSession, REFRESH_IDLE, RefreshToken, SESSION_LIFE},
        rates::{NamedLimit, OnStoreLoss},
        token::{PlainToken, TokenHash},
        user::{Roles, User},
    },
    repositories::{Database, Repositories, Tx},
};

use crate::support::{TestDatabase, epoch};

/// A migrated database, and what keeps it alive.
struct Store {
    db: Database,
    files: TestDatabase,
}

impl Store {
    async fn fresh() -> Self {
        let files = TestDatabase::fresh().await;
        Self { db: files.connect().await, files }
    }

    async fn begin(&self) -> Tx {
        self.db.begin().await.unwrap()
    }

    async fn user(&self, name: &str) -> User {
        let user = user(name);
        let mut tx = self.begin().await;
        tx.users().insert(&user, "hash").await.unwrap();
        tx.commit().await.unwrap();
        user
    }

    async fn session(&self, user: UserId, at: DateTime<Utc>) -> LoginSession {
        let session = session(user, at);
        let mut tx = self.begin().await;
        tx.login_sessions().insert(&session).await.unwrap();
        tx.commit().await.unwrap();
        session
    }

    async fn key(&self, user: UserId, name: &str) -> (ApiKey, TokenHash) {
        let (key, hash) = (key(user, name), secret());
        let mut tx = self.begin().await;
        tx.api_keys().insert(&key, &hash).await.unwrap();
        tx.commit().await.unwrap();
        (key, hash)
    }
}

fn at(seconds: i64) -> DateTime<Utc> {
    epoch() + TimeDelta::seconds(seconds)
}

fn user(name: &str) -> User {
    User {
        id: UserId::new(epoch()),
        username: name.to_owned(),
        email: format!("{name}@Example.com"),
        full_name: Some(format!("{name} of Somewhere")),
        roles: Roles::USER,
        is_active: true,
        version: 1,
        created_at: epoch(),
        updated_at: epoch(),
    }
}

fn session(user: UserId, at: DateTime<Utc>) -> LoginSession {
    LoginSession {
        id: SessionId::new(at),
        user_id: user,
        device: Some("curl/8".to_owned()),
        address: Some("192.0.2.1".to_owned()),
        created_at: at,
        last_used_at: at,
        expires_at: at + SESSION_LIFE,
        ended_at: None,
        version: 1,
    }
}

fn refresh_token(session: SessionId) -> RefreshToken {
    RefreshToken {
        id: RefreshTokenId::new(epoch()),
        session_id: session,
        hash: PlainToken::refresh(&mut rand::rng()).hash(),
        created_at: epoch(),
        expires_at: epoch() + REFRESH_IDLE,
        spent_at: None,
        successor_id: None,
    }
}

fn named(name: &str, window: Per, limit: u64, on_store_loss: Option<OnStoreLoss>) -> NamedLimit {
    NamedLimit { name: name.to_owned().try_into().unwrap(), limit, window, on_store_loss }
}

fn key(user: UserId, name: &str) -> ApiKey {
    ApiKey {
        id: ApiKeyId::new(epoch()),
        user_id: user,
        name: name.to_owned(),
        prefix: "tg_Abcde".to_owned(),
        scopes: vec!["chat".to_owned(), "a \"b\"".to_owned()],
        upstreams: vec!["default".to_owned()],
        allowed_ips: vec!["192.0.2.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
        allowed_origins: vec!["https://example.com".to_owned()],
        rate_limit: Some(u32::MAX),
        rate_limit_per_minute: None,
        monthly_quota: Some(1 << 40),
        limits: vec![
            named("burst", Per::Second, 5, None),
            named("by-day_2", Per::Day, i64::MAX as u64, Some(OnStoreLoss::Deny)),
        ],
        max_concurrent: Some(u32::MAX),
        metadata: serde_json::from_str(r#"{"team": "ä", "n": 1.5, "nul": "\u0000"}"#).unwrap(),
        is_active: true,
        expires_at: Some(epoch() + TimeDelta::microseconds(1_500_001)),
        last_used_at: None,
        created_at: epoch(),
        rotated_at: None,
        version: 1,
    }
}

fn secret() -> TokenHash {
    PlainToken::api_key(&mut rand::rng()).hash()
}

/// Runs `attempt` in 20 tasks at once and counts those that answer `true`.
async fn winners<F>(attempt: impl Fn() -> F) -> usize
where
    F: Future<Output = bool> + Send + 'static,
{
    let tasks: Vec<_> = (0..20).map(|_| tokio::spawn(attempt())).collect();
    let mut won = 0;
    for task in tasks {
        won += usize::from(task.await.unwrap());
    }
    won
}
