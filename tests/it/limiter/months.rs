//! Quotas of a calendar month over several instances.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join_all;
use tollgate::{
    cache::Limiter,
    domain::{
        clock::{Clock, SystemClock},
        limit::{Decision, Tier, Window},
        rates::OnStoreLoss,
    },
};

use super::subjects;
use crate::support::redis::{Server, connect_patiently};

/// Permits of one lease.
const SLICE: u64 = 256;

/// The time of the system, so much later or earlier.
struct Shifted(TimeDelta);

impl Clock for Shifted {
    fn now(&self) -> DateTime<Utc> {
        SystemClock.now() + self.0
    }

    fn monotonic_us(&self) -> u64 {
        SystemClock.monotonic_us()
    }
}

/// Three instances under load over the end of a month: neither month admits
/// more than its quota, slices that they hold included; what the database
/// counted before is asked for once, and the new month begins with nothing
/// (G-60).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_month_admits_more_than_its_quota_over_all_instances() {
    const QUOTA: u64 = 3000;
    const BEFORE: u64 = 400;
    let Some(server) = Server::start() else { return };
    let end: DateTime<Utc> = "2026-02-01T00:00:00Z".parse().unwrap();
    let begin = end - TimeDelta::seconds(4);
    let clock = Arc::new(Shifted(begin - SystemClock.now()));
    let mut limiters = vec![];
    for _ in 0..3 {
        let redis = connect_patiently(&server.url()).await;
        limiters.push(Limiter::shared(clock.clone(), redis, || 3));
    }
    let tiers = [Tier::new(subjects().1, Window::Month, QUOTA).on_loss(OnStoreLoss::Deny)];
    assert_eq!(limiters[0].decide(&tiers, 1, None).await, Decision::NeedsSeed);
    let first = limiters[0].decide(&tiers, 0, Some(&[BEFORE])).await;
    assert!(matches!(first, Decision::Admitted(_)), "{first:?}");

    let (in_january, in_all) = (AtomicU64::new(0), AtomicU64::new(0));
    let (early_seeds, seeds) = (AtomicU64::new(0), AtomicU64::new(0));
    join_all(limiters.iter().map(async |limiter| {
        while clock.now() < end + TimeDelta::milliseconds(2500) {
            let mut decision = match limiter.decide_in_memory(&tiers, 1, None) {
                Some(decision) => decision,
                None => limiter.decide(&tiers, 1, None).await,
            };
            if decision == Decision::NeedsSeed {
                let early = clock.now() < end;
                early_seeds.fetch_add(u64::from(early), SeqCst);
                seeds.fetch_add(1, SeqCst);
                decision = limiter.decide(&tiers, 1, Some(&[0])).await;
            }
            match decision {
                Decision::Admitted(_) => {
                    in_all.fetch_add(1, SeqCst);
                    in_january.fetch_add(u64::from(clock.now() < end), SeqCst);
                }
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
            tokio::task::yield_now().await;
        }
    }))
    .await;
    let by_lease: u64 = limiters.iter().map(|limiter| limiter.stats().unwrap().by_lease).sum();
    let (january, all) = (in_january.into_inner(), in_all.into_inner());
    println!("{january} in the old month, {all} in both, {by_lease} by leases");
    assert!(january <= QUOTA - BEFORE, "{january}");
    assert!(january >= QUOTA - BEFORE - 3 * SLICE, "{january}");
    assert!(all <= QUOTA - BEFORE + QUOTA, "{all}");
    assert!(all >= QUOTA - BEFORE + QUOTA - 6 * SLICE, "{all}");
    assert!(by_lease > QUOTA, "{by_lease}");
    assert_eq!(early_seeds.into_inner(), 0, "the first seed is everybody's");
    assert!((1..=3).contains(&seeds.into_inner()), "at most one each as the month begins");
}
