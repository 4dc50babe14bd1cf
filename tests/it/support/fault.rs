//! A TCP proxy that misbehaves on demand: put before Redis, Postgres or an
//! upstream, it is the network that they are reached by.
//!
//! Faults are set while connections run and hold from the next chunk on. What
//! really happened is counted: a test that saw no harm must not have been spared
//! by chance.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::task::AbortOnDropHandle;

/// What is written at once where the bandwidth is limited.
const SLICE: usize = 128;
/// Chunks under way in one direction. A reader that is ahead of this waits, so
/// that a sender is held back as by a slow line, and not buffered for.
const LINE: usize = 64;

/// What happens to the bytes of one direction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Way {
    /// Every chunk arrives so much later; those behind it do not wait for it.
    pub latency: Duration,
    pub bytes_per_second: Option<u32>,
    /// How likely a chunk is lost together with its connection, both ends of
    /// which are reset.
    pub reset: f64,
    /// Nothing arrives, nor does it later: a connection that lost bytes stays
    /// silent when the fault is over.
    pub swallow: bool,
    /// A connection ends once so many bytes have arrived on it since this was
    /// set, the last of which is the last to arrive.
    pub cut_after_bytes: Option<usize>,
    /// How it ends then.
    pub ending: Ending,
    /// Whatever comes arrives in pieces of so many bytes.
    pub slice: Option<usize>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    #[default]
    Close,
    Reset,
    /// Only in this direction; the other stays.
    Half,
}

/// Nothing by default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub to_server: Way,
    pub to_client: Way,
    /// New connections are closed before a byte is read.
    pub refuse: bool,
    /// After a chunk with these bytes went to the server the connection is
    /// closed as soon as the server has answered, and the answer kept.
    pub cut_after: Option<&'static [u8]>,
}

/// How often which fault happened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fired {
    pub delayed: usize,
    pub throttled: usize,
    pub resets: usize,
    pub swallowed: usize,
    pub refused: usize,
    pub cuts: usize,
}

/// Closed when dropped, with all its connections.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    _task: AbortOnDropHandle<Infallible>,
}

impl Proxy {
    /// In front of `server`, which is a host and a port.
    pub async fn start(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { server, ..Shared::default() });
        let task = tokio::spawn(accept(listener, shared.clone()));
        Self { address, shared, _task: AbortOnDropHandle::new(task) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn set(&self, faults: Faults) {
        *self.shared.faults.lock().unwrap() = faults;
        self.shared.settings.fetch_add(1, Relaxed);
    }

    pub fn fired(&self) -> Fired {
        *self.shared.fired.lock().unwrap()
    }

    /// Connections that clients have now.
    pub fn open(&self) -> usize {
        self.shared.open.load(Relaxed)
    }
}

#[derive(Default)]
struct Shared {
    server: String,
    faults: Mutex<Faults>,
    fired: Mutex<Fired>,
    open: AtomicUsize,
    /// How often the faults were set.
    settings: AtomicUsize,
}

impl Shared {
    fn faults(&self) -> Faults {
        *self.faults.lock().unwrap()
    }

    fn count(&self, fault: impl FnOnce(&mut Fired)) {
        fault(&mut self.fired.lock().unwrap());
    }
}

/// Why a connection ends before both sides have closed it.
enum End {
    Closed,
    Reset,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Closed
    }
}

#[derive(Clone, Copy)]
enum Towards {
    Server,
    Client,
}

impl Towards {
    fn of(self, faults: &Faults) -> Way {
        match self {
            Self::Server => faults.to_server,
            Self::Client => faults.to_client,
        }
    }
}

/// A chunk, and when it arrives.
type Sent = (Instant, Vec<u8>);

async fn accept(listener: TcpListener, shared: Arc<Shared>) -> Infallible {
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        if shared.faults().refuse {
            shared.count(|fired| fired.refused += 1);
            continue;
        }
        let shared = shared.clone();
        connections.spawn(async move {
            shared.open.fetch_add(1, Relaxed);
            if let Ok(server) = TcpStream::connect(&shared.server).await {
                connect(&shared, client, server).await;
            }
            shared.open.fetch_sub(1, Relaxed);
        });
    }
}

