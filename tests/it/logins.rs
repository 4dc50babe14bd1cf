//! Logins: begun with a password, listed, ended.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};
use tollgate::domain::audit::SYSTEM;

use bytes::Bytes;
use futures_util::future::join_all;
use http::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tollgate::{
    domain::id::UserId,
    repositories::Repositories as _,
    services::{Passwords, accounts::AccessChange, passwords::PasswordError},
};

use crate::{
    jwt::part,
    support::{Answer, LATE, Options, PASSWORD, TestApp, UNLIMITED, some_address, unique},
};

async fn refresh(app: &TestApp, pair: &Answer) -> Answer {
    let body = json!({ "refresh_token": pair.text("refresh_token") });
    app.anonymous().post("/api/v1/auth/refresh", body).await
}

async fn disable(app: &TestApp, id: &str) {
    let change = AccessChange { is_active: Some(false), roles: None };
    let id: UserId = id.parse().unwrap();
    app.app.services.accounts.change_access(&SYSTEM, id, change).await.unwrap();
}

#[tokio::test]
async fn a_login_answers_all_that_the_contract_names() {
    let app = TestApp::start().await;
    let registered = app.register("ada").await;
    let pair = app.login("ada", PASSWORD).await.expect(200);

    let names: BTreeSet<&str> = pair.json.as_object().unwrap().keys().map(String::as_str).collect();
    let expected =
        ["access_token", "expires_in", "refresh_token", "token", "token_type", "user", "user_id"];
    assert_eq!(names, expected.into());
    assert_eq!(pair.json["token"], pair.json["access_token"]);
    assert_eq!(pair.json["token_type"], "Bearer");
    assert_eq!(pair.json["expires_in"], 3600);
    assert_eq!(pair.json["user_id"], registered.json["id"]);
    assert_eq!(pair.json["user"], registered.json);
    assert!(pair.text("refresh_token").starts_with("tgr_"));
    assert_eq!(pair.header("cache-control"), "no-store");

    let claims = part(pair.text("access_token"), 1);
    let names: BTreeSet<&str> = claims.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = ["sub", "username", "roles", "sid", "jti", "iat", "nbf", "exp", "iss", "aud"];
    assert_eq!(names, expected.into());
    assert_eq!(claims["sub"], registered.json["id"]);
    assert_eq!(claims["username"], "ada");
    assert_eq!(claims["roles"], json!(["user"]));
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 3600);
    assert_eq!(claims["nbf"], claims["iat"]);
    assert_eq!((&claims["iss"], &claims["aud"]), (&json!("tollgate"), &json!("tollgate")));
}

#[tokio::test]
async fn a_login_takes_name_or_address_in_any_case_as_json_or_form() {
    let app = TestApp::unlimited().await;
    app.register("Ada.L").await;
    for login in ["Ada.L", "ada.l", "ADA.L", "ada.l@example.com", "ADA.L@EXAMPLE.COM"] {
        app.login(login, PASSWORD).await.expect(200);
        let form = form_urlencoded::Serializer::new(String::new())
            .extend_pairs([("username", login), ("password", PASSWORD), ("grant_type", "password")])
            .finish();
        for media in [
            "application/x-www-form-urlencoded",
            "application/x-www-form-urlencoded; charset=UTF-8",
            "Application/X-WWW-Form-Urlencoded",
        ] {
            let body = Bytes::from(form.clone());
            let path = "/api/auth/login";
            let pair = app.anonymous().send(Method::POST, path, Some(media), body).await;
            assert_eq!(pair.expect(200).json["user"]["username"], "Ada.L");
        }
    }
}

