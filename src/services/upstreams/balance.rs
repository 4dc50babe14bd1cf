//! Which target takes a request.
//!
//! Of two that are drawn by weight, the one with less to do for its weight:
//! nearly as good as looking at all of them, and workers that choose at the same
//! moment do not all run to the same one (Mitzenmacher, "The Power of Two
//! Choices in Randomized Load Balancing").
//!
//! A target whose breaker is open gets nothing but the one exchange that sees
//! how it does; if all are open, requests fail at once. One that only the active
//! checks call ill is used if no other is left: a check may be wrong about what
//! it asks, and the breaker sees soon enough whether it was right.

use std::{sync::Arc, time::Duration};

use rand::RngExt as _;

use super::{
    UpstreamState,
    target::{InFlight, TargetState},
};

/// No target may be asked now; how long until one may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable(pub Duration);

impl UpstreamState {
    /// The place of the target among [`UpstreamState::targets`]; not `besides`
    /// if there are others. There must be targets.
    pub fn pick(&self, besides: Option<usize>) -> Result<(usize, InFlight), Unavailable> {
        if let [only] = &*self.targets {
            return if only.breaker.is_closed() {
                Ok((0, only.enter(false)))
            } else if only.breaker.try_probe(only.now()) {
                Ok((0, only.enter(true)))
            } else {
                Err(Unavailable(only.retry_in()))
            };
        }
        let probe = |healthy: bool| {
            self.targets.iter().enumerate().find_map(|(at, target)| {
                let may = Some(at) != besides && target.is_healthy() == healthy;
                let probes = may && !target.breaker.is_closed();
                (probes && target.breaker.try_probe(target.now())).then(|| (at, target.enter(true)))
            })
        };
        let of_two = |healthy: bool| {
            let fits = |at: usize, target: &TargetState| {
                let may = Some(at) != besides && target.is_healthy() == healthy;
                may && target.breaker.is_closed()
            };
            two_choices(&self.targets, fits).map(|at| (at, self.targets[at].enter(false)))
        };
        let found = probe(true).or_else(|| of_two(true)).or_else(|| of_two(false));
        found.or_else(|| probe(false)).ok_or_else(|| {
            let waits = self.targets.iter().map(|target| target.retry_in());
            Unavailable(waits.min().unwrap_or_default())
        })
    }
}

