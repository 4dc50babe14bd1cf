//! Whom a visitor's cookie stands for, where, and for how long (G-131).

use chrono::TimeDelta;
use http::Method;
use serde_json::json;
use tollgate::{
    config::{Config, Sources},
    domain::clock::FakeClock,
};

use super::{ORIGIN, OTHER, begin, begin_at, chatting, cookie_of, hello, settings, two};
use crate::support::{Options, TestApp, epoch, recorder::Recorder};

const VALIDATE: &str = "/api/v1/session/validate";

#[tokio::test]
async fn a_cookie_looks_as_configured() {
    let recorder = Recorder::start(hello).await;
    for (same_site, secure, https, expected) in [
        ("lax", None, false, "Path=/; Max-Age=86400; HttpOnly; SameSite=Lax"),
        ("lax", None, true, "Path=/; Max-Age=86400; HttpOnly; SameSite=Lax; Secure"),
        ("strict", Some("true"), false, "Path=/; Max-Age=86400; HttpOnly; SameSite=Strict; Secure"),
        (
            "none",
            None,
            false,
            "Path=/; Max-Age=86400; HttpOnly; SameSite=None; Partitioned; Secure",
        ),
    ] {
        let mut settings = settings(&recorder.url());
        settings.push(("SESSION_COOKIE_SAME_SITE", same_site.to_owned()));
        settings.extend(secure.map(|secure| ("SESSION_COOKIE_SECURE", secure.to_owned())));
        let app = TestApp::with(Options { settings, ..Options::default() }).await;
        let proto = if https { "https" } else { "http" };
        let client = app.anonymous().with("origin", ORIGIN).with("x-forwarded-proto", proto);
        let body = json!({ "origin_domain": "SHOP.example.com" });
        let made = client.post("/api/session/create", body).await.expect(201);
        let field = made.header("set-cookie");
        assert_eq!(field.split_once("; ").unwrap().1, expected);
        let value = cookie_of(&made);
        assert!(value.starts_with("tgc_") && !value.contains(made.text("session_id")));
    }
}

#[tokio::test]
async fn only_pages_of_allowed_origins_get_and_use_sessions() {
    let recorder = Recorder::start(hello).await;
    let app = chatting(&recorder).await;
    let create = "/api/v1/session/create";
    let body = |domain: &str| json!({ "origin_domain": domain });
    for origin in [
        "https://shop.example.com.evil.test",
        "http://shop.example.com",
        "null",
        "https://SHOP.example.com",
        "https://shop.example.com:444",
        "",
    ] {
        let client = app.anonymous().with("origin", origin);
        let refused = client.post(create, body("shop.example.com")).await;
        let refused = refused.expect_problem(403, "origin_not_allowed");
        assert!(!refused.headers.contains_key("access-control-allow-origin"), "{origin}");
    }
    app.anonymous()
        .post(create, body("shop.example.com"))
        .await
        .expect_problem(403, "origin_not_allowed");
    let wrong = app.anonymous().with("origin", ORIGIN);
    for body in
        [body("other.example.com"), json!({ "origin_domain": "shop.example.com", "user_id": "7" })]
    {
        wrong.post(create, body).await.expect_problem(422, "validation_failed");
    }
    let visitor = begin(&app).await;
    // A script reads the answer, with its cookie, and no other origin does.
    let granted = visitor.client.get(VALIDATE).await.expect(200);
    assert_eq!(granted.header("access-control-allow-origin"), ORIGIN);
    assert_eq!(granted.header("access-control-allow-credentials"), "true");
    let preflight = app
        .anonymous()
        .with("origin", ORIGIN)
        .with("access-control-request-method", "GET")
        .with("access-control-request-headers", "last-event-id");
    let path = "/api/v1/chat/stream/0198c0ff-ee00-7008-8000-0000000000aa";
    let answer = preflight.send(Method::OPTIONS, path, None, "".into()).await.expect(200);
    assert_eq!(answer.header("access-control-allow-credentials"), "true");
    assert!(answer.header("access-control-allow-headers").contains("last-event-id"));
    // The session of one site is none on another.
    let cookie = format!("chat_session_id={}", visitor.cookie);
    let elsewhere = app.anonymous().with("cookie", &cookie).with("user-agent", "Browser/1");
    let at_other = elsewhere.with("origin", OTHER).get(VALIDATE).await.expect(200);
    assert_eq!(
        (&at_other.json["valid"], &at_other.json["session_id"]),
        (&json!(false), &json!(null))
    );
    assert!(!at_other.headers.contains_key("set-cookie"), "it is the other page's");
    let at_evil = elsewhere.with("origin", "https://evil.test").get(VALIDATE).await;
    at_evil.expect_problem(403, "origin_not_allowed");
    for origin in [OTHER, "https://evil.test"] {
        let elsewhere = elsewhere.with("origin", origin);
        let said = elsewhere.post("/api/v1/chat/message", json!({ "message": "q" })).await;
        said.expect_problem(403, "origin_not_allowed");
    }
    // What changes something tells where it comes from.
    elsewhere.get(VALIDATE).await.expect(200);
    let said = elsewhere.post("/api/v1/chat/message", json!({ "message": "q" })).await;
    said.expect_problem(403, "origin_not_allowed");
    elsewhere.delete("/api/v1/session").await.expect_problem(403, "origin_not_allowed");
    assert!(recorder.deliveries().is_empty());
}

