//! What was used: recorded and shown.

use std::time::Duration;

use chrono::TimeDelta;
use http::Method;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::support::{
    Answer, Client, TestApp,
    raw::Raw,
    recorder::{Recorder, Reply},
};

const HELLO: &str = "/api/v1/proxy/hello";
const USAGE: &str = "/api/v1/usage";
const ALL: &str = "/api/v1/usage/all";
const REQUESTS: &str = "/api/v1/usage/requests";

async fn totals(client: &Client) -> Value {
    client.get(USAGE).await.expect(200).json["totals"].clone()
}

/// The items' field of that name.
fn column(answer: &Answer, name: &str) -> Vec<Value> {
    answer.json["items"].as_array().unwrap().iter().map(|item| item[name].clone()).collect()
}

/// Until so many records wait to be written.
async fn recorded(app: &TestApp, records: u64) {
    let waiting = || app.app.services.usage.pending();
    let enough = async {
        while waiting() < records {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(30), enough).await;
    assert!(in_time.is_ok(), "{} of {records} records", waiting());
}

/// With `Recorder` as its upstream.
async fn in_front_of(upstream: &Recorder) -> TestApp {
    TestApp::configured([("UPSTREAM_URL", upstream.url().as_str())]).await
}

#[tokio::test]
async fn bytes_statuses_and_outcomes_are_exact() {
    let upstream = Recorder::start(|delivery| {
        let target = delivery.request_line().split(' ').nth(1).unwrap();
        let status = match target.split('?').next().unwrap() {
            "/missing" => "404 Not Found",
            "/broken" => "503 Service Unavailable",
            "/moved" => "302 Found",
            "/reset" => return Reply::Reset,
            _ => "200 OK",
        };
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: 1000\r\n\r\n");
        Reply::Send([head.into_bytes(), vec![b'x'; 1000]].concat())
    })
    .await;
    let app = in_front_of(&upstream).await;
    let admin = app.admin().await;
    let fields = json!({ "name": "k", "rate_limit_per_minute": 6 });
    let (id, key) = app.key(&admin, fields).await;
    let body = bytes::Bytes::from(vec![b'y'; 12_345]);
    let call = |method, path: &str| {
        let path = format!("/api/v1/proxy{path}?secret=1");
        let (key, body) = (key.clone(), body.clone());
        async move { key.send(method, &path, None, body).await }
    };
    call(Method::POST, "/").await.expect(200);
    call(Method::PUT, "/missing").await.expect(404);
    call(Method::POST, "/broken").await.expect(503);
    call(Method::POST, "/moved").await.expect(302);
    call(Method::POST, "/reset").await.expect_problem(502, "upstream_failed");
    key.get("/api/v1/proxy/").await.expect(200);
    call(Method::POST, "/").await.expect_problem(429, "rate_limited");
    app.flush().await;

    let totals = totals(&key).await;
    for (name, expected) in [
        ("requests", 6),
        ("rejected", 1),
        ("succeeded", 3),
        ("client_errors", 1),
        ("server_errors", 2),
        ("aborted", 0),
        ("bytes_in", 5 * 12_345),
        ("bytes_out", 5 * 1000),
    ] {
        assert_eq!(totals[name], expected, "{name}: {totals}");
    }
    // The last one first.
    let log = key.get(REQUESTS).await.expect(200);
    let rejected = &log.json["items"][0];
    assert_eq!(rejected["outcome"], "rejected");
    for (name, expected) in [
        ("method", json!("POST")),
        ("path", json!("/api/v1/proxy/")),
        ("status", json!(429)),
        ("key_id", json!(id)),
        ("bytes_out", json!(0)),
    ] {
        assert_eq!(rejected[name], expected, "{name}: {rejected}");
    }
    let statuses = [429, 200, 502, 302, 503, 404, 200];
    assert_eq!(column(&log, "status"), statuses.map(Value::from));
    let outcomes = column(&log, "outcome");
    let expected =
        ["rejected", "completed", "failed", "completed", "completed", "completed", "completed"];
    assert_eq!(outcomes, expected.map(Value::from));
    let request_ids = column(&log, "request_id");
    assert!(request_ids.iter().all(Value::is_string));
    assert!(!String::from_utf8_lossy(&log.body).contains("secret"));
}

/// What a client that left had received is counted (G-127, G-36).
#[tokio::test]
async fn a_client_that_leaves_is_recorded_as_aborted() {
    let upstream = Recorder::start(|_| {
        let (sender, parts) = mpsc::unbounded_channel();
        let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
        sender.send([&head[..], &[b'x'; 500]].concat()).unwrap();
        // Goes on until the other side has gone.
        tokio::spawn(async move { sender.closed().await });
        Reply::Stream(parts)
    })
    .await;
    let app = in_front_of(&upstream).await;
    let user = app.admin().await;
    let issued = user.post("/api/v1/keys", json!({ "name": "k" })).await.expect(201);
    let text = issued.text("key");
    let mut client = Raw::connect(app.running.as_ref().unwrap().address()).await;
    let head = format!("GET {HELLO} HTTP/1.1\r\nhost: a\r\nx-api-key: {text}\r\n\r\n");
    client.send(head).await;
    client.until(&[b'x'; 500]).await;
    client.reset();
    recorded(&app, 1).await;
    app.flush().await;
    let key = app.anonymous().with_key(text);
    let totals = totals(&key).await;
    for (name, expected) in
        [("requests", 1), ("aborted", 1), ("succeeded", 1), ("bytes_out", 500), ("bytes_in", 0)]
    {
        assert_eq!(totals[name], expected, "{name}: {totals}");
    }
    let log = key.get(REQUESTS).await.expect(200);
    assert_eq!(column(&log, "outcome"), [json!("aborted")]);
    assert_eq!(app.app.services.usage.pending(), 0);
}

#[tokio::test]
async fn reports_have_buckets_and_groups() {
    let (app, clock) = TestApp::in_memory([]).await;
    let user = app.user("ada").await;
    let fields = json!({ "name": "a", "rate_limit_per_minute": 2 });
    let (a, first) = app.key(&user, fields).await;
    clock.advance(TimeDelta::seconds(1));
    let (b, second) = app.key(&user, json!({ "name": "b" })).await;
    // 00:10, 01:10 and the next day.
    for (minutes, times) in [(10, 1), (60, 3), (1440, 2)] {
        clock.advance(TimeDelta::minutes(minutes));
        for _ in 0..times {
            first.get(HELLO).await;
        }
    }
    second.get(HELLO).await.expect(200);
    app.flush().await;
    let user = app.log_in("ada", crate::support::PASSWORD).await;
    let (hour0, hour1, hour25) =
        ("2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z", "2026-01-02T01:00:00Z");
    let (day0, day1) = (hour0, "2026-01-02T00:00:00Z");
    let null = Value::Null;
    let from = |from: &str, to: &str| format!("?interval=hour&from={from}&to={to}");
    for (client, query, expected) in [
        (&first, String::new(), vec![(day0, null.clone(), 3, 1), (day1, null.clone(), 2, 0)]),
        (&user, String::new(), vec![(day0, null.clone(), 3, 1), (day1, null.clone(), 3, 0)]),
        (
            &user,
            "?interval=hour".to_owned(),
            vec![
                (hour0, null.clone(), 1, 0),
                (hour1, null.clone(), 2, 1),
                (hour25, null.clone(), 3, 0),
            ],
        ),
        (
            &user,
            "?group_by=key".to_owned(),
            vec![(day0, json!(a), 3, 1), (day1, json!(a), 2, 0), (day1, json!(b), 1, 0)],
        ),
        (
            &user,
            "?interval=day&group_by=upstream".to_owned(),
            vec![(day0, json!("echo"), 3, 1), (day1, json!("echo"), 3, 0)],
        ),
        (
            &first,
            "?group_by=status".to_owned(),
            vec![(day0, json!("2"), 3, 0), (day0, json!("4"), 0, 1), (day1, json!("2"), 2, 0)],
        ),
        (
            &first,
            "?group_by=token".to_owned(),
            vec![(day0, null.clone(), 3, 1), (day1, null.clone(), 2, 0)],
        ),
        (
            &user,
            "?group_by=route".to_owned(),
            vec![(day0, json!("echo/**"), 3, 1), (day1, json!("echo/**"), 3, 0)],
        ),
        // From the full hour; the end is excluded.
        (&user, from("2026-01-01T00:59:59Z", hour1), vec![(hour0, null.clone(), 1, 0)]),
        (&user, from(hour1, "2026-01-01T01:00:01Z"), vec![(hour1, null.clone(), 2, 1)]),
        (&user, from(day1, day1), vec![]),
        (&second, from(day0, day1), vec![]),
    ] {
        let answer = client.get(&format!("{USAGE}{query}")).await.expect(200);
        let number = |item: &Value, name: &str| item[name].as_u64().unwrap();
        let found: Vec<_> = answer.json["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| {
                let start = item["start"].as_str().unwrap();
                (start, item["group"].clone(), number(item, "requests"), number(item, "rejected"))
            })
            .collect();
        assert_eq!(found, expected, "{query}");
        let sum: u64 = found.iter().map(|item| item.2).sum();
        assert_eq!(number(&answer.json["totals"], "requests"), sum, "{query}");
    }
}

