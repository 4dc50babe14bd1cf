//! Passes as their use and end see them.

use chrono::{DateTime, TimeDelta, Utc};
use tollgate::{
    domain::{
        id::{PassId, UserId},
        pass::{Origin, Pass, Sealed},
        token::{PlainToken, TokenHash},
    },
    repositories::Repositories as _,
};

use super::Store;
use crate::support::epoch;

impl Store {
    async fn pass(&self, user_id: UserId, at: DateTime<Utc>) -> (Pass, TokenHash) {
        let token = PlainToken::pass(&mut rand::rng());
        let pass = Pass {
            id: PassId::new(at),
            user_id,
            prefix: token.display_prefix(),
            duration_hours: 24,
            upstream: Some("images".to_owned()),
            origin: Origin::Grant,
            price_minor: 0,
            refunded_minor: None,
            created_at: at,
            activated_at: None,
            revoked_at: None,
            version: 1,
        };
        let sealed = Sealed { key: "k".to_owned(), bytes: vec![1, 2, 3] };
        let mut tx = self.begin().await;
        tx.passes().insert(&pass, &token.hash(), &sealed).await.unwrap();
        tx.commit().await.unwrap();
        (pass, token.hash())
    }
}

#[tokio::test]
async fn a_pass_begins_once_and_not_after_its_end() {
    let store = Store::fresh().await;
    let owner = store.user("ada").await.id;
    let (used, hash) = store.pass(owner, epoch()).await;
    let (revoked, _) = store.pass(owner, epoch()).await;
    // To the microsecond, which both engines keep.
    let first = epoch() + TimeDelta::microseconds(123_457);
    let mut tx = store.begin().await;
    let begun = tx.passes().activate(used.id, first).await.unwrap().unwrap();
    assert_eq!(begun, Pass { activated_at: Some(first), version: 2, ..used.clone() });
    let later = first + TimeDelta::hours(1);
    assert_eq!(tx.passes().activate(used.id, later).await.unwrap(), None);
    assert_eq!(tx.passes().find_by_hash(&hash).await.unwrap(), Some(begun));
    tx.passes().end(revoked.id, 1, None, first).await.unwrap().unwrap();
    assert_eq!(tx.passes().activate(revoked.id, later).await.unwrap(), None);
    assert_eq!(tx.passes().activate(PassId::new(later), later).await.unwrap(), None);
}

#[tokio::test]
async fn all_digests_of_a_user_are_found_with_their_versions_and_go_with_him() {
    let store = Store::fresh().await;
    let (ada, grace) = (store.user("ada").await.id, store.user("grace").await.id);
    let (first, first_hash) = store.pass(ada, epoch()).await;
    let (_, second_hash) = store.pass(ada, epoch()).await;
    let (_, other_hash) = store.pass(grace, epoch()).await;
    let mut tx = store.begin().await;
    tx.passes().activate(first.id, epoch()).await.unwrap().unwrap();
    let mut found = tx.passes().hashes_of_user(ada).await.unwrap();
    found.sort_by_key(|(hash, _)| hash.to_string());
    let mut expected = [(first_hash, 2), (second_hash, 1)];
    expected.sort_by_key(|(hash, _)| hash.to_string());
    assert!(found == expected, "{found:?}");
    tx.users().delete(ada).await.unwrap().unwrap();
    assert!(tx.passes().hashes_of_user(ada).await.unwrap().is_empty());
    assert_eq!(tx.passes().find_by_hash(&first_hash).await.unwrap(), None);
    assert!(tx.passes().find_by_hash(&other_hash).await.unwrap().is_some());
}
