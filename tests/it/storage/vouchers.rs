use tollgate::{
    domain::{
        id::{BatchId, PassId, RedemptionId, TransactionId, UserId, VoucherId},
        page::PageRequest,
        token::TokenHash,
        voucher::{Gift, Voucher, generate_code, hash_code},
    },
    repositories::{Redemption, Repositories, VoucherFilter},
};

use super::{Store, at, winners};
use crate::support::epoch;

fn voucher(batch_id: BatchId, gift: Gift) -> (Voucher, TokenHash) {
    let code = generate_code(&mut rand::rng());
    let voucher = Voucher {
        id: VoucherId::new(epoch()),
        prefix: code.expose()[..4].to_owned(),
        batch_id,
        note: Some("nöte".to_owned()),
        gift,
        expires_at: Some(at(60)),
        max_uses: 2,
        max_uses_per_user: u32::MAX,
        uses: 0,
        created_by: Some(UserId::new(epoch())),
        created_at: epoch(),
        revoked_at: None,
    };
    (voucher, hash_code(code.expose()).unwrap())
}

#[tokio::test]
async fn what_is_written_is_what_is_read() {
    let store = Store::fresh().await;
    let batch = BatchId::new(epoch());
    let mut tx = store.begin().await;
    let upstream = Some("default".to_owned());
    for gift in [
        Gift::Balance(500),
        Gift::Pass { duration_hours: 24, upstream },
        Gift::Pass { duration_hours: 1, upstream: None },
    ] {
        let (mut voucher, hash) = voucher(batch, gift);
        if matches!(voucher.gift, Gift::Balance(_)) {
            (voucher.note, voucher.expires_at, voucher.created_by) = (None, None, None);
        }
        tx.vouchers().insert(&voucher, &hash).await.unwrap();
        assert_eq!(tx.vouchers().find(voucher.id).await.unwrap().as_ref(), Some(&voucher));
        assert_eq!(tx.vouchers().find_by_hash(&hash).await.unwrap(), Some(voucher));
    }
    assert_eq!(tx.vouchers().find(VoucherId::new(epoch())).await.unwrap(), None);
    let (_, unknown) = voucher(batch, Gift::Balance(1));
    assert_eq!(tx.vouchers().find_by_hash(&unknown).await.unwrap(), None);
}

#[tokio::test]
async fn a_batch_is_written_whole_or_not_at_all_and_listed_in_pages() {
    let store = Store::fresh().await;
    let (batch, other) = (BatchId::new(epoch()), BatchId::new(epoch()));
    let mut made: Vec<_> = (0..1000).map(|_| voucher(batch, Gift::Balance(5))).collect();
    let rows = |made: &[(Voucher, TokenHash)]| -> Vec<(Voucher, TokenHash)> { made.to_vec() };
    let insert = async |made: Vec<(Voucher, TokenHash)>| {
        let mut tx = store.begin().await;
        let rows: Vec<_> = made.iter().map(|(voucher, hash)| (voucher, *hash)).collect();
        tx.vouchers().insert_all(&rows).await?;
        tx.commit().await
    };
    // The last has the first one's code.
    let good = made[999].1;
    made[999].1 = made[0].1;
    let error = insert(rows(&made)).await.unwrap_err();
    assert!(error.violates("vouchers_hash_key"), "{error:?}");
    let mut session = store.db.session().await.unwrap();
    let all = VoucherFilter::default();
    let none = session.vouchers().list(all, PageRequest::FIRST).await.unwrap();
    assert_eq!(none.items, []);
    drop(session);
    made[999].1 = good;
    insert(rows(&made)).await.unwrap();
    insert(vec![voucher(other, Gift::Balance(7))]).await.unwrap();
    insert(vec![]).await.unwrap();

    let mut session = store.db.session().await.unwrap();
    let filter = VoucherFilter { batch_id: Some(batch) };
    let (mut listed, mut next) = (vec![], Some(PageRequest { limit: 150, after: None }));
    while let Some(page) = next {
        let part = session.vouchers().list(filter, page).await.unwrap();
        next = page.followed_by(part.next);
        listed.extend(part.items);
    }
    let mut expected: Vec<_> = made.into_iter().map(|(voucher, _)| voucher).collect();
    expected.sort_by_key(|voucher| std::cmp::Reverse(voucher.id));
    assert_eq!(listed, expected);
    let all = session.vouchers().list(all, PageRequest { limit: 1, after: None }).await.unwrap();
    assert!(all.next.is_some());
}

