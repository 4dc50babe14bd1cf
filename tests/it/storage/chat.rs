use tollgate::{
    domain::{
        chat::{
            AnswerFailure, ChatMessage, ChatSession, Fingerprint, LEASE, MessageState, Piece,
            Speaker,
        },
        id::{ChatMessageId, ChatSessionId, ChatWriterId, UserId},
        page::PageRequest,
        token::PlainToken,
    },
    repositories::{ChatFilter, Opened, Repositories},
};

use super::{Store, at, winners};
use crate::support::epoch;

fn session(user_id: Option<UserId>) -> ChatSession {
    ChatSession {
        id: ChatSessionId::new(epoch()),
        hash: PlainToken::chat(&mut rand::rng()).hash(),
        previous: None,
        origin: "https://shop.example".to_owned(),
        origin_domain: "shop.example".to_owned(),
        page_url: Some("https://shop.example/ü".to_owned()),
        print: Fingerprint { browser: [1; 16], network: [255; 16] },
        user_id,
        created_at: epoch(),
        expires_at: at(100),
        ended_at: None,
        messages: 0,
        version: 1,
    }
}

async fn begun(store: &Store) -> ChatSession {
    let session = session(None);
    let mut tx = store.begin().await;
    tx.chat().insert_session(&session).await.unwrap();
    tx.commit().await.unwrap();
    session
}

fn exchange(session: &ChatSession, client_id: Option<&str>) -> (ChatMessage, ChatMessage) {
    let question = ChatMessage {
        id: ChatMessageId::new(epoch()),
        session_id: session.id,
        position: 0,
        speaker: Speaker::User,
        state: MessageState::Complete,
        client_id: client_id.map(str::to_owned),
        content: "<b>?</b>".to_owned(),
        page_url: None,
        created_at: at(1),
        finished_at: Some(at(1)),
    };
    let state =
        MessageState::Streaming { writer: ChatWriterId::new(epoch()), lease_until: at(1) + LEASE };
    let answer = ChatMessage {
        id: ChatMessageId::new(epoch()),
        speaker: Speaker::Assistant,
        state,
        client_id: None,
        content: String::new(),
        finished_at: None,
        ..question.clone()
    };
    (question, answer)
}

/// More messages than any session here has.
const MOST: i64 = 1000;

fn writer_of(message: &ChatMessage) -> ChatWriterId {
    let MessageState::Streaming { writer, .. } = message.state else { panic!("{message:?}") };
    writer
}

async fn asked(store: &Store, session: &ChatSession) -> ChatMessage {
    let (question, answer) = exchange(session, None);
    let mut tx = store.begin().await;
    let opened = tx.chat().open_exchange(&question, &answer, MOST, at(1)).await.unwrap();
    tx.commit().await.unwrap();
    let Opened::New { answer, .. } = opened else { panic!("{opened:?}") };
    answer
}

#[tokio::test]
async fn a_session_comes_back_as_it_was_by_id_and_by_both_hashes() {
    let store = Store::fresh().await;
    let ada = store.user("ada").await;
    let before = session(Some(ada.id));
    let mut tx = store.begin().await;
    tx.chat().insert_session(&before).await.unwrap();
    assert_eq!(tx.chat().session(before.id).await.unwrap().as_ref(), Some(&before));
    let after = ChatSession {
        hash: PlainToken::chat(&mut rand::rng()).hash(),
        previous: Some((before.hash, at(60))),
        expires_at: at(200),
        version: 2,
        ..before.clone()
    };
    assert!(tx.chat().renew_session(&before, &after).await.unwrap());
    assert!(!tx.chat().renew_session(&before, &after).await.unwrap(), "it is another by then");
    for hash in [before.hash, after.hash] {
        assert_eq!(tx.chat().session_of(&hash).await.unwrap().as_ref(), Some(&after));
    }
    assert_eq!(tx.chat().session_of(&super::secret()).await.unwrap(), None);
    assert_eq!(tx.chat().end_session(after.id, at(5)).await.unwrap(), Some(3));
    assert_eq!(tx.chat().end_session(after.id, at(6)).await.unwrap(), None);
    let ended = tx.chat().session(after.id).await.unwrap().unwrap();
    assert_eq!((ended.ended_at, ended.version), (Some(at(5)), 3));
    assert!(!tx.chat().renew_session(&ended, &after).await.unwrap());
    let other = session(None);
    tx.chat().insert_session(&other).await.unwrap();
    assert_eq!(tx.chat().condemn_session(other.id, at(7)).await.unwrap(), Some(2));
    assert_eq!(tx.chat().condemn_session(other.id, at(7)).await.unwrap(), None);
    // It has condemned what was said with it.
    tx.users().delete(ada.id).await.unwrap();
    assert_eq!(tx.chat().condemn_session(after.id, at(7)).await.unwrap(), None);
    for (session, version, ended) in [(&after, 4, at(5)), (&other, 2, at(7))] {
        assert_eq!(tx.chat().session(session.id).await.unwrap(), None);
        let gone = tx.chat().session_of(&session.hash).await.unwrap().unwrap();
        assert_eq!((gone.version, gone.ended_at, gone.user_id), (version, Some(ended), None));
        assert_eq!(gone.expires_at, ChatSession::CONDEMNED);
    }
    let seen = tx.chat().sessions(&ChatFilter::default(), PageRequest::FIRST).await.unwrap();
    assert!(seen.items.is_empty());
    assert_eq!(tx.chat().prune_sessions(ChatSession::CONDEMNED, 9).await.unwrap(), 2);
}

