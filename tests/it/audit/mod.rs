//! Who did what, all of it, and the proof that none of it was changed
//! (RELIABILITY G-147 to G-149).

mod anchors;
mod chain;
mod concurrent;
mod cost;
mod events;
mod retention;
mod routes;
mod search;

use tollgate::{
    domain::audit::AuditRow,
    services::{Services, audit::Verified},
};

/// All rows in their order.
async fn rows(services: &Services) -> Vec<AuditRow> {
    let mut all = vec![];
    loop {
        let seq = all.last().map_or(0, |row: &AuditRow| row.seq);
        let some = services.audit.after(seq).await.unwrap();
        if some.is_empty() {
            return all;
        }
        all.extend(some);
    }
}

/// How many rows there were so far.
async fn count(services: &Services) -> i64 {
    services.audit.head().await.unwrap().unwrap().seq
}

/// That the whole log is as it was written.
#[track_caller]
fn assert_good(verified: &Verified) {
    assert_eq!(verified.fault, None, "{verified:?}");
}
