//! Signing in: there and back, with a password or an access token, and what a
//! wrong one is told.

use chrono::TimeDelta;
use http::{Method, header};
use serde_json::json;
use tollgate::services::health::Phase;

use super::{APP, Browser, form, hidden, signed_in, text};
use crate::support::{Answer, PASSWORD, TestApp, unique};

/// What a person is told, whatever was wrong.
const WRONG: &str = "That did not work: the name, the password or the access token is wrong.";

#[tokio::test]
async fn a_page_that_needs_a_login_is_reached_through_one() {
    let app = TestApp::unlimited().await;
    app.register("ada").await;
    for browser in [Browser::new(&app), Browser::https(&app)] {
        let path = format!("{APP}/a%20b?x=1&y=%2F&z=%C3%A4%22");
        let answer = browser.open(&path).await.expect(303);
        let login = answer.header("location").to_owned();
        assert!(login.starts_with("/login?next=%2Fapi%2F"), "{login}");
        assert_eq!(answer.header("cache-control"), "no-store");
        assert!(answer.headers.get(header::SET_COOKIE).is_none());

        let fields = [("username", "ADA@example.com"), ("password", PASSWORD)];
        let answer = browser.fill_in(&login, &fields).await.expect(303);
        assert_eq!(answer.header("location"), path);
        assert_eq!(browser.cookies().keys().collect::<Vec<_>>(), [&browser.name("sid")]);

        let page = browser.open(&path).await.expect(200);
        assert_eq!(page.json["headers"]["x-username"], "ada");
        assert_eq!(page.json["query"], "x=1&y=%2F&z=%C3%A4%22");
    }
}

#[tokio::test]
async fn without_a_page_in_mind_one_comes_to_the_upstream() {
    for (mount, home) in [("/", "/"), ("/app", "/app/")] {
        let app = TestApp::configured([("UPSTREAM_MOUNT", mount)]).await;
        app.register("ada").await;
        for base in ["/login", "/.tollgate/login"] {
            let browser = Browser::new(&app);
            let fields = [("username", "ada"), ("password", PASSWORD)];
            let answer = browser.fill_in(base, &fields).await.expect(303);
            assert_eq!(answer.header("location"), home);
            browser.open(home).await.expect(200);
        }
    }
}

#[tokio::test]
async fn an_access_token_gets_in_and_its_time_begins_with_its_first_use() {
    let (app, clock) = TestApp::with_clock().await;
    let ada = app.user("ada").await;
    let token = ada.post("/api/v1/tokens/purchase", json!({ "duration_hours": 1 })).await;
    let token = token.expect(201).text("token").to_owned();
    let status = || async {
        let client = app.anonymous().with("x-access-token", &token);
        client.get("/api/v1/tokens/status").await.expect(200).text("status").to_owned()
    };
    let browser = Browser::https(&app);
    let answer = browser.fill_in("/login", &[("access_token", &format!(" {token} "))]).await;
    assert_eq!(answer.expect(303).header("location"), "/api/v1/proxy/");
    assert_eq!(browser.cookie("pass").as_deref(), Some(token.as_str()));
    assert_eq!(browser.cookie("sid"), None);
    browser.open("/login").await.expect(200);
    assert_eq!(status().await, "unused");

    let page = browser.open(APP).await.expect(200);
    assert_eq!(page.json["headers"]["x-username"], "ada");
    assert!(page.json["headers"]["x-token-id"].is_string());
    assert_eq!(status().await, "active");
    clock.advance(TimeDelta::minutes(59));
    browser.open(APP).await.expect(200);
    clock.advance(TimeDelta::minutes(1));
    browser.open(APP).await.expect(303);
}