#[tokio::test]
async fn sessions_are_found_by_what_they_are() {
    let store = Store::fresh().await;
    let ada = store.user("ada").await;
    let (one, two) = (session(Some(ada.id)), session(None));
    let other =
        ChatSession { origin_domain: "b.example".to_owned(), expires_at: at(9), ..session(None) };
    let mut tx = store.begin().await;
    for session in [&one, &two, &other] {
        tx.chat().insert_session(session).await.unwrap();
    }
    tx.chat().end_session(two.id, at(1)).await.unwrap();
    let domain =
        |name: &str| ChatFilter { origin_domain: Some(name.to_owned()), ..ChatFilter::default() };
    let live = |is| ChatFilter { live: Some((is, at(9))), ..ChatFilter::default() };
    for (filter, expected) in [
        (ChatFilter::default(), vec![other.id, two.id, one.id]),
        (domain("b.example"), vec![other.id]),
        (ChatFilter { user_id: Some(ada.id), ..ChatFilter::default() }, vec![one.id]),
        (live(true), vec![one.id]),
        (live(false), vec![other.id, two.id]),
    ] {
        let page = tx.chat().sessions(&filter, PageRequest::FIRST).await.unwrap();
        let mut found: Vec<_> = page.items.iter().map(|session| session.id).collect();
        let mut expected = expected;
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{filter:?}");
    }
    let page = PageRequest { limit: 2, after: None };
    let first = tx.chat().sessions(&ChatFilter::default(), page).await.unwrap();
    let rest = page.followed_by(first.next).unwrap();
    let rest = tx.chat().sessions(&ChatFilter::default(), rest).await.unwrap();
    assert_eq!((first.items.len(), rest.items.len(), rest.next), (2, 1, None));
}