#[tokio::test]
async fn made_up_cookies_open_nothing() {
    let recorder = Recorder::start(hello).await;
    let app = chatting(&recorder).await;
    let visitor = begin(&app).await;
    let (token, mac) = visitor.cookie.split_once('.').unwrap();
    let other = begin(&app).await.cookie;
    let forged = if mac.starts_with('A') { 'B' } else { 'A' };
    let bad = [
        String::new(),
        "x".to_owned(),
        token.to_owned(),
        format!("{token}."),
        format!("{token}.{}", other.split_once('.').unwrap().1),
        format!("{token}.{forged}{}", &mac[1..]),
        visitor.session.clone(),
        "a".repeat(4000),
    ];
    for cookie in bad {
        let client = app.anonymous().with("origin", ORIGIN).with("user-agent", "Browser/1");
        let client = client.with("cookie", &format!("chat_session_id={cookie}"));
        let state = client.get(VALIDATE).await.expect(200);
        assert_eq!(
            state.json,
            json!({ "valid": false, "session_id": null, "origin_domain": null, "expires_at": null })
        );
        assert!(state.header("set-cookie").starts_with("chat_session_id=; "), "it is taken away");
        let said = client.post("/api/v1/chat/message", json!({ "message": "q" })).await;
        said.expect_problem(401, "invalid_credential");
    }
    let nobody = app.anonymous().with("origin", ORIGIN);
    assert_eq!(nobody.get(VALIDATE).await.expect(200).json["valid"], false);
    let said = nobody.post("/api/v1/chat/message", json!({ "message": "q" })).await;
    said.expect_problem(401, "unauthenticated");
    visitor.client.get(VALIDATE).await.expect(200);
}

/// A browser has several of one name for different paths, or from sites above: of
/// those one counts, wherever it stands.
#[tokio::test]
async fn a_stale_cookie_of_the_same_name_locks_nobody_out() {
    let recorder = Recorder::start(hello).await;
    let app = chatting(&recorder).await;
    let visitor = begin(&app).await;
    let ended = begin(&app).await;
    ended.client.delete("/api/v1/session").await.expect(204);
    let elsewhere = begin_at(&app, OTHER).await;
    let stale = [ended.cookie.as_str(), elsewhere.cookie.as_str(), "x", ""];
    let good = visitor.cookie.as_str();
    for others in [&stale[..1], &stale[1..2], &stale[2..], &stale[..]] {
        for at in 0..=others.len() {
            let mut values = others.to_vec();
            values.insert(at, good);
            let pairs: Vec<_> = values.iter().map(|v| format!("chat_session_id={v}")).collect();
            let client = app.anonymous().with("origin", ORIGIN).with("user-agent", "Browser/1");
            let client = client.with("cookie", &pairs.join("; "));
            let told = client.get(VALIDATE).await.expect(200);
            assert_eq!(told.json["session_id"], visitor.session.as_str(), "{pairs:?}");
            client.post("/api/v1/chat/message", json!({ "message": "q" })).await.expect(200);
        }
    }
    // Not any number of them is looked up.
    let many = "chat_session_id=x; ".repeat(50) + "chat_session_id=" + good;
    let client = app.anonymous().with("origin", ORIGIN).with("user-agent", "Browser/1");
    let client = client.with("cookie", &many);
    assert_eq!(client.get(VALIDATE).await.expect(200).json["valid"], false);
}

#[tokio::test]
async fn a_session_stays_with_its_browser_as_far_as_configured() {
    let recorder = Recorder::start(hello).await;
    for (binding, agent_matters, network_matters) in
        [("origin", false, false), ("browser", true, false), ("network", true, true)]
    {
        let mut settings = settings(&recorder.url());
        settings.push(("SESSION_BINDING", binding.to_owned()));
        let app = TestApp::with(Options { settings, ..Options::default() }).await;
        let visitor = begin(&app).await;
        let cookie = format!("chat_session_id={}", visitor.cookie);
        let here = app.address.to_string();
        for (agent, language, address, valid) in [
            ("Browser/1", None, here.as_str(), true),
            ("Browser/2", None, here.as_str(), !agent_matters),
            ("Browser/1", Some("de"), here.as_str(), !agent_matters),
            ("Browser/1", None, "192.0.2.77", !network_matters),
        ] {
            let client = app.anonymous_from(address).with("origin", ORIGIN);
            let mut client = client.with("cookie", &cookie).with("user-agent", agent);
            if let Some(language) = language {
                client = client.with("accept-language", language);
            }
            let state = client.get(VALIDATE).await.expect(200);
            assert_eq!(state.json["valid"], valid, "{binding}: {agent} {language:?} {address}");
        }
    }
}

