use tollgate::{
    domain::{id::RefreshTokenId, login::RefreshToken},
    repositories::Repositories,
};

use super::{Store, at, refresh_token, winners};
use crate::support::epoch;

async fn stored(store: &Store) -> RefreshToken {
    let alice = store.user("alice").await;
    let login = store.session(alice.id, epoch()).await;
    let token = refresh_token(login.id);
    let mut tx = store.begin().await;
    tx.refresh_tokens().insert(&token).await.unwrap();
    tx.commit().await.unwrap();
    token
}

#[tokio::test]
async fn a_token_is_found_by_its_digest_and_by_its_id() {
    let store = Store::fresh().await;
    let token = stored(&store).await;
    let mut session = store.db.session().await.unwrap();
    let mut tokens = session.refresh_tokens();
    let by_hash = tokens.find_by_hash(&token.hash).await.unwrap().unwrap();
    let by_id = tokens.find(token.id).await.unwrap().unwrap();
    for found in [by_hash, by_id] {
        assert_eq!((found.id, found.session_id), (token.id, token.session_id));
        assert_eq!(found.hash, token.hash);
        assert_eq!((found.created_at, found.expires_at), (token.created_at, token.expires_at));
        assert_eq!((found.spent_at, found.successor_id), (None, None));
    }
    let other = refresh_token(token.session_id);
    assert!(tokens.find_by_hash(&other.hash).await.unwrap().is_none());
    assert!(tokens.find(other.id).await.unwrap().is_none());
}

#[tokio::test]
async fn a_token_is_spent_once_and_relinked_with_all_that_have_its_successor() {
    let store = Store::fresh().await;
    let token = stored(&store).await;
    let other = refresh_token(token.session_id);
    let bob = store.user("bob").await;
    let stranger = refresh_token(store.session(bob.id, epoch()).await.id);
    let [first, second, third] = std::array::from_fn(|_| RefreshTokenId::new(epoch()));
    let mut tx = store.begin().await;
    let mut tokens = tx.refresh_tokens();
    let session = token.session_id;
    tokens.insert(&other).await.unwrap();
    tokens.insert(&stranger).await.unwrap();
    assert!(!tokens.relink(session, first, second).await.unwrap());
    assert!(tokens.spend(token.id, first, at(5)).await.unwrap());
    assert!(tokens.spend(other.id, first, at(5)).await.unwrap());
    assert!(tokens.spend(stranger.id, first, at(5)).await.unwrap());
    assert!(!tokens.spend(token.id, second, at(6)).await.unwrap());
    assert!(tokens.relink(session, first, second).await.unwrap());
    assert!(!tokens.relink(session, first, third).await.unwrap());
    for (id, successor) in [(token.id, second), (other.id, second), (stranger.id, first)] {
        let found = tokens.find(id).await.unwrap().unwrap();
        assert_eq!((found.spent_at, found.successor_id), (Some(at(5)), Some(successor)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_twenty_who_spend_one_token_exactly_one_succeeds() {
    let store = Store::fresh().await;
    let token = stored(&store).await;
    let won = winners(|| {
        let db = store.db.clone();
        let id = token.id;
        async move {
            let mut tx = db.begin().await.unwrap();
            let successor = RefreshTokenId::new(epoch());
            let won = tx.refresh_tokens().spend(id, successor, at(1)).await.unwrap();
            tx.commit().await.unwrap();
            won
        }
    });
    assert_eq!(won.await, 1);
}
