//! Wallets and vouchers that many change at once.

use tollgate::domain::audit::{Actor, Origin, SYSTEM};
use tollgate::{
    domain::{id::UserId, money::Amount, voucher::Gift},
    services::{
        passes::PassError,
        vouchers::{Redeemed, VoucherError},
        wallet::WalletError,
    },
};

use super::{CALLERS, PRICE, ROUNDS, Rig, day, rounds, some_key, somewhere};

/// One admin's word, said once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credits_with_one_key_are_one_credit() {
    let rig = Rig::start("unused").await;
    let admin = rig.user(0).await;
    for round in 0..rounds(ROUNDS) {
        let user = rig.user(0).await;
        let key = some_key();
        // Every other round somebody misuses the key for another amount.
        let amount =
            |number: usize| if round % 2 == 1 && number.is_multiple_of(3) { 7 } else { 500 };
        let answers = rig
            .race(CALLERS, |number, services| {
                let (key, minor) = (key.clone(), amount(number));
                let amount = Amount::new(minor).unwrap();
                async move {
                    let reason = "thanks".to_owned();
                    let by = Actor::user(admin, "admin", Origin::default());
                    let credit = services.wallet.credit(&by, user, amount, reason, Some(key));
                    (minor, credit.await)
                }
            })
            .await;
        let first = answers.iter().find_map(|(_, answer)| answer.as_ref().ok()).unwrap();
        for (minor, answer) in &answers {
            match answer {
                Ok(booked) => assert_eq!((booked, booked.amount_minor), (first, *minor)),
                Err(WalletError::KeyReused(_)) => assert_ne!(*minor, first.amount_minor),
                Err(other) => panic!("{other:?}"),
            }
        }
        assert_eq!(rig.balance(user).await, first.amount_minor);
        assert_eq!(rig.counts(user).await, (0, 1));
    }
    rig.books().await.check().await;
}

/// A code that may be used so often by so many is used exactly so often.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voucher_is_used_as_often_as_it_may() {
    let rig = Rig::start("unused").await;
    for round in 0..rounds(ROUNDS) {
        let money = round % 2 == 0;
        let gift = if money {
            Gift::Balance(300)
        } else {
            Gift::Pass { duration_hours: 24, upstream: None }
        };
        // Uses in all, by one user, and how many users want it, several times
        // each: fewer than the wrong codes that one may try a minute.
        let (most, per_user, people) = [(1, 1, 9), (9, 1, 3), (4, 1, 9), (5, 2, 3)][round / 2 % 4];
        let code = rig.voucher(gift, most, per_user).await;
        let mut holders: Vec<UserId> = vec![];
        for _ in 0..people {
            holders.push(rig.user(0).await);
        }
        let answers = rig
            .race(CALLERS, |number, services| {
                let (code, user) = (code.clone(), holders[number % people]);
                let key = (number % 2 == 0).then(some_key);
                async move { services.vouchers.redeem(&SYSTEM, user, somewhere(), &code, key).await }
            })
            .await;
        let mut good = 0;
        for answer in answers {
            match answer {
                Ok(Redeemed::Balance(booked)) => {
                    assert!(money);
                    assert_eq!(booked.amount_minor, 300);
                    good += 1;
                }
                Ok(Redeemed::Pass(given)) => {
                    assert!(!money && given.token.is_some());
                    good += 1;
                }
                Err(VoucherError::UsedUp | VoucherError::Redeemed) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
        let wanted = usize::try_from(most).unwrap();
        let may = wanted.min(people * usize::try_from(per_user).unwrap());
        assert_eq!(good, may, "round {round}");
        let (mut passes, mut booked) = (0, 0);
        for user in holders {
            let counts = rig.counts(user).await;
            passes += counts.0;
            booked += counts.1;
        }
        assert_eq!((passes, booked), if money { (0, may) } else { (may, 0) });
    }
    rig.books().await.check().await;
}

/// One request that is sent again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redeeming_with_one_key_is_one_use() {
    let rig = Rig::start("unused").await;
    for round in 0..rounds(ROUNDS) {
        let gift = if round % 2 == 0 {
            Gift::Balance(300)
        } else {
            Gift::Pass { duration_hours: 24, upstream: None }
        };
        let code = rig.voucher(gift, 5, 5).await;
        let user = rig.user(0).await;
        let key = some_key();
        // As many as one may have under way.
        let answers = rig
            .race(5, |_, services| {
                let (code, key) = (code.clone(), key.clone());
                async move {
                    match services
                        .vouchers
                        .redeem(&SYSTEM, user, somewhere(), &code, Some(key))
                        .await
                    {
                        Ok(Redeemed::Balance(booked)) => format!("{booked:?}"),
                        Ok(Redeemed::Pass(given)) => {
                            format!("{:?} {}", given.pass, given.token.unwrap().expose())
                        }
                        Err(other) => panic!("{other:?}"),
                    }
                }
            })
            .await;
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
        let (passes, booked) = rig.counts(user).await;
        assert_eq!(passes + booked, 1);
    }
    rig.books().await.check().await;
}

/// Everything that moves money, on one wallet: what it holds is what came of
/// those that were told it worked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wallet_holds_what_came_of_all() {
    let rig = Rig::start("unused").await;
    let user = rig.user(PRICE).await;
    let mut expected = PRICE;
    for round in 0..rounds(ROUNDS) {
        let code = rig.voucher(Gift::Balance(PRICE / 3), 1, 1).await;
        let spare = match rig.services().passes.purchase(&SYSTEM, user, day(), None).await {
            Ok(bought) => {
                expected -= PRICE;
                Some(bought.pass.id)
            }
            Err(PassError::BalanceTooLow { balance_minor, missing_minor }) => {
                assert_eq!((balance_minor, balance_minor + missing_minor), (expected, PRICE));
                None
            }
            Err(other) => panic!("{other:?}"),
        };
        let answers = rig
            .race(CALLERS, |number, services| {
                let code = code.clone();
                async move {
                    match number % 4 {
                        0 => match services.passes.purchase(&SYSTEM, user, day(), None).await {
                            Ok(_) => -PRICE,
                            Err(PassError::BalanceTooLow { .. }) => 0,
                            Err(other) => panic!("{other:?}"),
                        },
                        1 => {
                            let amount = Amount::new(PRICE / 2).unwrap();
                            let reason = "thanks".to_owned();
                            let credit =
                                services.wallet.credit(&SYSTEM, user, amount, reason, None);
                            credit.await.unwrap().amount_minor
                        }
                        2 => match spare {
                            Some(id) => match services.passes.refund(&SYSTEM, user, id, None).await
                            {
                                Ok(_) => PRICE,
                                Err(PassError::NotRefundable(_)) => 0,
                                Err(other) => panic!("{other:?}"),
                            },
                            None => 0,
                        },
                        _ => match services
                            .vouchers
                            .redeem(&SYSTEM, user, somewhere(), &code, None)
                            .await
                        {
                            Ok(_) => PRICE / 3,
                            Err(VoucherError::UsedUp) => 0,
                            Err(other) => panic!("{other:?}"),
                        },
                    }
                }
            })
            .await;
        expected += answers.iter().sum::<i64>();
        assert_eq!(rig.balance(user).await, expected, "round {round}");
    }
    rig.books().await.check().await;
}
