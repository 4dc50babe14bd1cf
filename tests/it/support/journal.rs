//! A journal of usage that is full.

use tollgate::domain::{
    id::{LogPlace, RecordId},
    usage::{Outcome, UsageRecord},
};

use super::TestApp;

/// A setting with which little is much.
pub const SMALLEST_JOURNAL: (&str, &str) = ("USAGE_JOURNAL_MAX_BYTES", "1048576");

/// Records as much as the smallest journal holds, of nobody's requests.
pub async fn fill_the_journal(app: &TestApp) {
    let usage = &app.app.services.usage;
    let at = app.app.services.clock.now();
    while usage.journal().waiting() < 1 << 20 {
        usage.record_unreserved(UsageRecord {
            id: RecordId::new(at),
            request_id: "r".repeat(64),
            at,
            method: "GET".into(),
            path: "/".repeat(500),
            status: 200,
            outcome: Outcome::Completed,
            duration_us: 1,
            bytes_in: 0,
            bytes_out: 0,
            user_id: None,
            key_id: None,
            pass_id: None,
            upstream: "echo".into(),
            route: "/**".into(),
            is_stream: false,
            messages: 0,
            place: LogPlace::NIL,
        });
    }
    let journal = usage.journal().clone();
    tokio::task::spawn_blocking(move || journal.look_for_room()).await.unwrap();
    assert!(usage.journal().is_full());
}