#[tokio::test]
async fn a_span_that_makes_no_sense_is_refused() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    for (query, field) in [
        ("from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", Some("from")),
        ("from=1969-12-31T23:59:59Z", Some("from")),
        ("to=1969-01-01T00:00:00Z", Some("to")),
        ("from=yesterday", Some("from")),
        ("to=2026-01-01", Some("to")),
        ("interval=week", Some("interval")),
        ("group_by=colour", Some("group_by")),
        ("interval=hour&from=2000-01-01T00:00:00Z", Some("from")),
        // Far beyond what fits into nanoseconds of 64 bits.
        ("from=2300-01-01T00:00:00Z&to=2300-01-02T00:00:00Z", None),
        ("interval=hour&from=9999-12-31T22:00:00Z&to=9999-12-31T23:59:59Z", None),
        ("from=1999-12-31T00:00:00%2B05:00&to=2000-01-01T00:00:00Z", None),
        ("from=1970-01-01T00:00:00Z&to=1970-01-01T00:00:00Z", None),
    ] {
        for route in [USAGE, ALL] {
            let answer = admin.get(&format!("{route}?{query}")).await;
            match field {
                Some(field) => {
                    let answer = answer.expect_problem(422, "validation_failed");
                    assert_eq!(answer.json["errors"][0]["field"], field, "{query}");
                }
                None => {
                    assert_eq!(column(&answer.expect(200), "start"), [Value::Null; 0], "{query}");
                }
            }
        }
    }
}

