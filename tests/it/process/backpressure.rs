//! Large bodies pass through and are never held (RELIABILITY G-39).
//!
//! `make torture` runs the full sizes: 10 GiB down, 1 GiB up.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tokio_util::task::AbortOnDropHandle;

use super::{Process, Setup, alone};
use crate::support::raw::find;

const MIB: u64 = 1024 * 1024;
/// What the process may need for one body.
const MOST: u64 = MIB;
/// What may be under way where one side is slow: mostly the kernel's buffers of
/// two connections, up to 32 MiB each as Linux comes. Far less than any body.
const UNDER_WAY: u64 = 128 * MIB;
/// How long a slow side is slow.
const SLOW: Duration = Duration::from_millis(1500);

/// After this every job has run once.
const FIRST_RUNS: Duration = Duration::from_secs(15);
/// The step in which the allocator takes memory of a kind of objects.
const STEP_KIB: u64 = 64;

/// Bytes down and up.
fn sizes() -> (u64, u64) {
    match std::env::var_os("TOLLGATE_TORTURE") {
        Some(_) => (10 * 1024 * MIB, 1024 * MIB),
        None => (1024 * MIB, 256 * MIB),
    }
}

/// Sends as many bytes as the path says, and takes whatever comes, slowly at
/// first.
struct Origin {
    url: String,
    moved: Arc<AtomicU64>,
}

impl Origin {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let moved = Arc::new(AtomicU64::new(0));
        let count = moved.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, count.clone()));
            }
        });
        Self { url, moved }
    }
}

async fn serve(mut socket: TcpStream, moved: Arc<AtomicU64>) {
    let mut buffer = vec![];
    loop {
        let Some(end) = find(&buffer, b"\r\n\r\n") else {
            if !matches!(socket.read_buf(&mut buffer).await, Ok(1..)) {
                return;
            }
            continue;
        };
        let head = String::from_utf8(buffer.drain(..end + 4).collect()).unwrap();
        moved.store(0, SeqCst);
        let size: u64 = head.split(['/', ' ']).nth(2).unwrap().parse().unwrap();
        if head.starts_with("GET") {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n");
            socket.write_all(head.as_bytes()).await.unwrap();
            pour(&mut socket, size, &moved).await;
        } else {
            let here = buffer.len() as u64;
            buffer.clear();
            drain(&mut socket, size - here, &moved).await;
            socket.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        }
    }
}

async fn pour(socket: &mut TcpStream, size: u64, moved: &AtomicU64) {
    let block = vec![7; 256 * 1024];
    let mut left = size;
    while left > 0 {
        let part = usize::try_from(left.min(block.len() as u64)).unwrap();
        socket.write_all(&block[..part]).await.unwrap();
        left -= part as u64;
        moved.fetch_add(part as u64, SeqCst);
    }
}

/// Reads slowly at first.
async fn drain(socket: &mut TcpStream, size: u64, moved: &AtomicU64) {
    let mut block = vec![0; 256 * 1024];
    let (mut left, begun) = (size, Instant::now());
    while left > 0 {
        let slow = begun.elapsed() < SLOW && size > 16 * MIB;
        let most = if slow { 16 * 1024 } else { block.len() };
        let most = usize::try_from(left.min(most as u64)).unwrap();
        let read = socket.read(&mut block[..most]).await.unwrap();
        assert!(read > 0, "{left} bytes are missing");
        left -= read as u64;
        moved.fetch_add(read as u64, SeqCst);
        if slow {
            sleep(Duration::from_millis(10)).await;
        }
    }
}

/// The memory that is the process's own, bytes. What it shares with the page cache
/// are parts of the program: they come in when a job runs for the first time.
fn resident(id: u32) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{id}/statm")).unwrap();
    let pages: Vec<u64> = statm.split_whitespace().map(|pages| pages.parse().unwrap()).collect();
    (pages[1] - pages[2]) * 4096
}

/// The most of it while it lives, and the most that one side was ahead.
fn watch(
    process: &Process,
    ahead: impl Fn() -> u64 + Send + 'static,
) -> (AbortOnDropHandle<()>, Arc<[AtomicU64; 2]>) {
    let most: Arc<[AtomicU64; 2]> = Arc::default();
    let (seen, id) = (most.clone(), process.child.id());
    let task = tokio::spawn(async move {
        loop {
            seen[0].fetch_max(resident(id), SeqCst);
            seen[1].fetch_max(ahead(), SeqCst);
            sleep(Duration::from_millis(5)).await;
        }
    });
    (AbortOnDropHandle::new(task), most)
}

