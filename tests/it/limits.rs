//! Rate limits and quotas as a client meets them.

use chrono::TimeDelta;
use futures_util::future::join_all;
use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{Answer, Client, Options, TestApp, epoch};

const HELLO: &str = "/api/v1/proxy/hello";
const VERIFY: &str = "/api/v1/keys/verify";

/// How many of so many requests, one after the other, are let through; the
/// rest must be refused by a limit.
async fn admitted(client: &Client, requests: usize) -> usize {
    let mut admitted = 0;
    for _ in 0..requests {
        let answer = client.get(HELLO).await;
        let limited = answer.status == StatusCode::TOO_MANY_REQUESTS;
        assert!(limited || answer.status == StatusCode::OK, "{answer:?}");
        admitted += usize::from(!limited);
    }
    admitted
}

async fn change(user: &Client, id: &str, change: Value) {
    user.patch(&format!("/api/v1/keys/{id}"), change).await.expect(200);
}

/// `("minute", 3, 60, 2, 60)` of `"minute";q=3;w=60` and `"minute";r=2;t=60`.
fn policy(answer: &Answer) -> (String, u64, u64, u64, u64) {
    let parse = |field: &str| {
        let mut parts = field.split(';');
        let name = parts.next().unwrap().strip_prefix('"').unwrap().strip_suffix('"').unwrap();
        let numbers: Vec<(String, u64)> = parts
            .map(|part| part.split_once('=').unwrap())
            .map(|(name, number)| (name.to_owned(), number.parse().unwrap()))
            .collect();
        (name.to_owned(), numbers)
    };
    let (name, policy) = parse(answer.header("ratelimit-policy"));
    let (same, state) = parse(answer.header("ratelimit"));
    assert_eq!(name, same);
    let names = [&policy[0].0, &policy[1].0, &state[0].0, &state[1].0];
    assert_eq!(names, ["q", "w", "r", "t"]);
    (name, policy[0].1, policy[1].1, state[0].1, state[1].1)
}

/// All fields tell the same, and the limit nearest to its end (G-81).
#[tokio::test]
async fn the_fields_describe_the_tightest_limit() {
    let (app, clock) = TestApp::in_memory([("RATE_LIMIT_USER_PER_MINUTE", "9")]).await;
    let user = app.user("ada").await;
    let fields = json!({ "name": "k", "rate_limit_per_minute": 4, "rate_limit": 6 });
    let (_, key) = app.key(&user, fields).await;
    let mut now = 0;
    for (advance, status, window, limit, remaining, wait) in [
        (0, 200, "minute", 4, 3, 60),
        (10, 200, "minute", 4, 2, 50),
        (0, 200, "minute", 4, 1, 50),
        (0, 200, "minute", 4, 0, 50),
        (20, 429, "minute", 4, 0, 30),
        // One of the minute's four has left, of the hour's six one is left.
        (30, 200, "minute", 4, 0, 10),
        (10, 200, "hour", 6, 0, 3530),
        (0, 429, "hour", 6, 0, 3530),
    ] {
        clock.advance(TimeDelta::seconds(advance));
        now += advance;
        let answer = key.get(HELLO).await.expect(status);
        let length = if window == "minute" { 60 } else { 3600 };
        assert_eq!(policy(&answer), (window.to_owned(), limit, length, remaining, wait), "{now}");
        assert_eq!(answer.header("x-ratelimit-limit"), limit.to_string());
        assert_eq!(answer.header("x-ratelimit-remaining"), remaining.to_string());
        let reset = epoch().timestamp() + now + i64::try_from(wait).unwrap();
        assert_eq!(answer.header("x-ratelimit-reset"), reset.to_string());
        if status == 429 {
            assert_eq!(answer.header("retry-after"), wait.to_string());
            answer.expect_problem(429, "rate_limited");
        } else {
            assert!(!answer.headers.contains_key("retry-after"));
        }
    }
}

#[tokio::test]
async fn without_a_limit_there_are_no_fields() {
    let app = TestApp::start().await;
    let (_, key) = app.key(&app.admin().await, json!({ "name": "k" })).await;
    let answer = key.get(HELLO).await.expect(200);
    for name in ["x-ratelimit-limit", "ratelimit", "ratelimit-policy", "retry-after"] {
        assert!(!answer.headers.contains_key(name), "{name}");
    }
}

