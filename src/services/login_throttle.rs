//! How often a login may be tried.
//!
//! An attempt is charged before the password is checked, so that guesses in
//! parallel do not slip through, and given back when it was right: only wrong
//! ones add up. Three counters, all sliding windows:
//!
//! - account and address together: 5 per minute;
//! - address: 20 per minute, over all accounts;
//! - account, over all addresses: growing delays by windows of 15 minutes and
//!   a day, never more than 100 wrong ones in a row (NIST SP 800-63B 3.2.2).
//!   It does not apply from an address where the account logged in lately, so
//!   that nobody can lock somebody else out.

use std::net::IpAddr;

use sha2::{Digest, Sha256};

use crate::{
    cache::Limiter,
    domain::{
        address::network_of,
        id::UserId,
        limit::{Decision, Subject, Tier, TierState, Window},
    },
};

const QUARTER: Window = Window::Sliding { seconds: 900 };

/// One attempt that was charged.
pub struct Attempt {
    tiers: Vec<Tier>,
}

pub struct LoginThrottle {
    limiter: Limiter,
}

impl LoginThrottle {
    pub fn new(limiter: Limiter) -> Self {
        Self { limiter }
    }

    /// Charges one attempt on `login` (already folded) from `address`.
    ///
    /// # Errors
    /// The window that is full. The answer is the same for a name that does
    /// not exist.
    pub async fn charge(
        &self,
        login: &str,
        address: IpAddr,
        known_address: bool,
    ) -> Result<Attempt, TierState> {
        let account = digest(login);
        let address = network_of(address);
        let tier = Tier::new;
        let mut tiers = vec![
            tier(Subject::LoginPair { account, address }, Window::MINUTE, 5),
            tier(Subject::LoginAddress(address), Window::MINUTE, 20),
        ];
        if !known_address {
            tiers.push(tier(Subject::LoginAccount(account), QUARTER, 20));
            tiers.push(tier(Subject::LoginAccount(account), Window::DAY, 100));
        }
        match self.limiter.decide(&tiers, 1, None).await {
            Decision::Refused(state) => Err(state),
            Decision::Admitted(_) | Decision::NeedsSeed => Ok(Attempt { tiers }),
        }
    }

    /// The same for somebody who is logged in and has to give the password
    /// again: whoever took a session over must not guess it without end.
    pub async fn charge_owner(&self, user: UserId, address: IpAddr) -> Result<Attempt, TierState> {
        // No login name begins so, so nobody can use up another's attempts.
        self.charge(&format!("\0{user}"), address, false).await
    }

    /// The same for an access token that is typed in. Nobody guesses one, but
    /// who tries costs look-ups; strangers do not use up each other's attempts.
    pub async fn charge_token(&self, address: IpAddr) -> Result<Attempt, TierState> {
        self.charge("\0token", address, true).await
    }

    /// The password was right: the attempt does not count.
    pub async fn give_back(&self, attempt: &Attempt) {
        self.limiter.refund(&attempt.tiers, 1).await;
    }
}

/// Counters hold no names.
fn digest(login: &str) -> u64 {
    let bytes = Sha256::digest(login.as_bytes());
    u64::from_be_bytes(bytes[..8].try_into().expect("eight of 32 bytes"))
}
