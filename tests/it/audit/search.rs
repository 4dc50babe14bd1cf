//! `GET /admin/audit`.

use serde_json::{Value, json};

use crate::support::{Client, TestApp, UNLIMITED};

async fn found(admin: &Client, query: &str) -> Vec<Value> {
    let answer = admin.get(&format!("/api/v1/admin/audit{query}")).await.expect(200);
    answer.json["items"].as_array().unwrap().clone()
}

#[tokio::test]
async fn the_log_is_searched_by_actor_action_target_and_time() {
    let (app, clock) = TestApp::in_memory(UNLIMITED).await;
    let (admin, ada) = (app.admin().await, app.user("ada").await);
    let id = ada.get("/api/v1/users/me").await.text("id").to_owned();
    let key = ada.post("/api/v1/keys", json!({ "name": "ci" })).await.expect(201);
    let key_id = key.text("id").to_owned();
    clock.advance(chrono::TimeDelta::hours(1));
    let key_path = format!("/api/v1/keys/{key_id}");
    admin.patch(&key_path, json!({ "name": "new" })).await.expect(200);

    let of = async |query: String| -> Vec<String> {
        let rows = found(&admin, &query).await;
        rows.iter().map(|row| row["action"].as_str().unwrap().to_owned()).collect()
    };
    let cases: &[(String, &[&str])] = &[
        ("?actor=ada".to_owned(), &["key.created", "login.succeeded", "account.registered"]),
        (format!("?actor={id}"), &["key.created", "login.succeeded", "account.registered"]),
        (format!("?target={key_id}"), &["key.updated", "key.created"]),
        ("?action=key".to_owned(), &["key.updated", "key.created"]),
        ("?action=key.created".to_owned(), &["key.created"]),
        ("?action=ke".to_owned(), &[]),
        ("?action=k%25".to_owned(), &[]),
        (format!("?action=key&actor=admin&target={key_id}"), &["key.updated"]),
        ("?action=key&from=2026-01-01T00:30:00Z".to_owned(), &["key.updated"]),
        ("?action=key&to=2026-01-01T00:30:00Z".to_owned(), &["key.created"]),
        ("?actor=nobody".to_owned(), &[]),
        ("?actor=tollgate".to_owned(), &["account.created"]),
    ];
    for (query, expected) in cases {
        assert_eq!(of(query.clone()).await, *expected, "{query}");
    }
    let row = &found(&admin, "?action=key.updated").await[0];
    assert_eq!(
        (&row["before"], &row["after"]),
        (&json!({ "name": "ci" }), &json!({ "name": "new" }))
    );
    assert_eq!(row["at"], "2026-01-01T01:00:00Z");
    assert_eq!(row["address"], app.address.to_string());
    assert_eq!(row["hash"].as_str().unwrap().len(), 64);
}

#[tokio::test]
async fn pages_follow_each_other_while_rows_are_appended() {
    let app = TestApp::unlimited().await;
    let admin = app.admin().await;
    for n in 0..7 {
        app.register(&format!("user{n}")).await;
    }
    let (mut seen, mut cursor) = (vec![], String::new());
    loop {
        let path = format!("/api/v1/admin/audit?limit=3&cursor={cursor}");
        let page = admin.get(&path).await.expect(200);
        let rows = page.json["items"].as_array().unwrap();
        seen.extend(rows.iter().map(|row| row["seq"].as_i64().unwrap()));
        let Some(next) = page.json["next_cursor"].as_str() else { break };
        cursor = next.to_owned();
        app.register(&format!("late{}", seen.len())).await;
    }
    assert!(seen.iter().copied().eq((1..=9).rev()), "{seen:?}");
}

#[tokio::test]
async fn bad_filters_are_named() {
    let app = TestApp::unlimited().await;
    let admin = app.admin().await;
    let long = "x".repeat(129);
    for query in [
        format!("actor={long}"),
        format!("action={long}"),
        format!("target={long}"),
        "actor=%00".to_owned(),
        "from=yesterday".to_owned(),
        "from=0001-01-01T00:00:00Z".to_owned(),
        "cursor=x".to_owned(),
    ] {
        let answer = admin.get(&format!("/api/v1/admin/audit?{query}")).await.expect(422);
        let field = query.split('=').next().unwrap();
        assert_eq!(answer.json["errors"][0]["field"], field, "{answer:?}");
    }
}
