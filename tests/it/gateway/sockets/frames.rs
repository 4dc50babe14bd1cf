//! Frames that no client should send, and ends that do not read (RELIABILITY
//! G-129).

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::{PATH, app};
use crate::{
    gateway::recorded,
    streams::{FREE, address, put_in_front},
    support::{
        TestApp,
        websocket::{BINARY, PING, SWITCHING, TEXT, Upstream, Wire, frame},
    },
};

const PUBLIC: &str = "auth = 'public'";

/// The header of a client's frame of this length, and nothing of its payload.
fn header(first: u8, length: u64) -> Vec<u8> {
    let mut bytes = vec![first, 0xff];
    bytes.extend(length.to_be_bytes());
    bytes.extend([0; 4]);
    bytes
}

#[tokio::test]
async fn a_client_that_breaks_the_rules_is_told_and_its_frame_is_not_passed_on() {
    let upstream = Upstream::start().await;
    let limits = "websocket = { per_credential = 100, max_frame_bytes = 262144, \
        max_message_bytes = 1048576 }";
    let app = TestApp::configured(FREE).await;
    put_in_front(&app, &upstream.url(), &format!("{limits}\n{PUBLIC}"));
    let quarter = vec![0; 262_144];
    let fragments = |first: u8| {
        let rest = frame(0x00, true, &quarter).repeat(4);
        [frame(first, true, &quarter), rest].concat()
    };
    let (protocol, size) = ((1002, "protocol"), (1009, "too_big"));
    let chatter = (1008, "too_many_control_frames");
    for (what, bytes, told, passed) in [
        ("16 MiB", header(BINARY, 16 << 20), size, 0),
        ("one byte too many", header(TEXT, 262_145), size, 0),
        ("2^62 bytes", header(TEXT, 1 << 62), size, 0),
        ("fragments", fragments(0x01), size, frame(0, true, &quarter).len() * 4),
        ("2^63 bytes", header(TEXT, 1 << 63), protocol, 0),
        ("unmasked", frame(TEXT, false, b"hello"), protocol, 0),
        ("reserved opcode", frame(0x83, true, b"hello"), protocol, 0),
        ("reserved control", frame(0x8b, true, b"hello"), protocol, 0),
        ("long ping", frame(PING, true, &[0; 126]), protocol, 0),
        ("ping in fragments", frame(0x09, true, b"p"), protocol, 0),
        ("nothing to continue", frame(0x80, true, b"x"), protocol, 0),
        (
            "message in a message",
            [frame(0x01, true, b"x"), frame(TEXT, true, b"y")].concat(),
            protocol,
            frame(0x01, true, b"x").len(),
        ),
        ("pings", frame(PING, true, b"").repeat(101), chatter, 600),
        (
            "empty fragments",
            { [frame(0x01, true, b"x"), frame(0x00, true, b"").repeat(101)].concat() },
            chatter,
            607,
        ),
        ("not HTTP either", b"GET / HTTP/1.1\r\n\r\n".to_vec(), protocol, 0),
    ] {
        let mut wire = Wire::open(address(&app), PATH, "").await;
        wire.echoes("hello").await;
        let before = upstream.bytes();
        wire.send(&bytes).await;
        let (code, reason) = wire.closed().await;
        assert_eq!((code, &*reason), told, "{what}");
        wire.rest().await;
        upstream.until_open(0).await;
        // The close that it was told is ours.
        let close = 8;
        assert_eq!(upstream.closes(), [1001], "{what}");
        assert_eq!(upstream.bytes() - before, passed + close, "{what}");
    }
}

/// What may be compressed is not ours to judge.
#[tokio::test]
async fn any_bytes_of_a_good_frame_pass() {
    let upstream = Upstream::start().await;
    let app = app(&upstream, PUBLIC).await;
    let mut wire = Wire::open(address(&app), PATH, "").await;
    for (first, payload) in [
        (TEXT, b"\xff\xfe\x00".to_vec()),
        (BINARY, (0..=255).collect()),
        // Compressed, as its first bit says.
        (0xc1, b"\xf2\x48\xcd\xc9\xc9\x07\x00".to_vec()),
        (TEXT, vec![]),
        (BINARY, vec![7; 200_000]),
    ] {
        wire.send(frame(first, true, &payload)).await;
        assert_eq!(wire.next().await, Some((first, payload)));
    }
}

/// One that writes all the time is made to wait when the other end does not
/// read, so what lies between them stays small.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_that_does_not_read_makes_the_other_wait() {
    const PIECE: usize = 64 * 1024;
    /// Kernels buffer some MiB at each of four ends.
    const MOST: usize = 32 << 20;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = TestApp::configured(FREE).await;
    put_in_front(&app, &url, PUBLIC);
    let wrote = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = std::sync::Arc::clone(&wrote);
    let wrote = || wrote.load(std::sync::atomic::Ordering::SeqCst);
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = vec![];
        while !request.ends_with(b"\r\n\r\n") {
            socket.read_buf(&mut request).await.unwrap();
        }
        socket.write_all(SWITCHING.as_bytes()).await.unwrap();
        let piece = frame(BINARY, false, &vec![9; PIECE]);
        while socket.write_all(&piece).await.is_ok() {
            counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    });
    let mut wire = Wire::open(address(&app), PATH, "").await;
    // Until it is stuck.
    let (mut last, mut since) = (usize::MAX, Instant::now());
    while since.elapsed() < Duration::from_millis(500) {
        if last != wrote() {
            (last, since) = (wrote(), Instant::now());
        }
        assert!(last.saturating_mul(PIECE) < MOST || last == usize::MAX, "{last} pieces");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Nothing of it is lost, and it goes on.
    for _ in 0..last * 2 {
        assert_eq!(wire.next().await, Some((BINARY, vec![9; PIECE])));
    }
    wire.reset();
    let record = recorded(&app, 1).await.remove(0);
    assert_eq!(record["outcome"], "aborted");
    assert!(record["bytes_out"].as_u64().unwrap() >= (last * 2 * PIECE) as u64, "{record}");
}
