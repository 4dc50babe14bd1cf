//! Every subject and window, and what holds of each limit without Redis.

use std::time::{Duration, Instant};

use tollgate::{
    cache::Limiter,
    domain::{
        clock::{Clock, SystemClock},
        id::PassId,
        limit::{Decision, Per, Subject, Tier, Window},
        origin::OriginHost,
        rates::OnStoreLoss,
    },
};
use uuid::Uuid;

use super::{instances, over, passes, subjects, tier};
use crate::support::redis::{Server, connect};

/// One of each kind that no other test uses.
fn one_of_each() -> Vec<Subject> {
    let (user, key) = subjects();
    let (Subject::User(owner), unique) = (user, rand::random::<u128>()) else { unreachable!() };
    // Names live as long as the process, as an operator's do.
    let upstream: &'static str = format!("u{unique:x}").leak();
    let host = OriginHost::of(format!("https://{unique:x}.example").as_bytes()).unwrap();
    let id = PassId::from(Uuid::from_u128(unique));
    vec![
        Subject::Address(std::net::Ipv6Addr::from_bits(unique).into()),
        Subject::Origin(host),
        Subject::Upstream(upstream),
        user,
        Subject::UserAt { user: owner, upstream },
        key,
        Subject::Pass { id, owner },
    ]
}

/// As a service decides: what was lost is seeded.
async fn decide(limiter: &Limiter, tiers: &[Tier], cost: u64) -> Decision {
    match limiter.decide(tiers, cost, None).await {
        Decision::NeedsSeed => limiter.decide(tiers, cost, Some(&vec![0; tiers.len()])).await,
        decision => decision,
    }
}

/// In one step, all that there is and nothing more.
#[tokio::test]
async fn every_subject_is_held_to_every_window() {
    let limiters = instances(2).await;
    let began = SystemClock.now();
    let anchored = |seconds| Window::Anchored { since: Some(began).into(), seconds };
    let windows: Vec<Window> = Per::ALL
        .map(Per::window)
        .into_iter()
        .chain([anchored(86_400), anchored(900_000)])
        .collect();
    for limit in [3, 250] {
        for of in 0..one_of_each().len() {
            for window in &windows {
                let subject = one_of_each()[of];
                let tiers = [Tier::new(subject, *window, limit).on_loss(OnStoreLoss::Deny)];
                let start = Instant::now();
                let Decision::Admitted(Some(state)) = decide(&limiters[0], &tiers, limit - 1).await
                else {
                    panic!("{tiers:?} has room")
                };
                assert_eq!((state.remaining, state.tier), (1, subject.tier()), "{tiers:?}");
                let too_many = decide(&limiters[1], &tiers, 2).await;
                let last = decide(&limiters[1], &tiers, 1).await;
                let refused = decide(&limiters[0], &tiers, 1).await;
                if start.elapsed() >= Duration::from_secs(u64::from(window.seconds())) {
                    // The machine stood still for a whole second.
                    continue;
                }
                assert!(matches!(too_many, Decision::Refused(_)), "{tiers:?}");
                assert!(matches!(last, Decision::Admitted(_)), "{tiers:?}");
                let Decision::Refused(state) = refused else { panic!("{tiers:?} is full") };
                assert_eq!((state.tier, state.window), (subject.tier(), *window));
                assert_eq!((state.limit, state.remaining), (limit, 0), "{tiers:?}");
                let longest = u64::from(window.seconds()) * 1000;
                // A part of the window later, where it is counted in parts.
                assert!(state.reset_in_ms <= longest + longest / 50, "{state:?}");
            }
        }
    }
}

/// Each limit says for itself; the strictest that says no is named.
#[tokio::test]
async fn without_redis_each_limit_follows_its_own_policy() {
    for dead in [true, false] {
        let Some(mut server) = Server::start() else { return };
        let redis = connect(&server.url()).await;
        let limiter = over(&redis);
        let month = |subject, on_loss| Tier::new(subject, Window::Month, 10).on_loss(on_loss);
        assert!(passes(&limiter, &[tier(&subjects().0, 60, 100)], 1).await);
        if dead {
            server.kill();
        } else {
            server.stop();
        }
        for of_user in OnStoreLoss::ALL {
            for of_key in OnStoreLoss::ALL {
                let (user, key) = subjects();
                let tiers = [
                    tier(&user, 3600, 10).on_loss(of_user),
                    tier(&key, 1000, 250).on_loss(of_key),
                    month(key, of_key),
                ];
                let mut got = 0;
                for _ in 0..12 {
                    got += u64::from(matches!(
                        decide(&limiter, &tiers, 1).await,
                        Decision::Admitted(_)
                    ));
                }
                let expected = match (of_user, of_key) {
                    (OnStoreLoss::Deny, _) | (_, OnStoreLoss::Deny) => 0,
                    (OnStoreLoss::Allow, OnStoreLoss::Allow) => 12,
                    // Half of ten, for one of two instances.
                    _ => 5,
                };
                assert_eq!(got, expected, "{of_user:?} {of_key:?}, dead: {dead}");
                if let (OnStoreLoss::Allow, OnStoreLoss::Deny) = (of_user, of_key) {
                    let Decision::Refused(state) = decide(&limiter, &tiers, 1).await else {
                        panic!("it is denied")
                    };
                    assert_eq!((state.tier, state.reset_in_ms), ("key", 1000));
                }
            }
        }
        assert!(redis.is_degraded());
    }
}

/// A key that is used for two upstreams in turn keeps a lease for each, and all
/// that it is handed out is within what the upstreams may have.
#[tokio::test]
async fn leases_of_several_upstreams_do_not_end_each_other() {
    let Some(server) = Server::start() else { return };
    let redis = connect(&server.url()).await;
    let limiter = over(&redis);
    let key = subjects().1;
    let to = |upstream| [tier(&Subject::Upstream(upstream), 600, 3000), tier(&key, 600, 100_000)];
    let mut got = [0, 0];
    for _ in 0..4000 {
        for (got, upstream) in got.iter_mut().zip(["a", "b"]) {
            let tiers = to(upstream);
            let decided = match limiter.decide_in_memory(&tiers, 1, None) {
                Some(decision) => decision,
                None => limiter.decide(&tiers, 1, None).await,
            };
            *got += u64::from(matches!(decided, Decision::Admitted(_)));
        }
    }
    let stats = limiter.stats().unwrap();
    assert_eq!(got, [3000, 3000], "{stats:?}");
    assert!(stats.asked * 10 < 8000, "{stats:?}");
}
