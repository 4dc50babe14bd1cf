//! Watches the open streams.

use std::sync::Arc;

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::services::{
    StreamService,
    streams::{shown::SHARE_EVERY, sweep::SWEEP_EVERY},
};

/// Ends what may not be open any more, and shows the other instances what is,
/// until `stop`.
pub async fn run(streams: Arc<StreamService>, stop: CancellationToken) {
    let sweeping = async {
        loop {
            let begin = Instant::now();
            let next = streams.sweep().await;
            // At the very end of a credential, where that is sooner; but not all
            // the time, whatever a clock says.
            let pause = next.map_or(SWEEP_EVERY, |end| end.clamp(SWEEP_EVERY / 50, SWEEP_EVERY));
            sleep_until(begin + pause).await;
        }
    };
    let sharing = async {
        loop {
            streams.share().await;
            sleep(SHARE_EVERY).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = sweeping => {}
        () = sharing => {}
    }
}