#[tokio::test]
async fn what_is_said_twice_is_said_once() {
    let store = Store::fresh().await;
    let (one, other) = (begun(&store).await, begun(&store).await);
    let (question, answer) = exchange(&one, Some("m"));
    let mut tx = store.begin().await;
    let opened = tx.chat().open_exchange(&question, &answer, MOST, at(1)).await.unwrap();
    let Opened::New { question, answer } = opened else { panic!("{opened:?}") };
    assert_eq!((question.position, answer.position), (1, 2));
    assert_eq!(tx.chat().message(answer.id).await.unwrap().as_ref(), Some(&answer));
    tx.commit().await.unwrap();
    let again = exchange(&one, Some("m"));
    let mut tx = store.begin().await;
    let opened = tx.chat().open_exchange(&again.0, &again.1, MOST, at(2)).await.unwrap();
    assert_eq!(opened, Opened::Before { question: question.clone(), answer: answer.clone() });
    drop(tx);
    let mut tx = store.begin().await;
    for (session, name, position) in [(&one, "n", 3), (&other, "m", 1)] {
        let (question, answer) = exchange(session, Some(name));
        let opened = tx.chat().open_exchange(&question, &answer, MOST, at(2)).await.unwrap();
        let Opened::New { question, .. } = opened else { panic!("{opened:?}") };
        assert_eq!(question.position, position);
    }
    let positions = |all: &[ChatMessage]| -> Vec<i64> { all.iter().map(|m| m.position).collect() };
    // Questions have eight bytes, answers none.
    for (limit, bytes, pages) in [
        (3, 99, vec![vec![4, 3, 2], vec![1]]),
        (9, 10, vec![vec![4, 3, 2], vec![1]]),
        (9, 8, vec![vec![4, 3, 2], vec![1]]),
        (9, 7, vec![vec![4], vec![3], vec![2], vec![1]]),
        (9, 16, vec![vec![4, 3, 2, 1]]),
    ] {
        let (mut told, mut page) = (vec![], Some(PageRequest { limit, after: None }));
        while let Some(asked) = page {
            let read = tx.chat().messages(one.id, asked, bytes).await.unwrap();
            told.push(positions(&read.items));
            page = asked.followed_by(read.next);
        }
        assert_eq!(told, pages, "{limit} messages, {bytes} bytes");
    }
    for (behind, most, bytes, expected) in
        [(0, 9, 8, vec![1, 2]), (0, 3, 99, vec![1, 2, 3]), (2, 9, 0, vec![3]), (4, 9, 99, vec![])]
    {
        let read = tx.chat().messages_behind(one.id, behind, most, bytes).await.unwrap();
        assert_eq!(positions(&read), expected);
    }
    assert_eq!(tx.chat().message(question.id).await.unwrap(), Some(question));
    let late = exchange(&one, None);
    let opened = tx.chat().open_exchange(&late.0, &late.1, MOST, at(100)).await.unwrap();
    assert_eq!(opened, Opened::NoSession);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_twenty_who_say_the_same_at_once_one_does() {
    let store = Store::fresh().await;
    for _ in 0..5 {
        let session = begun(&store).await;
        let won = winners(|| {
            let (db, (question, answer)) = (store.db.clone(), exchange(&session, Some("m")));
            async move {
                let mut tx = db.begin().await.unwrap();
                let opened =
                    tx.chat().open_exchange(&question, &answer, MOST, at(1)).await.unwrap();
                let won = matches!(opened, Opened::New { .. });
                if won {
                    tx.commit().await.unwrap();
                }
                won
            }
        });
        assert_eq!(won.await, 1);
    }
}

#[tokio::test]
async fn only_who_holds_an_answer_writes_its_end() {
    let store = Store::fresh().await;
    let session = begun(&store).await;
    let (answer, other) = (asked(&store, &session).await, asked(&store, &session).await);
    let (writer, stranger) = (writer_of(&answer), ChatWriterId::new(epoch()));
    let piece = |number, content: &str| Piece {
        message_id: answer.id,
        number,
        content: content.to_owned(),
    };
    let mut tx = store.begin().await;
    let pieces = [piece(2, "ab"), piece(4, "ü")];
    tx.chat().add_pieces(&pieces).await.unwrap();
    tx.chat().add_pieces(&[piece(4, "other"), piece(5, "c")]).await.unwrap();
    tx.chat().add_pieces(&[]).await.unwrap();
    assert_eq!(tx.chat().pieces(answer.id, 0).await.unwrap().len(), 3);
    assert_eq!(tx.chat().pieces(answer.id, 2).await.unwrap(), [piece(4, "ü"), piece(5, "c")]);
    // Neither what was not asked for nor what is another's.
    assert!(tx.chat().hold_answers(writer, &[], at(50)).await.unwrap().is_empty());
    assert!(tx.chat().hold_answers(writer, &[other.id], at(50)).await.unwrap().is_empty());
    let all = [answer.id, other.id];
    assert_eq!(tx.chat().hold_answers(writer, &all, at(50)).await.unwrap(), [answer.id]);
    assert!(tx.chat().hold_answers(stranger, &all, at(50)).await.unwrap().is_empty());
    // By then only the other's lease is over.
    let abandoned = tx.chat().abandoned(at(49), 9).await.unwrap();
    assert_eq!(abandoned, [(other.id, writer_of(&other))]);
    assert!(!tx.chat().take_abandoned(answer.id, stranger, at(49)).await.unwrap());
    assert!(!tx.chat().close_answer(answer.id, stranger, "x", None, at(9)).await.unwrap());
    assert!(tx.chat().close_answer(answer.id, writer, "abüc", None, at(9)).await.unwrap());
    assert!(!tx.chat().close_answer(answer.id, writer, "x", None, at(9)).await.unwrap());
    let closed = tx.chat().message(answer.id).await.unwrap().unwrap();
    assert_eq!((closed.content.as_str(), closed.state), ("abüc", MessageState::Complete));
    assert_eq!(closed.finished_at, Some(at(9)));
    assert!(tx.chat().pieces(answer.id, 0).await.unwrap().is_empty());
    // Who was given up writes nothing any more.
    assert!(tx.chat().take_abandoned(other.id, stranger, at(49)).await.unwrap());
    let failure = Some(AnswerFailure::Interrupted);
    assert!(!tx.chat().close_answer(other.id, writer_of(&other), "x", None, at(60)).await.unwrap());
    assert!(tx.chat().close_answer(other.id, stranger, "", failure, at(60)).await.unwrap());
    let failed = tx.chat().message(other.id).await.unwrap().unwrap();
    assert_eq!(failed.state, MessageState::Failed(AnswerFailure::Interrupted));
}

#[tokio::test]
async fn old_sessions_go_with_all_that_was_said() {
    let store = Store::fresh().await;
    let session = begun(&store).await;
    let answer = asked(&store, &session).await;
    begun(&store).await;
    begun(&store).await;
    let mut tx = store.begin().await;
    let piece = Piece { message_id: answer.id, number: 1, content: "a".to_owned() };
    tx.chat().add_pieces(&[piece]).await.unwrap();
    assert_eq!(tx.chat().prune_messages(at(99), 9).await.unwrap(), 0);
    assert_eq!(tx.chat().prune_sessions(at(99), 9).await.unwrap(), 0);
    // Not before what was said in it.
    assert_eq!(tx.chat().prune_sessions(at(100), 9).await.unwrap(), 2);
    assert_eq!(tx.chat().prune_messages(at(100), 1).await.unwrap(), 1);
    assert_eq!(tx.chat().prune_messages(at(100), 9).await.unwrap(), 1);
    assert_eq!(tx.chat().prune_sessions(at(100), 9).await.unwrap(), 1);
    assert_eq!(tx.chat().message(answer.id).await.unwrap(), None);
    assert!(tx.chat().pieces(answer.id, 0).await.unwrap().is_empty());
}
