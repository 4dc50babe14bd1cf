//! Answers as they come: at once, to all, and to a good end.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{Script, begin, chatting, settings, two, until};
use crate::support::{LATE, Options, TestApp, assert_in_time, recorder::Recorder, unique};

/// Each piece is there before the next one is written, so nothing is gathered.
#[tokio::test]
async fn every_piece_is_handed_on_at_once() {
    let script = Script::default();
    let recorder = script.start().await;
    let app = chatting(&recorder).await;
    let visitor = begin(&app).await;
    let mut stream = visitor.stream("q").await;
    stream.start().await;
    script.write("q", r#"{"type":"begin"}{"type":"it"#).await;
    script.write("q", r#"em","content":"first"}"#).await;
    assert_eq!(stream.next().await.unwrap().data, json!({ "content": "first" }));
    let mut taken = vec![];
    for n in 0..20 {
        let begun = Instant::now();
        script.item("q", &format!(" {n}")).await;
        let event = stream.next().await.unwrap();
        taken.push(begun.elapsed());
        assert_eq!(event.data, json!({ "content": format!(" {n}") }));
    }
    // The database is written twice a second; nobody waits for that.
    assert_in_time(Duration::from_millis(50), &taken, "a piece");
    script.end("q").await;
    assert_eq!(stream.rest().await.2.name, "end");
}

/// The first of them ends, and the others go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_answers_at_once_stay_apart() {
    const MANY: usize = 60;
    let script = Script::default();
    let recorder = script.start().await;
    let app = chatting(&recorder).await;
    let mut reading = vec![];
    for n in 0..MANY {
        let visitor = begin(&app).await;
        reading.push(tokio::spawn(async move {
            let mut stream = visitor.stream(&format!("q{n}")).await;
            let id = stream.start().await;
            (id, stream.rest().await)
        }));
    }
    for round in 0..5 {
        for n in 0..MANY {
            script.item(&format!("q{n}"), &format!("{n}.{round} ")).await;
        }
    }
    for n in 0..MANY {
        script.end(&format!("q{n}")).await;
    }
    for (n, answer) in join_all(reading).await.into_iter().enumerate() {
        let (_, (text, _, end)) = answer.unwrap();
        let expected = [0, 1, 2, 3, 4].map(|round| format!("{n}.{round} ")).concat();
        assert_eq!((text, end.name.as_str()), (expected, "end"));
    }
    until("all are written", async || app.app.services.chat.under_way() == 0).await;
}

/// G-126: also on the instance where it was not ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_session_ends_its_streams() {
    let script = Script::default();
    let recorder = script.start().await;
    let mut groups = two(&recorder).await;
    groups.push(vec![chatting(&recorder).await]);
    for apps in groups {
        let visitor = begin(&apps[0]).await;
        let question = unique("q");
        let mut stream = visitor.at(apps.last().unwrap()).stream(&question).await;
        stream.start().await;
        script.item(&question, "some").await;
        assert_eq!(stream.next().await.unwrap().data["content"], "some");
        let begun = Instant::now();
        visitor.client.delete("/api/v1/session").await.expect(204);
        let (_, _, end) = stream.rest().await;
        assert_eq!((end.name.as_str(), &end.data["code"]), ("error", &json!("invalid_credential")));
        assert!(begun.elapsed() < Duration::from_secs(2) + LATE, "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn operators_see_and_cut_what_is_open() {
    let script = Script::default();
    let recorder = script.start().await;
    let app = chatting(&recorder).await;
    let visitor = begin(&app).await;
    let mut stream = visitor.stream("q").await;
    let id = stream.start().await;
    let admin = app.admin().await;
    let open = admin.get("/api/v1/admin/connections").await.expect(200);
    let open = &open.json["items"][0];
    assert_eq!((&open["upstream"], &open["kind"]), (&json!("chat"), &json!("sse")));
    let path = format!("/api/v1/admin/connections/{}", open["id"].as_str().unwrap());
    admin.delete(&path).await.expect(204);
    let (_, _, end) = stream.rest().await;
    assert_eq!((end.name.as_str(), &end.data["code"]), ("error", &json!("forbidden")));
    // The connection was cut, not the answer.
    script.item("q", "whole").await;
    script.end("q").await;
    let mut again = visitor.resume(&id, Some("0")).await;
    let (text, _, end) = again.rest().await;
    assert_eq!((text.as_str(), end.name.as_str()), ("whole", "end"));
}

#[tokio::test]
async fn there_are_no_more_answers_at_once_than_configured() {
    let script = Script::default();
    let recorder = script.start().await;
    let mut settings = settings(&recorder.url());
    settings.push(("CHAT_MAX_ANSWERS", "1".to_owned()));
    let app = TestApp::with(Options { settings, ..Options::default() }).await;
    let visitor = begin(&app).await;
    let mut stream = visitor.stream("q").await;
    stream.start().await;
    let refused = visitor.ask(json!({ "message": "more" })).await;
    assert!(refused.expect_problem(503, "overloaded").headers.contains_key("retry-after"));
    assert_eq!(visitor.history().await.len(), 2, "it was not said");
    script.end("q").await;
    assert_eq!(stream.rest().await.2.name, "end");
    until("a place is free", async || app.app.services.chat.under_way() == 0).await;
    let mut stream = visitor.stream("next").await;
    stream.start().await;
    script.end("next").await;
    assert_eq!(stream.rest().await.2.name, "end");
}

/// Who cannot read the answer is told before anything is asked.
#[tokio::test]
async fn chats_are_among_the_streams_that_may_be_open() {
    let script = Script::default();
    let recorder = script.start().await;
    let mut settings = settings(&recorder.url());
    settings.push(("SERVER_MAX_STREAMS", "1".to_owned()));
    let app = TestApp::with(Options { settings, ..Options::default() }).await;
    let (visitor, other) = (begin(&app).await, begin(&app).await);
    let mut stream = visitor.stream("q").await;
    let id = stream.start().await;
    assert_eq!(visitor.resume(&id, None).await.status, 503);
    let body = json!({ "message": "more" });
    let refused = other.client.post("/api/v1/chat/message", body).await;
    assert!(refused.expect_problem(503, "overloaded").headers.contains_key("retry-after"));
    assert!(other.history().await.is_empty(), "it was not said");
    script.end("q").await;
    assert_eq!(stream.rest().await.2.name, "end");
    drop(stream);
    until("the place is free", async || visitor.resume(&id, None).await.status == 200).await;
    assert_eq!(recorder.deliveries().len(), 1);
}

/// G-61: what can end in time does, the rest is told that it did not.
#[tokio::test]
async fn a_stop_waits_for_answers_and_then_ends_them() {
    let script = Script::default();
    let recorder = script.start().await;
    let app = chatting(&recorder).await;
    let visitor = begin(&app).await;
    let (mut short, mut long) = (visitor.stream("short").await, visitor.stream("long").await);
    short.start().await;
    long.start().await;
    script.item("long", "some").await;
    assert_eq!(long.next().await.unwrap().data["content"], "some");
    app.app.services.streams.go_away();
    let chat = app.app.services.chat.clone();
    let leaving = tokio::spawn(async move { chat.leave(sleep(Duration::from_secs(1))).await });
    script.item("short", "whole").await;
    script.end("short").await;
    let (text, _, end) = short.rest().await;
    assert_eq!((text.as_str(), end.name.as_str()), ("whole", "end"));
    visitor.ask(json!({ "message": "more" })).await.expect_problem(503, "overloaded");
    let (_, _, end) = long.rest().await;
    assert_eq!((end.name.as_str(), &end.data["code"]), ("error", &json!("answer_interrupted")));
    leaving.await.unwrap();
    let last = &visitor.history().await[0];
    assert_eq!((&last["status"], &last["content"]), (&json!("failed"), &json!("some")));
}

/// A reader that takes nothing costs nothing: what it missed comes in one piece.
#[tokio::test]
async fn a_slow_reader_holds_up_nobody() {
    let recorder =
        Recorder::start(|_| super::Reply::Send(super::answer("text/plain", &"x".repeat(600_000))))
            .await;
    let app = chatting(&recorder).await;
    let visitor = begin(&app).await;
    let body = json!({ "message": "q", "client_message_id": "m" });
    let mut slow = visitor.stream_body(body.clone()).await;
    let quick = visitor.ask(body).await.expect(200);
    assert_eq!(quick.text("content").len(), 600_000);
    slow.start().await;
    assert_eq!(slow.rest().await.0.len(), 600_000);
}
