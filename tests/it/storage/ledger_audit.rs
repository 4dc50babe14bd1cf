use tollgate::{
    domain::{
        id::{PassId, TransactionId, UserId},
        ledger::{Account, Kind, Movement},
        pass::{Origin, Pass, Sealed},
    },
    repositories::{LedgerEntry, PassAccount, Reference, Repositories, Tx, WalletRow},
};

use super::{
    Store, at,
    ledger::{book, credit, purchase},
    secret,
};
use crate::support::epoch;

async fn sold(tx: &mut Tx, user: UserId, price_minor: i64, refunded: bool) -> Pass {
    let pass = Pass {
        id: PassId::new(epoch()),
        user_id: user,
        prefix: "tga_abcd".to_owned(),
        duration_hours: 1,
        upstream: None,
        origin: Origin::Purchase,
        price_minor,
        refunded_minor: refunded.then_some(price_minor),
        created_at: epoch(),
        activated_at: None,
        revoked_at: refunded.then_some(at(1)),
        version: 1,
    };
    let sealed = Sealed { key: "k".to_owned(), bytes: vec![1] };
    tx.passes().insert(&pass, &secret(), &sealed).await.unwrap();
    pass
}

#[tokio::test]
async fn a_chain_is_read_in_parts_and_between_instants() {
    let store = Store::fresh().await;
    let (ada, grace) = (UserId::new(epoch()), UserId::new(epoch()));
    let mut tx = store.begin().await;
    for number in 1..=5 {
        let at = epoch() + chrono::TimeDelta::milliseconds(number * 500);
        book(&mut tx, Movement { at, ..credit(ada, number) }).await;
        book(&mut tx, credit(grace, 1)).await;
    }
    let ms = |ms| Some(epoch() + chrono::TimeDelta::milliseconds(ms));
    for (behind, from, to, most, expected) in [
        (0, None, None, 9, vec![1, 2, 3, 4, 5]),
        (0, None, None, 2, vec![1, 2]),
        (3, None, None, 9, vec![4, 5]),
        (5, None, None, 9, vec![]),
        (0, ms(1000), None, 9, vec![2, 3, 4, 5]),
        (0, None, ms(1000), 9, vec![1]),
        (0, ms(501), ms(2001), 9, vec![2, 3, 4]),
        (2, ms(501), ms(2001), 1, vec![3]),
    ] {
        let part = tx.ledger().statement(ada, behind, from, to, most).await.unwrap();
        let seqs: Vec<_> = part.iter().map(|row| row.seq).collect();
        assert_eq!(seqs, expected, "{behind} {from:?} {to:?} {most}");
    }
    let chain = tx.ledger().chain(ada, 1, 2).await.unwrap();
    assert_eq!(chain.iter().map(|row| row.amount_minor).collect::<Vec<_>>(), [2, 3]);
}

#[tokio::test]
async fn wallets_and_entries_are_read_in_order() {
    let store = Store::fresh().await;
    let mut tx = store.begin().await;
    let mut users: Vec<_> = (0..5).map(|n| UserId::new(at(n))).collect();
    users.sort();
    for (number, user) in (1..).zip(&users) {
        book(&mut tx, credit(*user, number)).await;
    }
    let bought = book(&mut tx, purchase(users[2], 3)).await;
    let first = tx.ledger().wallets(None, 3).await.unwrap();
    let rest = tx.ledger().wallets(Some(first[2].id), 3).await.unwrap();
    assert_eq!(
        [&first[..], &rest[..]].concat().iter().map(|row| row.id).collect::<Vec<_>>(),
        users
    );
    assert_eq!(first[2], WalletRow { id: users[2], balance_minor: 0, seq: 2 });

    let mut entries = tx.ledger().entries(users[2], 2, 9).await.unwrap();
    entries.sort_by_key(|entry| entry.amount_minor);
    let entry = |account_id, amount_minor| LedgerEntry {
        transaction_id: bought.id,
        account_id,
        amount_minor,
    };
    assert_eq!(entries, [entry(users[2].as_uuid(), -3), entry(Account::Revenue.id(), 3)]);
    assert_eq!(tx.ledger().entries(users[2], 1, 2).await.unwrap().len(), 4);
    assert_eq!(tx.ledger().entries(users[2], 3, 9).await.unwrap(), []);
}

