use std::{
    net::IpAddr,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};

use chrono::{TimeDelta, TimeZone};
use proptest::prelude::*;

use super::*;
use crate::domain::{
    clock::{Clock, FakeClock, SystemClock},
    id::{ApiKeyId, UserId},
};

const SECOND: u64 = 1_000_000;

fn fake() -> Arc<FakeClock> {
    FakeClock::starting_at(Utc.with_ymd_and_hms(2026, 1, 31, 12, 0, 0).unwrap())
}

fn tier(subject: Subject, seconds: u32, limit: u64) -> Tier {
    Tier::new(subject, Window::Sliding { seconds }, limit)
}

fn user() -> Subject {
    Subject::User(UserId::from(uuid::Uuid::from_u128(7)))
}

fn key() -> Subject {
    Subject::Key {
        id: ApiKeyId::from(uuid::Uuid::from_u128(9)),
        owner: UserId::from(uuid::Uuid::from_u128(7)),
    }
}

fn address(n: u32) -> Subject {
    Subject::Address(IpAddr::from(n.to_be_bytes()))
}

fn decide(memory: &Memory, tiers: &[Tier], cost: u64) -> Decision {
    memory.decide(tiers, cost, None, Share::WHOLE)
}

fn admitted(decision: &Decision) -> bool {
    matches!(decision, Decision::Admitted(_))
}

/// Every instant that was ever admitted, and what is in the window of one.
#[derive(Default)]
struct Model(Vec<u64>);

impl Model {
    fn used(&self, now: u64, window_us: u64) -> u64 {
        self.0.iter().rev().take_while(|at| **at + window_us > now).count() as u64
    }

    fn charge(&mut self, now: u64, cost: u64) {
        self.0.extend((0..cost).map(|_| now));
    }
}

fn steps(most_ms: i64, most_cost: u64) -> impl Strategy<Value = Vec<(i64, u64)>> {
    // Bursts and pauses: most steps do not move the clock at all.
    let gap = prop_oneof![3 => Just(0), 3 => 0..most_ms / 20, 1 => 0..most_ms];
    proptest::collection::vec((gap, 0..=most_cost), 1..400)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Three tiers over two subjects decide exactly as the naive log does, and
    /// a refusal leaves every tier as it was (G-80).
    #[test]
    fn small_limits_equal_an_exact_log(
        limits in [1u64..8, 5u64..40, 20u64..200],
        steps in steps(4_000, 3),
    ) {
        let clock = fake();
        let memory = Memory::new(clock.clone());
        let spans = [1u32, 3, 10];
        let subjects = [key(), key(), user()];
        let tiers: Vec<Tier> = (0..3)
            .map(|i| tier(subjects[i], spans[i], limits[i]))
            .collect();
        let mut model = Model::default();
        for (gap, cost) in steps {
            clock.advance(TimeDelta::milliseconds(gap));
            let now = clock.monotonic_us();
            let used = |i: usize| model.used(now, u64::from(spans[i]) * SECOND);
            let expected = (0..3).all(|i| used(i) + cost.max(1) <= limits[i]);
            let before: Vec<u64> = (0..3).map(used).collect();
            let decision = decide(&memory, &tiers, cost);
            prop_assert_eq!(admitted(&decision), expected, "{:?}", decision);
            if expected {
                model.charge(now, cost);
            }
            for i in 0..3 {
                let counted = before[i] + if expected { cost } else { 0 };
                let (Decision::Admitted(Some(state)) | Decision::Refused(state)) =
                    decide(&memory, &tiers[i..=i], 0) else { panic!("a sliding tier has a state") };
                prop_assert_eq!(state.remaining, limits[i] - counted);
            }
        }
    }

    /// In no rolling window more than the limit, however large, and whoever
    /// waits as told is let in.
    #[test]
    fn large_limits_never_admit_more(
        limit in 201u64..2_000,
        seconds in 1u32..100,
        steps in steps(30_000, 150),
    ) {
        let clock = fake();
        let memory = Memory::new(clock.clone());
        let tiers = [tier(user(), seconds, limit)];
        let mut model = Model::default();
        for (gap, cost) in steps {
            clock.advance(TimeDelta::milliseconds(gap));
            match decide(&memory, &tiers, cost) {
                Decision::Admitted(_) => model.charge(clock.monotonic_us(), cost),
                Decision::Refused(state) => {
                    let wait = i64::try_from(state.reset_in_ms).unwrap();
                    clock.advance(TimeDelta::milliseconds(wait));
                    prop_assert!(admitted(&decide(&memory, &tiers, cost)));
                    model.charge(clock.monotonic_us(), cost);
                }
                Decision::NeedsSeed => panic!("no month here"),
            }
            let now = clock.monotonic_us();
            prop_assert!(model.used(now, u64::from(seconds) * SECOND) <= limit);
        }
    }

    /// A limit that changes all the time, also across the border between the
    /// two forms, is the one that holds (G-84).
    #[test]
    fn changing_limits_hand_out_nothing_twice(
        steps in proptest::collection::vec((0i64..900, 1u64..40, 1u64..500), 1..300),
    ) {
        let clock = fake();
        let memory = Memory::new(clock.clone());
        let mut model = Model::default();
        for (gap, cost, limit) in steps {
            clock.advance(TimeDelta::milliseconds(gap));
            let now = clock.monotonic_us();
            if admitted(&decide(&memory, &[tier(user(), 6, limit)], cost)) {
                model.charge(now, cost);
                prop_assert!(model.used(now, 6 * SECOND) <= limit);
            }
        }
    }
}

