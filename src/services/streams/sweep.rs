//! Looks at the credentials of all open streams, again and again.
//!
//! What is asked is what a request would ask: the copies in memory, which a
//! change evicts on every instance, and the store where there is none. So no
//! change of a credential, account or session needs to know of streams. Upstreams
//! that were changed by a reload do not count: a stream keeps the policy that it
//! began with.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use futures_util::{StreamExt as _, stream};

use super::{OpenStream, StreamService};
use crate::{
    domain::{kill::KillReason, principal::Proof},
    services::access::{AccessError, Proven},
};

/// How often to sweep.
pub const SWEEP_EVERY: Duration = Duration::from_millis(250);
/// Most credentials that are read from the store at once.
const LOADS: usize = 8;

type ByProof = HashMap<Proof, Vec<Arc<OpenStream>>>;

impl StreamService {
    /// Ends the streams whose credentials count no more. When the next one is
    /// over by itself, for a sweep at that instant.
    pub async fn sweep(&self) -> Option<Duration> {
        let now = self.clock.now();
        let groups = self.by_proof(now);
        let away = AtomicBool::new(false);
        let judged = stream::iter(groups)
            .map(|(proof, streams)| self.judge(proof, streams, &away))
            .buffer_unordered(LOADS);
        let ends: Vec<Option<DateTime<Utc>>> = judged.collect().await;
        let soonest = ends.into_iter().flatten().min()?;
        Some((soonest - self.clock.now()).to_std().unwrap_or_default())
    }

    /// Streams that are still open by what shows that they may be. What is known
    /// to be over needs no store, which may be away.
    fn by_proof(&self, now: DateTime<Utc>) -> ByProof {
        let mut groups = ByProof::new();
        for stream in self.open().values() {
            let Some(proof) = stream.proof() else { continue };
            if stream.is_over(now) {
                stream.kill.trip(KillReason::Expired);
            } else if stream.kill.reason().is_none() {
                groups.entry(proof).or_default().push(Arc::clone(stream));
            }
        }
        groups
    }

    async fn judge(
        &self,
        proof: Proof,
        streams: Vec<Arc<OpenStream>>,
        away: &AtomicBool,
    ) -> Option<DateTime<Utc>> {
        // One that cannot be read holds up the rest for once, not once each.
        let proven =
            if away.load(Relaxed) { None } else { Some(self.access.prove_again(&proof).await) };
        let now_us = self.clock.monotonic_us();
        match proven {
            Some(Ok(Proven { principal, until })) => {
                for stream in &streams {
                    stream.was_proven(until, now_us);
                    if !stream.admits(&principal) {
                        stream.kill.trip(KillReason::Revoked);
                    }
                }
                until
            }
            Some(Err(AccessError::Invalid)) => {
                let now = self.clock.now();
                for stream in &streams {
                    let over = stream.is_over(now);
                    let reason = if over { KillReason::Expired } else { KillReason::Revoked };
                    stream.kill.trip(reason);
                }
                None
            }
            Some(Err(AccessError::Store(_))) | None => {
                away.store(true, Relaxed);
                // From the last that was known of the truth, be it by a copy.
                let bound = self.hub.staleness();
                let is_stale = self.hub.sync_age().is_some_and(|age| age >= bound);
                let over = |stream: &OpenStream| {
                    is_stale || Duration::from_micros(stream.unproven_for(now_us)) >= bound
                };
                for stream in streams.iter().filter(|stream| over(stream)) {
                    stream.kill.trip(KillReason::Revoked);
                }
                None
            }
        }
    }
}
