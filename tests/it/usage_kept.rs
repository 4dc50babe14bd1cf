//! How usage is kept: written late but never lost, and not for ever.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use tollgate::{
    domain::{
        clock::Clock as _,
        id::{ApiKeyId, LogPlace, RecordId},
        usage::{Outcome, UsageRecord},
    },
    jobs,
    repositories::Repositories as _,
};

use crate::support::{
    Answer, Client, Options, PASSWORD, TestApp,
    journal::{SMALLEST_JOURNAL, fill_the_journal},
    recorder::{Recorder, ok},
};

const HELLO: &str = "/api/v1/proxy/hello";
const USAGE: &str = "/api/v1/usage";
const REQUESTS: &str = "/api/v1/usage/requests";

async fn requests(client: &Client) -> Value {
    client.get(USAGE).await.expect(200).json["totals"]["requests"].clone()
}

async fn requests_since(client: &Client, from: &str) -> Value {
    let usage = client.get(&format!("{USAGE}?from={from}")).await.expect(200);
    usage.json["totals"]["requests"].clone()
}

fn ids(answer: &Answer) -> Vec<String> {
    let items = answer.json["items"].as_array().unwrap().iter();
    items.map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

fn record(at: DateTime<Utc>, key: ApiKeyId, duration_us: u64) -> UsageRecord {
    UsageRecord {
        id: RecordId::new(at),
        request_id: "r".to_owned(),
        at,
        method: "GET".into(),
        path: "/".to_owned(),
        status: 200,
        outcome: Outcome::Completed,
        duration_us,
        bytes_in: 0,
        bytes_out: 0,
        user_id: None,
        key_id: Some(key),
        pass_id: None,
        upstream: "echo".into(),
        route: "/**".into(),
        is_stream: false,
        messages: 0,
        place: LogPlace::NIL,
    }
}

#[tokio::test]
async fn a_keys_usage_at_a_glance_follows_the_calendar() {
    let (app, clock) = TestApp::in_memory([]).await;
    let (id, key) = app.key(&app.admin().await, json!({ "name": "k" })).await;
    let glance = async || {
        app.flush().await;
        let admin = app.admin().await;
        let key = admin.get(&format!("/api/v1/keys/{id}")).await.expect(200);
        let usage = &key.json["usage"];
        assert_eq!(usage.as_object().unwrap().len(), 3);
        ["totals", "today", "last_30_days"].map(|span| usage[span]["requests"].as_u64().unwrap())
    };
    assert_eq!(glance().await, [0, 0, 0]);
    clock.advance(TimeDelta::days(1) - TimeDelta::microseconds(1));
    for _ in 0..2 {
        key.get(HELLO).await.expect(200);
    }
    assert_eq!(glance().await, [2, 2, 2]);
    clock.advance(TimeDelta::microseconds(1));
    assert_eq!(glance().await, [2, 0, 2]);
    key.get(HELLO).await.expect(200);
    assert_eq!(glance().await, [3, 1, 3]);
    // The first day is the 30th, today included; one more and it is not.
    clock.advance(TimeDelta::days(29) - TimeDelta::microseconds(1));
    assert_eq!(glance().await, [3, 0, 3]);
    clock.advance(TimeDelta::microseconds(1));
    assert_eq!(glance().await, [3, 0, 1]);
    clock.advance(TimeDelta::days(1));
    assert_eq!(glance().await, [3, 0, 0]);
}

#[tokio::test]
async fn durations_are_summed_up_within_their_stated_error() {
    let (app, clock) = TestApp::in_memory([]).await;
    let (id, key) = app.key(&app.admin().await, json!({ "name": "k" })).await;
    let empty = key.get(USAGE).await.expect(200);
    let none = json!({ "mean": null, "p50": null, "p95": null, "p99": null });
    assert_eq!(empty.json["totals"]["duration_ms"], none);
    let id: ApiKeyId = id.parse().unwrap();
    for (times, duration_us) in [(90, 10_000), (8, 100_000), (2, 3_000_000)] {
        for _ in 0..times {
            app.app.services.usage.record_unreserved(record(clock.now(), id, duration_us));
        }
        app.flush().await;
        clock.advance(TimeDelta::minutes(40));
    }
    let usage = key.get(USAGE).await.expect(200);
    let duration = &usage.json["totals"]["duration_ms"];
    let ms = |name: &str| duration[name].as_f64().unwrap();
    assert!((ms("mean") - 77.0).abs() < 0.001, "{duration}");
    for (name, least) in [("p50", 10.0), ("p95", 100.0), ("p99", 3000.0)] {
        assert!((least..=1.25 * least).contains(&ms(name)), "{name}: {duration}");
    }
}

#[tokio::test]
async fn the_last_use_of_a_key_costs_no_write_per_request() {
    let (app, clock) = TestApp::with_clock().await;
    let user = app.admin().await;
    let (id, key) = app.key(&user, json!({ "name": "k" })).await;
    let path = format!("/api/v1/keys/{id}");
    key.get(HELLO).await.expect(200);
    let before = app.app.db.acquired();
    for _ in 0..20 {
        clock.advance(TimeDelta::milliseconds(100));
        key.get(HELLO).await.expect(200);
    }
    assert_eq!(app.app.db.acquired(), before);
    app.flush().await;
    assert_eq!(app.app.db.acquired(), before + 1);
    let read = user.get(&path).await.expect(200);
    assert_eq!(read.json["last_used_at"], "2026-01-01T00:00:02Z");
    // What a limit refused is no use.
    user.patch(&path, json!({ "rate_limit": 1 })).await.expect(200);
    key.get(HELLO).await;
    clock.advance(TimeDelta::seconds(1));
    key.get(HELLO).await.expect_problem(429, "rate_limited");
    app.flush().await;
    let read = user.get(&path).await.expect(200);
    assert_eq!(read.json["last_used_at"], "2026-01-01T00:00:02Z");
}

#[tokio::test]
async fn the_log_is_read_in_pages_that_new_requests_do_not_shift() {
    let (app, clock) = TestApp::with_clock().await;
    let (_, key) = app.key(&app.admin().await, json!({ "name": "k" })).await;
    let call = async |times| {
        for _ in 0..times {
            clock.advance(TimeDelta::milliseconds(5));
            key.get(HELLO).await.expect(200);
        }
        app.flush().await;
    };
    call(7).await;
    let whole = ids(&key.get(REQUESTS).await.expect(200));
    assert!(whole.is_sorted_by(|a, b| a > b), "each ended before the next began");
    let mut seen = vec![];
    let mut path = format!("{REQUESTS}?limit=3");
    loop {
        let page = key.get(&path).await.expect(200);
        seen.extend(ids(&page));
        call(1).await;
        let Some(cursor) = page.json["next_cursor"].as_str() else { break };
        path = format!("{REQUESTS}?limit=3&cursor={cursor}");
    }
    assert_eq!(seen, whole);
    key.get(&format!("{REQUESTS}?limit=0")).await.expect_problem(422, "validation_failed");
    key.get(&format!("{REQUESTS}?cursor=x")).await.expect_problem(422, "validation_failed");
}

/// The clock stands still, so all ended within one millisecond.
#[tokio::test]
async fn the_log_has_requests_of_one_instant_in_the_order_of_their_end() {
    let (app, _clock) = TestApp::with_clock().await;
    let (_, key) = app.key(&app.admin().await, json!({ "name": "k" })).await;
    for number in 0..40 {
        key.clone().with("x-request-id", &format!("n{number}")).get(HELLO).await.expect(200);
        if number % 7 == 0 {
            app.flush().await;
        }
    }
    app.flush().await;
    let expected: Vec<_> = (0..40).rev().map(|number| json!(format!("n{number}"))).collect();
    let (mut found, mut path) = (vec![], format!("{REQUESTS}?limit=9"));
    loop {
        let page = key.get(&path).await.expect(200);
        let items = page.json["items"].as_array().unwrap();
        found.extend(items.iter().map(|item| item["request_id"].clone()));
        let Some(cursor) = page.json["next_cursor"].as_str() else { break };
        path = format!("{REQUESTS}?limit=9&cursor={cursor}");
    }
    assert_eq!(found, expected);
}

#[tokio::test]
async fn old_usage_is_dropped_by_count_and_by_age() {
    let (app, clock) =
        TestApp::in_memory([("USAGE_REQUEST_LOG_MAX", "10"), ("USAGE_RETENTION_DAYS", "2")]).await;
    let (_, key) = app.key(&app.admin().await, json!({ "name": "k" })).await;
    for batch in [8, 25] {
        for _ in 0..batch {
            clock.advance(TimeDelta::milliseconds(5));
            key.get(HELLO).await.expect(200);
        }
        app.flush().await;
    }
    let newest = ids(&key.get(&format!("{REQUESTS}?limit=10")).await.expect(200));
    app.app.services.usage.prune().await.unwrap();
    assert_eq!(ids(&key.get(REQUESTS).await.expect(200)), newest);
    assert_eq!(requests(&key).await, 33, "sums do not depend on the log");

    clock.advance(TimeDelta::days(2) - TimeDelta::seconds(1));
    app.app.services.usage.prune().await.unwrap();
    assert_eq!((requests(&key).await, ids(&key.get(REQUESTS).await).len()), (json!(33), 10));
    clock.advance(TimeDelta::hours(1));
    app.app.services.usage.prune().await.unwrap();
    assert_eq!((requests(&key).await, ids(&key.get(REQUESTS).await).len()), (json!(33), 0));
    // Sums go by whole months.
    clock.advance(TimeDelta::days(29) + TimeDelta::hours(22));
    app.app.services.usage.prune().await.unwrap();
    assert_eq!(requests_since(&key, "2026-01-01T00:00:00Z").await, 33);
    clock.advance(TimeDelta::days(1) + TimeDelta::hours(2));
    app.app.services.usage.prune().await.unwrap();
    assert_eq!(requests_since(&key, "2026-01-01T00:00:00Z").await, 0);
}

#[tokio::test]
async fn a_graceful_stop_writes_what_waits() {
    let mut app = TestApp::start().await;
    let (_, key) = app.key(&app.admin().await, json!({ "name": "k" })).await;
    for _ in 0..5 {
        key.get(HELLO).await.expect(200);
    }
    drop(app.running.take());
    assert!(jobs::drain(&app.app, tokio::time::sleep(Duration::from_secs(5))).await);
    assert_eq!(app.app.services.usage.pending(), 0);
    let database = Some(app.database.clone());
    let again = TestApp::with(Options { database, ..Options::default() }).await;
    assert_eq!(requests(&key.at(&again.base)).await, 5);
}

/// Usage that cannot be recorded must not happen.
#[tokio::test]
async fn a_full_journal_refuses_before_the_upstream_is_called() {
    let upstream = Recorder::start(ok).await;
    let url = upstream.url();
    let app = TestApp::configured([("UPSTREAM_URL", url.as_str()), SMALLEST_JOURNAL]).await;
    let fields = json!({ "name": "k", "monthly_quota": 2 });
    let (_, key) = app.key(&app.admin().await, fields).await;
    fill_the_journal(&app).await;
    for _ in 0..5 {
        let refused = key.get(HELLO).await.expect_problem(503, "overloaded");
        assert_eq!(refused.header("retry-after"), "1");
    }
    assert!(upstream.deliveries().is_empty());
    // As soon as the database took it there is room, and what was refused cost
    // nothing.
    app.flush().await;
    for _ in 0..2 {
        key.get(HELLO).await.expect(200);
    }
    key.get(HELLO).await.expect_problem(429, "quota_exceeded");
    assert_eq!(upstream.deliveries().len(), 2);
    app.flush().await;
    assert_eq!((requests(&key).await, app.app.services.usage.pending()), (json!(2), 0));
}

#[tokio::test]
async fn an_operator_may_want_requests_served_that_are_not_recorded() {
    let unmetered = [SMALLEST_JOURNAL, ("USAGE_JOURNAL_ON_FULL", "unmetered")];
    let app = TestApp::configured(unmetered).await;
    let (_, key) = app.key(&app.admin().await, json!({ "name": "k" })).await;
    fill_the_journal(&app).await;
    let journal = app.app.services.usage.journal();
    let before = journal.waiting();
    key.get(HELLO).await.expect(200);
    assert_eq!((journal.waiting(), journal.dropped()), (before, 1));
}

/// Refusals, which anybody can have as many of as they like, do not fill the
/// disk while the database is away; nor is a key verified that could not be
/// charged.
#[tokio::test]
async fn a_full_journal_grows_no_more() {
    let app = TestApp::configured([SMALLEST_JOURNAL]).await;
    let issued = app.admin().await.post("/api/v1/keys", json!({ "name": "k" })).await.expect(201);
    fill_the_journal(&app).await;
    let usage = &app.app.services.usage;
    let key = issued.text("id").parse().unwrap();
    for _ in 0..5000 {
        usage.record_unreserved(record(app.app.services.clock.now(), key, 1));
    }
    assert!(usage.journal().waiting() < (1 << 20) * 5 / 4, "{}", usage.journal().waiting());
    assert!(usage.journal().dropped() > 0);
    let body = json!({ "key": issued.text("key"), "cost": 1 });
    let refused = app.anonymous().post("/api/v1/keys/verify", body.clone()).await;
    refused.expect_problem(503, "overloaded");
    app.flush().await;
    let verified = app.anonymous().post("/api/v1/keys/verify", body).await.expect(200);
    assert_eq!(verified.json["code"], "valid");
}

/// A flush fails half-way, after the sums were added: all is tried again, and
/// nothing is counted twice.
#[tokio::test]
async fn a_flush_that_fails_loses_nothing_and_adds_nothing_twice() {
    let app = TestApp::start().await;
    let (id, key) = app.key(&app.admin().await, json!({ "name": "k" })).await;
    for _ in 0..3 {
        key.get(HELLO).await.expect(200);
    }
    app.flush().await;
    for _ in 0..4 {
        key.get(HELLO).await.expect(200);
    }
    // Holds the row that a flush writes last; on SQLite that is everything.
    let other = app.database.open().await;
    let mut lock = other.begin().await.unwrap();
    let id: ApiKeyId = id.parse().unwrap();
    let now = app.app.services.clock.now();
    lock.api_keys().touch(&[(id, now + TimeDelta::days(1))]).await.unwrap();
    let usage = &app.app.services.usage;
    usage.flush().await.unwrap_err();
    assert_eq!(usage.pending(), 4);
    key.get(HELLO).await.expect(200);
    assert_eq!(requests(&key).await, 3);
    drop(lock);
    app.flush().await;
    app.flush().await;
    assert_eq!(requests(&key).await, 8);
    let log = app.log_in("admin", PASSWORD).await.get(&format!("{REQUESTS}?all=true")).await;
    assert_eq!(ids(&log.expect(200)).len(), 8);
    assert_eq!(usage.pending(), 0);
}
