//! Listeners, workers, connections, and their end.
//!
//! Each worker is a thread with a single-threaded runtime and a listener of its
//! own on the same port (`SO_REUSEPORT`), so a connection never moves between
//! threads. All listeners are bound before the first connection is taken.

use std::{convert::Infallible, io, net::SocketAddr, pin::pin, sync::Arc, thread, time::Duration};

use axum::Router;
use futures_util::FutureExt;
use http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::sleep,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::{AbortOnDropHandle, TaskTracker},
};

use super::{
    crowd::{Guests, Open, Scarcity},
    dispatch::{Dispatcher, Ours},
    io::{Connection, Guarded, Patience},
    observe::Metrics,
    outbox,
    pressure::Pressure,
    scarcity::Scarcity,
    sockets,
    watch::{self, Leash, Leashed},
    woken::Woken,
};
use crate::{
    config::Config,
    domain::clock::SharedClock,
    gateway::Gateway,
    services::{Services, usage::Journal},
};

/// Largest head of a request, bytes, its request line included.
const MAX_HEAD: usize = 32 * 1024;
const H2_STREAMS: u32 = 100;
const H2_STREAM_WINDOW: u32 = 64 * 1024;
const H2_CONNECTION_WINDOW: u32 = 1024 * 1024;
const H2_HEADER_LIST: u32 = 16 * 1024;
/// A client is asked whether it lives: one that is gone without a word holds
/// its streams no longer.
const H2_PING_AFTER: Duration = Duration::from_secs(20);
const H2_PONG_WITHIN: Duration = Duration::from_secs(10);
/// Pause after a failed accept. Out of descriptors, the listener stays readable
/// and an immediate retry would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the server needs beside its configuration.
pub struct Parts {
    pub services: Services,
    pub clock: SharedClock,
    /// The API, complete with its fallback.
    pub router: Router,
    pub ours: Ours,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("cannot start a worker")]
    Worker(#[source] io::Error),
}

/// A server that serves. Dropping it cuts everything at once.
pub struct Running {
    address: SocketAddr,
    stop: CancellationToken,
    cut: CancellationToken,
    done: Vec<oneshot::Receiver<()>>,
    _guards: [DropGuard; 2],
}

/// How serving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Every request under way was finished.
    Drained,
    /// Some were cut at the deadline.
    Cut,
}

/// Binds, then serves until [`Running::stop`]. Must be called within the runtime
/// that the API is to run on.
pub fn start(config: &Config, parts: &Parts) -> Result<Running, StartError> {
    let server = Arc::new(config.server.clone());
    let workers = server.workers.max(1);
    let wanted = server.listen();
    let listeners = sockets::bind(wanted, workers)
        .map_err(|source| StartError::Listen { address: wanted, source })?;
    let address = listeners[0]
        .local_addr()
        .map_err(|source| StartError::Listen { address: wanted, source })?;
    let slots = Arc::new(Semaphore::new(server.max_connections.min(Semaphore::MAX_PERMITS)));
    let guests = Guests::new(server.max_connections_per_address, &server.trusted_proxies);
    let (stop, cut) = (CancellationToken::new(), CancellationToken::new());
    let metrics = Metrics::new();

    let mut done = Vec::with_capacity(workers);
    for (number, listener) in listeners.into_iter().enumerate() {
        let gateway = Gateway::new(parts.services.clone(), &server);
        let pressure = Arc::new(Pressure::new(server.max_lag));
        let dispatcher = Dispatcher {
            gateway,
            router: parts.router.clone(),
            main: Handle::current(),
            ours: Arc::clone(&parts.ours),
            config: Arc::clone(&server),
            clock: Arc::clone(&parts.clock),
            metrics: Arc::clone(&metrics),
            room: Arc::clone(&parts.services.room),
            pressure,
            scarcity: Scarcity::new(&slots, server.max_connections, workers),
        };
        let worker = Worker {
            dispatcher,
            builder: connection_builder(),
            journal: parts.services.usage.journal().clone(),
            patience: Patience { head: server.header_timeout, stuck_write: server.io_timeout },
            slots: Arc::clone(&slots),
            guests: guests.clone(),
            // Tokens of its own, so that workers do not share a lock.
            stop: stop.child_token(),
            cut: cut.child_token(),
        };
        done.push(worker.spawn(number, listener).map_err(StartError::Worker)?);
    }
    let guards = [stop.clone().drop_guard(), cut.clone().drop_guard()];
    Ok(Running { address, stop, cut, done, _guards: guards })
}

