//! Other sites can make a browser ask, but not in its owner's name
//! (RELIABILITY G-97).

use http::Method;

use super::{APP, Browser, FORM, form, hidden, signed_in, text};
use crate::support::{Answer, PASSWORD, TestApp, UNLIMITED};

/// What a request says of its origin, and whether that is enough to act.
/// `OWN` stands for the request's own origin.
const SAID: &[(&[(&str, &str)], bool)] = &[
    (&[("sec-fetch-site", "same-origin"), ("origin", "OWN")], true),
    (&[("sec-fetch-site", "same-origin")], true),
    (&[("sec-fetch-site", "none")], true),
    // Browsers that keep the referrer to themselves send this with forms.
    (&[("sec-fetch-site", "same-origin"), ("origin", "null")], true),
    (&[("origin", "OWN")], true),
    (&[("origin", "OWN:80")], false),
    (&[], false),
    (&[("referer", "OWN/login")], false),
    (&[("sec-fetch-site", "cross-site"), ("origin", "OWN")], false),
    (&[("sec-fetch-site", "same-site"), ("origin", "OWN")], false),
    (&[("sec-fetch-site", "cross-site")], false),
    (&[("sec-fetch-site", "same-site")], false),
    (&[("sec-fetch-site", "")], false),
    (&[("sec-fetch-site", "Same-Origin")], false),
    (&[("sec-fetch-site", "same-origin, cross-site")], false),
    (&[("sec-fetch-site", "cross-site"), ("sec-fetch-site", "same-origin")], false),
    (&[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "same-origin")], false),
    (&[("origin", "null")], false),
    (&[("origin", "")], false),
    (&[("origin", "OWN"), ("origin", "OWN")], false),
    (&[("origin", "OWN"), ("origin", "http://evil.example")], false),
    (&[("origin", "http://evil.example")], false),
    (&[("origin", "https://evil.example")], false),
    (&[("origin", "OWN.evil.example")], false),
    (&[("origin", "OWN@evil.example")], false),
    (&[("origin", "OWN/")], false),
    (&[("origin", "OWN OWN")], false),
    (&[("origin", "http://sub.127.0.0.1")], false),
    (&[("origin", "http://127.0.0.1")], false),
    (&[("origin", "http://127.0.0.1:1")], false),
    (&[("origin", "http://localhost")], false),
    (&[("origin", "file://")], false),
    (&[("origin", "*")], false),
];

