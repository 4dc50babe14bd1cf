//! Money over a network to Postgres that loses answers, and a Postgres that
//! gives up transactions. On SQLite there is nothing to lose.

use std::sync::Arc;
use tollgate::domain::audit::SYSTEM;

use sqlx::postgres::PgConnectOptions;
use tollgate::{
    domain::{
        id::{PassId, UserId},
        idempotency::IdempotencyKey,
        money::Amount,
        voucher::Gift,
    },
    services::{
        Services, StoreError,
        passes::{OwnedPass, PassError},
        vouchers::{Redeemed, VoucherError},
        wallet::WalletError,
    },
};

use crate::{
    money_races::{PRICE, Rig, day, rounds, settings, some_key, somewhere},
    support::{
        Options, TestApp, TestDatabase,
        books::Books,
        fault::{Faults, Proxy, Way},
    },
};

/// Of each kind of fault, in CI.
const TRIALS: usize = 50;

/// A database, the network to it, and one instance beyond; `None` on SQLite.
async fn behind_a_proxy() -> Option<(TestDatabase, Proxy, Rig)> {
    let database = TestDatabase::fresh().await;
    let TestDatabase::Postgres { server, name } = &database else { return None };
    let options: PgConnectOptions = server.parse().unwrap();
    let address = format!("{}:{}", options.get_host(), options.get_port());
    let proxy = Proxy::start(address.clone()).await;
    let server = server.replace(&address, &proxy.address().to_string());
    assert!(server.contains(&proxy.address().to_string()), "TEST_DATABASE_URL needs a port");
    let proxied = Arc::new(TestDatabase::Postgres { server, name: name.clone() });
    // `database` drops it. This one would wait for the proxy, which cannot run
    // while somebody waits.
    std::mem::forget(proxied.clone());
    let settings = settings("unused").map(|(name, value)| (name, value.to_owned())).to_vec();
    let options = Options { database: Some(proxied), settings, ..Options::default() };
    let app = TestApp::with(options).await;
    Some((database, proxy, Rig::of(vec![app])))
}

/// One thing that moves money or gives a pass.
#[derive(Clone, Debug)]
enum Deed {
    Purchase,
    Refund(PassId),
    Credit,
    Redeem(String),
}

/// What was answered, or that nobody knows what came of it.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Done(String),
    Unknown,
}

/// Somebody with something to do, and what they have before it and after.
struct Trial {
    user: UserId,
    deed: Deed,
    before: (i64, (usize, usize)),
    after: (i64, (usize, usize)),
}

impl Trial {
    async fn prepare(rig: &Rig, number: usize) -> Self {
        let user = rig.user(2 * PRICE).await;
        let whole = 2 * PRICE;
        let (deed, before, after) = match number % 5 {
            0 => (Deed::Purchase, (whole, (0, 1)), (PRICE, (1, 2))),
            1 => {
                let (bought, _) = rig.pass(user).await;
                (Deed::Refund(bought.pass.id), (PRICE, (1, 2)), (whole, (1, 3)))
            }
            2 => (Deed::Credit, (whole, (0, 1)), (whole + 500, (0, 2))),
            3 => {
                let code = rig.voucher(Gift::Balance(300), 3, 3).await;
                (Deed::Redeem(code), (whole, (0, 1)), (whole + 300, (0, 2)))
            }
            _ => {
                let gift = Gift::Pass { duration_hours: 24, upstream: None };
                let code = rig.voucher(gift, 3, 3).await;
                (Deed::Redeem(code), (whole, (0, 1)), (whole, (1, 1)))
            }
        };
        Self { user, deed, before, after }
    }

