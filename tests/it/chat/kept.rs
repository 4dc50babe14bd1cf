//! What is kept of conversations, for how long, and how it goes.

use chrono::TimeDelta;
use serde_json::json;
use tollgate::domain::clock::FakeClock;

use super::{Script, begin, chatting, hello, settings, until};
use crate::support::{Options, TestApp, epoch, recorder::Recorder, unique};

#[tokio::test]
async fn the_history_comes_in_pages_newest_first() {
    let recorder = Recorder::start(hello).await;
    let app = chatting(&recorder).await;
    let visitor = begin(&app).await;
    begin(&app).await.ask(json!({ "message": "not mine" })).await.expect(200);
    for n in 0..3 {
        let body = json!({ "message": format!("q{n}"), "client_message_id": format!("m{n}") });
        visitor.ask(body).await.expect(200);
    }
    let path = format!("/api/v1/chat/history/{}?limit=4", visitor.session);
    let page = visitor.client.get(&path).await.expect(200);
    let told = |page: &crate::support::Answer| -> Vec<String> {
        let items = page.json["items"].as_array().unwrap();
        items
            .iter()
            .map(|one| {
                format!("{} {}", one["role"].as_str().unwrap(), one["content"].as_str().unwrap())
            })
            .collect()
    };
    assert_eq!(told(&page), ["assistant Hello", "user q2", "assistant Hello", "user q1"]);
    assert_eq!(page.json["items"][1]["client_message_id"], "m2");
    let path = format!("{path}&cursor={}", page.text("next_cursor"));
    let page = visitor.client.get(&path).await.expect(200);
    assert_eq!(told(&page), ["assistant Hello", "user q0"]);
    assert_eq!(page.json["next_cursor"], json!(null));
    let all = visitor.client.get(&format!("/api/v1/chat/export/{}", visitor.session)).await;
    let all = all.expect(200);
    assert_eq!(all.json["messages"].as_array().unwrap().len(), 6);
    assert_eq!(all.json["messages"][0]["content"], "q0");
    assert_eq!(all.text("page_url"), "https://shop.example.com/shoes");
}

#[tokio::test]
async fn a_visitor_deletes_everything_also_while_an_answer_comes() {
    let script = Script::default();
    let recorder = script.start().await;
    let app = chatting(&recorder).await;
    let (visitor, other) = (begin(&app).await, begin(&app).await);
    let (question, kept) = (unique("q"), unique("q"));
    let mut stream = visitor.stream(&question).await;
    let id = stream.start().await;
    script.item(&question, "some").await;
    assert_eq!(stream.next().await.unwrap().id, 4);
    assert_eq!(visitor.history().await[0]["content"], "some", "as far as it is known");
    let path = format!("/api/v1/chat/history/{}", visitor.session);
    let deleted = visitor.client.delete(&path).await.expect(204);
    assert!(deleted.header("set-cookie").contains("Max-Age=0"));
    let (_, _, end) = stream.rest().await;
    assert_eq!(end.name, "error");
    visitor.client.get(&path).await.expect_problem(401, "invalid_credential");
    assert_eq!(visitor.resume(&id, None).await.status, 401);
    // What still comes of it holds nobody else up.
    let mut stream = other.stream(&kept).await;
    stream.start().await;
    script.item(&question, "more").await;
    script.item(&kept, "kept").await;
    script.end(&kept).await;
    assert_eq!(stream.rest().await.0, "kept");
    until("its place is free", async || {
        script.item(&question, "more").await;
        app.app.services.chat.under_way() == 0
    })
    .await;
}

#[tokio::test]
async fn conversations_are_forgotten_after_their_retention() {
    let recorder = Recorder::start(hello).await;
    let clock = FakeClock::starting_at(epoch());
    let mut settings = settings(&recorder.url());
    settings.push(("CHAT_RETENTION_DAYS", "2".to_owned()));
    let options = Options { settings, clock: clock.clone(), in_memory: true, ..Options::default() };
    let app = TestApp::with(options).await;
    let old = begin(&app).await;
    old.ask(json!({ "message": "q" })).await.expect(200);
    clock.advance(TimeDelta::days(1));
    let new = begin(&app).await;
    let chat = &app.app.services.chat;
    let is_there = async |id: &str| chat.session(id.parse().unwrap()).await.is_ok();
    // A day of life and two of retention.
    clock.advance(TimeDelta::days(2) - TimeDelta::seconds(1));
    chat.prune().await.unwrap();
    assert!(is_there(&old.session).await && is_there(&new.session).await);
    clock.advance(TimeDelta::seconds(1));
    chat.prune().await.unwrap();
    assert!(!is_there(&old.session).await && is_there(&new.session).await);
}
