//! TLS of the main listener: its certificate, and how a connection becomes secure.
//!
//! The pair of certificate and key is looked at every [`LOOK_EVERY`] and read
//! again where it has changed (renamed over, a symbolic link that points
//! elsewhere, written in place) and stayed so for one look, since tools replace
//! the two files one after the other. A pair that cannot be used leaves the old
//! one in force. Connections keep what they began with.
//!
//! Handshakes are done by the connection's own task within the time that a
//! request's head has. TLS 1.2 is the oldest; client certificates are not asked
//! for. Who the client is does not depend on any of this.

mod expiry;
mod pair;
mod stream;

use std::{
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use metrics::{Counter, Gauge, counter, gauge};
use rustls::ServerConfig;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use self::pair::Pair;
pub use self::{pair::PairError, stream::Secured};
use super::io::{Connection, Guarded};
use crate::config::TlsFiles;

/// How often it is looked whether the files have changed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What tells one state of a file from another; `None`: it cannot be reached.
type Stamp = Option<[u64; 6]>;

/// The certificate in force, shared by all workers.
pub struct Tls {
    files: TlsFiles,
    config: ArcSwap<ServerConfig>,
    /// Of the files when they were read last. Held while they are.
    tried: Mutex<[Stamp; 2]>,
    metrics: Metrics,
}

struct Metrics {
    done: Counter,
    failed: Counter,
    timed_out: Counter,
    reloaded: Counter,
    refused: Counter,
    expires: Gauge,
}

/// Whether the files hold a pair that can be used.
pub fn check(files: &TlsFiles) -> Result<(), PairError> {
    Pair::read(files).map(drop)
}

impl Tls {
    pub fn load(files: &TlsFiles) -> Result<Arc<Self>, PairError> {
        let tried = stamps(files);
        let pair = Pair::read(files)?;
        let metrics = Metrics::new();
        metrics.expires(&pair);
        Ok(Arc::new(Self {
            files: files.clone(),
            config: ArcSwap::new(pair.config),
            tried: Mutex::new(tried),
            metrics,
        }))
    }

    /// Reads the files now, changed or not. Whatever is wrong with them leaves
    /// the pair in force.
    pub fn reload(&self) {
        // One at a time, so that the later of two is what holds in the end.
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        // Before they are read: what changes meanwhile is seen at the next look.
        *tried = stamps(&self.files);
        match Pair::read(&self.files) {
            Ok(pair) => {
                self.metrics.expires(&pair);
                self.metrics.reloaded.increment(1);
                tracing::info!(expires_at = pair.expires_at, "the certificate was read again");
                self.config.store(pair.config);
            }
            Err(error) => {
                self.metrics.refused.increment(1);
                let error = &error as &dyn std::error::Error;
                tracing::error!(
                    error,
                    "the new certificate cannot be used; the one in force stays"
                );
            }
        }
    }

    /// Follows the files for ever.
    pub async fn follow(self: Arc<Self>) {
        let mut before = None;
        loop {
            sleep(LOOK_EVERY).await;
            let this = Arc::clone(&self);
            // A file system may hang.
            let looked = tokio::task::spawn_blocking(move || this.look(before)).await;
            before = looked.ok();
        }
    }

    /// Reads the files if they are not as they were read last, but as they were
    /// `before`. How they are now.
    fn look(&self, before: Option<[Stamp; 2]>) -> [Stamp; 2] {
        let now = stamps(&self.files);
        let tried = *self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        if now != tried && before == Some(now) {
            self.reload();
        }
        now
    }

    /// The server's part of a handshake; `None` where nothing comes of it.
    pub async fn shake_hands(
        &self,
        socket: Guarded,
        connection: &Arc<Connection>,
        within: Duration,
    ) -> Option<Secured> {
        let acceptor = TlsAcceptor::from(self.config.load_full());
        let late = match timeout(within, acceptor.accept(socket)).await {
            Ok(Ok(stream)) => {
                self.metrics.done.increment(1);
                return Some(Secured::new(stream, Arc::clone(connection)));
            }
            Ok(Err(error)) => error.kind() == std::io::ErrorKind::TimedOut,
            Err(_) => true,
        };
        let count = if late { &self.metrics.timed_out } else { &self.metrics.failed };
        count.increment(1);
        None
    }
}

impl Metrics {
    fn new() -> Self {
        let handshakes = |result| counter!("tollgate_tls_handshakes_total", "result" => result);
        let reloads = |result| counter!("tollgate_tls_reloads_total", "result" => result);
        Self {
            done: handshakes("done"),
            failed: handshakes("failed"),
            timed_out: handshakes("timed_out"),
            reloaded: reloads("done"),
            refused: reloads("failed"),
            expires: gauge!("tollgate_tls_certificate_expiry_timestamp_seconds"),
        }
    }

    fn expires(&self, pair: &Pair) {
        #[expect(clippy::cast_precision_loss, reason = "it is exact for millions of years")]
        self.expires.set(pair.expires_at.unwrap_or_default() as f64);
    }
}

fn stamps(files: &TlsFiles) -> [Stamp; 2] {
    [&files.cert, &files.key].map(|path| stamp(path))
}

/// Of what a link leads to: that is what changes where links are swapped.
fn stamp(path: &Path) -> Stamp {
    let file = std::fs::metadata(path).ok()?;
    let (at, part) = (file.mtime().cast_unsigned(), file.mtime_nsec().cast_unsigned());
    Some([file.dev(), file.ino(), file.size(), at, part, file.ctime_nsec().cast_unsigned()])
}

#[cfg(test)]
mod tests;
