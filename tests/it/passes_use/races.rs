//! A copy that is being filled loses against a change (RELIABILITY G-86).

use futures_util::future::join_all;

use super::{Given, HELLO, give, id_of};
use crate::support::{TestApp, UNLIMITED};

/// Uses and looks at a pass from all sides while it is ended; then nobody who
/// asks the instance that ended it is let in.
async fn race(apps: &[TestApp], pass: &Given) {
    let uses = (0..12).map(|n| {
        let client = pass.bearer(&apps[n % apps.len()]);
        tokio::spawn(async move {
            for _ in 0..3 {
                let status = client.get(HELLO).await.status.as_u16();
                assert!([200, 401].contains(&status), "{status}");
                client.get(super::STATUS).await.expect(200);
            }
        })
    });
    let uses: Vec<_> = uses.collect();
    tokio::task::yield_now().await;
    pass.revoke(&apps[0]).await;
    let after = (0..6).map(|_| {
        let client = pass.bearer(&apps[0]);
        tokio::spawn(async move {
            client.get(HELLO).await.expect_problem(401, "invalid_credential");
        })
    });
    for task in join_all(after).await.into_iter().chain(join_all(uses).await) {
        task.unwrap();
    }
    let status = pass.status(&apps[0]).await;
    assert_eq!(status.text("status"), "revoked");
    pass.bearer(&apps[0]).get(HELLO).await.expect_problem(401, "invalid_credential");
}

async fn rounds(apps: &[TestApp], rounds: usize) {
    let owner = id_of(&apps[0].user("ada").await).await;
    for round in 0..rounds {
        let pass = give(&apps[0], owner, 1).await;
        // Raced with its first use, and with later ones.
        if round % 2 == 1 {
            pass.bearer(&apps[round % apps.len()]).get(HELLO).await.expect(200);
        }
        race(apps, &pass).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_was_being_read_does_not_outlive_the_pass() {
    let app = TestApp::configured(UNLIMITED).await;
    rounds(std::slice::from_ref(&app), 60).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_does_the_copy_of_another_instance() {
    let Some(apps) = TestApp::instances(3, &UNLIMITED).await else { return };
    rounds(&apps, 60).await;
}
