//! Requests at once over several instances: places that they lend each other.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    instances::on_private_redis,
    process::upstream::Slow,
    streams::put_in_front,
    support::{Answer, LATE, TestApp, redis::regained},
};

const MOST: usize = 12;

/// Asks each of these with the key from so many tasks until told to stop; how many
/// answers of each instance were 200.
async fn flood(
    apps: &[TestApp],
    key: &str,
    tasks: usize,
    until: impl AsyncFn() -> bool,
) -> Vec<usize> {
    let done = CancellationToken::new();
    let of_one = |app: &TestApp| {
        let client = app.anonymous().with_key(key);
        let each = (0..tasks).map(|_| {
            let (client, done) = (client.clone(), done.clone());
            AbortOnDropHandle::new(tokio::spawn(async move {
                let mut passed = 0;
                while !done.is_cancelled() {
                    let answer = client.get("/up/x").await;
                    if answer.status == 200 {
                        passed += 1;
                    } else {
                        answer.expect_problem(429, "concurrency_limited");
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                }
                passed
            }))
        });
        each.collect::<Vec<_>>()
    };
    let running: Vec<_> = apps.iter().map(of_one).collect();
    let start = Instant::now();
    while !until().await {
        assert!(start.elapsed() < Duration::from_mins(1), "it does not come to that");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    done.cancel();
    let ends = running
        .into_iter()
        .map(|each| async { join_all(each).await.into_iter().map(Result::unwrap).sum::<usize>() });
    join_all(ends).await
}

/// Never more than the limit, whoever asks; nearly all of it for one alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_let_no_more_through_at_once_than_the_limit_and_one_alone_nearly_all() {
    let slow = Slow::start(Duration::from_millis(30)).await;
    let Some((_redis, apps)) = on_private_redis(3, &[]).await else { return };
    for app in &apps {
        put_in_front(app, &slow.url(), "");
    }
    let admin = apps[0].admin().await;
    let issued = admin.post("/api/v1/keys", json!({ "name": "l", "max_concurrent": MOST })).await;
    let key = issued.expect(201).text("key").to_owned();
    let seen = slow.seen();
    let passed = flood(&apps, &key, 10, async || slow.seen() > seen + 300).await;
    let most = slow.most_at_once();
    println!("at most {most} of {MOST} at once over three; {passed:?} passed");
    assert!(most <= MOST, "{most}");
    // Then one of them, while the others know nothing of it.
    let passed = flood(&apps[1..2], &key, 2 * MOST, async || slow.at_once() >= MOST - 1).await;
    let most = slow.most_at_once();
    println!("at most {most} of {MOST} at once by one; {passed:?} passed");
    assert!(most <= MOST, "{most}");
}

/// One request after the other, each by another instance: one place does for them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_place_goes_from_instance_to_instance() {
    let slow = Slow::start(Duration::from_millis(1)).await;
    let Some((_redis, apps)) = on_private_redis(3, &[]).await else { return };
    for app in &apps {
        put_in_front(app, &slow.url(), "");
    }
    let admin = apps[0].admin().await;
    let issued = admin.post("/api/v1/keys", json!({ "name": "k", "max_concurrent": 1 })).await;
    let key = issued.expect(201).text("key").to_owned();
    let mut refused = 0;
    for turn in 0..30 {
        let answer = apps[turn % 3].anonymous().with_key(&key).get("/up/x").await;
        refused += usize::from(answer.status != 200);
    }
    println!("{refused} of 30 were refused");
    // Asking the others takes moments; a machine that is busy may be late at times.
    assert!(refused <= 6, "{refused}");
}

/// What is not under way costs nothing, and what goes on asks once a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_not_asked_request_by_request() {
    let slow = Slow::start(Duration::ZERO).await;
    let Some((_redis, apps)) = on_private_redis(1, &[]).await else { return };
    put_in_front(&apps[0], &slow.url(), "");
    let admin = apps[0].admin().await;
    let issued = admin.post("/api/v1/keys", json!({ "name": "k", "max_concurrent": 9 })).await;
    let client = apps[0].anonymous().with_key(issued.expect(201).text("key"));
    client.get("/up/x").await.expect(200);
    let calls = || apps[0].app.redis.as_ref().unwrap().stats().calls;
    let (before, start) = (calls(), Instant::now());
    for _ in 0..300 {
        client.get("/up/x").await.expect(200);
    }
    // The limits of rate are leased; both are renewed by time.
    let (asked, seconds) = (calls() - before, start.elapsed().as_secs());
    println!("redis was asked {asked} times in {seconds} s");
    assert!(asked < 100 + 40 * seconds, "{asked}");
}

