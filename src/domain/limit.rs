//! Rate limits: what is counted, over which window, and what a decision says.
//!
//! A window slides: at no instant do the last `window` seconds hold more than
//! `limit` admitted requests. Limits up to [`EXACT_UP_TO`] keep every instant;
//! larger ones count in [`BUCKETS`] sub-buckets and err on the strict side:
//! quota comes back at most one sub-bucket late.

use std::{
    hash::{Hash, Hasher},
    net::IpAddr,
};

pub use super::window::{Anchor, Per, Period, Window, month_end, month_start};
use super::{
    id::{ApiKeyId, ChatSessionId, PassId, UserId},
    origin::OriginHost,
    rates::{LimitName, OnStoreLoss},
};

/// Up to this limit a window is an exact log of instants.
pub const EXACT_UP_TO: u64 = 200;
/// Sub-buckets per window above it.
pub const BUCKETS: u64 = 60;

/// Whose requests are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A client address; IPv6 by its /64 (see [`super::address::network_of`]).
    Address(IpAddr),
    User(UserId),
    Key {
        id: ApiKeyId,
        owner: UserId,
    },
    Pass {
        id: PassId,
        owner: UserId,
    },
    /// Everything that goes to the upstream of this name.
    Upstream(&'static str),
    /// What one user sends there, by whatever credential.
    UserAt {
        user: UserId,
        upstream: &'static str,
    },
    /// Pages of one host, whoever looks at them.
    Origin(OriginHost),
    /// Messages of one conversation.
    Chat(ChatSessionId),
    /// Failed or pending logins of one account name from one network; the
    /// account is a digest, so that no name is kept.
    LoginPair {
        account: u64,
        address: IpAddr,
    },
    LoginAddress(IpAddr),
    LoginAccount(u64),
    /// Codes of vouchers that were tried.
    Redeem(UserId),
    RedeemAddress(IpAddr),
}

/// By no more than tells subjects apart, since each request has several looked
/// up. Ids are unlike each other whatever they name, and an owner follows from
/// what it owns.
impl Hash for Subject {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::User(id) | Self::Redeem(id) => state.write_u128(id.as_uuid().as_u128()),
            Self::Key { id, .. } => state.write_u128(id.as_uuid().as_u128()),
            Self::Pass { id, .. } => state.write_u128(id.as_uuid().as_u128()),
            Self::Chat(id) => state.write_u128(id.as_uuid().as_u128()),
            Self::Upstream(name) => name.hash(state),
            Self::UserAt { user, upstream } => {
                state.write_u128(user.as_uuid().as_u128());
                upstream.hash(state);
            }
            Self::Origin(host) => host.hash(state),
            Self::LoginPair { account, address } => (account, address).hash(state),
            Self::LoginAccount(account) => account.hash(state),
            Self::Address(address) | Self::LoginAddress(address) | Self::RedeemAddress(address) => {
                address.hash(state);
            }
        }
    }
}

impl Subject {
    /// The name of the tier, as the refusal and the metrics show it.
    pub fn tier(&self) -> &'static str {
        match self {
            Self::Address(_) => "address",
            Self::User(_) => "user",
            Self::Key { .. } => "key",
            Self::Pass { .. } => "token",
            Self::Upstream(_) => "upstream",
            Self::UserAt { .. } => "user_at_upstream",
            Self::Origin(_) => "origin",
            Self::Chat(_) => "session",
            Self::LoginPair { .. } => "login",
            Self::LoginAddress(_) => "login_address",
            Self::LoginAccount(_) => "login_account",
            Self::Redeem(_) => "redeem",
            Self::RedeemAddress(_) => "redeem_address",
        }
    }

    /// What [`Self::tier`] may say; those of proxied requests first.
    pub const TIERS: [&str; 13] = [
        "key",
        "user",
        "token",
        "address",
        "upstream",
        "user_at_upstream",
        "origin",
        "session",
        "login",
        "login_address",
        "login_account",
        "redeem",
        "redeem_address",
    ];

    /// Whether usage is recorded by it, so that a count that was lost can be
    /// made again.
    pub fn is_recorded(&self) -> bool {
        matches!(
            self,
            Self::User(_)
                | Self::Key { .. }
                | Self::Pass { .. }
                | Self::Upstream(_)
                | Self::UserAt { .. }
        )
    }
}

/// One limit to hold: at most `limit` per `window` for `subject`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tier {
    pub subject: Subject,
    pub window: Window,
    pub limit: u64,
    /// What holds while the shared counters cannot be reached.
    pub on_loss: OnStoreLoss,
    /// What it is called; `None`: as its window.
    pub name: Option<LimitName>,
}

impl Tier {
    /// Without a name; shared among the instances while they count alone.
    pub fn new(subject: Subject, window: Window, limit: u64) -> Self {
        Self { subject, window, limit, on_loss: OnStoreLoss::Share, name: None }
    }

    #[must_use]
    pub fn on_loss(self, on_loss: OnStoreLoss) -> Self {
        Self { on_loss, ..self }
    }

    /// Whether both are counted by the same counter.
    pub fn counts_as(&self, other: &Self) -> bool {
        self.subject == other.subject && self.window == other.window
    }
}

/// The state of one tier after a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierState {
    pub tier: &'static str,
    pub name: Option<LimitName>,
    pub window: Window,
    pub limit: u64,
    pub remaining: u64,
    /// Milliseconds until quota comes back: the oldest counted request leaves
    /// the window. 0 when nothing is counted.
    pub reset_in_ms: u64,
}

impl TierState {
    /// What the limit is called.
    pub fn name(&self) -> &str {
        self.name.as_ref().map_or(self.window.name(), LimitName::as_str)
    }
}

/// The answer to "may this request pass?" over all its tiers at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Every tier had room and all were charged. The state is that of the tier
    /// nearest to its end; `None` when there was nothing to hold.
    Admitted(Option<TierState>),
    /// A tier had no room; nothing was charged anywhere.
    Refused(TierState),
    /// The counter of a period is not known here and must be seeded from the
    /// usage records; nothing was charged. Call again with the seeds.
    NeedsSeed,
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, RandomState};

    use super::*;

    #[test]
    fn equal_subjects_have_equal_hashes_and_others_are_not_equal() {
        let (a, b) = (UserId::NIL, UserId::from(uuid::Uuid::max()));
        let here = IpAddr::from([192, 0, 2, 1]);
        let all = || {
            [
                Subject::User(a),
                Subject::User(b),
                Subject::Redeem(a),
                Subject::Key { id: ApiKeyId::NIL, owner: a },
                Subject::Pass { id: PassId::NIL, owner: a },
                Subject::Chat(ChatSessionId::NIL),
                Subject::LoginPair { account: 1, address: here },
                Subject::LoginAccount(1),
                Subject::Address(here),
                Subject::LoginAddress(here),
                Subject::RedeemAddress(here),
                Subject::Upstream("a"),
                Subject::Upstream("b"),
                Subject::UserAt { user: a, upstream: "a" },
                Subject::UserAt { user: a, upstream: "b" },
                Subject::UserAt { user: b, upstream: "a" },
                Subject::Origin(OriginHost::of(b"https://a.example").unwrap()),
                Subject::Origin(OriginHost::of(b"https://b.example").unwrap()),
            ]
        };
        let state = RandomState::new();
        for (at, one) in all().iter().enumerate() {
            for (other_at, other) in all().iter().enumerate() {
                assert_eq!(one == other, at == other_at);
                if one == other {
                    assert_eq!(state.hash_one(one), state.hash_one(other));
                }
            }
        }
    }
}