impl Running {
    /// Where it listens; the port is the real one also if port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the listeners, lets requests under way finish for up to `grace`,
    /// then cuts what is left.
    pub async fn stop(self, grace: Duration) -> Stopped {
        self.stop_until(sleep(grace)).await
    }

    /// The same with a grace that ends when `over` does.
    pub async fn stop_until(self, over: impl Future<Output = ()>) -> Stopped {
        let Self { stop, cut, mut done, .. } = self;
        stop.cancel();
        let drained = async {
            for worker in &mut done {
                // An error means that the worker is gone, which is as good.
                let _ = worker.await;
            }
        };
        tokio::select! {
            biased;
            () = drained => return Stopped::Drained,
            () = over => {}
        }
        cut.cancel();
        // Those that ended in time have nothing more to say.
        for worker in done.into_iter().filter(|worker| !worker.is_terminated()) {
            let _ = worker.await;
        }
        Stopped::Cut
    }
}

/// One thread's share of the server.
struct Worker {
    dispatcher: Dispatcher,
    builder: auto::Builder<Leashed>,
    journal: Journal,
    patience: Patience,
    slots: Arc<Semaphore>,
    guests: Guests,
    stop: CancellationToken,
    cut: CancellationToken,
}

impl Worker {
    fn spawn(
        self,
        number: usize,
        listener: std::net::TcpListener,
    ) -> io::Result<oneshot::Receiver<()>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _context = runtime.enter();
            TcpListener::from_std(listener)?
        };
        let (ended, done) = oneshot::channel();
        thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
            runtime.block_on(Arc::new(self).run(listener));
            // Connections to upstreams and their tasks end with the runtime; a
            // name being resolved need not be waited for.
            runtime.shutdown_background();
            let _ = ended.send(());
        })?;
        Ok(done)
    }

    async fn run(self: Arc<Self>, listener: TcpListener) {
        let connections = TaskTracker::new();
        let watching = watch::watch(self.patience.stuck_write);
        let _watching = AbortOnDropHandle::new(tokio::spawn(watching));
        let this = Arc::clone(&self);
        let feeling = async move { this.dispatcher.pressure.watch(|on| this.overloaded(on)).await };
        let _feeling = AbortOnDropHandle::new(tokio::spawn(feeling));
        let sending = outbox::run(self.journal.clone());
        let _sending = AbortOnDropHandle::new(tokio::spawn(sending));
        self.accept(&listener, &connections).await;
        // Closing resets what the kernel holds ready; a request may be in it.
        while let Some(Ok((socket, peer))) = listener.accept().now_or_never() {
            let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else { break };
            self.begin(&connections, socket, peer, slot);
        }
        drop(listener);
        connections.close();
        connections.wait().await;
        outbox::finish();
        if self.dispatcher.pressure.is_overloaded() {
            // Nobody is left to say that it is over.
            self.dispatcher.metrics.overloaded.decrement(1.0);
        }
    }

    /// Serves a connection, unless its address has too many: then it is closed
    /// before anything is read from it.
    fn begin(
        self: &Arc<Self>,
        connections: &TaskTracker,
        socket: TcpStream,
        peer: SocketAddr,
        slot: OwnedSemaphorePermit,
    ) {
        let Some(guest) = self.guests.enter(peer.ip()) else {
            self.dispatcher.metrics.turned_away.increment(1);
            return;
        };
        let reserved = self.dispatcher.scarcity.is_there();
        let serving = Arc::clone(self).serve(socket, peer, slot, reserved);
        connections.spawn(async move {
            serving.await;
            drop(guest);
        });
    }

    async fn accept(self: &Arc<Self>, listener: &TcpListener, connections: &TaskTracker) {
        loop {
            // A connection over the limit waits in the kernel's queue.
            let slot = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                slot = Arc::clone(&self.slots).acquire_owned() => {
                    slot.expect("the semaphore is never closed")
                }
            };
            let accepted = tokio::select! {
                biased;
                accepted = listener.accept() => accepted,
                () = self.stop.cancelled() => return,
            };
            match accepted {
                Ok((socket, peer)) => self.begin(connections, socket, peer, slot),
                Err(error) if is_about_the_peer(&error) => {}
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "cannot accept connections"
                    );
                    tokio::select! {
                        () = sleep(ACCEPT_PAUSE) => {}
                        () = self.stop.cancelled() => return,
                    }
                }
            }
        }
    }

    fn overloaded(&self, is: bool) {
        if is {
            self.dispatcher.metrics.overloaded.increment(1.0);
            tracing::warn!("a worker has more to do than it can; it refuses some requests");
        } else {
            self.dispatcher.metrics.overloaded.decrement(1.0);
            tracing::info!("a worker keeps up again");
        }
    }

    async fn serve(
        self: Arc<Self>,
        socket: TcpStream,
        peer: SocketAddr,
        _slot: OwnedSemaphorePermit,
        reserved: bool,
    ) {
        // Without it the last part of an answer may wait for an acknowledgement.
        let _ = socket.set_nodelay(true);
        let _open = Open::new(&self.dispatcher);
        let connection = Connection::new(peer, reserved);
        let io = TokioIo::new(Guarded::new(socket, Arc::clone(&connection), self.patience));
        let service = service_fn(|request: Request<Incoming>| {
            let (worker, connection) = (Arc::clone(&self), Arc::clone(&connection));
            // hyper moves the future that this returns, so its size counts. What
            // a block captures is in it once; an argument of an `async fn` twice.
            // Here and further in, futures are pinned where they are made:
            // `.await` by itself moves one several times.
            let (mut parts, body) = request.into_parts();
            async move {
                let answer = pin!(worker.dispatcher.handle(connection, &mut parts, body)).await;
                Ok::<_, Infallible>(answer)
            }
        });
        // In a block, since what HTTP leaves behind keeps the hand-over to a tunnel
        // open: dropped, it says that a client is gone (RELIABILITY G-128).
        {
            let mut leash = Leash::default();
            let mut served = pin!(self.builder.serve_connection_with_upgrades(io, service));
            // A token takes a lock each time it is polled; so it is only polled
            // when it is what woke this task.
            let stop = pin!(self.stop.cancelled());
            let mut stopping = Woken::new(stop);
            // How a connection ends is seen request by request; an error here is
            // a client that left or was cut, which is no event.
            let stopped = tokio::select! {
                biased;
                _ = leash.hold(served.as_mut()) => false,
                () = &mut stopping => true,
            };
            if stopped {
                served.as_mut().graceful_shutdown();
                tokio::select! {
                    biased;
                    _ = leash.hold(served) => {}
                    () = self.cut.cancelled() => {}
                }
            }
        }
        // Told from elsewhere that the process stops.
        if let Some(tunnel) = connection.tunnel() {
            tokio::select! {
                biased;
                () = tunnel => {}
                () = self.cut.cancelled() => {}
            }
        }
    }
}

fn connection_builder() -> auto::Builder<Leashed> {
    let mut builder = auto::Builder::new(Leashed);
    // Heads are timed by the socket's guard, which also covers the time before
    // the version is known; hyper's own limit of 100 fields stays.
    builder.http1().header_read_timeout(None).max_buf_size(MAX_HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(H2_PING_AFTER)
        .keep_alive_timeout(H2_PONG_WITHIN)
        .max_concurrent_streams(H2_STREAMS)
        .initial_stream_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .max_header_list_size(H2_HEADER_LIST);
    builder
}

/// The connection was given up before it was accepted; the next one may be fine.
fn is_about_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}
