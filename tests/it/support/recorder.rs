//! An upstream that keeps the exact bytes of every request and misbehaves on
//! demand.

use std::{
    io,
    net::SocketAddr,
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use rand::RngExt as _;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};

use super::raw::{find, headers};

/// One request as it came over the wire.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub head: String,
    /// Chunks joined.
    pub body: Vec<u8>,
    /// All of it, the framing included.
    pub wire: Vec<u8>,
    /// Which connection it came on; they are counted from 0.
    pub connection: usize,
}

/// What to do after a request was read.
pub enum Reply {
    Send(Vec<u8>),
    SendThenClose(Vec<u8>),
    /// As much as this, and a reset behind it.
    SendThenReset(Vec<u8>),
    /// No answer; the connection is reset.
    Reset,
    /// No answer; the connection stays.
    Hang,
    /// Whatever comes, as it comes; closed when the sender is dropped.
    Stream(mpsc::UnboundedReceiver<Vec<u8>>),
}

pub struct Recorder {
    pub address: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    deliveries: Mutex<Vec<Delivery>>,
    fragments: Mutex<Vec<Vec<u8>>>,
    connections: AtomicUsize,
    closed: AtomicUsize,
}

type Behaviour = Arc<dyn Fn(&Delivery) -> Reply + Send + Sync>;

/// Answers everything with `200` and a short body.
pub fn ok(_: &Delivery) -> Reply {
    Reply::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec())
}

impl Recorder {
    pub async fn start(behaviour: impl Fn(&Delivery) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen(None, Arc::new(behaviour)).await
    }

    /// Closes a connection on which no request has come for so long, anywhere
    /// in this range.
    pub async fn closing_idle(
        after: Range<Duration>,
        behaviour: impl Fn(&Delivery) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::listen(Some(after), Arc::new(behaviour)).await
    }

    async fn listen(idle: Option<Range<Duration>>, behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let recorder = Self { address: listener.local_addr().unwrap(), seen: Arc::default() };
        let seen = Arc::clone(&recorder.seen);
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let number = seen.connections.fetch_add(1, Relaxed);
                let (seen, behaviour) = (Arc::clone(&seen), Arc::clone(&behaviour));
                let idle = idle.clone();
                tokio::spawn(async move {
                    let mut origin = Origin { socket, buffer: vec![], number, idle, seen: &seen };
                    let ended = origin.serve(&behaviour).await;
                    let rest = std::mem::take(&mut origin.buffer);
                    if !rest.is_empty() && !matches!(ended, Ok(Some(_))) {
                        seen.fragments.lock().unwrap().push(rest);
                    }
                    if let Ok(Some(parts)) = ended {
                        let _ = stream(origin.socket, parts).await;
                    } else {
                        drop(origin);
                    }
                    seen.closed.fetch_add(1, Relaxed);
                });
            }
        });
        recorder
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn deliveries(&self) -> Vec<Delivery> {
        self.seen.deliveries.lock().unwrap().clone()
    }

    /// Takes what was delivered so far.
    pub fn take(&self) -> Vec<Delivery> {
        std::mem::take(&mut self.seen.deliveries.lock().unwrap())
    }

    /// Takes what came of requests that never became whole, or are none, once
    /// their connections have ended.
    pub fn fragments(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.seen.fragments.lock().unwrap())
    }

    pub fn connections(&self) -> usize {
        self.seen.connections.load(Relaxed)
    }

    /// Connections that have ended.
    pub fn closed(&self) -> usize {
        self.seen.closed.load(Relaxed)
    }
}

impl Delivery {
    pub fn request_line(&self) -> &str {
        self.head.lines().next().unwrap()
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        headers(&self.head, name).collect()
    }

    /// Names of all fields, lower case.
    pub fn names(&self) -> Vec<String> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.map(|(name, _)| name.to_ascii_lowercase()).collect()
    }
}

/// The upstream's side of one connection.
struct Origin<'s> {
    socket: TcpStream,
    /// What has come of the next request.
    buffer: Vec<u8>,
    number: usize,
    idle: Option<Range<Duration>>,
    seen: &'s Seen,
}

