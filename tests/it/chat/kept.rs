//! What is kept of conversations, for how long, and how it goes.

use chrono::TimeDelta;
use serde_json::json;
use tollgate::{
    domain::clock::FakeClock,
    repositories::Repositories as _,
    services::chat::{ChatError, Part},
};

use super::{ORIGIN, Script, Visitor, begin, chatting, hello, settings, until};
use crate::support::{Client, Options, PASSWORD, TestApp, epoch, recorder::Recorder, unique};

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

/// Where messages are long, fewer are on a page; what is under way counts.
#[tokio::test]
async fn a_page_of_the_history_is_of_bounded_size() {
    const LONG: usize = 900_000;
    const MOST: usize = 4 * 1024 * 1024;
    let script = Script::default();
    let recorder = script.start().await;
    let app = chatting(&recorder).await;
    let visitor = begin(&app).await;
    let mut coming = vec![];
    for n in 0..10 {
        let question = unique("q");
        let mut stream = visitor.stream(&question).await;
        stream.start().await;
        script.item(&question, &"x".repeat(LONG)).await;
        if n % 2 == 0 {
            script.end(&question).await;
            assert_eq!(stream.rest().await.0.len(), LONG);
        } else {
            let mut read = 0;
            while read < LONG {
                read += stream.next().await.unwrap().data["content"].as_str().unwrap().len();
            }
            coming.push((question, stream));
        }
    }
    let path = format!("/api/v1/chat/history/{}?limit=200", visitor.session);
    let (mut roles, mut cursor, mut pages) = (vec![], String::new(), 0);
    loop {
        let page = visitor.client.get(&format!("{path}&cursor={cursor}")).await.expect(200);
        assert!(page.body.len() < MOST + 20_000, "{} bytes", page.body.len());
        pages += 1;
        roles.extend(page.json["items"].as_array().unwrap().iter().map(|one| {
            let length = one["content"].as_str().unwrap().len();
            (one["role"] == "assistant", length == LONG)
        }));
        let Some(next) = page.json["next_cursor"].as_str() else { break };
        cursor = next.to_owned();
    }
    assert_eq!((roles, pages), ([(true, true), (false, false)].repeat(10), 3));
    let path = format!("/api/v1/chat/export/{}", visitor.session);
    let all = visitor.client.get(&path).await.expect(200);
    assert_eq!(all.json["messages"].as_array().unwrap().len(), 20);
    assert!(all.body.len() > 10 * LONG);
    for (question, mut stream) in coming {
        script.end(&question).await;
        assert_eq!(stream.rest().await.2.name, "end");
    }
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

#[tokio::test]
async fn a_session_has_no_more_messages_than_configured() {
    let recorder = Recorder::start(hello).await;
    let mut settings = settings(&recorder.url());
    settings.push(("CHAT_SESSION_MAX_MESSAGES", "4".to_owned()));
    let app = TestApp::with(Options { settings, ..Options::default() }).await;
    let visitor = begin(&app).await;
    let first = json!({ "message": "q", "client_message_id": "m-1" });
    visitor.ask(first.clone()).await.expect(200);
    visitor.ask(json!({ "message": "q" })).await.expect(200);
    for _ in 0..2 {
        visitor.ask(json!({ "message": "q" })).await.expect_problem(409, "conversation_full");
    }
    // What was said before is answered still, and another session begins anew.
    visitor.ask(first).await.expect(200);
    assert_eq!(visitor.history().await.len(), 4);
    begin(&app).await.ask(json!({ "message": "q" })).await.expect(200);
    assert_eq!(recorder.deliveries().len(), 3);
}

/// However long it is, some messages are in memory at once; and what ends well is
/// whole.
#[tokio::test]
async fn an_export_is_read_and_written_in_parts() {
    let recorder = Recorder::start(hello).await;
    let app = chatting(&recorder).await;
    let visitor = begin(&app).await;
    for n in 0..20 {
        visitor.ask(json!({ "message": format!("q{n}") })).await.expect(200);
    }
    let path = format!("/api/v1/chat/export/{}", visitor.session);
    let all = visitor.client.get(&path).await.expect(200);
    assert_eq!(all.header("content-type"), "application/json");
    assert!(!all.headers.contains_key("content-length"));
    let said: Vec<_> = all.json["messages"].as_array().unwrap().iter().collect();
    let questions: Vec<_> = said.iter().step_by(2).map(|one| one["content"].clone()).collect();
    assert_eq!((said.len(), questions), (40, (0..20).map(|n| json!(format!("q{n}"))).collect()));
    let chat = &app.app.services.chat;
    let mut takeout = chat.export(visitor.session.parse().unwrap(), None).await.unwrap();
    assert!(matches!(takeout.next().await, Ok(Some(Part::Begin(_)))));
    let Ok(Some(Part::Messages(some))) = takeout.next().await else { panic!("messages") };
    assert_eq!(some.len(), 16);
    let path = format!("/api/v1/chat/history/{}", visitor.session);
    visitor.client.delete(&path).await.expect(204);
    assert!(matches!(takeout.next().await, Err(ChatError::NotFound)));
}

/// Of messages as of sessions no statement deletes more than it is told.
#[tokio::test]
async fn what_is_deleted_goes_in_parts() {
    let recorder = Recorder::start(hello).await;
    let clock = FakeClock::starting_at(epoch());
    let settings = settings(&recorder.url());
    let options = Options { settings, clock: clock.clone(), in_memory: true, ..Options::default() };
    let app = TestApp::with(options).await;
    let (one, other) = (begin(&app).await, begin(&app).await);
    for visitor in [&one, &one, &other] {
        visitor.ask(json!({ "message": "q" })).await.expect(200);
    }
    let rows =
        async |table: &str| app.database.number(format!("SELECT count(*) FROM {table}")).await;
    one.client.delete(&format!("/api/v1/chat/history/{}", one.session)).await.expect(204);
    assert_eq!((rows("chat_messages").await, rows("chat_sessions").await), (2, 1));
    let before = epoch() + TimeDelta::days(2);
    let mut tx = app.app.db.begin().await.unwrap();
    assert_eq!(tx.chat().prune_messages(before, 1).await.unwrap(), 1);
    assert_eq!(tx.chat().prune_sessions(before, 1).await.unwrap(), 0, "it is not empty");
    assert_eq!(tx.chat().prune_messages(before, 5).await.unwrap(), 1);
    assert_eq!(tx.chat().prune_sessions(before, 5).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_chats_of_an_account_are_its_owners_and_go_with_it() {
    let script = Script::default();
    let recorder = script.start().await;
    let app = chatting(&recorder).await;
    let login = app.user(&unique("ada")).await;
    let begin_as = async |login: &Client| {
        let page = login.with("origin", ORIGIN).with("user-agent", "Browser/1");
        let body = json!({ "origin_domain": "shop.example.com" });
        let made = page.post("/api/v1/session/create", body).await.expect(201);
        begin(&app).await.with_session(&made)
    };
    let (mine, also) = (begin_as(&login).await, begin_as(&login).await);
    let others = begin(&app).await;
    let (first, second) = (unique("q"), unique("q"));
    let mut stream = mine.stream(&first).await;
    stream.start().await;
    script.item(&first, "some").await;
    assert_eq!(stream.next().await.unwrap().id, 4);
    let mut kept = others.stream(&second).await;
    kept.start().await;
    script.item(&second, "kept").await;
    script.end(&second).await;
    assert_eq!(kept.rest().await.0, "kept");

    let export = login.get("/api/v1/users/me/export").await.expect(200);
    let chats = export.json["chats"].as_array().unwrap();
    assert_eq!(chats.len(), 2);
    let of = |visitor: &Visitor| {
        let chat = chats.iter().find(|chat| chat["session_id"] == visitor.session.as_str());
        chat.unwrap()["messages"].as_array().unwrap().clone()
    };
    assert!(of(&also).is_empty());
    let said = of(&mine);
    assert_eq!((&said[0]["content"], &said[1]["content"]), (&json!(first), &json!("some")));
    assert!(export.json["user"].is_object());

    let body = json!({ "password": PASSWORD });
    login.json(http::Method::DELETE, "/api/v1/users/me", &body).await.expect(204);
    let (_, _, end) = stream.rest().await;
    assert_eq!(end.name, "error");
    until("the cookie opens nothing", async || {
        mine.client.get("/api/v1/session/validate").await.json["valid"] == false
    })
    .await;
    let left =
        async |table: &str| app.database.number(format!("SELECT count(*) FROM {table}")).await;
    // Of strangers three: two of them only lent a browser.
    assert_eq!((left("chat_sessions").await, left("chat_messages").await), (3, 2));
    assert_eq!(others.history().await.len(), 2);
    let admin = app.admin().await;
    let path = format!("/api/v1/admin/chat/sessions/{}", mine.session);
    admin.get(&path).await.expect_problem(404, "not_found");
}

/// Where the process ends between the two, it is seen nowhere and goes later.
#[tokio::test]
async fn what_is_condemned_is_seen_nowhere_until_it_is_gone() {
    let recorder = Recorder::start(hello).await;
    let app = chatting(&recorder).await;
    let visitor = begin(&app).await;
    visitor.ask(json!({ "message": "q" })).await.expect(200);
    let id = visitor.session.parse().unwrap();
    let mut tx = app.app.db.begin().await.unwrap();
    let now = app.app.services.clock.now();
    assert_eq!(tx.chat().condemn_session(id, now).await.unwrap(), Some(2));
    tx.commit().await.unwrap();
    let admin = app.admin().await;
    let one = format!("/api/v1/admin/chat/sessions/{}", visitor.session);
    for path in [one.clone(), one.replace("admin/chat/sessions", "chat/export")] {
        admin.get(&path).await.expect_problem(404, "not_found");
    }
    let all = admin.get("/api/v1/admin/chat/sessions").await.expect(200);
    assert_eq!(all.json["items"], json!([]));
    admin.delete(&one).await.expect_problem(404, "not_found");
    // Nobody told this instance but the database.
    until("the cookie opens nothing", async || {
        visitor.client.get("/api/v1/session/validate").await.json["valid"] == false
    })
    .await;
    app.app.services.chat.prune().await.unwrap();
    assert_eq!(app.database.number("SELECT count(*) FROM chat_sessions").await, 0);
}
