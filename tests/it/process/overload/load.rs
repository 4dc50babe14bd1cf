//! Requests at a rate that does not heed the answers.
//!
//! A request is due at its instant; where no connection is free then it waits for
//! one, and that counts, up to [`PATIENCE`]: then its client gives up.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep, sleep_until, timeout_at},
};
use tokio_util::task::AbortOnDropHandle;

use crate::support::raw::find;

/// How long a client waits for a free connection before it gives up.
const PATIENCE: Duration = Duration::from_millis(500);
const REQUEST: &[u8] = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
/// How long an answer is waited for after the last request.
const REST: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub address: SocketAddr,
    /// Requests per second.
    pub rate: f64,
    /// At most so many at once.
    pub connections: usize,
}

#[derive(Debug, Default)]
pub struct Report {
    span: Duration,
    /// From when it was sent to its end.
    served: Vec<Duration>,
    refused: Vec<Duration>,
    /// Without a whole answer, or with a strange one.
    pub broken: usize,
    given_up: usize,
}

impl Load {
    pub fn at(self, rate: f64) -> Self {
        Self { rate, ..self }
    }

    pub async fn run(self, span: Duration) -> Report {
        let start = Instant::now();
        let all = f64_to_count(self.rate * span.as_secs_f64());
        let next = Arc::new(Mutex::new(0));
        let report = Arc::new(Mutex::new(Report { span, ..Report::default() }));
        let clients: Vec<_> = (0..self.connections)
            .map(|_| {
                let client = Client { load: self, start, all, next: next.clone() };
                AbortOnDropHandle::new(tokio::spawn(client.run(report.clone())))
            })
            .collect();
        sleep_until(start + span).await;
        let over = Instant::now() + REST;
        for client in clients {
            let _ = timeout_at(over, client).await;
        }
        std::mem::take(&mut *report.lock().unwrap())
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few millions")]
fn f64_to_count(number: f64) -> u32 {
    number as u32
}

struct Client {
    load: Load,
    start: Instant,
    all: u32,
    /// Of the next request, shared by all.
    next: Arc<Mutex<u32>>,
}

impl Client {
    async fn run(self, report: Arc<Mutex<Report>>) {
        let mut socket = None;
        let end = self.start + Duration::from_secs_f64(f64::from(self.all) / self.load.rate);
        loop {
            let number = {
                let mut next = self.next.lock().unwrap();
                *next += 1;
                *next - 1
            };
            if number >= self.all {
                return;
            }
            let due = self.start + Duration::from_secs_f64(f64::from(number) / self.load.rate);
            sleep_until(due).await;
            if due.elapsed() > PATIENCE {
                report.lock().unwrap().given_up += 1;
                // A multitude gives up at once; leave the machine to the others.
                if number % 64 == 0 {
                    tokio::task::yield_now().await;
                }
                continue;
            }
            if Instant::now() > end + PATIENCE {
                return;
            }
            let sent = Instant::now();
            let status = exchange(&mut socket, self.load.address).await;
            let mut report = report.lock().unwrap();
            match status {
                Some(200) => report.served.push(sent.elapsed()),
                Some(503) => report.refused.push(sent.elapsed()),
                Some(_) | None => {
                    report.broken += 1;
                    socket = None;
                }
            }
        }
    }
}

async fn exchange(connection: &mut Option<TcpStream>, to: SocketAddr) -> Option<u16> {
    let socket = match connection {
        Some(socket) => socket,
        None => connection.insert(TcpStream::connect(to).await.ok()?),
    };
    let _ = socket.set_nodelay(true);
    socket.write_all(REQUEST).await.ok()?;
    let mut buffer = Vec::with_capacity(1024);
    let end = loop {
        if socket.read_buf(&mut buffer).await.ok()? == 0 {
            return None;
        }
        if let Some(at) = find(&buffer, b"\r\n\r\n") {
            break at + 4;
        }
    };
    let head = std::str::from_utf8(&buffer[..end]).ok()?.to_ascii_lowercase();
    let (_, length) = head.split_once("content-length:")?;
    let length: usize = length.lines().next()?.trim().parse().ok()?;
    while buffer.len() < end + length {
        if socket.read_buf(&mut buffer).await.ok()? == 0 {
            return None;
        }
    }
    if head.contains("connection: close") {
        *connection = None;
        // As a client that opens another one.
        sleep(Duration::from_millis(1)).await;
    }
    head[9..12].parse().ok()
}

impl Report {
    pub fn served_per_second(&self) -> f64 {
        let served = u32::try_from(self.served.len()).unwrap();
        f64::from(served) / self.span.as_secs_f64()
    }

    pub fn refused(&self) -> usize {
        self.refused.len()
    }

    /// So many per cent of what was served took no longer.
    pub fn served(&self, percent: usize) -> Duration {
        percentile(&self.served, percent)
    }

    /// So many per cent of the refusals took no longer.
    pub fn turned_away(&self, percent: usize) -> Duration {
        percentile(&self.refused, percent)
    }
}

fn percentile(all: &[Duration], percent: usize) -> Duration {
    let mut sorted = all.to_vec();
    sorted.sort_unstable();
    sorted
        .get((sorted.len() * percent).div_ceil(100).saturating_sub(1))
        .copied()
        .unwrap_or_default()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.0} served per second (p50 {:.1?}, p99 {:.1?}), {} refused (p99 {:.1?}), \
             {} given up, {} broken",
            self.served_per_second(),
            self.served(50),
            self.served(99),
            self.refused(),
            self.turned_away(99),
            self.given_up,
            self.broken
        )
    }
}
