//! Whatever is done to the tables behind the program's back is found, and the
//! first bad row named (RELIABILITY G-148).

use std::sync::Arc;

use serde_json::json;
use tollgate::{
    config::AuditConfig,
    domain::{
        audit::{Action, AuditRow, Event, GENESIS, SYSTEM},
        clock::SystemClock,
    },
    services::{
        AuditService, Sealer,
        audit::{
            Anchor, Fault,
            FaultKind::{
                self, Anchor as OtherRow, BehindHead, Changed, CutOff, Dropped, Forged, Head,
                Missing, UnknownKey, Unreadable,
            },
        },
    },
};

use super::assert_good;
use crate::support::TestDatabase;

pub(super) const KEY: &str = "a sealing key of Zebras, 0123456789!";
pub(super) const NEXT_KEY: &str = "the next key of Okapis, 0123456789!!";

/// A database with a log of ten rows, and nothing that protects it.
pub(super) struct Rig {
    pub(super) files: TestDatabase,
    pub(super) audit: AuditService,
}

pub(super) async fn service(files: &TestDatabase, key: &str, previous: &[&str]) -> AuditService {
    let previous: Vec<_> = previous.iter().map(|key| (*key).into()).collect();
    let sealer = Sealer::new(&key.into(), &previous);
    let config = AuditConfig { retention_days: 0 };
    AuditService::new(files.connect().await, Arc::new(SystemClock), &sealer, config)
}

pub(super) async fn note(audit: &AuditService, rows: std::ops::Range<i64>) {
    for n in rows {
        let event = Event::new(Action::KeyCreated, "key", n).after(json!({ "name": n }));
        audit.note(&SYSTEM, event).await.unwrap();
    }
}

impl Rig {
    pub(super) async fn start() -> Self {
        let files = TestDatabase::fresh().await;
        let audit = service(&files, KEY, &[]).await;
        note(&audit, 0..10).await;
        assert_good(&audit.verify(None).await.unwrap());
        Self { files, audit }
    }

    /// As the owner of the database can.
    pub(super) async fn without_triggers(&self) {
        let statements: &[&str] = match &self.files {
            TestDatabase::Postgres { .. } => &[
                "ALTER TABLE audit_log DISABLE TRIGGER USER",
                "ALTER TABLE audit_head DISABLE TRIGGER USER",
            ],
            TestDatabase::Sqlite(_) => &[
                "DROP TRIGGER audit_log_not_updated",
                "DROP TRIGGER audit_log_not_deleted",
                "DROP TRIGGER audit_log_not_replaced",
                "DROP TRIGGER audit_head_not_moved_back",
                "DROP TRIGGER audit_head_not_deleted",
                "DROP TRIGGER audit_head_not_dropped",
                "DROP TRIGGER audit_head_not_replaced",
            ],
        };
        for statement in statements {
            self.files.execute(*statement).await;
        }
    }

    pub(super) fn bytes(&self, hash: &[u8]) -> String {
        match &self.files {
            TestDatabase::Postgres { .. } => format!("'\\x{}'::bytea", hex::encode(hash)),
            TestDatabase::Sqlite(_) => format!("x'{}'", hex::encode(hash)),
        }
    }

    async fn row(&self, seq: i64) -> AuditRow {
        self.audit.after(seq - 1).await.unwrap().swap_remove(0)
    }

    pub(super) async fn fault(&self) -> Option<Fault> {
        self.audit.verify(None).await.unwrap().fault
    }
}

const COPY: &str = "at, actor_kind, actor_id, actor_name, address, user_agent, request_id, action, \
    target_kind, target_id, before_state, after_state, previous_hash, hash, key_id, seal";

