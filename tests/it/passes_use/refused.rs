//! A request that is refused begins nothing.

use bytes::Bytes;
use http::Method;
use serde_json::json;

use super::{Given, HELLO, give, id_of, pass_of};
use crate::support::{
    Client, TestApp,
    journal::{SMALLEST_JOURNAL, fill_the_journal},
};

/// A request with a pass that is refused, and with what.
async fn refused(app: &TestApp, pass: &Given, how: &str) -> (u16, &'static str) {
    let client: Client = pass.bearer(app);
    let (sent, expected) = match how {
        "a bad key beside it" => {
            (client.with_key("tg_x").get(HELLO).await, (401, "invalid_credential"))
        }
        "a bad login beside it" => {
            (client.with_bearer("a.b.c").get(HELLO).await, (401, "invalid_credential"))
        }
        "twice the same" => {
            let twice = client.with("x-access-token", &pass.text);
            (twice.get(HELLO).await, (400, "duplicate_credential"))
        }
        "as another kind of credential" => {
            let client = app.anonymous().with_bearer(&pass.text);
            (client.get(HELLO).await, (401, "invalid_credential"))
        }
        "as a key" => {
            (app.anonymous().with_key(&pass.text).get(HELLO).await, (401, "invalid_credential"))
        }
        "in the query" => {
            let path = format!("{HELLO}?token={}", pass.text);
            (app.anonymous().get(&path).await, (400, "credential_in_url"))
        }
        "a body that is too large" => {
            let body = Bytes::from(vec![b'x'; 101]);
            (client.send(Method::POST, HELLO, None, body).await, (413, "body_too_large"))
        }
        "an ambiguous path" => {
            (client.get("/api/v1/proxy/a%2f..%2fb").await, (400, "ambiguous_path"))
        }
        "a method that is not served" => {
            let sent = client.send(Method::TRACE, HELLO, None, Bytes::new()).await;
            (sent, (405, "method_not_allowed"))
        }
        "a login is needed" => (client.get("/api/v1/keys").await, (403, "login_required")),
        "any credential but this is needed" => {
            (client.get("/api/v1/users/me").await, (403, "login_required"))
        }
        _ => unreachable!("one of the below"),
    };
    sent.expect_problem(expected.0, expected.1);
    expected
}

#[tokio::test]
async fn no_refusal_begins_a_pass() {
    let app = TestApp::configured([("UPSTREAM_MAX_BODY_BYTES", "100")]).await;
    let pass = pass_of(&app, "ada").await;
    for how in [
        "a bad key beside it",
        "a bad login beside it",
        "twice the same",
        "as another kind of credential",
        "as a key",
        "in the query",
        "a body that is too large",
        "an ambiguous path",
        "a method that is not served",
        "a login is needed",
        "any credential but this is needed",
    ] {
        let answer = refused(&app, &pass, how).await;
        let status = pass.status(&app).await;
        assert_eq!(status.text("status"), "unused", "{how}: {answer:?}");
    }
    // It was good all the time.
    pass.bearer(&app).get(HELLO).await.expect(200);
    assert_eq!(pass.status(&app).await.text("status"), "active");
}

#[tokio::test]
async fn a_pass_for_another_upstream_is_refused_and_stays_unused() {
    let app = TestApp::start().await;
    let pass = pass_of(&app, "ada").await;
    app.database.execute("UPDATE passes SET upstream = 'other'").await;
    let refused = pass.bearer(&app).get(HELLO).await;
    refused.expect_problem(403, "upstream_not_allowed");
    let status = pass.status(&app).await;
    assert_eq!((status.text("status"), status.text("upstream")), ("unused", "other"));
    // The name that it is bound to is the one that keys and records have.
    let here = pass_of(&app, "grace").await;
    app.database.execute("UPDATE passes SET upstream = 'echo'").await;
    here.bearer(&app).get(HELLO).await.expect(200);
}

#[tokio::test]
async fn a_limit_that_is_reached_begins_nothing() {
    for (setting, tier) in
        [("RATE_LIMIT_USER_PER_MINUTE", "user"), ("RATE_LIMIT_USER_PER_HOUR", "user")]
    {
        let (app, _clock) = TestApp::in_memory([(setting, "3")]).await;
        let owner = id_of(&app.user("ada").await).await;
        let (first, second) = (give(&app, owner, 1).await, give(&app, owner, 1).await);
        // The third of the user, whose name was asked for.
        first.bearer(&app).get(HELLO).await.expect(200);
        first.bearer(&app).get(HELLO).await.expect(200);
        let refused = second.bearer(&app).get(HELLO).await.expect_problem(429, "rate_limited");
        assert!(refused.text("detail").contains(tier), "{refused:?}");
        assert_eq!(second.status(&app).await.text("status"), "unused", "{setting}");
    }
}

/// The user's limit and the pass's own hold together; another pass of the same
/// user has room of its own.
#[tokio::test]
async fn a_pass_has_limits_of_its_own() {
    for setting in ["RATE_LIMIT_TOKEN_PER_MINUTE", "RATE_LIMIT_TOKEN_PER_HOUR"] {
        let (app, _clock) = TestApp::in_memory([(setting, "2")]).await;
        let user = app.user("ada").await;
        let owner = id_of(&user).await;
        let (first, second) = (give(&app, owner, 1).await, give(&app, owner, 1).await);
        for left in ["1", "0"] {
            let answer = first.bearer(&app).get(HELLO).await.expect(200);
            assert_eq!(answer.header("x-ratelimit-remaining"), left);
            assert_eq!(answer.header("x-ratelimit-limit"), "2");
        }
        let refused = first.bearer(&app).get(HELLO).await.expect_problem(429, "rate_limited");
        assert!(refused.text("detail").contains("token"), "{refused:?}");
        second.bearer(&app).get(HELLO).await.expect(200);
        user.get(HELLO).await.expect(200);
    }
}

#[tokio::test]
async fn without_room_for_its_record_nothing_begins() {
    let app = TestApp::configured([SMALLEST_JOURNAL]).await;
    let pass = pass_of(&app, "ada").await;
    fill_the_journal(&app).await;
    pass.bearer(&app).get(HELLO).await.expect_problem(503, "overloaded");
    assert_eq!(pass.status(&app).await.text("status"), "unused");
    app.flush().await;
    pass.bearer(&app).get(HELLO).await.expect(200);
}

#[tokio::test]
async fn a_pass_of_a_disabled_account_opens_and_begins_nothing() {
    let app = TestApp::start().await;
    let (admin, pass) = (app.admin().await, pass_of(&app, "ada").await);
    let account = format!("/api/v1/admin/users/{}", pass.owner);
    admin.patch(&account, json!({ "is_active": false })).await.expect(200);
    for path in [HELLO, super::STATUS] {
        pass.bearer(&app).get(path).await.expect_problem(401, "invalid_credential");
    }
    admin.patch(&account, json!({ "is_active": true })).await.expect(200);
    assert_eq!(pass.status(&app).await.text("status"), "unused");
}

/// Our copy says unused, but it was ended and nobody has told us.
#[tokio::test]
async fn a_pass_that_was_ended_meanwhile_does_not_begin() {
    let (app, _clock) = TestApp::with_clock().await;
    let pass = pass_of(&app, "ada").await;
    assert_eq!(pass.status(&app).await.text("status"), "unused");
    app.database.execute("UPDATE passes SET revoked_at = created_at, version = version + 1").await;
    pass.bearer(&app).get(HELLO).await.expect_problem(401, "invalid_credential");
    // Nor is the old copy used again.
    assert_eq!(pass.status(&app).await.text("status"), "revoked");
    app.flush().await;
}
