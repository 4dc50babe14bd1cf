use std::sync::Arc;

use tollgate::{
    domain::{
        id::UserId,
        idempotency::{Claim, IdempotencyKey, RequestHash},
    },
    repositories::{ClaimOutcome, Repositories},
};
use uuid::Uuid;

use super::{Store, at, winners};
use crate::support::epoch;

fn claim(user_id: UserId, key: &str, request: &str) -> Claim {
    let key = IdempotencyKey::parse(key).unwrap();
    Claim { user_id, key, request: RequestHash::of(request, &[]) }
}

#[tokio::test]
async fn the_first_claim_of_a_key_wins_and_others_learn_what_came_of_it() {
    let store = Store::fresh().await;
    let (ada, grace) = (UserId::new(epoch()), UserId::new(epoch()));
    let (first, second) = (Uuid::now_v7(), Uuid::now_v7());
    let mut tx = store.begin().await;
    let mut keys = tx.idempotency();
    let buy = claim(ada, "k", "buy");
    assert_eq!(keys.find(&buy).await.unwrap(), None);
    assert_eq!(keys.claim(&buy, first, epoch()).await.unwrap(), ClaimOutcome::Won);
    for _ in 0..2 {
        let outcome = keys.claim(&buy, second, at(1)).await.unwrap();
        assert_eq!(outcome, ClaimOutcome::Done(first));
    }
    assert_eq!(keys.find(&buy).await.unwrap(), Some(ClaimOutcome::Done(first)));
    let other = claim(ada, "k", "sell");
    assert_eq!(keys.claim(&other, second, at(1)).await.unwrap(), ClaimOutcome::Mismatch);
    assert_eq!(keys.find(&other).await.unwrap(), Some(ClaimOutcome::Mismatch));
    // Another key, and another user's key of the same name.
    for other in [claim(ada, "K", "buy"), claim(grace, "k", "buy")] {
        assert_eq!(keys.claim(&other, second, at(1)).await.unwrap(), ClaimOutcome::Won);
    }
}

#[tokio::test]
async fn a_claim_goes_with_its_transaction() {
    let store = Store::fresh().await;
    let buy = claim(UserId::new(epoch()), "k", "buy");
    let mut tx = store.begin().await;
    tx.idempotency().claim(&buy, Uuid::now_v7(), epoch()).await.unwrap();
    drop(tx);
    let mut tx = store.begin().await;
    let outcome = tx.idempotency().claim(&buy, Uuid::now_v7(), epoch()).await.unwrap();
    assert_eq!(outcome, ClaimOutcome::Won);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_twenty_claims_at_once_one_wins_and_the_others_wait_for_it() {
    let store = Store::fresh().await;
    let buy = Arc::new(claim(UserId::new(epoch()), "k", "buy"));
    let won = winners(|| {
        let (db, buy) = (store.db.clone(), buy.clone());
        async move {
            let mut tx = db.begin().await.unwrap();
            let outcome = tx.idempotency().claim(&buy, Uuid::now_v7(), epoch()).await.unwrap();
            assert_ne!(outcome, ClaimOutcome::Mismatch);
            tx.commit().await.unwrap();
            outcome == ClaimOutcome::Won
        }
    });
    assert_eq!(won.await, 1);
}

#[tokio::test]
async fn old_claims_are_forgotten_a_few_at_a_time() {
    let store = Store::fresh().await;
    let ada = UserId::new(epoch());
    let claims: Vec<_> = (0..5).map(|n| claim(ada, &format!("k{n}"), "buy")).collect();
    let mut tx = store.begin().await;
    let mut keys = tx.idempotency();
    for (second, claim) in (0..).zip(&claims) {
        keys.claim(claim, Uuid::now_v7(), at(second)).await.unwrap();
    }
    assert_eq!(keys.prune(at(0), 9).await.unwrap(), 0);
    assert_eq!(keys.prune(at(3), 2).await.unwrap(), 2);
    assert_eq!(keys.prune(at(3), 2).await.unwrap(), 1);
    assert_eq!(keys.prune(at(3), 2).await.unwrap(), 0);
    for (number, claim) in claims.iter().enumerate() {
        assert_eq!(keys.find(claim).await.unwrap().is_some(), number >= 3, "{number}");
    }
}
