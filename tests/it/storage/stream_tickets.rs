use tollgate::{
    domain::{
        id::{SessionId, UserId},
        principal::Proof,
        ticket::{StreamTicket, TICKET_LIFE},
        token::PlainToken,
    },
    repositories::Repositories,
};

use super::{Store, at, secret, winners};
use crate::support::epoch;

fn ticket(user: UserId, proof: Proof) -> StreamTicket {
    StreamTicket {
        hash: PlainToken::ticket(&mut rand::rng()).hash(),
        user_id: user,
        proof,
        path: "/api/v1/proxy/w%C3%BCs".to_owned(),
        expires_at: epoch() + TICKET_LIFE,
    }
}

async fn insert(store: &Store, tickets: &[StreamTicket]) {
    let mut tx = store.begin().await;
    for ticket in tickets {
        assert!(tx.stream_tickets().insert(ticket).await.unwrap());
    }
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_ticket_is_taken_once_and_as_it_was() {
    let store = Store::fresh().await;
    let ada = store.user("ada").await;
    let until = chrono::DateTime::<chrono::Utc>::MAX_UTC;
    let login = Proof::Login { session: SessionId::new(epoch()), user: ada.id, until };
    for proof in [login, Proof::ApiKey(secret()), Proof::Pass(secret())] {
        let (one, other) = (ticket(ada.id, proof), ticket(ada.id, proof));
        insert(&store, &[one.clone(), other]).await;
        let mut tx = store.begin().await;
        assert_eq!(tx.stream_tickets().take(&one.hash).await.unwrap(), Some(one.clone()));
        assert_eq!(tx.stream_tickets().take(&one.hash).await.unwrap(), None);
        // What is not committed was not taken.
        drop(tx);
        let mut tx = store.begin().await;
        assert_eq!(tx.stream_tickets().take(&one.hash).await.unwrap(), Some(one));
        tx.commit().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_twenty_who_take_one_ticket_exactly_one_gets_it() {
    let store = Store::fresh().await;
    let ada = store.user("ada").await;
    for _ in 0..5 {
        let ticket = ticket(ada.id, Proof::ApiKey(secret()));
        insert(&store, std::slice::from_ref(&ticket)).await;
        let won = winners(|| {
            let (db, hash) = (store.db.clone(), ticket.hash);
            async move {
                let mut tx = db.begin().await.unwrap();
                let taken = tx.stream_tickets().take(&hash).await.unwrap();
                tx.commit().await.unwrap();
                taken.is_some()
            }
        });
        assert_eq!(won.await, 1);
    }
}

#[tokio::test]
async fn unused_tickets_are_counted_by_what_they_were_asked_for_with() {
    let store = Store::fresh().await;
    let ada = store.user("ada").await;
    let (mine, other) = (Proof::ApiKey(secret()), Proof::Pass(secret()));
    let tickets: Vec<_> = (0..4)
        .map(|n| StreamTicket { expires_at: at(10 - n), ..ticket(ada.id, mine) })
        .chain([ticket(ada.id, other)])
        .collect();
    insert(&store, &tickets).await;
    let mut session = store.db.session().await.unwrap();
    let mut stored = session.stream_tickets();
    let all = [at(7), at(8), at(9), at(10)];
    assert_eq!(stored.open(&mine, at(0), 9).await.unwrap(), all);
    assert_eq!(stored.open(&mine, at(0), 2).await.unwrap(), all[..2]);
    assert_eq!(stored.open(&mine, at(8), 9).await.unwrap(), all[2..]);
    assert_eq!(stored.open(&other, at(0), 9).await.unwrap(), [at(30)]);
    assert!(stored.open(&Proof::ApiKey(secret()), at(0), 9).await.unwrap().is_empty());
}

#[tokio::test]
async fn tickets_go_with_their_user_and_none_comes_after_him() {
    let store = Store::fresh().await;
    let ada = store.user("ada").await;
    let ticket = ticket(ada.id, Proof::ApiKey(secret()));
    insert(&store, std::slice::from_ref(&ticket)).await;
    let mut tx = store.begin().await;
    assert!(tx.users().delete(ada.id).await.unwrap().is_some());
    tx.commit().await.unwrap();
    let mut tx = store.begin().await;
    assert_eq!(tx.stream_tickets().take(&ticket.hash).await.unwrap(), None);
    assert!(!tx.stream_tickets().insert(&ticket).await.unwrap());
}

#[tokio::test]
async fn old_tickets_are_forgotten_a_few_at_a_time() {
    let store = Store::fresh().await;
    let ada = store.user("ada").await;
    let tickets: Vec<_> = (0..5)
        .map(|n| StreamTicket { expires_at: at(n), ..ticket(ada.id, Proof::Pass(secret())) })
        .collect();
    insert(&store, &tickets).await;
    let mut tx = store.begin().await;
    let mut stored = tx.stream_tickets();
    assert_eq!(stored.prune(at(-1), 9).await.unwrap(), 0);
    assert_eq!(stored.prune(at(2), 2).await.unwrap(), 2);
    assert_eq!(stored.prune(at(2), 2).await.unwrap(), 1);
    assert_eq!(stored.prune(at(2), 2).await.unwrap(), 0);
    for (number, ticket) in tickets.iter().enumerate() {
        let left = stored.take(&ticket.hash).await.unwrap().is_some();
        assert_eq!(left, number >= 3, "{number}");
    }
}
