//! One loader per key and instance, however many ask (G-90).
//!
//! Only mutual exclusion lives here; what is loaded and where it is kept is the
//! cache's. A leader that is cancelled simply lets the next one lead.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::MutexGuard;

#[derive(Debug, Default)]
struct Flight {
    lead: tokio::sync::Mutex<()>,
    /// The leader met an error.
    failed: AtomicBool,
}

/// Whoever loaded it for several met an error. Those who waited share it: to
/// try in their turn would cost them the timeout of a database that is away
/// once more (RELIABILITY G-20).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("another request met an error with the same")]
pub struct LoadFailed;

/// The loads under way.
#[derive(Debug)]
pub(super) struct Flights<K>(Mutex<HashMap<K, Arc<Flight>>>);

impl<K> Default for Flights<K> {
    fn default() -> Self {
        Self(Mutex::new(HashMap::new()))
    }
}

impl<K: Hash + Eq + Clone> Flights<K> {
    /// Joins the flight of `key`; leaves it when the answer is dropped.
    pub(super) fn join(&self, key: &K) -> Ticket<'_, K> {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let flight = Arc::clone(flights.entry(key.clone()).or_default());
        Ticket { flights: self, key: key.clone(), flight }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

pub(super) struct Ticket<'a, K: Hash + Eq> {
    flights: &'a Flights<K>,
    key: K,
    flight: Arc<Flight>,
}

impl<K: Hash + Eq> Ticket<'_, K> {
    /// Waits for the turn to load.
    pub(super) async fn lead(&self) -> Result<MutexGuard<'_, ()>, LoadFailed> {
        let turn = self.flight.lead.lock().await;
        if self.flight.failed.load(Ordering::Acquire) { Err(LoadFailed) } else { Ok(turn) }
    }

    pub(super) fn fail(&self) {
        self.flight.failed.store(true, Ordering::Release);
        self.forget_if(|_| true);
    }

    fn forget_if(&self, condition: impl Fn(&Arc<Flight>) -> bool) {
        let mut flights = self.flights.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = |held: &Arc<Flight>| Arc::ptr_eq(held, &self.flight) && condition(held);
        if flights.get(&self.key).is_some_and(mine) {
            flights.remove(&self.key);
        }
    }
}

impl<K: Hash + Eq> Drop for Ticket<'_, K> {
    fn drop(&mut self) {
        // Two: the map's and this one. Joining takes the map's lock as well,
        // so nobody can join in between.
        self.forget_if(|held| Arc::strong_count(held) == 2);
    }
}