/// Takes so many places on this instance and keeps them.
async fn hold(app: &TestApp, key: &str, slow: &Slow, places: usize) -> JoinSet<Option<Answer>> {
    let mut held = JoinSet::new();
    for _ in 0..places {
        let client = app.anonymous().with_key(key);
        held.spawn(async move { client.try_get("/up/x").await });
    }
    let start = Instant::now();
    while slow.at_once() < places {
        assert!(start.elapsed() < Duration::from_secs(10) + LATE, "they are not let in");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    held
}

/// One late answer of Redis does not mean that it is away, where everybody has a share.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_slow_for_a_moment_lets_nobody_past_the_limit() {
    let slow = Slow::start(Duration::from_secs(30)).await;
    let Some((server, apps)) = on_private_redis(2, &[]).await else { return };
    for app in &apps {
        put_in_front(app, &slow.url(), "");
    }
    let admin = apps[0].admin().await;
    let issued = admin.post("/api/v1/keys", json!({ "name": "k", "max_concurrent": 4 })).await;
    let key = issued.expect(201).text("key").to_owned();
    let _held = hold(&apps[1], &key, &slow, 4).await;
    let store = apps[0].app.redis.clone().unwrap();
    let mut late = 0;
    for _ in 0..8 {
        regained(&store).await;
        // Not asked so soon after there was none.
        tokio::time::sleep(Duration::from_millis(150)).await;
        let client = apps[0].anonymous().with_key(&key);
        let failures = store.stats().failures;
        server.stop();
        let asking = AbortOnDropHandle::new(tokio::spawn(async move { client.get("/up/x").await }));
        while store.stats().failures == failures && !asking.is_finished() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        server.resume();
        // Where it was away for longer after all, a share is what everybody has.
        let within = tokio::time::timeout(Duration::from_secs(5), asking).await;
        if store.is_degraded() || store.stats().failures > failures + 1 {
            assert!(slow.at_once() <= 6, "{}", slow.at_once());
            continue;
        }
        within.expect("an answer").unwrap().expect_problem(429, "concurrency_limited");
        late += 1;
    }
    println!("{late} of 8 met a server that was late and not away");
    assert!(late > 0);
}

/// An instance that is gone keeps its places for as long as they were lent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn places_of_an_instance_that_died_come_back() {
    let slow = Slow::start(Duration::from_secs(30)).await;
    let Some((_redis, mut apps)) = on_private_redis(2, &[]).await else { return };
    for app in &apps {
        put_in_front(app, &slow.url(), "");
    }
    let admin = apps[0].admin().await;
    let issued = admin.post("/api/v1/keys", json!({ "name": "k", "max_concurrent": 4 })).await;
    let key = issued.expect(201).text("key").to_owned();
    let mut held = hold(&apps[1], &key, &slow, 4).await;
    let client = apps[0].anonymous().with_key(&key);
    client.get("/up/x").await.expect_problem(429, "concurrency_limited");
    // Nothing of it says goodbye.
    let dead = apps.remove(1);
    held.abort_all();
    drop(dead);
    let start = Instant::now();
    let again = tokio::spawn(async move {
        loop {
            let asked = tokio::time::timeout(Duration::from_secs(1), client.try_get("/up/x"));
            match asked.await {
                // It is let in, and is as slow as the others.
                Err(_) => return,
                Ok(answer) => assert_eq!(answer.map(|answer| answer.status.as_u16()), Some(429)),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    tokio::time::timeout(Duration::from_secs(10) + LATE, again).await.unwrap().unwrap();
    println!("the places came back after {:.1?}", start.elapsed());
}
