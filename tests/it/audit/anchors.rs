//! What stands outside of the database, and how it goes on after a key was lost.

use tollgate::{
    domain::audit::SYSTEM,
    services::audit::{
        Anchor, Fault,
        FaultKind::{Changed, CutOff, UnknownKey},
        ReAnchorError,
    },
};

use super::{
    assert_good,
    chain::{KEY, NEXT_KEY, Rig, note, service},
    rows,
};
use crate::support::{Options, TestApp, TestDatabase};

/// As if nothing had ever been written.
async fn empty(files: &TestDatabase) {
    let none = match files {
        TestDatabase::Postgres { .. } => "decode(repeat('00', 32), 'hex')",
        TestDatabase::Sqlite(_) => "zeroblob(32)",
    };
    files.execute("DELETE FROM audit_log").await;
    files.execute(format!("UPDATE audit_head SET seq = 0, hash = {none}")).await;
}

#[tokio::test]
async fn a_log_that_was_emptied_with_its_head_is_found_by_the_accounts_that_are_left() {
    let rig = Rig::start().await;
    rig.without_triggers().await;
    empty(&rig.files).await;
    assert_eq!(rig.fault().await, None, "a database without accounts may have no rows");

    let database = std::sync::Arc::new(rig.files);
    let app =
        TestApp::with(Options { database: Some(database.clone()), ..Options::default() }).await;
    let audit = &app.app.services.audit;
    assert_good(&audit.verify(None).await.unwrap());
    empty(&database).await;
    let fault = audit.verify(None).await.unwrap().fault;
    assert_eq!(fault, Some(Fault { seq: 1, kind: CutOff }));
    // As at the next start.
    audit.begin().await.unwrap();
    assert_eq!(rows(&app.app.services).await[0].action, "audit.begun");
}

#[tokio::test]
async fn an_instance_remembers_the_last_row_and_keeps_to_it() {
    let (rig, folder) = (Rig::start().await, tempfile::tempdir().unwrap());
    let kept = async || Anchor::kept(folder.path()).await.unwrap();
    assert_eq!(kept().await, None);
    rig.audit.keep_anchor(folder.path()).await.unwrap();
    let early = rig.audit.head().await.unwrap().unwrap();
    assert_eq!(kept().await, Some(Anchor { seq: 10, hash: early.hash }));
    note(&rig.audit, 10..15).await;
    rig.audit.keep_anchor(folder.path()).await.unwrap();
    let late = kept().await.unwrap();
    assert_eq!(late.seq, 15);
    assert_good(&rig.audit.verify(Some(late)).await.unwrap());

    // Put back as a whole, then emptied: what is left is good by itself.
    rig.without_triggers().await;
    rig.files.execute("DELETE FROM audit_log WHERE seq > 10").await;
    let (hash, seal) = (rig.bytes(&early.hash), rig.bytes(&early.seal));
    let back = format!("UPDATE audit_head SET seq = 10, hash = {hash}, seal = {seal}");
    rig.files.execute(back).await;
    for seq in [11, 1] {
        assert_eq!(rig.fault().await, None);
        rig.audit.keep_anchor(folder.path()).await.unwrap();
        assert_eq!(kept().await, Some(late), "the memory of it was replaced");
        let fault = rig.audit.verify(kept().await).await.unwrap().fault;
        assert_eq!(fault, Some(Fault { seq, kind: CutOff }));
        empty(&rig.files).await;
    }
    // On purpose: whoever put it back says so.
    note(&rig.audit, 0..1).await;
    rig.audit.re_anchor(&SYSTEM, "restored").await.unwrap();
    rig.audit.replace_anchor(folder.path()).await.unwrap();
    assert_eq!(kept().await.unwrap().seq, 2);
}

#[tokio::test]
async fn after_a_lost_key_an_operator_can_go_on_and_the_log_tells_of_it() {
    let rig = Rig::start().await;
    let lost = service(&rig.files, NEXT_KEY, &[]).await;
    note(&lost, 10..12).await;
    let verify = async || lost.verify(None).await.unwrap();
    assert!(verify().await.fault.is_some(), "nobody knows the head that it follows");
    lost.re_anchor(&SYSTEM, "the machine burnt").await.unwrap();
    assert_good(&verify().await);
    assert_eq!(verify().await.rows, 13);
    let told = lost.after(12).await.unwrap().remove(0);
    assert_eq!(told.action, "audit.re_anchored");
    assert!(told.after.unwrap().contains("the machine burnt"));
    note(&lost, 12..14).await;
    assert_good(&verify().await);

    rig.without_triggers().await;
    rig.files.execute("UPDATE audit_log SET actor_name = 'mallory' WHERE seq = 4").await;
    let broken = Fault { seq: 4, kind: Changed };
    let refused = lost.re_anchor(&SYSTEM, "hide it").await;
    assert!(matches!(refused, Err(ReAnchorError::Broken(fault)) if fault == broken), "{refused:?}");
    assert_eq!(verify().await.fault, Some(broken));
    let other = service(&rig.files, KEY, &[]).await.verify(None).await.unwrap().fault;
    assert!(other.is_some_and(|fault| fault == broken || fault.kind == UnknownKey));
}

/// What a name means is not for whoever deletes to say.
#[tokio::test]
async fn another_table_of_the_same_name_opens_nothing() {
    let rig = Rig::start().await;
    if let TestDatabase::Postgres { .. } = rig.files {
        let trick = "CREATE TEMP TABLE audit_head (id bigint, dropped_seq bigint);
            INSERT INTO audit_head VALUES (1, 1000);
            DELETE FROM audit_log WHERE seq < 5";
        assert!(rig.files.try_execute(trick).await.is_err());
    }
    assert_eq!(rig.fault().await, None);
    assert_eq!(rig.audit.after(0).await.unwrap().len(), 10);
}
