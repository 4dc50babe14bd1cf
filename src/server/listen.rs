//! Listeners, workers, connections, and their end.
//!
//! Each worker is a thread with a single-threaded runtime and a listener of its
//! own on the same port (`SO_REUSEPORT`), so a connection never moves between
//! threads. All listeners are bound before the first connection is taken.

use std::{io, net::SocketAddr, sync::Arc, thread, time::Duration};

use axum::Router;
use hyper_util::server::conn::auto;
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
    answer::only_https,
    connection,
    crowd::{Guests, Scarcity},
    dispatch::{Dispatcher, Ours},
    io::Patience,
    memory::Memory,
    observe::Metrics,
    outbox::Outbox,
    pressure::Pressure,
    sockets,
    tls::{PairError, Tls},
    watch::{self, Leashed},
};
use crate::{
    config::Config,
    domain::clock::SharedClock,
    gateway::Gateway,
    services::{Services, usage::Journal},
    telemetry::trace::Tracer,
};

/// Between the last new connection that is let in and the end of a listener:
/// what is on its way is still accepted. Whoever comes meanwhile tries again after a
/// second and is refused then, so this is short.
const LAST_CALL: Duration = Duration::from_millis(10);
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
    /// `None`: there are no traces.
    pub tracer: Option<Arc<Tracer>>,
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
    #[error("cannot use the certificate of SERVER_TLS_CERT")]
    Certificate(#[source] PairError),
}

/// A server that serves. Dropping it cuts everything at once.
pub struct Running {
    address: SocketAddr,
    stop: CancellationToken,
    cut: CancellationToken,
    done: Vec<oneshot::Receiver<()>>,
    tls: Option<Arc<Tls>>,
    _following: Option<AbortOnDropHandle<()>>,
    _watching: AbortOnDropHandle<()>,
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

/// Fails where [`start`] would because somebody else listens there. Nobody can
/// connect yet.
pub fn is_free(config: &Config) -> Result<(), StartError> {
    let address = config.server.listen();
    sockets::is_free(address).map_err(|source| StartError::Listen { address, source })
}

/// Binds, then serves until [`Running::stop`]. Must be called within the runtime
/// that the API is to run on.
pub fn start(config: &Config, parts: &Parts) -> Result<Running, StartError> {
    let server = Arc::new(config.server.clone());
    let workers = server.workers.max(1);
    let wanted = server.listen();
    let tls = server.tls.as_ref().map(Tls::load).transpose().map_err(StartError::Certificate)?;
    let listeners = sockets::bind(wanted, workers)
        .map_err(|source| StartError::Listen { address: wanted, source })?;
    let address = listeners[0]
        .local_addr()
        .map_err(|source| StartError::Listen { address: wanted, source })?;
    let slots = Arc::new(Semaphore::new(server.max_connections.min(Semaphore::MAX_PERMITS)));
    let guests = Guests::new(server.max_connections_per_address, &server.trusted_proxies);
    let (stop, cut) = (CancellationToken::new(), CancellationToken::new());
    let metrics = Metrics::new();
    let memory = Arc::<Memory>::default();

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
            only_https: only_https(server.hsts_seconds),
            clock: Arc::clone(&parts.clock),
            metrics: Arc::clone(&metrics),
            room: Arc::clone(&parts.services.room),
            health: Arc::clone(&parts.services.health),
            pressure,
            memory: Arc::clone(&memory),
            scarcity: Scarcity::new(&slots, server.max_connections, workers),
            tracer: parts.tracer.clone(),
        };
        let worker = Worker {
            dispatcher,
            builder: connection::builder(),
            tls: tls.clone(),
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
    let watching = AbortOnDropHandle::new(tokio::spawn(memory.watch(server.memory_limit)));
    let following = tls.clone().map(|tls| AbortOnDropHandle::new(tokio::spawn(tls.follow())));
    Ok(Running {
        address,
        stop,
        cut,
        done,
        tls,
        _following: following,
        _watching: watching,
        _guards: guards,
    })
}

impl Running {
    /// Where it listens; the port is the real one also if port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate that is shown; `None` where nothing is encrypted.
    pub fn tls(&self) -> Option<&Arc<Tls>> {
        self.tls.as_ref()
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
pub struct Worker {
    pub(super) dispatcher: Dispatcher,
    pub(super) builder: auto::Builder<Leashed>,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) patience: Patience,
    journal: Journal,
    slots: Arc<Semaphore>,
    guests: Guests,
    pub(super) stop: CancellationToken,
    pub(super) cut: CancellationToken,
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
        let outbox = Outbox::open(self.journal.clone());
        self.accept(&listener, &connections).await;
        self.accept_last(listener, &connections).await;
        connections.close();
        connections.wait().await;
        // What ends with the runtime is recorded at once.
        drop(outbox);
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
        let Dispatcher { scarcity, memory, .. } = &self.dispatcher;
        let reserved = scarcity.is_there() || memory.is_out();
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

    /// Closing resets what the kernel holds ready, and a request may be in it.
    /// Who is refused goes elsewhere; who is reset cannot know what was done.
    async fn accept_last(self: &Arc<Self>, listener: TcpListener, connections: &TaskTracker) {
        sockets::let_nobody_in(&listener);
        sleep(LAST_CALL).await;
        // Asks the kernel, where the runtime would answer what it heard last.
        let Ok(listener) = listener.into_std() else { return };
        loop {
            let (socket, peer) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if is_about_the_peer(&error) => continue,
                Err(_) => return,
            };
            let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else { return };
            let socket = socket.set_nonblocking(true).and_then(|()| TcpStream::from_std(socket));
            let Ok(socket) = socket else { continue };
            self.begin(connections, socket, peer, slot);
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
}

/// The connection was given up before it was accepted; the next one may be fine.
fn is_about_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
