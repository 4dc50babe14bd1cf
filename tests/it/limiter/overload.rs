//! More than the limit, from several instances, for some windows: never more
//! than the limit gets in, hardly less, and Redis is hardly asked.
//!
//! `TOLLGATE_LIMIT_SECONDS` sets how long the limits are attacked (3600 in
//! `make torture`).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tollgate::{cache::Limiter, domain::limit::Tier};

use super::{
    load::{Outcome, drive, steady},
    over, subjects, tier,
};
use crate::support::redis::{Server, connect};

const INSTANCES: usize = 3;

async fn limiters(server: &Server) -> Vec<Limiter> {
    let url = server.url();
    let connected = join_all((0..INSTANCES).map(|_| connect(&url))).await;
    connected.iter().map(over).collect()
}

fn asked(limiters: &[Limiter]) -> u64 {
    limiters.iter().map(|limiter| limiter.stats().expect("shared").asked).sum()
}

/// How long the attack lasts.
fn span() -> Duration {
    match std::env::var("TOLLGATE_LIMIT_SECONDS") {
        Ok(seconds) => {
            Duration::from_secs(seconds.parse().expect("TOLLGATE_LIMIT_SECONDS is a number"))
        }
        Err(_) => Duration::from_secs(7),
    }
}

fn window_of(tier: &Tier) -> Duration {
    Duration::from_secs(tier.window.seconds().into())
}

/// Bursts when a window that began with a burst is about to end and when it
/// has just ended; in between, now and then, a few.
fn boundary_attacker(window: Duration, span: Duration) -> impl FnMut(Duration) -> Option<u64> {
    let edge = Duration::from_millis(25);
    move |passed| {
        let into = Duration::from_nanos(
            u64::try_from(passed.as_nanos() % window.as_nanos()).expect("less than a window"),
        );
        let at_an_edge = into < edge || window.saturating_sub(into) < edge;
        let requests = if at_an_edge { 60 } else { u64::from(rand::random_ratio(1, 20)) };
        (passed < span).then_some(requests)
    }
}

/// Pauses and bursts of any length.
fn random_attacker(span: Duration) -> impl FnMut(Duration) -> Option<u64> {
    let (mut until, mut rate) = (Duration::ZERO, 0);
    move |passed| {
        if passed >= until {
            until = passed + Duration::from_millis(rand::random_range(1..300));
            rate = [0, 0, 1, 4, 15][rand::random_range(0..5)];
        }
        (passed < span).then_some(rate)
    }
}

/// Over all instances, for each of four tiers, whenever requests come (G-78).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_window_over_all_instances_holds_more_than_its_limit() {
    let Some(server) = Server::start() else { return };
    let limiters = limiters(&server).await;
    let (user, key) = subjects();
    let tiers: Arc<[Tier]> = Arc::new([
        tier(&user, 3, 4500),
        tier(&user, 10, 14_000),
        tier(&key, 1, 2000),
        tier(&key, 2, 3400),
    ]);
    // Limits that are counted exactly, on the same attack.
    let small: Arc<[Tier]> = Arc::new([tier(&subjects().0, 1, 10), tier(&subjects().1, 5, 40)]);
    let span = span();
    let mut attacks = vec![];
    for (n, limiter) in limiters.iter().enumerate() {
        for tiers in [&tiers, &small] {
            let random = drive(limiter.clone(), Arc::clone(tiers), random_attacker(span));
            attacks.push((Arc::clone(tiers), tokio::spawn(random)));
            let window = window_of(&tiers[n % tiers.len()]);
            let boundary = boundary_attacker(window, span);
            let boundary = drive(limiter.clone(), Arc::clone(tiers), boundary);
            attacks.push((Arc::clone(tiers), tokio::spawn(boundary)));
        }
        let steady = drive(limiter.clone(), Arc::clone(&tiers), steady(1500, span));
        attacks.push((Arc::clone(&tiers), tokio::spawn(steady)));
    }
    let (mut large_ones, mut small_ones) = (Outcome::default(), Outcome::default());
    for (on, attack) in attacks {
        let outcome = attack.await.unwrap();
        if Arc::ptr_eq(&on, &small) { &mut small_ones } else { &mut large_ones }.add(outcome);
    }
    for (outcome, tiers) in [(&large_ones, &tiers), (&small_ones, &small)] {
        for tier in tiers.iter() {
            let most = outcome.most_within(window_of(tier));
            println!("{} of {} in {:?}, {} asked", most, tier.limit, tier.window, outcome.asked);
            assert!(most <= usize::try_from(tier.limit).unwrap(), "{most} of {tier:?}");
        }
    }
    let leased: u64 = limiters.iter().map(|limiter| limiter.stats().unwrap().by_lease).sum();
    println!("{leased} by lease, {} calls", asked(&limiters));
    assert!(leased > large_ones.admitted.len() as u64 / 2, "{leased} were leased");
}

