//! What a workflow is sent.

use serde_json::{Value, json};

use super::{answer, begin, chatting, hello, settings};
use crate::{
    jwt,
    support::{
        Options, TestApp,
        recorder::{Recorder, Reply},
    },
};

/// G-130: one path, one method, one media type, nothing of the visitor's.
#[tokio::test]
async fn a_workflow_is_sent_the_question_and_a_proof_and_nothing_else() {
    let recorder = Recorder::start(hello).await;
    let mut settings = settings(&recorder.url());
    settings.push(("CHAT_API_KEY", "key-of-the-workflow".to_owned()));
    settings.push(("CHAT_WEBHOOK_AUDIENCE", "n8n".to_owned()));
    let app = TestApp::with(Options { settings, ..Options::default() }).await;
    let visitor = begin(&app).await;
    let client = visitor
        .client
        .with("x-user-id", "7")
        .with("x-forwarded-host", "evil.test")
        .with("accept", "application/json");
    let page = "https://shop.example.com/red";
    for (path, message) in [("message", "Hi"), ("stream", "/../rest/login"), ("stream", "x")] {
        let body = json!({ "message": message, "page_url": page });
        let answer = client.post(&format!("/api/v1/chat/{path}"), body).await.expect(200);
        let delivery = recorder.take().pop().unwrap();
        assert_eq!(delivery.request_line(), "POST /webhook/chat HTTP/1.1");
        let mut names = delivery.names();
        names.sort();
        names.dedup();
        assert_eq!(
            names,
            [
                "accept",
                "authorization",
                "content-length",
                "content-type",
                "host",
                "x-api-key",
                "x-request-id",
            ]
        );
        assert_eq!(delivery.all("content-type"), ["application/json"]);
        assert_eq!(delivery.all("x-api-key"), ["key-of-the-workflow"]);
        let sent: Value = serde_json::from_slice(&delivery.body).unwrap();
        assert_eq!(
            sent,
            json!({
                "action": "sendMessage",
                "sessionId": visitor.session,
                "chatInput": message,
                "metadata": {
                    "page_url": page,
                    "origin_domain": "shop.example.com",
                    "message_id": answer.text("message_id"),
                },
            })
        );
        let token = delivery.all("authorization")[0].strip_prefix("Bearer ").unwrap();
        let claims = jwt::part(token, 1);
        assert_eq!(jwt::part(token, 0)["alg"], "HS256");
        assert_eq!((&claims["aud"], &claims["iss"]), (&json!("n8n"), &json!("tollgate")));
        assert_eq!(
            (&claims["sub"], &claims["session_id"]),
            (&json!(visitor.session), &json!(visitor.session))
        );
        assert_eq!(claims["jti"], answer.json["message_id"]);
        assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 30);
        let mut rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::HS256);
        rules.set_audience(&["n8n"]);
        let decode = |secret: &str| {
            let key = jsonwebtoken::DecodingKey::from_secret(secret.as_bytes());
            jsonwebtoken::decode::<Value>(token, &key, &rules)
        };
        assert!(decode("another key of Gnus, 9876543210?").is_ok());
        assert!(decode("a shared key of Zebras, 0123456789!").is_err());
    }
}

/// A connection that could not be made is tried again; a request that was sent
/// is not, whatever became of it.
#[tokio::test]
async fn nothing_is_sent_twice() {
    let recorder = Recorder::start(|_| Reply::Reset).await;
    let app = chatting(&recorder).await;
    let visitor = begin(&app).await;
    for n in 1..=3 {
        visitor.ask(json!({ "message": "Hi" })).await.expect_problem(502, "upstream_failed");
        assert_eq!(recorder.deliveries().len(), n);
    }
}

