//! Tickets: what opens one WebSocket, once and soon.

use chrono::{DateTime, TimeDelta, Utc};

use super::{id::UserId, principal::Proof, token::TokenHash};

/// A ticket that is not used for this long is dead.
pub const TICKET_LIFE: TimeDelta = TimeDelta::seconds(30);
/// Most tickets that one credential has unused at a time.
pub const MAX_OPEN: u32 = 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamTicket {
    pub hash: TokenHash,
    pub user_id: UserId,
    /// What it was asked for with, and stands for.
    pub proof: Proof,
    /// The whole canonical path that it opens, without a query.
    pub path: String,
    pub expires_at: DateTime<Utc>,
}

impl StreamTicket {
    /// Whether it opens this path at `now`; dead *at* its end.
    pub fn opens(&self, path: &str, now: DateTime<Utc>) -> bool {
        now < self.expires_at && self.path == path
    }
}
