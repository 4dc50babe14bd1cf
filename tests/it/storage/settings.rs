use tollgate::repositories::Repositories;

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
