//! Passes that begin and end at once.

use std::time::Duration;
use tollgate::domain::audit::SYSTEM;

use tollgate::{
    domain::pass::{NotRefundable, Pass, Status},
    services::passes::{Holder, PassError},
};

use super::{CALLERS, CROWD, PRICE, ROUNDS, Rig, rounds, seen, some_key};

/// Every caller is told the same instant (G-71).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pass_begins_once() {
    let rig = Rig::start("unused").await;
    let user = rig.user(PRICE * i64::try_from(rounds(ROUNDS)).unwrap()).await;
    for round in 0..rounds(ROUNDS) {
        let (bought, hash) = rig.pass(user).await;
        let id = bought.pass.id;
        let callers = if round == 0 { CROWD } else { CALLERS };
        let answers = rig
            .race(callers, |_, services| async move {
                services.passes.activate(&hash, id).await.unwrap().expect("nobody ended it")
            })
            .await;
        let began = answers[0].activated_at.unwrap();
        for pass in &answers {
            assert_eq!(pass, &answers[0]);
        }
        let expected = Pass { activated_at: Some(began), version: 2, ..bought.pass };
        assert_eq!(answers[0], expected);
        assert!(began >= expected.created_at);
    }
    rig.books().await.check().await;
}

/// The money comes back once, whether the callers share a key or not (G-72).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refunds_at_once_are_one_refund() {
    let rig = Rig::start("unused").await;
    for round in 0..rounds(ROUNDS) {
        let user = rig.user(2 * PRICE).await;
        let (bought, _) = rig.pass(user).await;
        let id = bought.pass.id;
        let shared = (round % 2 == 0).then(some_key);
        let answers = rig
            .race(CALLERS, |number, services| {
                let key = shared.clone().or_else(|| (number % 2 == 0).then(some_key));
                async move { seen(services.passes.refund(&SYSTEM, user, id, key).await) }
            })
            .await;
        let good: Vec<_> = answers.iter().flatten().collect();
        if shared.is_some() {
            assert_eq!(good.len(), CALLERS, "{answers:#?}");
            assert!(good.iter().all(|answer| *answer == good[0]), "{answers:#?}");
        } else {
            assert_eq!(good.len(), 1, "{answers:#?}");
            for answer in answers.iter().filter_map(|answer| answer.as_ref().err()) {
                let late = PassError::NotRefundable(NotRefundable::Refunded);
                assert_eq!(answer.to_string(), late.to_string());
            }
        }
        assert_eq!(rig.balance(user).await, 2 * PRICE);
        assert_eq!(rig.counts(user).await, (1, 3));
    }
    rig.books().await.check().await;
}

/// Whatever comes first, nobody uses a pass that was given back in full (G-72).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pass_is_used_or_given_back_in_full() {
    let (mut in_use, mut untouched) = (0, 0);
    for policy in ["unused", "pro_rata"] {
        let rig = Rig::start(policy).await;
        for round in 0..rounds(ROUNDS).div_ceil(2) {
            let user = rig.user(PRICE).await;
            let (bought, hash) = rig.pass(user).await;
            let id = bought.pass.id;
            let answers = rig
                .race(CALLERS, |number, services| async move {
                    // A refund has more to do before it gets to the pass: let it
                    // come first now and then.
                    let late = Duration::from_micros(rand::random_range(0..6000));
                    if number % 3 == 0 {
                        let refunded = services.passes.refund(&SYSTEM, user, id, None).await;
                        Err(refunded.map(|owned| owned.pass))
                    } else {
                        if round % 2 == 0 {
                            tokio::time::sleep(late).await;
                        }
                        Ok(services.passes.activate(&hash, id).await.unwrap())
                    }
                })
                .await;
            let began = answers.iter().any(|answer| matches!(answer, Ok(Some(_))));
            let refunds: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
            let back: Vec<i64> =
                refunds.iter().flatten().filter_map(|pass| pass.refunded_minor).collect();
            let expected = match (began, policy) {
                // All refunds were late.
                (true, "unused") => vec![],
                (true, _) => vec![PRICE / 24 * 23],
                (false, _) => vec![PRICE],
            };
            assert_eq!(back, expected, "{policy}, begun: {began}: {refunds:?}");
            let late = if began && policy == "unused" {
                NotRefundable::InUse
            } else {
                NotRefundable::Refunded
            };
            for refused in refunds.into_iter().filter_map(Result::err) {
                assert_eq!(refused.to_string(), PassError::NotRefundable(late).to_string());
            }
            assert_eq!(rig.balance(user).await, back.iter().sum::<i64>());
            // Nobody opens anything with what was given back, also not later.
            let later = rig.services().passes.activate(&hash, id).await.unwrap();
            assert_eq!(later.is_some(), back.is_empty());
            *(if began { &mut in_use } else { &mut untouched }) += 1;
        }
        rig.books().await.check().await;
    }
    println!("{in_use} were used first, {untouched} given back first");
    assert!(in_use > 0 && untouched > 0, "both must have won: {in_use}, {untouched}");
}

/// What was revoked gives nothing back, what was given back counts as that
/// (G-72).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pass_is_revoked_or_refunded() {
    let rig = Rig::start("pro_rata").await;
    let (mut revoked, mut refunded) = (0, 0);
    for round in 0..rounds(ROUNDS) {
        let user = rig.user(PRICE).await;
        let (bought, hash) = rig.pass(user).await;
        let id = bought.pass.id;
        let full = if round % 2 == 0 {
            PRICE
        } else {
            rig.services().passes.activate(&hash, id).await.unwrap().unwrap();
            PRICE / 24 * 23
        };
        let answers = rig
            .race(CALLERS, |number, services| async move {
                match number % 3 {
                    0 => services.passes.refund(&SYSTEM, user, id, None).await,
                    1 => services.passes.revoke(&SYSTEM, Holder::User(user), id).await,
                    _ => services.passes.revoke(&SYSTEM, Holder::Anyone, id).await,
                }
                .map(|owned| owned.pass)
            })
            .await;
        let status = |pass: &Pass| pass.status(pass.created_at);
        let (mut given_back, mut now) = (0, None);
        for (number, answer) in answers.into_iter().enumerate() {
            match answer {
                Ok(pass) => {
                    given_back += usize::from(number % 3 == 0);
                    let end = *now.get_or_insert(status(&pass));
                    assert_eq!(status(&pass), end, "they disagree");
                }
                Err(PassError::NotRefundable(_)) => assert_eq!(number % 3, 0),
                Err(other) => panic!("{other:?}"),
            }
        }
        let expected = match now.unwrap() {
            Status::Refunded => (1, full),
            Status::Revoked => (0, 0),
            other => panic!("{other:?}"),
        };
        assert_eq!((given_back, rig.balance(user).await), expected);
        *(if expected.0 == 1 { &mut refunded } else { &mut revoked }) += 1;
    }
    rig.books().await.check().await;
    println!("{revoked} were revoked first, {refunded} refunded first");
    assert!(revoked > 0 && refunded > 0, "both must have won: {revoked}, {refunded}");
}
