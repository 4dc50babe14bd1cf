//! What Redis knows of a pass: `active_token:` and the digest of its text.

use std::{sync::Arc, time::Duration};

use chrono::TimeDelta;
use serde_json::{Value, json};
use tollgate::domain::clock::FakeClock;

use super::{Given, HELLO, STATUS, give, id_of, pass_of};
use crate::support::{
    Options, PASSWORD, TestApp, TestDatabase, epoch,
    redis::{PATIENT, Server},
};

/// A server and how to look into it.
struct Inside {
    server: Server,
    connection: redis::aio::MultiplexedConnection,
}

impl Inside {
    async fn start() -> Option<Self> {
        let server = Server::start()?;
        let client = redis::Client::open(server.url()).unwrap();
        let connection = client.get_multiplexed_async_connection().await.unwrap();
        Some(Self { server, connection })
    }

    /// An instance on it.
    async fn instance(
        &self,
        clock: &Arc<FakeClock>,
        database: Option<Arc<TestDatabase>>,
    ) -> TestApp {
        let settings = [
            ("REDIS_URL", self.server.url()),
            ("TOKEN_REFUND", "pro_rata".to_owned()),
            ("RATE_LIMIT_PER_MINUTE", "0".to_owned()),
        ];
        let settings = settings.to_vec();
        // Nothing here is done to the server: what it was told must be there. And
        // nobody hears of anything but over it.
        let (clock, redis_waits, deaf) = (clock.clone(), Some(PATIENT), true);
        let options =
            Options { clock, database, deaf, redis_waits, settings, ..Options::default() };
        TestApp::with(options).await
    }

    /// The value and how long it stays.
    async fn find(&mut self, pass: &Given) -> Option<(Value, Duration)> {
        let name = format!("active_token:{}", pass.hash());
        let mut both = redis::pipe();
        both.get(&name).pttl(&name);
        let (text, life): (Option<String>, i64) =
            both.query_async(&mut self.connection).await.unwrap();
        let value = serde_json::from_str(&text?).unwrap();
        Some((value, Duration::from_millis(life.try_into().expect("it ends"))))
    }

    /// Names of all that is there.
    async fn names(&mut self) -> Vec<String> {
        redis::cmd("KEYS").arg("*").query_async(&mut self.connection).await.unwrap()
    }
}

#[tokio::test]
async fn a_pass_is_in_redis_from_its_first_use_to_its_end() {
    let Some(mut inside) = Inside::start().await else { return };
    let clock = FakeClock::starting_at(epoch());
    let app = inside.instance(&clock, None).await;
    let owner = id_of(&app.user("ada").await).await;
    let pass = give(&app, owner, 24).await;
    pass.status(&app).await;
    pass.bearer(&app).with_key("tg_x").get(HELLO).await.expect(401);
    pass.bearer(&app).get("/api/v1/users/me").await.expect(403);
    assert!(inside.find(&pass).await.is_none(), "unused");

    pass.bearer(&app).get(HELLO).await.expect(200);
    let (value, life) = inside.find(&pass).await.expect("active");
    assert_eq!(value["user_id"], owner.to_string());
    assert_eq!(value["token_id"], pass.id.to_string());
    assert_eq!(value["expires_at"], "2026-01-02T00:00:00Z");
    assert_eq!(value["duration_hours"], 24);
    assert!(value.as_object().unwrap().values().all(|v| v != &json!(pass.text)));
    let gone = Duration::from_hours(24).checked_sub(life).expect("no longer than the pass");
    assert!(gone < Duration::from_secs(20), "{life:?}");

    // Read again, it stays for what is left.
    clock.advance(TimeDelta::hours(24) - TimeDelta::seconds(90));
    pass.bearer(&app).get(HELLO).await.expect(200);
    let (_, life) = inside.find(&pass).await.expect("active");
    assert!(life <= Duration::from_secs(90) && life > Duration::from_secs(70), "{life:?}");
    clock.advance(TimeDelta::seconds(90));
    pass.bearer(&app).get(HELLO).await.expect(401);
    pass.status(&app).await;
    assert!(inside.find(&pass).await.is_none(), "ended");
    let text = inside.names().await.join(" ");
    assert!(!text.contains("tga_"), "{text}");
}

#[tokio::test]
async fn what_ends_a_pass_takes_it_out_of_redis_for_good() {
    let Some(mut inside) = Inside::start().await else { return };
    let clock = FakeClock::starting_at(epoch());
    let app = inside.instance(&clock, None).await;
    for way in ["revoke", "refund", "leave"] {
        let user = app.user(way).await;
        let pass = give(&app, id_of(&user).await, 24).await;
        pass.bearer(&app).get(HELLO).await.expect(200);
        assert!(inside.find(&pass).await.is_some(), "{way}");
        match way {
            "revoke" => pass.revoke(&app).await,
            "refund" => pass.refund(&app).await,
            _ => {
                let body = json!({ "password": PASSWORD });
                user.json(http::Method::DELETE, "/api/v1/users/me", &body).await.expect(204);
            }
        }
        for _ in 0..3 {
            assert!(inside.find(&pass).await.is_none(), "{way}");
            pass.bearer(&app).get(HELLO).await.expect(401);
            pass.bearer(&app).get(STATUS).await;
            clock.advance(TimeDelta::seconds(5));
        }
        assert!(inside.find(&pass).await.is_none(), "{way}");
    }
}

