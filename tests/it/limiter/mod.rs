//! The limiter over many instances, and without the Redis that they share.
//!
//! What needs no Redis of its own also runs on the counters in memory.

mod leases;
mod load;
mod months;
mod overload;
mod tiers;

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tollgate::{
    cache::{Limiter, RedisStore},
    domain::{
        clock::SystemClock,
        id::{ApiKeyId, UserId},
        limit::{Decision, Subject, Tier, Window},
        rates::OnStoreLoss,
    },
};
use uuid::Uuid;

use crate::support::redis::{
    PATIENT, Server, answered, connect, connect_patiently, regained, shared_url,
};

fn over(redis: &Arc<RedisStore>) -> Limiter {
    Limiter::shared(Arc::new(SystemClock), Arc::clone(redis), || 2)
}

/// Instances of one installation: on the shared Redis, else one in memory.
async fn instances(count: usize) -> Vec<Limiter> {
    let Some(url) = shared_url() else {
        return vec![Limiter::memory(Arc::new(SystemClock)); count];
    };
    // The server is well: however busy the machine is, it answers, and what is
    // counted is exact.
    let connected = join_all((0..count).map(|_| connect_patiently(&url))).await;
    connected.iter().map(over).collect()
}

/// A user and a key of theirs that no other test uses.
fn subjects() -> (Subject, Subject) {
    let owner = UserId::from(Uuid::from_u128(rand::random()));
    (Subject::User(owner), Subject::Key { id: ApiKeyId::from(owner.as_uuid()), owner })
}

/// Denying shows a call that missed its deadline as a refusal, where sharing
/// would hide it.
fn tier(subject: &Subject, seconds: u32, limit: u64) -> Tier {
    Tier::new(*subject, Window::Sliding { seconds }, limit).on_loss(OnStoreLoss::Deny)
}

async fn passes(limiter: &Limiter, tiers: &[Tier], cost: u64) -> bool {
    matches!(limiter.decide(tiers, cost, None).await, Decision::Admitted(_))
}

async fn left(limiter: &Limiter, tier: Tier) -> u64 {
    match limiter.peek(&[tier], None).await {
        Decision::Admitted(Some(state)) | Decision::Refused(state) => state.remaining,
        other => panic!("no state in {other:?}"),
    }
}

/// Exactly the limit over all instances (G-78), in both forms of counting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_share_one_limit_exactly() {
    let limiters = instances(3).await;
    for (limit, asked) in [(100, 200), (250, 400)] {
        let tiers = [tier(&subjects().0, 60, limit)];
        let calls = (0..asked).map(|n| {
            let (limiter, tiers) = (limiters[n % 3].clone(), tiers.clone());
            tokio::spawn(async move { passes(&limiter, &tiers, 1).await })
        });
        let answers = join_all(calls).await;
        let got = answers.into_iter().filter(|answer| *answer.as_ref().unwrap()).count();
        assert_eq!(got as u64, limit);
    }
}

/// Bursts and pauses in real time: whatever lies between the sending of one
/// admitted request and the answer to another less than a window later was
/// admitted within one window (R1, G-79).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_rolling_window_holds_more_than_its_limit() {
    const WINDOW: Duration = Duration::from_secs(1);
    let limiters = instances(3).await;
    for limit in [20usize, 300] {
        let tiers = [tier(&subjects().0, 1, limit as u64)];
        let mut admitted: Vec<(Instant, Instant)> = Vec::new();
        let (start, mut asked) = (Instant::now(), 0);
        // Long enough, and more than passes in that time.
        while start.elapsed() < Duration::from_millis(3500) || asked < limit * 7 {
            asked += limit / 5;
            let burst = join_all((0..limit / 5).map(|n| {
                let (limiter, tiers) = (&limiters[n % 3], &tiers);
                async move {
                    let sent = Instant::now();
                    passes(limiter, tiers, 1).await.then(|| (sent, Instant::now()))
                }
            }));
            admitted.extend(burst.await.into_iter().flatten());
            tokio::time::sleep(Duration::from_millis(rand::random_range(0..90))).await;
        }
        for (from, _) in &admitted {
            let within = |(sent, done): &&(Instant, Instant)| {
                sent >= from && done.duration_since(*from) < WINDOW
            };
            assert!(admitted.iter().filter(within).count() <= limit);
        }
        assert!(admitted.len() >= limit * 3, "{} of {limit} per second", admitted.len());
    }
}

