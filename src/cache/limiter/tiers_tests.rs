use std::{net::IpAddr, sync::Arc};

use chrono::{TimeDelta, TimeZone};
use proptest::prelude::*;

use super::*;
use crate::domain::{
    clock::{Clock, FakeClock},
    id::{ApiKeyId, PassId, UserId},
    limit::Per,
    origin::OriginHost,
};

fn fake() -> Arc<FakeClock> {
    FakeClock::starting_at(Utc.with_ymd_and_hms(2026, 1, 31, 12, 0, 0).unwrap())
}

fn subjects() -> [Subject; 7] {
    let user = UserId::from(uuid::Uuid::from_u128(7));
    [
        Subject::Address(IpAddr::from([192, 0, 2, 7])),
        Subject::Origin(OriginHost::of(b"https://a.example").unwrap()),
        Subject::Upstream("a"),
        Subject::User(user),
        Subject::UserAt { user, upstream: "a" },
        Subject::Key { id: ApiKeyId::from(uuid::Uuid::from_u128(8)), owner: user },
        Subject::Pass { id: PassId::from(uuid::Uuid::from_u128(9)), owner: user },
    ]
}

/// Every window that slides, the month, and two that begin with something.
fn windows(began: DateTime<Utc>) -> Vec<Window> {
    let anchored = |seconds| Window::Anchored { since: Some(began).into(), seconds };
    let mut windows: Vec<Window> = Per::ALL.map(Per::window).into();
    windows.extend([anchored(86_400), anchored(90_000_000)]);
    windows
}

/// Every charge, by both clocks.
#[derive(Default)]
struct Model(Vec<(u64, DateTime<Utc>)>);

impl Model {
    fn used(&self, window: Window, now_us: u64, now: DateTime<Utc>) -> u64 {
        let counts = |(at_us, at): &&(u64, DateTime<Utc>)| match window.period(now) {
            Some(period) => period.begins <= *at && *at < period.ends,
            None => at_us + u64::from(window.seconds()) * 1_000_000 > now_us,
        };
        self.0.iter().filter(counts).count() as u64
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Any limits of any subjects over any windows decide as the naive log does,
    /// whatever is swept meanwhile, and a refusal leaves all as it was.
    #[test]
    fn any_tiers_equal_a_log_of_everything(
        tiers in proptest::collection::btree_map((0usize..7, 0usize..7), 1u64..12, 1..7),
        steps in proptest::collection::vec((0usize..6, 0i64..1000, 0u64..3, any::<bool>()), 1..120),
    ) {
        let clock = fake();
        let memory = Memory::new(clock.clone());
        let windows = windows(clock.now());
        let tiers: Vec<Tier> = tiers
            .iter()
            .map(|((subject, window), limit)| {
                Tier::new(subjects()[*subject], windows[*window], *limit)
            })
            .collect();
        let mut model = Model::default();
        for (unit, amount, cost, sweep) in steps {
            let unit = [0, 1, 1_000, 30_000, 1_800_000, 86_400_000][unit];
            clock.advance(TimeDelta::milliseconds(unit * amount / 100));
            if sweep {
                memory.sweep();
            }
            let (now_us, now) = (clock.monotonic_us(), clock.now());
            let used: Vec<u64> =
                tiers.iter().map(|tier| model.used(tier.window, now_us, now)).collect();
            let fits = |(tier, used): (&Tier, &u64)| used + cost.max(1) <= tier.limit;
            let expected = tiers.iter().zip(&used).all(fits);
            // What usage would say; not asked for where nothing is lost.
            let decision = match memory.decide(&tiers, cost, None, Share::WHOLE) {
                Decision::NeedsSeed => memory.decide(&tiers, cost, Some(&used), Share::WHOLE),
                decision => decision,
            };
            let admitted = matches!(decision, Decision::Admitted(_));
            prop_assert_eq!(admitted, expected, "{:?} of {:?}", used, tiers);
            if let Decision::Refused(state) = decision {
                let is_full = |(tier, used): (&Tier, &u64)| {
                    state.tier == tier.subject.tier()
                        && state.window == tier.window
                        && used + cost.max(1) > tier.limit
                };
                prop_assert!(tiers.iter().zip(&used).any(is_full), "{:?}", state);
            }
            if expected {
                model.0.extend((0..cost).map(|_| (now_us, now)));
            }
        }
    }
}

/// Bursts as late and as early as can be at every border, of windows and of
/// their parts: in no rolling window more than the limit, and hardly less than
/// it where there is demand.
#[test]
fn bursts_at_the_borders_of_seconds_and_days_get_no_more_than_the_limit() {
    for (window, seconds) in [(Window::SECOND, 1), (Window::DAY, 86_400)] {
        for limit in [1u64, 50, 1_000] {
            let clock = fake();
            let memory = Memory::new(clock.clone());
            let length = seconds * 1_000_000i64;
            let part = (length + 59) / 60;
            let mut admitted: Vec<u64> = vec![];
            let mut borders: Vec<i64> = (1..=6).map(|n| n * length).collect();
            borders.extend((1..=360).map(|n| n * part));
            borders.sort_unstable();
            let start = clock.monotonic_us();
            for border in borders {
                for around in [-1, 0, 1] {
                    let passed = (clock.monotonic_us() - start).cast_signed();
                    clock.advance(TimeDelta::microseconds((border + around - passed).max(0)));
                    for _ in 0..=limit {
                        let tiers = [Tier::new(subjects()[3], window, limit)];
                        let decision = memory.decide(&tiers, 1, None, Share::WHOLE);
                        if matches!(decision, Decision::Refused(_)) {
                            break;
                        }
                        admitted.push(clock.monotonic_us());
                    }
                }
            }
            for (first, at) in admitted.iter().enumerate() {
                let end = at + length.unsigned_abs();
                let within = admitted.partition_point(|at| *at < end) - first;
                assert!(within as u64 <= limit, "{within} of {limit} within {seconds} s");
            }
            assert!(admitted.len() as u64 >= 5 * limit, "{} of {limit}", admitted.len());
        }
    }
}

/// Nothing is known of strangers but what is counted: their months are kept.
#[test]
fn what_cannot_be_seeded_is_kept_until_its_period_ends() {
    let clock = fake();
    let memory = Memory::new(clock.clone());
    for subject in subjects() {
        let tiers = [Tier::new(subject, Window::Month, 1)];
        let first = memory.decide(&tiers, 1, None, Share::WHOLE);
        assert_eq!(first == Decision::NeedsSeed, subject.is_recorded(), "{subject:?}");
        memory.decide(&tiers, 1, Some(&[0]), Share::WHOLE);
    }
    clock.advance(TimeDelta::hours(2));
    memory.sweep();
    assert_eq!(memory.subjects(), 2, "the address and the origin");
    for subject in &subjects()[..2] {
        let tiers = [Tier::new(*subject, Window::Month, 1)];
        let again = memory.decide(&tiers, 1, None, Share::WHOLE);
        assert!(matches!(again, Decision::Refused(_)), "{subject:?}");
    }
    clock.advance(TimeDelta::hours(10));
    memory.sweep();
    assert_eq!(memory.subjects(), 0, "the month is over");
}