#[tokio::test]
async fn a_use_is_taken_only_while_there_is_one() {
    let store = Store::fresh().await;
    let (voucher, hash) = voucher(BatchId::new(epoch()), Gift::Balance(5));
    let mut tx = store.begin().await;
    let mut vouchers = tx.vouchers();
    vouchers.insert(&voucher, &hash).await.unwrap();
    assert!(!vouchers.take_use(voucher.id, at(60)).await.unwrap(), "it has expired");
    assert!(vouchers.take_use(voucher.id, at(59)).await.unwrap());
    assert!(vouchers.take_use(voucher.id, at(0)).await.unwrap());
    assert!(!vouchers.take_use(voucher.id, at(0)).await.unwrap(), "it is used up");
    assert_eq!(vouchers.find(voucher.id).await.unwrap().unwrap().uses, 2);
    assert!(!vouchers.take_use(VoucherId::new(epoch()), at(0)).await.unwrap());
}

#[tokio::test]
async fn a_revoked_voucher_gives_no_use() {
    let store = Store::fresh().await;
    let (voucher, hash) = voucher(BatchId::new(epoch()), Gift::Balance(5));
    let mut tx = store.begin().await;
    let mut vouchers = tx.vouchers();
    vouchers.insert(&voucher, &hash).await.unwrap();
    assert!(vouchers.revoke(voucher.id, at(1)).await.unwrap());
    assert!(!vouchers.revoke(voucher.id, at(2)).await.unwrap());
    assert_eq!(vouchers.find(voucher.id).await.unwrap().unwrap().revoked_at, Some(at(1)));
    assert!(!vouchers.take_use(voucher.id, at(0)).await.unwrap());
    assert!(!vouchers.revoke(VoucherId::new(epoch()), at(1)).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_twenty_who_take_a_use_at_once_as_many_succeed_as_there_are() {
    let store = Store::fresh().await;
    let (voucher, hash) = voucher(BatchId::new(epoch()), Gift::Balance(5));
    let mut tx = store.begin().await;
    tx.vouchers().insert(&voucher, &hash).await.unwrap();
    tx.commit().await.unwrap();
    let id = voucher.id;
    let won = winners(|| {
        let db = store.db.clone();
        async move {
            let mut tx = db.begin().await.unwrap();
            let won = tx.vouchers().take_use(id, at(0)).await.unwrap();
            tx.commit().await.unwrap();
            won
        }
    });
    assert_eq!(won.await, 2);
}

#[tokio::test]
async fn redemptions_are_counted_by_voucher_and_user() {
    let store = Store::fresh().await;
    let batch = BatchId::new(epoch());
    let (one, two) = (voucher(batch, Gift::Balance(5)), voucher(batch, Gift::Balance(5)));
    let (ada, grace) = (UserId::new(epoch()), UserId::new(epoch()));
    let mut tx = store.begin().await;
    let mut vouchers = tx.vouchers();
    for (voucher, hash) in [&one, &two] {
        vouchers.insert(voucher, hash).await.unwrap();
    }
    for (voucher, user, is_pass) in
        [(&one.0, ada, false), (&one.0, ada, true), (&one.0, grace, false), (&two.0, ada, false)]
    {
        let redemption = Redemption {
            id: RedemptionId::new(epoch()),
            voucher_id: voucher.id,
            user_id: user,
            transaction_id: (!is_pass).then(|| TransactionId::new(epoch())),
            pass_id: is_pass.then(|| PassId::new(epoch())),
            created_at: at(1),
        };
        vouchers.insert_redemption(&redemption).await.unwrap();
        let found = vouchers.find_redemption(redemption.id).await.unwrap();
        assert_eq!(found, Some(redemption));
    }
    assert_eq!(vouchers.uses_by(one.0.id, ada).await.unwrap(), 2);
    assert_eq!(vouchers.uses_by(one.0.id, grace).await.unwrap(), 1);
    assert_eq!(vouchers.uses_by(two.0.id, grace).await.unwrap(), 0);
    let unknown = RedemptionId::new(epoch());
    assert_eq!(vouchers.find_redemption(unknown).await.unwrap(), None);
}
