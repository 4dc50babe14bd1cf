use chrono::{DateTime, TimeDelta, Utc};
use tollgate::{
    domain::{
        id::{PassId, UserId},
        idempotency::{Claim, IdempotencyKey, RequestHash},
        page::PageRequest,
        pass::{Origin, Pass, Sealed, Status},
        token::{PlainToken, TokenHash},
    },
    repositories::{ClaimOutcome, PassFilter, Repositories, Tx},
};

use super::{Store, at, winners};
use crate::support::epoch;

fn pass(user: UserId, made: DateTime<Utc>) -> Pass {
    Pass {
        id: PassId::new(made),
        user_id: user,
        prefix: "tga_Abcd".to_owned(),
        duration_hours: 87_600,
        upstream: Some("images".to_owned()),
        origin: Origin::Purchase,
        price_minor: 1_000_000_000_000,
        refunded_minor: None,
        created_at: made,
        activated_at: None,
        revoked_at: None,
        version: 1,
    }
}

fn sealed(key: &str) -> Sealed {
    Sealed { key: key.to_owned(), bytes: rand::random::<[u8; 32]>().to_vec() }
}

async fn insert(tx: &mut Tx, pass: &Pass) -> (TokenHash, Sealed) {
    let (hash, sealed) = (PlainToken::pass(&mut rand::rng()).hash(), sealed("key 1"));
    tx.passes().insert(pass, &hash, &sealed).await.unwrap();
    (hash, sealed)
}

#[tokio::test]
async fn what_is_written_is_what_is_read_and_only_by_its_owner() {
    let store = Store::fresh().await;
    let (alice, bob) = (store.user("alice").await, store.user("bob").await);
    let mut tx = store.begin().await;
    let plain =
        Pass { upstream: None, origin: Origin::Grant, price_minor: 0, ..pass(bob.id, at(3)) };
    for pass in [
        pass(alice.id, at(1)),
        Pass {
            activated_at: Some(at(2) + TimeDelta::microseconds(1)),
            revoked_at: Some(at(3)),
            refunded_minor: Some(7),
            version: 3,
            ..pass(alice.id, at(2))
        },
        plain,
    ] {
        let (hash, sealed) = insert(&mut tx, &pass).await;
        let mut passes = tx.passes();
        let found = Some((pass.clone(), sealed));
        assert_eq!(passes.find(pass.id, None).await.unwrap(), found);
        assert_eq!(passes.find(pass.id, Some(pass.user_id)).await.unwrap(), found);
        let stranger = if pass.user_id == alice.id { bob.id } else { alice.id };
        assert_eq!(passes.find(pass.id, Some(stranger)).await.unwrap(), None);
        assert_eq!(passes.hash(pass.id).await.unwrap(), Some(hash));
        assert_eq!(passes.find_by_hash(&hash).await.unwrap(), Some(pass));
    }
    let missing = PassId::new(epoch());
    assert_eq!(tx.passes().find(missing, None).await.unwrap(), None);
    assert_eq!(tx.passes().hash(missing).await.unwrap(), None);
}

#[tokio::test]
async fn lists_are_filtered_by_owner_and_state_and_paged_newest_first() {
    use Status::{Active, Expired, Refunded, Revoked, Unused};
    let store = Store::fresh().await;
    let (alice, bob) = (store.user("alice").await, store.user("bob").await);
    let mut tx = store.begin().await;
    // Each lasts an hour; the list is of the end of the one that began at 0.
    let now = at(3600);
    let shapes = [
        (alice.id, None, None, None),
        (alice.id, Some(at(0)), None, None),
        (alice.id, Some(at(0) + TimeDelta::microseconds(1)), None, None),
        (alice.id, Some(at(0)), Some(at(9)), None),
        (alice.id, None, Some(at(9)), Some(0)),
        (bob.id, None, None, None),
    ];
    let mut ids = vec![];
    for (made, (user, activated_at, revoked_at, refunded_minor)) in (0..).zip(shapes) {
        let pass = Pass {
            duration_hours: 1,
            activated_at,
            revoked_at,
            refunded_minor,
            ..pass(user, at(made))
        };
        insert(&mut tx, &pass).await;
        ids.push((pass.id, pass.status(now)));
    }
    for (user, status, expected) in [
        (None, vec![], &[5, 4, 3, 2, 1, 0][..]),
        (Some(alice.id), vec![], &[4, 3, 2, 1, 0]),
        (Some(bob.id), vec![Active], &[]),
        (None, vec![Unused], &[5, 0]),
        (Some(alice.id), vec![Unused, Active], &[2, 0]),
        (None, vec![Expired], &[1]),
        (None, vec![Revoked], &[3]),
        (None, vec![Refunded], &[4]),
        (None, Status::ALL.to_vec(), &[5, 4, 3, 2, 1, 0]),
    ] {
        let filter = PassFilter { user_id: user, status };
        let page = tx.passes().list(&filter, now, PageRequest::FIRST).await.unwrap();
        let found: Vec<_> = page.items.iter().map(|(pass, _)| pass.id).collect();
        let wanted: Vec<_> = expected.iter().map(|at: &usize| ids[*at].0).collect();
        assert_eq!(found, wanted, "{filter:?}");
        // The state in SQL is the state in Rust.
        assert!(page.items.iter().all(|(pass, _)| {
            filter.status.is_empty() || filter.status.contains(&pass.status(now))
        }));
    }
    let filter = PassFilter::default();
    let first = PageRequest { limit: 4, after: None };
    let first = tx.passes().list(&filter, now, first).await.unwrap();
    assert_eq!(first.items.len(), 4);
    let rest = PageRequest { limit: 4, after: first.next };
    let rest = tx.passes().list(&filter, now, rest).await.unwrap();
    let found: Vec<_> = rest.items.iter().map(|(pass, _)| pass.id).collect();
    assert_eq!((found, rest.next), (vec![ids[1].0, ids[0].0], None));
}