async fn download(address: SocketAddr, size: u64, taken: &AtomicU64) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!("GET /{size} HTTP/1.1\r\nHost: a\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut head = vec![];
    let end = loop {
        assert!(socket.read_buf(&mut head).await.unwrap() > 0);
        if let Some(at) = find(&head, b"\r\n\r\n") {
            break at + 4;
        }
    };
    assert!(head.starts_with(b"HTTP/1.1 200"));
    let here = (head.len() - end) as u64;
    taken.store(here, SeqCst);
    drain(&mut socket, size - here, taken).await;
}

async fn upload(address: SocketAddr, size: u64, given: &AtomicU64) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!("POST /{size} HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    pour(&mut socket, size, given).await;
    let mut answer = vec![];
    while find(&answer, b"\r\n\r\n").is_none() {
        assert!(socket.read_buf(&mut answer).await.unwrap() > 0);
    }
    assert!(answer.starts_with(b"HTTP/1.1 204"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_body_needs_no_more_memory_than_a_small_one() {
    let _alone = alone().await;
    let (down, up) = sizes();
    let origin = Origin::start().await;
    let process = Setup::sqlite()
        .set("SERVER_WORKERS", "1")
        .set("UPSTREAM_URL", &origin.url)
        .set("UPSTREAM_MOUNT", "/")
        .set("UPSTREAM_AUTH", "public")
        .set("UPSTREAM_MAX_BODY_BYTES", "2000000000")
        .serve()
        .await;
    let address: SocketAddr = process.base.strip_prefix("http://").unwrap().parse().unwrap();
    warm_up(&process, address).await;
    for (what, size) in [("down", down), ("up", up)] {
        let above = measure(&process, &origin, address, (what, size)).await;
        assert!(above < MOST, "{what}: {} KiB", above / 1024);
    }
}

/// Small bodies, until they need no more than those before: the code, the pools, and
/// what each job does at its first run are there before anything is measured. What
/// only a large body needs is not.
///
/// # Panics
/// Where that does not come: then there is something of each body that stays.
async fn warm_up(process: &Process, address: SocketAddr) {
    const ROUNDS: usize = 100;
    let begun = Instant::now();
    let mut needed = vec![];
    let mut quiet = 0;
    while quiet < 3 || begun.elapsed() < FIRST_RUNS {
        assert!(needed.len() < ROUNDS, "it grows with each body, KiB: {needed:?}");
        let (watching, most) = watch(process, || 0);
        for _ in 0..10 {
            download(address, MIB, &AtomicU64::new(0)).await;
            upload(address, MIB, &AtomicU64::new(0)).await;
        }
        sleep(Duration::from_millis(500)).await;
        drop(watching);
        let most = most[0].load(SeqCst) / 1024;
        let before = needed.iter().max().copied().unwrap_or(0);
        quiet = if most <= before + STEP_KIB { quiet + 1 } else { 0 };
        needed.push(most);
    }
}

/// What the process needed for one body beside what it had, bytes.
async fn measure(
    process: &Process,
    origin: &Origin,
    address: SocketAddr,
    (what, size): (&str, u64),
) -> u64 {
    let (base, begun) = (resident(process.child.id()), Instant::now());
    let client = Arc::new(AtomicU64::new(0));
    let (here, there) = (client.clone(), origin.moved.clone());
    let is_down = what == "down";
    let ahead = move || {
        let (giver, reader) = if is_down { (&there, &here) } else { (&here, &there) };
        let read = reader.load(SeqCst);
        // Of the second's first moments the other side still shows the first.
        if begun.elapsed() < SLOW { giver.load(SeqCst).saturating_sub(read) } else { 0 }
    };
    origin.moved.store(0, SeqCst);
    let (_watching, most) = watch(process, ahead);
    if is_down {
        download(address, size, &client).await;
    } else {
        upload(address, size, &client).await;
    }
    let [most, ahead] = [0, 1].map(|at| most[at].load(SeqCst));
    let above = most.saturating_sub(base);
    let figures = format!(
        "{} MiB {what} in {:.1?}: {} KiB above {} KiB, {} KiB under way",
        size / MIB,
        begun.elapsed(),
        above / 1024,
        base / 1024,
        ahead / 1024
    );
    println!("{figures}");
    assert!((1..UNDER_WAY).contains(&ahead), "{figures}");
    above
}