/// Whoever waits as told gets through, whoever comes a second early does not,
/// in both forms of counting (G-81).
#[tokio::test]
async fn retry_after_is_honest() {
    for (field, limit) in [
        ("rate_limit_per_minute", 3),
        ("rate_limit_per_minute", 300),
        ("rate_limit", 5),
        ("rate_limit", 250),
    ] {
        let (app, clock) = TestApp::in_memory([("RATE_LIMIT_PER_MINUTE", "0")]).await;
        let user = app.admin().await;
        let issued = user.post("/api/v1/keys", json!({ "name": "k", field: limit })).await;
        let key = app.anonymous().with_key(issued.expect(201).text("key"));
        clock.advance(TimeDelta::milliseconds(7_300));
        // One, and later all others at once.
        key.get(HELLO).await.expect(200);
        clock.advance(TimeDelta::milliseconds(1_900));
        for _ in 0..2 {
            let mut answer = key.get(HELLO).await.expect(200);
            while answer.status == StatusCode::OK {
                answer = key.get(HELLO).await;
            }
            clock.advance(TimeDelta::milliseconds(800));
            let refused = key.get(HELLO).await.expect_problem(429, "rate_limited");
            let wait: i64 = refused.header("retry-after").parse().unwrap();
            assert_eq!(wait, i64::try_from(policy(&refused).4).unwrap());
            clock.advance(TimeDelta::seconds(wait - 1) - TimeDelta::milliseconds(1));
            key.get(HELLO).await.expect_problem(429, "rate_limited");
            clock.advance(TimeDelta::milliseconds(1001));
        }
        key.get(HELLO).await.expect(200);
    }
}

/// What one tier refuses is charged to none (G-80).
#[tokio::test]
async fn a_refused_request_is_charged_nowhere() {
    let app = TestApp::configured([("RATE_LIMIT_USER_PER_HOUR", "20")]).await;
    let user = app.user("ada").await;
    let fields = json!({ "name": "k", "rate_limit_per_minute": 2, "rate_limit": 6,
        "monthly_quota": 9 });
    let (id, key) = app.key(&user, fields).await;
    assert_eq!(admitted(&key, 7).await, 2, "minute");
    change(&user, &id, json!({ "rate_limit_per_minute": null })).await;
    assert_eq!(admitted(&key, 9).await, 4, "hour");
    change(&user, &id, json!({ "rate_limit": null })).await;
    assert_eq!(admitted(&key, 9).await, 3, "month");
    key.get(HELLO).await.expect_problem(429, "quota_exceeded");
    change(&user, &id, json!({ "monthly_quota": null })).await;
    // The user's: what was let through, what is left, and nothing else. Three
    // changes and the making of the key were requests of the user, too.
    let others = 4;
    assert_eq!(admitted(&key, 20).await, 20 - 9 - others, "user");
    app.flush().await;
    let usage = key.get("/api/v1/usage").await;
    assert_eq!(usage.expect_problem(429, "rate_limited").header("x-ratelimit-limit"), "20");
}

/// Exactly the limit however many ask at once (G-78).
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_requests_at_once_exactly_the_limit_passes() {
    // Denying turns what Redis does not answer into a refusal.
    let app = TestApp::configured([("RATE_LIMIT_ON_STORE_LOSS", "deny")]).await;
    let admin = app.admin().await;
    let (_, key) = app.key(&admin, json!({ "name": "k", "rate_limit_per_minute": 50 })).await;
    let answers = join_all((0..200).map(|_| {
        let key = key.clone();
        tokio::spawn(async move { key.get(HELLO).await.status.as_u16() })
    }))
    .await;
    let passed = answers.into_iter().filter(|status| *status.as_ref().unwrap() == 200).count();
    assert_eq!(passed, 50);
    app.flush().await;
    let usage = key.get("/api/v1/usage").await.expect(200);
    assert_eq!(usage.json["totals"]["requests"], passed);
    assert_eq!(usage.json["totals"]["rejected"], 200 - passed);
}