#[tokio::test]
async fn a_pass_is_ended_only_as_it_was_seen() {
    let store = Store::fresh().await;
    let alice = store.user("alice").await;
    let (one, two) = (pass(alice.id, at(1)), pass(alice.id, at(2)));
    let mut tx = store.begin().await;
    for pass in [&one, &two] {
        insert(&mut tx, pass).await;
    }
    let mut passes = tx.passes();
    assert_eq!(passes.end(one.id, 2, None, at(5)).await.unwrap(), None, "another version");
    let begun = passes.activate(one.id, at(3)).await.unwrap().unwrap();
    assert_eq!(begun, Pass { activated_at: Some(at(3)), version: 2, ..one.clone() });
    assert_eq!(passes.activate(one.id, at(4)).await.unwrap(), None);
    assert_eq!(passes.end(one.id, 1, None, at(5)).await.unwrap(), None, "begun meanwhile");
    let ended = passes.end(one.id, 2, Some(5), at(5)).await.unwrap();
    let expected = Pass { revoked_at: Some(at(5)), refunded_minor: Some(5), version: 3, ..begun };
    assert_eq!(ended, Some(expected));
    assert_eq!(passes.end(one.id, 3, None, at(6)).await.unwrap(), None, "once");
    let ended = passes.end(two.id, 1, None, at(5)).await.unwrap().unwrap();
    assert_eq!((ended.refunded_minor, ended.version), (None, 2));
    assert_eq!(passes.activate(two.id, at(6)).await.unwrap(), None);
}

#[tokio::test]
async fn texts_are_sealed_again_unless_somebody_did_so() {
    let store = Store::fresh().await;
    let alice = store.user("alice").await;
    let mut tx = store.begin().await;
    let mut all = vec![];
    for made in 0..5 {
        let pass = pass(alice.id, at(made));
        let (_, sealed) = insert(&mut tx, &pass).await;
        all.push((pass.id, sealed));
    }
    let mut passes = tx.passes();
    assert_eq!(passes.sealed_otherwise("key 1", None, 9).await.unwrap(), []);
    assert_eq!(passes.sealed_otherwise("key 2", None, 9).await.unwrap(), all);
    let after = Some(all[1].0);
    assert_eq!(passes.sealed_otherwise("key 2", after, 2).await.unwrap(), all[2..4]);

    let (id, old) = &all[2];
    let (new, late) = (sealed("key 2"), sealed("key 2"));
    assert!(passes.reseal(*id, old, &new).await.unwrap());
    assert!(!passes.reseal(*id, old, &late).await.unwrap());
    assert!(!passes.reseal(PassId::new(epoch()), old, &new).await.unwrap());
    let (pass, kept) = passes.find(*id, None).await.unwrap().unwrap();
    assert_eq!((kept, pass.version), (new, 1));
    let left: Vec<_> = passes
        .sealed_otherwise("key 2", None, 9)
        .await
        .unwrap()
        .into_iter()
        .map(|(id, _)| id)
        .collect();
    assert_eq!(left, [0, 1, 3, 4].map(|at: usize| all[at].0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_twenty_who_claim_a_request_one_wins_and_the_others_read_its_result() {
    let store = Store::fresh().await;
    let alice = store.user("alice").await;
    let claim = |operation: &str, key: &str| Claim {
        user_id: alice.id,
        key: IdempotencyKey::parse(key).unwrap(),
        request: RequestHash::of(operation, &[&24]),
    };
    let won = winners(|| {
        let (db, claim, id) = (store.db.clone(), claim("buy", "k"), PassId::new(epoch()));
        async move {
            let mut tx = db.begin().await.unwrap();
            let outcome = tx.idempotency().claim(&claim, id.as_uuid(), epoch()).await.unwrap();
            tx.commit().await.unwrap();
            outcome == ClaimOutcome::Won
        }
    });
    assert_eq!(won.await, 1);
    let mut tx = store.begin().await;
    let mut requests = tx.idempotency();
    let done = requests.find(&claim("buy", "k")).await.unwrap();
    assert!(matches!(done, Some(ClaimOutcome::Done(_))), "{done:?}");
    let other = uuid::Uuid::now_v7();
    assert_eq!(Some(requests.claim(&claim("buy", "k"), other, at(9)).await.unwrap()), done);
    assert_eq!(requests.find(&claim("sell", "k")).await.unwrap(), Some(ClaimOutcome::Mismatch));
    assert_eq!(requests.find(&claim("buy", "other")).await.unwrap(), None);
    let eve = Claim { user_id: UserId::new(epoch()), ..claim("buy", "k") };
    assert_eq!(requests.find(&eve).await.unwrap(), None);
}
