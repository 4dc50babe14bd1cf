//! API keys as resources: made, read, listed, changed.

mod owners;

use std::collections::BTreeSet;

use chrono::TimeDelta;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{Answer, TestApp};

const KEYS: &str = "/api/v1/keys";

fn path(id: &str) -> String {
    format!("{KEYS}/{id}")
}

/// Every field that can be given, each with another value than its default.
fn full() -> Value {
    json!({
        "name": "Ünïcode 🔑 key",
        "rate_limit": 1000,
        "rate_limit_per_minute": 60,
        "scopes": ["images:write", "a.b_c-d/*"],
        "upstreams": ["echo", "other"],
        "allowed_ips": ["192.0.2.0/24", "2001:db8::/48"],
        "allowed_origins": ["https://app.example.com", "http://localhost:3000"],
        "expires_at": "2099-01-02T03:04:05.678901Z",
        "monthly_quota": 9_007_199_254_740_993_u64,
        "limits": [{ "name": "burst", "limit": 5, "window": "second" }],
        "max_concurrent": 4,
        "metadata": { "team": "søk", "n": [1, 2.5, null, true], "deep": { "😀": "\u{202e}x" } },
    })
}

/// What those fields are when they are not given, or cleared.
fn cleared() -> Value {
    json!({
        "rate_limit": null,
        "rate_limit_per_minute": null,
        "scopes": [],
        "upstreams": [],
        "allowed_ips": [],
        "allowed_origins": [],
        "expires_at": null,
        "monthly_quota": null,
        "limits": [],
        "max_concurrent": null,
        "metadata": {},
    })
}

fn fields(object: &Value) -> impl Iterator<Item = (&String, &Value)> {
    object.as_object().unwrap().iter()
}

fn names(object: &Value) -> BTreeSet<&str> {
    fields(object).map(|(name, _)| name.as_str()).collect()
}

/// The fields of a key in the contract.
fn contract() -> BTreeSet<&'static str> {
    "id name prefix user_id scopes upstreams rate_limit rate_limit_per_minute monthly_quota \
     limits max_concurrent allowed_ips allowed_origins is_active expires_at last_used_at \
     created_at rotated_at metadata"
        .split_whitespace()
        .collect()
}

