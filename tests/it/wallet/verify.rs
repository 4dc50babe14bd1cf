//! The verification finds every kind of corruption, names the first bad row, and
//! finds nothing in an honest ledger, however busy.

use tollgate::domain::audit::SYSTEM;
use tollgate::{
    domain::{
        id::TransactionId,
        ledger::{Account, Kind},
    },
    repositories::Repositories as _,
    services::{
        passes::Order,
        wallet::Check::{
            self, Balance, BalanceAfter, Counter, Entries, Hash, Negative, Purchase, Refund, Seq,
            Unreadable,
        },
    },
};

use super::books::Books;
use crate::support::epoch;

/// Where the first difference is.
#[derive(Clone, Copy)]
enum At {
    /// ada's transaction of this number.
    Transaction(usize),
    Wallet,
    Day,
    Hour,
}

/// What is changed, what finds it first, where, and what else finds it. In the
/// statements {1} to {4} are ada's transactions, the names the ids of others.
const CASES: &[(&str, Check, At, &[Check])] = &[
    (
        "UPDATE ledger_transactions SET amount_minor = 999 WHERE id = {1}",
        Hash,
        At::Transaction(1),
        &[BalanceAfter, Entries],
    ),
    (
        "UPDATE ledger_transactions SET balance_after_minor = 701 WHERE id = {2}",
        Hash,
        At::Transaction(2),
        &[BalanceAfter],
    ),
    (
        "UPDATE ledger_transactions SET reason = 'other' WHERE id = {1}",
        Hash,
        At::Transaction(1),
        &[],
    ),
    (
        "UPDATE ledger_transactions SET pass_id = {day} WHERE id = {3}",
        Hash,
        At::Transaction(3),
        &[Purchase],
    ),
    (
        "UPDATE ledger_transactions SET actor_id = NULL WHERE id = {1}",
        Hash,
        At::Transaction(1),
        &[],
    ),
    (
        "UPDATE ledger_transactions SET kind = 'adjustment' WHERE id = {1}",
        Hash,
        At::Transaction(1),
        &[],
    ),
    (
        "UPDATE ledger_transactions SET wallet_id = {grace}, seq = 3 WHERE id = {4}",
        Seq,
        At::Wallet,
        &[Balance, Refund, Hash],
    ),
    ("UPDATE ledger_transactions SET seq = 9 WHERE id = {4}", Seq, At::Transaction(4), &[Hash]),
    (
        "UPDATE ledger_transactions SET balance_after_minor = -1 WHERE id = {2}",
        Hash,
        At::Transaction(2),
        &[Negative],
    ),
    ("UPDATE ledger_transactions SET kind = 'gift' WHERE id = {2}", Unreadable, At::Wallet, &[]),
    ("DELETE FROM ledger_transactions WHERE id = {3}", Seq, At::Transaction(4), &[Check::Orphan]),
    (
        "DELETE FROM ledger_transactions WHERE id = {4}",
        Seq,
        At::Wallet,
        &[Balance, Refund, Check::Orphan],
    ),
    (
        "UPDATE ledger_entries SET amount_minor = 1001 WHERE transaction_id = {1} AND account_id = {ada}",
        Entries,
        At::Transaction(1),
        &[Balance, Check::Total],
    ),
    (
        "UPDATE ledger_entries SET amount_minor = 301 WHERE transaction_id = {2} AND account_id <> {ada}",
        Entries,
        At::Transaction(2),
        &[Check::Total],
    ),
    (
        "UPDATE ledger_entries SET account_id = {grace} WHERE transaction_id = {2} AND account_id = {ada}",
        Entries,
        At::Transaction(2),
        &[Balance],
    ),
    (
        "UPDATE ledger_entries SET account_id = {promotion} WHERE transaction_id = {2} AND account_id <> {ada}",
        Counter,
        At::Transaction(2),
        &[],
    ),
    (
        "DELETE FROM ledger_entries WHERE transaction_id = {3} AND account_id = {ada}",
        Entries,
        At::Transaction(3),
        &[Balance, Check::Total],
    ),
    (
        "DELETE FROM ledger_entries WHERE transaction_id = {3}",
        Entries,
        At::Transaction(3),
        &[Balance],
    ),
    (
        "INSERT INTO ledger_entries VALUES ({1}, {promotion}, 5)",
        Entries,
        At::Transaction(1),
        &[Check::Total],
    ),
    ("UPDATE ledger_accounts SET balance_minor = 901 WHERE id = {ada}", Balance, At::Wallet, &[]),
    (
        "UPDATE ledger_accounts SET balance_minor = -1 WHERE id = {ada}",
        Balance,
        At::Wallet,
        &[Negative],
    ),
    ("UPDATE ledger_accounts SET seq = 5 WHERE id = {ada}", Seq, At::Wallet, &[]),
    ("UPDATE passes SET refunded_minor = 299 WHERE id = {day}", Refund, At::Day, &[]),
    ("UPDATE passes SET refunded_minor = 301 WHERE id = {day}", Refund, At::Day, &[]),
    ("UPDATE passes SET refunded_minor = NULL WHERE id = {day}", Refund, At::Day, &[]),
    ("UPDATE passes SET revoked_at = NULL WHERE id = {day}", Refund, At::Day, &[]),
    (
        "UPDATE passes SET refunded_minor = 100, revoked_at = created_at WHERE id = {hour}",
        Refund,
        At::Hour,
        &[],
    ),
    ("UPDATE passes SET price_minor = 99 WHERE id = {hour}", Purchase, At::Transaction(3), &[]),
    ("UPDATE passes SET user_id = {grace} WHERE id = {hour}", Purchase, At::Transaction(3), &[]),
    (
        "UPDATE passes SET origin = 'grant', price_minor = 0 WHERE id = {hour}",
        Purchase,
        At::Transaction(3),
        &[],
    ),
    ("DELETE FROM passes WHERE id = {hour}", Purchase, At::Transaction(3), &[]),
];