impl Origin<'_> {
    /// Answers what comes; what is to be streamed where the rest is that.
    async fn serve(
        &mut self,
        behaviour: &Behaviour,
    ) -> io::Result<Option<mpsc::UnboundedReceiver<Vec<u8>>>> {
        while let Some(delivery) = self.next().await? {
            let reply = behaviour(&delivery);
            self.seen.deliveries.lock().unwrap().push(delivery);
            match reply {
                Reply::Send(bytes) => self.socket.write_all(&bytes).await?,
                Reply::SendThenClose(bytes) => {
                    self.socket.write_all(&bytes).await?;
                    return Ok(None);
                }
                Reply::SendThenReset(bytes) => {
                    self.socket.write_all(&bytes).await?;
                    // Discarded with the reset where it has not been read yet.
                    self.socket.flush().await?;
                    return self.socket.set_zero_linger().map(|()| None);
                }
                Reply::Reset => return self.socket.set_zero_linger().map(|()| None),
                // Until the other side closes.
                Reply::Hang => {
                    return self.socket.read_to_end(&mut self.buffer).await.map(|_| None);
                }
                Reply::Stream(parts) => return Ok(Some(parts)),
            }
        }
        Ok(None)
    }

    /// `None` at the end of the connection; also within a request, which is not
    /// counted as delivered.
    async fn next(&mut self) -> io::Result<Option<Delivery>> {
        if let Some(idle) = self.idle.clone().filter(|_| self.buffer.is_empty()) {
            let after = rand::rng().random_range(idle);
            if timeout(after, self.socket.readable()).await.is_err() {
                return Ok(None);
            }
        }
        loop {
            if let Some((mut delivery, length)) = parse(&self.buffer)? {
                delivery.connection = self.number;
                delivery.wire = self.buffer.drain(..length).collect();
                return Ok(Some(delivery));
            }
            if self.socket.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }
}

async fn stream(socket: TcpStream, mut parts: mpsc::UnboundedReceiver<Vec<u8>>) -> io::Result<()> {
    let (mut read, mut write) = socket.into_split();
    let mut rest = Vec::new();
    tokio::select! {
        result = async {
            while let Some(part) = parts.recv().await {
                write.write_all(&part).await?;
            }
            Ok(())
        } => result,
        gone = read.read_to_end(&mut rest) => gone.map(drop),
    }
}

/// The request that these bytes begin with, and how many of them it is; `None`
/// while it is not whole.
fn parse(bytes: &[u8]) -> io::Result<Option<(Delivery, usize)>> {
    let Some(head) = find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let begin = head + 4;
    let head = String::from_utf8_lossy(&bytes[..begin]).into_owned();
    let (body, end) = if headers(&head, "transfer-encoding").next().is_some() {
        let Some((chunks, end)) = chunks(bytes, begin)? else { return Ok(None) };
        (chunks.into_iter().flat_map(|chunk| &bytes[chunk]).copied().collect(), end)
    } else if let Some(length) = headers(&head, "content-length").next() {
        let end = begin + length.parse::<usize>().map_err(io::Error::other)?;
        let Some(body) = bytes.get(begin..end) else { return Ok(None) };
        (body.to_vec(), end)
    } else {
        (vec![], begin)
    };
    Ok(Some((Delivery { head, body, wire: vec![], connection: 0 }, end)))
}

/// Where the chunks stand from `at` on, and where the last of them ends.
fn chunks(bytes: &[u8], mut at: usize) -> io::Result<Option<(Vec<Range<usize>>, usize)>> {
    let mut chunks = vec![];
    loop {
        let Some(line) = find(&bytes[at..], b"\r\n") else { return Ok(None) };
        let length = std::str::from_utf8(&bytes[at..at + line]).map_err(io::Error::other)?;
        let length = usize::from_str_radix(length, 16).map_err(io::Error::other)?;
        let begin = at + line + 2;
        at = begin + length + 2;
        match bytes.get(begin + length..at) {
            None => return Ok(None),
            Some(b"\r\n") if length == 0 => return Ok(Some((chunks, at))),
            Some(b"\r\n") => chunks.push(begin..begin + length),
            Some(_) => return Err(io::Error::other("a chunk is longer than it says")),
        }
    }
}
