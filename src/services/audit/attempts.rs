//! Refused logins, counted until they are noted together.
//!
//! One row a minute and instance tells of any number of them, so that a flood
//! of guesses neither fills the log nor makes everybody else wait for the head
//! of its chain. Each by itself is in the access log. What was typed as a name is
//! never kept: it may be a password.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde_json::json;

use crate::domain::{address::network_of, id::UserId};

/// Most accounts, and most networks, that are named.
const NAMED: usize = 20;

/// Why somebody was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// A wrong name, password or access token, or a disabled account.
    Wrong,
    /// Too many of those before.
    Throttled,
}

/// What was counted since the last time.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    wrong: u64,
    throttled: u64,
    accounts: BTreeMap<String, u64>,
    networks: BTreeMap<String, u64>,
}

#[derive(Debug, Default)]
pub struct Attempts(Mutex<Counted>);

impl Attempts {
    /// `account`: whose name was given, if there is such an account.
    pub fn count(&self, why: Refused, account: Option<UserId>, address: IpAddr) {
        let mut counted = self.counted();
        match why {
            Refused::Wrong => counted.wrong += 1,
            Refused::Throttled => counted.throttled += 1,
        }
        if let Some(account) = account {
            add(&mut counted.accounts, account.to_string(), 1);
        }
        add(&mut counted.networks, network_of(address).to_string(), 1);
    }

    pub(super) fn take(&self) -> Option<Counted> {
        let mut counted = self.counted();
        (counted.wrong + counted.throttled > 0).then(|| std::mem::take(&mut *counted))
    }

    pub(super) fn put_back(&self, taken: Counted) {
        let mut counted = self.counted();
        counted.wrong += taken.wrong;
        counted.throttled += taken.throttled;
        for (account, count) in taken.accounts {
            add(&mut counted.accounts, account, count);
        }
        for (network, count) in taken.networks {
            add(&mut counted.networks, network, count);
        }
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counted {
    pub(super) fn state(&self) -> serde_json::Value {
        let Self { wrong, throttled, accounts, networks } = self;
        json!({
            "wrong": wrong, "throttled": throttled, "accounts": accounts, "networks": networks,
        })
    }
}

fn add(counts: &mut BTreeMap<String, u64>, name: String, count: u64) {
    let is_named = counts.len() < NAMED || counts.contains_key(&name);
    let name = if is_named { name } else { "others".to_owned() };
    *counts.entry(name).or_default() += count;
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    #[test]
    fn a_flood_is_one_small_state_and_loses_no_count() {
        let attempts = Attempts::default();
        assert!(attempts.take().is_none());
        for n in 0..1000_u32 {
            let account = UserId::new(DateTime::UNIX_EPOCH);
            let why = if n % 4 == 0 { Refused::Throttled } else { Refused::Wrong };
            attempts.count(why, Some(account), std::net::Ipv4Addr::from_bits(n << 8).into());
        }
        let counted = attempts.take().unwrap();
        assert!(attempts.take().is_none());
        attempts.put_back(counted);
        let state = attempts.take().unwrap().state();
        assert_eq!((&state["wrong"], &state["throttled"]), (&json!(750), &json!(250)));
        for name in ["accounts", "networks"] {
            let counts = state[name].as_object().unwrap();
            assert_eq!(counts.len(), NAMED + 1, "{name}");
            assert_eq!(counts.values().map(|n| n.as_u64().unwrap()).sum::<u64>(), 1000, "{name}");
        }
    }
}