#[tokio::test]
async fn a_row_that_was_changed_is_found_and_the_first_bad_one_is_named() {
    for (change, check, at, others) in CASES {
        let books = Books::kept().await;
        let mut sql = (*change).to_owned();
        let ids = books.chain.iter().map(|booked| booked.id.as_uuid()).enumerate();
        for (number, id) in ids {
            sql = sql.replace(&format!("{{{}}}", number + 1), &books.sql(id));
        }
        for (name, id) in [
            ("{ada}", books.ada.as_uuid()),
            ("{grace}", books.grace.as_uuid()),
            ("{day}", books.day.as_uuid()),
            ("{hour}", books.hour.as_uuid()),
            ("{promotion}", Account::Promotion.id()),
        ] {
            sql = sql.replace(name, &books.sql(id));
        }
        books.corrupt(&sql).await;
        let found = books.verify().await;
        let first = found.first().unwrap_or_else(|| panic!("not found: {change}"));
        assert_eq!(first.check, *check, "{change}: {found:#?}");
        let wrong = format!("{change}: {first}");
        match at {
            At::Transaction(number) => {
                assert_eq!(first.transaction_id, Some(books.chain[number - 1].id), "{wrong}");
                assert_eq!(first.wallet_id, Some(books.ada), "{wrong}");
            }
            At::Wallet => {
                assert_eq!(
                    (first.wallet_id, first.transaction_id),
                    (Some(books.ada), None),
                    "{wrong}"
                );
            }
            At::Day => assert_eq!(first.token_id, Some(books.day), "{wrong}"),
            At::Hour => assert_eq!(first.token_id, Some(books.hour), "{wrong}"),
        }
        for other in *others {
            assert!(
                found.iter().any(|found| found.check == *other),
                "{other:?}, {change}: {found:#?}"
            );
        }
        // A wrong row is no reason to report all that follow.
        assert!(found.len() <= 8, "{change}: {found:#?}");
    }
}

/// A row whose own hash was worked out again is betrayed by the one after it.
#[tokio::test]
async fn a_row_that_was_forged_with_its_hash_breaks_the_next_one() {
    let books = Books::kept().await;
    let mut forged = books.chain[1].clone();
    forged.created_at += chrono::TimeDelta::seconds(1);
    let hash = books.bytes(&forged.link(books.chain[0].hash).0);
    let id = books.sql(forged.id.as_uuid());
    let at = forged.created_at.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, false);
    books
        .corrupt(&format!(
            "UPDATE ledger_transactions SET created_at = '{at}', hash = {hash} WHERE id = {id}"
        ))
        .await;
    let found = books.verify().await;
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!((found[0].check, found[0].transaction_id), (Check::Hash, Some(books.chain[2].id)));
}

