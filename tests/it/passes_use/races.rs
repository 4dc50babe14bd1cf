//! A copy that is being filled loses against a change (RELIABILITY G-86).

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use super::{Given, HELLO, STATUS, give, id_of};
use crate::support::{
    LATE, Options, TestApp, TestDatabase, UNLIMITED,
    fault::{Faults, Proxy, Way},
    redis::shared_url,
};

/// Uses and looks at a pass from all sides while it is ended; then nobody who
/// asks the instance that ended it is let in.
async fn race(apps: &[TestApp], pass: &Given) {
    let uses = (0..12).map(|n| {
        let client = pass.bearer(&apps[n % apps.len()]);
        tokio::spawn(async move {
            for _ in 0..3 {
                let status = client.get(HELLO).await.status.as_u16();
                assert!([200, 401].contains(&status), "{status}");
                client.get(STATUS).await.expect(200);
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

/// How late a row arrives that the other instance reads.
const LAG: Duration = Duration::from_millis(250);

/// An instance on the same Postgres, behind a line that answers late when it is
/// told to.
async fn far_from(app: &TestApp) -> Option<(TestApp, Proxy)> {
    let TestDatabase::Postgres { server, name } = &*app.database else { return None };
    let (_, rest) = server.split_once("//")?;
    let host = rest.split(['/', '?']).next()?.rsplit('@').next()?;
    let proxy = Proxy::start(host.to_owned()).await;
    let server = server.replacen(host, &proxy.address().to_string(), 1);
    let database = TestDatabase::Postgres { server, name: name.clone() };
    let settings = UNLIMITED.map(|(name, value)| (name, value.to_owned())).to_vec();
    let database = Some(Arc::new(database));
    let far = TestApp::with(Options { database, settings, ..Options::default() }).await;
    Some((far, proxy))
}

/// A row is read, revoked by another instance, and arrives: wherever between the
/// question and its answer the word of the revocation falls, the copy is not
/// kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_was_on_its_way_when_the_pass_was_revoked_is_not_kept() {
    let Some(redis) = shared_url() else { return };
    let near = TestApp::configured(UNLIMITED).await;
    let Some((far, proxy)) = far_from(&near).await else { return };
    let owner = id_of(&near.user("ada").await).await;
    let client = redis::Client::open(redis).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut passes = vec![];
    for _ in 0..12 {
        let pass = give(&near, owner, 1).await;
        pass.bearer(&near).get(HELLO).await.expect(200);
        // What Redis has would spare it the way to the database.
        let name = format!("active_token:{}", pass.hash());
        redis::cmd("DEL").arg(name).exec_async(&mut connection).await.unwrap();
        passes.push(pass);
    }
    // The account is known there.
    give(&near, owner, 1).await.status(&far).await;
    // Connections are made before the line is slow, so that what comes late is
    // rows.
    drop(join_all((0..10).map(|_| far.app.db.session())).await);
    proxy.set(Faults { to_client: Way { latency: LAG, ..Way::default() }, ..Faults::default() });
    let rounds = passes.iter().zip(0..).map(|(pass, n)| {
        let (near, far) = (&near, &far);
        async move {
            let first = pass.bearer(far);
            let first = tokio::spawn(async move { first.get(HELLO).await.status.as_u16() });
            sleep(LAG / 2 * n).await;
            pass.revoke(near).await;
            let revoked = Instant::now();
            let first = first.await.unwrap();
            // The word may need a moment, and a look at the database three.
            let mut last = revoked;
            while last.elapsed() < Duration::from_millis(1500) {
                let sent = Instant::now();
                if pass.bearer(far).get(HELLO).await.status == 200 {
                    last = sent;
                }
                assert!(last < revoked + Duration::from_secs(1) + LATE, "accepted for a second");
                sleep(Duration::from_millis(10)).await;
            }
            first
        }
    });
    let first = join_all(rounds).await;
    assert!(first.contains(&200), "never read before it was revoked: {first:?}");
    assert!(proxy.fired().delayed > 0);
}