    async fn run(&self, services: Services, key: Option<IdempotencyKey>) -> Outcome {
        let user = self.user;
        let unavailable = |error: &StoreError| matches!(error, StoreError::Unavailable(_));
        match &self.deed {
            Deed::Purchase => pass(services.passes.purchase(&SYSTEM, user, day(), key).await),
            Deed::Refund(id) => pass(services.passes.refund(&SYSTEM, user, *id, key).await),
            Deed::Credit => {
                let amount = Amount::new(500).unwrap();
                let credit = services.wallet.credit(&SYSTEM, user, amount, "thanks".into(), key);
                match credit.await {
                    Ok(booked) => Outcome::Done(format!("{booked:?}")),
                    Err(WalletError::Store(error)) if unavailable(&error) => Outcome::Unknown,
                    Err(other) => panic!("{other:?}"),
                }
            }
            Deed::Redeem(code) => {
                match services.vouchers.redeem(&SYSTEM, user, somewhere(), code, key).await {
                    Ok(Redeemed::Balance(booked)) => Outcome::Done(format!("{booked:?}")),
                    Ok(Redeemed::Pass(given)) => pass(Ok(given)),
                    Err(VoucherError::Store(error)) if unavailable(&error) => Outcome::Unknown,
                    Err(other) => panic!("{other:?}"),
                }
            }
        }
    }

    async fn state(&self, rig: &Rig) -> (i64, (usize, usize)) {
        (rig.balance(self.user).await, rig.counts(self.user).await)
    }
}

fn pass(answer: Result<OwnedPass, PassError>) -> Outcome {
    match answer {
        Ok(owned) => Outcome::Done(format!("{:?} {}", owned.pass, owned.token.unwrap().expose())),
        Err(PassError::Store(StoreError::Unavailable(_))) => Outcome::Unknown,
        Err(other) => panic!("{other:?}"),
    }
}

/// Nobody learns of it but us: whoever asked is told that it was done, and it
/// was done once (G-24).
#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_told_as_done_and_done_once() {
    let Some((_database, proxy, rig)) = behind_a_proxy().await else { return };
    for number in 0..rounds(TRIALS) {
        let trial = Trial::prepare(&rig, number).await;
        let key = (number / 5 % 2 == 0).then(some_key);
        let cuts = proxy.fired().cuts;
        proxy.set(Faults { cut_after: Some(b"COMMIT"), ..Faults::default() });
        let outcome = trial.run(rig.services(), key.clone()).await;
        proxy.set(Faults::default());
        assert!(proxy.fired().cuts > cuts, "nothing was lost");
        assert!(matches!(outcome, Outcome::Done(_)), "{number}: {:?}", trial.deed);
        assert_eq!(trial.state(&rig).await, trial.after, "{number}: {:?}", trial.deed);
        if key.is_some() {
            assert_eq!(trial.run(rig.services(), key).await, outcome);
            assert_eq!(trial.state(&rig).await, trial.after);
        }
    }
    rig.books().await.check().await;
}

/// Wherever the connection breaks, it is done once or not at all; who is told
/// that it was done can rely on it, and who asks again with the same key gets
/// it (G-24).
#[tokio::test]
async fn a_connection_that_breaks_anywhere_leaves_all_or_nothing() {
    let Some((_database, proxy, rig)) = behind_a_proxy().await else { return };
    let (mut unknown, mut harmed) = (0, 0);
    for number in 0..rounds(2 * TRIALS) {
        let trial = Trial::prepare(&rig, number).await;
        let key = some_key();
        let resets = proxy.fired().resets;
        let broken = Way { reset: [0.05, 0.3][number / 5 % 2], ..Way::default() };
        proxy.set(match number / 10 % 2 {
            0 => Faults { to_server: broken, ..Faults::default() },
            _ => Faults { to_client: broken, ..Faults::default() },
        });
        let outcome = trial.run(rig.services(), Some(key.clone())).await;
        proxy.set(Faults::default());
        harmed += usize::from(proxy.fired().resets > resets);
        // Connections that broke while nobody used them are not noticed before
        // they are, and what was under way may not have ended yet.
        let again = trial.run(rig.services(), Some(key.clone())).await;
        let again = match again {
            Outcome::Unknown => trial.run(rig.services(), Some(key)).await,
            done @ Outcome::Done(_) => done,
        };
        match outcome {
            Outcome::Done(_) => assert_eq!(again, outcome),
            Outcome::Unknown => {
                unknown += 1;
                assert!(matches!(again, Outcome::Done(_)), "{number}: {:?}", trial.deed);
            }
        }
        assert_eq!(trial.state(&rig).await, trial.after, "{number}: {:?}", trial.deed);
    }
    println!("{harmed} were harmed, {unknown} of them not told what came of it");
    assert!(harmed > unknown && unknown > 0);
    rig.books().await.check().await;
}