#[test]
fn overload_gets_at_least_98_percent_of_a_large_limit() {
    let clock = fake();
    let memory = Memory::new(clock.clone());
    let tiers = [tier(user(), 60, 600)];
    let mut got = 0u64;
    // An hour at five times the limit.
    for _ in 0..60 * 60 * 50 {
        clock.advance(TimeDelta::milliseconds(20));
        got += u64::from(admitted(&decide(&memory, &tiers, 1)));
    }
    assert!((600 * 60 * 98 / 100..=600 * 61).contains(&got), "{got}");
}

#[test]
fn a_refusal_names_the_tier_that_stays_full_longest() {
    let clock = fake();
    let memory = Memory::new(clock.clone());
    let tiers = [tier(user(), 60, 2), tier(user(), 3600, 2)];
    assert!(admitted(&decide(&memory, &tiers, 2)));
    clock.advance(TimeDelta::seconds(10));
    let Decision::Refused(state) = decide(&memory, &tiers, 1) else { panic!("both are full") };
    assert_eq!((state.window, state.reset_in_ms), (Window::HOUR, 3_590_000));
    clock.advance(TimeDelta::milliseconds(3_590_000));
    assert!(admitted(&decide(&memory, &tiers, 1)));
}

#[test]
fn looking_charges_nothing_and_a_refund_gives_back() {
    let memory = Memory::new(fake());
    let tiers = [tier(user(), 60, 1), tier(key(), 60, 300)];
    for _ in 0..5 {
        assert!(admitted(&decide(&memory, &tiers, 0)));
    }
    assert_eq!(memory.subjects(), 0, "a look makes no counter");
    assert!(admitted(&decide(&memory, &tiers, 1)));
    assert!(!admitted(&decide(&memory, &tiers, 0)));
    memory.refund(&tiers, 1);
    memory.refund(&tiers, 1);
    assert!(admitted(&decide(&memory, &tiers, 1)));
    memory.forget(&user());
    assert!(admitted(&decide(&memory, &tiers, 1)));
}

