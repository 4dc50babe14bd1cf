//! A backend that takes its time.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

pub struct Slow {
    address: SocketAddr,
    seen: Arc<AtomicUsize>,
    now: Arc<Now>,
}

/// Requests that are under way there.
#[derive(Default)]
struct Now {
    count: AtomicUsize,
    most: AtomicUsize,
}

impl Slow {
    /// Answers every request `delay` after its head came; bodies are not read.
    pub async fn start(delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let slow = Self { address, seen: Arc::default(), now: Arc::default() };
        let (seen, now) = (slow.seen.clone(), slow.now.clone());
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(answer(socket, delay, seen.clone(), now.clone()));
            }
        });
        slow
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Requests that arrived.
    pub fn seen(&self) -> usize {
        self.seen.load(SeqCst)
    }

    /// Requests that are under way.
    pub fn at_once(&self) -> usize {
        self.now.count.load(SeqCst)
    }

    /// Most of them since this was asked last.
    pub fn most_at_once(&self) -> usize {
        self.now.most.swap(0, SeqCst)
    }
}

/// Counts one while it lives.
struct UnderWay<'n>(&'n Now);

impl<'n> UnderWay<'n> {
    fn new(now: &'n Now) -> Self {
        let count = now.count.fetch_add(1, SeqCst) + 1;
        now.most.fetch_max(count, SeqCst);
        Self(now)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, SeqCst);
    }
}

async fn answer(mut socket: TcpStream, delay: Duration, seen: Arc<AtomicUsize>, now: Arc<Now>) {
    let mut buffer = vec![];
    while let Ok(1..) = socket.read_buf(&mut buffer).await {
        if !buffer.ends_with(b"\r\n\r\n") {
            continue;
        }
        buffer.clear();
        seen.fetch_add(1, SeqCst);
        {
            let _under_way = UnderWay::new(&now);
            // A gateway that is killed takes its requests back.
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                _ = socket.readable() => {
                    if matches!(socket.try_read(&mut [0]), Ok(0) | Err(_)) {
                        return;
                    }
                }
            }
        }
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        if socket.write_all(answer).await.is_err() {
            return;
        }
    }
}
