use std::{
    borrow::Cow,
    io::{ErrorKind, Read as _},
    net,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    task::Wake,
};

use chrono::{DateTime, Utc};
use tempfile::TempDir;
use tokio::net::TcpListener;
use uuid::Uuid;

use super::*;
use crate::{
    config::{JournalConfig, OnFull},
    domain::{
        id::{LogPlace, RecordId},
        usage::{Outcome, UsageRecord},
    },
};

/// Other tests may run on the same thread.
struct Rig {
    _folder: TempDir,
}

impl Drop for Rig {
    fn drop(&mut self) {
        together::end();
        let_go();
    }
}

fn let_go() {
    OWN.with(Own::let_go);
}

/// One whose records this thread writes together.
fn journal() -> (Rig, Journal) {
    let folder = tempfile::tempdir().unwrap();
    let config = JournalConfig {
        folder: folder.path().to_owned(),
        max_bytes: 1 << 30,
        on_full: OnFull::Block,
    };
    let journal = Journal::new(&config, 1);
    journal.open().unwrap();
    OWN.with(|own| own.journal.replace(Some(journal.clone())));
    together::begin(Waker::noop());
    (Rig { _folder: folder }, journal)
}

fn record(journal: &Journal) {
    let record = UsageRecord {
        id: RecordId::from(Uuid::now_v7()),
        request_id: String::new(),
        at: DateTime::<Utc>::UNIX_EPOCH,
        method: Cow::Borrowed("GET"),
        path: "/".to_owned(),
        status: 200,
        outcome: Outcome::Completed,
        duration_us: 1,
        bytes_in: 0,
        bytes_out: 0,
        user_id: None,
        key_id: None,
        pass_id: None,
        upstream: Cow::Borrowed("default"),
        route: Cow::Borrowed("/**"),
        is_stream: false,
        messages: 0,
        place: LogPlace::NIL,
    };
    journal.reserve().unwrap().record(record, 0);
}

async fn connected() -> (Arc<Line>, net::TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (socket, _) = listener.accept().await.unwrap();
    (Line::new(socket), peer)
}

async fn write(line: &Arc<Line>, bytes: &[u8]) {
    write_as(line, bytes, true).await;
}

async fn write_as(line: &Arc<Line>, bytes: &[u8], answers: bool) {
    let parts = [IoSlice::new(bytes)];
    let wrote = poll_fn(|cx| line.poll_write(cx, &parts, answers)).await.unwrap();
    assert_eq!(wrote, bytes.len());
}

fn expect(peer: &mut net::TcpStream, expected: &[u8]) {
    let mut read = vec![0; expected.len()];
    peer.read_exact(&mut read).unwrap();
    assert!(read == expected, "other bytes came");
}

