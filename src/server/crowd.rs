//! How many connections there are, of everybody and of one address.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ipnet::IpNet;
use tokio::sync::Semaphore;

use super::dispatch::Dispatcher;
use crate::domain::address::network_of;

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
    /// Of `most` connections of so many workers.
    pub fn new(slots: &Arc<Semaphore>, most: usize, workers: usize) -> Self {
        // Each worker that waits for a connection holds a slot for it.
        let reserve = (most / RESERVED).saturating_sub(workers - 1);
        Self { slots: Arc::clone(slots), reserve }
    }

    pub fn is_there(&self) -> bool {
        self.slots.available_permits() < self.reserve
    }
}

/// Counts a connection while it lives.
pub struct Open<'d>(&'d Dispatcher);

impl<'d> Open<'d> {
    pub fn new(dispatcher: &'d Dispatcher) -> Self {
        dispatcher.metrics.connections.increment(1.0);
        dispatcher.pressure.opened();
        Self(dispatcher)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.metrics.connections.decrement(1.0);
        self.0.pressure.closed();
    }
}

/// Connections by address, IPv6 by its /64, over all workers. Cheap to clone.
///
/// A proxy that is trusted speaks for many, and so does this machine, where one that
/// needs no trust may run: theirs are not counted.
#[derive(Clone, Debug)]
pub struct Guests(Arc<All>);

#[derive(Debug)]
struct All {
    /// 0: any number.
    most: usize,
    trusted: Vec<IpNet>,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// A connection of an address, until it is dropped.
#[derive(Debug)]
#[must_use = "dropping it is the end of the connection"]
pub struct Guest {
    all: Arc<All>,
    /// `None`: it is not counted.
    network: Option<IpAddr>,
}

impl Guests {
    pub fn new(most: usize, trusted: &[IpNet]) -> Self {
        Self(Arc::new(All { most, trusted: trusted.to_vec(), open: Mutex::default() }))
    }

    /// `None`: this address has as many as it may.
    pub fn enter(&self, address: IpAddr) -> Option<Guest> {
        let All { most, trusted, .. } = &*self.0;
        let address = address.to_canonical();
        let speaks_for_many = || trusted.iter().any(|proxies| proxies.contains(&address));
        if *most == 0 || address.is_loopback() || speaks_for_many() {
            return Some(Guest { all: Arc::clone(&self.0), network: None });
        }
        let network = network_of(address);
        let mut open = self.0.open();
        let count = open.entry(network).or_insert(0);
        if *count >= *most {
            return None;
        }
        *count += 1;
        Some(Guest { all: Arc::clone(&self.0), network: Some(network) })
    }
}

impl All {
    fn open(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let Some(network) = self.network else { return };
        let mut open = self.all.open();
        if let Some(count) = open.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                open.remove(&network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_and_those_who_speak_for_others_any_number() {
        let guests = Guests::new(2, &["192.0.2.0/24".parse().unwrap()]);
        let enter = |address: &str| guests.enter(address.parse().unwrap());
        for [first, other, free] in [
            ["198.51.100.1", "::ffff:198.51.100.1", "198.51.100.2"],
            ["2001:db8:1:2::1", "2001:db8:1:2:3::4", "2001:db8:1:3::1"],
        ] {
            let held = [enter(first).unwrap(), enter(other).unwrap()];
            assert!(enter(first).is_none() && enter(other).is_none(), "{first}");
            assert!(enter(free).is_some());
            drop(held);
            assert!(enter(first).is_some());
        }
        assert!(guests.0.open().is_empty());
        let many = ["192.0.2.7", "::ffff:192.0.2.7", "127.0.0.1", "::1"];
        for address in many {
            let held: Vec<_> = (0..10).map(|_| enter(address).unwrap()).collect();
            drop(held);
        }
        let any = Guests::new(0, &[]);
        let held: Vec<_> = (0..200).map(|_| any.enter([8, 8, 8, 8].into()).unwrap()).collect();
        assert_eq!(held.len(), 200);
    }
}
