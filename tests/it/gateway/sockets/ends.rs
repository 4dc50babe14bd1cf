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
        Options, PASSWORD, TestApp, epoch,
        websocket::{Upstream, Wire, ask},
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
    let end = SystemClock.now() + TimeDelta::milliseconds(3000);
    let fields = json!({ "name": "k", "expires_at": end.to_rfc3339() });
    let issued = app.admin().await.post("/api/v1/keys", fields).await.expect(201);
    let field = format!("X-API-Key: {}\r\n", issued.text("key"));
    let mut wire = Wire::open(address(&app), PATH, &field).await;
    wire.echoes("hello").await;
    assert_eq!(wire.closed().await, (1008, "expired".to_owned()));
    let late = SystemClock.now() - end;
    assert!(late >= TimeDelta::zero() && late < TimeDelta::from_std(SOON).unwrap(), "{late}");
    drop(wire);
    assert_eq!(recorded(&app, 1).await[0]["outcome"], "cut");
}

/// A login's and a pass's, whether the socket was opened long before or shortly.
/// The clock stands still but for what the test moves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_and_a_pass_that_are_over_end_their_sockets_at_once() {
    const LEFT: Duration = Duration::from_millis(700);
    for kind in ["login", "pass", "pass in the query"] {
        let upstream = Upstream::start().await;
        let clock = FakeClock::starting_at(epoch());
        let options = Options { clock: clock.clone(), ..Options::default() };
        let app = app_with(&upstream, "", options).await;
        app.register("ada").await;
        let pair = app.login("ada", PASSWORD).await.expect(200);
        let bearer = pair.text("access_token");
        let mut path = PATH.to_owned();
        let (field, life) = if kind == "login" {
            // The token's own end, and the leeway.
            (format!("Authorization: Bearer {bearer}\r\n"), TimeDelta::seconds(3630))
        } else {
            let me = app.anonymous().with_bearer(bearer).get("/api/v1/users/me").await;
            let hour = json!({ "duration_hours": 1, "user_id": me.text("id") });
            let token = app.admin().await.post("/api/v1/admin/tokens", hour).await.expect(201);
            let text = token.text("token");
            let mut field = format!("X-Access-Token: {text}\r\n");
            if kind != "pass" {
                path = format!("{PATH}?token={text}");
                field.clear();
            }
            // Its time begins with its use.
            Wire::open(address(&app), &path, &field).await.echoes("first").await;
            (field, TimeDelta::hours(1))
        };
        let mut early = Wire::open(address(&app), &path, &field).await;
        clock.advance(life - TimeDelta::from_std(LEFT).unwrap());
        let mut late = Wire::open(address(&app), &path, &field).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        for wire in [&mut early, &mut late] {
            wire.echoes("still").await;
        }
        clock.advance(TimeDelta::from_std(LEFT).unwrap());
        let over = Instant::now();
        for wire in [&mut early, &mut late] {
            assert_eq!(wire.closed().await, (1008, "expired".to_owned()), "{kind}");
            assert!(over.elapsed() < SOON, "{kind}: {:?}", over.elapsed());
        }
        drop((early, late));
        upstream.until_open(0).await;
        // And opens none any more.
        let asked = Wire::ask(address(&app), ask(&path, &field)).await;
        assert_eq!(asked.code().await, (401, "invalid_credential".to_owned()), "{kind}");
    }
}

#[tokio::test]
async fn no_socket_is_open_for_longer_than_its_life() {
    let upstream = Upstream::start().await;
    let app = app(&upstream, "auth = 'public'\nstream_life_seconds = 1").await;
    let begun = Instant::now();
    let mut silent = Wire::open(address(&app), PATH, "").await;
    let mut talking = Wire::open(address(&app), PATH, "").await;
    for at in 0..8 {
        talking.echoes(&format!("word {at}")).await;
        tokio::time::sleep(Duration::from_millis(80)).await;
    }
    for wire in [&mut silent, &mut talking] {
        assert_eq!(wire.closed().await, (1001, "open_too_long".to_owned()));
        let after = begun.elapsed();
        assert!(after >= Duration::from_secs(1) && after < SOON, "{after:?}");
    }
    drop((silent, talking));
    upstream.until_open(0).await;
    assert_eq!(upstream.closes(), [1001, 1001]);
    let records = recorded(&app, 2).await;
    assert!(records.iter().all(|record| record["outcome"] == "cut"), "{records:?}");
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