#[test]
fn a_month_is_seeded_once_and_begins_anew() {
    let clock = fake();
    let memory = Memory::new(clock.clone());
    let month = Tier::new(key(), Window::Month, 10);
    let tiers = [tier(user(), 60, 100), month];
    assert_eq!(decide(&memory, &tiers, 1), Decision::NeedsSeed);
    assert!(admitted(&memory.decide(&tiers, 1, Some(&[0, 8]), Share::WHOLE)));
    // The seed is not taken twice, and the first tier was not charged for the
    // decision that wanted one.
    assert!(admitted(&memory.decide(&tiers, 1, Some(&[0, 8]), Share::WHOLE)));
    let Decision::Refused(state) = decide(&memory, &tiers, 1) else { panic!("10 of 10") };
    assert_eq!((state.window, state.remaining), (Window::Month, 0));
    assert_eq!(state.reset_in_ms, 12 * 3600 * 1000);
    let Decision::Admitted(Some(state)) = decide(&memory, &tiers[..1], 0) else { panic!() };
    assert_eq!(state.remaining, 98);
    clock.advance(TimeDelta::hours(12));
    assert!(admitted(&decide(&memory, &tiers, 1)));
}

#[test]
fn a_share_is_a_part_of_what_was_left() {
    let clock = fake();
    let memory = Memory::new(clock);
    let share = Share { instances: 3, halve_guesses: true };
    let month = [Tier::new(key(), Window::Month, 1000)];
    let got = (0..200).filter(|_| admitted(&memory.decide(&month, 1, Some(&[700]), share))).count();
    assert_eq!(got, 100);
    let of = |subject, limit| share.of(&tier(subject, 60, limit));
    assert_eq!([of(user(), 100), of(user(), 2), of(user(), 0)], [33, 1, 0]);
    assert_eq!(of(Subject::LoginAccount(1), 60), 10);
}

#[test]
fn made_up_subjects_are_bounded_and_swept() {
    let clock = fake();
    let memory = Memory::new(clock.clone());
    let most = u32::try_from(TRANSIENT * SHARDS).unwrap();
    let mut late = 0;
    for n in 1..most + 50_000 {
        let got = admitted(&decide(&memory, &[tier(address(n), 60, 2)], 1));
        late += usize::from(got && n > most);
    }
    assert!(memory.subjects() <= most as usize + SHARDS);
    assert!(late < 1_000, "{late} of the overflow got in");
    // Users are not crowded out by addresses.
    assert!(admitted(&decide(&memory, &[tier(user(), 60, 2)], 1)));
    clock.advance(TimeDelta::seconds(61));
    memory.sweep();
    assert_eq!(memory.subjects(), 0);
    assert!(admitted(&decide(&memory, &[tier(address(most + 9), 60, 1)], 1)));
}

#[test]
fn eight_threads_get_exactly_the_limit() {
    for limit in [100, 5_000] {
        let memory = Memory::new(Arc::new(SystemClock));
        let got = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (memory, got) = (&memory, &got);
                scope.spawn(move || {
                    let mut tiers = [tier(user(), 600, limit), tier(key(), 3600, limit)];
                    // Opposite orders must not lock each other out.
                    tiers.rotate_left(thread % 2);
                    for _ in 0..limit {
                        let passed = admitted(&decide(memory, &tiers, 1));
                        got.fetch_add(u64::from(passed), std::sync::atomic::Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(got.into_inner(), limit);
    }
}

/// `cargo test --release --lib decide_takes -- --ignored --nocapture`
#[test]
#[ignore = "a measurement, for an optimised build"]
fn decide_takes_less_than_a_microsecond() {
    const ROUNDS: u32 = 2_000_000;
    // A log that is full and buckets that never are.
    for limit in [200, u64::from(u32::MAX)] {
        let of_one = [tier(key(), 60, limit), tier(key(), 3600, limit)];
        let of_two = [tier(key(), 60, limit), tier(user(), 60, limit)];
        for tiers in [of_one, of_two] {
            let memory = Memory::new(Arc::new(SystemClock));
            let start = Instant::now();
            let got = (0..ROUNDS).filter(|_| admitted(&decide(&memory, &tiers, 1))).count();
            let each = start.elapsed() / ROUNDS;
            println!("limit {limit}: {each:?} each, {got} admitted");
            assert!(each < Duration::from_micros(1));
        }
    }
}