#[tokio::test]
async fn sessions_are_listed_and_ended_one_by_one() {
    let app = TestApp::unlimited().await;
    app.register("ada").await;
    let login = async |agent: &str| {
        let body = json!({ "username": "ada", "password": PASSWORD });
        let client = app.anonymous().with("user-agent", agent);
        client.post("/api/v1/auth/login", body).await.expect(200)
    };
    let (laptop, long) = (login("laptop").await, login(&"x".repeat(300)).await);
    let ada = app.anonymous().with_bearer(laptop.text("access_token"));
    let other = app.anonymous().with_bearer(long.text("access_token"));
    other.get("/api/v1/proxy/warm").await.expect(200);

    let list = ada.get("/api/v1/auth/sessions").await.expect(200);
    assert_eq!(list.json["next_cursor"], Value::Null);
    let items = list.json["items"].as_array().unwrap();
    assert_eq!(items.len(), 2);
    assert_eq!(items[0]["device"], "x".repeat(256));
    assert_eq!(items[1]["device"], "laptop");
    for item in items {
        assert_eq!(item["address"], app.address.to_string());
        assert_eq!(item["is_current"], item["device"] == "laptop");
    }
    assert_eq!(items[1]["id"], part(laptop.text("access_token"), 1)["sid"]);

    let path = format!("/api/v1/auth/sessions/{}", items[0]["id"].as_str().unwrap());
    let grace = app.user("grace").await;
    let foreign = grace.delete(&path).await.expect_problem(404, "not_found");
    let missing = grace.delete(&format!("/api/v1/auth/sessions/{}", uuid::Uuid::now_v7())).await;
    assert_eq!(missing.expect(404).json["detail"], foreign.json["detail"]);
    other.get("/api/v1/users/me").await.expect(200);

    ada.delete(&path).await.expect(204);
    for path in ["/api/v1/users/me", "/api/v1/proxy/x"] {
        other.get(path).await.expect_problem(401, "invalid_credential");
    }
    refresh(&app, &long).await.expect_problem(401, "invalid_refresh_token");
    ada.delete(&path).await.expect_problem(404, "not_found");
    assert_eq!(ada.get("/api/v1/auth/sessions").await.json["items"].as_array().unwrap().len(), 1);
}

