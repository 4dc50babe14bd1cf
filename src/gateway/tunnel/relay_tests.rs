use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::task::noop_waker;
use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
    runtime::Runtime,
    time::Instant,
};

use super::{
    ByFuture, Cause, Gate, Open, Passed, Policy, Refusal,
    buffer::SIZE,
    frame::{Opcode, Side},
    relay::Relay,
    test_support::{Frame, Rig, bytes_of, chunks, cuts, frames, messages_in, text},
};
use crate::domain::kill::{KillReason, KillSwitch};

/// Its clock moves only while everything waits.
fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

/// Frames may be bigger than by default, so that the strategy's pass.
fn generous() -> Policy {
    let sizes = super::frame::Sizes { frame: 1 << 20, message: 1 << 22 };
    Policy { sizes, max_chatter: 1000, ..Policy::default() }
}

async fn write_cut(mut to: impl tokio::io::AsyncWrite + Unpin, bytes: &[u8], cuts: &[usize]) {
    for chunk in chunks(bytes, cuts) {
        if to.write_all(chunk).await.is_err() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_byte_arrives_as_it_was_and_every_message_is_counted(
        (mut up, mut down) in (frames(), frames()),
        (up_cuts, down_cuts) in (cuts(), cuts()),
        capacity in prop_oneof![1usize..40, 40usize..100_000],
    ) {
        runtime().block_on(async {
            let messages = (messages_in(&up), messages_in(&down));
            up.push(Frame::close(1000, "bye"));
            down.push(Frame::close(1000, ""));
            let (up, down) = (bytes_of(&up, Side::Client), bytes_of(&down, Side::Upstream));
            let Rig { client, upstream, kill, relay } = Rig::with(generous(), capacity, Open);
            let (mut from_client, to_client) = tokio::io::split(client);
            let (mut from_upstream, to_upstream) = tokio::io::split(upstream);
            let (mut at_client, mut at_upstream) = (vec![], vec![]);
            let ((), (), read_down, read_up) = tokio::join!(
                write_cut(to_client, &up, &up_cuts),
                write_cut(to_upstream, &down, &down_cuts),
                from_client.read_to_end(&mut at_client),
                from_upstream.read_to_end(&mut at_upstream),
            );
            read_down.unwrap();
            read_up.unwrap();
            let ended = relay.await.unwrap();
            assert!(at_upstream == up, "{} and {} bytes", at_upstream.len(), up.len());
            assert!(at_client == down, "{} and {} bytes", at_client.len(), down.len());
            assert!(matches!(ended.cause, Cause::Closed(_)), "{ended:?}");
            assert_eq!((ended.messages_in, ended.messages_out), messages);
            assert_eq!((ended.bytes_in, ended.bytes_out), (up.len() as u64, down.len() as u64));
            drop(kill);
        });
    }

    /// Each end sees a prefix of what the other one sent, and then our Close at a
    /// frame's boundary, or nothing more.
    #[test]
    fn a_kill_at_any_moment_leaves_no_frame_inside_a_frame(
        (up, down) in (frames(), frames()),
        (up_cuts, down_cuts) in (cuts(), cuts()),
        capacity in prop_oneof![1usize..40, 40usize..20_000],
        // Where the upstream stops in the middle of what it says, and when the
        // switch is tripped.
        stop in any::<prop::sample::Index>(),
        yields in 0usize..400,
    ) {
        runtime().block_on(async {
            let (up, down) = (bytes_of(&up, Side::Client), bytes_of(&down, Side::Upstream));
            let said = &down[..stop.index(down.len() + 1)];
            let Rig { client, upstream, kill, relay } = Rig::with(generous(), capacity, Open);
            let (mut from_client, to_client) = tokio::io::split(client);
            let (mut from_upstream, to_upstream) = tokio::io::split(upstream);
            let (mut at_client, mut at_upstream) = (vec![], vec![]);
            let started = Instant::now();
            let killed = async {
                for _ in 0..yields {
                    tokio::task::yield_now().await;
                }
                kill.trip(KillReason::Revoked);
                relay.await.unwrap()
            };
            let ((), (), _, _, ended) = tokio::join!(
                write_cut(to_client, &up, &up_cuts),
                write_cut(to_upstream, said, &down_cuts),
                from_client.read_to_end(&mut at_client),
                from_upstream.read_to_end(&mut at_upstream),
                killed,
            );
            assert!(started.elapsed() <= Duration::from_secs(2));
            assert_eq!(ended.cause, Cause::Killed(KillReason::Revoked));
            let bytes_out = usize::try_from(ended.bytes_out).unwrap();
            let close = Frame::close(1008, "revoked").bytes(Side::Upstream);
            check_end(&at_client, &down, bytes_out, Side::Upstream, |rest| rest == close);
            let bytes_in = usize::try_from(ended.bytes_in).unwrap();
            // Its mask is random.
            let is_close = |rest: &[u8]| {
                rest.len() == 8
                    && rest[..2] == [0x88, 0x82]
                    && [rest[6] ^ rest[2], rest[7] ^ rest[3]] == 1001u16.to_be_bytes()
            };
            check_end(&at_upstream, &up, bytes_in, Side::Client, is_close);
        });
    }
}

fn check_end(
    seen: &[u8],
    sent: &[u8],
    passed: usize,
    from: Side,
    is_close: impl Fn(&[u8]) -> bool,
) {
    assert!(seen.len() >= passed && seen[..passed] == sent[..passed]);
    let rest = &seen[passed..];
    let mut parser = super::frame::Parser::new(from, super::frame::Sizes::UNLIMITED);
    let mut at = 0;
    while at < passed {
        at += if parser.at_boundary() {
            let header = parser.peek(&sent[at..]).unwrap().unwrap();
            parser.begin(&header);
            header.size
        } else {
            parser.payload(passed - at)
        };
    }
    assert_eq!(at, passed, "cut within a header");
    if parser.at_boundary() {
        assert!(is_close(rest), "{rest:02x?}");
    } else {
        assert!(rest.is_empty(), "a frame inside a frame: {rest:02x?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_who_takes_nothing_costs_one_buffer_and_stops_the_sender() {
    const CAPACITY: usize = 1000;
    let mut rig = Rig::with(Policy::default(), CAPACITY, Open);
    let big = Frame::new(Opcode::Binary, &vec![7; 1 << 20]).bytes(Side::Upstream);
    let taken = AtomicUsize::new(0);
    let mut send = pin!(async {
        for chunk in big.chunks(100) {
            rig.upstream.write_all(chunk).await.unwrap();
            taken.fetch_add(chunk.len(), Relaxed);
        }
    });
    assert!(tokio::time::timeout(Duration::from_secs(20), &mut send).await.is_err());
    let taken_at_rest = taken.load(Relaxed);
    assert!((SIZE..=SIZE + 2 * CAPACITY).contains(&taken_at_rest), "{taken_at_rest}");

    // It goes on where it stood.
    let mut arrived = vec![0; big.len()];
    let ((), read) = tokio::join!(send, rig.client.read_exact(&mut arrived));
    read.unwrap();
    assert!(arrived == big);
}

#[tokio::test(start_paused = true)]
async fn an_idle_tunnel_holds_no_buffer() {
    let (mut client, client_side) = duplex(100_000);
    let (mut upstream, upstream_side) = duplex(100_000);
    let (policy, mut gate, kill) = (Policy::default(), Open, KillSwitch::new());
    let mut relay = Relay::new(client_side, upstream_side, &policy, &mut gate, &kill);
    let waker = noop_waker();
    let mut cx = Context::from_waker(&waker);
    let hello = text(&"hello".repeat(1000));
    for _ in 0..3 {
        client.write_all(&hello.bytes(Side::Client)).await.unwrap();
        upstream.write_all(&hello.bytes(Side::Upstream)).await.unwrap();
        assert!(relay.poll(&mut cx).is_pending());
        assert!(!relay.holds_memory());
    }
    // All but what could not be written.
    client.write_all(&hello.bytes(Side::Client)[..3]).await.unwrap();
    assert!(relay.poll(&mut cx).is_pending());
    assert!(relay.holds_memory());
    assert!(size_of_val(&relay) < 2048, "{}", size_of_val(&relay));
}

/// Lets as many messages pass as it was told, and answers each only when it is
/// let.
struct Counted {
    left: usize,
    asked: Arc<AtomicUsize>,
    slow: bool,
    heard: Arc<Mutex<Vec<(Side, Passed)>>>,
}

impl Gate for Counted {
    fn poll_admit(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        self.slow = !self.slow;
        if !self.slow {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.asked.fetch_add(1, Relaxed);
        let admitted = self.left > 0;
        self.left = self.left.saturating_sub(1);
        Poll::Ready(if admitted { Ok(()) } else { Err(Refusal::OverLimit) })
    }

    fn passed(&mut self, from: Side, so_far: Passed) {
        self.heard.lock().unwrap().push((from, so_far));
    }
}

#[tokio::test(start_paused = true)]
async fn each_message_is_charged_once_and_nothing_of_one_too_many_passes() {
    let (asked, heard) = (Arc::new(AtomicUsize::new(0)), Arc::default());
    let gate =
        Counted { left: 3, asked: Arc::clone(&asked), slow: true, heard: Arc::clone(&heard) };
    let mut rig = Rig::with(Policy::default(), 100_000, gate);
    let passing = [
        text("one"),
        Frame::fragment(Opcode::Text, b"tw"),
        Frame::new(Opcode::Ping, b"?"),
        Frame::fragment(Opcode::Continuation, b""),
        Frame::new(Opcode::Continuation, b"o"),
        Frame::new(Opcode::Binary, b""),
    ];
    for frame in passing.iter().chain(&[text("four"), text("five")]) {
        rig.client_says(frame).await;
    }
    for frame in &passing {
        assert_eq!(rig.at_upstream().await.as_ref(), Some(frame));
    }
    assert_eq!(rig.at_upstream().await, Some(Frame::close(1001, "")));
    assert_eq!(rig.at_client().await, Some(Frame::close(1008, "limit")));
    assert_eq!(rig.at_client().await, None);
    let ended = rig.ended().await;
    assert_eq!(ended.cause, Cause::Refused(Refusal::OverLimit));
    assert_eq!(asked.load(Relaxed), 4);
    let bytes = bytes_of(&passing, Side::Client).len() as u64;
    assert_eq!((ended.messages_in, ended.bytes_in), (3, bytes));
    let heard = heard.lock().unwrap();
    assert_eq!(heard.last(), Some(&(Side::Client, Passed { messages: 3, bytes })));
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_messages_are_ten_thousand() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let admit = move || {
        let counter = Arc::clone(&counter);
        async move {
            counter.fetch_add(1, Relaxed);
            Ok(())
        }
    };
    let rig = Rig::with(Policy::default(), 5000, ByFuture::new(admit, |_, _| {}));
    let sent = bytes_of(&vec![text("tick"); 10_000], Side::Client);
    let Rig { mut client, mut upstream, kill: _kill, relay } = rig;
    let mut arrived = vec![0; sent.len()];
    let (wrote, read) = tokio::join!(client.write_all(&sent), upstream.read_exact(&mut arrived));
    wrote.and(read).unwrap();
    assert!(arrived == sent);
    drop((client, upstream));
    let ended = relay.await.unwrap();
    assert_eq!((ended.messages_in, asked.load(Relaxed)), (10_000, 10_000));
}

/// A message whose turn has not come must not hold up what comes the other way,
/// nor the end.
#[tokio::test(start_paused = true)]
async fn while_a_message_waits_all_else_goes_on() {
    struct Never;
    impl Gate for Never {
        fn poll_admit(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
            Poll::Pending
        }
    }
    let mut rig = Rig::with(Policy::default(), 100_000, Never);
    rig.client_says(&text("waits")).await;
    rig.upstream_says(&text("goes")).await;
    assert_eq!(rig.at_client().await, Some(text("goes")));
    let quiet = tokio::time::timeout(
        Duration::from_secs(5),
        poll_fn(|cx| {
            let mut byte = [0];
            let mut room = tokio::io::ReadBuf::new(&mut byte);
            tokio::io::AsyncRead::poll_read(pin!(&mut rig.upstream), cx, &mut room)
        }),
    );
    assert!(quiet.await.is_err(), "something arrived");
    rig.kill.trip(KillReason::GoingAway);
    assert_eq!(rig.at_client().await, Some(Frame::close(1001, "going_away")));
    assert_eq!(rig.at_upstream().await, Some(Frame::close(1001, "")));
    assert_eq!(rig.ended().await.messages_in, 0);
}

#[tokio::test]
async fn a_switch_wakes_its_tunnel_from_another_thread() {
    for _ in 0..200 {
        let switch = Arc::new(KillSwitch::new());
        let tripping = std::thread::spawn({
            let switch = Arc::clone(&switch);
            move || switch.trip(KillReason::Revoked)
        });
        let waiting = poll_fn(|cx| switch.poll_tripped(cx));
        let reason = tokio::time::timeout(Duration::from_secs(10), waiting).await;
        assert_eq!(reason.unwrap(), KillReason::Revoked);
        assert!(tripping.join().unwrap());
    }
}
