//! One connection, from accept to its end.

use std::{
    convert::Infallible, future::poll_fn, net::SocketAddr, pin::pin, sync::Arc, time::Duration,
};

use http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
    time::sleep_until,
};

use super::{
    crowd::Open,
    io::{Connection, Guarded},
    listen::Worker,
    tls::{Secured, Tls},
    watch::{Leash, Leashed},
    woken::Woken,
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
/// At a stop, a connection is not closed before its first request within so long
/// of its accept: who has just opened it is about to ask, and could not tell
/// whether that was done.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

impl Worker {
    pub(super) async fn serve(
        self: Arc<Self>,
        socket: TcpStream,
        peer: SocketAddr,
        _slot: OwnedSemaphorePermit,
        reserved: bool,
    ) {
        // Without it the last part of an answer may wait for an acknowledgement.
        let _ = socket.set_nodelay(true);
        let _open = Open::new(&self.dispatcher);
        let connection = Connection::new(peer, self.tls.is_some(), reserved);
        let socket = Guarded::new(socket, Arc::clone(&connection), self.patience);
        match &self.tls {
            None => pin!(self.carry(socket, &connection)).await,
            // Boxed, so that a connection without TLS does not carry its size.
            Some(tls) => Box::pin(self.carry_secured(tls, socket, &connection)).await,
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

    async fn carry_secured(
        self: &Arc<Self>,
        tls: &Tls,
        socket: Guarded,
        connection: &Arc<Connection>,
    ) {
        let over = async {
            self.stop.cancelled().await;
            sleep_until(connection.opened() + FIRST_REQUEST).await;
        };
        let secured: Option<Secured> = tokio::select! {
            biased;
            secured = tls.shake_hands(socket, connection, self.patience.head) => secured,
            () = over => None,
        };
        if let Some(secured) = secured {
            self.carry(secured, connection).await;
        }
    }

    /// Speaks HTTP until it ends.
    async fn carry<S>(self: &Arc<Self>, socket: S, connection: &Arc<Connection>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(|request: Request<Incoming>| {
            let (worker, connection) = (Arc::clone(self), Arc::clone(connection));
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
        // Dropped at the end of this, since what HTTP leaves behind keeps the
        // hand-over to a tunnel open: it says that a client is gone (RELIABILITY
        // G-128).
        let mut leash = Leash::default();
        let io = TokioIo::new(socket);
        let mut served = pin!(self.builder.serve_connection_with_upgrades(io, service));
        // A token takes a lock each time it is polled; so it is only polled
        // when it is what woke this task.
        let stop = pin!(self.stop.cancelled());
        let mut stopping = Woken::new(stop);
        // How a connection ends is seen request by request; an error here is
        // a client that left or was cut, which is no event.
        tokio::select! {
            biased;
            _ = leash.hold(served.as_mut()) => return,
            () = &mut stopping => {}
        }
        tokio::select! {
            biased;
            _ = leash.hold(served.as_mut()) => return,
            () = first_request(connection) => {}
        }
        served.as_mut().graceful_shutdown();
        tokio::select! {
            biased;
            _ = leash.hold(served) => {}
            () = self.cut.cancelled() => {}
        }
    }
}

/// Until a request has come, or none is to be waited for. To be polled by the
/// task that serves.
async fn first_request(connection: &Connection) {
    let mut late = pin!(sleep_until(connection.opened() + FIRST_REQUEST));
    poll_fn(
        |cx| {
            if connection.is_used() { std::task::Poll::Ready(()) } else { late.as_mut().poll(cx) }
        },
    )
    .await;
}

pub(super) fn builder() -> auto::Builder<Leashed> {
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
