//! A socket ends with the credential that opened it, and no other does
//! (RELIABILITY G-126).

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use serde_json::json;
use tollgate::domain::clock::{Clock as _, FakeClock, SystemClock};

use super::{MANY, PATH, app, app_with};
use crate::{
    browser::signed_in,
    gateway::recorded,
    streams::{
        FREE, SOON, address,
        ends::{SETTINGS, WAYS, holder, settings},
        listed, own_sockets, put_in_front,
    },
    support::{
        Options, TestApp, epoch,
        websocket::{Upstream, Wire},
    },
};

/// The change is made at the first of these; sockets are open at all.
async fn every_way_ends_its_own(apps: &[TestApp]) {
    let upstream = Upstream::start().await;
    for app in apps {
        put_in_front(app, &upstream.url(), &format!("{MANY}\n{SETTINGS}"));
    }
    let admin = apps[0].admin().await;
    let bystander = holder(&apps[0], &admin, "bystander").await;
    let mut others = vec![];
    for app in apps {
        for (_, field) in &bystander.fields {
            let field = format!("{field}\r\n");
            others.push(Wire::open(address(app), "/up/mod", &field).await);
        }
    }
    for (n, (way, kind, reason)) in WAYS.into_iter().enumerate() {
        let holder = holder(&apps[0], &admin, &format!("user{n}")).await;
        let mut open = vec![];
        for app in apps {
            let field = format!("{}\r\n", holder.field(kind));
            open.push(Wire::open(address(app), "/up/mod", &field).await);
        }
        upstream.closes();
        holder.take(&admin, way, apps.len()).await;
        let taken = Instant::now();
        for (at, mut wire) in open.into_iter().enumerate() {
            let what = format!("{way}: {kind} at {at}");
            let told = wire.closed().await;
            let after = taken.elapsed();
            println!("{what}: {} ms", after.as_millis());
            assert_eq!(told, (1008, reason.to_owned()), "{what}");
            // What has an end of its own is told beforehand.
            let own = if way == "grace ends" { SOON } else { Duration::ZERO };
            assert!(after < SOON + own, "{what}: {after:?}");
            wire.rest().await;
        }
        upstream.until_open(others.len()).await;
        assert_eq!(upstream.closes(), vec![1001; apps.len()], "{way}: {kind}");
    }
    for mut wire in others {
        wire.echoes("still").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_ends_its_own_sockets_within_a_second() {
    let settings = settings().into_iter().map(|(name, value)| (name, value.to_owned())).collect();
    let options = Options { settings, ..Options::default() };
    every_way_ends_its_own(&[TestApp::with(options).await]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_ends_its_own_sockets_on_every_instance() {
    let Some(apps) = TestApp::instances(3, &settings()).await else { return };
    every_way_ends_its_own(&apps).await;
}

/// By cookie, by ticket and by a pass in the query it is the same credential.
/// It is taken at the first of these, sockets are open at the last.
async fn however_it_came_its_end_is_the_sockets(apps: &[TestApp]) {
    let upstream = Upstream::start().await;
    for app in apps {
        put_in_front(app, &upstream.url(), MANY);
    }
    let (app, there) = (&apps[0], address(apps.last().unwrap()));
    let browser = signed_in(app, "ada").await;
    let cookie =
        format!("Origin: http://a\r\nCookie: tollgate_sid={}\r\n", browser.cookie("sid").unwrap());
    let mut by_cookie = Wire::open(there, PATH, &cookie).await;
    let login = app.user("grace").await;
    let asked = login.post("/api/v1/auth/ticket", json!({ "path": PATH })).await.expect(201);
    let path = format!("{PATH}?ticket={}", asked.text("ticket"));
    let mut by_ticket = Wire::open(there, &path, "").await;
    let day = json!({ "duration_hours": 24 });
    let bought = login.post("/api/v1/tokens/purchase", day).await.expect(201);
    let path = format!("{PATH}?token={}", bought.text("token"));
    let mut by_pass = Wire::open(there, &path, "").await;
    browser.fill_in("/logout", &[]).await.expect(303);
    let taken = Instant::now();
    assert_eq!(by_cookie.closed().await, (1008, "revoked".to_owned()));
    assert!(taken.elapsed() < SOON);
    by_ticket.echoes("still").await;
    login.post_empty("/api/v1/auth/logout").await.expect(204);
    let taken = Instant::now();
    assert_eq!(by_ticket.closed().await, (1008, "revoked".to_owned()));
    assert!(taken.elapsed() < SOON);
    by_pass.echoes("still").await;
    let path = format!("/api/v1/admin/tokens/{}/revoke", bought.text("token_id"));
    app.admin().await.post_empty(&path).await.expect(200);
    let taken = Instant::now();
    assert_eq!(by_pass.closed().await, (1008, "revoked".to_owned()));
    assert!(taken.elapsed() < SOON);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_the_credential_came_its_end_is_the_sockets() {
    however_it_came_its_end_is_the_sockets(&[TestApp::configured(FREE).await]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_the_credential_came_its_end_is_the_sockets_of_every_instance() {
    let Some(apps) = TestApp::instances(3, &FREE).await else { return };
    however_it_came_its_end_is_the_sockets(&apps).await;
}

/// To the instant, and messages in the middle of it change nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_expires_ends_its_sockets_at_that_instant() {
    let upstream = Upstream::start().await;
    let app = app(&upstream, "").await;
    let end = SystemClock.now() + TimeDelta::milliseconds(1500);
    let fields = json!({ "name": "k", "expires_at": end.to_rfc3339() });
    let issued = app.admin().await.post("/api/v1/keys", fields).await.expect(201);
    let field = format!("X-API-Key: {}\r\n", issued.text("key"));
    let mut wire = Wire::open(address(&app), PATH, &field).await;
    wire.echoes("hello").await;
    assert_eq!(wire.closed().await, (1008, "expired".to_owned()));
    let late = SystemClock.now() - end;
    assert!(late >= TimeDelta::zero() && late < TimeDelta::milliseconds(1000), "{late}");
    drop(wire);
    assert_eq!(recorded(&app, 1).await[0]["outcome"], "cut");
}

/// At the end of the time that was paid for, also where no sweep sees that: the
/// clock stands still.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pass_that_is_over_ends_its_sockets_at_that_instant() {
    const LEFT: Duration = Duration::from_millis(700);
    let upstream = Upstream::start().await;
    let clock = FakeClock::starting_at(epoch());
    let options = Options { clock: clock.clone(), ..Options::default() };
    let app = app_with(&upstream, "", options).await;
    let hour = json!({ "duration_hours": 1 });
    let admin = app.admin().await;
    let bought = admin.post("/api/v1/tokens/purchase", hour).await.expect(201);
    let path = format!("{PATH}?token={}", bought.text("token"));
    // Begins its time.
    Wire::open(address(&app), &path, "").await.echoes("hello").await;
    clock.advance(TimeDelta::hours(1) - TimeDelta::from_std(LEFT).unwrap());
    let begun = Instant::now();
    let mut wire = Wire::open(address(&app), &path, "").await;
    wire.echoes("hello").await;
    assert_eq!(wire.closed().await, (1008, "expired".to_owned()));
    let after = begun.elapsed();
    assert!(after >= LEFT && after < LEFT + SOON, "{after:?}");
}

/// However much is said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_socket_is_open_for_longer_than_its_life() {
    const LIFE: Duration = Duration::from_secs(1);
    let upstream = Upstream::start().await;
    let app = app(&upstream, "auth = 'public'\nstream_life_seconds = 1").await;
    let begun = Instant::now();
    let mut wire = Wire::open(address(&app), PATH, "").await;
    while begun.elapsed() < LIFE / 2 {
        wire.echoes("hello").await;
    }
    assert_eq!(wire.closed().await, (1001, "open_too_long".to_owned()));
    let after = begun.elapsed();
    assert!(after >= LIFE && after < LIFE + SOON, "{after:?}");
    wire.rest().await;
    upstream.until_open(0).await;
    assert_eq!(upstream.closes(), [1001]);
    assert_eq!(recorded(&app, 1).await[0]["outcome"], "cut");
}

/// A frame under way is finished first, since a close may not stand in it; one
/// that is not finished soon is cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_that_never_ends_holds_up_no_revocation() {
    let upstream = Upstream::start().await;
    let app = app(&upstream, "").await;
    let admin = app.admin().await;
    let (id, key) = app.key(&admin, json!({ "name": "k" })).await;
    drop(key);
    let issued = admin.post(&format!("/api/v1/keys/{id}/rotate"), json!({})).await.expect(200);
    let field = format!("X-API-Key: {}\r\n", issued.text("key"));
    let mut wire = Wire::open(address(&app), PATH, &field).await;
    let whole = crate::support::websocket::frame(0x82, true, &[0; 1000]);
    wire.send(&whole[..500]).await;
    admin.delete(&format!("/api/v1/keys/{id}")).await.expect(204);
    let taken = Instant::now();
    assert_eq!(wire.closed().await, (1008, "revoked".to_owned()));
    assert!(taken.elapsed() < SOON, "{:?}", taken.elapsed());
    upstream.until_open(0).await;
    assert_eq!(upstream.messages(), 0);
    listed(&admin, &own_sockets(&admin).await, 0).await;
}
