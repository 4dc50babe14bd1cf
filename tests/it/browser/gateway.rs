//! What the gateway makes of browsers: who is led to the login page and who is
//! told no.

use http::Method;

use super::{APP, Browser, NAVIGATION, signed_in};
use crate::support::TestApp;

const HTML: (&str, &str) = ("accept", "text/html");

#[tokio::test]
async fn people_are_led_to_the_login_page_and_programs_are_told_no() {
    let app = TestApp::unlimited().await;
    let browser = Browser::new(&app);
    let (get, head, post) = (Method::GET, Method::HEAD, Method::POST);
    for (method, fields, led) in [
        (&get, &NAVIGATION[..], true),
        (&head, &NAVIGATION, true),
        // Browsers over plain http say less.
        (&get, &[HTML], true),
        (&get, &[("accept", "application/xml, TEXT/HTML;q=0.9")], true),
        (&get, &[HTML, ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")], true),
        (&get, &[HTML, ("sec-fetch-site", "cross-site")], true),
        (&get, &[], false),
        (&get, &[("accept", "*/*")], false),
        (&get, &[("accept", "application/json")], false),
        (&get, &[("accept", "text/htmlx, x-text/html, text/*")], false),
        (&get, &[HTML, ("sec-fetch-mode", "cors")], false),
        (&get, &[HTML, ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")], false),
        (&get, &[HTML, ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "embed")], false),
        (&get, &[HTML, ("sec-fetch-dest", "empty")], false),
        (&get, &[HTML, ("sec-fetch-mode", "navigate"), ("sec-fetch-mode", "navigate")], false),
        (&get, &[HTML, ("upgrade", "websocket"), ("connection", "upgrade")], false),
        (&post, &NAVIGATION, false),
        (&Method::OPTIONS, &NAVIGATION, false),
        (&get, &[HTML, ("cookie", "a=1; tollgate_sid=bad; tollgate_pass=bad")], true),
        (&get, &[("cookie", "tollgate_sid=bad")], false),
    ] {
        let answer = browser.send(method.clone(), APP, fields, None).await;
        if led {
            assert_eq!(answer.status, 303, "{method} {fields:?}");
            assert_eq!(answer.header("location"), "/login?next=%2Fapi%2Fv1%2Fproxy%2Fapp");
        } else {
            assert_eq!(answer.status, 401, "{method} {fields:?}");
            assert!(answer.headers.contains_key("www-authenticate"));
            if method != Method::HEAD {
                assert_eq!(answer.json["code"], "unauthenticated");
            }
        }
    }
    // Somebody who shows a credential is a program, whatever it accepts.
    let fields = [HTML, ("x-api-key", "tg_x")];
    let answer = browser.send(Method::GET, APP, &fields, None).await;
    answer.expect_problem(401, "invalid_credential");
}

/// A path of the request comes back only as a path.
#[tokio::test]
async fn the_way_back_is_the_page_that_was_asked_for() {
    let app = TestApp::configured([("UPSTREAM_MOUNT", "/")]).await;
    let browser = Browser::new(&app);
    for (path, next) in [
        ("/", "/login?next=%2F"),
        ("/a/b?c=d&e", "/login?next=%2Fa%2Fb%3Fc%3Dd%26e"),
        ("/?next=//evil.example", "/login?next=%2F%3Fnext%3D%2F%2Fevil.example"),
        ("/@evil.example", "/login?next=%2F%40evil.example"),
        ("/%41", "/login?next=%2FA"),
        // Too long to be remembered.
        (&format!("/{}", "a".repeat(5000)), "/login"),
    ] {
        assert_eq!(browser.open(path).await.expect(303).header("location"), next);
    }
}

/// Where nothing is required, a cookie still says who asks, and a bad one is
/// nobody's; where nothing is looked at, it is not either.
#[tokio::test]
async fn optional_and_public_upstreams_lead_nobody_away() {
    for (auth, name, post) in [("optional", Some("ada"), 403), ("public", None, 200)] {
        let app = TestApp::configured([("UPSTREAM_AUTH", auth)]).await;
        let browser = signed_in(&app, "ada").await;
        let page = browser.open(APP).await.expect(200);
        assert_eq!(page.json["headers"]["x-username"].as_str(), name);
        browser.send(Method::POST, APP, &[], None).await.expect(post);
        browser.set_cookie("sid", "bad");
        let page = browser.open(APP).await.expect(200);
        assert!(page.json["headers"].get("x-username").is_none());
        browser.send(Method::POST, APP, &[], None).await.expect(200);
    }
}

/// With a usable login beside it, a token that has ended does not lock out.
#[tokio::test]
async fn of_two_cookies_a_bad_one_counts_as_none() {
    let app = TestApp::unlimited().await;
    let browser = signed_in(&app, "ada").await;
    let grace = app.user("grace").await;
    let hour = serde_json::json!({ "duration_hours": 1 });
    let bought = grace.post("/api/v1/tokens/purchase", hour).await.expect(201);
    let (id, token) = (bought.text("token_id"), bought.text("token"));
    let who = async || {
        let page = browser.open(APP).await.expect(200);
        page.json["headers"]["x-username"].as_str().unwrap().to_owned()
    };
    browser.set_cookie("pass", token);
    assert_eq!(who().await, "grace");
    grace.delete(&format!("/api/v1/tokens/{id}")).await;
    let path = format!("/api/v1/admin/tokens/{id}/revoke");
    app.admin().await.post_empty(&path).await.expect(200);
    assert_eq!(who().await, "ada");
}

/// A cookie costs what the credential behind it costs.
#[tokio::test]
async fn the_users_limits_hold_for_cookies() {
    let (app, _clock) = TestApp::in_memory([("RATE_LIMIT_USER_PER_MINUTE", "3")]).await;
    let browser = signed_in(&app, "ada").await;
    for _ in 0..3 {
        browser.open(APP).await.expect(200);
    }
    browser.open(APP).await.expect_problem(429, "rate_limited");
}

#[tokio::test]
async fn a_warm_cookie_needs_no_database() {
    let (app, _clock) = TestApp::in_memory([]).await;
    let browser = signed_in(&app, "ada").await;
    browser.open(APP).await.expect(200);
    let before = app.app.db.acquired();
    for _ in 0..50 {
        browser.open(APP).await.expect(200);
    }
    assert_eq!(app.app.db.acquired(), before);
}
