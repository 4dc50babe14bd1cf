//! Everything at a glance, for operators.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use tollgate::domain::{
    clock::FakeClock,
    id::{ApiKeyId, LogPlace, PassId, RecordId, UserId},
    usage::{Outcome, UsageRecord},
};

use crate::support::{
    Client, Options, TestApp, TestDatabase, UNLIMITED, epoch, redis::Server, unique,
};

const OVERVIEW: &str = "/api/v1/admin/overview";
/// Longer than anything of it is held.
const A_WHILE: TimeDelta = TimeDelta::minutes(11);

async fn overview(client: &Client) -> Value {
    client.get(OVERVIEW).await.expect(200).json
}

/// Without what limits refuse.
async fn priced(clock: Arc<FakeClock>, more: &[(&'static str, &str)]) -> TestApp {
    let own = [("TOKEN_PRICE_24H", "500"), ("TOKEN_REFUND", "unused"), ("WALLET_CURRENCY", "USD")];
    let settings = UNLIMITED.iter().chain(&own).chain(more);
    let settings = settings.map(|(name, value)| (*name, (*value).to_owned())).collect();
    TestApp::with(Options { clock, settings, ..Options::default() }).await
}

/// A request that ended now.
fn request(at: DateTime<Utc>, status: u16, asker: Asker, upstream: &'static str) -> UsageRecord {
    let rejected = status == 429;
    UsageRecord {
        id: RecordId::new(at),
        request_id: "r".to_owned(),
        at,
        method: "GET".into(),
        path: "/".to_owned(),
        status,
        outcome: if rejected { Outcome::Rejected } else { Outcome::Completed },
        duration_us: 1000,
        bytes_in: 0,
        bytes_out: 0,
        user_id: asker.0,
        key_id: asker.1,
        pass_id: asker.2,
        upstream: upstream.into(),
        route: "/**".into(),
        is_stream: false,
        messages: 0,
        place: LogPlace::NIL,
    }
}

type Asker = (Option<UserId>, Option<ApiKeyId>, Option<PassId>);

#[tokio::test]
async fn accounts_passes_and_revenue_are_counted() {
    let clock = FakeClock::starting_at(epoch());
    let app = priced(clock.clone(), &[]).await;
    let admin = app.admin().await;
    let none = overview(&admin).await;
    assert_eq!(none["users"]["total"], 1);
    assert_eq!(none["tokens"], json!({ "total": 0, "unused": 0, "active": 0, "over": 0 }));
    assert_eq!(none["revenue"]["ever"], json!({ "revenue_minor": 0, "sold": 0, "refunded": 0 }));

    let ada = app.user("ada").await;
    let id = ada.get("/api/v1/users/me").await.text("id").to_owned();
    let path = format!("/api/v1/admin/users/{id}/wallet/credit");
    let credit = json!({ "amount_minor": 9000, "reason": "r" });
    admin.with("idempotency-key", &unique("k")).post(&path, credit).await.expect(201);
    let buy = async || {
        let day = json!({ "duration_hours": 24 });
        ada.post("/api/v1/tokens/purchase", day).await.expect(201)
    };
    let (used, _unused, back, gone) = (buy().await, buy().await, buy().await, buy().await);
    let pass = app.anonymous().with("x-access-token", used.text("token"));
    pass.get("/api/v1/proxy/x").await.expect(200);
    let refund = format!("/api/v1/tokens/{}/refund", back.text("token_id"));
    ada.post_empty(&refund).await.expect(200);
    let revoke = format!("/api/v1/admin/tokens/{}/revoke", gone.text("token_id"));
    admin.post_empty(&revoke).await.expect(200);
    let mo = app.register("moe").await.text("id").to_owned();
    let grace = app.register("grace").await.text("id").to_owned();
    for (id, fields) in [
        (&mo, json!({ "roles": ["admin"], "is_active": false })),
        (&grace, json!({ "is_active": false })),
    ] {
        let path = format!("/api/v1/admin/users/{id}");
        admin.patch(&path, fields).await.expect(200);
    }

    // Who asked before is answered the same for a while, and told of when it is.
    let held = overview(&admin).await;
    assert_eq!((&held["users"], &held["counted_at"]), (&none["users"], &none["counted_at"]));
    clock.advance(A_WHILE);
    let all = overview(&admin).await;
    assert_eq!(all["unavailable"], json!([]), "{all}");
    let users = json!({ "total": 4, "active": 2, "disabled": 2, "admins": 1,
        "new_last_24_hours": 4, "new_last_30_days": 4 });
    assert_eq!(all["users"], users);
    assert_eq!(all["tokens"], json!({ "total": 4, "unused": 1, "active": 1, "over": 2 }));
    let sold = json!({ "revenue_minor": 1500, "sold": 4, "refunded": 1 });
    assert_eq!(all["revenue"]["currency"], "USD");
    for span in ["ever", "last_24_hours", "last_30_days"] {
        assert_eq!(all["revenue"][span], sold, "{span}");
    }

    // The pass expires, and what was new is not any more.
    for (days, day, month) in [(2, 0, 4), (31, 0, 0)] {
        clock.advance(TimeDelta::days(days));
        let admin = app.admin().await;
        let later = overview(&admin).await;
        assert_eq!(later["tokens"], json!({ "total": 4, "unused": 1, "active": 0, "over": 3 }));
        assert_eq!(later["users"]["new_last_24_hours"], day, "{days}");
        assert_eq!(later["users"]["new_last_30_days"], month, "{days}");
        assert_eq!(later["revenue"]["last_24_hours"]["sold"], day);
        assert_eq!(later["revenue"]["last_30_days"]["sold"], month);
        assert_eq!(later["revenue"]["ever"], sold);
    }
}

#[tokio::test]
async fn requests_are_summed_and_the_busiest_are_named() {
    // At noon: today, the last day and the last month are three spans.
    let clock = FakeClock::starting_at(epoch() + TimeDelta::days(40) + TimeDelta::hours(12));
    let app = priced(clock.clone(), &[]).await;
    let ada = app.user("ada").await;
    let id: UserId = ada.get("/api/v1/users/me").await.text("id").parse().unwrap();
    let (key_id, _) = app.key(&ada, json!({ "name": "ci" })).await;
    let key: ApiKeyId = key_id.parse().unwrap();
    let (pass, stranger) = (PassId::new(epoch()), UserId::new(epoch()));
    let now = epoch() + TimeDelta::days(40) + TimeDelta::hours(12);
    let with_key = (Some(id), Some(key), None);
    for (ago, times, status, asker, upstream) in [
        (TimeDelta::zero(), 5, 200, with_key, "a"),
        (TimeDelta::zero(), 2, 404, with_key, "b"),
        (TimeDelta::zero(), 1, 502, (Some(id), None, None), "b"),
        (TimeDelta::zero(), 4, 429, (Some(id), None, Some(pass)), "a"),
        (TimeDelta::hours(20), 3, 200, (Some(id), None, Some(pass)), "a"),
        (TimeDelta::hours(20), 2, 500, (None, None, None), "a"),
        (TimeDelta::hours(30), 8, 200, (Some(stranger), None, None), "c"),
        (TimeDelta::days(29), 1, 200, (Some(stranger), None, None), "c"),
        (TimeDelta::days(31), 1, 200, (Some(stranger), None, None), "c"),
    ] {
        let mut tx = app.app.db.begin().await.unwrap();
        {
            use tollgate::repositories::Repositories as _;
            tx.usage().add_month(now - ago).await.unwrap();
        }
        tx.commit().await.unwrap();
        for _ in 0..times {
            let record = request(now - ago, status, asker, upstream);
            app.app.services.usage.record_unreserved(record);
        }
    }
    app.flush().await;
    let admin = app.admin().await;
    // What was rolled up meanwhile tells the same.
    for rolled_up in [false, true] {
        if rolled_up {
            app.app.services.usage.roll_up().await.unwrap();
            clock.advance(TimeDelta::minutes(2));
        }
        let all = overview(&admin).await;
        let figures = |requests, client_errors, server_errors, rejected| {
            json!({ "requests": requests, "client_errors": client_errors,
                "server_errors": server_errors, "rejected": rejected })
        };
        assert_eq!(all["requests"]["today"], figures(8, 2, 1, 4), "{rolled_up}");
        assert_eq!(all["requests"]["last_24_hours"], figures(13, 2, 3, 4), "{rolled_up}");
        assert_eq!(all["requests"]["last_30_days"], figures(22, 2, 3, 4), "{rolled_up}");
        let named = |item: &Value| {
            let names = ["kind", "username", "key_name", "requests", "server_errors", "rejected"];
            json!(names.map(|name| item[name].clone()))
        };
        let top: Vec<Value> = all["top_principals"].as_array().unwrap().iter().map(named).collect();
        let expected = [
            json!(["key", "ada", "ci", 7, 0, 0]),
            json!(["token", "ada", null, 3, 0, 4]),
            json!(["anonymous", null, null, 2, 2, 0]),
            json!(["user", "ada", null, 1, 1, 0]),
        ];
        assert_eq!(top, expected, "{rolled_up}");
        assert_eq!(all["top_principals"][0]["key_id"], key_id);
        assert_eq!(all["top_principals"][1]["token_id"], pass.to_string());
        let upstreams: Vec<_> = all["top_upstreams"].as_array().unwrap().iter().collect();
        let named: Vec<_> = upstreams.iter().map(|u| (&u["name"], &u["requests"])).collect();
        assert_eq!(named, [(&json!("a"), &json!(10)), (&json!("b"), &json!(3))]);
    }
    // An account that goes has no name any more, and has asked all the same.
    admin.delete(&format!("/api/v1/admin/users/{id}")).await.expect(204);
    clock.advance(TimeDelta::minutes(2));
    let top = overview(&admin).await["top_principals"][0].clone();
    assert_eq!((&top["username"], &top["key_name"]), (&Value::Null, &Value::Null));
    assert_eq!((&top["user_id"], &top["requests"]), (&json!(id.to_string()), &json!(7)));
}

#[tokio::test]
async fn a_part_that_cannot_be_read_is_told_and_the_others_are_there() {
    let clock = FakeClock::starting_at(epoch());
    let app = priced(clock.clone(), &[]).await;
    let admin = app.admin().await;
    overview(&admin).await;
    for (table, gone) in [
        ("ledger_entries", &["revenue"][..]),
        ("passes", &["tokens"]),
        ("usage_hourly", &["requests", "top_principals", "top_upstreams"]),
    ] {
        app.database.execute(format!("ALTER TABLE {table} RENAME TO elsewhere")).await;
        clock.advance(A_WHILE);
        let some = overview(&admin).await;
        assert_eq!(some["unavailable"], json!(gone), "{table}");
        let parts = ["users", "tokens", "revenue", "requests", "top_principals", "top_upstreams"];
        for part in parts {
            assert_eq!(some[part].is_null(), gone.contains(&part), "{table}: {part}");
        }
        app.database.execute(format!("ALTER TABLE elsewhere RENAME TO {table}")).await;
        // It is asked for again soon, not when what was good would be old.
        clock.advance(TimeDelta::seconds(2));
        assert_eq!(overview(&admin).await["unavailable"], json!([]), "{table}");
    }
}

#[tokio::test]
async fn what_is_down_is_told_and_costs_nothing_else() {
    let Some(mut server) = Server::start() else { return };
    let url = server.url();
    let file = "[[upstreams]]\nname='dead'\nmount='/dead'\nurl='http://127.0.0.1:9'\n\
         health={path='/'}\n";
    let app = TestApp::configured([("REDIS_URL", &url), ("FILE", file)]).await;
    let admin = app.admin().await;
    let well = overview(&admin).await;
    assert_eq!(well["health"]["services"]["database"], "healthy");
    assert_eq!(well["health"]["services"]["cache"], "healthy");
    assert_eq!((&well["health"]["instances"], &well["unavailable"]), (&json!(1), &json!([])));
    assert_eq!(well["health"]["upstreams_down"], json!([]));
    server.kill();
    let directory = app.app.services.upstreams.current();
    let targets = directory.upstreams.iter().flat_map(|upstream| &upstream.targets);
    targets.for_each(|target| (0..10).for_each(|_| target.checked(false)));
    let ill = overview(&admin).await;
    assert_eq!(ill["health"]["status"], "degraded", "{ill}");
    assert_eq!(ill["health"]["services"]["cache"], "degraded");
    assert_eq!(ill["health"]["upstreams_down"], json!(["dead"]));
    assert_eq!((&ill["users"]["total"], &ill["unavailable"]), (&json!(1), &json!([])));
}

/// Counting must not read the tables: where there are millions it would take
/// seconds, and each time anybody looks.
#[tokio::test]
async fn counts_are_made_from_indexes_alone() {
    let app = TestApp::start().await;
    let TestDatabase::Sqlite(_) = &*app.database else { return };
    let mut plans = vec![];
    for sql in [
        "SELECT COUNT(*) FROM users",
        "SELECT COUNT(*) FROM users WHERE is_active = FALSE",
        "SELECT COUNT(*) FROM users WHERE id >= x'00'",
        "SELECT COUNT(*) FROM passes WHERE activated_us IS NULL AND revoked_at IS NULL",
        "SELECT SUM(amount_minor) FROM ledger_entries WHERE account_id = x'00' AND transaction_id >= x'01'",
    ] {
        plans.push(app.database.plan(sql).await);
    }
    assert!(plans.iter().all(|plan| plan.contains("COVERING INDEX")), "{plans:#?}");
    for (sql, index) in [
        ("SELECT COUNT(*) FROM users WHERE (roles & 4) <> 0 AND is_active", "users_admins_idx"),
        (
            "SELECT COUNT(*) FROM passes WHERE activated_us IS NOT NULL AND revoked_at IS NULL \
             AND activated_us + duration_hours * 3600000000 > 7",
            "passes_ends_us_idx (<expr>>?)",
        ),
    ] {
        let plan = app.database.plan(sql).await;
        assert!(plan.contains(index), "{plan}");
    }
}