#[tokio::test]
async fn every_kind_of_tampering_is_found_and_the_first_bad_row_is_named() {
    let insert = format!(
        "INSERT INTO audit_log (seq, {COPY}) SELECT 11, {COPY} FROM audit_log WHERE seq = 10"
    );
    let cut = "DELETE FROM audit_log WHERE seq > 7";
    let own = |column: &str, seq| format!("(SELECT {column} FROM audit_log WHERE seq = {seq})");
    let moved = format!(
        "UPDATE audit_head SET seq = 7, hash = {}, key_id = {}, seal = {}",
        own("hash", 7),
        own("key_id", 7),
        own("seal", 7)
    );
    let dropped = format!(
        "UPDATE audit_head SET dropped_seq = 3, dropped_hash = {}, dropped_key_id = {}, dropped_seal = {}",
        own("hash", 3),
        own("key_id", 3),
        own("seal", 3)
    );
    let other = |column: &str| {
        format!(
            "UPDATE audit_log SET {column} = (SELECT {column} FROM audit_log a WHERE a.seq = 9) WHERE seq = 6"
        )
    };
    let (hash, seal, previous) = (other("hash"), other("seal"), other("previous_hash"));
    let cases: &[(&[&str], i64, FaultKind)] = &[
        (&["UPDATE audit_log SET actor_name = 'mallory' WHERE seq = 3"], 3, Changed),
        (&["UPDATE audit_log SET after_state = '{\"name\":8}' WHERE seq = 10"], 10, Changed),
        (&["UPDATE audit_log SET after_state = NULL WHERE seq IN (9, 5)"], 5, Changed),
        (&["UPDATE audit_log SET address = '' WHERE seq = 1"], 1, Changed),
        (&[&hash], 6, Changed),
        (&[&previous], 6, Changed),
        (&[&seal], 6, Forged),
        (&["DELETE FROM audit_log WHERE seq = 4"], 4, Missing),
        (&["DELETE FROM audit_log WHERE seq = 1"], 1, Missing),
        (&["UPDATE audit_log SET seq = 1000 WHERE seq = 3"], 3, Missing),
        (
            &[
                "UPDATE audit_log SET seq = 1000 WHERE seq = 3",
                "UPDATE audit_log SET seq = 3 WHERE seq = 4",
                "UPDATE audit_log SET seq = 4 WHERE seq = 1000",
            ],
            3,
            Changed,
        ),
        (&[cut], 8, CutOff),
        (&["DELETE FROM audit_log"], 1, CutOff),
        (&[cut, &moved], 7, Head),
        (&[&moved], 8, BehindHead),
        (&[&insert], 11, BehindHead),
        (&[&dropped, "DELETE FROM audit_log WHERE seq <= 3"], 3, Dropped),
        (&["DELETE FROM audit_head"], 0, Head),
        (&["UPDATE audit_head SET key_id = 'another'"], 10, UnknownKey),
    ];
    for (statements, seq, kind) in cases {
        let rig = Rig::start().await;
        rig.without_triggers().await;
        for statement in *statements {
            rig.files.execute(*statement).await;
        }
        assert_eq!(rig.fault().await, Some(Fault { seq: *seq, kind: *kind }), "{statements:?}");
        let event = Event::of_all(Action::KeyCreated, "key");
        let noted = rig.audit.note(&SYSTEM, event).await;
        if *kind == Head && *seq == 0 {
            // The head is needed to go on, so a log without it takes no more.
            assert!(noted.is_err());
        } else {
            // What comes later makes nothing good.
            assert!(rig.fault().await.is_some(), "{statements:?}, and then a row of ours");
        }
    }
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_named() {
    let rig = Rig::start().await;
    rig.without_triggers().await;
    // Only SQLite stores what is no time.
    if matches!(rig.files, TestDatabase::Sqlite(_)) {
        rig.files.execute("UPDATE audit_log SET at = 'yesterday' WHERE seq = 6").await;
        assert_eq!(rig.fault().await, Some(Fault { seq: 6, kind: Unreadable }));
    }
}

/// Whoever writes the whole rest of the chain anew lacks the key.
#[tokio::test]
async fn a_chain_that_is_made_again_without_the_key_is_found() {
    let rig = Rig::start().await;
    rig.without_triggers().await;
    let mut previous = rig.row(4).await.hash;
    for seq in 5..=10 {
        let mut row = rig.row(seq).await;
        if seq == 5 {
            row.actor_name = "mallory".to_owned();
        }
        row.previous = previous;
        previous = row.own_hash();
        let (before, hash) = (rig.bytes(&row.previous), rig.bytes(&previous));
        let name = row.actor_name;
        rig.files
            .execute(format!(
                "UPDATE audit_log SET actor_name = '{name}', previous_hash = {before},
                 hash = {hash} WHERE seq = {seq}"
            ))
            .await;
    }
    rig.files.execute(format!("UPDATE audit_head SET hash = {}", rig.bytes(&previous))).await;
    assert_eq!(rig.fault().await, Some(Fault { seq: 5, kind: Forged }));

    // With keys that nobody knows: the head still shows it.
    rig.files.execute("UPDATE audit_log SET key_id = 'lost' WHERE seq >= 5").await;
    assert_eq!(rig.fault().await, Some(Fault { seq: 10, kind: Head }));
}

/// What only a note outside of the database shows.
#[tokio::test]
async fn a_log_that_was_put_back_as_a_whole_is_found_by_what_was_written_down() {
    let rig = Rig::start().await;
    let early = rig.audit.head().await.unwrap().unwrap();
    note(&rig.audit, 10..15).await;
    let noted = rig.audit.head().await.unwrap().unwrap();
    let anchor = Anchor { seq: noted.seq, hash: noted.hash };
    let verify = async |anchor| rig.audit.verify(Some(anchor)).await.unwrap().fault;
    assert_eq!(verify(anchor).await, None);
    let other = Anchor { hash: GENESIS, ..anchor };
    assert_eq!(verify(other).await, Some(Fault { seq: 15, kind: OtherRow }));
    let before = Anchor { seq: early.seq, hash: early.hash };
    assert_eq!(verify(before).await, None);

    rig.without_triggers().await;
    rig.files.execute("DELETE FROM audit_log WHERE seq > 10").await;
    let (hash, seal) = (rig.bytes(&early.hash), rig.bytes(&early.seal));
    let back = format!("UPDATE audit_head SET seq = 10, hash = {hash}, seal = {seal}");
    rig.files.execute(back).await;
    assert_eq!(rig.fault().await, None, "an older state of all of it is good by itself");
    assert_eq!(verify(anchor).await, Some(Fault { seq: 11, kind: CutOff }));
}

#[tokio::test]
async fn the_database_refuses_to_change_the_log() {
    let rig = Rig::start().await;
    let insert = |verb: &str, seq: i64| {
        format!(
            "{verb} INTO audit_log (seq, {COPY}) SELECT {seq}, {COPY} FROM audit_log WHERE seq = 9"
        )
    };
    let mut statements = vec![
        "UPDATE audit_log SET actor_name = 'mallory' WHERE seq = 3".to_owned(),
        "DELETE FROM audit_log WHERE seq = 10".to_owned(),
        "DELETE FROM audit_log".to_owned(),
        "DELETE FROM audit_head".to_owned(),
        "UPDATE audit_head SET seq = 7".to_owned(),
        // Marked as dropped without being any row's, or all of it.
        "UPDATE audit_head SET dropped_seq = 3".to_owned(),
        "UPDATE audit_head SET dropped_seq = seq, dropped_hash = hash".to_owned(),
        insert("INSERT", 3),
    ];
    match rig.files {
        TestDatabase::Postgres { .. } => statements.push("TRUNCATE audit_log".to_owned()),
        TestDatabase::Sqlite(_) => statements.push(insert("REPLACE", 3)),
    }
    for statement in statements {
        assert!(rig.files.try_execute(statement.clone()).await.is_err(), "{statement}");
    }
    assert_eq!(rig.fault().await, None);
}

#[tokio::test]
async fn the_log_outlives_its_keys() {
    let rig = Rig::start().await;
    let both = service(&rig.files, NEXT_KEY, &[KEY]).await;
    assert_good(&both.verify(None).await.unwrap());
    let only_new = service(&rig.files, NEXT_KEY, &[]).await;
    let fault = only_new.verify(None).await.unwrap().fault;
    assert_eq!(fault, Some(Fault { seq: 10, kind: UnknownKey }));

    // The seal of the head stands for every row before it.
    note(&both, 10..11).await;
    assert_good(&only_new.verify(None).await.unwrap());
    assert_eq!(only_new.verify(None).await.unwrap().rows, 11);
    rig.without_triggers().await;
    rig.files.execute("UPDATE audit_log SET actor_name = 'mallory' WHERE seq = 3").await;
    let fault = only_new.verify(None).await.unwrap().fault;
    assert_eq!(fault, Some(Fault { seq: 3, kind: Changed }));
}
