use std::net::IpAddr;

use chrono::DateTime;

use super::*;
use crate::{
    cache::limiter::lease::Taken,
    domain::{
        id::UserId,
        limit::{TierState, Window},
    },
};

fn user() -> Subject {
    Subject::User(UserId::from(uuid::Uuid::from_u128(7)))
}

fn tiers(subject: Subject, limit: u64) -> [Tier; 1] {
    [Tier::new(subject, Window::MINUTE, limit)]
}

fn leased(permits: u64) -> Answer {
    let state = TierState {
        tier: "user",
        name: None,
        window: Window::MINUTE,
        limit: 1000,
        remaining: 900,
        reset_in_ms: 9,
    };
    Answer {
        decision: Decision::Admitted(Some(state)),
        permits,
        life_us: 10_000_000,
        taken: Taken { at_us: 0, wall: DateTime::UNIX_EPOCH },
        full: None,
    }
}

fn ask<'a>(leases: &'a Leases, tiers: &'a [Tier]) -> Ask<'a> {
    match leases.turn(tiers, 1, &mut Queue::default()) {
        Turn::Ask(ask) => ask,
        Turn::Decided(decision) => panic!("decided: {decision:?}"),
        Turn::Wait(_) => panic!("waits"),
    }
}

/// The one that asks for all, after a few that asked for themselves.
fn lead<'a>(leases: &'a Leases, tiers: &'a [Tier]) -> Ask<'a> {
    for _ in 0..20 {
        let ask = ask(leases, tiers);
        if ask.flight.is_some() {
            return ask;
        }
    }
    panic!("twenty at once are hot");
}

#[test]
fn what_anybody_can_make_up_is_bounded_and_swept() {
    let leases = Leases::new();
    for n in 0..100_000u32 {
        let made_up = tiers(Subject::Address(IpAddr::from(n.to_be_bytes())), 1000);
        ask(&leases, &made_up).settle(Some(&leased(0)));
    }
    assert!(leases.len() <= MOST_HELD * SHARDS);
    let late = tiers(Subject::Address(IpAddr::from([9, 9, 9, 9])), 1000);
    std::thread::sleep(Duration::from_millis(1100));
    drop(lead(&leases, &late));
    leases.sweep();
    assert_eq!(leases.len(), 1, "those in use stay");
    // Guesses are made up without end and are always counted exactly.
    let guesses = tiers(Subject::LoginAccount(1), 1000);
    for _ in 0..10 {
        drop(ask(&leases, &guesses));
    }
    assert_eq!(leases.len(), 1);
}

#[tokio::test]
async fn one_asks_and_the_rest_take_their_turn_after_it() {
    let leases = Leases::new();
    let tiers = tiers(user(), 1000);
    let leader = lead(&leases, &tiers);
    let mut queues: Vec<Queue> = (0..5).map(|_| Queue::default()).collect();
    let mut wait = |n: usize| leases.turn(&tiers, 1, &mut queues[n]);
    let flights: Vec<_> = (0..5)
        .map(|n| match wait(n) {
            Turn::Wait(flight) => flight,
            _ => panic!("one is asking"),
        })
        .collect();
    // It left before there was an answer: the next one asks, for all the rest.
    drop(leader);
    assert!(!flights[0].failed().await);
    let Turn::Ask(second) = wait(0) else { panic!("nobody is asking") };
    assert_eq!(second.wish.waiting, 4);
    second.settle(Some(&leased(3)));
    for n in 1..4 {
        assert!(matches!(wait(n), Turn::Decided(Decision::Admitted(_))), "{n}");
    }
    let Turn::Ask(third) = wait(4) else { panic!("the lease is used up") };
    let Turn::Wait(flight) = wait(0) else { panic!("one is asking") };
    third.settle(None);
    assert!(flight.failed().await, "nobody finds that out again");
    drop(queues);
    assert_eq!(lead(&leases, &tiers).wish.waiting, 0);
}

#[test]
fn a_lease_ends_with_its_limit_and_its_subject() {
    let leases = Leases::new();
    let (old, new) = (tiers(user(), 1000), tiers(user(), 2000));
    lead(&leases, &old).settle(Some(&leased(5)));
    assert!(leases.take(&old, 1).is_some());
    assert!(leases.take(&new, 1).is_none());
    drop(ask(&leases, &new));
    assert!(leases.take(&old, 1).is_none(), "not even if it is changed back");

    let asked = lead(&leases, &old);
    leases.end(|subject| *subject == user());
    asked.settle(Some(&leased(5)));
    assert!(leases.take(&old, 1).is_none(), "asked before the end");
    lead(&leases, &old).settle(Some(&leased(5)));
    leases.end(|subject| matches!(subject, Subject::Address(_)));
    assert!(leases.take(&old, 4).is_some());
    assert!(leases.take(&old, 2).is_none());
}
