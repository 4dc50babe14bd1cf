use tollgate::{
    domain::{
        api_key::ApiKey,
        id::{ApiKeyId, UserId},
        page::PageRequest,
    },
    repositories::{KeyFilter, Repositories},
};

use super::{Store, at, key, secret, winners};
use crate::support::epoch;

#[tokio::test]
async fn what_is_written_is_what_is_read() {
    let store = Store::fresh().await;
    let alice = store.user("alice").await;
    let (key, hash) = store.key(alice.id, "ci").await;
    let mut session = store.db.session().await.unwrap();
    let mut keys = session.api_keys();
    assert_eq!(keys.find(key.id).await.unwrap().as_ref(), Some(&key));
    // Long past its expiry: that is for the caller to judge.
    assert_eq!(keys.find_by_hash(&hash, at(1_000_000)).await.unwrap(), Some((key, None)));
    assert_eq!(keys.find(ApiKeyId::new(epoch())).await.unwrap(), None);
    assert_eq!(keys.find_by_hash(&secret(), epoch()).await.unwrap(), None);
}

#[tokio::test]
async fn an_update_writes_what_may_change_and_nothing_else() {
    let store = Store::fresh().await;
    let alice = store.user("alice").await;
    let (old, _) = store.key(alice.id, "ci").await;
    let changed = ApiKey {
        name: "CD".to_owned(),
        scopes: vec![],
        upstreams: vec!["x".to_owned()],
        allowed_ips: vec![],
        allowed_origins: vec![],
        rate_limit: None,
        rate_limit_per_minute: Some(0),
        monthly_quota: None,
        metadata: serde_json::Map::new(),
        is_active: false,
        expires_at: None,
        version: 2,
        ..old.clone()
    };
    let meddled = ApiKey {
        user_id: UserId::new(epoch()),
        prefix: "tg_other".to_owned(),
        last_used_at: Some(at(1)),
        created_at: at(1),
        rotated_at: Some(at(1)),
        ..changed.clone()
    };
    let mut tx = store.begin().await;
    assert!(tx.api_keys().update(&meddled, 1).await.unwrap());
    assert_eq!(tx.api_keys().find(old.id).await.unwrap(), Some(changed));
    assert!(!tx.api_keys().update(&meddled, 1).await.unwrap());
    let unknown = key(alice.id, "unknown");
    assert!(!tx.api_keys().update(&unknown, 1).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_twenty_racing_updates_exactly_one_succeeds() {
    let store = Store::fresh().await;
    let alice = store.user("alice").await;
    let (key, _) = store.key(alice.id, "ci").await;
    let won = winners(|| {
        let (db, key) = (store.db.clone(), key.clone());
        async move {
            let mut tx = db.begin().await.unwrap();
            let won = tx.api_keys().update(&key, 1).await.unwrap();
            tx.commit().await.unwrap();
            won
        }
    });
    assert_eq!(won.await, 1);
}

#[tokio::test]
async fn a_replaced_text_works_until_its_grace_is_over() {
    let store = Store::fresh().await;
    let alice = store.user("alice").await;
    let (key, first) = store.key(alice.id, "ci").await;
    let (second, third) = (secret(), secret());
    let mut tx = store.begin().await;
    let mut keys = tx.api_keys();

    assert_eq!(keys.rotate(key.id, "tg_second", at(10)).await.unwrap(), Some(2));
    keys.add_secret(key.id, &second, at(10)).await.unwrap();
    keys.expire_secrets(key.id, &second, at(60)).await.unwrap();
    assert_eq!(keys.secrets(key.id).await.unwrap(), [first, second]);
    for (hash, now, works) in [
        (first, at(59), true),
        (first, at(60), false),
        (second, at(60), true),
        (second, at(1_000_000), true),
    ] {
        assert_eq!(keys.find_by_hash(&hash, now).await.unwrap().is_some(), works);
    }
    let found = keys.find(key.id).await.unwrap().unwrap();
    assert_eq!((found.prefix.as_str(), found.rotated_at), ("tg_second", Some(at(10))));

    // A second rotation with a longer grace does not revive the first text.
    keys.add_secret(key.id, &third, at(20)).await.unwrap();
    keys.expire_secrets(key.id, &third, at(100)).await.unwrap();
    assert!(keys.find_by_hash(&first, at(60)).await.unwrap().is_none());
    let (_, ends) = keys.find_by_hash(&second, at(99)).await.unwrap().unwrap();
    assert_eq!(ends, Some(at(100)));

    assert_eq!(keys.delete_expired_secrets(at(60)).await.unwrap(), 0);
    assert_eq!(keys.delete_expired_secrets(at(61)).await.unwrap(), 1);
    assert_eq!(keys.secrets(key.id).await.unwrap(), [second, third]);
    assert_eq!(keys.rotate(ApiKeyId::new(epoch()), "tg_x", at(1)).await.unwrap(), None);
}

#[tokio::test]
async fn the_secrets_of_a_user_are_those_of_all_their_keys() {
    let store = Store::fresh().await;
    let (alice, bob) = (store.user("alice").await, store.user("bob").await);
    let (_, one) = store.key(alice.id, "one").await;
    let (_, two) = store.key(alice.id, "two").await;
    store.key(bob.id, "other").await;
    let mut session = store.db.session().await.unwrap();
    let found = session.api_keys().secrets_of_user(alice.id).await.unwrap();
    assert_eq!(found.len(), 2);
    assert!(found.contains(&(one, 1)) && found.contains(&(two, 1)));
}

#[tokio::test]
async fn a_deleted_key_is_gone_with_its_secrets() {
    let store = Store::fresh().await;
    let alice = store.user("alice").await;
    let (key, hash) = store.key(alice.id, "ci").await;
    let mut tx = store.begin().await;
    let mut keys = tx.api_keys();
    assert_eq!(keys.delete(key.id).await.unwrap(), Some(1));
    assert_eq!(keys.delete(key.id).await.unwrap(), None);
    assert_eq!(keys.find_by_hash(&hash, epoch()).await.unwrap(), None);
    assert_eq!(keys.secrets(key.id).await.unwrap(), []);
}

#[tokio::test]
async fn the_last_use_only_moves_forward() {
    let store = Store::fresh().await;
    let alice = store.user("alice").await;
    let (one, _) = store.key(alice.id, "one").await;
    let (two, _) = store.key(alice.id, "two").await;
    let mut tx = store.begin().await;
    let mut keys = tx.api_keys();
    keys.touch(&[]).await.unwrap();
    let gone = ApiKeyId::new(epoch());
    keys.touch(&[
        (one.id, at(5)),
        (two.id, at(1)),
        (one.id, at(9)),
        (gone, at(1)),
        (one.id, at(7)),
    ])
    .await
    .unwrap();
    keys.touch(&[(one.id, at(8)), (two.id, at(2))]).await.unwrap();
    for (key, used) in [(&one, at(9)), (&two, at(2))] {
        let found = keys.find(key.id).await.unwrap().unwrap();
        assert_eq!((found.last_used_at, found.version), (Some(used), 1), "{}", key.name);
    }

    let many: Vec<_> = (0..2500).map(|n| (ApiKeyId::new(at(n)), at(n))).collect();
    keys.touch(&many).await.unwrap();
}

#[tokio::test]
async fn lists_are_filtered_and_paged_newest_first() {
    let store = Store::fresh().await;
    let (alice, bob) = (store.user("alice").await, store.user("bob").await);
    let mut ids = vec![];
    let mut tx = store.begin().await;
    for (number, (owner, name)) in
        [(alice.id, "Über"), (alice.id, "a_b"), (bob.id, "aXb"), (alice.id, "100%")]
            .into_iter()
            .enumerate()
    {
        let mut key = key(owner, name);
        key.id = ApiKeyId::new(at(i64::try_from(number).unwrap()));
        key.is_active = number != 1;
        key.prefix = format!("tg_P{number}Xyz");
        tx.api_keys().insert(&key, &secret()).await.unwrap();
        ids.push(key.id);
    }
    let all = KeyFilter::default();
    let search = |q: &str| KeyFilter { q: Some(q.to_owned()), ..KeyFilter::default() };
    for (filter, expected) in [
        (all.clone(), vec![3, 2, 1, 0]),
        (search("ÜBER"), vec![0]),
        (search("A_B"), vec![1]),
        (search("%"), vec![3]),
        (search("TG_p2x"), vec![2]),
        (KeyFilter { user_id: Some(alice.id), ..all.clone() }, vec![3, 1, 0]),
        (KeyFilter { user_id: Some(alice.id), is_active: Some(true), ..all.clone() }, vec![3, 0]),
        (KeyFilter { is_active: Some(false), ..search("b") }, vec![1]),
    ] {
        let page = tx.api_keys().list(&filter, PageRequest::FIRST).await.unwrap();
        let found: Vec<_> = page.items.iter().map(|key| key.id).collect();
        let expected: Vec<_> = expected.into_iter().map(|at: usize| ids[at]).collect();
        assert_eq!(found, expected, "{filter:?}");
    }

    let first = tx.api_keys().list(&all, PageRequest { limit: 3, after: None }).await.unwrap();
    assert_eq!(first.items.len(), 3);
    let rest = PageRequest { limit: 3, after: first.next };
    let rest = tx.api_keys().list(&all, rest).await.unwrap();
    assert_eq!((rest.items[0].id, rest.items.len(), rest.next), (ids[0], 1, None));
}
