//! Several limits of a key, by names of their own.

use chrono::TimeDelta;
use serde_json::json;

use super::HELLO;
use crate::support::TestApp;

#[tokio::test]
async fn the_refusal_names_its_limit_and_lists_the_others() {
    let (app, clock) = TestApp::in_memory([("RATE_LIMIT_USER_PER_HOUR", "100")]).await;
    let limits = json!([
        { "name": "burst", "limit": 2, "window": "second" },
        { "name": "steady", "limit": 3, "window": "minute" },
        { "name": "daily", "limit": 4, "window": "day" },
        { "name": "bill", "limit": 5, "window": "month", "on_store_loss": "deny" },
    ]);
    let user = app.user("ada").await;
    let (id, key) = app.key(&user, json!({ "name": "k", "limits": limits })).await;
    let path = format!("/api/v1/keys/{id}");
    assert_eq!(user.get(&path).await.expect(200).json["limits"], limits);
    // What a refused request would have used of the others is not used.
    for (advance, admitted, name, code, window) in [
        (0, 2, "burst", "rate_limited", 1),
        (1, 1, "steady", "rate_limited", 60),
        (60, 1, "daily", "rate_limited", 86_400),
        (86_400, 1, "bill", "quota_exceeded", 31 * 86_400),
    ] {
        clock.advance(TimeDelta::seconds(advance));
        for _ in 0..admitted {
            key.get(HELLO).await.expect(200);
        }
        let refused = key.get(HELLO).await.expect_problem(429, code);
        let limit = &refused.json["limit"];
        assert_eq!((&limit["name"], &limit["of"]), (&json!(name), &json!("key")), "{refused:?}");
        assert!(refused.text("detail").contains(&format!("`{name}`")), "{refused:?}");
        assert!(refused.header("ratelimit").starts_with(&format!("\"{name}\";r=0;t=")));
        let policies: Vec<&str> = refused
            .headers
            .get_all("ratelimit-policy")
            .iter()
            .map(|value| value.to_str().unwrap())
            .collect();
        assert!(policies[0].starts_with(&format!("\"{name}\";")), "{policies:?}");
        assert!(policies[0].ends_with(&format!(";w={window}")), "{policies:?}");
        assert_eq!(policies.len(), 5, "each once, and the user's: {policies:?}");
        assert!(policies.contains(&"\"user-hour\";q=100;w=3600"), "{policies:?}");
        assert_eq!(refused.json["other_limits"].as_array().unwrap().len(), 4);
    }
    let user = app.log_in("ada", crate::support::PASSWORD).await;
    user.patch(&path, json!({ "name": "n" })).await.expect(200);
    key.get(HELLO).await.expect(429);
    let changed = user.patch(&path, json!({ "limits": null })).await.expect(200);
    assert_eq!(changed.json["limits"], json!([]));
    key.get(HELLO).await.expect(200);
}

/// Of two limits with one window the smaller one counts, whatever they are
/// called; a new name gives nothing back.
#[tokio::test]
async fn limits_over_one_window_share_their_count() {
    let (app, _) = TestApp::in_memory([]).await;
    let user = app.admin().await;
    let limit = |name: &str, limit: u32| json!({ "name": name, "limit": limit, "window": "hour" });
    let fields = json!({ "name": "k", "rate_limit": 4, "limits": [limit("a", 3), limit("b", 9)] });
    let (id, key) = app.key(&user, fields).await;
    let path = format!("/api/v1/keys/{id}");
    for left in [2, 1, 0] {
        let answer = key.get(HELLO).await.expect(200);
        assert_eq!(answer.header("ratelimit").split(';').nth(1).unwrap(), format!("r={left}"));
    }
    let refused = key.get(HELLO).await.expect_problem(429, "rate_limited");
    assert_eq!(refused.json["limit"]["name"], "a");
    user.patch(&path, json!({ "limits": [limit("c", 3)] })).await.expect(200);
    key.get(HELLO).await.expect_problem(429, "rate_limited");
    user.patch(&path, json!({ "limits": [limit("c", 30)] })).await.expect(200);
    key.get(HELLO).await.expect(200);
    let refused = key.get(HELLO).await.expect_problem(429, "rate_limited");
    assert_eq!(refused.json["limit"]["name"], "hour", "what the key says without a name");
}

#[tokio::test]
async fn what_is_no_list_of_limits_is_refused_whole() {
    let app = TestApp::start().await;
    let user = app.admin().await;
    let good = json!({ "name": "a", "limit": 1, "window": "day" });
    let with = |field: &str, value: serde_json::Value| {
        let mut limit = good.clone();
        limit[field] = value;
        json!([limit])
    };
    let many = |count: usize| -> serde_json::Value {
        (0..count)
            .map(|n| json!({ "name": format!("n{n}"), "limit": 1, "window": "day" }))
            .collect()
    };
    let (id, _) = app.key(&user, json!({ "name": "k", "limits": many(8) })).await;
    for limits in [
        many(9),
        json!([good, good]),
        with("name", json!("")),
        with("name", json!("A")),
        with("name", json!("a b")),
        with("name", json!("n".repeat(65))),
        with("limit", json!(0)),
        with("limit", json!(u64::MAX)),
        with("window", json!("week")),
        with("window", json!("Day")),
        with("on_store_loss", json!("open")),
    ] {
        let fields = json!({ "name": "k", "limits": limits });
        let refused = user.post("/api/v1/keys", fields).await;
        let refused = refused.expect_problem(422, "validation_failed");
        assert_eq!(refused.json["errors"][0]["field"], "limits", "{refused:?}");
        let path = format!("/api/v1/keys/{id}");
        let refused = user.patch(&path, json!({ "limits": limits, "name": "other" })).await;
        refused.expect_problem(422, "validation_failed");
        assert_eq!(user.get(&path).await.json["name"], "k");
    }
}
