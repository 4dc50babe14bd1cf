//! Old rows go, and what is left is still proven.

use std::sync::Arc;

use chrono::TimeDelta;
use tollgate::{
    config::AuditConfig,
    domain::{
        audit::{Action, Event, SYSTEM},
        clock::FakeClock,
    },
    services::{
        AuditService, Sealer,
        audit::{
            Anchor, Fault,
            FaultKind::{AnchorDropped, Changed, UnknownKey},
        },
    },
};

use super::{assert_good, rows};
use crate::support::{Options, TestApp, TestDatabase, epoch};

const KEY: &str = "a sealing key of Zebras: 0123456789!";
const NEXT_KEY: &str = "the next key of Okapis: 0123456789!!";

struct Rig {
    files: TestDatabase,
    clock: Arc<FakeClock>,
    audit: AuditService,
}

impl Rig {
    async fn keeping(retention_days: u32) -> Self {
        let files = TestDatabase::fresh().await;
        let clock = FakeClock::starting_at(epoch());
        let sealer = Sealer::new(&KEY.into(), &[]);
        let config = AuditConfig { retention_days };
        let db = files.connect().await;
        Self { audit: AuditService::new(db, clock.clone(), &sealer, config), files, clock }
    }

    async fn note(&self, rows: usize) {
        for n in 0..rows {
            let event = Event::new(Action::KeyCreated, "key", n);
            self.audit.note(&SYSTEM, event).await.unwrap();
        }
    }

    async fn numbers(&self) -> Vec<i64> {
        self.audit.after(0).await.unwrap().iter().map(|row| row.seq).collect()
    }
}

#[tokio::test]
async fn old_rows_are_dropped_from_the_front_and_the_rest_stays_proven() {
    let rig = Rig::keeping(2).await;
    rig.note(3).await;
    let early = rig.audit.head().await.unwrap().unwrap();
    rig.audit.prune().await.unwrap();
    assert_eq!(rig.numbers().await, [1, 2, 3], "too young");
    rig.clock.advance(TimeDelta::days(1));
    rig.note(3).await;
    rig.clock.advance(TimeDelta::hours(25));
    rig.audit.prune().await.unwrap();
    assert_eq!(rig.numbers().await, [4, 5, 6, 7], "the last tells of it");
    let told = rig.audit.after(6).await.unwrap().remove(0);
    assert_eq!((&*told.action, told.after.as_deref()), ("audit.pruned", Some(r#"{"rows":3}"#)));
    let verified = rig.audit.verify(None).await.unwrap();
    assert_good(&verified);
    assert_eq!((verified.rows, verified.dropped, verified.last), (4, 3, 7));
    let anchor = Anchor { seq: early.seq, hash: early.hash };
    assert_good(&rig.audit.verify(Some(anchor)).await.unwrap());
    let gone = Anchor { seq: 2, hash: early.hash };
    let fault = rig.audit.verify(Some(gone)).await.unwrap().fault;
    assert_eq!(fault, Some(Fault { seq: 2, kind: AnchorDropped }));

    // Once a day at most, or telling of it would go on for ever.
    rig.clock.advance(TimeDelta::hours(23));
    rig.audit.prune().await.unwrap();
    assert_eq!(rig.numbers().await, [4, 5, 6, 7]);
    // More than are dropped at once, and none is left.
    rig.note(1200).await;
    rig.clock.advance(TimeDelta::days(9));
    rig.audit.prune().await.unwrap();
    // Each transaction tells of what it dropped.
    assert_eq!(rig.numbers().await, [1208, 1209, 1210]);
    assert_good(&rig.audit.verify(None).await.unwrap());
}

#[tokio::test]
async fn nothing_is_dropped_where_rows_are_kept_for_ever() {
    let rig = Rig::keeping(0).await;
    rig.note(2).await;
    rig.clock.advance(TimeDelta::days(20_000));
    rig.audit.prune().await.unwrap();
    assert_eq!(rig.numbers().await, [1, 2]);
}

/// Or time would wash away what was done to them.
#[tokio::test]
async fn rows_that_were_tampered_with_are_not_dropped() {
    let rig = Rig::keeping(2).await;
    rig.note(5).await;
    let allow = match rig.files {
        TestDatabase::Postgres { .. } => "ALTER TABLE audit_log DISABLE TRIGGER USER",
        TestDatabase::Sqlite(_) => "DROP TRIGGER audit_log_not_updated",
    };
    rig.files.execute(allow).await;
    rig.files.execute("UPDATE audit_log SET actor_name = 'mallory' WHERE seq = 4").await;
    rig.clock.advance(TimeDelta::days(9));
    rig.audit.prune().await.unwrap();
    assert_eq!(rig.numbers().await, [1, 2, 3, 4, 5]);
    let fault = rig.audit.verify(None).await.unwrap().fault;
    assert_eq!(fault, Some(Fault { seq: 4, kind: Changed }));
}

#[tokio::test]
async fn what_was_dropped_is_sealed_again_when_the_key_is_changed() {
    let rig = Rig::keeping(2).await;
    rig.note(3).await;
    rig.clock.advance(TimeDelta::days(9));
    rig.audit.prune().await.unwrap();
    let database = Arc::new(rig.files);
    let app = async |key: &str, previous: &str| {
        let mut settings = vec![("SECRETS_KEY", key.to_owned())];
        if !previous.is_empty() {
            settings.push(("SECRETS_PREVIOUS_KEYS", previous.to_owned()));
        }
        let database = Some(database.clone());
        TestApp::with(Options { database, settings, ..Options::default() }).await
    };
    // The first admin is made with it, which seals the head.
    let both = app(NEXT_KEY, KEY).await;
    let only_new = app(NEXT_KEY, "").await;
    let verify = async || only_new.app.services.audit.verify(None).await.unwrap();
    assert_eq!(verify().await.fault, Some(Fault { seq: 3, kind: UnknownKey }));
    both.app.services.passes.reseal(&SYSTEM).await.unwrap();
    assert_good(&verify().await);
    assert_eq!(rows(&both.app.services).await.last().unwrap().action, "secrets.rotated");
}
