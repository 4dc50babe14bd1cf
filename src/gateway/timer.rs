//! A timer for bodies that costs nothing while they move.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// Fires when nothing moved for `idle`, or at `deadline` if there is one. Made
/// lazily: a body whose bytes are always ready never touches the timer wheel.
#[derive(Debug)]
pub struct StallTimer {
    idle: Duration,
    deadline: Option<Instant>,
    moved: bool,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl StallTimer {
    pub fn new(idle: Duration, deadline: Option<Instant>) -> Self {
        Self { idle, deadline, moved: true, sleep: None }
    }

    /// Something moved; the idle time begins anew at the next [`Self::poll`].
    pub fn moved(&mut self) {
        self.moved = true;
    }

    /// To be called when there is nothing to hand on; ready when it has taken
    /// too long.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.moved {
            self.moved = false;
            let idle_end = Instant::now() + self.idle;
            let end = self.deadline.map_or(idle_end, |deadline| deadline.min(idle_end));
            match &mut self.sleep {
                Some(sleep) => sleep.as_mut().reset(end),
                None => self.sleep = Some(Box::pin(sleep_until(end))),
            }
        }
        self.sleep.as_mut().map_or(Poll::Pending, |sleep| sleep.as_mut().poll(cx))
    }

    /// Whether it is the deadline, not idleness, that has come.
    pub fn is_past_deadline(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }
}
