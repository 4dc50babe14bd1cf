//! How often a password may be guessed (RELIABILITY G-92).

use futures_util::future::join_all;
use serde_json::json;

use crate::support::{Answer, PASSWORD, TestApp, some_address, unique};

async fn attempt(app: &TestApp, address: &str, name: &str, password: &str) -> Answer {
    let body = json!({ "username": name, "password": password });
    app.anonymous_from(address).post("/api/v1/auth/login", body).await
}

async fn guess(app: &TestApp, address: &str, name: &str) -> Answer {
    attempt(app, address, name, "a wrong one").await
}

fn refused(answer: Answer) -> Answer {
    let answer = answer.expect_problem(429, "login_throttled");
    let wait: u64 = answer.header("retry-after").parse().unwrap();
    assert!(wait >= 1, "{answer:?}");
    answer
}

#[tokio::test]
async fn the_sixth_wrong_password_of_a_minute_is_refused_unread() {
    let app = TestApp::unlimited().await;
    let name = unique("ada");
    app.register(&name).await;
    let mut answers = vec![];
    for name in [name.clone(), unique("nobody")] {
        let here = some_address();
        for _ in 0..5 {
            guess(&app, &here, &name).await.expect_problem(401, "invalid_login");
        }
        let answer = refused(guess(&app, &here, &name).await);
        assert!(answer.header("retry-after").parse::<u64>().unwrap() <= 60);
        assert_eq!(answer.header("x-ratelimit-limit"), "5");
        assert_eq!(answer.header("x-ratelimit-remaining"), "0");
        refused(guess(&app, &here, &name.to_uppercase()).await);
        refused(attempt(&app, &here, &name, PASSWORD).await);
        answers.push(answer.json["detail"].clone());
    }
    assert_eq!(answers[0], answers[1], "it says nothing about who exists");
    // Somebody else's guesses keep nobody out.
    attempt(&app, &some_address(), &name, PASSWORD).await.expect(200);
}

#[tokio::test]
async fn guesses_in_parallel_do_not_slip_through() {
    let app = TestApp::unlimited().await;
    let (name, here) = (unique("ada"), some_address());
    app.register(&name).await;
    let answers = join_all((0..20).map(|_| guess(&app, &here, &name))).await;
    let read = answers.iter().filter(|answer| answer.status == 401).count();
    assert_eq!(read, 5);
    for answer in answers.into_iter().filter(|answer| answer.status != 401) {
        refused(answer);
    }
}

#[tokio::test]
async fn a_right_password_does_not_count() {
    let app = TestApp::unlimited().await;
    let (name, here) = (unique("ada"), some_address());
    app.register(&name).await;
    for _ in 0..30 {
        attempt(&app, &here, &name, PASSWORD).await.expect(200);
    }
    for _ in 0..4 {
        guess(&app, &here, &name).await.expect(401);
        for _ in 0..3 {
            attempt(&app, &here, &name, PASSWORD).await.expect(200);
        }
    }
    guess(&app, &here, &name).await.expect(401);
    refused(guess(&app, &here, &name).await);
}

#[tokio::test]
async fn an_address_has_twenty_guesses_a_minute_over_all_accounts() {
    let app = TestApp::unlimited().await;
    let (name, here) = (unique("ada"), some_address());
    app.register(&name).await;
    for _ in 0..20 {
        guess(&app, &here, &unique("victim")).await.expect_problem(401, "invalid_login");
    }
    refused(guess(&app, &here, &unique("victim")).await);
    refused(attempt(&app, &here, &name, PASSWORD).await);
    attempt(&app, &some_address(), &name, PASSWORD).await.expect(200);
}

#[tokio::test]
async fn the_addresses_of_one_ipv6_network_are_one() {
    let app = TestApp::unlimited().await;
    let net = format!("2001:db8:{:x}:{:x}", rand::random::<u16>(), rand::random::<u16>());
    for host in 0..20 {
        guess(&app, &format!("{net}::{host:x}"), &unique("victim")).await.expect(401);
    }
    refused(guess(&app, &format!("{net}:ffff::1"), &unique("victim")).await);
}

#[tokio::test]
async fn an_account_is_guarded_over_all_addresses_but_its_owner_gets_in() {
    let app = TestApp::unlimited().await;
    let (name, home) = (unique("ada"), some_address());
    app.register(&name).await;
    attempt(&app, &home, &name, PASSWORD).await.expect(200);
    for _ in 0..20 {
        guess(&app, &some_address(), &name).await.expect_problem(401, "invalid_login");
    }
    let answer = refused(guess(&app, &some_address(), &name).await);
    assert!(answer.header("retry-after").parse::<u64>().unwrap() > 60, "{answer:?}");
    refused(attempt(&app, &some_address(), &name, PASSWORD).await);
    attempt(&app, &home, &name, PASSWORD).await.expect(200);
    // Not even from home may it be guessed without end.
    for _ in 0..5 {
        guess(&app, &home, &name).await.expect(401);
    }
    refused(guess(&app, &home, &name).await);
}

/// Whoever took over a session, or a seat, must not find the password out.
#[tokio::test]
async fn a_password_that_is_asked_for_again_cannot_be_guessed_either() {
    let app = TestApp::unlimited().await;
    let name = unique("ada");
    let ada = app.user(&name).await;
    let change = async |current: &str| {
        let body = json!({ "current_password": current, "new_password": PASSWORD });
        ada.post("/api/v1/auth/password", body).await
    };
    let delete = async |password: &str| {
        let body = json!({ "password": password });
        ada.json(http::Method::DELETE, "/api/v1/users/me", &body).await
    };
    for _ in 0..10 {
        change(PASSWORD).await.expect(204);
    }
    for _ in 0..2 {
        change("a wrong one").await.expect_problem(403, "wrong_password");
        delete("a wrong one").await.expect_problem(403, "wrong_password");
    }
    change("a wrong one").await.expect_problem(403, "wrong_password");
    refused(change("a wrong one").await);
    refused(delete("a wrong one").await);
    refused(delete(PASSWORD).await);
    app.login(&name, PASSWORD).await.expect(200);
}

/// In memory only: Redis counts by its own clock, which no test can move.
#[tokio::test]
async fn quota_comes_back_by_the_clock_and_a_hundred_guesses_are_a_day() {
    if crate::support::redis::shared_url().is_some() {
        return;
    }
    let (app, clock) = TestApp::with_clock().await;
    let (name, here) = (unique("ada"), some_address());
    for _ in 0..5 {
        guess(&app, &here, &name).await.expect(401);
    }
    let wait: i64 = refused(guess(&app, &here, &name).await).header("retry-after").parse().unwrap();
    assert_eq!(wait, 60);
    clock.advance(chrono::TimeDelta::seconds(wait - 1));
    refused(guess(&app, &here, &name).await);
    clock.advance(chrono::TimeDelta::seconds(1));
    guess(&app, &here, &name).await.expect(401);

    let victim = unique("victim");
    let mut read = 0;
    for _ in 0..4 * 24 {
        for _ in 0..25 {
            let answer = guess(&app, &some_address(), &victim).await;
            if answer.status == 401 {
                read += 1;
            } else {
                refused(answer);
                break;
            }
        }
        clock.advance(chrono::TimeDelta::minutes(15));
    }
    assert_eq!(read, 100);
}
