//! Who is limited by what.

use chrono::{Months, TimeDelta};
use http::StatusCode;
use serde_json::json;
use tollgate::domain::audit::SYSTEM;
use tollgate::{
    domain::{
        clock::{Clock, FakeClock},
        limit::{Per, month_end},
    },
    services::passes::Order,
};

use super::HELLO;
use crate::support::{Client, Options, TestApp, epoch};

/// Settings of the one, an instance on a clock that stands still.
async fn with(settings: &[(&'static str, &str)]) -> (TestApp, std::sync::Arc<FakeClock>) {
    let clock = FakeClock::starting_at(epoch());
    let settings = settings.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    let options = Options { clock: clock.clone(), in_memory: true, settings, ..Options::default() };
    (TestApp::with(options).await, clock)
}

async fn pass(app: &TestApp, client: &Client, hours: u32) -> Client {
    let owner = client.get("/api/v1/users/me").await.expect(200).text("id").parse().unwrap();
    let order = Order { duration_hours: hours, upstream: None };
    let given = app.app.services.passes.grant(&SYSTEM, owner, order, None).await.unwrap();
    app.anonymous().with("x-access-token", given.token.unwrap().expose())
}

#[tokio::test]
async fn each_subject_has_a_limit_for_each_window() {
    for (prefix, of) in [
        ("", "address"),
        ("USER_", "user"),
        ("KEY_", "key"),
        ("TOKEN_", "token"),
        ("ORIGIN_", "origin"),
        ("UPSTREAM_", "upstream"),
    ] {
        for per in Per::ALL {
            let name: &'static str =
                format!("RATE_LIMIT_{prefix}PER_{}", per.as_str().to_uppercase()).leak();
            let (app, clock) = with(&[("UPSTREAM_AUTH", "optional"), (name, "2")]).await;
            // Who asks for it, and who has nothing to do with it.
            let (caller, other) = match of {
                "address" => (app.anonymous(), Some(app.anonymous_from("203.0.113.9"))),
                "origin" => {
                    let from = |origin| app.anonymous().with("origin", origin);
                    (from("https://a.example:8443"), Some(from("https://b.example")))
                }
                "upstream" => (app.anonymous(), None),
                "user" => (app.admin().await, Some(app.anonymous())),
                "key" => {
                    let admin = app.admin().await;
                    let (_, key) = app.key(&admin, json!({ "name": "k" })).await;
                    (key, Some(admin))
                }
                _ => {
                    let admin = app.admin().await;
                    (pass(&app, &admin, 2000).await, Some(pass(&app, &admin, 1).await))
                }
            };
            for _ in 0..2 {
                caller.get(HELLO).await.expect(200);
            }
            let code = if per == Per::Month { "quota_exceeded" } else { "rate_limited" };
            let refused = caller.get(HELLO).await.expect_problem(429, code);
            let window = per.window().seconds();
            let limit = json!({ "name": per.as_str(), "of": of, "limit": 2,
                "window_seconds": window });
            assert_eq!(refused.json["limit"], limit, "{name}");
            let policy = format!("\"{}\";q=2;w={window}", per.as_str());
            assert_eq!(refused.header("ratelimit-policy"), policy, "{name}");
            match other {
                Some(other) => drop(other.get(HELLO).await.expect(200)),
                // Whoever it is.
                None => drop(app.anonymous_from("203.0.113.9").get(HELLO).await.expect(429)),
            }
            let wait = match per {
                Per::Month => month_end(clock.now()) - clock.now(),
                per => TimeDelta::seconds(i64::from(per.window().seconds())),
            };
            clock.advance(wait - TimeDelta::milliseconds(1));
            // A login is over in the meantime.
            if of == "user" && per >= Per::Hour {
                continue;
            }
            assert_eq!(caller.get(HELLO).await.status, StatusCode::TOO_MANY_REQUESTS, "{name}");
            clock.advance(TimeDelta::milliseconds(1));
            caller.get(HELLO).await.expect(200);
        }
    }
}

#[tokio::test]
async fn only_an_origin_that_is_one_is_counted() {
    let (app, _) =
        with(&[("UPSTREAM_AUTH", "optional"), ("RATE_LIMIT_ORIGIN_PER_HOUR", "1")]).await;
    let from = |origin: &str| app.anonymous().with("origin", origin);
    from("https://a.example").get(HELLO).await.expect(200);
    // By host alone.
    for same in ["http://a.example", "https://A.example:444", "https://a.example."] {
        from(same).get(HELLO).await.expect_problem(429, "rate_limited");
    }
    let twice = from("https://a.example").with("origin", "https://a.example");
    for client in [app.anonymous(), from("null"), from("a.example"), twice] {
        for _ in 0..2 {
            client.get(HELLO).await.expect(200);
        }
    }
}

/// An upstream's own limits replace those for all, and its users have some each.
#[tokio::test]
async fn an_upstream_has_limits_of_its_own() {
    let file = "[[upstreams]]\nname='a'\nmount='/a'\nurl='http://127.0.0.1:9'\n\
        limits = { per_minute = 5, per_hour = 0, user_per_minute = 2, on_store_loss = 'allow' }\n\
        [[upstreams]]\nname='b'\nmount='/b'\nurl='http://127.0.0.1:9'\n";
    let (app, _) = with(&[("FILE", file), ("RATE_LIMIT_UPSTREAM_PER_HOUR", "3")]).await;
    let admin = app.admin().await;
    let (_, key) = app.key(&admin, json!({ "name": "k" })).await;
    let limit_of = async |client: &Client, path: &str| {
        let answer = client.get(path).await;
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            answer.json["limit"]["of"].as_str().map(str::to_owned)
        } else {
            // Nothing listens there.
            assert!(answer.status.is_server_error(), "{answer:?}");
            None
        }
    };
    assert_eq!(limit_of(&admin, "/a/x").await, None);
    assert_eq!(limit_of(&key, "/a/x").await, None);
    // By whatever credential.
    for client in [&admin, &key] {
        assert_eq!(limit_of(client, "/a/x").await.unwrap(), "user_at_upstream");
    }
    for name in ["ada", "bob"] {
        let user = app.user(name).await;
        let first = limit_of(&user, "/a/x").await;
        let second = limit_of(&user, "/a/x").await;
        assert_eq!(first, None);
        // Of the five that the upstream may have, the last is gone.
        assert_eq!(second.as_deref(), if name == "ada" { None } else { Some("upstream") });
        if name == "ada" {
            assert_eq!(limit_of(&user, "/a/x").await.unwrap(), "user_at_upstream");
        }
    }
    // Elsewhere, what holds for all.
    for _ in 0..3 {
        assert_eq!(limit_of(&admin, "/b/x").await, None);
    }
    assert_eq!(limit_of(&key, "/b/x").await.unwrap(), "upstream");
}

/// Counts of a month that are lost come back from the usage.
#[tokio::test]
async fn months_of_users_and_upstreams_are_seeded_from_usage() {
    for (setting, of) in
        [("RATE_LIMIT_USER_PER_MONTH", "user"), ("RATE_LIMIT_UPSTREAM_PER_MONTH", "upstream")]
    {
        let settings = vec![(setting, "8".to_owned())];
        let (app, clock) = TestApp::in_memory([]).await;
        let (_, key) = app.key(&app.admin().await, json!({ "name": "k" })).await;
        for _ in 0..5 {
            key.get(HELLO).await.expect(200);
        }
        app.flush().await;
        let options = Options {
            clock: clock.clone(),
            in_memory: true,
            settings,
            database: Some(app.database.clone()),
            ..Options::default()
        };
        let again = TestApp::with(options).await;
        let key = key.at(&again.base);
        for _ in 0..3 {
            key.get(HELLO).await.expect(200);
        }
        let refused = key.get(HELLO).await.expect_problem(429, "quota_exceeded");
        assert_eq!(refused.json["limit"]["of"], of);
        let next = month_end(clock.now());
        assert_eq!(next, epoch() + Months::new(1));
    }
}