/// Names in the order of the list.
fn listed(answer: &Answer) -> Vec<String> {
    let items = answer.json["items"].as_array().unwrap().iter();
    items.map(|item| item["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_key_keeps_every_field_and_shows_its_text_once() {
    let app = TestApp::start().await;
    let user = app.user("ada").await;
    let issued = user.post(KEYS, full()).await.expect(201);
    let text = issued.text("key").to_owned();
    let mut expected = contract();
    expected.insert("key");
    assert_eq!(names(&issued.json), expected);
    assert_eq!((text.len(), &text[..8]), (52, issued.text("prefix")));
    assert_eq!(issued.json["is_active"], true);
    assert!(issued.text("created_at").ends_with('Z'));
    assert_eq!(issued.json["last_used_at"], Value::Null);
    assert_eq!(issued.json["rotated_at"], Value::Null);

    let id = issued.text("id");
    let detail = user.get(&path(id)).await.expect(200);
    let list = user.get(KEYS).await.expect(200);
    let short = user.get(&format!("/api/keys/{id}")).await.expect(200);
    let patched = user.patch(&path(id), json!({})).await.expect(200);
    assert_eq!(short.json, detail.json);
    for answer in [&issued.json, &detail.json, &list.json["items"][0], &patched.json] {
        for (name, value) in fields(&full()) {
            assert_eq!(&answer[name], value, "{name}");
        }
    }
    for (answer, extra) in [(&detail.json, Some("usage")), (&patched.json, None)] {
        let mut expected = contract();
        expected.extend(extra);
        assert_eq!(names(answer), expected);
    }
    for answer in [&detail, &list, &patched] {
        assert!(!String::from_utf8_lossy(&answer.body).contains(&text[8..]), "{answer:?}");
        assert_eq!(answer.header("cache-control"), "no-store");
    }
}

#[tokio::test]
async fn a_patch_changes_what_it_names_and_null_clears_it() {
    let app = TestApp::start().await;
    let user = app.user("ada").await;
    let issued = user.post(KEYS, json!({ "name": "plain" })).await.expect(201);
    for (name, value) in fields(&cleared()) {
        assert_eq!(&issued.json[name], value, "default of {name}");
    }
    let path = path(issued.text("id"));
    let mut expected = user.get(&path).await.expect(200).json;
    expected.as_object_mut().unwrap().remove("usage");
    let mut change = full();
    change["is_active"] = json!(false);
    for (name, value) in fields(&change) {
        expected[name] = value.clone();
        let answer = user.patch(&path, json!({ name: value })).await.expect(200);
        assert_eq!(answer.json, expected, "{name}");
    }
    for (name, value) in fields(&cleared()) {
        expected[name] = value.clone();
        let answer = user.patch(&path, json!({ name: null })).await.expect(200);
        assert_eq!(answer.json, expected, "{name}");
    }
    let read = user.get(&path).await.expect(200);
    for (name, value) in fields(&expected) {
        assert_eq!(&read.json[name], value, "{name}");
    }
}

#[tokio::test]
async fn every_bad_field_is_reported_at_once_and_nothing_changes() {
    let app = TestApp::start().await;
    let user = app.user("ada").await;
    let issued = user.post(KEYS, full()).await.expect(201);
    let path = path(issued.text("id"));
    let before = user.get(&path).await.expect(200).json;
    let many: Vec<String> = (0..101).map(|n| format!("s{n}")).collect();
    for bad in [
        json!({
            "name": "", "rate_limit": 0, "rate_limit_per_minute": 0, "scopes": [""],
            "upstreams": ["a b"], "allowed_ips": ["localhost"], "allowed_origins": ["*"],
            "expires_at": "2001-01-01T00:00:00Z", "monthly_quota": 0,
            "metadata": { "a": "b\u{0}c" },
        }),
        json!({
            "name": "a\nb", "scopes": many, "upstreams": ["é"], "allowed_ips": ["10.0.0.0/33"],
            "allowed_origins": ["https://a.example/"], "expires_at": "9999-12-31T23:59:59-01:00",
            "monthly_quota": u64::MAX, "metadata": { "a": "x".repeat(8192) },
        }),
        json!({ "name": "x".repeat(101), "scopes": ["x".repeat(201)] }),
    ] {
        for answer in [user.post(KEYS, bad.clone()).await, user.patch(&path, bad.clone()).await] {
            let answer = answer.expect_problem(422, "validation_failed");
            let errors = answer.json["errors"].as_array().unwrap();
            let found: BTreeSet<_> =
                errors.iter().map(|error| error["field"].as_str().unwrap()).collect();
            assert_eq!(found, names(&bad));
            assert!(errors.iter().all(|error| !error["message"].as_str().unwrap().is_empty()));
        }
    }
    assert_eq!(user.get(&path).await.expect(200).json, before);
    assert_eq!(listed(&user.get(KEYS).await).len(), 1);
}

/// Mass assignment, and types that do not fit (G-107).
#[tokio::test]
async fn fields_that_cannot_be_given_are_refused() {
    let app = TestApp::start().await;
    let user = app.user("ada").await;
    let issued = user.post(KEYS, json!({ "name": "mine" })).await.expect(201);
    let path = path(issued.text("id"));
    let before = user.get(&path).await.expect(200).json;
    for (name, value) in [
        ("id", json!("0198c0ff-ee00-7008-8000-0000000000aa")),
        ("key", json!("tg_mine")),
        ("prefix", json!("tg_aaaaa")),
        ("created_at", json!("2001-01-01T00:00:00Z")),
        ("last_used_at", Value::Null),
        ("rotated_at", Value::Null),
        ("version", json!(1)),
        ("rate_limit", json!(-1)),
        ("rate_limit", json!(1.5)),
        ("rate_limit", json!(4_294_967_296_u64)),
        ("rate_limit", json!("5")),
        ("scopes", json!("images")),
        ("metadata", json!([1])),
        ("expires_at", json!("tomorrow")),
    ] {
        let body = json!({ "name": "other", name: value });
        user.post(KEYS, body.clone()).await.expect_problem(422, "validation_failed");
        user.patch(&path, body).await.expect_problem(422, "validation_failed");
    }
    for name in ["user_id", "usage"] {
        let owner = issued.json["user_id"].clone();
        user.patch(&path, json!({ name: owner })).await.expect_problem(422, "validation_failed");
    }
    let body = json!({ "name": "x", "is_active": false });
    user.post(KEYS, body).await.expect_problem(422, "validation_failed");
    assert_eq!(user.get(&path).await.expect(200).json, before);
    assert_eq!(listed(&user.get(KEYS).await), ["mine"]);
}

#[tokio::test]
async fn lists_are_filtered_by_owner_state_and_text() {
    let (app, clock) = TestApp::with_clock().await;
    let (admin, user) = (app.admin().await, app.user("ada").await);
    for (owner, name, active) in
        [(&user, "Alpha_1", true), (&user, "ÄLPHA%2", false), (&admin, "beta\\3", true)]
    {
        clock.advance(TimeDelta::seconds(1));
        let issued = owner.post(KEYS, json!({ "name": name })).await.expect(201);
        let change = json!({ "is_active": active });
        owner.patch(&path(issued.text("id")), change).await.expect(200);
    }
    let all = admin.get(KEYS).await.expect(200);
    let first = &all.json["items"][2];
    let owner = first["user_id"].as_str().unwrap();
    let prefix = &first["prefix"].as_str().unwrap()[3..].to_lowercase();
    for (query, expected) in [
        ("", &["beta\\3", "ÄLPHA%2", "Alpha_1"][..]),
        ("?is_active=true", &["beta\\3", "Alpha_1"]),
        ("?is_active=false", &["ÄLPHA%2"]),
        (&format!("?user_id={owner}"), &["ÄLPHA%2", "Alpha_1"]),
        (&format!("?user_id={owner}&is_active=true&q=alpha"), &["Alpha_1"]),
        ("?q=LPHA", &["ÄLPHA%2", "Alpha_1"]),
        ("?q=%C3%A4lpha", &["ÄLPHA%2"]),
        ("?q=%25", &["ÄLPHA%2"]),
        // Every prefix has one.
        ("?q=_", &["beta\\3", "ÄLPHA%2", "Alpha_1"]),
        ("?q=a_1", &["Alpha_1"]),
        ("?q=%5C", &["beta\\3"]),
        ("?q=a'--", &[]),
        (&format!("?q={prefix}"), &["Alpha_1"]),
        ("?user_id=0198c0ff-ee00-7008-8000-0000000000aa", &[]),
    ] {
        let answer = admin.get(&format!("{KEYS}{query}")).await.expect(200);
        assert_eq!(listed(&answer), expected, "{query}");
        assert_eq!(answer.json["next_cursor"], Value::Null);
    }
    let foreign = format!("{KEYS}?user_id={}", all.json["items"][0]["user_id"].as_str().unwrap());
    assert_eq!(listed(&user.get(&foreign).await.expect(200)), ["ÄLPHA%2", "Alpha_1"]);
    for query in ["?user_id=me", "?is_active=1", "?limit=0", "?limit=201", "?cursor=!", "?q=%00"] {
        admin.get(&format!("{KEYS}{query}")).await.expect_problem(422, "validation_failed");
    }
    admin.get(&format!("{KEYS}?q=")).await.expect(200);
}

#[tokio::test]
async fn a_cursor_is_stable_while_keys_come_and_go() {
    let (app, clock) = TestApp::with_clock().await;
    let user = app.user("ada").await;
    let mut ids = vec![];
    for n in 1..=5 {
        clock.advance(TimeDelta::seconds(1));
        let issued = user.post(KEYS, json!({ "name": format!("k{n}") })).await.expect(201);
        ids.push(issued.text("id").to_owned());
    }
    let first = user.get(&format!("{KEYS}?limit=2")).await.expect(200);
    assert_eq!(listed(&first), ["k5", "k4"]);
    clock.advance(TimeDelta::seconds(1));
    user.post(KEYS, json!({ "name": "k6" })).await.expect(201);
    user.delete(&path(&ids[3])).await.expect(204);
    let next = |page: &Answer| format!("{KEYS}?limit=2&cursor={}", page.text("next_cursor"));
    let second = user.get(&next(&first)).await.expect(200);
    assert_eq!(listed(&second), ["k3", "k2"]);
    let third = user.get(&next(&second)).await.expect(200);
    assert_eq!(listed(&third), ["k1"]);
    assert_eq!(third.json["next_cursor"], Value::Null);
}

#[tokio::test]
async fn metadata_comes_back_as_it_was_given() {
    let app = TestApp::start().await;
    let user = app.user("ada").await;
    let (id, _) = app.key(&user, json!({ "name": "notes" })).await;
    for metadata in [
        json!({}),
        json!({ "": "", "a.b": { "$ref": "x" }, "null": null }),
        json!({ "ключ": "значение", "日本": "語", "e\u{301}": "é", "👩‍👩‍👧": "\u{10ffff}" }),
        json!({ "int": i64::MIN, "big": u64::MAX, "float": 0.1, "tiny": 5e-324 }),
        json!({ "quotes": "\"'\\\u{7f}\n\t", "sql": "'); DROP TABLE api_keys; --" }),
        json!({ "size": "x".repeat(8192 - r#"{"size":""}"#.len()) }),
    ] {
        let change = json!({ "metadata": metadata });
        let changed = user.patch(&path(&id), change).await.expect(200);
        let read = user.get(&path(&id)).await.expect(200);
        assert_eq!((&changed.json["metadata"], &read.json["metadata"]), (&metadata, &metadata));
    }
}

/// Every change that was answered with 200 is there in the end, every one that
/// was refused is not: none is silently lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn changes_at_once_do_not_undo_each_other() {
    let app = TestApp::start().await;
    let user = app.user("ada").await;
    let mut wanted = full();
    wanted["is_active"] = json!(false);
    let blank = cleared();
    for _ in 0..3 {
        let issued = user.post(KEYS, json!({ "name": "race" })).await.expect(201);
        let path = path(issued.text("id"));
        // Two writers per field, of the same value.
        let changes = fields(&wanted).chain(fields(&wanted)).map(|(name, value)| {
            let (user, path, name) = (user.clone(), path.clone(), name.clone());
            let body = json!({ &name: value });
            tokio::spawn(async move { (name, user.patch(&path, body).await.status.as_u16()) })
        });
        let answers: Vec<_> =
            join_all(changes).await.into_iter().map(|answer| answer.unwrap()).collect();
        assert!(answers.iter().all(|(_, status)| [200, 409].contains(status)), "{answers:?}");
        let read = user.get(&path).await.expect(200);
        for (name, value) in fields(&wanted) {
            let applied = answers.contains(&(name.clone(), 200));
            let before = blank.get(name).cloned().unwrap_or_else(|| issued.json[name].clone());
            assert_eq!(&read.json[name], if applied { value } else { &before }, "{name}");
        }
    }
}