async fn connect(shared: &Shared, mut client: TcpStream, mut server: TcpStream) {
    // Every write is a packet, as with the programs on both sides.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let one = Connection { shared, cut: AtomicBool::new(false) };
    let ended = {
        let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
        tokio::try_join!(
            one.carry(from_client, to_server, Towards::Server),
            one.carry(from_server, to_client, Towards::Client),
        )
    };
    if matches!(ended, Err(End::Reset)) {
        // Closing it sends a reset then.
        let _ = (client.set_zero_linger(), server.set_zero_linger());
    }
}

struct Connection<'a> {
    shared: &'a Shared,
    /// The server was sent what it may not answer.
    cut: AtomicBool,
}

impl Connection<'_> {
    async fn carry(
        &self,
        from: ReadHalf<'_>,
        to: WriteHalf<'_>,
        towards: Towards,
    ) -> Result<(), End> {
        let (line, arriving) = mpsc::channel(LINE);
        tokio::try_join!(self.take(from, line, towards), self.give(arriving, to, towards))?;
        Ok(())
    }

    async fn take(
        &self,
        mut from: ReadHalf<'_>,
        line: mpsc::Sender<Sent>,
        towards: Towards,
    ) -> Result<(), End> {
        let mut buffer = [0; 4096];
        let mut silent = false;
        loop {
            let read = from.read(&mut buffer).await?;
            let faults = self.shared.faults();
            let (chunk, way) = (&buffer[..read], towards.of(&faults));
            match (towards, faults.cut_after) {
                _ if chunk.is_empty() => return Ok(()),
                // Never split in practice: a command is one write.
                (Towards::Server, Some(bytes))
                    if chunk.windows(bytes.len()).any(|w| w == bytes) =>
                {
                    self.cut.store(true, Relaxed);
                }
                (Towards::Client, _) if self.cut.load(Relaxed) => {
                    self.shared.count(|fired| fired.cuts += 1);
                    return Err(End::Closed);
                }
                _ => {}
            }
            if way.reset > 0.0 && rand::random_bool(way.reset) {
                self.shared.count(|fired| fired.resets += 1);
                return Err(End::Reset);
            }
            silent |= way.swallow;
            if silent {
                self.shared.count(|fired| fired.swallowed += 1);
                continue;
            }
            if !way.latency.is_zero() {
                self.shared.count(|fired| fired.delayed += 1);
            }
            let sent = (Instant::now() + way.latency, chunk.to_vec());
            line.send(sent).await.map_err(|_| End::Closed)?;
        }
    }

    async fn give(
        &self,
        mut arriving: mpsc::Receiver<Sent>,
        mut to: WriteHalf<'_>,
        towards: Towards,
    ) -> Result<(), End> {
        let mut free = Instant::now();
        // Since which setting, and how many bytes.
        let mut arrived = (0, 0);
        while let Some((due, mut chunk)) = arriving.recv().await {
            sleep_until(due).await;
            let (setting, way) =
                (self.shared.settings.load(Relaxed), towards.of(&self.shared.faults()));
            if arrived.0 != setting {
                arrived = (setting, 0);
            }
            let left = way.cut_after_bytes.map(|bytes| bytes.saturating_sub(arrived.1));
            let is_last = left.is_some_and(|left| left <= chunk.len());
            chunk.truncate(left.unwrap_or(usize::MAX));
            arrived.1 += chunk.len();
            if way.bytes_per_second.is_some() {
                self.shared.count(|fired| fired.throttled += 1);
            }
            let whole = if way.bytes_per_second.is_some() { SLICE } else { usize::MAX };
            for slice in chunk.chunks(way.slice.unwrap_or(whole)) {
                if let Some(rate) = way.bytes_per_second {
                    let bytes = u32::try_from(slice.len()).unwrap();
                    free = free.max(Instant::now()) + Duration::from_secs(1) * bytes / rate;
                    sleep_until(free).await;
                }
                to.write_all(slice).await?;
                if way.slice.is_some() {
                    // Whoever reads is to have a chance to see it alone.
                    tokio::task::yield_now().await;
                }
            }
            if is_last {
                self.shared.count(|fired| fired.cuts += 1);
                match way.ending {
                    Ending::Close => return Err(End::Closed),
                    Ending::Reset => return Err(End::Reset),
                    Ending::Half => {
                        to.shutdown().await?;
                        while arriving.recv().await.is_some() {}
                        return Ok(());
                    }
                }
            }
        }
        Ok(to.shutdown().await?)
    }
}
