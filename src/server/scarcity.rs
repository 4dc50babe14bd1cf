//! The last connections, which are for routes of ours.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// Of so many connections one is for routes of ours: health, metrics, logins and
/// administration are reached while proxied requests hold all others.
const RESERVED: usize = 5;

/// Whether so many connections are open that the rest is for routes of ours.
pub struct Scarcity {
    slots: Arc<Semaphore>,
    /// Of the slots, those for routes of ours.
    reserve: usize,
}

impl Scarcity {
    /// Of `most` connections, each of which holds one of `slots`.
    pub fn new(slots: &Arc<Semaphore>, most: usize, workers: usize) -> Self {
        // Each worker that waits for a connection holds a slot for it.
        let reserve = (most / RESERVED).saturating_sub(workers - 1);
        Self { slots: Arc::clone(slots), reserve }
    }

    pub fn is_there(&self) -> bool {
        self.slots.available_permits() < self.reserve
    }
}
