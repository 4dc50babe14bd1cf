//! One of a pool's callers connects at a time.
//!
//! A Postgres that has no place left refuses each attempt, and sqlx repeats it
//! for as long as a caller waits: ten callers of each instance would keep the
//! server busy with refusals. So one at a time may try, which comes to fewer than
//! ten attempts a second (RELIABILITY G-23); the others wait for a connection
//! that another one gives back.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use sqlx::PgPool;
use tokio::{
    sync::{Notify, Semaphore, SemaphorePermit},
    time::timeout,
};

/// A connection is told of just before it can be had, so it is looked again.
const AGAIN: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub struct Connecting {
    turn: Semaphore,
    /// Idle connections that somebody is about to take.
    claimed: AtomicUsize,
    returned: Arc<Notify>,
}

/// Leave to ask the pool. To be kept until it has answered.
#[derive(Debug)]
pub struct Leave<'c> {
    _turn: Option<SemaphorePermit<'c>>,
    _claim: Option<Claim<'c>>,
}

#[derive(Debug)]
struct Claim<'c>(&'c AtomicUsize);

impl Connecting {
    /// `returned` is told of each connection that comes back.
    pub fn new(returned: Arc<Notify>) -> Self {
        Self { turn: Semaphore::new(1), claimed: AtomicUsize::new(0), returned }
    }

    /// Waits until there is a connection to be had, or a turn to make one.
    pub async fn leave(&self, pool: &PgPool) -> Leave<'_> {
        loop {
            let mut returned = pin!(self.returned.notified());
            returned.as_mut().enable();
            if pool.size() >= pool.options().get_max_connections() {
                // It makes no more: its own queue is fair.
                return Leave { _turn: None, _claim: None };
            }
            if let Some(claim) = self.claim(pool.num_idle()) {
                return Leave { _turn: None, _claim: Some(claim) };
            }
            if let Ok(turn) = self.turn.try_acquire() {
                return Leave { _turn: Some(turn), _claim: None };
            }
            let _ = timeout(AGAIN, returned).await;
        }
    }

    /// One of the idle connections, unless others are about to take them all.
    fn claim(&self, idle: usize) -> Option<Claim<'_>> {
        let one_more = |claimed| (claimed < idle).then_some(claimed + 1);
        self.claimed.fetch_update(SeqCst, SeqCst, one_more).ok()?;
        Some(Claim(&self.claimed))
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}