/// Another account must not be what somebody thinks to be signed in as, so a
/// browser is one thing at a time.
#[tokio::test]
async fn a_new_login_replaces_the_one_of_before() {
    let app = TestApp::unlimited().await;
    let ada = app.user("ada").await;
    app.register("grace").await;
    let token = ada.post("/api/v1/tokens/purchase", json!({ "duration_hours": 1 })).await;
    let token = token.expect(201).text("token").to_owned();
    let browser = Browser::new(&app);
    let who = async || {
        browser.open(APP).await.expect(200).json["headers"]["x-username"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    browser.sign_in("grace").await;
    assert_eq!(who().await, "grace");
    browser.fill_in("/login", &[("access_token", &token)]).await.expect(303);
    assert_eq!((who().await.as_str(), browser.cookie("sid")), ("ada", None));
    browser.sign_in("grace").await;
    assert_eq!((who().await.as_str(), browser.cookie("pass")), ("grace", None));
}

/// RELIABILITY G-95: what was known before a login is worth nothing after it.
#[tokio::test]
async fn nothing_from_before_a_login_is_good_after_it() {
    let app = TestApp::unlimited().await;
    let browser = signed_in(&app, "ada").await;
    let before = browser.cookies();
    let old = Browser::new(&app);
    old.set_cookie("sid", &browser.cookie("sid").unwrap());
    old.open(APP).await.expect(200);
    let page = browser.open("/login").await.expect(200);
    let (form_before, cookie_before) = (hidden(&page, "form").unwrap(), browser.cookie("form"));

    browser.sign_in("ada").await;
    assert_ne!(browser.cookies(), before);
    old.open(APP).await.expect(303);
    browser.open(APP).await.expect(200);

    // Nor can the page of before be sent again.
    assert_eq!(browser.cookie("form"), None);
    let fields = [("form", form_before.as_str()), ("username", "ada"), ("password", PASSWORD)];
    browser.submit("/login", &fields).await.expect(403);
    browser.open("/login").await.expect(200);
    assert_ne!(browser.cookie("form"), cookie_before);
    browser.submit("/login", &fields).await.expect(403);
}

/// A value that an attacker made up is never taken over as a session.
#[tokio::test]
async fn a_planted_cookie_does_not_become_the_session() {
    let app = TestApp::unlimited().await;
    app.register("ada").await;
    for planted in ["x", "0198c0ff-ee00-7008-8000-0000000000aa", "a.b.c"] {
        let browser = Browser::new(&app);
        browser.set_cookie("sid", planted);
        browser.set_cookie("form", planted);
        browser.sign_in("ada").await;
        assert_ne!(browser.cookie("sid").unwrap(), planted);
        browser.open(APP).await.expect(200);
        browser.set_cookie("sid", planted);
        browser.open(APP).await.expect(303);
    }
}

/// The same page for everything that can be wrong, but for the form's proof and
/// the name that was typed in.
#[tokio::test]
async fn a_wrong_login_is_told_one_thing_whatever_was_wrong() {
    let app = TestApp::unlimited().await;
    for name in ["ada", "gone"] {
        app.register(name).await;
    }
    let gone = app.log_in("gone", PASSWORD).await.get("/api/v1/users/me").await;
    let path = format!("/api/v1/admin/users/{}", gone.text("id"));
    app.admin().await.patch(&path, json!({ "is_active": false })).await.expect(200);
    let long = "x".repeat(2000);
    let unknown = format!("tga_{}", "A".repeat(64));
    let mut pages = vec![];
    for fields in [
        [("username", "ada"), ("password", "a wrong one")],
        [("username", "nobody"), ("password", PASSWORD)],
        [("username", "gone"), ("password", PASSWORD)],
        [("username", "ada"), ("password", &long)],
        [("username", &long), ("password", PASSWORD)],
        [("username", "a\0b"), ("password", PASSWORD)],
        [("access_token", "x"), ("username", "")],
        [("access_token", &unknown), ("username", "")],
        [("access_token", "tga_"), ("username", "")],
    ] {
        let browser = Browser::new(&app);
        let answer = browser.fill_in("/login", &fields).await.expect(401);
        assert!(answer.headers.contains_key("www-authenticate"));
        assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
        assert_eq!(browser.cookies().len(), 1, "only the form's");
        let mut page = text(&answer).replace(&hidden(&answer, "form").unwrap(), "");
        page = page.replace(" autofocus", "");
        for name in ["ada", "nobody", "gone", "a\0b"] {
            page = page.replace(&format!("value=\"{name}\""), "value=\"\"");
        }
        assert!(page.contains(WRONG), "{page}");
        pages.push(page);
    }
    pages.dedup();
    assert_eq!(pages.len(), 1, "{pages:#?}");
}

#[tokio::test]
async fn what_is_missing_is_asked_for() {
    let app = TestApp::unlimited().await;
    for fields in [&[][..], &[("username", "ada")], &[("password", "x")], &[("access_token", " ")]]
    {
        let answer = Browser::new(&app).fill_in("/login", fields).await.expect(422);
        assert!(text(&answer).contains("Please fill in the form."));
    }
}

fn throttled(answer: &Answer) {
    assert_eq!(answer.status, 429, "{answer:?}");
    let wait: u64 = answer.header("retry-after").parse().unwrap();
    assert!((1..=60).contains(&wait));
    assert!(answer.headers.contains_key("x-ratelimit-limit"));
    let page = text(answer);
    assert!(page.contains("role=\"alert\"") && page.contains("Too many login attempts"), "{page}");
    assert!(hidden(answer, "form").is_some());
}

#[tokio::test]
async fn guesses_on_the_page_and_at_the_api_add_up() {
    let app = TestApp::unlimited().await;
    let name = unique("ada");
    app.register(&name).await;
    let browser = Browser::new(&app);
    let wrong = [("username", name.as_str()), ("password", "a wrong one")];
    for _ in 0..3 {
        browser.fill_in("/login", &wrong).await.expect(401);
    }
    for _ in 0..2 {
        app.login(&name, "a wrong one").await.expect(401);
    }
    throttled(&browser.fill_in("/login", &wrong).await);
    let right = [("username", name.as_str()), ("password", PASSWORD)];
    throttled(&browser.fill_in("/login", &right).await);
    app.login(&name, PASSWORD).await.expect_problem(429, "login_throttled");
}

#[tokio::test]
async fn access_tokens_cannot_be_tried_without_end() {
    let app = TestApp::unlimited().await;
    let ada = app.user("ada").await;
    let token = ada.post("/api/v1/tokens/purchase", json!({ "duration_hours": 1 })).await;
    let token = token.expect(201).text("token").to_owned();
    let browser = Browser::new(&app);
    // Right ones do not count.
    for _ in 0..10 {
        browser.fill_in("/login", &[("access_token", &token)]).await.expect(303);
    }
    for _ in 0..5 {
        browser.fill_in("/login", &[("access_token", "tga_x")]).await.expect(401);
    }
    throttled(&browser.fill_in("/login", &[("access_token", &token)]).await);
}

/// Also what is refused before a form is looked at is a page.
#[tokio::test]
async fn every_failure_is_a_page() {
    let app = TestApp::configured([("RATE_LIMIT_PER_MINUTE", "9")]).await;
    let browser = Browser::new(&app);
    let page = |answer: Answer, status: u16| {
        let answer = answer.expect(status);
        assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
        assert_eq!(answer.header("cache-control"), "no-store");
        assert!(answer.headers.contains_key("content-security-policy"));
        assert!(text(&answer).contains("role=\"alert\""));
        answer
    };
    let answer = browser.send(Method::PUT, "/login", &[], None).await;
    answer.expect_problem(405, "method_not_allowed");
    let own = [("sec-fetch-site", "same-origin")];
    let body = |media| Some((media, form(&[("username", "ada")])));
    for media in ["text/plain", "application/json", "multipart/form-data; boundary=x", ""] {
        page(browser.send(Method::POST, "/login", &own, body(media)).await, 415);
    }
    let twice = Some((super::FORM, "username=a&username=b".to_owned()));
    page(browser.send(Method::POST, "/login", &own, twice).await, 422);

    app.app.services.health.enter(Phase::Starting);
    let answer = page(browser.open("/login").await, 503);
    assert_eq!(answer.header("retry-after"), "1");
    app.app.services.health.enter(Phase::Serving);

    let mut last = browser.open("/login").await;
    for _ in 0..8 {
        last = browser.open("/login").await;
    }
    let answer = page(last, 429);
    assert!(answer.headers.contains_key("retry-after"));
}