/// RELIABILITY G-85, on one instance.
#[tokio::test]
async fn after_logout_nothing_of_the_session_works_and_others_do() {
    let app = TestApp::unlimited().await;
    app.register("ada").await;
    for (path, others_end) in [("/api/v1/auth/logout", false), ("/api/auth/logout-all", true)] {
        let (mine, other) = (app.login("ada", PASSWORD).await, app.login("ada", PASSWORD).await);
        let ada = app.anonymous().with_bearer(mine.text("access_token"));
        let elsewhere = app.anonymous().with_bearer(other.text("access_token"));
        for warm in [&ada, &elsewhere] {
            warm.get("/api/v1/proxy/warm").await.expect(200);
        }
        let ended = ada.post_empty(path).await.expect(204);
        assert!(ended.body.is_empty());
        for url in ["/api/v1/users/me", "/api/v1/proxy/x", "/api/v1/auth/sessions"] {
            ada.get(url).await.expect_problem(401, "invalid_credential");
            let status = if others_end { 401 } else { 200 };
            elsewhere.get(url).await.expect(status);
        }
        refresh(&app, &mine).await.expect_problem(401, "invalid_refresh_token");
        refresh(&app, &other).await.expect(if others_end { 401 } else { 200 });
        ada.post_empty(path).await.expect_problem(401, "invalid_credential");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn logging_out_twice_at_once_is_no_error() {
    let app = TestApp::unlimited().await;
    app.register("ada").await;
    for path in ["/api/v1/auth/logout", "/api/v1/auth/logout-all"] {
        for _ in 0..5 {
            let ada = app.log_in("ada", PASSWORD).await;
            for answer in join_all((0..10).map(|_| ada.post_empty(path))).await {
                assert!([204, 401].contains(&answer.status.as_u16()), "{answer:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_login_beyond_fifty_ends_the_oldest() {
    let app = TestApp::unlimited().await;
    app.register("ada").await;
    let first = app.log_in("ada", PASSWORD).await;
    let second = app.log_in("ada", PASSWORD).await;
    for _ in 0..48 {
        app.login("ada", PASSWORD).await.expect(200);
    }
    first.get("/api/v1/users/me").await.expect(200);
    app.login("ada", PASSWORD).await.expect(200);
    first.get("/api/v1/users/me").await.expect_problem(401, "invalid_credential");
    let list = second.get("/api/v1/auth/sessions").await.expect(200);
    assert_eq!(list.json["items"].as_array().unwrap().len(), 50);
}

/// RELIABILITY G-91.
#[tokio::test]
async fn unknown_wrong_and_disabled_are_one_answer() {
    let app = TestApp::unlimited().await;
    let (ada, gone) = (unique("ada"), unique("gone"));
    app.register(&ada).await;
    let gone_id = app.register(&gone).await.text("id").to_owned();
    disable(&app, &gone_id).await;
    let cases = [
        (unique("nobody"), "some password"),
        (ada.clone(), "some password"),
        (ada.clone(), ""),
        (ada.clone(), "correct horse batter"),
        (format!("{ada}@example.com"), "some password"),
        (gone.clone(), "some password"),
        (gone, PASSWORD),
        (String::new(), PASSWORD),
        (format!("{}@example.com", unique("nobody")), PASSWORD),
        ("' OR 1=1 --".to_owned(), PASSWORD),
    ];
    let mut seen: Vec<(Value, BTreeMap<String, String>)> = vec![];
    for (name, password) in &cases {
        let mut refused = app.login(name, password).await.expect_problem(401, "invalid_login");
        refused.json.as_object_mut().unwrap().remove("request_id").unwrap();
        let headers = refused
            .headers
            .iter()
            .filter(|(name, _)| !["date", "x-request-id"].contains(&name.as_str()));
        let headers =
            headers.map(|(name, value)| (name.to_string(), format!("{value:?}"))).collect();
        seen.push((refused.json, headers));
    }
    for (answer, case) in seen.iter().zip(&cases) {
        assert_eq!(*answer, seen[0], "{case:?}");
    }
}

/// RELIABILITY G-91: with the real costs of a hash, and rounds interleaved so
/// that whatever else the machine does falls on all three alike.
#[tokio::test]
async fn unknown_wrong_and_disabled_take_the_same_time() {
    const ACCOUNTS: usize = 4;
    const ROUNDS: usize = 10;
    let [minute, hour] = UNLIMITED;
    let app = TestApp::configured([minute, hour, ("AUTH_ARGON2_MEMORY_KIB", "19456")]).await;
    let mut kinds: [Vec<String>; 3] = Default::default();
    for _ in 0..ACCOUNTS {
        let (known, gone) = (unique("known"), unique("gone"));
        app.register(&known).await;
        let id = app.register(&gone).await.text("id").to_owned();
        disable(&app, &id).await;
        kinds[0].push(known);
        kinds[1].push(unique("nobody"));
        kinds[2].push(gone);
    }
    let mut times: [Vec<Duration>; 3] = Default::default();
    for round in 0..ACCOUNTS * ROUNDS {
        for turn in 0..3 {
            let kind = (round + turn) % 3;
            let body =
                json!({ "username": kinds[kind][round % ACCOUNTS], "password": "a wrong one" });
            let client = app.anonymous_from(&some_address());
            let start = Instant::now();
            client.post("/api/v1/auth/login", body).await.expect(401);
            times[kind].push(start.elapsed());
        }
    }
    // Of the fastest: what else the machine does only adds to a time.
    let fast = times.map(|mut times| {
        times.sort_unstable();
        times[times.len() / 10]
    });
    let (least, most) = (fast.iter().min().unwrap(), fast.iter().max().unwrap());
    assert!(*most < least.mul_f64(1.35), "known, unknown, disabled: {fast:?}");
}

/// RELIABILITY G-94.
#[tokio::test]
async fn a_hash_of_lower_cost_is_renewed_at_the_next_login() {
    let before = TestApp::unlimited().await;
    let id: UserId = before.register("ada").await.text("id").parse().unwrap();
    let database = before.database.clone();
    let settings = UNLIMITED.into_iter().chain([("AUTH_ARGON2_MEMORY_KIB", "19456")]);
    let settings = settings.map(|(name, value)| (name, value.to_owned())).collect();
    let hash = async |app: &TestApp| {
        let mut session = app.app.db.session().await.unwrap();
        session.users().password_hash(id).await.unwrap().unwrap()
    };
    let old = hash(&before).await;
    assert!(old.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{old}");
    drop(before);

    let app =
        TestApp::with(Options { database: Some(database), settings, ..Options::default() }).await;
    app.login("ada", "a wrong one").await.expect(401);
    assert_eq!(hash(&app).await, old);
    app.login("ada", PASSWORD).await.expect(200);
    let new = hash(&app).await;
    assert!(new.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{new}");
    app.login("ada", PASSWORD).await.expect(200);
    assert_eq!(hash(&app).await, new, "and only then");
}

/// RELIABILITY G-43.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_logins_is_turned_away_and_harms_nobody_else() {
    const FLOOD: usize = 300;
    let [minute, hour] = UNLIMITED;
    let app = TestApp::configured([minute, hour, ("AUTH_ARGON2_MEMORY_KIB", "19456")]).await;
    let admin = app.admin().await;
    let (_, key) = app.key(&admin, json!({ "name": "k" })).await;
    key.get("/api/v1/proxy/warm").await.expect(200);
    // What a request takes on this machine without it.
    let mut calm = vec![];
    for _ in 0..50 {
        let start = Instant::now();
        key.get("/api/v1/proxy/x").await.expect(200);
        calm.push(start.elapsed());
    }
    calm.sort_unstable();

    let flood = join_all((0..FLOOD).map(|_| {
        let client = app.anonymous_from(&some_address());
        async move {
            let body = json!({ "username": unique("nobody"), "password": "a wrong one" });
            let start = Instant::now();
            let answer = client.post("/api/v1/auth/login", body).await;
            (answer, start.elapsed())
        }
    }));
    let (done, flooded) = (tokio_util::sync::CancellationToken::new(), Instant::now());
    let (stop, key) = (done.clone(), key.clone());
    let proxied = tokio::spawn(async move {
        let mut times = vec![];
        while !stop.is_cancelled() {
            let start = Instant::now();
            key.get("/api/v1/proxy/x").await.expect(200);
            times.push(start.elapsed());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        times
    });
    let answers = flood.await;
    done.cancel();
    let mut times = proxied.await.unwrap();

    let refused = answers.iter().filter(|(answer, _)| answer.status == 503).count();
    assert!(refused > FLOOD / 2, "{refused} of {FLOOD} were turned away");
    assert!(refused < FLOOD, "nobody got through");
    for (answer, took) in answers {
        if answer.status == 503 {
            let answer = answer.expect_problem(503, "overloaded");
            assert_eq!(answer.header("retry-after"), "2");
        } else {
            answer.expect_problem(401, "invalid_login");
        }
        assert!(took < Duration::from_secs(6) + LATE, "an answer took {took:?}");
    }
    times.sort_unstable();
    let (median, most) = (times[times.len() / 2], times[times.len() - 1]);
    let enough = Duration::from_millis(150) + calm[calm.len() / 2] * 4;
    assert!(median < enough, "{median:?} of {} requests, {enough:?}", times.len());
    assert!(most < Duration::from_secs(2) + LATE, "{most:?} in {:?}", flooded.elapsed());
}

/// As many hashes at once as there are permits, a short queue, and no waiting
/// in vain.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hashes_beyond_permits_and_queue_are_refused_at_once() {
    const QUEUE: usize = 64;
    let app = TestApp::configured([("AUTH_ARGON2_MEMORY_KIB", "19456")]).await;
    let permits = std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2));
    let passwords = Passwords::start(&app.app.config.auth);
    let password = &app.app.config.admin.password.clone().unwrap();
    assert!(!password.expose_secret().is_empty());
    let start = Instant::now();
    let asked = permits + QUEUE + 50;
    let outcomes = join_all((0..asked).map(|_| async {
        let outcome = passwords.hash(password).await;
        (outcome, start.elapsed())
    }));
    let outcomes = outcomes.await;
    let at_once = outcomes.iter().filter(|(outcome, took)| {
        matches!(outcome, Err(PasswordError::Busy)) && *took < Duration::from_secs(1) + LATE
    });
    assert!(at_once.count() >= 50);
    for (outcome, took) in &outcomes {
        assert!(*took < Duration::from_secs(4) + LATE, "{took:?}");
        assert!(matches!(outcome, Ok(_) | Err(PasswordError::Busy)));
    }
    assert!(outcomes.iter().any(|(outcome, _)| outcome.is_ok()));
}
