//! What a pass costs once everything is in memory.

use super::{HELLO, STATUS, pass_of};
use crate::support::{TestApp, UNLIMITED};

#[tokio::test]
async fn a_warm_pass_needs_no_database() {
    let (app, _clock) = TestApp::in_memory([
        ("RATE_LIMIT_USER_PER_MINUTE", "100000"),
        ("RATE_LIMIT_USER_PER_HOUR", "100000"),
        ("RATE_LIMIT_TOKEN_PER_MINUTE", "100000"),
        ("RATE_LIMIT_TOKEN_PER_HOUR", "100000"),
        ("RATE_LIMIT_PER_MINUTE", "100000"),
        ("RATE_LIMIT_PER_HOUR", "100000"),
    ])
    .await;
    let pass = pass_of(&app, "ada").await;
    let client = pass.bearer(&app);
    client.get(HELLO).await.expect(200);
    let before = app.app.db.acquired();
    for _ in 0..500 {
        client.get(HELLO).await.expect(200);
        client.get(STATUS).await.expect(200);
    }
    assert_eq!(app.app.db.acquired(), before, "warm from its first use on");
}

/// A pass that is looked at but not used is looked at in memory.
#[tokio::test]
async fn the_status_of_an_unused_pass_needs_no_database_when_warm() {
    let [minute, hour] = UNLIMITED;
    let (app, _clock) = TestApp::in_memory([minute, hour]).await;
    let pass = pass_of(&app, "ada").await;
    pass.status(&app).await;
    let before = app.app.db.acquired();
    for _ in 0..100 {
        pass.status(&app).await;
    }
    assert_eq!(app.app.db.acquired(), before);
}
