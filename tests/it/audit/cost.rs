//! What a row costs a change: the making of a key, with its row and without.

use std::{sync::Arc, time::Instant};

use tokio::task::JoinSet;
use tollgate::{
    domain::{
        audit::SYSTEM,
        clock::SystemClock,
        id::{ApiKeyId, UserId},
        token::PlainToken,
        user::{NewUser, Roles},
    },
    repositories::Repositories as _,
    services::{api_keys::IssuedKey, key_input::KeyChange},
};

use crate::support::{PASSWORD, TestApp};

const KEYS: usize = 1000;
const AT_ONCE: usize = 8;

async fn with_row(app: &TestApp, user: UserId) -> IssuedKey {
    let fields = KeyChange { name: Some("k".to_owned()), ..KeyChange::default() };
    app.app.services.api_keys.issue(&SYSTEM, user, fields).await.unwrap()
}

/// The same statements but for those of the log.
async fn without(app: &TestApp, user: UserId, like: &IssuedKey) {
    use tollgate::domain::clock::Clock as _;
    let token = PlainToken::api_key(&mut rand::rng());
    let mut key = like.key.clone();
    key.id = ApiKeyId::new(SystemClock.now());
    let mut tx = app.app.db.begin().await.unwrap();
    tx.users().find(user).await.unwrap().unwrap();
    tx.api_keys().insert(&key, &token.hash()).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, not a test"]
async fn keys_a_second() {
    let app = Arc::new(TestApp::unlimited().await);
    let new = NewUser {
        username: "ada".to_owned(),
        email: "ada@example.com".to_owned(),
        full_name: None,
        roles: Roles::USER,
        is_active: true,
    };
    let user = app.app.services.accounts.create(&SYSTEM, new, &PASSWORD.into()).await.unwrap().id;
    let like = Arc::new(with_row(&app, user).await);
    for at_once in [1, AT_ONCE] {
        for logged in [false, true, false, true] {
            let begin = Instant::now();
            let mut tasks = JoinSet::new();
            for _ in 0..at_once {
                let (app, like) = (app.clone(), like.clone());
                tasks.spawn(async move {
                    for _ in 0..KEYS / at_once {
                        if logged {
                            with_row(&app, user).await;
                        } else {
                            without(&app, user, &like).await;
                        }
                    }
                });
            }
            tasks.join_all().await;
            let each = begin.elapsed().as_micros() / KEYS as u128;
            println!("{at_once} at once, logged {logged}: {each} us a key");
        }
    }
}
