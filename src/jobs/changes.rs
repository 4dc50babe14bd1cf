//! Follows the changes of credentials.

use std::{sync::Arc, time::Duration};

use rand::RngExt as _;
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::services::changes::ChangeService;

/// How often the database is asked when it says nothing by itself. It may be lost
/// for a moment without anybody noticing: this bounds how long.
const ASK_EVERY: Duration = Duration::from_secs(1);
const LISTEN_AGAIN: Duration = Duration::from_secs(1);
/// How often the way of a change is measured.
const PROBE_EVERY: Duration = Duration::from_secs(15);

/// Follows until `stop`.
pub async fn run(changes: Arc<ChangeService>, stop: CancellationToken) {
    let told = Notify::new();
    tokio::select! {
        () = stop.cancelled() => {}
        () = follow(&changes, &told) => {}
        () = listen(&changes, &told) => {}
    }
}

async fn follow(changes: &ChangeService, told: &Notify) {
    loop {
        // It says itself what is wrong.
        let _ = changes.follow().await;
        let jitter = rand::rng().random_range(0.9..1.1);
        // Told or not, it is time.
        let _ = timeout(ASK_EVERY.mul_f64(jitter), told.notified()).await;
    }
}

/// Only an engine that tells has others to tell, so only there it is measured.
async fn listen(changes: &ChangeService, told: &Notify) {
    loop {
        match changes.listen().await {
            Ok(None) => return std::future::pending().await,
            Ok(Some(mut listener)) => {
                // What was said before nobody heard.
                told.notify_one();
                let hear = async {
                    while listener.changed().await.is_ok() {
                        told.notify_one();
                    }
                };
                tokio::select! {
                    () = hear => {}
                    () = probe(changes) => {}
                }
            }
            Err(error) => tracing::debug!(%error, "cannot listen to changes of credentials"),
        }
        sleep(LISTEN_AGAIN).await;
    }
}

async fn probe(changes: &ChangeService) {
    loop {
        let jitter = rand::rng().random_range(0.9..1.1);
        sleep(PROBE_EVERY.mul_f64(jitter)).await;
        if let Err(error) = changes.probe().await {
            tracing::debug!(%error, "the way of a change could not be measured");
        }
    }
}
