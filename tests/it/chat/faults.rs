//! Answers while the database loses commits, is slow, or has what nobody writes.

use std::{sync::Arc, time::Duration};

use chrono::TimeDelta;
use serde_json::json;
use sqlx::postgres::PgConnectOptions;
use tollgate::{
    domain::{chat::joined, clock::FakeClock},
    repositories::Repositories as _,
};

use super::{Script, Visitor, begin, settings, until};
use crate::support::{
    Options, TestApp, TestDatabase, epoch,
    fault::{Faults, Proxy, Way},
    recorder::Recorder,
    unique,
};

/// An instance, and another one that has a network to the database; `None` on
/// SQLite.
async fn behind_a_proxy(recorder: &Recorder) -> Option<(TestApp, TestApp, Proxy)> {
    let database = Arc::new(TestDatabase::fresh().await);
    let TestDatabase::Postgres { server, name } = &*database else { return None };
    let options: PgConnectOptions = server.parse().unwrap();
    let address = format!("{}:{}", options.get_host(), options.get_port());
    let proxy = Proxy::start(address.clone()).await;
    let server = server.replace(&address, &proxy.address().to_string());
    assert!(server.contains(&proxy.address().to_string()), "TEST_DATABASE_URL needs a port");
    let proxied = Arc::new(TestDatabase::Postgres { server, name: name.clone() });
    // The other one drops it. This would wait for the proxy, which cannot run while
    // somebody waits.
    std::mem::forget(proxied.clone());
    let start = async |database| {
        let mut settings = settings(&recorder.url());
        settings.push(("AUTH_SECRET_KEY", "a shared key of Zebras, 0123456789!".to_owned()));
        let database = Some(database);
        let options = Options { database, settings, in_memory: true, ..Options::default() };
        TestApp::with(options).await
    };
    Some((start(database.clone()).await, start(proxied).await, proxy))
}

/// How much of an answer is in the database.
async fn stored(app: &TestApp, id: &str) -> String {
    let mut session = app.app.db.session().await.unwrap();
    let pieces = session.chat().pieces(id.parse().unwrap(), 0).await.unwrap();
    joined(&pieces, 0).0
}

/// What this does is committed, and nobody is told so.
async fn unanswered(proxy: &Proxy, what: impl AsyncFnOnce()) {
    let before = proxy.fired().cuts;
    proxy.set(Faults { cut_after: Some(b"COMMIT"), ..Faults::default() });
    what().await;
    until("a commit is lost", async || proxy.fired().cuts > before).await;
    proxy.set(Faults::default());
}

