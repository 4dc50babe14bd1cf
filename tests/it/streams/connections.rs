//! What operators see of open streams, and cut.

use std::time::Instant;

use serde_json::{Value, json};

use super::{FREE, HELLO, Open, Source, listed, put_in_front, put_named_in_front, told};
use crate::support::{Options, TestApp, unique};

async fn app(source: &Source) -> TestApp {
    let settings = FREE.map(|(name, value)| (name, value.to_owned())).to_vec();
    // Other tests' instances would be listed with it.
    let options = Options { settings, in_memory: true, ..Options::default() };
    let app = TestApp::with(options).await;
    put_in_front(&app, &source.url(), "auth = 'optional'");
    app
}

#[tokio::test]
async fn operators_see_what_is_open_and_by_whom() {
    let source = Source::start().await;
    let app = app(&source).await;
    let admin = app.admin().await;
    let user = app.user("ada").await;
    let me = user.get("/api/v1/users/me").await.json["id"].clone();
    let key = user.post("/api/v1/keys", json!({ "name": "k" })).await.expect(201);
    let hour = json!({ "duration_hours": 1, "user_id": me });
    let token = admin.post("/api/v1/admin/tokens", hour).await.expect(201);
    let pair = app.login("ada", crate::support::PASSWORD).await.expect(200);
    let session = crate::jwt::part(pair.text("access_token"), 1)["sid"].clone();
    let fields = [
        "A: b".to_owned(),
        format!("X-API-Key: {}", key.text("key")),
        format!("X-Access-Token: {}", token.text("token")),
        format!("Authorization: Bearer {}", pair.text("access_token")),
    ];
    let mut open = vec![];
    for (n, field) in fields.iter().enumerate() {
        let path = if n == 1 { "/download?secret=1" } else { "/events?secret=1" };
        open.push(Open::begin(&app, path, field).await);
    }
    source.send(3, "data: two\n\ndata: th");
    open[3].0.until(b"data: th").await;
    let all = listed(&admin, "", 4).await;
    let [login, pass, keyed, nobody] = &all[..] else { panic!("{all:?}") };
    for (stream, [key_id, token_id, session_id, user_id]) in [
        (nobody, [&Value::Null; 4]),
        (keyed, [&key.json["id"], &Value::Null, &Value::Null, &me]),
        (pass, [&Value::Null, &token.json["token_id"], &Value::Null, &me]),
        (login, [&Value::Null, &Value::Null, &session, &me]),
    ] {
        assert_eq!(&stream["key_id"], key_id, "{stream}");
        assert_eq!(&stream["token_id"], token_id, "{stream}");
        assert_eq!(&stream["session_id"], session_id, "{stream}");
        assert_eq!(&stream["user_id"], user_id, "{stream}");
        let name = if user_id.is_null() { Value::Null } else { json!("ada") };
        assert_eq!(stream["username"], name);
        assert_eq!(stream["upstream"], "default");
        assert_eq!(stream["instance"], app.app.hub.instance());
        assert_eq!(stream["address"], "127.0.0.1");
        assert!(stream["age_seconds"].as_u64().unwrap() < 60, "{stream}");
    }
    assert_eq!((&keyed["kind"], &keyed["path"]), (&json!("download"), &json!("/up/download")));
    assert_eq!((&login["kind"], &login["path"]), (&json!("sse"), &json!("/up/events")));
    assert_eq!(login["bytes_out"], HELLO.len() + 19);
    assert_eq!((&login["messages_out"], &keyed["messages_out"]), (&json!(2), &json!(0)));

    let id = me.as_str().unwrap();
    for (query, count) in [
        ("?kind=download".to_owned(), 1),
        ("?kind=websocket".to_owned(), 0),
        ("?upstream=default".to_owned(), 4),
        ("?upstream=other".to_owned(), 0),
        (format!("?user_id={id}"), 3),
        (format!("?user_id={id}&kind=sse"), 2),
    ] {
        listed(&admin, &query, count).await;
    }
    // Page by page it is the same.
    let (mut paged, mut cursor) = (vec![], String::new());
    loop {
        let path = format!("/api/v1/admin/connections?limit=3&cursor={cursor}");
        let page = admin.get(&path).await.expect(200);
        paged.extend(page.json["items"].as_array().unwrap().iter().map(|s| s["id"].clone()));
        let Some(next) = page.json["next_cursor"].as_str() else { break };
        next.clone_into(&mut cursor);
    }
    assert_eq!(paged, all.iter().map(|stream| stream["id"].clone()).collect::<Vec<_>>());

    // The id stays the same in the log of requests.
    source.finish(3);
    let (answer, _) = open.pop().unwrap().end(Instant::now()).await;
    assert!(answer.complete);
    listed(&admin, "", 3).await;
    crate::gateway::recorded(&app, 1).await;
    let log = admin.get("/api/v1/usage/requests?all=true").await.expect(200);
    assert_eq!(log.json["items"][0]["id"], login["id"]);
    let metrics = app.anonymous().get("/metrics").await.expect(200);
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    for name in ["tollgate_streams{kind=\"sse\"}", "tollgate_streams_ended_total{kind=\"sse\""] {
        assert!(text.contains(name), "{name}: {text}");
    }
}

