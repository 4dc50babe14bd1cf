use tollgate::{
    domain::{
        id::{PassId, TransactionId, UserId, VoucherId},
        ledger::{Account, ChainHash, Kind, Movement, Transaction},
        money::MAX_BALANCE,
        page::{Cursor, PageRequest},
    },
    repositories::{Balance, Repositories, Tx},
};

use super::{Store, at, winners};
use crate::support::{TestDatabase, epoch};

pub fn credit(user: UserId, amount_minor: i64) -> Movement {
    Movement {
        id: TransactionId::new(epoch()),
        user_id: user,
        kind: Kind::Credit,
        amount_minor,
        counter: Account::Topup,
        pass_id: None,
        voucher_id: None,
        reverses_id: None,
        reason: Some("a reason, ünï".to_owned()),
        actor_id: None,
        at: epoch(),
    }
}

pub fn purchase(user: UserId, amount_minor: i64) -> Movement {
    Movement {
        kind: Kind::Purchase,
        amount_minor: -amount_minor,
        counter: Account::Revenue,
        pass_id: Some(PassId::new(epoch())),
        reason: None,
        ..credit(user, amount_minor)
    }
}

pub async fn book(tx: &mut Tx, movement: Movement) -> Transaction {
    tx.ledger().open_wallet(movement.user_id, epoch()).await.unwrap();
    let change = tx.ledger().change_balance(movement.user_id, movement.amount_minor).await;
    tx.ledger().book(movement, change.unwrap().unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_balance_stays_within_its_bounds() {
    let store = Store::fresh().await;
    let ada = UserId::new(epoch());
    let mut tx = store.begin().await;
    let mut ledger = tx.ledger();
    assert_eq!(ledger.balance(ada).await.unwrap(), None);
    assert_eq!(ledger.change_balance(ada, 5).await.unwrap(), None, "there is no wallet");
    ledger.open_wallet(ada, epoch()).await.unwrap();
    ledger.open_wallet(ada, at(9)).await.unwrap();
    assert_eq!(ledger.balance(ada).await.unwrap(), Some(0));
    for (change, expected) in [
        (-1, None),
        (5, Some((5, 1))),
        (-6, None),
        (-5, Some((0, 2))),
        (MAX_BALANCE + 1, None),
        (MAX_BALANCE, Some((MAX_BALANCE, 3))),
        (1, None),
    ] {
        let balance = ledger.change_balance(ada, change).await.unwrap();
        let expected = expected.map(|(minor, seq)| Balance { minor, seq });
        assert_eq!(balance, expected, "{change}");
    }
    assert_eq!(ledger.balance(ada).await.unwrap(), Some(MAX_BALANCE));
    // The house has accounts, not wallets.
    let house = UserId::from(Account::Revenue.id());
    assert_eq!(ledger.balance(house).await.unwrap(), None);
    assert_eq!(ledger.change_balance(house, 5).await.unwrap(), None);
}

#[tokio::test]
async fn what_is_booked_is_what_is_read_chained_to_what_was_before() {
    let store = Store::fresh().await;
    let (ada, grace) = (UserId::new(epoch()), UserId::new(epoch()));
    let mut tx = store.begin().await;
    assert!(!tx.ledger().any().await.unwrap());
    let first = book(&mut tx, credit(ada, 500)).await;
    let bought = purchase(ada, 300);
    let pass = bought.pass_id.unwrap();
    let second = book(&mut tx, bought).await;
    let refund = Movement {
        kind: Kind::Refund,
        reverses_id: Some(second.id),
        voucher_id: Some(VoucherId::new(epoch())),
        actor_id: Some(grace),
        pass_id: Some(pass),
        counter: Account::Revenue,
        at: at(1),
        ..credit(ada, 300)
    };
    let third = book(&mut tx, refund).await;
    let other = book(&mut tx, credit(grace, 1)).await;
    tx.commit().await.unwrap();

    assert_eq!(first.link(ChainHash::START), first.hash);
    assert_eq!(second.link(first.hash), second.hash);
    assert_eq!(third.link(second.hash), third.hash);
    let after = [&first, &second, &third].map(|booked| (booked.seq, booked.balance_after_minor));
    assert_eq!(after, [(1, 500), (2, 200), (3, 500)]);

    let mut session = store.db.session().await.unwrap();
    let mut ledger = session.ledger();
    assert!(ledger.any().await.unwrap());
    for booked in [&first, &second, &third] {
        assert_eq!(ledger.find(booked.id).await.unwrap().as_ref(), Some(booked));
    }
    assert_eq!(ledger.find(TransactionId::new(epoch())).await.unwrap(), None);
    assert_eq!(ledger.purchase_of(pass).await.unwrap().as_ref(), Some(&second));
    assert_eq!(ledger.purchase_of(PassId::new(epoch())).await.unwrap(), None);

    let all = ledger.list(ada, PageRequest::FIRST).await.unwrap();
    assert_eq!(all.items, [third.clone(), second.clone(), first.clone()]);
    let page = ledger.list(ada, PageRequest { limit: 2, after: None }).await.unwrap();
    assert_eq!((page.items.len(), page.next), (2, Some(Cursor(second.id.as_uuid()))));
    let rest = PageRequest { limit: 2, after: page.next };
    assert_eq!(ledger.list(ada, rest).await.unwrap().items, [first]);
    let foreign = PageRequest { limit: 2, after: Some(Cursor(other.id.as_uuid())) };
    assert_eq!(ledger.list(ada, foreign).await.unwrap().items, []);
}

#[tokio::test]
async fn a_pass_is_paid_once_and_given_back_once() {
    let store = Store::fresh().await;
    let ada = UserId::new(epoch());
    let mut tx = store.begin().await;
    book(&mut tx, credit(ada, 500)).await;
    let bought = book(&mut tx, purchase(ada, 100)).await;
    let back = Movement {
        kind: Kind::Refund,
        reverses_id: Some(bought.id),
        counter: Account::Revenue,
        ..credit(ada, 100)
    };
    book(&mut tx, back.clone()).await;
    tx.commit().await.unwrap();
    for (again, constraint) in [
        (
            Movement { pass_id: bought.pass_id, ..purchase(ada, 100) },
            "ledger_transactions_pass_id_key",
        ),
        (
            Movement { id: TransactionId::new(epoch()), ..back },
            "ledger_transactions_reverses_id_key",
        ),
    ] {
        let mut tx = store.begin().await;
        let balance = tx.ledger().change_balance(ada, again.amount_minor).await.unwrap().unwrap();
        let error = tx.ledger().book(again, balance).await.unwrap_err();
        assert!(error.violates(constraint), "{error:?}");
    }
}

/// RELIABILITY I4: not by a habit of ours but by the database.
#[tokio::test]
async fn the_database_itself_refuses_to_change_the_ledger() {
    let store = Store::fresh().await;
    let ada = UserId::new(epoch());
    let mut tx = store.begin().await;
    book(&mut tx, credit(ada, 500)).await;
    tx.commit().await.unwrap();
    let mut statements = vec![
        "UPDATE ledger_transactions SET reason = 'another'",
        "UPDATE ledger_transactions SET amount_minor = amount_minor",
        "DELETE FROM ledger_transactions",
        "UPDATE ledger_entries SET amount_minor = 1",
        "DELETE FROM ledger_entries",
    ];
    if matches!(store.files, TestDatabase::Postgres { .. }) {
        statements.push("TRUNCATE ledger_entries");
        statements.push("TRUNCATE ledger_transactions CASCADE");
        statements.push("TRUNCATE ledger_accounts CASCADE");
        // A statement that would change no row is refused, too.
        statements.push("DELETE FROM ledger_entries WHERE FALSE");
    }
    let before = store.files.dump().await;
    for statement in statements {
        let error = store.files.try_execute(statement).await.unwrap_err();
        assert!(error.to_string().contains("the ledger is append-only"), "{statement}: {error}");
    }
    assert_eq!(store.files.dump().await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_twenty_who_spend_what_is_enough_for_seven_seven_succeed() {
    let store = Store::fresh().await;
    let ada = UserId::new(epoch());
    let mut tx = store.begin().await;
    book(&mut tx, credit(ada, 700)).await;
    tx.commit().await.unwrap();
    let won = winners(|| {
        let db = store.db.clone();
        async move {
            let mut tx = db.begin().await.unwrap();
            let movement = purchase(ada, 100);
            match tx.ledger().change_balance(ada, movement.amount_minor).await.unwrap() {
                Some(balance) => {
                    tx.ledger().book(movement, balance).await.unwrap();
                    tx.commit().await.unwrap();
                    true
                }
                None => false,
            }
        }
    });
    assert_eq!(won.await, 7);
    let mut session = store.db.session().await.unwrap();
    assert_eq!(session.ledger().balance(ada).await.unwrap(), Some(0));
    let seqs: Vec<_> =
        session.ledger().chain(ada, 0, 99).await.unwrap().iter().map(|row| row.seq).collect();
    assert_eq!(seqs, (1..=8).collect::<Vec<_>>());
}