#[tokio::test]
async fn sums_are_by_transaction_and_tell_those_of_no_wallet() {
    let store = Store::fresh().await;
    let ada = UserId::new(epoch());
    let mut tx = store.begin().await;
    let mut ids: Vec<TransactionId> = vec![];
    for number in 0..5 {
        let id = TransactionId::new(at(number));
        book(&mut tx, Movement { id, ..credit(ada, 5) }).await;
        ids.push(id);
    }
    let first = tx.ledger().entry_sums(None, 3).await.unwrap();
    let rest = tx.ledger().entry_sums(Some(first[2].transaction_id), 3).await.unwrap();
    let all = [&first[..], &rest[..]].concat();
    assert_eq!(all.iter().map(|sum| sum.transaction_id).collect::<Vec<_>>(), ids);
    assert!(all.iter().all(|sum| sum.sum_minor == 0 && sum.has_wallet));
}

#[tokio::test]
async fn passes_are_set_against_what_was_booked_for_them() {
    let store = Store::fresh().await;
    let ada = store.user("ada").await.id;
    let mut tx = store.begin().await;
    book(&mut tx, credit(ada, 1000)).await;
    let kept = sold(&mut tx, ada, 100, false).await;
    let back = sold(&mut tx, ada, 300, true).await;
    let unpaid = sold(&mut tx, ada, 50, false).await;
    for pass in [&kept, &back] {
        let movement = Movement { pass_id: Some(pass.id), ..purchase(ada, pass.price_minor) };
        book(&mut tx, movement).await;
    }
    let bought = tx.ledger().purchase_of(back.id).await.unwrap().unwrap();
    let refund = Movement {
        kind: Kind::Refund,
        pass_id: Some(back.id),
        reverses_id: Some(bought.id),
        counter: Account::Revenue,
        ..credit(ada, 300)
    };
    let refund = book(&mut tx, refund).await;

    let account = |pass: &Pass, purchases, refunds, refunds_minor| PassAccount {
        id: pass.id,
        user_id: ada,
        is_purchase: true,
        price_minor: pass.price_minor,
        refunded_minor: pass.refunded_minor,
        is_revoked: pass.revoked_at.is_some(),
        purchases,
        fitting_purchases: purchases,
        refunds,
        refunds_minor,
    };
    let mut expected =
        [account(&kept, 1, 0, 0), account(&back, 1, 1, 300), account(&unpaid, 0, 0, 0)];
    expected.sort_by_key(|pass| pass.id);
    let first = tx.ledger().pass_accounts(None, 2).await.unwrap();
    let rest = tx.ledger().pass_accounts(Some(first[1].id), 2).await.unwrap();
    assert_eq!([first, rest].concat(), expected);

    let of_purchase = |transaction_id, pass: &Pass| Reference {
        transaction_id,
        user_exists: true,
        pass_user_id: Some(ada),
        pass_price_minor: Some(pass.price_minor),
        purchase_user_id: None,
        purchase_pass_id: None,
        purchase_amount_minor: None,
    };
    let kept_by = tx.ledger().purchase_of(kept.id).await.unwrap().unwrap().id;
    let of_refund = Reference {
        purchase_user_id: Some(ada),
        purchase_pass_id: Some(back.id),
        purchase_amount_minor: Some(-300),
        ..of_purchase(refund.id, &back)
    };
    let references = tx.ledger().references(ada, 1, 9).await.unwrap();
    assert_eq!(references, [of_purchase(kept_by, &kept), of_purchase(bought.id, &back), of_refund]);

    // The user goes, and the passes with them; the ledger stays.
    tx.users().delete(ada).await.unwrap();
    assert_eq!(tx.ledger().pass_accounts(None, 9).await.unwrap(), []);
    let references = tx.ledger().references(ada, 2, 2).await.unwrap();
    let gone = &references[0];
    assert_eq!((gone.user_exists, gone.pass_user_id, gone.pass_price_minor), (false, None, None));
    assert_eq!(tx.ledger().chain(ada, 0, 9).await.unwrap().len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_snapshot_does_not_see_what_is_written_meanwhile_and_writes_nothing() {
    let store = Store::fresh().await;
    let ada = UserId::new(epoch());
    let mut tx = store.begin().await;
    book(&mut tx, credit(ada, 5)).await;
    tx.commit().await.unwrap();

    let mut snapshot = store.db.snapshot().await.unwrap();
    assert_eq!(snapshot.ledger().balance(ada).await.unwrap(), Some(5));
    let mut tx = store.begin().await;
    book(&mut tx, credit(ada, 7)).await;
    tx.commit().await.unwrap();
    assert_eq!(snapshot.ledger().balance(ada).await.unwrap(), Some(5));
    assert_eq!(snapshot.ledger().chain(ada, 0, 9).await.unwrap().len(), 1);
    snapshot.ledger().open_wallet(UserId::new(epoch()), epoch()).await.unwrap_err();
    drop(snapshot);
    let mut next = store.db.snapshot().await.unwrap();
    assert_eq!(next.ledger().balance(ada).await.unwrap(), Some(12));
}