#[tokio::test]
async fn a_refund_that_must_not_be_is_found() {
    let books = Books::kept().await;
    books.book(300, |_| {}).await;
    let found = books.verify().await;
    assert_eq!((found[0].check, found[0].token_id), (Check::Refund, Some(books.day)), "{found:#?}");

    let books = Books::kept().await;
    let hour = books.hour;
    let id = books
        .book(101, |movement| {
            movement.pass_id = Some(hour);
            movement.reverses_id = Some(books.chain[2].id);
        })
        .await;
    let found = books.verify().await;
    assert_eq!((found[0].check, found[0].transaction_id), (Check::Refund, Some(id)), "{found:#?}");

    // Of a purchase that somebody else made, and of what is no purchase.
    for (is_graces, reversed) in [(true, 1), (false, 0)] {
        let books = Books::kept().await;
        let id = books
            .book(100, |movement| {
                movement.user_id = if is_graces { books.grace } else { books.ada };
                movement.reverses_id = Some(books.chain[reversed].id);
            })
            .await;
        let found = books.verify().await;
        let first = found.iter().find(|found| found.transaction_id == Some(id));
        assert_eq!(first.unwrap().check, Check::Refund, "{found:#?}");
    }
}

#[tokio::test]
async fn a_pass_is_paid_exactly_once_and_so_is_nothing_else() {
    let books = Books::kept().await;
    let unpaid = books.unpaid().await;
    let found = books.verify().await;
    assert_eq!((found[0].check, found[0].token_id), (Check::Purchase, Some(unpaid)), "{found:#?}");
    assert_eq!(found.len(), 1);

    let books = Books::kept().await;
    let hour = books.hour;
    books
        .book(-100, |movement| {
            movement.kind = Kind::Purchase;
            movement.pass_id = Some(hour);
            movement.reverses_id = None;
        })
        .await;
    let found = books.verify().await;
    assert_eq!((found[0].check, found[0].token_id), (Check::Purchase, Some(hour)), "{found:#?}");
}

#[tokio::test]
async fn entries_of_no_transaction_are_found() {
    let books = Books::kept().await;
    let id = TransactionId::new(epoch());
    let (transaction, account) = (books.sql(id.as_uuid()), books.sql(Account::Promotion.id()));
    books
        .corrupt(&format!("INSERT INTO ledger_entries VALUES ({transaction}, {account}, 7)"))
        .await;
    let found = books.verify().await;
    let short: Vec<_> = found.iter().map(|found| (found.check, found.transaction_id)).collect();
    assert_eq!(short, [(Check::Orphan, Some(id)), (Check::Total, None)], "{found:#?}");
    assert!(found[1].to_string().ends_with("total: expected 0, found 7"), "{}", found[1]);
}

#[tokio::test]
async fn a_user_who_is_gone_leaves_a_ledger_that_is_right() {
    let books = Books::kept().await;
    let id = books.sql(books.ada.as_uuid());
    books.app.database.execute(format!("DELETE FROM users WHERE id = {id}")).await;
    assert_eq!(books.verify().await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_honest_ledger_is_right_while_it_is_written_to() {
    const WRITERS: usize = 6;

    let books = Books::kept().await;
    let app = &books.app;
    let mut writers = vec![];
    for number in 0..WRITERS {
        let user = if number % 2 == 0 { books.ada } else { books.grace };
        let services = app.app.services.clone();
        writers.push(tokio::spawn(async move {
            let (amount, order) = (
                "500".parse().unwrap(),
                Order { duration_hours: if number < 3 { 24 } else { 1 }, upstream: None },
            );
            for _ in 0..25 {
                let reason = "busy".to_owned();
                services.wallet.credit(&SYSTEM, user, amount, reason, None).await.unwrap();
                let bought =
                    services.passes.purchase(&SYSTEM, user, order.clone(), None).await.unwrap();
                services.passes.refund(&SYSTEM, user, bought.pass.id, None).await.unwrap();
            }
        }));
    }
    let mut rounds = 0;
    while writers.iter().any(|writer| !writer.is_finished()) {
        assert_eq!(books.verify().await, []);
        rounds += 1;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(books.verify().await, []);
    assert!(rounds > 3, "{rounds}: it was not verified while it was busy");
    let mut session = app.app.db.session().await.unwrap();
    let chain = session.ledger().chain(books.ada, 0, 1000).await.unwrap();
    assert_eq!(chain.len(), 4 + 3 * 25 * 3);
}
