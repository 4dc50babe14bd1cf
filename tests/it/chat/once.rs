//! A message goes to the workflow once, however often it is sent.

use std::sync::Arc;

use chrono::TimeDelta;
use futures_util::future::join_all;
use serde_json::json;
use tollgate::domain::clock::FakeClock;

use super::{Script, begin, chatting, hello, settings, two, until};
use crate::support::{Options, TestApp, epoch, recorder::Recorder, unique};

#[tokio::test]
async fn a_message_that_is_sent_again_is_answered_again_and_not_asked_again() {
    let recorder = Recorder::start(hello).await;
    let app = chatting(&recorder).await;
    let visitor = begin(&app).await;
    let body = json!({ "message": "q", "client_message_id": "m-1" });
    let first = visitor.ask(body.clone()).await.expect(200);
    let again = visitor.ask(body.clone()).await.expect(200);
    assert_eq!(first.json, again.json);
    let mut stream = visitor.stream_body(body).await;
    assert_eq!(stream.start().await, first.text("message_id"));
    assert_eq!(stream.rest().await.0, "Hello");
    assert_eq!(recorder.deliveries().len(), 1);
    // The name belongs to one text, in one conversation.
    let other = json!({ "message": "other", "client_message_id": "m-1" });
    visitor.ask(other.clone()).await.expect_problem(409, "conflict");
    begin(&app).await.ask(other).await.expect(200);
    assert_eq!(recorder.deliveries().len(), 2);
    assert_eq!(visitor.history().await.len(), 2);
}

/// Fifty at once, over two instances.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_fifty_who_send_one_message_at_once_one_asks() {
    let script = Script::default();
    let recorder = script.start().await;
    let mut groups = two(&recorder).await;
    groups.push(vec![chatting(&recorder).await]);
    for apps in groups {
        let visitor = begin(&apps[0]).await;
        let question = unique("q");
        let body = json!({ "message": question, "client_message_id": unique("m") });
        let asking = join_all((0..50).map(|n| {
            let (visitor, body) = (visitor.at(&apps[n % apps.len()]), body.clone());
            tokio::spawn(async move {
                let mut stream = visitor.stream_body(body).await;
                let id = stream.start().await;
                (id, stream.rest().await)
            })
        }));
        let saying = async {
            script.item(&question, "one ").await;
            script.item(&question, "two").await;
            script.end(&question).await;
        };
        let (answers, ()) = tokio::join!(asking, saying);
        let answers: Vec<_> = answers.into_iter().map(|answer| answer.unwrap()).collect();
        for (id, (text, upto, end)) in &answers {
            assert_eq!(*id, answers[0].0);
            assert_eq!((text.as_str(), *upto, end.name.as_str()), ("one two", 7, "end"));
        }
        let asked = recorder.take();
        assert_eq!(asked.len(), 1);
    }
}

/// What a killed process leaves is one answer that failed, and no second call.
#[tokio::test]
async fn an_answer_whose_process_is_gone_fails_after_its_lease() {
    let script = Script::default();
    let recorder = script.start().await;
    let clock: Arc<FakeClock> = FakeClock::starting_at(epoch());
    let options = || Options {
        settings: settings(&recorder.url()),
        clock: clock.clone(),
        ..Options::default()
    };
    let gone = TestApp::with(options()).await;
    let database = gone.database.clone();
    let visitor = begin(&gone).await;
    let question = unique("q");
    let body = json!({ "message": question, "client_message_id": "m-1" });
    let mut stream = visitor.stream_body(body.clone()).await;
    let id = stream.start().await;
    script.item(&question, "begun").await;
    assert_eq!(stream.next().await.unwrap().id, 5);
    until("what was begun is stored", async || {
        use tollgate::repositories::Repositories as _;
        let mut session = gone.app.db.session().await.unwrap();
        !session.chat().pieces(id.parse().unwrap(), 0).await.unwrap().is_empty()
    })
    .await;
    // Its writer dies with it, as by a kill.
    drop(stream);
    drop(gone);
    let mut successor = options();
    successor.database = Some(database);
    let app = TestApp::with(successor).await;
    let visitor = visitor.at(&app);
    let mut following = visitor.resume(&id, None).await;
    following.start().await;
    assert_eq!(following.next().await.unwrap().data["content"], "begun");
    app.app.services.chat.end_abandoned().await.unwrap();
    assert_eq!(visitor.history().await[0]["status"], "streaming", "its lease is not over");
    clock.advance(TimeDelta::seconds(31));
    app.app.services.chat.end_abandoned().await.unwrap();
    let (_, _, error) = following.rest().await;
    assert_eq!((error.name.as_str(), &error.data["code"]), ("error", &json!("answer_interrupted")));
    let last = &visitor.history().await[0];
    assert_eq!((&last["status"], &last["failure"]), (&json!("failed"), &json!("interrupted")));
    assert_eq!(last["content"], "begun");
    let again = visitor.ask(body).await;
    again.expect_problem(503, "answer_interrupted");
    assert_eq!(recorder.deliveries().len(), 1);
}
