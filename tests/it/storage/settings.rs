use tollgate::{
    domain::user::{Role, Roles},
    repositories::Repositories,
};

use super::{Store, winners};
use crate::support::epoch;

#[tokio::test]
async fn the_first_claim_stands() {
    let store = Store::fresh().await;
    let mut tx = store.begin().await;
    assert_eq!(tx.settings().get("name").await.unwrap(), None);
    assert!(tx.settings().claim("name", "first", epoch()).await.unwrap());
    assert!(!tx.settings().claim("name", "second", epoch()).await.unwrap());
    assert_eq!(tx.settings().get("name").await.unwrap().as_deref(), Some("first"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_racing_claims_one_wins() {
    let store = Store::fresh().await;
    let won = winners(|| {
        let db = store.db.clone();
        async move {
            let mut tx = db.begin().await.unwrap();
            let won = tx.settings().claim("name", "value", epoch()).await.unwrap();
            tx.commit().await.unwrap();
            won
        }
    });
    assert_eq!(won.await, 1);
}

/// Two that each remove the other from a pair would leave nobody, unless one
/// waits for the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_lock_lets_one_transaction_at_a_time_look_and_change() {
    let store = Store::fresh().await;
    let (alice, bob) = (store.user("alice").await, store.user("bob").await);
    let mut tx = store.begin().await;
    for user in [&alice, &bob] {
        tx.users().set_roles(user.id, Roles::USER.with(Role::Admin), epoch()).await.unwrap();
    }
    tx.commit().await.unwrap();
    let demote = |id| {
        let db = store.db.clone();
        tokio::spawn(async move {
            let mut tx = db.begin().await.unwrap();
            tx.settings().lock("admins", epoch()).await.unwrap();
            tx.users().set_roles(id, Roles::USER, epoch()).await.unwrap();
            tokio::task::yield_now().await;
            if tx.users().count_admins().await.unwrap() > 0 {
                tx.commit().await.unwrap();
            }
        })
    };
    let (one, two) = (demote(alice.id), demote(bob.id));
    one.await.unwrap();
    two.await.unwrap();
    let mut session = store.db.session().await.unwrap();
    assert_eq!(session.users().count_admins().await.unwrap(), 1);
}
