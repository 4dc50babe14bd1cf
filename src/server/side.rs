//! A listener for what must not stand beside the API: `/metrics` on a port of
//! its own.
//!
//! Made for a scraper and a handful of people: few connections, HTTP/1.1, no
//! bodies that matter. It answers until the process ends, so that a stop can be
//! watched too.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;
use tower::ServiceExt;

use super::{StartError, answer::complete, client::RequestId, sockets};
use crate::domain::clock::SharedClock;

/// Connections at once; the next one waits.
const MAX_CONNECTIONS: usize = 32;
/// The longest that a connection may last: far above any scrape, and it frees a
/// place that a silent client holds.
const MAX_LIFE: Duration = Duration::from_mins(5);
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until it is dropped.
#[must_use = "dropping it ends it"]
pub struct Side {
    address: SocketAddr,
    _serving: AbortOnDropHandle<()>,
}

impl Side {
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Binds and serves the router, on the current runtime.
pub fn start_side(
    address: SocketAddr,
    router: Router,
    clock: SharedClock,
) -> Result<Side, StartError> {
    let failed = |source| StartError::Listen { address, source };
    let listener = sockets::bind(address, 1).map_err(failed)?.remove(0);
    let listener = TcpListener::from_std(listener).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let serving = tokio::spawn(serve(listener, router, clock));
    Ok(Side { address, _serving: AbortOnDropHandle::new(serving) })
}

async fn serve(listener: TcpListener, router: Router, clock: SharedClock) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await.expect("it is never closed");
        let Ok((socket, _)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (router, clock) = (router.clone(), clock.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let (router, clock) = (router.clone(), clock.clone());
            async move { Ok::<_, Infallible>(answer(router, &clock, request).await) }
        });
        tokio::spawn(async move {
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
            let connection = builder.serve_connection(TokioIo::new(socket), service);
            // How it ends interests nobody: the scraper counts its own failures.
            let _ = timeout(MAX_LIFE, connection).await;
            drop(slot);
        });
    }
}

async fn answer(
    router: Router,
    clock: &SharedClock,
    request: Request<Incoming>,
) -> axum::response::Response {
    let at = clock.now();
    let request_id = RequestId::of(request.headers(), at);
    let path = request.uri().path().to_owned();
    let mut response = match router.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    complete(&mut response, &request_id, &path, None, at);
    response
}
