use chrono::TimeZone;
use proptest::prelude::*;

use super::*;
use crate::domain::{
    id::UserId,
    limit::{Subject, Window},
};

fn tiers(limit: u64) -> Vec<Tier> {
    let subject = Subject::User(UserId::from(uuid::Uuid::from_u128(7)));
    vec![Tier::new(subject, Window::MINUTE, limit)]
}

fn state(remaining: u64, reset_in_ms: u64) -> TierState {
    let window = Window::MINUTE;
    TierState { tier: "user", name: None, window, limit: 1000, remaining, reset_in_ms }
}

fn answer(decision: Decision, permits: u64, life_us: u64) -> Answer {
    let wall = Utc.with_ymd_and_hms(2026, 1, 31, 12, 0, 0).unwrap();
    Answer { decision, permits, life_us, taken: Taken { at_us: 77, wall }, full: None }
}

fn admitted(remaining: u64, permits: u64, life_us: u64) -> Answer {
    answer(Decision::Admitted(Some(state(remaining, 5000))), permits, life_us)
}

fn refused(reset_in_ms: u64) -> Answer {
    let state = state(0, reset_in_ms);
    let full = Some((state.clone(), reset_in_ms * 1000));
    Answer { full, ..answer(Decision::Refused(state), 0, 0) }
}

fn hot(limit: u64) -> Entry {
    let mut entry = Entry::new(&tiers(limit), None);
    for _ in 0..HOT {
        entry.count(1_000_000);
    }
    entry
}

proptest! {
    /// Every permit is used once and in time, or given back once.
    #[test]
    fn permits_are_used_or_given_back(
        leases in proptest::collection::vec(
            (0u64..40, 0u64..100_000, 0u64..60_000, proptest::collection::vec((0u64..20_000, 0u64..4), 0..40)),
            1..30,
        ),
    ) {
        let mut entry = hot(1000);
        let mut now = 1_000_000;
        for (permits, life, latency, requests) in leases {
            entry.wish(0);
            let sent = now;
            now += latency;
            entry.learn(now, sent, 1, &admitted(900, permits, life));
            let (mut used, mut last) = (0, 900);
            for (gap, cost) in requests {
                now += gap;
                let Some((decision, source)) = entry.take(now, cost) else {
                    prop_assert!(now >= sent + life || used + cost.max(1) > permits);
                    continue;
                };
                used += cost;
                prop_assert_eq!(source, Source::Lease);
                prop_assert!(now < sent + life && used <= permits);
                let Decision::Admitted(Some(state)) = decision else { panic!("a permit") };
                prop_assert_eq!(state.remaining, last - cost, "as if every request had asked");
                prop_assert!(state.reset_in_ms >= (5_000_000 - (now - sent)) / 1000);
                last = state.remaining;
            }
            let wish = entry.wish(0);
            let unused = wish.unused.as_ref().map_or(0, |unused| unused.permits);
            prop_assert_eq!(used + unused, permits);
            prop_assert!(entry.take(now, 1).is_none() && entry.wish(0).unused.is_none());
            prop_assert!(entry.give_back(now).unused.is_none());
        }
    }

    /// At most the double of the last time, and no more than was seen.
    #[test]
    fn what_is_expected_grows_slowly(spans in proptest::collection::vec(0u64..2000, 1..20)) {
        let mut entry = Entry::new(&tiers(100_000), None);
        let (mut now, mut last) = (SPAN_US, HOT);
        for requests in spans {
            now += SPAN_US;
            for _ in 0..requests {
                entry.count(now);
            }
            let expected = entry.wish(0).expected;
            prop_assert!(expected <= MOST.min(2 * last));
            prop_assert!(expected <= entry.demand.expected());
            last = expected.max(HOT);
        }
    }
}

#[test]
fn only_the_hot_are_leased_to_and_only_where_no_instant_is_kept() {
    assert!(hot(1000).wants_lease());
    assert!(!hot(EXACT_UP_TO).wants_lease());
    let mut entry = Entry::new(&tiers(1000), None);
    // Sixty requests a second, evenly.
    for n in 0..600 {
        entry.count(1_000_000 + n * 16_667);
        assert!(!entry.wants_lease());
    }
    let mut entry = hot(1000);
    entry.count(3_000_000);
    assert!(!entry.wants_lease(), "it was hot once");
}

#[test]
fn what_is_left_under_an_old_limit_is_given_back_under_the_new() {
    let mut old = hot(1000);
    old.learn(1_000_000, 1_000_000, 1, &admitted(900, 9, 20_000));
    assert!(old.take(1_000_000, 2).is_some());
    let [minute] = &tiers(500)[..] else { unreachable!("one") };
    let hour = Tier { window: Window::HOUR, ..minute.clone() };
    let mut new = Entry::new(&[minute.clone(), hour.clone()], Some(old));
    assert!(new.take(1_000_000, 1).is_none());
    let unused = new.give_back(1_000_000).unused.expect("seven");
    assert_eq!((unused.of(minute), unused.of(&hour)), (7, 0));
    assert!(new.give_back(1_000_000).unused.is_none());
}

#[test]
fn those_who_wait_were_expected() {
    let mut entry = hot(1000);
    for (waiting, more) in [(0, HOT), (HOT - 1, 1), (50, 0), (MOST + 9, 0)] {
        let wish = entry.wish(waiting);
        assert_eq!((wish.waiting, wish.expected), (waiting.min(MOST), more));
    }
}

#[test]
fn a_refusal_is_repeated_until_there_may_be_room() {
    let (sent, now) = (2_000_000, 2_003_000);
    let mut cold = Entry::new(&tiers(1000), None);
    cold.learn(now, sent, 1, &refused(60));
    assert!(cold.take(now, 1).is_none());

    let mut entry = hot(1000);
    entry.learn(now, sent, 2, &refused(60));
    assert!(entry.take(now, 1).is_none(), "there may be room for one");
    let told = |entry: &mut Entry, at| match entry.take(at, 3) {
        Some((Decision::Refused(state), Source::Refusal)) => Some(state.reset_in_ms),
        None => None,
        other => panic!("{other:?}"),
    };
    assert_eq!(told(&mut entry, now), Some(60));
    assert_eq!(told(&mut entry, now + 10_500), Some(50));
    assert_eq!(told(&mut entry, sent + 59_999), Some(4));
    assert_eq!(told(&mut entry, sent + 60_000), None);
    entry.learn(now, sent, 2, &refused(30_000));
    assert_eq!(told(&mut entry, sent + LONGEST_REFUSAL_US), None);
    // Once its last permit is used, a limit is known to be full.
    let last = Answer { full: Some((state(0, 40), 40_000)), ..admitted(1, 1, 20_000) };
    entry.learn(now, sent, 1, &last);
    assert!(matches!(entry.take(now, 1), Some((Decision::Admitted(_), Source::Lease))));
    assert!(matches!(entry.take(now, 1), Some((Decision::Refused(_), Source::Refusal))));
    // Not while there are some to give back.
    let last = Answer { full: Some((state(0, 40), 40_000)), ..admitted(1, 1, 5000) };
    entry.learn(now, sent, 1, &last);
    assert!(entry.take(sent + 5000, 1).is_none());
    assert!(entry.wish(0).unused.is_some());
    assert!(entry.take(sent + 5000, 1).is_none());
}
