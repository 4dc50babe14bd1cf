use chrono::TimeDelta;
use tollgate::{
    domain::{
        id::{SessionId, UserId},
        login::SESSION_LIFE,
        page::PageRequest,
    },
    repositories::Repositories,
};

use super::{Store, at, refresh_token};
use crate::support::epoch;

#[tokio::test]
async fn what_is_written_is_what_is_read() {
    let store = Store::fresh().await;
    let alice = store.user("alice").await;
    let login = store.session(alice.id, at(1)).await;
    let mut session = store.db.session().await.unwrap();
    let found = session.login_sessions().find(login.id).await.unwrap();
    assert_eq!(found, Some(login));
    assert_eq!(session.login_sessions().find(SessionId::new(epoch())).await.unwrap(), None);
}

#[tokio::test]
async fn live_sessions_are_listed_newest_first() {
    let store = Store::fresh().await;
    let (alice, bob) = (store.user("alice").await, store.user("bob").await);
    let first = store.session(alice.id, at(1)).await;
    let second = store.session(alice.id, at(2)).await;
    let ended = store.session(alice.id, at(3)).await;
    store.session(bob.id, at(4)).await;
    let mut tx = store.begin().await;
    let mut sessions = tx.login_sessions();
    sessions.end_by_id(ended.id, at(5)).await.unwrap();
    let live = sessions.list_live(alice.id, at(6), PageRequest::FIRST).await.unwrap();
    assert_eq!(live.items, [second.clone(), first.clone()]);
    let mut page = PageRequest { limit: 1, after: None };
    for (session, more) in [(&second, true), (&first, false)] {
        let one = sessions.list_live(alice.id, at(6), page).await.unwrap();
        assert_eq!((&one.items[0], one.items.len(), one.next.is_some()), (session, 1, more));
        page.after = one.next;
    }
    // Dead at its expiry, not after it.
    let live = sessions.list_live(alice.id, first.expires_at, PageRequest::FIRST).await.unwrap();
    assert_eq!(live.items, [second]);
}

#[tokio::test]
async fn a_use_moves_the_time_and_keeps_the_address_unless_given() {
    let store = Store::fresh().await;
    let alice = store.user("alice").await;
    let login = store.session(alice.id, epoch()).await;
    let mut tx = store.begin().await;
    let mut sessions = tx.login_sessions();
    sessions.touch(login.id, at(5), None).await.unwrap();
    let found = sessions.find(login.id).await.unwrap().unwrap();
    assert_eq!((found.last_used_at, &found.address), (at(5), &login.address));
    assert_eq!(found.version, login.version);
    sessions.touch(login.id, at(6), Some("2001:db8::1")).await.unwrap();
    let found = sessions.find(login.id).await.unwrap().unwrap();
    assert_eq!(found.address.as_deref(), Some("2001:db8::1"));
}

#[tokio::test]
async fn a_session_ends_once_and_for_its_owner_only() {
    let store = Store::fresh().await;
    let (alice, bob) = (store.user("alice").await, store.user("bob").await);
    let login = store.session(alice.id, epoch()).await;
    let mut tx = store.begin().await;
    let mut sessions = tx.login_sessions();
    assert_eq!(sessions.end(login.id, bob.id, at(1)).await.unwrap(), None);
    assert_eq!(sessions.end(login.id, alice.id, at(2)).await.unwrap(), Some(2));
    assert_eq!(sessions.end(login.id, alice.id, at(3)).await.unwrap(), None);
    assert_eq!(sessions.end_by_id(login.id, at(3)).await.unwrap(), None);
    let found = sessions.find(login.id).await.unwrap().unwrap();
    assert_eq!((found.ended_at, found.version), (Some(at(2)), 2));
}

