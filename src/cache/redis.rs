//! The one way to talk to Redis: no call waits long, none fails loudly.
//!
//! Everything kept there is a copy or a counter, so a failing Redis is a
//! counted miss. It must never decide alone whether a credential is valid.
//!
//! redis-rs' `ConnectionManager` is deliberately not used. It reconnects only
//! when an operation reports a dropped connection, on the runtime of the caller
//! that met it; a server that accepts and never answers would keep its dead
//! connection for as long as TCP retransmits. Here one task, on the runtime
//! that made the store, makes a new connection for every probe, which also
//! resolves the name again. Calls may come from any runtime.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use metrics::{Histogram, histogram};
use redis::{
    AsyncConnectionConfig, Client, ErrorKind, RedisError, RedisResult, ServerErrorKind,
    aio::{MultiplexedConnection, PubSub},
};
use tokio::{runtime::Handle, sync::watch, time};

use super::breaker::{self, Breaker, Generation};

/// Longest wait for a new connection, handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(250);
/// Longest wait for one answer.
const CALL_TIMEOUT: Duration = Duration::from_millis(50);
/// Shortest time between two connection attempts.
const BETWEEN_PROBES: Duration = Duration::from_millis(500);
/// Failures that do not change the state are logged at most this often.
const BETWEEN_WARNINGS: Duration = Duration::from_secs(10);
/// Commands that may wait to be written; beyond it callers wait, up to their
/// deadline.
const PIPELINE: usize = 1024;
/// Written by every probe: a server that is full or read-only must not pass.
const PROBE_KEY: &str = "tollgate:probe";

/// The URL is not one of a Redis server. It is not repeated: it may hold a
/// password.
#[derive(Debug, thiserror::Error)]
#[error("not a redis:// or rediss:// URL")]
pub struct InvalidRedisUrl;

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RedisStats {
    /// Calls sent to the server.
    pub calls: u64,
    /// Of `calls`: no usable answer in time.
    pub failures: u64,
    /// Calls answered as a miss without asking, because the breaker was open.
    pub skipped: u64,
    /// Connections made.
    pub connections: u64,
    /// The breaker is open.
    pub degraded: bool,
}

#[derive(Default)]
struct Counters {
    calls: AtomicU64,
    failures: AtomicU64,
    skipped: AtomicU64,
    connections: AtomicU64,
}

/// How long is waited for the server.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// For a new connection, handshake included.
    pub connect: Duration,
    /// For one answer.
    pub call: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { connect: CONNECT_TIMEOUT, call: CALL_TIMEOUT }
    }
}

