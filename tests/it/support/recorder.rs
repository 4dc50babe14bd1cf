//! An upstream that keeps the exact bytes of every request and misbehaves on
//! demand.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use super::raw::{find, headers};

/// One request as it came over the wire.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub head: String,
    /// Chunks joined.
    pub body: Vec<u8>,
}

/// What to do after a request was read.
pub enum Reply {
    Send(Vec<u8>),
    SendThenClose(Vec<u8>),
    /// No answer; the connection is reset.
    Reset,
    /// No answer; the connection stays.
    Hang,
    /// Whatever comes, as it comes; closed when the sender is dropped.
    Stream(mpsc::UnboundedReceiver<Vec<u8>>),
}

pub struct Recorder {
    pub address: SocketAddr,
    deliveries: Arc<Mutex<Vec<Delivery>>>,
    connections: Arc<AtomicUsize>,
    closed: Arc<AtomicUsize>,
}

type Behaviour = Arc<dyn Fn(&Delivery) -> Reply + Send + Sync>;

/// Answers everything with `200` and a short body.
pub fn ok(_: &Delivery) -> Reply {
    Reply::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec())
}

impl Recorder {
    pub async fn start(behaviour: impl Fn(&Delivery) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let recorder = Self {
            address: listener.local_addr().unwrap(),
            deliveries: Arc::default(),
            connections: Arc::default(),
            closed: Arc::default(),
        };
        let (deliveries, connections, closed) = (
            Arc::clone(&recorder.deliveries),
            Arc::clone(&recorder.connections),
            Arc::clone(&recorder.closed),
        );
        let behaviour: Behaviour = Arc::new(behaviour);
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                connections.fetch_add(1, Relaxed);
                let (deliveries, behaviour) = (Arc::clone(&deliveries), Arc::clone(&behaviour));
                let closed = Arc::clone(&closed);
                tokio::spawn(async move {
                    let _ = serve(socket, &deliveries, &behaviour).await;
                    closed.fetch_add(1, Relaxed);
                });
            }
        });
        recorder
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn deliveries(&self) -> Vec<Delivery> {
        self.deliveries.lock().unwrap().clone()
    }

    /// Takes what was delivered so far.
    pub fn take(&self) -> Vec<Delivery> {
        std::mem::take(&mut self.deliveries.lock().unwrap())
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// Connections that have ended.
    pub fn closed(&self) -> usize {
        self.closed.load(Relaxed)
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

async fn serve(
    mut socket: TcpStream,
    deliveries: &Mutex<Vec<Delivery>>,
    behaviour: &Behaviour,
) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    while let Some(delivery) = read_request(&mut socket, &mut buffer).await? {
        let reply = behaviour(&delivery);
        deliveries.lock().unwrap().push(delivery);
        match reply {
            Reply::Send(bytes) => socket.write_all(&bytes).await?,
            Reply::SendThenClose(bytes) => return socket.write_all(&bytes).await,
            Reply::Reset => return socket.set_zero_linger(),
            // Until the other side closes.
            Reply::Hang => return socket.read_to_end(&mut buffer).await.map(drop),
            Reply::Stream(parts) => return stream(socket, parts).await,
        }
    }
    Ok(())
}

async fn stream(
    socket: TcpStream,
    mut parts: mpsc::UnboundedReceiver<Vec<u8>>,
) -> std::io::Result<()> {
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

/// `None` at the end of the connection; also within a request, which is not
/// counted as delivered.
async fn read_request(
    socket: &mut TcpStream,
    buffer: &mut Vec<u8>,
) -> std::io::Result<Option<Delivery>> {
    let end = loop {
        if let Some(at) = find(buffer, b"\r\n\r\n") {
            break at + 4;
        }
        if socket.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let head: String = String::from_utf8_lossy(&buffer.drain(..end).collect::<Vec<_>>()).into();
    let mut body = Vec::new();
    if headers(&head, "transfer-encoding").next().is_some() {
        loop {
            let Some(line) = take(socket, buffer, |bytes| find(bytes, b"\r\n")).await? else {
                return Ok(None);
            };
            let length = usize::from_str_radix(std::str::from_utf8(&line).unwrap(), 16).unwrap();
            let whole = |bytes: &[u8]| (bytes.len() >= length + 2).then_some(length);
            let Some(chunk) = take(socket, buffer, whole).await? else { return Ok(None) };
            body.extend(chunk);
            if length == 0 {
                break;
            }
        }
    } else if let Some(length) = headers(&head, "content-length").next() {
        let length: usize = length.parse().unwrap();
        while buffer.len() < length {
            if socket.read_buf(buffer).await? == 0 {
                return Ok(None);
            }
        }
        body.extend(buffer.drain(..length));
    }
    Ok(Some(Delivery { head, body }))
}

/// Takes what `end` delimits and the CRLF after it.
async fn take(
    socket: &mut TcpStream,
    buffer: &mut Vec<u8>,
    end: impl Fn(&[u8]) -> Option<usize>,
) -> std::io::Result<Option<Vec<u8>>> {
    loop {
        if let Some(at) = end(buffer) {
            let taken = buffer.drain(..at).collect();
            buffer.drain(..2);
            return Ok(Some(taken));
        }
        if socket.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}
