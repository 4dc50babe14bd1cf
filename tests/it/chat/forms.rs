//! What workflows answer, and what visitors read of it.

use serde_json::{Value, json};

use super::{SOON, answer, begin, chatting, hello};
use crate::{
    problems,
    support::recorder::{Recorder, Reply},
};

/// The workflow answers with what it is asked.
async fn parrot() -> Recorder {
    Recorder::start(|delivery| {
        let asked: Value = serde_json::from_slice(&delivery.body).unwrap();
        let text = asked["chatInput"].as_str().unwrap();
        let (kind, text) = text.split_once('|').unwrap();
        Reply::Send(answer(kind, text))
    })
    .await
}

#[tokio::test]
async fn every_form_of_answer_arrives_as_text_both_ways() {
    let recorder = parrot().await;
    let app = chatting(&recorder).await;
    let visitor = begin(&app).await;
    for (form, expected) in [
        (
            r#"application/json|{"type":"begin"}{"type":"item","content":"H{"}{"type":"item","content":"}ü"}{"type":"end"}"#,
            "H{}ü",
        ),
        ("text/event-stream|data: {\"type\":\"item\",\"content\":\"a\"}\n\ndata: b\n\n", "ab"),
        (r#"application/json|[{"output":"a"},{"text":"b"}]"#, "a\nb"),
        (
            r#"application/json|{"message":"<script>alert(1)</script>"}"#,
            "<script>alert(1)</script>",
        ),
        ("text/plain|as it is", "as it is"),
        ("application/json|[]", ""),
    ] {
        let whole = visitor.ask(json!({ "message": form })).await.expect(200);
        assert_eq!(whole.text("content"), expected, "{form}");
        assert_eq!(whole.json["usage"]["output_bytes"], expected.len());
        let mut stream = visitor.stream(form).await;
        assert_eq!(stream.headers["content-type"], "text/event-stream");
        assert_eq!(stream.headers["x-accel-buffering"], "no");
        assert_eq!(stream.headers["cache-control"], "no-store");
        let id = stream.start().await;
        let (text, upto, end) = stream.rest().await;
        assert_eq!((text.as_str(), upto), (expected, expected.len() as u64), "{form}");
        assert_eq!((end.name.as_str(), end.id), ("end", expected.len() as u64 + 1));
        assert_eq!(end.data["message_id"], id.as_str());
        assert_eq!(end.data["usage"]["output_bytes"], expected.len());
    }
    let told = visitor.history().await;
    assert_eq!(told.len(), 24);
    assert_eq!((&told[0]["role"], &told[0]["content"]), (&json!("assistant"), &json!("")));
    assert!(told.iter().all(|one| one["status"] == "complete"));
}

/// Nothing of what the workflow says about its failure reaches a visitor.
#[tokio::test]
async fn failures_are_problems_without_inner_words() {
    let recorder = Recorder::start(|delivery| {
        let asked: Value = serde_json::from_slice(&delivery.body).unwrap();
        let text = "secret of 10.0.0.1";
        match asked["chatInput"].as_str().unwrap() {
            "reported" => Reply::Send(answer("application/json", &format!(
                r#"{{"type":"begin"}}{{"type":"item","content":"some"}}{{"type":"error","content":"{text}"}}"#
            ))),
            "event" => Reply::Send(answer("text/event-stream", &format!(
                "data: some\n\nevent: error\ndata: {text}\n\n"
            ))),
            "status" => Reply::Send(
                format!("HTTP/1.1 404 Not Found\r\ncontent-length: {}\r\n\r\n{text}", text.len())
                    .into_bytes(),
            ),
            "redirect" => Reply::Send(
                b"HTTP/1.1 302 Found\r\nlocation: http://10.0.0.1/\r\ncontent-length: 0\r\n\r\n"
                    .to_vec(),
            ),
            "nonsense" => Reply::Send(answer("application/json", r#"{"secret": "of 10.0.0.1"}"#)),
            "large" => Reply::Send(answer("text/plain", &"x".repeat(1100 * 1024))),
            "reset" => Reply::Reset,
            _ => Reply::SendThenReset(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 99\r\n\r\nsome"
                    .to_vec(),
            ),
        }
    })
    .await;
    let app = chatting(&recorder).await;
    let visitor = begin(&app).await;
    let path = "/api/v1/chat/message";
    for message in ["reported", "event", "status", "redirect", "nonsense", "large", "reset", "cut"]
    {
        let answer = visitor.ask(json!({ "message": message })).await;
        let answer = answer.expect_problem(502, "upstream_failed");
        problems::check(&answer, path);
        assert!(!String::from_utf8_lossy(&answer.body).contains("secret"));
        let mut stream = visitor.stream(message).await;
        stream.start().await;
        let (text, upto, error) = stream.rest().await;
        assert!(text.is_empty() || text == "some" || message == "large", "{message}: {text}");
        assert_eq!((error.name.as_str(), error.id), ("error", upto + 1), "{message}");
        assert_eq!(error.data["code"], "upstream_failed");
        assert_eq!(error.data["instance"], path);
        assert!(!error.data.to_string().contains("secret"), "{message}");
        let last = &visitor.history().await[0];
        assert_eq!((&last["status"], &last["failure"]), (&json!("failed"), &json!("failed")));
        assert_eq!(last["content"], text, "{message}: as far as it was told");
    }
}

#[tokio::test]
async fn a_workflow_that_says_nothing_is_given_up() {
    let recorder = Recorder::start(|_| Reply::Hang).await;
    let mut settings = super::settings(&recorder.url());
    settings.push(("CHAT_WEBHOOK_TIMEOUT_SECONDS", "1".to_owned()));
    let options = crate::support::Options { settings, ..crate::support::Options::default() };
    let app = crate::support::TestApp::with(options).await;
    let visitor = begin(&app).await;
    let asked = tokio::time::timeout(SOON, visitor.ask(json!({ "message": "hi" })));
    asked.await.unwrap().expect_problem(504, "upstream_timeout");
}

#[tokio::test]
async fn what_is_no_message_is_refused_before_the_workflow_is_asked() {
    let recorder = Recorder::start(hello).await;
    let app = chatting(&recorder).await;
    let visitor = begin(&app).await;
    let long = "x".repeat(4001);
    let name = "x".repeat(129);
    for (body, field) in [
        (json!({ "message": "" }), "message"),
        (json!({ "message": " \n" }), "message"),
        (json!({ "message": "a\u{0}" }), "message"),
        (json!({ "message": "a\u{1b}[0m" }), "message"),
        (json!({ "message": long }), "message"),
        (json!({ "message": 7 }), "message"),
        (json!({ "message": "a", "role": "assistant" }), "role"),
        (json!({}), "body"),
        (json!({ "message": "a", "page_url": "javascript:alert(1)" }), "page_url"),
        (json!({ "message": "a", "client_message_id": name }), "client_message_id"),
        (json!({ "message": "a", "client_message_id": "" }), "client_message_id"),
        (json!({ "message": "a", "client_message_id": "a b" }), "client_message_id"),
    ] {
        let refused = visitor.ask(body.clone()).await.expect_problem(422, "validation_failed");
        assert_eq!(refused.json["errors"][0]["field"], field, "{body}");
    }
    let deep = format!("{{\"message\":{}1{}}}", "[".repeat(80), "]".repeat(80));
    let deep = visitor.client.send(
        http::Method::POST,
        "/api/v1/chat/message",
        Some("application/json"),
        deep.into(),
    );
    deep.await.expect_problem(400, "invalid_json");
    assert!(recorder.deliveries().is_empty() && visitor.history().await.is_empty());
    // In its composed form.
    visitor.ask(json!({ "message": " u\u{308}\r\nx " })).await.expect(200);
    let asked: Value = serde_json::from_slice(&recorder.deliveries()[0].body).unwrap();
    assert_eq!(asked["chatInput"], "ü\nx");
}