/// Of the keys of one user together, whichever it is (tier "user").
#[tokio::test]
async fn a_users_limit_holds_over_all_keys() {
    let app = TestApp::configured([("RATE_LIMIT_USER_PER_MINUTE", "10")]).await;
    let (ada, bob) = (app.user("ada").await, app.user("bob").await);
    let mut keys = vec![];
    for _ in 0..3 {
        keys.push(app.key(&ada, json!({ "name": "k" })).await.1);
    }
    let (_, other) = app.key(&bob, json!({ "name": "k" })).await;
    let mut passed = 0;
    for key in &keys {
        passed += admitted(key, 4).await;
    }
    // Making the three keys were requests of hers.
    assert_eq!(passed, 7);
    assert_eq!(admitted(&other, 4).await, 4);
}

/// A quota survives a restart and ends with the month, UTC (G-60).
#[tokio::test]
async fn a_monthly_quota_is_seeded_from_usage_and_ends_with_the_month() {
    let (app, clock) = TestApp::in_memory([]).await;
    let (_, key) = app.key(&app.admin().await, json!({ "name": "k", "monthly_quota": 5 })).await;
    clock.advance(TimeDelta::days(20));
    assert_eq!(admitted(&key, 3).await, 3);
    app.flush().await;

    let options = Options {
        clock: clock.clone(),
        database: Some(app.database.clone()),
        in_memory: true,
        ..Options::default()
    };
    let again = TestApp::with(options).await;
    let key = key.at(&again.base);
    let last = key.get(HELLO).await.expect(200);
    assert_eq!(policy(&last), ("month".to_owned(), 5, 2_678_400, 1, 11 * 86_400));
    assert_eq!(admitted(&key, 3).await, 1);
    let refused = key.get(HELLO).await.expect_problem(429, "quota_exceeded");
    assert_eq!(refused.header("retry-after"), (11 * 86_400).to_string());

    clock.advance(TimeDelta::days(11) - TimeDelta::microseconds(1));
    key.get(HELLO).await.expect_problem(429, "quota_exceeded");
    clock.advance(TimeDelta::microseconds(1));
    assert_eq!(admitted(&key, 7).await, 5);
}

/// A verification counts by its cost, also after a restart.
#[tokio::test]
async fn a_quota_is_seeded_with_the_cost_of_verifications() {
    let (app, clock) = TestApp::in_memory([]).await;
    let fields = json!({ "name": "k", "monthly_quota": 10 });
    let issued = app.admin().await.post("/api/v1/keys", fields).await.expect(201);
    let verify = async |app: &TestApp, cost| {
        let body = json!({ "key": issued.text("key"), "cost": cost });
        app.anonymous().post(VERIFY, body).await.expect(200).json
    };
    assert_eq!(verify(&app, 7).await["ratelimit"]["remaining"], 3);
    assert_eq!(verify(&app, 4).await["code"], "quota_exceeded");
    app.flush().await;
    let options = Options {
        clock,
        database: Some(app.database.clone()),
        in_memory: true,
        ..Options::default()
    };
    let again = TestApp::with(options).await;
    assert_eq!(verify(&again, 4).await["code"], "quota_exceeded");
    assert_eq!(verify(&again, 3).await["ratelimit"]["remaining"], 0);
}

/// Neither a change of the limit nor a new text starts a window anew (G-84).
#[tokio::test]
async fn a_changed_limit_holds_at_once_and_forgets_nothing() {
    let app = TestApp::start().await;
    let user = app.admin().await;
    let issued = user.post("/api/v1/keys", json!({ "name": "k" })).await.expect(201);
    let id = issued.text("id");
    let mut key = app.anonymous().with_key(issued.text("key"));
    for field in ["rate_limit_per_minute", "rate_limit"] {
        let mut before = 0;
        // Above 200 the form of counting is another.
        for (limit, expected) in [(5, 5), (8, 3), (3, 0), (10, 2), (210, 5), (4, 0), (18, 3)] {
            change(&user, id, json!({ field: limit })).await;
            let got = admitted(&key, if limit == 210 { 5 } else { 6.min(expected + 1) }).await;
            assert_eq!(got, expected, "{field}: {limit} after {before}");
            before += got;
            let rotated = user.post_empty(&format!("/api/v1/keys/{id}/rotate")).await.expect(200);
            key = app.anonymous().with_key(rotated.text("key"));
        }
        change(&user, id, json!({ field: null })).await;
    }
}

