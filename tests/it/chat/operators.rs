//! What operators see and end, and who is one.

use serde_json::json;

use super::{ORIGIN, Script, begin, begin_at, chatting, hello, settings};
use crate::support::{Options, PASSWORD, TestApp, recorder::Recorder, unique};

const SESSIONS: &str = "/api/v1/admin/chat/sessions";

#[tokio::test]
async fn operators_see_read_and_end_conversations_and_nobody_else_does() {
    let recorder = Recorder::start(hello).await;
    let app = chatting(&recorder).await;
    let (ada, eve) = (begin(&app).await, begin_at(&app, super::OTHER).await);
    ada.ask(json!({ "message": "q" })).await.expect(200);
    let admin = app.admin().await;
    let name = unique("mo");
    let id = app.register(&name).await.text("id").to_owned();
    let user = app.log_in(&name, PASSWORD).await;
    let one = format!("{SESSIONS}/{}", ada.session);
    let history = format!("/api/v1/chat/history/{}", ada.session);
    user.get(SESSIONS).await.expect_problem(403, "role_required");
    user.get(&history).await.expect_problem(401, "unauthenticated");
    let export = format!("/api/v1/chat/export/{}", ada.session);
    user.get(&export).await.expect_problem(401, "unauthenticated");
    let roles = json!({ "roles": ["user", "moderator"] });
    admin.patch(&format!("/api/v1/admin/users/{id}"), roles).await.expect(200);
    let moderator = app.log_in(&name, PASSWORD).await;
    let all = moderator.get(SESSIONS).await.expect(200);
    let ids: Vec<_> =
        all.json["items"].as_array().unwrap().iter().map(|s| &s["session_id"]).collect();
    assert_eq!(ids, [&json!(eve.session), &json!(ada.session)]);
    for (query, count) in [
        ("origin_domain=shop.example.com", 1),
        ("origin_domain=example.com", 0),
        ("is_active=true", 2),
        ("is_active=false", 0),
        ("limit=1", 1),
    ] {
        let some = moderator.get(&format!("{SESSIONS}?{query}")).await.expect(200);
        assert_eq!(some.json["items"].as_array().unwrap().len(), count, "{query}");
    }
    let shown = moderator.get(&one).await.expect(200);
    assert_eq!((&shown.json["messages"], &shown.json["is_active"]), (&json!(2), &json!(true)));
    let text = String::from_utf8_lossy(&shown.body).into_owned();
    assert!(!text.contains("tgc_") && !text.contains("hash"), "{text}");
    assert_eq!(moderator.get(&history).await.expect(200).json["items"][1]["content"], "q");
    // Moderators change nothing.
    moderator.delete(&one).await.expect_problem(403, "role_required");
    moderator.delete(&history).await.expect_problem(401, "unauthenticated");
    // What a visitor takes away is nobody's business.
    ada.client.get(&export).await.expect(200);
    assert_eq!(moderator.get(&export).await.expect(200).json["messages"][0]["content"], "q");
    admin.delete(&one).await.expect(204);
    admin.delete(&one).await.expect_problem(404, "not_found");
    ada.ask(json!({ "message": "q" })).await.expect_problem(401, "invalid_credential");
    assert_eq!(moderator.get(&one).await.expect(200).json["is_active"], false);
    admin.delete(&history).await.expect(204);
    moderator.get(&one).await.expect_problem(404, "not_found");
    // What was done by somebody else than the visitor is on record.
    let log = format!("/api/v1/admin/audit?target={}", ada.session);
    let log = moderator.get(&log).await.expect(200);
    let log = log.json["items"].as_array().unwrap();
    let done: Vec<_> = log.iter().map(|row| row["action"].as_str().unwrap()).collect();
    assert_eq!(done, ["chat.deleted", "chat_session.ended", "chat.exported"]);
    for (row, who) in log.iter().zip(["admin", "admin", name.as_str()]) {
        assert_eq!((&row["actor_name"], &row["before"]["messages"]), (&json!(who), &json!(2)));
    }
    let metrics = app.anonymous().get("/metrics").await.expect(200);
    let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
    assert!(metrics.contains("tollgate_chat_answers_total{end=\"complete\"}"), "{metrics}");
    assert!(metrics.contains("tollgate_chat_answers_in_flight 0"));
    for event in ["created", "ended", "deleted"] {
        let series = format!("tollgate_chat_sessions_total{{event=\"{event}\"}}");
        assert!(metrics.contains(&series), "{series} in {metrics}");
    }
    assert!(metrics.contains("tollgate_chat_messages_total{result=\"asked\"}"), "{metrics}");
}