#[tokio::test]
async fn all_sessions_of_a_user_end_but_the_one_spared() {
    let store = Store::fresh().await;
    let (alice, bob) = (store.user("alice").await, store.user("bob").await);
    let one = store.session(alice.id, at(1)).await;
    let two = store.session(alice.id, at(2)).await;
    let three = store.session(alice.id, at(3)).await;
    let foreign = store.session(bob.id, at(4)).await;
    let mut tx = store.begin().await;
    let mut sessions = tx.login_sessions();
    let mut ended = sessions.end_all(alice.id, Some(two.id), at(5)).await.unwrap();
    ended.sort_unstable();
    assert_eq!(ended, [(one.id, 2), (three.id, 2)]);
    assert_eq!(sessions.end_all(alice.id, None, at(6)).await.unwrap(), [(two.id, 2)]);
    assert_eq!(sessions.end_all(alice.id, None, at(7)).await.unwrap(), []);
    let live = sessions.list_live(bob.id, at(7), PageRequest::FIRST).await.unwrap();
    assert_eq!(live.items, [foreign]);
}

#[tokio::test]
async fn the_oldest_live_sessions_give_way() {
    let store = Store::fresh().await;
    let alice = store.user("alice").await;
    let mut ids = vec![];
    for second in 0..5 {
        ids.push(store.session(alice.id, at(second)).await.id);
    }
    let mut tx = store.begin().await;
    let mut sessions = tx.login_sessions();
    sessions.end_by_id(ids[4], at(9)).await.unwrap();
    assert_eq!(sessions.end_oldest(alice.id, 4, at(10)).await.unwrap(), []);
    let mut ended = sessions.end_oldest(alice.id, 2, at(10)).await.unwrap();
    ended.sort_unstable();
    assert_eq!(ended, [(ids[0], 2), (ids[1], 2)]);
    assert_eq!(sessions.end_oldest(alice.id, 0, at(10)).await.unwrap().len(), 2);
    assert_eq!(sessions.end_oldest(UserId::new(epoch()), 0, at(10)).await.unwrap(), []);
}

#[tokio::test]
async fn a_login_from_an_address_is_remembered_by_name_and_mail() {
    let store = Store::fresh().await;
    let alice = store.user("Alice").await;
    store.user("bob").await;
    store.session(alice.id, at(10)).await;
    let mut session = store.db.session().await.unwrap();
    let mut sessions = session.login_sessions();
    for (login, address, since, known) in [
        ("alice", "192.0.2.1", at(9), true),
        ("alice@example.com", "192.0.2.1", at(9), true),
        ("alice", "192.0.2.1", at(10), false),
        ("alice", "192.0.2.2", at(9), false),
        ("bob", "192.0.2.1", at(9), false),
        ("nobody", "192.0.2.1", at(9), false),
    ] {
        let found = sessions.has_login_from(login, address, since).await.unwrap();
        assert_eq!(found, known, "{login} {address} {since}");
    }
}

#[tokio::test]
async fn what_ended_long_ago_is_removed_with_its_tokens() {
    let store = Store::fresh().await;
    let alice = store.user("alice").await;
    let expired = store.session(alice.id, epoch()).await;
    let ended = store.session(alice.id, at(100)).await;
    let live = store.session(alice.id, at(100)).await;
    let token = refresh_token(ended.id);
    let mut tx = store.begin().await;
    tx.refresh_tokens().insert(&token).await.unwrap();
    tx.login_sessions().end_by_id(ended.id, at(101)).await.unwrap();

    let past = epoch() + SESSION_LIFE;
    assert_eq!(tx.login_sessions().delete_ended_before(at(101)).await.unwrap(), 0);
    let removed = tx.login_sessions().delete_ended_before(past + TimeDelta::seconds(1)).await;
    assert_eq!(removed.unwrap(), 2);
    for (id, kept) in [(expired.id, false), (ended.id, false), (live.id, true)] {
        assert_eq!(tx.login_sessions().find(id).await.unwrap().is_some(), kept);
    }
    assert!(tx.refresh_tokens().find(token.id).await.unwrap().is_none());
}
