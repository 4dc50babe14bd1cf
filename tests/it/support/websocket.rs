//! Sockets byte by byte: a client that frames as it is told, and an upstream
//! that keeps what it gets and sends every message back.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::raw::{find, headers};

/// Of every client here, so that the upstream's answer is always the same.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// First bytes of frames that are whole.
pub const TEXT: u8 = 0x81;
pub const BINARY: u8 = 0x82;
pub const CLOSE: u8 = 0x88;
pub const PING: u8 = 0x89;
pub const PONG: u8 = 0x8a;

/// No test waits longer for a byte.
const PATIENCE: Duration = Duration::from_secs(30);
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A request for a WebSocket, with more fields.
pub fn ask(path: &str, fields: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{fields}\r\n"
    )
}

/// A frame that begins with this byte, masked or not.
pub fn frame(first: u8, masked: bool, payload: &[u8]) -> Vec<u8> {
    let bit = if masked { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match u16::try_from(payload.len()) {
        Ok(short @ ..126) => bytes.push(bit | u8::try_from(short).unwrap()),
        Ok(length) => {
            bytes.push(bit | 0x7e);
            bytes.extend(length.to_be_bytes());
        }
        Err(_) => {
            bytes.push(bit | 0x7f);
            bytes.extend((payload.len() as u64).to_be_bytes());
        }
    }
    let mask = if masked { MASK } else { [0; 4] };
    if masked {
        bytes.extend(mask);
    }
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// The frame that `bytes` begin with, unmasked: its first byte, its payload, and
/// how long it is in all.
fn parse(bytes: &[u8]) -> Option<(u8, Vec<u8>, usize)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let extended = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let digits = bytes.get(2..2 + extended)?;
    let length = match extended {
        0 => usize::from(second & 0x7f),
        _ => digits.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)),
    };
    let masked = if second & 0x80 == 0 { 0 } else { 4 };
    let begin = 2 + extended + masked;
    let mask = bytes.get(begin - masked..begin)?;
    let payload = bytes.get(begin..begin + length)?;
    let payload = match mask {
        [] => payload.to_vec(),
        mask => payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect(),
    };
    Some((first, payload, begin + length))
}

/// One side of an open socket.
pub struct Wire {
    socket: TcpStream,
    buffer: Vec<u8>,
    /// Bytes of the frames that were taken.
    pub heard: usize,
}

/// A client and what it was answered.
pub struct Asked {
    pub status: u16,
    pub head: String,
    pub wire: Wire,
}

impl Wire {
    /// Sends a request and waits for the head of its answer.
    pub async fn ask(address: SocketAddr, request: impl AsRef<[u8]>) -> Asked {
        let socket = TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let mut wire = Self { socket, buffer: vec![], heard: 0 };
        wire.send(request).await;
        let head = timeout(PATIENCE, wire.head()).await.expect("no answer");
        let head = head.unwrap().expect("closed without an answer");
        Asked { status: head[9..12].parse().unwrap(), head, wire }
    }

    /// An open socket.
    pub async fn open(address: SocketAddr, path: &str, fields: &str) -> Self {
        let asked = Self::ask(address, ask(path, fields)).await;
        if asked.status == 101 {
            return asked.wire;
        }
        let head = asked.head.clone();
        panic!("{head}{}", asked.body().await);
    }

    /// Bytes that are no longer taken are not an error.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.socket.write_all(bytes.as_ref()).await;
    }

    pub async fn say(&mut self, text: &str) {
        self.send(frame(TEXT, true, text.as_bytes())).await;
    }

    /// The next frame; `None` at the end.
    pub async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        timeout(PATIENCE, self.take()).await.expect("nothing comes").unwrap_or_default()
    }

    /// Code and reason of the close that comes next; other frames are passed over.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            let (first, payload) = self.next().await.expect("it ends without a close");
            if first == CLOSE {
                return told(&payload);
            }
        }
    }

    /// Says something and waits until it comes back; the gateway's own Pings are
    /// passed over.
    pub async fn echoes(&mut self, text: &str) {
        self.say(text).await;
        loop {
            match self.next().await {
                Some((PING, _)) => {}
                other => {
                    return assert_eq!(other, Some((TEXT, text.as_bytes().to_vec())));
                }
            }
        }
    }

    /// Closes with a reset, as a crashed client does.
    pub fn reset(self) {
        self.socket.set_zero_linger().unwrap();
    }

    /// Everything up to the end.
    pub async fn rest(&mut self) -> Vec<u8> {
        // A reset is an end as well.
        let _ = timeout(PATIENCE, self.socket.read_to_end(&mut self.buffer))
            .await
            .expect("it stays open");
        std::mem::take(&mut self.buffer)
    }

    async fn head(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                let head = self.buffer.drain(..at + 4).collect();
                return Ok(Some(String::from_utf8(head).unwrap()));
            }
            if self.socket.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }

    async fn take(&mut self) -> io::Result<Option<(u8, Vec<u8>)>> {
        loop {
            if let Some((first, payload, length)) = parse(&self.buffer) {
                self.buffer.drain(..length);
                self.heard += length;
                return Ok(Some((first, payload)));
            }
            if self.socket.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }
}

