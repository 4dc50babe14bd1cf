//! Asks the targets of upstreams, from time to time, whether they are well.

use std::{sync::Arc, time::Duration};

use rand::RngExt as _;
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{gateway::Checkup, services::UpstreamService};

/// Checks every target that is to be checked, until `stop`. Each instance does
/// that for itself: what one reaches another may not.
pub async fn watch_upstreams(upstreams: Arc<UpstreamService>, stop: CancellationToken) {
    loop {
        let directory = upstreams.current();
        // Ends with this round: dropping the set ends its tasks.
        let mut checks = JoinSet::new();
        for upstream in &directory.upstreams {
            let Some(check) = &upstream.config.health else { continue };
            for target in &upstream.targets {
                let checkup = Checkup::new(upstream, target, check);
                checks.spawn(again_and_again(checkup, check.interval));
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = upstreams.replaced(directory.generation) => {}
        }
    }
}

async fn again_and_again(checkup: Checkup, interval: Duration) {
    loop {
        checkup.run().await;
        // Instances that started together are not to ask together.
        let jitter = rand::rng().random_range(0.0..0.1);
        sleep(interval.mul_f64(1.0 + jitter)).await;
    }
}
