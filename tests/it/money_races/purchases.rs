//! Many who buy at once.

use tollgate::domain::audit::SYSTEM;
use tollgate::services::passes::{Order, PassError};

use super::{CALLERS, CROWD, PRICE, ROUNDS, Rig, day, rounds, seen, some_key};

fn callers(round: usize) -> usize {
    if round == 0 { CROWD } else { CALLERS }
}

/// A double click (G-68).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purchases_with_one_key_are_one_purchase() {
    let rig = Rig::start("unused").await;
    for round in 0..rounds(ROUNDS) {
        let user = rig.user(3 * PRICE).await;
        let key = some_key();
        let answers = rig
            .race(callers(round), |_, services| {
                let key = key.clone();
                async move { seen(services.passes.purchase(&SYSTEM, user, day(), Some(key)).await) }
            })
            .await;
        let first = answers[0].as_ref().unwrap();
        assert!(answers.iter().all(|answer| answer.as_ref().unwrap() == first), "{answers:#?}");
        assert_eq!(rig.balance(user).await, 2 * PRICE);
        // The credit and the purchase.
        assert_eq!(rig.counts(user).await, (1, 2));
    }
    rig.books().await.check().await;
}

/// As many as the balance pays for, and not one more (G-69).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_balance_buys_what_it_pays_for() {
    let rig = Rig::start("unused").await;
    for round in 0..rounds(ROUNDS) {
        let affordable = if round == 0 { 7 } else { 1 + round % (CALLERS - 1) };
        let paid = PRICE * i64::try_from(affordable).unwrap();
        // What is left over buys nothing.
        let rest = i64::try_from(round % 2).unwrap();
        let user = rig.user(paid + rest).await;
        let answers = rig
            .race(callers(round), |number, services| async move {
                // With and without keys of their own.
                let key = (number % 2 == 0).then(some_key);
                services.passes.purchase(&SYSTEM, user, day(), key).await
            })
            .await;
        let (sold, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
        assert_eq!(sold.len(), affordable, "round {round}: {refused:?}");
        for answer in refused {
            let Err(PassError::BalanceTooLow { missing_minor, .. }) = answer else {
                panic!("{answer:?}");
            };
            assert!((1..=PRICE).contains(&missing_minor), "{missing_minor}");
        }
        assert_eq!(rig.balance(user).await, rest);
        assert_eq!(rig.counts(user).await, (affordable, affordable + 1));
    }
    rig.books().await.check().await;
}

/// One of the two requests has the key, the other is told (G-70).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_belongs_to_the_request_that_came_first() {
    let rig = Rig::start("unused").await;
    for _ in 0..rounds(ROUNDS) {
        let user = rig.user(9 * PRICE).await;
        let key = some_key();
        let answers = rig
            .race(CALLERS, |number, services| {
                let key = key.clone();
                let duration_hours = [24, 168, 1][number % 3];
                let order = Order { duration_hours, upstream: None };
                async move {
                    (
                        duration_hours,
                        seen(services.passes.purchase(&SYSTEM, user, order, Some(key)).await),
                    )
                }
            })
            .await;
        let (won, first) = answers
            .iter()
            .find_map(|(hours, answer)| Some((*hours, answer.as_ref().ok()?)))
            .expect("somebody was first");
        for (hours, answer) in &answers {
            match answer {
                Ok(pass) => assert_eq!((*hours, pass), (won, first)),
                Err(PassError::KeyReused(_)) => assert_ne!(*hours, won),
                Err(other) => panic!("{other:?}"),
            }
        }
        let free = usize::from(won == 1);
        assert_eq!(rig.counts(user).await, (1, 2 - free));
    }
    rig.books().await.check().await;
}