fn two_choices(
    targets: &[Arc<TargetState>],
    fits: impl Fn(usize, &TargetState) -> bool,
) -> Option<usize> {
    let draw = |besides: Option<usize>| {
        let fitting = || {
            let all = targets.iter().enumerate();
            all.filter(|(at, target)| Some(*at) != besides && fits(*at, target))
        };
        let total: u32 = fitting().map(|(_, target)| target.config.weight).sum();
        let mut drawn = rand::rng().random_range(0..total.max(1));
        let mut last = None;
        for (at, target) in fitting() {
            last = Some(at);
            match drawn.checked_sub(target.config.weight) {
                Some(rest) => drawn = rest,
                None => break,
            }
        }
        last
    };
    let first = draw(None)?;
    let Some(second) = draw(Some(first)) else { return Some(first) };
    // With nothing to tell them apart the first draw holds, which has the
    // weights in it.
    let load = |at: usize, other: usize| {
        targets[at].in_flight() as u64 * u64::from(targets[other].config.weight)
    };
    Some(if load(second, first) < load(first, second) { second } else { first })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Config, Sources},
        domain::clock::FakeClock,
        services::upstreams::{
            FailureKind, UpstreamService, resolver::SystemResolver, target::TargetStatus,
        },
    };

    struct Bed {
        state: Arc<UpstreamState>,
        clock: Arc<FakeClock>,
    }

    fn bed(weights: &[u32]) -> Bed {
        let targets = weights
            .iter()
            .enumerate()
            .map(|(at, weight)| format!("{{ url = 'http://10.0.0.{at}', weight = {weight} }}"));
        let targets = targets.collect::<Vec<_>>().join(",");
        let file = format!("[[upstreams]]\nname='a'\nmount='/a'\ntargets=[{targets}]");
        let config = Config::load(&Sources { file: Some(file), ..Sources::default() }).unwrap();
        let clock =
            FakeClock::starting_at(chrono::DateTime::from_timestamp(1_767_225_600, 0).unwrap());
        let service =
            UpstreamService::new(&config.upstreams, clock.clone(), Arc::new(SystemResolver));
        Bed { state: service.current().upstreams[0].clone(), clock }
    }

    impl Bed {
        /// How often each of the targets is chosen, where exchanges stay open.
        fn shares(&self, requests: usize, stay: bool) -> Vec<usize> {
            let mut counts = vec![0; self.state.targets.len()];
            let mut open = vec![];
            for _ in 0..requests {
                let (at, in_flight) = self.state.pick(None).unwrap();
                counts[at] += 1;
                if stay {
                    open.push(in_flight);
                }
            }
            counts
        }

        fn fail(&self, at: usize) {
            for _ in 0..20 {
                let mut in_flight = self.state.targets[at].enter(false);
                in_flight.failed(FailureKind::Timeout);
            }
        }
    }

    #[test]
    fn idle_targets_are_chosen_by_weight() {
        let shares = bed(&[1, 2, 5]).shares(8_000, false);
        for (share, expected) in shares.iter().zip([1_000, 2_000, 5_000]) {
            assert!(share.abs_diff(expected) < 300, "{shares:?}");
        }
    }

    #[test]
    fn what_is_under_way_is_spread_by_weight() {
        let shares = bed(&[1, 1, 2]).shares(400, true);
        for (share, expected) in shares.iter().zip([100, 100, 200]) {
            assert!(share.abs_diff(expected) < 20, "{shares:?}");
        }
    }

    #[test]
    fn a_target_that_hangs_is_left_to_itself() {
        let bed = bed(&[1, 1, 1]);
        let _stuck: Vec<_> = (0..50).map(|_| bed.state.targets[1].enter(false)).collect();
        let shares = bed.shares(300, false);
        assert_eq!(shares[1], 0, "{shares:?}");
    }

    #[test]
    fn an_open_breaker_gets_one_exchange_every_five_seconds() {
        let bed = bed(&[1, 1]);
        bed.fail(0);
        assert_eq!(bed.shares(50, false)[0], 0);
        bed.clock.advance(chrono::TimeDelta::seconds(5));
        let (at, mut probe) = bed.state.pick(None).unwrap();
        assert_eq!(at, 0);
        assert_eq!(bed.shares(50, false)[0], 0, "while that is under way");
        probe.failed(FailureKind::Status);
        drop(probe);
        assert_eq!(bed.shares(50, false)[0], 0);
        bed.clock.advance(chrono::TimeDelta::seconds(5));
        // Its client left before there was an answer: the next may see.
        drop(bed.state.pick(None).unwrap());
        let (at, mut probe) = bed.state.pick(None).unwrap();
        assert_eq!(at, 0);
        probe.succeeded();
        drop(probe);
        assert!(bed.shares(50, false)[0] > 5);
    }

    #[test]
    fn without_any_target_requests_fail_at_once_and_say_when_to_come_back() {
        let bed = bed(&[1, 1]);
        bed.fail(0);
        bed.clock.advance(chrono::TimeDelta::seconds(2));
        bed.fail(1);
        assert_eq!(bed.state.pick(None).unwrap_err(), Unavailable(Duration::from_secs(3)));
        let one = self::bed(&[1]);
        one.fail(0);
        assert_eq!(one.state.pick(None).unwrap_err(), Unavailable(Duration::from_secs(5)));
        one.clock.advance(chrono::TimeDelta::seconds(5));
        assert!(one.state.pick(None).is_ok_and(|(at, _)| at == 0));
    }

    #[test]
    fn what_checks_call_ill_is_used_only_if_nothing_else_is_left() {
        let bed = bed(&[1, 1]);
        let check = |at: usize, well| bed.state.targets[at].checked(well);
        check(0, false);
        assert!(bed.shares(50, false)[0] > 5, "once is not enough");
        check(0, false);
        assert_eq!(bed.shares(50, false), [0, 50]);
        check(1, false);
        check(1, false);
        assert!(bed.shares(50, false)[0] > 5, "all are ill: the check may be wrong");
        bed.fail(1);
        assert_eq!(bed.shares(50, false), [50, 0]);
        check(1, true);
        bed.clock.advance(chrono::TimeDelta::seconds(5));
        let (at, mut probe) = bed.state.pick(None).unwrap();
        assert_eq!(at, 1);
        probe.succeeded();
        drop(probe);
        assert_eq!(bed.shares(50, false), [0, 50]);
        let TargetStatus { healthy, last_failure, .. } = bed.state.targets[0].status();
        assert!(!healthy && last_failure.is_none());
    }

    #[test]
    fn a_second_choice_is_another_one() {
        let bed = bed(&[1, 1]);
        for _ in 0..50 {
            assert_eq!(bed.state.pick(Some(1)).unwrap().0, 0);
        }
        bed.fail(0);
        assert!(bed.state.pick(Some(1)).is_err());
    }

    #[test]
    fn retries_are_a_fifth_of_the_requests_and_at_least_three() {
        let bed = bed(&[1, 1]);
        let retries = |n: usize| (0..n).filter(|_| bed.state.may_retry()).count();
        assert_eq!(retries(10), 3);
        for _ in 0..100 {
            bed.state.pick(None).unwrap().1.succeeded();
        }
        assert_eq!(retries(100), 17);
        bed.clock.advance(chrono::TimeDelta::seconds(11));
        assert_eq!(retries(10), 3);
        assert_eq!(bed.state.retried(), 23);
    }
}