/// Gives up as many transactions as it is told to.
const GIVE_UP: &str = "
    CREATE SEQUENCE given_up MINVALUE 0;
    CREATE FUNCTION give_up() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE number bigint := nextval('given_up');
    BEGIN
        IF number <= 1000 THEN
            RAISE EXCEPTION 'given up' USING ERRCODE =
                CASE number % 2 WHEN 0 THEN '40001' ELSE '40P01' END;
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER give_up BEFORE INSERT ON idempotency_keys
        FOR EACH ROW EXECUTE FUNCTION give_up();";
/// The same when it is committed.
const GIVE_UP_LATE: &str = "
    DROP TRIGGER give_up ON idempotency_keys;
    CREATE CONSTRAINT TRIGGER give_up AFTER INSERT ON idempotency_keys
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION give_up();";

/// Three times in a row are borne; a fourth is told, and nothing was done (G-25).
#[tokio::test]
async fn a_transaction_that_postgres_gives_up_is_tried_again() {
    let rig = Rig::start("unused").await;
    let mut books = rig.books().await;
    if let Books::Sqlite(_) = books {
        return;
    }
    for sql in [GIVE_UP, GIVE_UP_LATE] {
        books.run(sql).await.unwrap();
        for number in 0..10 {
            for times in [1, 3, 4] {
                books.number("SELECT setval('given_up', 1000)").await;
                let trial = Trial::prepare(&rig, number).await;
                books.number(&format!("SELECT setval('given_up', {})", 1000 - times)).await;
                let key = (number % 2 == 0).then(some_key);
                let outcome = trial.run(rig.services(), key.clone()).await;
                let state = trial.state(&rig).await;
                if times < 4 {
                    assert!(matches!(outcome, Outcome::Done(_)), "{:?}", trial.deed);
                    assert_eq!(state, trial.after, "{:?}", trial.deed);
                } else {
                    assert_eq!(outcome, Outcome::Unknown, "{:?}", trial.deed);
                    assert_eq!(state, trial.before, "{:?}", trial.deed);
                    let again = trial.run(rig.services(), key).await;
                    assert!(matches!(again, Outcome::Done(_)), "{:?}", trial.deed);
                    assert_eq!(trial.state(&rig).await, trial.after);
                }
            }
        }
    }
    books.check().await;
}

/// One insert in ten is given up.
const GIVE_UP_SOME: &str = "
    CREATE FUNCTION give_up() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF random() < 0.1 THEN
            RAISE EXCEPTION 'given up' USING ERRCODE = '40001';
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER give_up BEFORE INSERT ON ledger_transactions
        FOR EACH ROW EXECUTE FUNCTION give_up();";

/// 50 at once on one wallet (G-25).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nearly_all_on_a_hot_wallet_get_through() {
    const AT_ONCE: usize = 50;
    const ROUNDS: usize = 6;
    let rig = Rig::start("unused").await;
    let mut books = rig.books().await;
    if let Books::Sqlite(_) = books {
        return;
    }
    let all = AT_ONCE * ROUNDS;
    let user = rig.user(PRICE * i64::try_from(all).unwrap()).await;
    books.run(GIVE_UP_SOME).await.unwrap();
    let mut sold = 0;
    for _ in 0..ROUNDS {
        let answers = rig
            .race(AT_ONCE, |_, services| async move {
                pass(services.passes.purchase(&SYSTEM, user, day(), None).await)
            })
            .await;
        sold += answers.iter().filter(|answer| matches!(answer, Outcome::Done(_))).count();
    }
    assert!(sold * 100 >= all * 99, "{sold} of {all}");
    assert_eq!(rig.balance(user).await, PRICE * i64::try_from(all - sold).unwrap());
    books.check().await;
}
