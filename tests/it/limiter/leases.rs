//! What ends a lease, and what one that is lost costs.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tollgate::{
    cache::Limiter,
    domain::{
        limit::{Decision, Tier},
        rates::OnStoreLoss,
    },
};

use super::{
    left,
    load::{Outcome, admits, decide, drive, steady},
    over, subjects, tier,
};
use crate::support::redis::{Server, connect, regained};

/// Permits of one lease.
const SLICE: u64 = 256;
/// How long one waits for another that asks.
const PATIENCE: Duration = Duration::from_millis(20);

/// Requests until one is decided by a lease with something left; how many were
/// admitted.
async fn heat(limiter: &Limiter, tiers: &[Tier]) -> u64 {
    let leased = || limiter.stats().expect("shared").by_lease;
    let (before, mut admitted) = (leased(), 0);
    while leased() < before + 8 || limiter.decide_in_memory(tiers, 0, None).is_none() {
        assert!(admits(limiter, tiers, 1).await, "there is room");
        admitted += 1;
        assert!(admitted < 1000, "nothing is leased");
    }
    admitted
}

/// Requests until one is refused without asking.
async fn exhaust(limiter: &Limiter, tiers: &[Tier]) -> u64 {
    let mut admitted = 0;
    while !matches!(limiter.decide_in_memory(tiers, 0, None), Some(Decision::Refused(_))) {
        admitted += u64::from(admits(limiter, tiers, 1).await);
        assert!(admitted < 5000, "nothing is refused");
    }
    admitted
}

/// An instance that is gone takes a slice with it, for one window.
#[tokio::test]
async fn an_instance_that_dies_costs_its_slice_at_the_most() {
    let Some(server) = Server::start() else { return };
    let redis = connect(&server.url()).await;
    let tiers = [tier(&subjects().0, 2, 2000)];
    let dying = over(&redis);
    let start = Instant::now();
    let used = heat(&dying, &tiers).await;
    drop(dying);
    let other = over(&redis);
    let got = exhaust(&other, &tiers).await;
    assert!(start.elapsed() < Duration::from_secs(2), "within one window");
    assert!((2000 - used - SLICE..=2000 - used).contains(&got), "{used} and {got}");
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert_eq!(exhaust(&other, &tiers).await, 2000, "all is back");
}

/// One that only rests gives back what it did not use, with its next request.
#[tokio::test]
async fn what_was_not_used_is_given_back() {
    let Some(server) = Server::start() else { return };
    let redis = connect(&server.url()).await;
    let limiter = over(&redis);
    let tiers = [tier(&subjects().0, 60, 2000)];
    let used = heat(&limiter, &tiers).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(left(&limiter, tiers[0].clone()).await < 2000 - used, "it holds some");
    let Decision::Admitted(Some(state)) = decide(&limiter, &tiers, 1).await else {
        panic!("there is room")
    };
    assert_eq!(state.remaining, 2000 - used - 1);
    assert_eq!(left(&limiter, tiers[0].clone()).await, 2000 - used - 1);
}

/// As if every request had been counted by itself: it falls by one each time.
#[tokio::test]
async fn what_is_left_is_told_as_if_every_request_had_asked() {
    let Some(server) = Server::start() else { return };
    let redis = connect(&server.url()).await;
    let limiter = over(&redis);
    let (user, key) = subjects();
    let tiers = [tier(&user, 600, 100_000), tier(&key, 600, 5000)];
    for n in 1..=2000 {
        let Decision::Admitted(Some(state)) = decide(&limiter, &tiers, 1).await else {
            panic!("there is room")
        };
        assert_eq!((state.tier, state.remaining), ("key", 5000 - n));
        assert!((1..=610_000).contains(&state.reset_in_ms), "{state:?}");
    }
    // What costs more than is leased is asked about; a look takes nothing.
    let Decision::Admitted(Some(state)) = decide(&limiter, &tiers, 500).await else {
        panic!("there is room")
    };
    assert_eq!(state.remaining, 2500);
    for _ in 0..10 {
        let Decision::Admitted(Some(state)) = decide(&limiter, &tiers, 0).await else {
            panic!("there is room")
        };
        assert_eq!(state.remaining, 2500);
    }
    assert!(limiter.stats().unwrap().by_lease > 1000);
}