fn expect_nothing(peer: &mut net::TcpStream) {
    peer.set_nonblocking(true).unwrap();
    assert_eq!(peer.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    peer.set_nonblocking(false).unwrap();
}

#[tokio::test]
async fn what_follows_a_record_leaves_when_that_is_written() {
    let (_rig, journal) = journal();
    let (line, mut peer) = connected().await;
    write(&line, b"before").await;
    expect(&mut peer, b"before");

    record(&journal);
    record(&journal);
    write(&line, b"af").await;
    write(&line, b"ter").await;
    poll_fn(|cx| line.poll_flush(cx)).await.unwrap();
    expect_nothing(&mut peer);
    assert_eq!(journal.waiting(), 0);
    assert!(!journal.is_drained(), "what is only in memory waits too");
    let_go();
    expect(&mut peer, b"after");
    let of_two = journal.waiting();
    assert!(of_two > 0);

    // What is too much to be copied does not wait, nor does an end.
    let large = vec![b'x'; MOST_HELD + 1];
    record(&journal);
    write(&line, b"small").await;
    write(&line, &large).await;
    assert_eq!(journal.waiting(), of_two / 2 * 3);
    expect(&mut peer, b"small");
    expect(&mut peer, &large);
    record(&journal);
    write(&line, b"last").await;
    poll_fn(|cx| line.poll_shutdown(cx)).await.unwrap();
    assert_eq!(journal.waiting(), of_two * 2);
    expect(&mut peer, b"last");
    assert_eq!(peer.read(&mut [0]).unwrap(), 0);
}

#[tokio::test]
async fn what_answers_nothing_waits_for_no_record_but_stays_in_order() {
    let (_rig, journal) = journal();
    let (line, mut peer) = connected().await;
    record(&journal);
    write_as(&line, b"a frame", false).await;
    expect(&mut peer, b"a frame");
    assert_eq!(journal.waiting(), 0);

    write(&line, b"an answer").await;
    expect_nothing(&mut peer);
    write_as(&line, b"another frame", false).await;
    assert!(journal.waiting() > 0);
    expect(&mut peer, b"an answeranother frame");
}

#[tokio::test]
async fn an_open_outbox_sends_by_itself_and_a_closed_one_holds_nothing() {
    let (_rig, journal) = journal();
    let (line, mut peer) = connected().await;
    let outbox = Outbox::open(journal.clone());
    tokio::task::yield_now().await;
    for round in 1..4 {
        record(&journal);
        write(&line, b"again").await;
        expect_nothing(&mut peer);
        tokio::task::yield_now().await;
        expect(&mut peer, b"again");
        assert_eq!(journal.records(), round);
        assert!(journal.waiting() > 0);
    }
    let waiting = journal.waiting();
    record(&journal);
    write(&line, b"last").await;
    drop(outbox);
    expect(&mut peer, b"last");
    assert_eq!(journal.waiting(), waiting / 3 * 4);
    // The runtime may end before anything else has its turn.
    record(&journal);
    assert_eq!(journal.waiting(), waiting / 3 * 5);
}

#[tokio::test]
async fn what_is_held_does_not_arrive_after_a_reset() {
    let (_rig, journal) = journal();
    let (line, mut peer) = connected().await;
    record(&journal);
    write(&line, b"half").await;
    line.reset().unwrap();
    drop(line);
    let_go();
    assert_eq!(peer.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[tokio::test]
async fn what_a_client_does_not_take_is_left_to_its_connection() {
    let (_rig, journal) = journal();
    let (line, mut peer) = connected().await;
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut cx = Context::from_waker(&waker);
    let mut sent = vec![];
    while woken.0.load(SeqCst) == 0 {
        let part = format!("{:9}\n", sent.len()).repeat(MOST_HELD / 10);
        record(&journal);
        let wrote = line.poll_write(&mut cx, &[IoSlice::new(part.as_bytes())], true);
        assert!(matches!(wrote, Poll::Ready(Ok(wrote)) if wrote == part.len()));
        sent.extend_from_slice(part.as_bytes());
        let_go();
        assert!(sent.len() < 1 << 28, "it takes everything");
    }
    // Also while a record of another connection waits, it is waited for.
    record(&journal);
    assert!(line.poll_flush(&mut cx).is_pending());
    let length = sent.len();
    let reading = std::thread::spawn(move || {
        let mut read = vec![0; length];
        peer.read_exact(&mut read).map(|()| read)
    });
    poll_fn(|cx| line.poll_flush(cx)).await.unwrap();
    assert!(reading.join().unwrap().unwrap() == sent, "other bytes came");
}

#[tokio::test]
async fn a_client_that_is_gone_is_known_at_the_next_write() {
    let (_rig, journal) = journal();
    let (line, peer) = connected().await;
    drop(peer);
    for _ in 0..1_000 {
        record(&journal);
        let bytes = [IoSlice::new(b"unheard")];
        let wrote = poll_fn(|cx| line.poll_write(cx, &bytes, true)).await;
        let_go();
        let flushed = poll_fn(|cx| line.poll_flush(cx)).await;
        if wrote.is_err() || flushed.is_err() {
            return;
        }
    }
    panic!("it is never told");
}