#[tokio::test]
async fn an_admin_cuts_one_and_no_other() {
    let source = Source::start().await;
    let app = app(&source).await;
    let admin = app.admin().await;
    let (one, other) =
        (Open::begin(&app, "/a", "A: b").await, Open::begin(&app, "/b", "A: b").await);
    let all = listed(&admin, "", 2).await;
    let of = |path: &str| all.iter().find(|stream| stream["path"] == path).unwrap()["id"].clone();
    let path = format!("/api/v1/admin/connections/{}", of("/up/a").as_str().unwrap());
    let user = app.user("ada").await;
    user.delete(&path).await.expect_problem(403, "role_required");
    admin.delete(&path).await.expect(204);
    let (answer, after) = one.end(Instant::now()).await;
    assert_eq!(answer.text(), format!("{HELLO}{}", told("cut")));
    assert!(after < super::SOON, "{after:?}");
    admin.delete(&path).await.expect_problem(404, "not_found");
    assert_eq!(listed(&admin, "", 1).await[0]["id"], of("/up/b"));
    source.finish(1);
    assert!(other.end(Instant::now()).await.0.complete);
}

/// Whoever is asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_instance_lists_and_cuts_the_streams_of_all() {
    let Some(apps) = TestApp::instances(3, &FREE).await else { return };
    let source = Source::start().await;
    // Other tests share the Redis.
    let name = unique("u");
    let mut open = vec![];
    for app in &apps {
        put_named_in_front(app, &name, &source.url(), "auth = 'public'");
        open.push(Open::begin(app, "/a", "A: b").await);
    }
    let admin = apps[0].admin().await;
    let upstream = &format!("?upstream={name}");
    for (at, app) in apps.iter().enumerate() {
        let all = listed(&admin.at(&app.base), upstream, 3).await;
        let mut instances: Vec<&str> =
            all.iter().map(|stream| stream["instance"].as_str().unwrap()).collect();
        instances.sort_unstable();
        let mut expected: Vec<&str> = apps.iter().map(|app| app.app.hub.instance()).collect();
        expected.sort_unstable();
        assert_eq!(instances, expected, "at {at}");
    }
    let all = listed(&admin, upstream, 3).await;
    for (app, stream) in apps.iter().zip(open) {
        let own = all.iter().find(|stream| stream["instance"] == app.app.hub.instance()).unwrap();
        let path = format!("/api/v1/admin/connections/{}", own["id"].as_str().unwrap());
        admin.delete(&path).await.expect(204);
        let (answer, after) = stream.end(Instant::now()).await;
        assert_eq!(answer.text(), format!("{HELLO}{}", told("cut")));
        assert!(after < super::SOON, "{after:?}");
        admin.delete(&path).await.expect_problem(404, "not_found");
    }
    listed(&admin, upstream, 0).await;
}
