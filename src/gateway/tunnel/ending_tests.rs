use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, sleep, timeout},
};

use super::{
    CHATTER_WINDOW, Cause, Open, Policy,
    frame::{Fault, Opcode, Side, Sizes},
    test_support::{Frame, Rig, text},
};
use crate::domain::kill::KillReason;

const SECOND: Duration = Duration::from_secs(1);

fn ping() -> Frame {
    Frame::new(Opcode::Ping, b"")
}

async fn hears_nothing_for(stream: &mut (impl tokio::io::AsyncRead + Unpin), span: Duration) {
    let mut byte = [0];
    assert!(timeout(span, stream.read(&mut byte)).await.is_err(), "something arrived");
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_asked_twice_and_then_given_up() {
    let mut rig = Rig::new(Policy::default());
    let start = Instant::now();
    for seconds in [30, 60] {
        assert_eq!(rig.at_client().await, Some(ping()));
        assert_eq!(start.elapsed().as_secs(), seconds);
    }
    assert_eq!(rig.at_client().await, Some(Frame::close(1001, "no_answer")));
    assert_eq!(start.elapsed().as_secs(), 90);
    assert_eq!(rig.at_upstream().await, Some(Frame::close(1001, "")));
    assert_eq!(rig.ended().await.cause, Cause::Silent);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_answers_stays_and_its_pongs_go_through() {
    let policy = Policy { idle: None, ..Policy::default() };
    let mut rig = Rig::new(policy);
    for _ in 0..20 {
        assert_eq!(rig.at_client().await, Some(ping()));
        sleep(Duration::from_secs(29)).await;
        rig.client_says(&Frame::new(Opcode::Pong, b"")).await;
        assert_eq!(rig.at_upstream().await, Some(Frame::new(Opcode::Pong, b"")));
    }
    rig.upstream_says(&text("still here")).await;
    assert_eq!(rig.at_client().await, Some(text("still here")));
}

#[tokio::test(start_paused = true)]
async fn no_ping_stands_within_a_frame_and_one_that_waits_is_not_missed() {
    let mut rig = Rig::new(Policy { idle: None, ..Policy::default() });
    let slow = text(&"x".repeat(100));
    let bytes = slow.bytes(Side::Upstream);
    rig.upstream.write_all(&bytes[..50]).await.unwrap();
    sleep(Duration::from_secs(200)).await;
    rig.upstream.write_all(&bytes[50..]).await.unwrap();
    assert_eq!(rig.at_client().await, Some(slow));
    assert_eq!(rig.at_client().await, Some(ping()));
    rig.client_says(&text("here")).await;
    assert_eq!(rig.at_upstream().await, Some(text("here")));
}

#[tokio::test(start_paused = true)]
async fn pongs_alone_keep_no_tunnel_open_for_ever() {
    let mut rig = Rig::new(Policy::default());
    let start = Instant::now();
    loop {
        match rig.at_client().await {
            Some(frame) if frame == ping() => {
                rig.client_says(&Frame::new(Opcode::Pong, b"")).await;
            }
            frame => {
                assert_eq!(frame, Some(Frame::close(1001, "idle")));
                break;
            }
        }
    }
    assert_eq!(start.elapsed().as_secs(), 300);
    assert_eq!(rig.ended().await.cause, Cause::Idle);

    // What an application says keeps it open, from either side.
    let mut rig = Rig::new(Policy::default());
    for _ in 0..4 {
        sleep(Duration::from_secs(25)).await;
        rig.client_says(&text("a")).await;
        assert_eq!(rig.at_upstream().await, Some(text("a")));
    }
    for _ in 0..4 {
        sleep(Duration::from_secs(25)).await;
        rig.client_says(&Frame::new(Opcode::Ping, b"")).await;
        rig.upstream_says(&text("a")).await;
        assert_eq!(rig.at_client().await, Some(text("a")));
    }
    sleep(Duration::from_secs(25)).await;
    rig.client_says(&text("b")).await;
    rig.kill.trip(KillReason::Cut);
    assert_eq!(rig.ended().await.cause, Cause::Killed(KillReason::Cut));
}

#[tokio::test(start_paused = true)]
async fn its_life_ends_at_the_instant() {
    let start = Instant::now();
    let policy = Policy { max_life: Some(start + 10 * SECOND), ..Policy::default() };
    let mut rig = Rig::new(policy);
    assert_eq!(rig.at_client().await, Some(Frame::close(1001, "open_too_long")));
    assert_eq!(start.elapsed(), 10 * SECOND);
    assert_eq!(rig.ended().await.cause, Cause::TooOld);
}

#[tokio::test(start_paused = true)]
async fn every_reason_has_its_code_and_comes_at_once() {
    for (reason, code, text) in [
        (KillReason::Revoked, 1008, "revoked"),
        (KillReason::Expired, 1008, "expired"),
        (KillReason::Limit, 1008, "limit"),
        (KillReason::Cut, 1008, "cut"),
        (KillReason::GoingAway, 1001, "going_away"),
    ] {
        let mut rig = Rig::new(Policy::default());
        sleep(SECOND).await;
        let start = Instant::now();
        rig.kill.trip(reason);
        rig.kill.trip(KillReason::GoingAway);
        assert_eq!(rig.at_client().await, Some(Frame::close(code, text)));
        assert_eq!(rig.at_upstream().await, Some(Frame::close(1001, "")));
        assert_eq!(start.elapsed(), Duration::ZERO);
        // Both answer: nothing is waited for.
        rig.client_says(&Frame::close(code, "")).await;
        rig.upstream_says(&Frame::close(1001, "")).await;
        assert_eq!((rig.at_client().await, rig.at_upstream().await), (None, None));
        assert_eq!(start.elapsed(), Duration::ZERO);
        let ended = rig.ended().await;
        assert_eq!(ended.cause, Cause::Killed(reason));
        assert_eq!((ended.bytes_in, ended.bytes_out), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_waits_a_second_for_a_frame_and_a_second_for_an_answer() {
    let frame = text("0123456789");
    let bytes = frame.bytes(Side::Upstream);

    // The rest of the frame comes in time.
    let mut rig = Rig::new(Policy::default());
    rig.upstream.write_all(&bytes[..5]).await.unwrap();
    sleep(SECOND).await;
    let start = Instant::now();
    rig.kill.trip(KillReason::Revoked);
    sleep(SECOND / 2).await;
    rig.upstream.write_all(&bytes[5..]).await.unwrap();
    rig.upstream_says(&text("too late")).await;
    assert_eq!(rig.at_client().await, Some(frame));
    assert_eq!(rig.at_client().await, Some(Frame::close(1008, "revoked")));
    assert_eq!(rig.at_client().await, None);
    assert_eq!(start.elapsed(), SECOND * 3 / 2);

    // It does not.
    let mut rig = Rig::new(Policy::default());
    rig.upstream.write_all(&bytes[..5]).await.unwrap();
    sleep(SECOND).await;
    let start = Instant::now();
    rig.kill.trip(KillReason::Revoked);
    let mut seen = vec![];
    rig.client.read_to_end(&mut seen).await.unwrap();
    assert_eq!(seen, &bytes[..5]);
    assert_eq!(start.elapsed(), SECOND);
    assert_eq!(rig.ended().await.bytes_out, 5);
}

/// A header that is not whole was not passed on, so the boundary is before it.
#[tokio::test(start_paused = true)]
async fn half_a_header_holds_nothing_up() {
    let mut rig = Rig::new(Policy::default());
    let bytes = text(&"x".repeat(70_000)).bytes(Side::Upstream);
    rig.upstream.write_all(&bytes[..9]).await.unwrap();
    hears_nothing_for(&mut rig.client, SECOND).await;
    let start = Instant::now();
    rig.kill.trip(KillReason::Revoked);
    assert_eq!(rig.at_client().await, Some(Frame::close(1008, "revoked")));
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn either_side_may_close_and_what_it_said_before_arrives() {
    for first in [Side::Client, Side::Upstream] {
        let mut rig = Rig::new(Policy::default());
        let start = Instant::now();
        let bye = Frame::close(4321, "done");
        if first == Side::Client {
            rig.client_says(&text("last words")).await;
            rig.client_says(&bye).await;
            rig.client_says(&text("after the end")).await;
            assert_eq!(rig.at_upstream().await, Some(text("last words")));
            assert_eq!(rig.at_upstream().await, Some(bye.clone()));
            rig.upstream_says(&text("and mine")).await;
            rig.upstream_says(&bye).await;
            assert_eq!(rig.at_client().await, Some(text("and mine")));
            assert_eq!(rig.at_client().await, Some(bye));
        } else {
            rig.upstream_says(&text("last words")).await;
            rig.upstream_says(&bye).await;
            assert_eq!(rig.at_client().await, Some(text("last words")));
            assert_eq!(rig.at_client().await, Some(bye.clone()));
            rig.client_says(&text("and mine")).await;
            rig.client_says(&bye).await;
            assert_eq!(rig.at_upstream().await, Some(text("and mine")));
            assert_eq!(rig.at_upstream().await, Some(bye));
        }
        assert_eq!((rig.at_client().await, rig.at_upstream().await), (None, None));
        assert_eq!(start.elapsed(), Duration::ZERO);
        let ended = rig.ended().await;
        assert_eq!(ended.cause, Cause::Closed(first));
        assert_eq!(ended.messages_in + ended.messages_out, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_that_is_not_answered_is_answered_by_us() {
    let mut rig = Rig::new(Policy::default());
    let start = Instant::now();
    rig.client_says(&Frame::close(1000, "")).await;
    assert_eq!(rig.at_upstream().await, Some(Frame::close(1000, "")));
    // No Ping: it has said goodbye.
    assert_eq!(rig.at_client().await, Some(Frame::close(1000, "")));
    assert_eq!(start.elapsed().as_secs(), 10);
    assert_eq!(rig.ended().await.cause, Cause::Closed(Side::Client));
}

#[tokio::test(start_paused = true)]
async fn whoever_leaves_takes_the_other_along() {
    let bytes = text("half of it").bytes(Side::Client);
    for (whole, said) in [(true, &bytes[..]), (false, &bytes[..8])] {
        // The client, with the last that it said still on its way.
        let mut rig = Rig::with(Policy::default(), 4, Open);
        let start = Instant::now();
        let Rig { mut client, mut upstream, relay, kill: _kill } = rig;
        client.write_all(&said[..4]).await.unwrap();
        let rest = said[4..].to_vec();
        tokio::spawn(async move {
            client.write_all(&rest).await.unwrap();
        });
        let mut seen = vec![];
        upstream.read_to_end(&mut seen).await.unwrap();
        assert_eq!(seen, said);
        assert!(start.elapsed() < SECOND);
        drop(upstream);
        let ended = relay.await.unwrap();
        assert_eq!(ended.cause, Cause::Gone(Side::Client));
        assert_eq!(ended.messages_in, u64::from(whole));
        // The upstream.
        rig = Rig::new(Policy::default());
        let Rig { mut client, mut upstream, relay, kill: _kill } = rig;
        let bytes = text("half of it").bytes(Side::Upstream);
        let said = &bytes[..said.len() - 4];
        upstream.write_all(said).await.unwrap();
        drop(upstream);
        let mut seen = vec![];
        client.read_to_end(&mut seen).await.unwrap();
        assert_eq!(seen, said);
        drop(client);
        assert_eq!(relay.await.unwrap().cause, Cause::Gone(Side::Upstream));
    }
}

/// A client that has closed and will not read on still gets its answer through
/// its half of the connection.
#[tokio::test(start_paused = true)]
async fn a_half_closed_client_gets_the_answer_to_its_close() {
    let mut rig = Rig::new(Policy::default());
    rig.client_says(&Frame::close(1000, "")).await;
    rig.client.shutdown().await.unwrap();
    assert_eq!(rig.at_upstream().await, Some(Frame::close(1000, "")));
    sleep(5 * SECOND).await;
    rig.upstream_says(&text("flushed")).await;
    rig.upstream_says(&Frame::close(1000, "")).await;
    assert_eq!(rig.at_client().await, Some(text("flushed")));
    assert_eq!(rig.at_client().await, Some(Frame::close(1000, "")));
    assert_eq!(rig.ended().await.cause, Cause::Closed(Side::Client));
}

#[tokio::test(start_paused = true)]
async fn a_side_that_takes_nothing_is_cut_off() {
    let big = vec![0; 100_000];
    let mut rig = Rig::with(Policy::default(), 100, Open);
    let start = Instant::now();
    let bytes = Frame::new(Opcode::Binary, &big).bytes(Side::Upstream);
    assert!(rig.upstream.write_all(&bytes).await.is_err());
    assert_eq!(start.elapsed().as_secs(), 31);
    assert_eq!(rig.ended().await.cause, Cause::Stalled(Side::Client));

    let mut rig = Rig::with(Policy::default(), 100, Open);
    let start = Instant::now();
    let bytes = Frame::new(Opcode::Binary, &big).bytes(Side::Client);
    assert!(rig.client.write_all(&bytes).await.is_err());
    assert!((31..=32).contains(&start.elapsed().as_secs()));
    let mut seen = vec![];
    rig.client.read_to_end(&mut seen).await.unwrap();
    assert_eq!(seen, Frame::close(1011, "upstream_failed").bytes(Side::Upstream));
    assert_eq!(rig.ended().await.cause, Cause::Stalled(Side::Upstream));
}

#[tokio::test(start_paused = true)]
async fn a_fault_ends_the_tunnel_and_none_of_it_passes() {
    let sizes = Sizes { frame: 100, message: 150 };
    for (bytes, fault, code, reason) in [
        (&b"\x81\x05hello"[..], Fault::Unmasked, 1002, "protocol"),
        (b"\x83\x80....", Fault::ReservedOpcode, 1002, "protocol"),
        (b"\x09\x80....", Fault::FragmentedControl, 1002, "protocol"),
        (b"\x89\xfe....", Fault::LongControl, 1002, "protocol"),
        (b"\x80\x80....", Fault::NothingToContinue, 1002, "protocol"),
        (b"\x82\xff\x80.......", Fault::LengthOverflow, 1002, "protocol"),
        (b"\x82\xfe\x00\x65....", Fault::FrameTooBig, 1009, "too_big"),
    ] {
        let mut rig = Rig::new(Policy { sizes, ..Policy::default() });
        rig.client_says(&text("good")).await;
        rig.client.write_all(bytes).await.unwrap();
        assert_eq!(rig.at_client().await, Some(Frame::close(code, reason)));
        assert_eq!(rig.at_upstream().await, Some(text("good")));
        assert_eq!(rig.at_upstream().await, Some(Frame::close(1001, "")));
        assert_eq!(rig.at_upstream().await, None);
        let ended = rig.ended().await;
        assert_eq!(ended.cause, Cause::Fault(Side::Client, fault));
        assert_eq!(ended.messages_in, 1);
    }
    let mut rig = Rig::new(Policy { sizes, ..Policy::default() });
    rig.client_says(&Frame::fragment(Opcode::Binary, &[0; 100])).await;
    rig.client_says(&Frame::new(Opcode::Continuation, &[0; 51])).await;
    assert_eq!(rig.at_client().await, Some(Frame::close(1009, "too_big")));
    assert_eq!(rig.ended().await.cause, Cause::Fault(Side::Client, Fault::MessageTooBig));

    for (bytes, fault) in [
        (&b"\x81\x85....hello"[..], Fault::Masked),
        (b"\x8f\x00", Fault::ReservedOpcode),
        (b"HTTP/1.1 200 OK\r\n\r\n", Fault::FragmentedControl),
    ] {
        let mut rig = Rig::new(Policy { sizes, ..Policy::default() });
        // The limits are the client's.
        let big = Frame::new(Opcode::Binary, &[0; 5000]);
        rig.upstream_says(&big).await;
        rig.upstream.write_all(bytes).await.unwrap();
        assert_eq!(rig.at_client().await, Some(big));
        assert_eq!(rig.at_client().await, Some(Frame::close(1011, "upstream_failed")));
        assert_eq!(rig.at_client().await, None);
        assert_eq!(rig.at_upstream().await, Some(Frame::close(1002, "")));
        assert_eq!(rig.ended().await.cause, Cause::Fault(Side::Upstream, fault));
    }
}

#[tokio::test(start_paused = true)]
async fn frames_that_carry_nothing_are_limited() {
    let policy = Policy { max_chatter: 10, ..Policy::default() };
    let empty = [Frame::fragment(Opcode::Text, b""), Frame::fragment(Opcode::Continuation, b"")];
    for frames in [[Frame::new(Opcode::Ping, b"x"), Frame::new(Opcode::Pong, b"")], empty] {
        // As many as that, again and again.
        let mut rig = Rig::new(policy);
        rig.client_says(&frames[0]).await;
        for round in 0..3 {
            for _ in u32::from(round == 0)..10 {
                rig.client_says(&frames[1]).await;
            }
            sleep(CHATTER_WINDOW).await;
        }
        rig.upstream_says(&text("still here")).await;
        assert_eq!(rig.at_client().await, Some(text("still here")));
        for _ in 0..11 {
            rig.client_says(&frames[1]).await;
        }
        let close = Frame::close(1008, "too_many_control_frames");
        assert_eq!(rig.at_client().await, Some(close));
        assert_eq!(rig.ended().await.cause, Cause::Chatter);
    }
    // Messages are another matter, empty ones too: they are charged.
    let mut rig = Rig::new(policy);
    for _ in 0..100 {
        rig.client_says(&text("")).await;
    }
    rig.client_says(&Frame::close(1000, "")).await;
    rig.upstream_says(&Frame::close(1000, "")).await;
    assert_eq!(rig.at_client().await, Some(Frame::close(1000, "")));
    assert_eq!(rig.ended().await.messages_in, 100);
}
