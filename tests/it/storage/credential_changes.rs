//! What the triggers write, and who hears of it.

use tollgate::{
    domain::{
        change::{CredentialChange, Subject},
        clock::{Clock as _, SystemClock},
    },
    repositories::Repositories as _,
};

use super::{Store, at};
use crate::support::TestDatabase;

impl Store {
    /// What changed since `position`, and from where to ask next.
    async fn changes(&self, position: i64) -> (i64, Vec<(Subject, i64)>) {
        let mut session = self.db.background().await.unwrap();
        let told = session.credential_changes().since(Some(position)).await.unwrap();
        let mut changes = told.changes.unwrap();
        changes.sort_by_key(|change| change.id);
        let now = SystemClock.now().timestamp_micros();
        for change in &changes {
            assert!((told.now_us - now).abs() < 60_000_000, "{} is not now", told.now_us);
            assert!((0..60_000_000).contains(&(told.now_us - change.changed_us)), "{change:?}");
        }
        let plain = |change: CredentialChange| (change.subject, change.version);
        (told.position, changes.into_iter().map(plain).collect())
    }

    async fn position(&self) -> i64 {
        let mut session = self.db.background().await.unwrap();
        let told = session.credential_changes().since(None).await.unwrap();
        assert_eq!(told.changes, Some(vec![]));
        told.position
    }
}

#[tokio::test]
async fn every_new_version_is_told_once_it_is_committed() {
    let store = Store::fresh().await;
    let start = store.position().await;
    let user = store.user("ada").await;
    let session = store.session(user.id, at(0)).await;
    let (key, hash) = store.key(user.id, "k").await;
    assert_eq!(store.changes(start).await.1, [], "nothing was there before");

    for (change, subject) in [
        ("UPDATE users SET version = version + 1", Subject::Account(user.id)),
        ("UPDATE login_sessions SET version = version + 1", Subject::Session(session.id)),
        ("UPDATE api_keys SET version = version + 1", Subject::Key(hash)),
    ] {
        let before = store.position().await;
        store.files.execute(change).await;
        let (after, changes) = store.changes(before).await;
        assert_eq!(changes, [(subject, 2)], "{change}");
        assert_eq!(store.changes(after).await.1, [], "{change}: told once");
    }
    // What is no version is nothing to tell.
    let before = store.position().await;
    store.files.execute("UPDATE api_keys SET last_used_at = created_at").await;
    assert_eq!(store.changes(before).await.1, []);

    let mut tx = store.begin().await;
    tx.users().delete(user.id).await.unwrap();
    let (_, uncommitted) = store.changes(before).await;
    assert_eq!(uncommitted, [], "before the commit");
    tx.commit().await.unwrap();
    let (_, changes) = store.changes(before).await;
    let told = |subject: &Subject| changes.iter().find(|(of, _)| of == subject).map(|(_, v)| *v);
    assert_eq!(told(&Subject::Account(user.id)), Some(3));
    assert_eq!(told(&Subject::Session(session.id)), Some(3));
    assert_eq!(told(&Subject::Key(hash)), Some(i64::MAX), "{}", key.id);
    assert_eq!(changes.len(), 3, "{changes:?}");
}

/// The ids of what is written first may appear last.
#[tokio::test]
async fn what_is_committed_late_is_not_left_out() {
    let store = Store::fresh().await;
    if matches!(store.files, TestDatabase::Sqlite(_)) {
        // Nothing overlaps there.
        return;
    }
    let (slow, quick) = (store.user("slow").await, store.user("quick").await);
    let start = store.position().await;
    let mut late = store.begin().await;
    late.users().set_active(slow.id, false, at(1)).await.unwrap();
    let mut early = store.begin().await;
    early.users().set_active(quick.id, false, at(1)).await.unwrap();
    early.commit().await.unwrap();
    let (position, changes) = store.changes(start).await;
    assert_eq!(changes, [(Subject::Account(quick.id), 2)]);
    late.commit().await.unwrap();
    let (position, changes) = store.changes(position).await;
    assert!(changes.contains(&(Subject::Account(slow.id), 2)), "{changes:?}");
    assert_eq!(store.changes(position).await.1, []);
}

#[tokio::test]
async fn probes_are_told_and_what_is_old_is_forgotten() {
    let store = Store::fresh().await;
    let start = store.position().await;
    for _ in 0..2 {
        let mut tx = store.begin().await;
        tx.credential_changes().probe().await.unwrap();
        tx.commit().await.unwrap();
    }
    assert_eq!(store.changes(start).await.1, [(Subject::Probe, 0), (Subject::Probe, 0)]);
    let mut tx = store.begin().await;
    let now_us = tx.credential_changes().since(None).await.unwrap().now_us;
    assert_eq!(tx.credential_changes().prune(now_us - 60_000_000).await.unwrap(), 0);
    assert_eq!(tx.credential_changes().prune(now_us + 1_000_000).await.unwrap(), 2);
    tx.commit().await.unwrap();
    let (position, changes) = store.changes(start).await;
    assert_eq!(changes, []);
    assert!(position >= start, "it does not begin anew");
}