#[tokio::test]
async fn moderators_and_admins_see_everybodys_usage() {
    let (app, _clock) = TestApp::in_memory([]).await;
    let (admin, ada, bob) = (app.admin().await, app.user("ada").await, app.user("bob").await);
    let fields = json!({ "name": "a", "rate_limit_per_minute": 3 });
    let (a, first) = app.key(&ada, fields).await;
    let (b, second) = app.key(&bob, json!({ "name": "b" })).await;
    for _ in 0..5 {
        first.get(HELLO).await;
    }
    for _ in 0..4 {
        second.post(HELLO, json!({ "long": "x".repeat(2000) })).await.expect(200);
    }
    admin.get(HELLO).await.expect(200);
    app.flush().await;
    let owner =
        async |client: &Client| client.get("/api/v1/users/me").await.expect(200).json["id"].clone();
    let (ada_id, bob_id, admin_id) = (owner(&ada).await, owner(&bob).await, owner(&admin).await);
    for client in [&ada, &first] {
        client.get(ALL).await.expect(403);
        client.get(&format!("{REQUESTS}?all=true")).await.expect_problem(403, "role_required");
    }
    let roles = json!({ "roles": ["moderator"] });
    admin.patch(&format!("/api/v1/admin/users/{}", bob_id.as_str().unwrap()), roles).await;
    let to = "to=2026-01-01T01:00:00Z";
    for client in [&admin, &bob] {
        for (query, expected) in [
            ("group_by=user", vec![&bob_id, &ada_id, &admin_id]),
            ("group_by=user&sort=rejected&limit=1", vec![&ada_id]),
            ("group_by=key&sort=bytes_in&limit=2", vec![&json!(b), &Value::Null]),
            ("group_by=key&sort=requests", vec![&json!(b), &json!(a), &Value::Null]),
            ("group_by=upstream", vec![&json!("echo")]),
            ("group_by=upstream&sort=server_errors&interval=hour", vec![&json!("echo")]),
            ("", vec![&Value::Null]),
        ] {
            let answer = client.get(&format!("{ALL}?{to}&{query}")).await.expect(200);
            let groups = column(&answer, "group");
            // With equal sums the order is open.
            assert_eq!(groups.len(), expected.len(), "{query}");
            assert_eq!(groups[0], *expected[0], "{query}");
            if query.contains("requests") || query == "group_by=user" {
                assert_eq!(groups.iter().collect::<Vec<_>>(), expected, "{query}");
            }
            assert_eq!(answer.json["totals"]["requests"], 8, "{query}");
            assert_eq!(answer.json["totals"]["rejected"], 2, "{query}");
        }
        for query in ["limit=0", "limit=201", "sort=name", "group_by=status"] {
            client.get(&format!("{ALL}?{query}")).await.expect_problem(422, "validation_failed");
        }
        let all = client.get(&format!("{REQUESTS}?all=true")).await.expect(200);
        assert_eq!(column(&all, "id").len(), 10);
    }
    assert_eq!(column(&ada.get(REQUESTS).await.expect(200), "key_id"), vec![json!(a); 5]);
    assert_eq!(column(&second.get(REQUESTS).await.expect(200), "key_id"), vec![json!(b); 4]);
}
