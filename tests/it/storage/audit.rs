//! The chain's ends move with it, under a lock.

use std::time::Duration;

use tollgate::{
    domain::{
        audit::{Action, AuditRow, Event, GENESIS, SYSTEM, Unplaced},
        page::PageRequest,
    },
    repositories::{AuditFilter, End, Ends, Repositories as _},
};

use super::{Store, at};

fn row(after: &Ends) -> AuditRow {
    let event = Event::new(Action::KeyCreated, "key", 1);
    let mut row = Unplaced::new(&SYSTEM, event, at(0)).placed(after.head.seq, after.head.hash);
    "key".clone_into(&mut row.key);
    row
}

async fn append(store: &Store) -> AuditRow {
    let mut tx = store.begin().await;
    let ends = tx.audit().lock_ends().await.unwrap();
    let row = row(&ends);
    tx.audit().append(&row, &[7; 32]).await.unwrap();
    tx.commit().await.unwrap();
    row
}

#[tokio::test]
async fn what_is_appended_is_read_as_it_was_and_is_the_head() {
    let store = Store::fresh().await;
    let first = append(&store).await;
    let second = append(&store).await;
    assert_eq!((first.seq, first.previous, second.previous), (1, GENESIS, first.hash));
    let mut session = store.db.session().await.unwrap();
    let ends = session.audit().ends().await.unwrap().unwrap();
    let head = End { seq: 2, hash: second.hash, key: "key".to_owned(), seal: vec![7; 32] };
    assert_eq!((ends.head, ends.dropped.seq), (head, 0));
    assert_eq!(session.audit().after(0, 9).await.unwrap(), [first.clone(), second.clone()]);
    assert_eq!(session.audit().after(1, 9).await.unwrap(), std::slice::from_ref(&second));
    assert_eq!(session.audit().after(0, 1).await.unwrap(), std::slice::from_ref(&first));
    let page = PageRequest { limit: 1, after: None };
    let listed = session.audit().list(&AuditFilter::default(), page).await.unwrap();
    assert_eq!(listed.items, [second]);
    let next = page.followed_by(listed.next).unwrap();
    let listed = session.audit().list(&AuditFilter::default(), next).await.unwrap();
    assert_eq!((listed.items, listed.next), (vec![first], None));
}

#[tokio::test]
async fn a_row_that_does_not_follow_the_head_is_refused() {
    let store = Store::fresh().await;
    append(&store).await;
    let mut tx = store.begin().await;
    let ends = tx.audit().lock_ends().await.unwrap();
    let mut gap = row(&ends);
    gap.seq += 1;
    assert!(tx.audit().append(&gap, &[7; 32]).await.is_err());
    drop(tx);
    let ends = store.db.session().await.unwrap().audit().ends().await.unwrap().unwrap();
    assert_eq!(ends.head.seq, 1);
}

#[tokio::test]
async fn whoever_locks_the_ends_makes_others_wait() {
    let store = Store::fresh().await;
    let mut first = store.begin().await;
    let ends = first.audit().lock_ends().await.unwrap();
    let second = async { append(&store).await };
    tokio::pin!(second);
    let waited = tokio::time::timeout(Duration::from_millis(100), &mut second).await;
    assert!(waited.is_err(), "it did not wait");
    first.audit().append(&row(&ends), &[7; 32]).await.unwrap();
    first.commit().await.unwrap();
    assert_eq!(second.await.seq, 2);
}

#[tokio::test]
async fn rows_are_dropped_with_their_mark_alone() {
    let store = Store::fresh().await;
    let first = append(&store).await;
    let second = append(&store).await;
    let mut tx = store.begin().await;
    tx.audit().lock_ends().await.unwrap();
    let mut end = End { seq: 1, hash: first.hash, key: "key".to_owned(), seal: vec![8; 32] };
    tx.audit().drop_through(&end).await.unwrap();
    tx.commit().await.unwrap();
    let mut session = store.db.session().await.unwrap();
    assert_eq!(session.audit().ends().await.unwrap().unwrap().dropped, end);
    assert_eq!(session.audit().after(0, 9).await.unwrap(), [second]);
    drop(session);

    "other".clone_into(&mut end.key);
    let mut tx = store.begin().await;
    tx.audit().mark_dropped(&end).await.unwrap();
    assert_eq!(tx.audit().ends().await.unwrap().unwrap().dropped, end);
}
