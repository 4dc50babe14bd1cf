//! Chats of real processes: what a stop and a kill leave of answers, and how much
//! one of many takes.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{
    LATE, PATIENCE, Process, Setup, alone,
    streams::{descriptors, memory},
};
use crate::{
    chat::{ORIGIN, Script, Visitor, begin_on, settings},
    support::{Client, TestDatabase, unique},
};

const HERE: &str = "127.0.0.1";
/// Of memory, for each stream.
const SHARE: usize = 64 * 1024;
/// The longest way of an event, of 99 in 100.
const DELAY: Duration = Duration::from_millis(50);

async fn setup(url: &str) -> Setup {
    let settings = settings(url);
    settings.iter().fold(Setup::shared().await, |setup, (name, value)| setup.set(name, value))
}

/// On one database: beside the first where that may be, else in its place.
async fn second(setup: &Setup) -> Process {
    setup.serve().await
}

fn is_shared(setup: &Setup) -> bool {
    matches!(setup.database.as_deref(), Some(TestDatabase::Postgres { .. }))
}

/// What is left of the answer at another instance: its status, failure and text.
async fn left(visitor: &Visitor) -> [Value; 3] {
    let last = visitor.history().await.remove(0);
    ["status", "failure", "content"].map(|field| last[field].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_process_had_is_read_elsewhere_and_not_asked_again() {
    let _alone = alone().await;
    let script = Script::default();
    let recorder = script.start().await;
    let setup = setup(&recorder.url()).await;
    let mut first = setup.serve().await;
    let visitor = begin_on(&first.base, HERE, ORIGIN).await;
    let question = unique("q");
    let body = json!({ "message": question, "client_message_id": "m-1" });
    let mut stream = visitor.stream_body(body.clone()).await;
    let id = stream.start().await;
    script.item(&question, "some ").await;
    assert_eq!(stream.next().await.unwrap().id, 5);
    // What was told is in the database half a second later.
    tokio::time::sleep(Duration::from_secs(1) + LATE / 2).await;
    first.kill();
    let killed = Instant::now();
    let other = second(&setup).await;
    let visitor = visitor.on(&other.base);
    let mut following = visitor.resume(&id, Some("2")).await;
    assert_eq!(following.next().await.unwrap().data["content"], "me ");
    if std::env::var_os("TOLLGATE_TORTURE").is_none() {
        // The lease is 30 seconds; as if they were over.
        let over = "UPDATE chat_messages SET lease_until = created_at WHERE status = 'streaming'";
        setup.database.as_ref().unwrap().execute(over).await;
    }
    let event = following.next().await.unwrap();
    println!("told as interrupted {:?} after the kill", killed.elapsed());
    assert_eq!((event.name.as_str(), &event.data["code"]), ("error", &json!("answer_interrupted")));
    assert_eq!(left(&visitor).await, [json!("failed"), json!("interrupted"), json!("some ")]);
    visitor.ask(body).await.expect_problem(503, "answer_interrupted");
    let mut again = visitor.resume(&id, Some("0")).await;
    assert_eq!(again.rest().await.0, "some ");
    assert_eq!(recorder.deliveries().len(), 1);
    // The conversation goes on there.
    let next = unique("q");
    let mut stream = visitor.stream(&next).await;
    stream.start().await;
    script.item(&next, "whole").await;
    script.end(&next).await;
    assert_eq!(stream.rest().await.0, "whole");
    assert_eq!(recorder.deliveries().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_stops_ends_its_answers_well_or_says_that_it_did_not() {
    let _alone = alone().await;
    let script = Script::default();
    let recorder = script.start().await;
    let setup = setup(&recorder.url()).await.set("SERVER_SHUTDOWN_GRACE_SECONDS", "6");
    let mut first = setup.serve().await;
    let other = if is_shared(&setup) { Some(second(&setup).await) } else { None };
    let (short, long) = (unique("short"), unique("long"));
    let mut visitors = vec![];
    for question in [&short, &long] {
        let visitor = begin_on(&first.base, HERE, ORIGIN).await;
        let mut stream = visitor.stream(question).await;
        let id = stream.start().await;
        script.item(question, "some ").await;
        assert_eq!(stream.next().await.unwrap().id, 5);
        visitors.push((visitor, id, stream));
    }
    first.signal("-TERM");
    script.item(&short, "more").await;
    script.end(&short).await;
    let mut followed = vec![];
    if let Some(other) = &other {
        for (visitor, id, _) in &visitors {
            followed.push(visitor.on(&other.base).resume(id, Some("0")).await);
        }
    }
    let (text, _, end) = visitors[0].2.rest().await;
    assert_eq!((text.as_str(), end.name.as_str()), ("more", "end"));
    let (_, _, end) = visitors[1].2.rest().await;
    assert_eq!((end.name.as_str(), &end.data["code"]), ("error", &json!("answer_interrupted")));
    let status = first.ended(PATIENCE).await;
    assert_eq!(status.code(), Some(0), "{first:?}");
    let ends = ["end", "error"].into_iter().zip(["some more", "some "]);
    for (stream, (end, text)) in followed.iter_mut().zip(ends) {
        let (followed, _, event) = stream.rest().await;
        assert_eq!((followed.as_str(), event.name.as_str()), (text, end));
    }
    let other = match other {
        Some(other) => other,
        None => second(&setup).await,
    };
    let complete = [json!("complete"), json!(null), json!("some more")];
    let cut = [json!("failed"), json!("interrupted"), json!("some ")];
    for ((visitor, ..), expected) in visitors.iter().zip([complete, cut]) {
        assert_eq!(left(&visitor.on(&other.base)).await, expected);
    }
    assert_eq!(recorder.deliveries().len(), 2);
}

#[tokio::test]
async fn a_secret_that_others_on_the_database_do_not_know_is_warned_of() {
    let _alone = alone().await;
    let shared = Setup::shared().await;
    if !is_shared(&shared) {
        return;
    }
    for (url, warned) in [("", false), ("http://127.0.0.1:9/chat", true)] {
        let process = shared.clone().set("CHAT_WEBHOOK_URL", url).listen().await;
        let log = process.log();
        let told = log.iter().any(|record| record["setting"] == "SESSION_SECRET_KEY");
        assert_eq!(told, warned, "{process:?}");
    }
}

/// In CI some, and how long they take is only told; `make torture` has 500 of the
/// optimised program, with all bounds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_answers_at_once_are_prompt_and_cheap() {
    const EVENTS: usize = 20;
    const EVERY: Duration = Duration::from_millis(500);
    let strict = std::env::var_os("TOLLGATE_TORTURE").is_some();
    let many = if strict { 500 } else { 100 };
    if descriptors() < 4 * many {
        eprintln!("skipped: `ulimit -n` allows fewer than {} open files", 4 * many);
        return;
    }
    let _alone = alone().await;
    let script = Script::default();
    let recorder = script.start().await;
    let process = setup(&recorder.url()).await.serve().await;
    let mut visitors = vec![];
    for _ in 0..many {
        let mut visitor = begin_on(&process.base, HERE, ORIGIN).await;
        // Without its connection: what that gave back would be used for a stream.
        visitor.client = Client::new(&process.base);
        visitors.push(visitor);
    }
    // What the first of its kind needs is no stream's.
    let mut warm = visitors[0].stream("warm").await;
    warm.start().await;
    script.end("warm").await;
    warm.rest().await;
    let before = memory(&process);
    let begun = Instant::now();
    let mut reading = JoinSet::new();
    for (n, visitor) in visitors.into_iter().enumerate() {
        let mut stream = visitor.stream(&format!("q{n}")).await;
        stream.start().await;
        reading.spawn(async move {
            let mut delays = vec![];
            let mut expected = 0;
            loop {
                let event = stream.next().await.unwrap();
                let read = begun.elapsed();
                if event.name == "end" {
                    assert_eq!(expected, EVENTS);
                    return delays;
                }
                // Of a reader that was late some come in one.
                for one in event.data["content"].as_str().unwrap().split_terminator(' ') {
                    let (number, written) = one.split_once(':').unwrap();
                    assert_eq!(number.parse(), Ok(expected));
                    expected += 1;
                    let written = Duration::from_micros(written.parse().unwrap());
                    delays.push(read.saturating_sub(written));
                }
            }
        });
    }
    // Each at its own time, as visitors do.
    let mut each = 0;
    let started = tokio::time::Instant::now();
    let pause = EVERY / u32::try_from(many).unwrap();
    for event in 0..EVENTS {
        for n in 0..many {
            let turn = u32::try_from(event * many + n).unwrap();
            tokio::time::sleep_until(started + pause * turn).await;
            let text = format!("{event}:{} ", begun.elapsed().as_micros());
            script.item(&format!("q{n}"), &text).await;
        }
        each = each.max(memory(&process).saturating_sub(before) / many);
    }
    join_all((0..many).map(|n| {
        let script = script.clone();
        async move { script.end(&format!("q{n}")).await }
    }))
    .await;
    let mut delays: Vec<Duration> = reading.join_all().await.concat();
    assert_eq!(delays.len(), many * EVENTS);
    delays.sort_unstable();
    let at = |share: usize| delays[delays.len() * share / 1000 - 1];
    let (p50, p99, most) = (at(500), at(990), at(1000));
    println!(
        "{many} streams: {each} bytes for each; delays p50 {p50:?}, p99 {p99:?}, max {most:?}"
    );
    assert!(each <= SHARE, "{each} bytes for each stream");
    if strict {
        assert!(p99 <= DELAY, "p99 {p99:?}");
    }
}
