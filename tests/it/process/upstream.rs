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
}

impl Slow {
    /// Answers every request `delay` after its head came; bodies are not read.
    pub async fn start(delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let slow = Self { address: listener.local_addr().unwrap(), seen: Arc::default() };
        let seen = slow.seen.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(answer(socket, delay, seen.clone()));
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
}

async fn answer(mut socket: TcpStream, delay: Duration, seen: Arc<AtomicUsize>) {
    let mut buffer = vec![];
    while let Ok(1..) = socket.read_buf(&mut buffer).await {
        if !buffer.ends_with(b"\r\n\r\n") {
            continue;
        }
        buffer.clear();
        seen.fetch_add(1, SeqCst);
        tokio::time::sleep(delay).await;
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        if socket.write_all(answer).await.is_err() {
            return;
        }
    }
}
