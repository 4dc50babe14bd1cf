//! A process that may have little memory (RELIABILITY G-45).

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use super::{Probing, address, gateway, refused};
use crate::{
    process::{Process, alone, upstream::Slow},
    support::LATE,
};

const MIB: u64 = 1024 * 1024;
/// What it may have more than it has when idle.
const ROOM: u64 = 48 * MIB;
/// Far more than fit into that, each with a large head.
const CONNECTIONS: usize = 1500;
const AT_ONCE: usize = 10;

/// Bytes of it that belong to no file.
fn own(process: &Process) -> u64 {
    let status = format!("/proc/{}/status", process.child.id());
    let status = std::fs::read_to_string(status).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Asks for something that takes long, and leaves it at that.
async fn ask(process: &Process, padding: &str) -> Option<TcpStream> {
    let mut socket = TcpStream::connect(address(process)).await.ok()?;
    let head = format!("GET /x HTTP/1.1\r\nhost: a\r\nx-padding: {padding}\r\n\r\n");
    socket.write_all(head.as_bytes()).await.ok()?;
    Some(socket)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn near_its_limit_of_memory_it_refuses_and_lives_on() {
    let _alone = alone().await;
    let slow = Slow::start(Duration::from_mins(5)).await;
    let idle = own(&gateway(&slow.url(), &[]).await);
    let most = idle + ROOM;
    let limit = [("SERVER_MAX_MEMORY_BYTES", &*most.to_string())];
    let process = gateway(&slow.url(), &limit).await;
    let probing = Probing::start(&process, "/health/live");
    let padding = "x".repeat(7 * 1024);
    let (mut held, mut peak) = (vec![], 0);
    for _ in 0..CONNECTIONS / AT_ONCE {
        for _ in 0..AT_ONCE {
            held.extend(ask(&process, &padding).await);
        }
        sleep(Duration::from_millis(20)).await;
        peak = peak.max(own(&process));
    }
    let (let_in, turned_away) = (slow.seen(), refused(&process, "memory").await);
    println!(
        "{} KiB idle, {} KiB allowed, {} KiB at most; {let_in} let in, {turned_away} refused",
        idle / 1024,
        most / 1024,
        peak / 1024
    );
    assert!(peak < most + ROOM / 4, "{peak} of {most}");
    assert!(let_in > 50, "{let_in}");
    assert!(turned_away > 50, "{turned_away}");
    let mut answer = vec![0; 512];
    let last = held.last_mut().unwrap();
    let read = timeout(LATE, last.read(&mut answer)).await.unwrap().unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]).to_ascii_lowercase();
    assert!(
        answer.starts_with("http/1.1 503 ") && answer.contains("\r\nretry-after: "),
        "{answer}"
    );
    probing.assert_within(Duration::from_millis(500) + LATE);

    drop(held);
    let over = Instant::now();
    while {
        let _asked = ask(&process, "").await;
        sleep(Duration::from_millis(200)).await;
        slow.seen() == let_in
    } {
        assert!(over.elapsed() < Duration::from_secs(10) + LATE, "{} of {most}", own(&process));
    }
    println!("well again after {:.1?} with {} KiB", over.elapsed(), own(&process) / 1024);
}
