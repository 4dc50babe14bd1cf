//! How something open is told from elsewhere that it must end.

use std::{
    sync::atomic::{AtomicU8, Ordering},
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;

/// Why an open stream is ended before its own end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KillReason {
    /// Its credential, login or account does not count any more.
    Revoked,
    /// Its credential's time is over.
    Expired,
    /// Too much came through it.
    Limit,
    /// By an operator.
    Cut,
    /// The process stops.
    GoingAway,
}

impl KillReason {
    const ALL: [Self; 5] = [Self::Revoked, Self::Expired, Self::Limit, Self::Cut, Self::GoingAway];

    /// The code that clients are told.
    pub fn code(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::Limit => "limit",
            Self::Cut => "cut",
            Self::GoingAway => "going_away",
        }
    }
}

/// Ends one stream. Tripped from anywhere, as often as one likes: the first
/// reason stays. One task waits for it.
#[derive(Debug, Default)]
pub struct KillSwitch {
    /// 0 while it is not tripped, else one more than the reason's place.
    tripped: AtomicU8,
    waiting: AtomicWaker,
}

impl KillSwitch {
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells whether it was this call that tripped it.
    pub fn trip(&self, reason: KillReason) -> bool {
        let order = Ordering::AcqRel;
        let won =
            self.tripped.compare_exchange(0, reason as u8 + 1, order, Ordering::Acquire).is_ok();
        if won {
            self.waiting.wake();
        }
        won
    }

    pub fn reason(&self) -> Option<KillReason> {
        let place = self.tripped.load(Ordering::Acquire).checked_sub(1)?;
        KillReason::ALL.get(usize::from(place)).copied()
    }

    /// Ready once it is tripped; until then the task is woken by it.
    pub fn poll_tripped(&self, cx: &mut Context<'_>) -> Poll<KillReason> {
        if let Some(reason) = self.reason() {
            return Poll::Ready(reason);
        }
        self.waiting.register(cx.waker());
        // It may have been tripped before the waker was there.
        self.reason().map_or(Poll::Pending, Poll::Ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_stays() {
        for first in KillReason::ALL {
            let switch = KillSwitch::new();
            assert_eq!(switch.reason(), None);
            assert!(switch.trip(first));
            for later in KillReason::ALL {
                assert!(!switch.trip(later));
            }
            assert_eq!(switch.reason(), Some(first));
        }
    }
}