#[tokio::test]
async fn a_workflow_that_keeps_failing_is_not_asked_for_a_while() {
    let recorder =
        Recorder::start(|_| Reply::Send(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n".to_vec()))
            .await;
    let app = chatting(&recorder).await;
    let visitor = begin(&app).await;
    let mut codes = vec![];
    for _ in 0..60 {
        let answer = visitor.ask(json!({ "message": "Hi" })).await;
        codes.push(answer.text("code").to_owned());
        if codes.last().unwrap() == "upstream_unavailable" {
            assert!(answer.headers.contains_key("retry-after"));
            break;
        }
    }
    assert_eq!(codes.last().unwrap(), "upstream_unavailable", "{codes:?}");
    assert_eq!(recorder.deliveries().len(), codes.len() - 1);
}

#[tokio::test]
async fn messages_are_limited_by_session_and_by_origin_and_told_so() {
    let recorder = Recorder::start(|_| Reply::Send(answer("text/plain", "ok"))).await;
    let mut by_session = settings(&recorder.url());
    by_session.push(("RATE_LIMIT_SESSION_PER_MINUTE", "3".to_owned()));
    by_session.push(("RATE_LIMIT_ORIGIN_PER_MINUTE", "5".to_owned()));
    by_session.retain(|(name, value)| *name != "RATE_LIMIT_SESSION_PER_MINUTE" || value == "3");
    let options = Options { settings: by_session, in_memory: true, ..Options::default() };
    let app = TestApp::with(options).await;
    let (one, other) = (begin(&app).await, begin(&app).await);
    for left in [2, 1, 0] {
        let answer = one.ask(json!({ "message": "Hi" })).await.expect(200);
        assert_eq!(answer.header("x-ratelimit-limit"), "3");
        assert_eq!(answer.header("x-ratelimit-remaining"), left.to_string());
    }
    let refused = one.ask(json!({ "message": "Hi" })).await.expect_problem(429, "rate_limited");
    assert_eq!(refused.json["limit"]["of"], "session", "{refused:?}");
    other.ask(json!({ "message": "Hi" })).await.expect(200);
    other.ask(json!({ "message": "Hi" })).await.expect(200);
    let refused = other.ask(json!({ "message": "Hi" })).await.expect_problem(429, "rate_limited");
    assert_eq!(refused.json["limit"]["of"], "origin");
    // Other sites are not held up by it.
    super::begin_at(&app, super::OTHER).await.ask(json!({ "message": "Hi" })).await.expect(200);
    assert_eq!(recorder.deliveries().len(), 6);
}

#[tokio::test]
async fn answers_are_metered() {
    let recorder = Recorder::start(hello).await;
    let app = chatting(&recorder).await;
    let visitor = begin(&app).await;
    visitor.ask(json!({ "message": "Hü" })).await.expect(200);
    let admin = app.admin().await;
    super::until("the record of the answer", async || {
        app.flush().await;
        let all = admin.get("/api/v1/usage/requests?all=true").await.expect(200);
        let items = all.json["items"].as_array().unwrap().clone();
        items.iter().any(|one| {
            one["upstream"] == "chat"
                && one["status"] == 200
                && one["bytes_in"] == 3
                && one["bytes_out"] == 5
                && one["outcome"] == "completed"
        })
    })
    .await;
}

/// A login changes nothing about where it comes from.
#[tokio::test]
async fn an_address_is_limited_with_a_login_as_without() {
    let recorder = Recorder::start(hello).await;
    let mut settings = settings(&recorder.url());
    settings.push(("RATE_LIMIT_PER_MINUTE", "5".to_owned()));
    let app = TestApp::with(Options { settings, in_memory: true, ..Options::default() }).await;
    let token = app.login("admin", crate::support::PASSWORD).await.expect(200);
    let token = token.text("access_token");
    for (address, login) in [("192.0.2.1", None), ("192.0.2.2", Some(token))] {
        let page = app.anonymous_from(address).with("origin", super::ORIGIN);
        let page = login.into_iter().fold(page, |page, token| page.with_bearer(token));
        let page = page.with("accept", "application/json");
        let body = json!({ "origin_domain": "shop.example.com" });
        let begun = page.post("/api/v1/session/create", body.clone()).await.expect(201);
        let cookie = format!("chat_session_id={}", super::cookie_of(&begun));
        let visitor = page.with("cookie", &cookie);
        let say = async || visitor.post("/api/v1/chat/message", json!({ "message": "q" })).await;
        for _ in 0..4 {
            say().await.expect(200);
        }
        for refused in [say().await, page.post("/api/v1/session/create", body).await] {
            let refused = refused.expect_problem(429, "rate_limited");
            assert_eq!(refused.json["limit"]["of"], "address", "{address}");
        }
    }
    assert_eq!(recorder.deliveries().len(), 8);
}