/// With the origin filled in.
fn said(fields: &[(&'static str, &str)], own: &str) -> Vec<(&'static str, String)> {
    fields.iter().map(|(name, value)| (*name, value.replace("OWN", own))).collect()
}

fn borrowed<'a>(fields: &'a [(&'static str, String)]) -> Vec<(&'static str, &'a str)> {
    fields.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

fn refused_page(answer: &Answer) {
    assert_eq!(answer.status, 403, "{answer:?}");
    assert!(text(answer).contains("must come from a page of this site"), "{answer:?}");
    assert!(answer.headers.get("set-cookie").is_none());
}

#[tokio::test]
async fn a_cookie_acts_only_for_pages_of_its_own_origin() {
    let app = TestApp::unlimited().await;
    app.register("ada").await;
    for browser in [Browser::new(&app), Browser::https(&app)] {
        browser.sign_in("ada").await;
        for (fields, enough) in SAID {
            let fields = said(fields, &browser.origin);
            let fields = borrowed(&fields);
            for method in ["POST", "PUT", "PATCH", "DELETE", "BREW"] {
                let method: Method = method.parse().unwrap();
                for media in [FORM, "text/plain", "application/json"] {
                    let body = Some((media, "a=b".to_owned()));
                    let answer = browser.send(method.clone(), APP, &fields, body).await;
                    if *enough {
                        assert_eq!(answer.status, 200, "{method} {fields:?} {answer:?}");
                    } else {
                        answer.expect_problem(403, "cross_site");
                    }
                }
            }
            // To look is not to act.
            for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
                browser.send(method, APP, &fields, None).await.expect(200);
            }
        }
    }
}

/// Whose key it is decides, not the browser's cookie.
#[tokio::test]
async fn a_credential_in_a_field_needs_no_origin() {
    let app = TestApp::unlimited().await;
    let browser = signed_in(&app, "ada").await;
    let grace = app.user("grace").await;
    let (_, _) = app.key(&grace, serde_json::json!({ "name": "k" })).await;
    let issued = grace.post("/api/v1/keys", serde_json::json!({ "name": "k" })).await.expect(201);
    let fields = [("x-api-key", issued.text("key")), ("sec-fetch-site", "cross-site")];
    let answer = browser.send(Method::POST, APP, &fields, None).await.expect(200);
    assert_eq!(answer.json["headers"]["x-username"], "grace");
    // And a bad one is not made good by a cookie.
    let answer = browser.send(Method::GET, APP, &[("x-api-key", "tg_x")], None).await;
    answer.expect_problem(401, "invalid_credential");
}

/// A pass is a cookie like the other; a refused request does not begin its time.
#[tokio::test]
async fn a_refused_request_uses_nothing() {
    let app = TestApp::unlimited().await;
    let ada = app.user("ada").await;
    let hour = serde_json::json!({ "duration_hours": 1 });
    let token =
        ada.post("/api/v1/tokens/purchase", hour).await.expect(201).text("token").to_owned();
    let browser = Browser::new(&app);
    browser.fill_in("/login", &[("access_token", &token)]).await.expect(303);
    let answer = browser.send(Method::POST, APP, &[("sec-fetch-site", "cross-site")], None).await;
    answer.expect_problem(403, "cross_site");
    let status = app.anonymous().with("x-access-token", &token);
    assert_eq!(status.get("/api/v1/tokens/status").await.expect(200).text("status"), "unused");
}

#[tokio::test]
async fn nobody_is_signed_in_or_out_by_another_site() {
    let app = TestApp::unlimited().await;
    app.register("ada").await;
    for path in ["/login", "/logout", "/.tollgate/login", "/.tollgate/logout"] {
        for (fields, enough) in SAID {
            let browser = Browser::new(&app);
            browser.sign_in("ada").await;
            let page = browser.open(path).await.expect(200);
            let before = browser.cookies();
            let fields = said(fields, &browser.origin);
            let token = hidden(&page, "form").unwrap();
            let body = form(&[("form", &token), ("username", "ada"), ("password", PASSWORD)]);
            let answer =
                browser.send(Method::POST, path, &borrowed(&fields), Some((FORM, body))).await;
            if *enough {
                assert_eq!(answer.status, 303, "{path} {fields:?}: {answer:?}");
                assert_ne!(browser.cookies(), before);
            } else {
                refused_page(&answer);
                assert_eq!(browser.cookies(), before);
                browser.open(APP).await.expect(200);
            }
        }
    }
}

/// Where the browser says all the right things, the form must still be ours,
/// this browser's, for this, and fresh.
#[tokio::test]
async fn a_form_needs_proof_that_it_was_given_to_this_browser() {
    let app = TestApp::unlimited().await;
    app.register("ada").await;
    let (browser, other) = (Browser::new(&app), Browser::new(&app));
    let token = async |browser: &Browser, path: &str| {
        hidden(&browser.open(path).await.expect(200), "form").unwrap()
    };
    for (path, wrong) in [("/login", "/logout"), ("/logout", "/login")] {
        // The browser that is to be signed out is signed in.
        browser.sign_in("ada").await;
        other.sign_in("ada").await;
        let other_browsers = token(&other, path).await;
        let wrong_purpose = if wrong == "/logout" {
            token(&browser, "/logout").await
        } else {
            token(&browser, "/login").await
        };
        let good = token(&browser, path).await;
        for bad in ["", "x", ".", &other_browsers, &wrong_purpose, &good[1..], &format!("{good}A")]
        {
            let fields = [("form", bad), ("username", "ada"), ("password", PASSWORD)];
            let before = browser.cookies();
            let answer = browser.submit(path, &fields).await.expect(403);
            assert!(text(&answer).contains("role=\"alert\""));
            assert_eq!(browser.cookies(), before, "{bad}");
        }
        let cookie = browser.cookie("form").unwrap();
        browser.drop_cookie("form");
        let fields = [("form", good.as_str()), ("username", "ada"), ("password", PASSWORD)];
        browser.submit(path, &fields).await.expect(403);
        browser.set_cookie("form", &cookie);
        browser.submit(path, &fields).await.expect(303);
    }
}

#[tokio::test]
async fn a_form_that_was_open_for_too_long_is_given_anew() {
    let (app, clock) = TestApp::in_memory(UNLIMITED).await;
    app.register("ada").await;
    let browser = Browser::new(&app);
    let page = browser.open("/login?next=/x").await.expect(200);
    let (token, next) = (hidden(&page, "form").unwrap(), hidden(&page, "next").unwrap());
    clock.advance(chrono::TimeDelta::hours(4));
    let fields =
        [("form", token.as_str()), ("next", &next), ("username", "ada"), ("password", PASSWORD)];
    let page = browser.submit("/login", &fields).await.expect(403);
    assert!(text(&page).contains("open for too long") && text(&page).contains("value=\"ada\""));
    let token = hidden(&page, "form").unwrap();
    let fields =
        [("form", token.as_str()), ("next", &next), ("username", "ada"), ("password", PASSWORD)];
    let answer = browser.submit("/login", &fields).await.expect(303);
    assert_eq!(answer.header("location"), "/x");
}

/// Scripts of other origins may call the API where they are allowed to, but
/// never the pages.
#[tokio::test]
async fn pages_are_not_for_scripts_of_other_origins() {
    let app = TestApp::configured([("ALLOWED_ORIGINS", "https://app.example")]).await;
    let browser = Browser::new(&app);
    for path in ["/login", "/logout"] {
        let origin = [("origin", "https://app.example")];
        let answer = browser.send(Method::GET, path, &origin, None).await.expect(200);
        assert!(answer.headers.keys().all(|name| !name.as_str().starts_with("access-control")));
    }
}