/// By address, IPv6 by its /64, from the nearest untrusted hop only (G-82).
#[tokio::test]
async fn an_address_cannot_be_made_up() {
    let trusting = [("UPSTREAM_AUTH", "optional"), ("RATE_LIMIT_PER_MINUTE", "5")];
    // In memory, since the real peer is everybody's.
    let (open, _) = TestApp::in_memory([
        ("UPSTREAM_AUTH", "optional"),
        ("RATE_LIMIT_PER_MINUTE", "5"),
        ("SERVER_TRUSTED_PROXIES", ""),
    ])
    .await;
    let mut passed = 0;
    for n in 0..12 {
        let claim = format!("203.0.113.{n}");
        let client = Client::new(&open.base)
            .with("x-forwarded-for", &claim)
            .with("x-real-ip", &claim)
            .with("forwarded", &format!("for={claim}"));
        passed += admitted(&client, 1).await;
    }
    assert_eq!(passed, 5, "without a trusted proxy");

    let (app, _) = TestApp::in_memory(trusting).await;
    for (what, claim, expected) in [
        ("the left part is the client's own claim", "203.0.113.{}, 192.0.2.1", 5),
        ("the same /64", "2001:db8:1:2:{}::1", 5),
        ("the same address, mapped and not", "::ffff:192.0.2.7", 5),
        ("another /64 each", "2001:db8:2:{}::1", 12),
        ("another address each", "198.51.100.{}", 12),
    ] {
        let mut passed = 0;
        for n in 0..12 {
            let client = Client::new(&app.base);
            let claim = claim.replace("{}", &n.to_string());
            passed += admitted(&client.with("x-forwarded-for", &claim), 1).await;
        }
        assert_eq!(passed, expected, "{what}");
    }
    let client = Client::new(&app.base).with("x-forwarded-for", "192.0.2.7");
    assert_eq!(admitted(&client, 1).await, 0, "the same address, mapped and not");
}

#[tokio::test]
async fn strangers_are_limited_by_address_and_logins_are_not() {
    let app =
        TestApp::configured([("RATE_LIMIT_PER_MINUTE", "6"), ("UPSTREAM_AUTH", "optional")]).await;
    let admin = app.admin().await;
    let fields = json!({ "name": "k", "rate_limit_per_minute": 1 });
    let (_, key) = app.key(&admin, fields).await;
    // The login above was the first of six.
    let routes = ["/api/v1/users/me", "/api/v1/nothing-here", HELLO];
    let mut statuses = vec![];
    for route in routes.into_iter().chain(["/api/v1/usage"; 2]) {
        statuses.push(app.anonymous().get(route).await.status.as_u16());
    }
    let verify = app.anonymous().post(VERIFY, json!({ "key": "tg_x" })).await.expect(200);
    assert_eq!(verify.header("x-ratelimit-remaining"), "0", "{statuses:?}");
    assert_eq!(statuses, [401, 404, 200, 401, 401]);
    for answer in [
        app.anonymous().get("/api/v1/users/me").await,
        app.anonymous().get(HELLO).await,
        app.anonymous().post(VERIFY, json!({ "key": "tg_x" })).await,
        app.login("admin", crate::support::PASSWORD).await,
    ] {
        let answer = answer.expect_problem(429, "rate_limited");
        assert!((1..=60).contains(&answer.header("retry-after").parse::<u64>().unwrap()));
    }
    app.anonymous().get("/health/live").await.expect(200);
    // A key's limit is about what it opens, a login has none by default.
    for _ in 0..8 {
        admin.get("/api/v1/keys").await.expect(200);
        key.get("/api/v1/usage").await.expect(200);
    }
    assert_eq!(admitted(&key, 3).await, 1);
}