#[tokio::test]
async fn an_emptied_redis_changes_nothing() {
    let Some(mut inside) = Inside::start().await else { return };
    let clock = FakeClock::starting_at(epoch());
    let app = inside.instance(&clock, None).await;
    let owner = id_of(&app.user("ada").await).await;
    let (active, revoked) = (give(&app, owner, 24).await, give(&app, owner, 24).await);
    let unused = give(&app, owner, 24).await;
    for pass in [&active, &revoked] {
        pass.bearer(&app).get(HELLO).await.expect(200);
    }
    revoked.revoke(&app).await;
    for _ in 0..5 {
        inside.server.command(&["FLUSHALL"]).await;
        active.bearer(&app).get(HELLO).await.expect(200);
        revoked.bearer(&app).get(HELLO).await.expect_problem(401, "invalid_credential");
        assert_eq!(unused.status(&app).await.text("status"), "unused");
        assert_eq!(active.status(&app).await.text("expires_at"), "2026-01-02T00:00:00Z");
        clock.advance(TimeDelta::seconds(3));
    }
    assert!(inside.find(&active).await.is_some(), "there again");
    assert!(inside.find(&revoked).await.is_none());
    assert!(inside.find(&unused).await.is_none());
}

/// Whoever ended the pass could not reach Redis for longer than it tries. The
/// copy there does not count, and goes when it is met.
#[tokio::test]
async fn a_copy_that_was_left_behind_does_not_count_and_goes() {
    let Some(mut inside) = Inside::start().await else { return };
    let clock = FakeClock::starting_at(epoch());
    let app = inside.instance(&clock, None).await;
    let pass = pass_of(&app, "ada").await;
    pass.bearer(&app).get(HELLO).await.expect(200);
    app.database.execute("UPDATE passes SET revoked_at = created_at, version = version + 1").await;
    clock.advance(TimeDelta::seconds(4));
    assert!(inside.find(&pass).await.is_some());
    pass.bearer(&app).get(HELLO).await.expect_problem(401, "invalid_credential");
    assert!(inside.find(&pass).await.is_none());
}

/// Time in Redis and time in memory count together: four seconds in all.
#[tokio::test]
async fn a_copy_from_redis_is_as_old_as_it_is() {
    if std::env::var_os("TEST_DATABASE_URL").is_none() {
        return;
    }
    let Some(inside) = Inside::start().await else { return };
    let clock = FakeClock::starting_at(epoch());
    let a = inside.instance(&clock, None).await;
    let b = inside.instance(&clock, Some(a.database.clone())).await;
    let pass = pass_of(&a, "ada").await;
    pass.bearer(&a).get(HELLO).await.expect(200);
    clock.advance(TimeDelta::seconds(3));
    let before = b.app.db.acquired();
    pass.bearer(&b).get(STATUS).await.expect(200);
    assert_eq!(b.app.db.acquired(), before, "from redis");
    // Nobody is told.
    a.database.execute("UPDATE passes SET revoked_at = created_at, version = version + 1").await;
    clock.advance(TimeDelta::milliseconds(999));
    for app in [&a, &b] {
        pass.bearer(app).get(HELLO).await.expect(200);
    }
    clock.advance(TimeDelta::milliseconds(1));
    for app in [&b, &a] {
        pass.bearer(app).get(HELLO).await.expect_problem(401, "invalid_credential");
    }
}

/// A clock that runs ahead does not make a copy good for longer than its lead,
/// and none that is further ahead is believed.
#[tokio::test]
async fn a_copy_from_the_future_is_not_believed() {
    if std::env::var_os("TEST_DATABASE_URL").is_none() {
        return;
    }
    let Some(inside) = Inside::start().await else { return };
    let (ahead, clock) = (FakeClock::starting_at(epoch()), FakeClock::starting_at(epoch()));
    let a = inside.instance(&ahead, None).await;
    let b = inside.instance(&clock, Some(a.database.clone())).await;
    for (lead, believed) in [(1_000, true), (1_001, false)] {
        let now = tollgate::domain::clock::Clock::now(&*clock);
        let behind = now - tollgate::domain::clock::Clock::now(&*ahead);
        let pass = pass_of(&b, &format!("user{lead}")).await;
        ahead.advance(behind + TimeDelta::milliseconds(lead));
        pass.bearer(&a).get(HELLO).await.expect(200);
        let before = b.app.db.acquired();
        pass.bearer(&b).get(STATUS).await.expect(200);
        let looked = b.app.db.acquired() - before;
        // The account is known to `b` by its registration or read once.
        assert_eq!(looked == 0, believed, "{lead} ms ahead: {looked} sessions");
        clock.advance(TimeDelta::seconds(30));
    }
}