/// Nothing is charged anywhere when one tier refuses (G-80).
#[tokio::test]
async fn tiers_are_charged_together_or_not_at_all() {
    let limiter = &instances(1).await[0];
    let (user, key) = subjects();
    let tiers = [tier(&key, 60, 300), tier(&key, 3600, 100), tier(&user, 60, 3)];
    assert!(passes(limiter, &tiers, 2).await);
    let Decision::Refused(state) = limiter.decide(&tiers, 2, None).await else {
        panic!("the user has 1 left")
    };
    assert_eq!((state.tier, state.limit, state.remaining), ("user", 3, 1));
    assert!((1..=60_000).contains(&state.reset_in_ms));
    for (tier, expected) in tiers.iter().zip([298, 98, 1]) {
        assert_eq!(left(limiter, tier.clone()).await, expected);
    }
    let Decision::Admitted(Some(state)) = limiter.decide(&tiers, 1, None).await else {
        panic!("the user has 1 left")
    };
    assert_eq!((state.tier, state.remaining), ("user", 0));
    limiter.refund(&tiers, 2).await;
    for (tier, expected) in tiers.iter().zip([299, 99, 2]) {
        assert_eq!(left(limiter, tier.clone()).await, expected);
    }
    limiter.forget(&key).await;
    for (tier, expected) in tiers.iter().zip([300, 100, 2]) {
        assert_eq!(left(limiter, tier.clone()).await, expected);
    }
}

#[tokio::test]
async fn waiting_as_told_is_enough() {
    let limiter = &instances(1).await[0];
    for limit in [5, 250] {
        let tiers = [tier(&subjects().0, 1, limit)];
        assert!(passes(limiter, &tiers, limit).await);
        let Decision::Refused(state) = limiter.decide(&tiers, 1, None).await else {
            panic!("all is used")
        };
        tokio::time::sleep(Duration::from_millis(state.reset_in_ms)).await;
        assert!(passes(limiter, &tiers, 1).await);
    }
}

/// A changed limit holds at once and hands out nothing twice (G-84).
#[tokio::test]
async fn a_limit_may_change_while_it_counts() {
    let limiter = &instances(1).await[0];
    let user = subjects().0;
    let at = |limit| tier(&user, 600, limit);
    assert!(passes(limiter, &[at(100)], 90).await);
    assert_eq!(left(limiter, at(500)).await, 410);
    assert!(passes(limiter, &[at(500)], 300).await);
    assert!(!passes(limiter, &[at(150)], 1).await);
    assert_eq!(left(limiter, at(1000)).await, 610);
    limiter.refund(&[at(1000)], 380).await;
    assert_eq!(left(limiter, at(150)).await, 140);
}

#[tokio::test]
async fn a_month_wants_its_seed_once() {
    let limiter = &instances(1).await[0];
    let (user, key) = subjects();
    let tiers = [tier(&user, 60, 100), Tier::new(key, Window::Month, 10)];
    assert_eq!(limiter.decide(&tiers, 1, None).await, Decision::NeedsSeed);
    assert!(matches!(limiter.decide(&tiers, 1, Some(&[0, 8])).await, Decision::Admitted(_)));
    assert!(matches!(limiter.decide(&tiers, 1, Some(&[0, 8])).await, Decision::Admitted(_)));
    let Decision::Refused(state) = limiter.decide(&tiers, 1, None).await else {
        panic!("8 and 2 are 10")
    };
    assert_eq!((state.window, state.remaining), (Window::Month, 0));
    assert!(state.reset_in_ms > 0);
    assert_eq!(left(limiter, tiers[0].clone()).await, 98);
}

/// A server that accepts and never answers costs five calls 50 ms each and no
/// call more; it is exact again within 5 s of its return (G-11, G-19).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_is_not_waited_for() {
    let Some(server) = Server::start() else { return };
    let redis = connect(&server.url()).await;
    let limiter = over(&redis);
    let tiers = answered(&redis, async || {
        let tiers = [tier(&subjects().0, 600, 100).on_loss(OnStoreLoss::Share)];
        assert!(passes(&limiter, &tiers, 10).await);
        tiers
    })
    .await;

    server.stop();
    let mut taken = vec![];
    for _ in 0..5 {
        let start = Instant::now();
        assert!(passes(&limiter, &tiers, 1).await);
        taken.push(start.elapsed());
    }
    // The machine may be late for one, not for all.
    let (best, worst) = (taken.iter().min().unwrap(), taken.iter().max().unwrap());
    assert!(*best >= Duration::from_millis(45) && *best < Duration::from_millis(90), "{taken:?}");
    assert!(*worst < Duration::from_millis(2500), "{taken:?}");
    assert!(redis.is_degraded());
    // Those that follow do not even ask: 1000 waits would be 50 s.
    let (start, calls) = (Instant::now(), redis.stats().calls);
    let mut alone = 5;
    for _ in 0..1000 {
        alone += u32::from(passes(&limiter, &tiers, 1).await);
    }
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(redis.stats().calls, calls);
    assert_eq!(alone, 50, "half of the limit for one of two instances");

    server.resume();
    regained(&redis).await;
    // The five calls that timed out may have been counted when it woke up.
    let left = answered(&redis, async || left(&limiter, tiers[0].clone()).await).await;
    assert!((85..=90).contains(&left), "{left}");
}

