//! An open WebSocket: bytes between a client and its upstream, exactly as they
//! came, watched frame by frame.
//!
//! [`handshake`] says what opens one, [`relay()`] is all that happens until it has
//! ended, [`frame`] knows where frames begin. The relay adds nothing to what the
//! ends say to each other but three frames of its own, each at a frame's
//! boundary: a Ping to a client that is silent, whose Pong goes on to the
//! upstream (unasked Pongs mean nothing: RFC 6455, 5.5.3), and at most one Close
//! to either side. It takes its credential's end, limits and revocation from
//! outside: a [`KillSwitch`](crate::domain::kill::KillSwitch) and a [`Gate`].
//!
//! An idle tunnel holds no buffer; a busy one 16 KiB for either direction, and
//! reads no more before that is written.

mod buffer;
pub mod frame;
mod gate;
pub mod handshake;
mod pipe;
mod relay;

#[cfg(test)]
mod ending_tests;
#[cfg(test)]
mod frame_tests;
#[cfg(test)]
mod relay_tests;
#[cfg(test)]
mod test_support;

use std::time::Duration;

use tokio::time::Instant;

use self::frame::{Fault, Side, Sizes};
pub use self::{
    gate::{ByFuture, Gate, Open, Refusal},
    relay::relay,
};
use crate::domain::kill::KillReason;

/// What one tunnel may do, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// A client that is silent for this long is sent a Ping.
    pub ping_after: Duration,
    /// As many Pings without an answer, and it is given up.
    pub missed_pings: u32,
    /// No frame but Pongs for this long ends the tunnel.
    pub idle: Option<Duration>,
    /// It ends then at the latest.
    pub max_life: Option<Instant>,
    /// How long either side may take nothing of what is to be written to it.
    pub write_stall: Duration,
    /// Of what the client sends.
    pub sizes: Sizes,
    /// Most frames that carry nothing, such as Pings, from the client within
    /// [`CHATTER_WINDOW`].
    pub max_chatter: u32,
}

/// See [`Policy::max_chatter`].
pub const CHATTER_WINDOW: Duration = Duration::from_secs(10);

impl Default for Policy {
    fn default() -> Self {
        Self {
            ping_after: Duration::from_secs(30),
            missed_pings: 2,
            idle: Some(Duration::from_mins(5)),
            max_life: None,
            write_stall: Duration::from_secs(30),
            sizes: Sizes { frame: 256 * 1024, message: 1024 * 1024 },
            max_chatter: 100,
        }
    }
}

/// What went through so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Data messages, counted with their last byte.
    pub messages: u64,
    /// As they were written on, frame headers included.
    pub bytes: u64,
}

/// How a tunnel ended and what went through it. Frames of our own do not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    pub cause: Cause,
    pub messages_in: u64,
    pub messages_out: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// This side began the closing handshake.
    Closed(Side),
    /// Its connection ended without one.
    Gone(Side),
    Killed(KillReason),
    /// The client answered no Ping.
    Silent,
    /// Nothing but Pings and Pongs for too long.
    Idle,
    /// It was open for as long as one may be.
    TooOld,
    /// This side took nothing for too long.
    Stalled(Side),
    /// This side broke the protocol or the limits on sizes.
    Fault(Side, Fault),
    /// Too many control frames from the client.
    Chatter,
    /// A message was not let through.
    Refused(Refusal),
}

/// Close codes (RFC 6455, 7.4.1, and the registry of IANA).
mod code {
    pub(super) const NORMAL: u16 = 1000;
    pub(super) const GOING_AWAY: u16 = 1001;
    pub(super) const PROTOCOL: u16 = 1002;
    pub(super) const POLICY: u16 = 1008;
    pub(super) const TOO_BIG: u16 = 1009;
    // Not 1014, "bad gateway": some clients take that for a fault.
    pub(super) const INTERNAL: u16 = 1011;
    pub(super) const TRY_LATER: u16 = 1013;
}

impl Cause {
    /// What the client is told; `None` if its connection just ends, as it would
    /// without us.
    fn to_client(self) -> Option<(u16, &'static str)> {
        Some(match self {
            Self::Gone(_) => return None,
            Self::Closed(_) => (code::NORMAL, ""),
            Self::Killed(KillReason::GoingAway) => (code::GOING_AWAY, "going_away"),
            Self::Killed(reason) => (code::POLICY, reason.code()),
            Self::Silent => (code::GOING_AWAY, "no_answer"),
            Self::Idle => (code::GOING_AWAY, "idle"),
            Self::TooOld => (code::GOING_AWAY, "open_too_long"),
            Self::Stalled(Side::Client) => (code::POLICY, "too_slow"),
            Self::Stalled(Side::Upstream) | Self::Fault(Side::Upstream, _) => {
                (code::INTERNAL, "upstream_failed")
            }
            Self::Fault(Side::Client, fault) if fault.is_size() => (code::TOO_BIG, "too_big"),
            Self::Fault(Side::Client, _) => (code::PROTOCOL, "protocol"),
            Self::Chatter => (code::POLICY, "too_many_control_frames"),
            Self::Refused(Refusal::OverLimit) => (code::POLICY, "limit"),
            Self::Refused(Refusal::Unavailable) => (code::TRY_LATER, "unavailable"),
        })
    }

    /// What the upstream is told: it is none of its business why the client is
    /// not there any more.
    fn to_upstream(self) -> Option<u16> {
        match self {
            Self::Gone(_) => None,
            Self::Closed(_) => Some(code::NORMAL),
            Self::Fault(Side::Upstream, _) => Some(code::PROTOCOL),
            _ => Some(code::GOING_AWAY),
        }
    }
}
