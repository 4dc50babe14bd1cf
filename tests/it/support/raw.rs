//! A client that sends bytes as given and shows what came back, broken framing
//! included.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// No test waits longer for a byte.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Raw {
    socket: TcpStream,
    buffer: Vec<u8>,
}

/// One answer as it came over the wire.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
    /// Whether the framing says that this was all of it.
    pub complete: bool,
}

impl Raw {
    pub async fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        Self { socket, buffer: Vec::new() }
    }

    /// One request on a connection of its own.
    pub async fn exchange(address: SocketAddr, request: impl AsRef<[u8]>) -> Answer {
        let mut client = Self::connect(address).await;
        client.send(request).await;
        client.answer().await.expect("an answer")
    }

    /// Bytes that the server no longer takes are not an error: it may have
    /// answered already.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.socket.write_all(bytes.as_ref()).await;
    }

    /// Closes with a reset, as a crashed client does.
    pub fn reset(self) {
        self.socket.set_zero_linger().unwrap();
    }

    /// The next final answer; `None` if the connection ends before one begins.
    pub async fn answer(&mut self) -> Option<Answer> {
        let (head, status) = loop {
            let head = self.head().await?;
            let status: u16 = head[9..12].parse().unwrap();
            if status >= 200 {
                break (head, status);
            }
        };
        let mut answer = Answer { status, head, body: Vec::new(), complete: true };
        if status == 204 || status == 304 {
            return Some(answer);
        }
        if answer.header("transfer-encoding").is_some() {
            answer.complete = self.chunks(&mut answer.body).await;
        } else if let Some(length) = answer.header("content-length") {
            answer.complete = self.take(length.parse().unwrap(), &mut answer.body).await;
        } else {
            answer.complete = self.rest().await;
            answer.body = std::mem::take(&mut self.buffer);
        }
        Some(answer)
    }

    /// The head of the answer to a `HEAD`, and whatever follows up to the end.
    pub async fn head_alone(&mut self) -> (String, Vec<u8>) {
        let head = self.head().await.expect("an answer");
        self.rest().await;
        (head, std::mem::take(&mut self.buffer))
    }

    /// Waits until at least so many bytes of the answer are there.
    pub async fn until(&mut self, needle: &[u8]) {
        while find(&self.buffer, needle).is_none() {
            assert!(self.fill().await, "the connection ended before {needle:?}");
        }
    }

    /// Reads up to the end; whether that was a clean one.
    pub async fn rest(&mut self) -> bool {
        loop {
            match self.read().await {
                Ok(0) => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    }

    async fn head(&mut self) -> Option<String> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            if !self.fill().await {
                return None;
            }
        };
        Some(String::from_utf8(self.buffer.drain(..end).collect()).unwrap())
    }

    async fn chunks(&mut self, body: &mut Vec<u8>) -> bool {
        loop {
            let Some(line) = self.line().await else { return false };
            let length = usize::from_str_radix(line.trim(), 16).unwrap();
            if !self.take(length, body).await {
                return false;
            }
            if self.line().await.is_none() {
                return false;
            }
            if length == 0 {
                return true;
            }
        }
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                return Some(String::from_utf8(self.buffer.drain(..at + 2).collect()).unwrap());
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    async fn take(&mut self, length: usize, into: &mut Vec<u8>) -> bool {
        while self.buffer.len() < length {
            if !self.fill().await {
                into.append(&mut self.buffer);
                return false;
            }
        }
        into.extend(self.buffer.drain(..length));
        true
    }

    async fn fill(&mut self) -> bool {
        matches!(self.read().await, Ok(1..))
    }

    async fn read(&mut self) -> std::io::Result<usize> {
        let read = timeout(PATIENCE, self.socket.read_buf(&mut self.buffer));
        read.await.expect("the server sends nothing and does not close")
    }
}

impl Answer {
    /// The first field of that name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        headers(&self.head, name).next()
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// All fields of that name, in any case, as the bytes have them.
pub fn headers<'h>(head: &'h str, name: &str) -> impl Iterator<Item = &'h str> {
    let fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    fields.filter(move |(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