/// Permits may be used some time after they were charged, and are counted for a
/// window after that: here they are taken in a burst, and as many as can be are
/// used late, before the limit is used up and as soon as it comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permit_is_counted_for_a_window_after_it_is_used() {
    const WINDOW: Duration = Duration::from_secs(1);
    let Some(server) = Server::start() else { return };
    let limiters = limiters(&server).await;
    let tiers = [tier(&subjects().0, 1, 2000)];
    let mut all = Outcome::default();
    for round in 0..2 {
        for limiter in &limiters {
            // Up to where it holds a whole lease.
            let calls = || limiter.stats().unwrap().asked;
            for _ in 0..400 {
                all.ask(limiter, &tiers).await;
            }
            let before = calls();
            while calls() == before && all.ask(limiter, &tiers).await {}
        }
        for pause in [5, 10, 20, 50] {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            for limiter in &limiters {
                for _ in 0..if pause == 50 { 256 } else { 5 } {
                    all.ask_without_waiting(limiter, &tiers);
                }
            }
        }
        let late = Instant::now();
        while late.elapsed() < WINDOW + Duration::from_millis(20) {
            for limiter in &limiters {
                while all.ask(limiter, &tiers).await {}
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let most = all.most_within(WINDOW);
        println!("round {round}: {most} of {}", tiers[0].limit);
        assert!(most as u64 <= tiers[0].limit, "{most}");
        tokio::time::sleep(WINDOW).await;
    }
}

/// At least 98 % of what the limit allows is used where there is demand
/// (G-79), and Redis is asked about one request in twenty at the most.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overload_gets_the_limit_and_hardly_asks() {
    const WINDOW: u32 = 2;
    const WINDOWS: u32 = 4;
    const LIMIT: u64 = 4000;
    let Some(server) = Server::start() else { return };
    let limiters = limiters(&server).await;
    let (user, key) = subjects();
    let tiers: Arc<[Tier]> = Arc::new([tier(&user, 60, 1_000_000), tier(&key, WINDOW, LIMIT)]);
    let span = Duration::from_secs((WINDOW * WINDOWS).into());
    // Three times the limit, of which two thirds are refused.
    let load = limiters.iter().map(|limiter| {
        tokio::spawn(drive(limiter.clone(), Arc::clone(&tiers), steady(2000, span)))
    });
    let mut all = Outcome::default();
    for outcome in join_all(load).await {
        all.add(outcome.unwrap());
    }
    let most = all.most_within(Duration::from_secs(WINDOW.into()));
    let end = all.first() + span;
    let got = all.admitted.iter().filter(|(_, done)| *done < end).count() as u64;
    let calls = asked(&limiters);
    println!("{got} of {}, {calls} calls for {}", LIMIT * u64::from(WINDOWS), all.asked);
    assert!(most as u64 <= LIMIT, "{most}");
    assert!(got * 100 >= LIMIT * u64::from(WINDOWS) * 98, "{got}");
    assert!(calls * 20 <= all.asked, "{calls} calls for {} requests", all.asked);
}

/// The same for a limit that nobody reaches, and one that is full all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hot_key_is_asked_about_rarely_admitted_or_refused() {
    let Some(server) = Server::start() else { return };
    let span = Duration::from_secs(2);
    for (limit, admitted) in [(1_000_000, true), (250, false), (100, false)] {
        let limiters = limiters(&server).await;
        let tiers: Arc<[Tier]> = Arc::new([tier(&subjects().0, 60, limit)]);
        let load = limiters
            .iter()
            .map(|limiter| tokio::spawn(drive(limiter.clone(), tiers.clone(), steady(1500, span))));
        let mut all = Outcome::default();
        for outcome in join_all(load).await {
            all.add(outcome.unwrap());
        }
        let got = all.admitted.len() as u64;
        let calls = asked(&limiters);
        println!("limit {limit}: {got} admitted, {calls} calls for {} requests", all.asked);
        assert_eq!(got, if admitted { all.asked } else { limit });
        // Each of the few that a small limit admits is decided exactly.
        let exact = if admitted { 0 } else { limit };
        assert!((calls - exact.min(calls)) * 20 <= all.asked, "{calls} of {}", all.asked);
    }
}

/// Several runtimes, as a server has, on one limiter.
#[test]
fn runtimes_may_share_a_limiter() {
    let Some(server) = Server::start() else { return };
    let home = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let home = home.unwrap();
    let limiters = home.block_on(limiters(&server));
    let tiers: Arc<[Tier]> = Arc::new([tier(&subjects().0, 60, 3000)]);
    let start = Instant::now();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (limiter, tiers) = (limiters[0].clone(), tiers.clone());
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.unwrap().block_on(async {
                    let several = (0..20).map(|_| {
                        let burst = steady(60, Duration::from_secs(1));
                        drive(limiter.clone(), tiers.clone(), burst)
                    });
                    join_all(several).await.iter().map(|one| one.admitted.len()).sum::<usize>()
                })
            })
        })
        .collect();
    let got: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert_eq!(got, 3000, "of more than there were");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}
