//! A login lasts while it is used, and never beyond its session.

use std::sync::Arc;

use chrono::TimeDelta;
use http::{Method, header};
use tollgate::domain::clock::FakeClock;

use super::{APP, Browser, NAVIGATION, SetCookie, signed_in, tokens::claims};
use crate::support::{
    Answer, Options, TestApp, epoch,
    recorder::{Recorder, Reply},
};

fn renewed(answer: &Answer) -> Option<SetCookie> {
    let field = answer.headers.get(header::SET_COOKIE)?;
    Some(SetCookie::parse(field.to_str().unwrap()))
}

#[tokio::test]
async fn a_login_that_is_used_is_renewed_at_half_its_life() {
    let (app, clock) = TestApp::with_clock().await;
    let browser = signed_in(&app, "ada").await;
    let first = browser.cookie("sid").unwrap();
    clock.advance(TimeDelta::hours(12) - TimeDelta::seconds(1));
    assert!(renewed(&browser.open(APP).await.expect(200)).is_none());
    clock.advance(TimeDelta::seconds(1));
    // What a script asks for may come in any number at once.
    let script = [("accept", "*/*"), ("sec-fetch-mode", "cors"), ("sec-fetch-site", "same-origin")];
    for method in [Method::GET, Method::POST] {
        let answer = browser.send(method, APP, &script, None).await.expect(200);
        assert!(renewed(&answer).is_none());
    }
    let answer = browser.open(APP).await.expect(200);
    let cookie = renewed(&answer).unwrap();
    assert_eq!((cookie.name.as_str(), cookie.max_age), ("tollgate_sid", 24 * 3600));
    let (old, new) = (claims(&first), claims(&cookie.value));
    assert_eq!((&old["sid"], &old["sub"]), (&new["sid"], &new["sub"]));
    assert_eq!(new["exp"].as_i64().unwrap() - old["exp"].as_i64().unwrap(), 12 * 3600);
    assert!(renewed(&browser.open(APP).await.expect(200)).is_none());

    // Kept alive so, it is good when the first one is not.
    clock.advance(TimeDelta::hours(13));
    browser.open(APP).await.expect(200);
    let kept = Browser::new(&app);
    kept.set_cookie("sid", &first);
    kept.open(APP).await.expect(303);
}

#[tokio::test]
async fn a_login_that_is_not_used_ends_after_a_day() {
    let (app, clock) = TestApp::with_clock().await;
    let browser = signed_in(&app, "ada").await;
    clock.advance(TimeDelta::hours(24) + TimeDelta::seconds(29));
    let used = Browser::new(&app);
    used.set_cookie("sid", &browser.cookie("sid").unwrap());
    used.open(APP).await.expect(200);
    clock.advance(TimeDelta::seconds(1));
    browser.open(APP).await.expect(303);
}

#[tokio::test]
async fn no_renewal_goes_beyond_the_session() {
    let (app, clock) = TestApp::with_clock().await;
    let browser = signed_in(&app, "ada").await;
    let session_ends = epoch() + TimeDelta::days(30);
    let mut last = 0;
    for _ in 0..58 {
        clock.advance(TimeDelta::hours(12));
        if let Some(cookie) = renewed(&browser.open(APP).await.expect(200)) {
            last = claims(&cookie.value)["exp"].as_i64().unwrap();
            assert!(last <= session_ends.timestamp());
        }
    }
    assert_eq!(last, session_ends.timestamp());
    // Nothing is won by another one.
    clock.advance(TimeDelta::hours(23));
    assert!(renewed(&browser.open(APP).await.expect(200)).is_none());
    clock.advance(TimeDelta::hours(1));
    browser.open(APP).await.expect(303);
}

/// RFC 9111 lets a shared cache store an answer with `Set-Cookie`.
#[tokio::test]
async fn no_cache_keeps_somebodys_new_cookie() {
    for (theirs, ours) in [
        ("", "private, no-cache"),
        ("cache-control: public, max-age=60\r\n", "private, no-cache"),
        ("cache-control: max-age=60\r\n", "private, no-cache"),
        ("cache-control: s-maxage=60\r\ncache-control: max-age=1\r\n", "private, no-cache"),
        ("cache-control: x-private\r\n", "private, no-cache"),
        ("cache-control: max-age=60, Private\r\n", "max-age=60, Private"),
        ("cache-control: no-store\r\n", "no-store"),
    ] {
        let recorder = Recorder::start(move |_| {
            Reply::Send(format!("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n{theirs}\r\n").into())
        })
        .await;
        let clock: Arc<FakeClock> = FakeClock::starting_at(epoch());
        let settings = vec![("UPSTREAM_URL", recorder.url())];
        let app =
            TestApp::with(Options { clock: clock.clone(), settings, ..Options::default() }).await;
        let browser = signed_in(&app, "ada").await;
        clock.advance(TimeDelta::hours(12));
        let answer = browser.send(Method::GET, APP, &NAVIGATION, None).await.expect(200);
        assert!(renewed(&answer).is_some());
        // What says that it is private already stays as it is; the gateway
        // itself says so of an answer that says nothing.
        let expected = if theirs.is_empty() { "private" } else { ours };
        let said = answer.headers.get_all(header::CACHE_CONTROL).iter();
        assert_eq!(said.collect::<Vec<_>>(), [expected], "{theirs}");
    }
}

/// The one that holds an access token ends with it and is never made anew.
#[tokio::test]
async fn an_access_token_is_not_renewed() {
    let (app, clock) = TestApp::with_clock().await;
    let ada = app.user("ada").await;
    let body = serde_json::json!({ "duration_hours": 24 });
    let token = ada.post("/api/v1/tokens/purchase", body).await.expect(201);
    let browser = Browser::new(&app);
    let fields = [("access_token", token.text("token"))];
    browser.fill_in("/login", &fields).await.expect(303);
    browser.open(APP).await.expect(200);
    clock.advance(TimeDelta::hours(20));
    assert!(renewed(&browser.open(APP).await.expect(200)).is_none());
    // Typed in again, it is kept for as long as it lasts.
    let answer = browser.fill_in("/login", &fields).await.expect(303);
    assert_eq!(renewed(&answer).unwrap().max_age, 4 * 3600);
    clock.advance(TimeDelta::hours(4));
    browser.open(APP).await.expect(303);
    browser.fill_in("/login", &fields).await.expect(401);
}
