use chrono::TimeDelta;
use tollgate::{
    domain::user::{Role, Roles},
    repositories::{Repositories, Turn},
};

use super::{Store, at, winners};
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

#[tokio::test]
async fn what_is_set_replaces_what_was_there() {
    let store = Store::fresh().await;
    let mut tx = store.begin().await;
    for value in ["first", "second"] {
        tx.settings().set("name", value, epoch()).await.unwrap();
        assert_eq!(tx.settings().get("name").await.unwrap().as_deref(), Some(value));
    }
}

#[tokio::test]
async fn a_turn_is_taken_once_in_a_while_and_keeps_the_note() {
    let store = Store::fresh().await;
    let mut tx = store.begin().await;
    let pause = TimeDelta::seconds(60);
    assert_eq!(tx.settings().turn("job").await.unwrap(), None);
    assert!(tx.settings().take_turn("job", pause, at(0)).await.unwrap());
    assert!(!tx.settings().take_turn("job", pause, at(59)).await.unwrap());
    tx.settings().set("job", "note", at(30)).await.unwrap();
    assert!(tx.settings().take_turn("job", pause, at(60)).await.unwrap());
    let turn = Turn { taken_at: at(60), value: "note".to_owned() };
    assert_eq!(tx.settings().turn("job").await.unwrap(), Some(turn.clone()));
    // A clock that is a little behind waits; one that was a year ahead is not
    // waited for.
    assert!(!tx.settings().take_turn("job", pause, at(1)).await.unwrap());
    assert!(tx.settings().take_turn("job", pause, at(0)).await.unwrap());
    for (now, over) in [(0, true), (1, false), (60, false), (119, false), (120, true)] {
        assert_eq!(turn.is_over(pause, at(now)), over, "{now}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_those_who_want_the_turn_at_once_one_gets_it() {
    let store = Store::fresh().await;
    for round in 0..5 {
        let won = winners(|| {
            let db = store.db.clone();
            async move {
                let mut tx = db.begin().await.unwrap();
                let now = at(round * 60);
                let won =
                    tx.settings().take_turn("job", TimeDelta::seconds(60), now).await.unwrap();
                tx.commit().await.unwrap();
                won
            }
        });
        assert_eq!(won.await, 1, "round {round}");
    }
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