async fn end_of(visitor: &Visitor) -> (String, String) {
    let last = visitor.history().await.remove(0);
    (last["status"].as_str().unwrap().to_owned(), last["content"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_committed_without_an_answer_is_neither_doubled_nor_lost() {
    let script = Script::default();
    let recorder = script.start().await;
    let Some((direct, faulty, proxy)) = behind_a_proxy(&recorder).await else { return };
    let visitor = begin(&direct).await;
    let question = unique("q");
    let mut stream = visitor.at(&faulty).stream(&question).await;
    let id = stream.start().await;
    unanswered(&proxy, async || script.item(&question, "first ").await).await;
    script.item(&question, "second ").await;
    until("it is written", async || stored(&direct, &id).await == "first second ").await;
    let elsewhere = visitor.at(&direct);
    let mut following = elsewhere.resume(&id, None).await;
    following.start().await;
    let mut text = String::new();
    while text.len() < "first second ".len() {
        text += following.next().await.unwrap().data["content"].as_str().unwrap();
    }
    assert_eq!(text, "first second ");
    assert_eq!(end_of(&elsewhere).await, ("streaming".to_owned(), text));
    script.item(&question, "third").await;
    unanswered(&proxy, async || script.end(&question).await).await;
    for (stream, rest) in [(&mut stream, "first second third"), (&mut following, "third")] {
        let (text, _, end) = stream.rest().await;
        assert_eq!((text.as_str(), end.name.as_str()), (rest, "end"), "{end:?}");
    }
    let whole = "first second third".to_owned();
    assert_eq!(end_of(&elsewhere).await, ("complete".to_owned(), whole));
    assert_eq!(recorder.deliveries().len(), 1);
}

/// Whoever sent it, and whoever sends it again, elsewhere too, gets its answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_was_stored_without_an_answer_is_asked_once() {
    let script = Script::default();
    let recorder = script.start().await;
    let Some((direct, faulty, proxy)) = behind_a_proxy(&recorder).await else { return };
    let visitor = begin(&direct).await;
    let there = visitor.at(&faulty);
    // Its session is known there.
    there.client.get("/api/v1/session/validate").await.expect(200);
    for named in [true, false] {
        let question = unique("q");
        let mut body = json!({ "message": question });
        if named {
            body["client_message_id"] = json!(unique("m"));
        }
        let before = proxy.fired().cuts;
        proxy.set(Faults { cut_after: Some(b"COMMIT"), ..Faults::default() });
        let asking = tokio::spawn({
            let (there, body) = (there.clone(), body.clone());
            async move {
                let mut stream = there.stream_body(body).await;
                let id = stream.start().await;
                (id, stream.rest().await.0)
            }
        });
        script.item(&question, "one").await;
        assert!(proxy.fired().cuts > before);
        proxy.set(Faults::default());
        script.end(&question).await;
        let (id, text) = asking.await.unwrap();
        assert_eq!(text, "one");
        for visitor in [&there, &visitor].into_iter().filter(|_| named) {
            let again = visitor.ask(body.clone()).await.expect(200);
            assert_eq!((again.text("message_id"), again.text("content")), (id.as_str(), "one"));
        }
        assert_eq!(recorder.take().len(), 1);
    }
    assert_eq!(visitor.history().await.len(), 4);
}

/// Longer than the pauses after which it is looked whether the session goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_database_is_read_to_the_end() {
    let script = Script::default();
    let recorder = script.start().await;
    let Some((direct, faulty, proxy)) = behind_a_proxy(&recorder).await else { return };
    let visitor = begin(&direct).await;
    let question = unique("q");
    let mut stream = visitor.stream(&question).await;
    let id = stream.start().await;
    script.item(&question, "first ").await;
    until("it is written", async || stored(&direct, &id).await == "first ").await;
    let mut following = visitor.at(&faulty).resume(&id, None).await;
    following.start().await;
    assert_eq!(following.next().await.unwrap().data["content"], "first ");
    let latency = Duration::from_millis(800);
    proxy.set(Faults { to_client: Way { latency, ..Way::default() }, ..Faults::default() });
    script.item(&question, "second").await;
    assert_eq!(following.next().await.unwrap().data["content"], "second");
    script.end(&question).await;
    assert_eq!(following.rest().await.2.name, "end");
    assert_eq!(stream.rest().await.0, "first second");
}

/// As where a commit was lost with the answer that it was to begin: its instance
/// lives, and writes others.
#[tokio::test]
async fn an_answer_that_no_task_has_fails_though_its_instance_lives() {
    let script = Script::default();
    let recorder = script.start().await;
    let clock = FakeClock::starting_at(epoch());
    let settings = settings(&recorder.url());
    let options = Options { settings, clock: clock.clone(), ..Options::default() };
    let app = TestApp::with(options).await;
    let visitor = begin(&app).await;
    let question = unique("q");
    let mut stream = visitor.stream(&question).await;
    let id = stream.start().await;
    let orphan = uuid::Uuid::now_v7();
    let literal = match &*app.database {
        TestDatabase::Sqlite(_) => format!("x'{}'", orphan.simple()),
        TestDatabase::Postgres { .. } => format!("CAST('{orphan}' AS uuid)"),
    };
    let insert = format!(
        "INSERT INTO chat_messages (id, session_id, position, role, status, content, writer,
            lease_until, created_at)
        SELECT {literal}, session_id, position + 2, role, status, content, writer, lease_until,
            created_at
        FROM chat_messages WHERE status = 'streaming'"
    );
    app.database.execute(insert).await;
    clock.advance(TimeDelta::seconds(20));
    script.item(&question, "some").await;
    until("its lease is renewed", async || stored(&app, &id).await == "some").await;
    clock.advance(TimeDelta::seconds(11));
    app.app.services.chat.end_abandoned().await.unwrap();
    let all = visitor.history().await;
    let told: Vec<_> = all.iter().take(2).map(|one| (&one["status"], &one["failure"])).collect();
    let interrupted = (&json!("failed"), &json!("interrupted"));
    assert_eq!(told, [interrupted, (&json!("streaming"), &json!(null))]);
    assert_eq!(stream.next().await.unwrap().data["content"], "some");
    script.end(&question).await;
    assert_eq!(stream.rest().await.2.name, "end");
    assert_eq!(visitor.history().await[1]["status"], "complete");
}
