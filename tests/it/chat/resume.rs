//! An answer goes on when its reader leaves, and can be read from anywhere.

use serde_json::json;

use super::{Script, begin, chatting, hello, two, until};
use crate::support::recorder::Recorder;

#[tokio::test]
async fn an_answer_goes_on_without_its_reader() {
    let script = Script::default();
    let recorder = script.start().await;
    let app = chatting(&recorder).await;
    let visitor = begin(&app).await;
    let mut stream = visitor.stream("q").await;
    let id = stream.start().await;
    script.item("q", "one ").await;
    assert_eq!(stream.next().await.unwrap().data["content"], "one ");
    drop(stream);
    // Not even a moment later.
    script.item("q", "two ").await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    script.item("q", "three").await;
    script.end("q").await;
    until("the answer is complete", async || visitor.history().await[0]["status"] == "complete")
        .await;
    assert_eq!(visitor.history().await[0]["content"], "one two three");
    let mut again = visitor.resume(&id, Some("4")).await;
    let (text, upto, end) = again.rest().await;
    assert_eq!((text.as_str(), upto, end.name.as_str()), ("two three", 13, "end"));
    assert_eq!(recorder.deliveries().len(), 1);
}

#[tokio::test]
async fn an_answer_is_read_from_any_byte_and_only_the_rest_of_it() {
    let recorder =
        Recorder::start(|_| super::Reply::Send(super::answer("text/plain", "aü😀b"))).await;
    let app = chatting(&recorder).await;
    let visitor = begin(&app).await;
    let answer = visitor.ask(json!({ "message": "q" })).await.expect(200);
    let id = answer.text("message_id");
    for (last, rest) in [
        (None, "aü😀b"),
        (Some("0"), "aü😀b"),
        (Some("1"), "ü😀b"),
        (Some("3"), "😀b"),
        // Within a character: from its beginning.
        (Some("5"), "😀b"),
        (Some("8"), ""),
    ] {
        let mut stream = visitor.resume(id, last).await;
        if last.is_none() {
            assert_eq!(stream.start().await, id);
        }
        let (text, _, end) = stream.rest().await;
        assert_eq!((text.as_str(), end.name.as_str(), end.id), (rest, "end", 9), "{last:?}");
    }
    // A browser that is told so does not come again.
    for last in ["9", "99999999"] {
        assert_eq!(visitor.resume(id, Some(last)).await.status, 204);
    }
    for last in ["x", "-1", "1.5", "99999999999999999999999"] {
        assert_eq!(visitor.resume(id, Some(last)).await.status, 422, "{last}");
    }
}

/// G-131: a stranger's message is like none.
#[tokio::test]
async fn nobody_reads_the_answers_of_others() {
    let recorder = Recorder::start(hello).await;
    let app = chatting(&recorder).await;
    let (ada, eve) = (begin(&app).await, begin(&app).await);
    let answer = ada.ask(json!({ "message": "q" })).await.expect(200);
    let question = ada.history().await[1]["id"].as_str().unwrap().to_owned();
    let missing = uuid::Uuid::now_v7().to_string();
    assert_eq!(eve.resume(answer.text("message_id"), None).await.status, 404);
    assert_eq!(eve.resume(&missing, None).await.status, 404);
    assert_eq!(ada.resume(&question, None).await.status, 404, "a question is no answer");
    for id in [&ada.session, &missing] {
        for path in ["history", "export"] {
            let path = format!("/api/v1/chat/{path}/{id}");
            eve.client.get(&path).await.expect_problem(404, "not_found");
        }
        let path = format!("/api/v1/chat/history/{id}");
        eve.client.delete(&path).await.expect_problem(404, "not_found");
    }
    assert_eq!(ada.history().await.len(), 2);
}

/// While it comes, from the instance that does not have it; with Redis and
/// without.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_followed_from_another_instance() {
    let script = Script::default();
    let recorder = script.start().await;
    for apps in two(&recorder).await {
        let [here, there] = &apps[..] else { unreachable!("two were asked for") };
        let visitor = begin(here).await;
        let question = crate::support::unique("q");
        let mut stream = visitor.stream(&question).await;
        let id = stream.start().await;
        let elsewhere = visitor.at(there);
        // One reads from the beginning, one goes on within a piece.
        script.item(&question, "first ").await;
        assert_eq!(stream.next().await.unwrap().id, 6);
        let mut whole = elsewhere.resume(&id, None).await;
        whole.start().await;
        assert_eq!(whole.next().await.unwrap().data["content"], "first ");
        let mut part = elsewhere.resume(&id, Some("3")).await;
        assert_eq!(part.next().await.unwrap().data["content"], "st ");
        script.item(&question, "sec").await;
        script.item(&question, "ond").await;
        script.end(&question).await;
        for stream in [&mut stream, &mut whole, &mut part] {
            let (text, upto, end) = stream.rest().await;
            assert_eq!((text.as_str(), upto, end.name.as_str()), ("second", 12, "end"));
        }
        let mut later = elsewhere.resume(&id, Some("6")).await;
        assert_eq!(later.rest().await.0, "second");
    }
}