/// The clock is the injected one.
#[tokio::test]
async fn a_session_is_renewed_past_half_its_life_and_ends_in_time() {
    let recorder = Recorder::start(hello).await;
    let clock = FakeClock::starting_at(epoch());
    let mut settings = settings(&recorder.url());
    settings.push(("SESSION_COOKIE_MAX_AGE", "7200".to_owned()));
    settings.push(("SESSION_MAX_AGE", "10800".to_owned()));
    let options = Options { settings, clock: clock.clone(), in_memory: true, ..Options::default() };
    let app = TestApp::with(options).await;
    let visitor = begin(&app).await;
    let with = |cookie: &str| {
        let client = app.anonymous().with("origin", ORIGIN).with("user-agent", "Browser/1");
        client.with("cookie", &format!("chat_session_id={cookie}"))
    };
    let valid = async |cookie: &str| {
        let answer = with(cookie).get(VALIDATE).await.expect(200);
        answer.json["valid"].as_bool().unwrap()
    };
    clock.advance(TimeDelta::minutes(59));
    let early = visitor.client.get(VALIDATE).await.expect(200);
    assert!(!early.headers.contains_key("set-cookie"));
    clock.advance(TimeDelta::minutes(2));
    let renewed = visitor.client.get(VALIDATE).await.expect(200);
    assert_eq!(renewed.text("session_id"), visitor.session);
    assert_eq!(renewed.json["expires_at"], "2026-01-01T03:00:00Z", "not beyond its longest life");
    assert!(renewed.header("set-cookie").contains("Max-Age=7140;"));
    let new = cookie_of(&renewed);
    assert_ne!(new, visitor.cookie);
    // The one before is good for a moment, and renews nothing.
    let old = visitor.client.get(VALIDATE).await.expect(200);
    assert!(old.json["valid"] == true && !old.headers.contains_key("set-cookie"));
    clock.advance(TimeDelta::seconds(59));
    assert!(valid(&visitor.cookie).await && valid(&new).await);
    clock.advance(TimeDelta::seconds(1));
    assert!(!valid(&visitor.cookie).await && valid(&new).await);
    clock.advance(TimeDelta::minutes(118) - TimeDelta::seconds(1));
    assert!(valid(&new).await);
    clock.advance(TimeDelta::seconds(1));
    assert!(!valid(&new).await);
    let said = with(&new).post("/api/v1/chat/message", json!({ "message": "q" })).await;
    said.expect_problem(401, "invalid_credential");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_was_ended_is_over_everywhere() {
    let recorder = Recorder::start(hello).await;
    let mut groups = two(&recorder).await;
    groups.push(vec![chatting(&recorder).await]);
    for apps in groups {
        let visitor = begin(&apps[0]).await;
        let last = visitor.at(apps.last().unwrap());
        last.client.get(VALIDATE).await.expect(200);
        let ended = visitor.client.delete("/api/v1/session").await.expect(204);
        assert!(ended.header("set-cookie").contains("Max-Age=0"));
        let said = visitor.ask(json!({ "message": "q" })).await;
        said.expect_problem(401, "invalid_credential");
        super::until("the others know", async || {
            last.client.get(VALIDATE).await.json["valid"] == false
        })
        .await;
        visitor.client.delete("/api/v1/session").await.expect_problem(401, "invalid_credential");
    }
    assert!(recorder.deliveries().is_empty());
}

/// The database has nothing that opens a session.
#[tokio::test]
async fn what_opens_a_session_is_stored_nowhere() {
    use tollgate::repositories::Repositories as _;
    let recorder = Recorder::start(hello).await;
    let app = chatting(&recorder).await;
    let visitor = begin(&app).await;
    let mut session = app.app.db.session().await.unwrap();
    let stored = session.chat().session(visitor.session.parse().unwrap()).await.unwrap().unwrap();
    let (token, _) = visitor.cookie.split_once('.').unwrap();
    assert!(!format!("{stored:?}").contains(token));
    assert_eq!(stored.hash.to_string().len(), 64);
}

#[test]
fn the_secret_is_strong_and_of_its_own() {
    let strong = "qN3v8RkZ1xW7yT5bL0sD2fG4hJ6mP9cE";
    let other = "Wm2Xc8Vb4Nz6Qs1Ed3Rf5Tg7Yh9Uj0Ik";
    for (session, auth, refused) in [
        (strong, other, None),
        (strong, strong, Some("SESSION_SECRET_KEY: expected another secret than AUTH_SECRET_KEY")),
        ("short", other, Some("SESSION_SECRET_KEY: expected at least 32 bytes")),
        ("changeme-changeme-changeme-changeme", other, Some("SESSION_SECRET_KEY: expected random")),
    ] {
        let settings = [("SESSION_SECRET_KEY", session), ("AUTH_SECRET_KEY", auth)];
        let environment = settings.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
        let loaded = Config::load(&Sources { environment, ..Sources::default() });
        let told = loaded.err().map(|error| error.to_string());
        match refused {
            None => assert_eq!(told, None),
            Some(part) => assert!(told.as_ref().unwrap().contains(part), "{told:?}"),
        }
    }
}