/// A killed server is noticed at once, an empty one taken up (G-10, G-08).
#[tokio::test]
async fn a_server_may_die_and_come_back_empty() {
    let Some(mut server) = Server::start() else { return };
    // What is noticed is the end of the connection, not a deadline.
    let redis = connect_patiently(&server.url()).await;
    let tiers = [tier(&subjects().0, 600, 100)];
    let limiter = over(&redis);
    let by = |on_loss| [tiers[0].clone().on_loss(on_loss)];
    assert!(passes(&limiter, &tiers, 1).await);

    server.kill();
    let start = Instant::now();
    assert!(passes(&limiter, &by(OnStoreLoss::Share), 1).await);
    assert!(redis.is_degraded());
    assert!(!passes(&limiter, &by(OnStoreLoss::Deny), 1).await);
    let allowed = limiter.decide(&by(OnStoreLoss::Allow), 1000, None).await;
    assert_eq!(allowed, Decision::Admitted(None));
    // Guessing passwords is never allowed, and never as often as otherwise.
    for (last, on_loss) in (1..).zip(OnStoreLoss::ALL) {
        let address = IpAddr::V6(Ipv6Addr::from_bits(last));
        let login = [tier(&Subject::LoginAddress(address), 60, 20).on_loss(on_loss)];
        let mut got = 0;
        for _ in 0..20 {
            got += u32::from(passes(&limiter, &login, 1).await);
        }
        assert_eq!(got, 5, "20, for two instances, halved");
    }
    assert!(start.elapsed() < PATIENT.call / 6, "{:?}", start.elapsed());

    tokio::time::sleep(Duration::from_millis(2500)).await;
    let attempts = redis.stats();
    assert_eq!((attempts.connections, attempts.degraded), (1, true));
    server.restart();
    regained(&redis).await;
    assert!(passes(&limiter, &tiers, 100).await);
    assert!(!passes(&limiter, &tiers, 1).await);
}

/// A server whose scripts are gone is asked again, not given up (G-14), and
/// one that is full is degraded, not open (G-17).
#[tokio::test]
async fn lost_scripts_and_a_full_server_are_no_errors() {
    let Some(server) = Server::start() else { return };
    let redis = connect_patiently(&server.url()).await;
    let limiter = over(&redis);
    let tiers = [tier(&subjects().0, 600, 100).on_loss(OnStoreLoss::Share)];
    for _ in 0..50 {
        server.command(&["SCRIPT", "FLUSH"]).await;
        assert!(passes(&limiter, &tiers, 1).await);
    }
    assert_eq!(redis.stats().failures, 0);
    assert_eq!(left(&limiter, tiers[0].clone()).await, 50);

    server.command(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let mut got = 0;
    for _ in 0..200 {
        got += u32::from(passes(&limiter, &tiers, 1).await);
    }
    assert_eq!(got, 50, "half of the limit for one of two instances");
    assert!(redis.is_degraded());
    server.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
    regained(&redis).await;
}

/// The connection outlives the runtime of the caller that found it broken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_may_come_from_any_runtime() {
    let Some(mut server) = Server::start() else { return };
    let redis = connect_patiently(&server.url()).await;
    let call_elsewhere = |redis: Arc<RedisStore>| {
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async { redis.ping().await })
        })
        .join()
        .unwrap()
    };
    assert!(call_elsewhere(Arc::clone(&redis)));
    server.kill();
    assert!(!call_elsewhere(Arc::clone(&redis)));
    server.restart();
    regained(&redis).await;
    assert!(redis.ping().await);
    assert!(call_elsewhere(redis));
}

#[test]
fn a_url_is_never_repeated() {
    let error = RedisStore::open("http://user:hunter2@example.org").unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}