impl Asked {
    /// The body of a refusal; its connection must end.
    pub async fn body(mut self) -> String {
        String::from_utf8(self.wire.rest().await).unwrap()
    }

    /// The code of the problem, and that the connection ends after it.
    pub async fn code(self) -> (u16, String) {
        let status = self.status;
        assert_ne!(status, 101, "it is open");
        let body = self.body().await;
        let problem: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
        (status, problem["code"].as_str().unwrap_or_default().to_owned())
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        headers(&self.head, name).next()
    }
}

fn told(payload: &[u8]) -> (u16, String) {
    let Some((code, reason)) = payload.split_at_checked(2) else { return (1005, String::new()) };
    (u16::from_be_bytes([code[0], code[1]]), String::from_utf8(reason.to_vec()).unwrap())
}

/// What an upstream has seen.
#[derive(Default)]
struct Seen {
    heads: Mutex<Vec<String>>,
    closes: Mutex<Vec<u16>>,
    open: AtomicUsize,
    messages: AtomicUsize,
    bytes: AtomicUsize,
}

/// Opens every socket that it is asked for; `200` to any other request.
pub struct Upstream {
    pub address: SocketAddr,
    seen: Arc<Seen>,
}

impl Upstream {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = Self { address: listener.local_addr().unwrap(), seen: Arc::default() };
        let seen = Arc::clone(&upstream.seen);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let seen = Arc::clone(&seen);
                tokio::spawn(async move {
                    seen.open.fetch_add(1, SeqCst);
                    let wire = Wire { socket, buffer: vec![], heard: 0 };
                    let _ = serve(wire, &seen).await;
                    seen.open.fetch_sub(1, SeqCst);
                });
            }
        });
        upstream
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Takes the heads of the requests so far.
    pub fn heads(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.heads.lock().unwrap())
    }

    /// Takes the codes that sockets were closed with.
    pub fn closes(&self) -> Vec<u16> {
        std::mem::take(&mut self.seen.closes.lock().unwrap())
    }

    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.seen.open.load(SeqCst)
    }

    /// Whole data messages of all sockets.
    pub fn messages(&self) -> usize {
        self.seen.messages.load(SeqCst)
    }

    /// Bytes of all frames that came.
    pub fn bytes(&self) -> usize {
        self.seen.bytes.load(SeqCst)
    }

    /// Waits until so many connections are open.
    pub async fn until_open(&self, count: usize) {
        for _ in 0..1000 {
            if self.open() == count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{} are open and not {count}", self.open());
    }
}

async fn serve(mut wire: Wire, seen: &Seen) -> io::Result<()> {
    let Some(head) = wire.head().await? else { return Ok(()) };
    let switches = headers(&head, "upgrade").any(|to| to.eq_ignore_ascii_case("websocket"));
    seen.heads.lock().unwrap().push(head);
    if !switches {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
        return wire.socket.write_all(answer).await;
    }
    wire.socket.write_all(SWITCHING.as_bytes()).await?;
    while let Some((first, payload)) = wire.take().await? {
        seen.bytes.fetch_add(std::mem::take(&mut wire.heard), SeqCst);
        let answer = match first {
            CLOSE => {
                seen.closes.lock().unwrap().push(told(&payload).0);
                return wire.socket.write_all(&frame(CLOSE, false, &payload)).await;
            }
            PING => PONG,
            PONG => continue,
            data => {
                seen.messages.fetch_add(usize::from(data & 0x80 != 0), SeqCst);
                data
            }
        };
        wire.socket.write_all(&frame(answer, false, &payload)).await?;
    }
    Ok(())
}