/// A changed limit ends the lease (G-84), and so does a new beginning; what is
/// refunded may be used at once.
#[tokio::test]
async fn changes_hold_at_once() {
    let Some(server) = Server::start() else { return };
    let redis = connect(&server.url()).await;
    let limiter = over(&redis);
    let (owner, key) = subjects();
    let at = |limit| [tier(&owner, 600, 100_000), tier(&key, 600, limit)];
    let mut used = 0;
    while used < 400 {
        used += heat(&limiter, &at(2000)).await;
    }
    assert!(!admits(&limiter, &at(300), 1).await);
    // What was leased and not used has been given back to the changed one.
    used += 1;
    assert!(admits(&limiter, &at(used), 1).await);
    assert!(!admits(&limiter, &at(used), 1).await);

    let more = exhaust(&limiter, &at(2000)).await;
    assert!(used + more <= 2000, "no quota twice: {used} and {more}");
    limiter.refund(&at(2000), 3).await;
    assert_eq!(exhaust(&limiter, &at(2000)).await, 3);
    limiter.forget(&key).await;
    assert!(admits(&limiter, &at(2000), 1).await);

    heat(&limiter, &at(2000)).await;
    limiter.forget(&key).await;
    assert!(limiter.decide_in_memory(&at(2000), 0, None).is_none(), "of what was forgotten");
    assert_eq!(exhaust(&limiter, &at(2000)).await, 2000);
}

/// A burst asks a few times, not once for each; and nobody depends on the one
/// who asks to stay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_asks_a_few_times_and_nobody_is_left_behind() {
    let Some(server) = Server::start() else { return };
    let redis = connect(&server.url()).await;
    // An answer that comes too late is not what this is about.
    let limiter = over(&redis);
    let tiers: Arc<[Tier]> =
        Arc::new([tier(&subjects().0, 600, 100_000).on_loss(OnStoreLoss::Share)]);
    let mut prompt = 0;
    for round in 0..20u32 {
        let (before, begun) = (limiter.stats().unwrap().asked, Instant::now());
        let tasks: Vec<_> = (0..200)
            .map(|_| {
                let (limiter, tiers) = (limiter.clone(), Arc::clone(&tiers));
                tokio::spawn(async move { admits(&limiter, &tiers, 1).await })
            })
            .collect();
        if round % 2 == 1 {
            tokio::task::yield_now().await;
            tasks.iter().step_by(2).for_each(tokio::task::JoinHandle::abort);
        }
        let all = tokio::time::timeout(Duration::from_secs(1), join_all(tasks)).await;
        for answer in all.expect("nobody waits for somebody who left") {
            assert!(answer.unwrap_or(true), "there is room");
        }
        // On a machine that stands still for longer than anybody waits, all ask.
        if begun.elapsed() < PATIENCE {
            let asked = limiter.stats().unwrap().asked - before;
            assert!(asked <= 30, "{asked} calls for a burst of 200");
            prompt += 1;
        }
        tokio::time::sleep(Duration::from_millis(120)).await;
    }
    println!("{prompt} of 20 bursts were over before anybody lost patience");
    assert!(prompt > 0);
}

/// A server that hangs under load is waited for once, as without leases (G-11),
/// and what is leased may be used.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_holds_up_no_request_for_long() {
    let Some(server) = Server::start() else { return };
    let redis = connect(&server.url()).await;
    let limiter = over(&redis);
    let tiers: Arc<[Tier]> = Arc::new([tier(&subjects().0, 600, 4000).on_loss(OnStoreLoss::Share)]);
    let span = Duration::from_secs(1);
    let load = join_all(
        (0..20).map(|_| tokio::spawn(drive(limiter.clone(), Arc::clone(&tiers), steady(50, span)))),
    );
    let hang = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.stop();
    };
    let (outcomes, ()) = tokio::join!(load, hang);
    let mut all = Outcome::default();
    for outcome in outcomes {
        all.add(outcome.unwrap());
    }
    println!("slowest {:?}, {:?}", all.slowest, limiter.stats().unwrap());
    assert!(all.slowest < Duration::from_millis(90), "{:?}", all.slowest);
    assert_eq!(all.admitted.len() as u64, all.asked, "alone, half of the limit is left");
    assert!(redis.is_degraded());
    let stats = limiter.stats().unwrap();
    assert!(stats.in_memory > 0 && stats.by_lease > 0, "{stats:?}");
    server.resume();
    regained(&redis).await;
    assert!(left(&limiter, tiers[0].clone()).await >= 4000 - all.asked - SLICE);
}