/// A Redis server behind a deadline and a circuit breaker.
pub struct RedisStore {
    client: Client,
    connection: ArcSwapOption<MultiplexedConnection>,
    breaker: Breaker,
    counters: Counters,
    available: watch::Sender<bool>,
    last_warning: Mutex<Option<Instant>>,
    last_probe: Mutex<Option<Instant>>,
    home: Handle,
    deadlines: Deadlines,
    duration: Histogram,
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl RedisStore {
    /// Begins to connect in the background and returns at once; until then
    /// every call is a miss. Must be called within a tokio runtime, which is
    /// where the connection lives.
    pub fn open(url: &str) -> Result<Arc<Self>, InvalidRedisUrl> {
        Self::open_within(url, Deadlines::default())
    }

    /// The same with other deadlines: what is counted exactly is so only where
    /// no call misses its own, and on a machine that stands still now and then
    /// a healthy server's misses the default.
    pub fn open_within(url: &str, deadlines: Deadlines) -> Result<Arc<Self>, InvalidRedisUrl> {
        let client = Client::open(url).map_err(|_| InvalidRedisUrl)?;
        let store = Arc::new(Self {
            client,
            connection: ArcSwapOption::empty(),
            breaker: Breaker::default(),
            counters: Counters::default(),
            available: watch::Sender::new(false),
            last_warning: Mutex::new(None),
            last_probe: Mutex::new(None),
            home: Handle::current(),
            deadlines,
            duration: histogram!("tollgate_redis_call_duration_seconds"),
        });
        store.start_probing(Duration::ZERO);
        Ok(store)
    }

    /// Runs `operation` on the shared connection. `None` when the server is
    /// known to be away (without waiting), fails, or does not answer in time
    /// (50 ms); the server may have done the work all the same. `what` names the
    /// operation in the log.
    pub async fn call<T, F, Fut>(self: &Arc<Self>, what: &'static str, operation: F) -> Option<T>
    where
        F: FnOnce(MultiplexedConnection) -> Fut,
        Fut: Future<Output = RedisResult<T>>,
    {
        let (Some(generation), Some(connection)) =
            (self.breaker.admit(), self.connection.load_full())
        else {
            self.counters.skipped.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        self.counters.calls.fetch_add(1, Ordering::Relaxed);
        let connection = MultiplexedConnection::clone(&connection);
        let started = Instant::now();
        let answer = time::timeout(
            self.deadlines.call,
            crate::telemetry::operation("redis", what, operation(connection)),
        )
        .await;
        self.duration.record(started.elapsed().as_secs_f64());
        match answer {
            Ok(Ok(value)) => {
                self.breaker.succeeded(generation);
                Some(value)
            }
            Ok(Err(error)) => {
                self.note_failure(what, generation, Some(&error));
                None
            }
            Err(_elapsed) => {
                self.note_failure(what, generation, None);
                None
            }
        }
    }

    /// Whether the server answers now.
    pub async fn ping(self: &Arc<Self>) -> bool {
        let ping = |mut connection| async move {
            redis::cmd("PING").query_async::<String>(&mut connection).await
        };
        self.call("ping", ping).await.is_some()
    }

    /// Calls are misses at present.
    pub fn is_degraded(&self) -> bool {
        self.breaker.is_open()
    }

    /// Returns as soon as calls reach the server; at once if they do.
    pub async fn available(&self) {
        // The sender is a field of self, so the channel cannot close.
        let _ = self.available.subscribe().wait_for(|available| *available).await;
    }

    pub fn stats(&self) -> RedisStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RedisStats {
            calls: read(&self.counters.calls),
            failures: read(&self.counters.failures),
            skipped: read(&self.counters.skipped),
            connections: read(&self.counters.connections),
            degraded: self.is_degraded(),
        }
    }

    /// A connection of its own for messages; not covered by the breaker.
    pub(super) async fn subscribe(&self, channel: &str) -> RedisResult<PubSub> {
        let connect = async {
            let mut messages = self.client.get_async_pubsub().await?;
            messages.subscribe(channel).await?;
            Ok(messages)
        };
        time::timeout(self.deadlines.connect, connect).await.unwrap_or_else(|_| Err(timed_out()))
    }

    fn note_failure(
        self: &Arc<Self>,
        what: &'static str,
        on: Generation,
        error: Option<&RedisError>,
    ) {
        let reason = error.map_or_else(|| "no answer in time".to_owned(), ToString::to_string);
        if error.is_some_and(is_an_answer) {
            self.breaker.succeeded(on);
            if self.may_warn() {
                tracing::warn!(what, reason, "redis refused a command");
            }
            return;
        }
        self.counters.failures.fetch_add(1, Ordering::Relaxed);
        let gone = error.is_some_and(RedisError::is_unrecoverable_error);
        if gone && self.breaker.trip(on) {
            tracing::warn!(what, reason, "redis connection lost, reconnecting");
            self.lose(Duration::ZERO);
        } else if self.breaker.failed(on) {
            tracing::warn!(what, reason, "redis does not answer, going on without it");
            self.lose(breaker::pause(0, rand::random()));
        } else if self.may_warn() {
            tracing::warn!(what, reason, "redis call failed");
        }
    }

    fn lose(self: &Arc<Self>, pause: Duration) {
        self.connection.store(None);
        self.available.send_replace(false);
        self.start_probing(pause);
    }

    fn may_warn(&self) -> bool {
        let mut last = self.last_warning.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|at| at.elapsed() >= BETWEEN_WARNINGS);
        if due {
            *last = Some(Instant::now());
        }
        due
    }

    /// Called once per opening of the breaker, so there is one task at a time.
    /// It ends with the first good probe, or when the store is dropped.
    fn start_probing(self: &Arc<Self>, first_pause: Duration) {
        let store = Arc::downgrade(self);
        self.home.spawn(async move {
            let mut pause = first_pause;
            for failed in 0u32.. {
                let Some(floor) = store.upgrade().map(|store| store.until_next_probe()) else {
                    return;
                };
                time::sleep(pause.max(floor)).await;
                let Some(store) = store.upgrade() else { return };
                match store.probe().await {
                    Ok(connection) => return store.regain(connection),
                    Err(error) if failed == 0 && store.may_warn() => {
                        tracing::warn!(%error, "redis cannot be reached");
                    }
                    Err(error) => tracing::debug!(%error, failed, "redis cannot be reached"),
                }
                pause = breaker::pause(failed, rand::random());
            }
        });
    }

    /// Even a server that drops every new connection at once is not asked
    /// more often than every [`BETWEEN_PROBES`].
    fn until_next_probe(&self) -> Duration {
        let last = *self.last_probe.lock().unwrap_or_else(PoisonError::into_inner);
        last.map_or(Duration::ZERO, |at| BETWEEN_PROBES.saturating_sub(at.elapsed()))
    }

    async fn probe(&self) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.deadlines.connect))
            // Every caller holds its own deadline.
            .set_response_timeout(None)
            .set_pipeline_buffer_size(PIPELINE);
        *self.last_probe.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        let attempt = async {
            let mut connection =
                self.client.get_multiplexed_async_connection_with_config(&config).await?;
            let mut write = redis::cmd("SET");
            write.arg(PROBE_KEY).arg(1).arg("PX").arg(1000);
            // A server too slow for calls would only be given up again, after
            // as many of them had waited for it.
            let written =
                time::timeout(self.deadlines.call, write.exec_async(&mut connection)).await;
            written.unwrap_or_else(|_| Err(timed_out()))?;
            Ok(connection)
        };
        time::timeout(self.deadlines.connect, attempt).await.unwrap_or_else(|_| Err(timed_out()))
    }

    fn regain(&self, connection: MultiplexedConnection) {
        self.connection.store(Some(Arc::new(connection)));
        self.counters.connections.fetch_add(1, Ordering::Relaxed);
        self.breaker.close();
        self.available.send_replace(true);
        tracing::info!("redis is available");
    }
}

/// The server is well and says that this one command was wrong. Anything else
/// that it says (full, read-only, loading, busy) means it is of no use now.
fn is_an_answer(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::UnexpectedReturnType
        | ErrorKind::Client
        | ErrorKind::Server(ServerErrorKind::NoScript | ServerErrorKind::CrossSlot) => true,
        // Before version 7 the error inside a script is wrapped in an "ERR".
        ErrorKind::Server(ServerErrorKind::ResponseError) => !error
            .detail()
            .is_some_and(|detail| detail.contains("-OOM") || detail.contains("-READONLY")),
        ErrorKind::Extension => error.code() == Some("WRONGTYPE"),
        _ => false,
    }
}

fn timed_out() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}