#[tokio::test]
async fn operators_see_how_much_is_open_and_what_limits_refused() {
    const METRICS: &str = "/api/v1/admin/metrics";
    let script = Script::default();
    let recorder = script.start().await;
    let mut settings = settings(&recorder.url());
    settings.push(("RATE_LIMIT_SESSION_PER_MINUTE", "1".to_owned()));
    settings.push(("SERVER_MAX_STREAMS", "77".to_owned()));
    settings.push(("CHAT_MAX_ANSWERS", "55".to_owned()));
    let app = TestApp::with(Options { settings, in_memory: true, ..Options::default() }).await;
    let admin = app.admin().await;
    let idle = admin.get(METRICS).await.expect(200);
    assert_eq!(idle.json["connections"]["open"], 0);
    assert_eq!(idle.json["rate_limits"]["refused"], json!({}));
    let visitor = begin(&app).await;
    let mut stream = visitor.stream("q").await;
    stream.start().await;
    for _ in 0..2 {
        visitor.ask(json!({ "message": "more" })).await.expect_problem(429, "rate_limited");
    }
    let busy = admin.get(METRICS).await.expect(200);
    assert_eq!(
        busy.json["connections"],
        json!({
            "open": 1, "limit": 77, "event_streams": 1, "websockets": 0, "downloads": 0,
            "uploads": 0, "chat_answers": 1, "chat_answers_limit": 55,
        })
    );
    let limits = &busy.json["rate_limits"];
    assert_eq!(limits["refused"], json!({ "session": 2 }));
    assert_eq!((&limits["shared"], &limits["decisions"]), (&json!(false), &json!(null)));
    assert_eq!(busy.json["instances"], 1);
    let text = app.anonymous().get("/metrics").await.expect(200);
    let text = String::from_utf8_lossy(&text.body).into_owned();
    let refused = r#"tollgate_limit_results_total{tier="session",decision="refused"}"#;
    assert!(text.contains(refused), "{text}");
    script.end("q").await;
    assert_eq!(stream.rest().await.2.name, "end");
}

#[tokio::test]
async fn a_session_knows_who_was_logged_in_where_it_began() {
    let recorder = Recorder::start(hello).await;
    let app = chatting(&recorder).await;
    let user = app.user(&unique("ada")).await;
    let id = user.get("/api/v1/users/me").await.expect(200).text("id").to_owned();
    let body = json!({ "origin_domain": "shop.example.com" });
    let page = user.with("origin", ORIGIN);
    page.post("/api/v1/session/create", body.clone()).await.expect(201);
    begin(&app).await;
    let mine = app.admin().await.get(&format!("{SESSIONS}?user_id={id}")).await.expect(200);
    assert_eq!(mine.json["items"].as_array().unwrap().len(), 1);
    assert_eq!(mine.json["items"][0]["user_id"], id.as_str());
    let bad = app.anonymous().with("origin", ORIGIN).with_bearer("x.y.z");
    bad.post("/api/v1/session/create", body).await.expect_problem(401, "invalid_credential");
}

#[tokio::test]
async fn without_a_workflow_there_are_no_chats() {
    let app = TestApp::configured([("ALLOWED_ORIGINS", ORIGIN)]).await;
    let page = app.anonymous().with("origin", ORIGIN);
    let body = json!({ "origin_domain": "shop.example.com" });
    page.post("/api/v1/session/create", body).await.expect_problem(404, "not_found");
    page.get("/api/v1/session/validate").await.expect_problem(404, "not_found");
}
