//! Refresh tokens: exchanged once, and what becomes of one that comes again
//! (RELIABILITY G-88).

use chrono::TimeDelta;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tollgate::{domain::token::TokenHash, repositories::Repositories as _};

use crate::{
    jwt::part,
    support::{Answer, Client, PASSWORD, TestApp},
};

async fn exchange(app: &TestApp, token: &str) -> Answer {
    app.anonymous().post("/api/v1/auth/refresh", json!({ "refresh_token": token })).await
}

async fn refresh(app: &TestApp, pair: &Answer) -> Answer {
    exchange(app, pair.text("refresh_token")).await
}

fn holder(app: &TestApp, pair: &Answer) -> Client {
    app.anonymous().with_bearer(pair.text("access_token"))
}

async fn works(app: &TestApp, pair: &Answer) -> bool {
    holder(app, pair).get("/api/v1/users/me").await.status == 200
}

#[tokio::test]
async fn every_exchange_answers_a_new_pair_of_the_same_session() {
    let app = TestApp::unlimited().await;
    app.register("ada").await;
    let first = app.login("ada", PASSWORD).await.expect(200);
    let mut pair = first;
    for _ in 0..5 {
        let next = refresh(&app, &pair).await.expect(200);
        assert_ne!(next.json["refresh_token"], pair.json["refresh_token"]);
        assert_ne!(next.json["access_token"], pair.json["access_token"]);
        for same in ["expires_in", "token_type", "user", "user_id"] {
            assert_eq!(next.json[same], pair.json[same]);
        }
        assert_eq!(next.json["token"], next.json["access_token"]);
        let [old, new] = [&pair, &next].map(|pair| part(pair.text("access_token"), 1));
        assert_eq!(old["sid"], new["sid"]);
        assert_ne!(old["jti"], new["jti"]);
        // An access token lives until it expires or its session ends.
        assert!(works(&app, &pair).await && works(&app, &next).await);
        pair = next;
    }
    let list = holder(&app, &pair).get("/api/v1/auth/sessions").await.expect(200);
    assert_eq!(list.json["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_token_that_comes_again_after_its_successor_was_used_ends_the_session() {
    let app = TestApp::unlimited().await;
    app.register("ada").await;
    let other = app.login("ada", PASSWORD).await.expect(200);
    for age in 1..=3 {
        let stolen = app.login("ada", PASSWORD).await.expect(200);
        let mut pairs = vec![stolen];
        for _ in 0..=age {
            let next = refresh(&app, pairs.last().unwrap()).await.expect(200);
            pairs.push(next);
        }
        refresh(&app, &pairs[0]).await.expect_problem(401, "invalid_refresh_token");
        for pair in &pairs {
            for path in ["/api/v1/users/me", "/api/v1/proxy/x"] {
                let answer = holder(&app, pair).get(path).await;
                answer.expect_problem(401, "invalid_credential");
            }
            refresh(&app, pair).await.expect_problem(401, "invalid_refresh_token");
        }
        assert!(works(&app, &other).await, "another session of the same user goes on");
    }
    refresh(&app, &other).await.expect(200);
}

#[tokio::test]
async fn a_lost_answer_is_given_again_and_its_token_is_dead() {
    let app = TestApp::unlimited().await;
    app.register("ada").await;
    let first = app.login("ada", PASSWORD).await.expect(200);
    let lost = refresh(&app, &first).await.expect(200);
    let second = refresh(&app, &first).await.expect(200);
    assert_ne!(lost.json["refresh_token"], second.json["refresh_token"]);
    let third = refresh(&app, &second).await.expect(200);
    assert!(works(&app, &third).await);
    // Whoever comes with the answer that was lost is a second holder.
    refresh(&app, &lost).await.expect_problem(401, "invalid_refresh_token");
    assert!(!works(&app, &third).await);
    refresh(&app, &third).await.expect_problem(401, "invalid_refresh_token");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_fifty_exchanges_at_once_one_successor_lives_and_nobody_is_logged_out() {
    let app = TestApp::unlimited().await;
    app.register("ada").await;
    let first = app.login("ada", PASSWORD).await.expect(200);
    let pairs = join_all((0..50).map(|_| refresh(&app, &first))).await;
    let mut live = vec![];
    for pair in &pairs {
        assert_eq!(pair.status, 200, "{pair:?}");
        assert!(works(&app, pair).await);
        let hash = TokenHash::of_refresh(pair.text("refresh_token")).unwrap();
        let mut session = app.app.db.session().await.unwrap();
        let token = session.refresh_tokens().find_by_hash(&hash).await.unwrap().unwrap();
        if token.spent_at.is_none() {
            live.push(pair);
        }
    }
    assert_eq!(live.len(), 1);
    // Whichever of the answers an honest client kept, it goes on.
    let kept = pairs.iter().find(|pair| !std::ptr::eq(*pair, live[0])).unwrap();
    let next = refresh(&app, kept).await.expect(200);
    assert!(works(&app, &next).await);
}

#[tokio::test]
async fn a_token_dies_after_seven_idle_days() {
    let (app, clock) = TestApp::with_clock().await;
    app.register("ada").await;
    let day = TimeDelta::days;
    let mut pair = app.login("ada", PASSWORD).await.expect(200);
    for _ in 0..2 {
        clock.advance(day(7) - TimeDelta::seconds(1));
        pair = refresh(&app, &pair).await.expect(200);
    }
    clock.advance(day(7));
    refresh(&app, &pair).await.expect_problem(401, "invalid_refresh_token");
}

#[tokio::test]
async fn a_session_ends_thirty_days_after_the_login() {
    let (app, clock) = TestApp::with_clock().await;
    app.register("ada").await;
    let mut pair = app.login("ada", PASSWORD).await.expect(200);
    for _ in 0..5 {
        clock.advance(TimeDelta::days(6) - TimeDelta::seconds(1));
        pair = refresh(&app, &pair).await.expect(200);
    }
    // Five seconds are left, and the newest access token says an hour.
    clock.advance(TimeDelta::seconds(4));
    assert!(works(&app, &pair).await);
    pair = refresh(&app, &pair).await.expect(200);
    let list = holder(&app, &pair).get("/api/v1/auth/sessions").await.expect(200);
    assert_eq!(list.json["items"][0]["expires_at"], "2026-01-31T00:00:00Z");
    assert_eq!(list.json["items"][0]["last_used_at"], "2026-01-30T23:59:59Z");
    clock.advance(TimeDelta::seconds(1));
    assert!(!works(&app, &pair).await);
    refresh(&app, &pair).await.expect_problem(401, "invalid_refresh_token");
}

#[tokio::test]
async fn what_is_not_a_live_refresh_token_is_one_answer() {
    let app = TestApp::unlimited().await;
    let ada = app.user("ada").await;
    let pair = app.login("ada", PASSWORD).await.expect(200);
    let issued = ada.post("/api/v1/keys", json!({ "name": "k" })).await.expect(201);
    let good = pair.text("refresh_token").to_owned();
    let last = if good.ends_with('0') { '1' } else { '0' };
    let cases = [
        String::new(),
        "tgr_".to_owned(),
        "null".to_owned(),
        pair.text("access_token").to_owned(),
        issued.text("key").to_owned(),
        issued.text("key").replace("tg_", "tgr_"),
        good.replace("tgr_", "tg_"),
        good.to_uppercase(),
        format!("{good} "),
        format!(" {good}"),
        format!("{good}\n"),
        good[..good.len() - 1].to_owned(),
        format!("{}{last}", &good[..good.len() - 1]),
        "x".repeat(100_000),
        "' OR 1=1 --".to_owned(),
    ];
    let mut bodies: Vec<Value> = vec![];
    for token in &cases {
        let answer = exchange(&app, token).await;
        let mut answer = answer.expect_problem(401, "invalid_refresh_token");
        answer.json.as_object_mut().unwrap().remove("request_id").unwrap();
        bodies.push(answer.json);
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
    for body in [json!({ "refresh_token": 1 }), json!({}), json!({ "token": good })] {
        let answer = app.anonymous().post("/api/v1/auth/refresh", body).await;
        answer.expect_problem(422, "validation_failed");
    }
    exchange(&app, &good).await.expect(200);
}
