//! Timers that cost next to nothing while all goes well.

use std::{
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
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

    pub fn idle(&self) -> Duration {
        self.idle
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
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

type Timer = Pin<Box<Sleep>>;

/// Time limits of one length, for one worker.
///
/// Their timers are used again and stay in the timer wheel meanwhile. One is
/// armed anew only where it fired: as all limits are equally long, a later one
/// never ends before the one that its timer is armed for.
#[derive(Debug)]
pub struct Timeouts {
    length: Duration,
    free: Mutex<Vec<Timer>>,
}

/// A time limit under way: a future that is ready when it is over.
#[derive(Debug)]
pub struct Timeout<'t> {
    all: &'t Timeouts,
    end: Instant,
    /// `None` only while it is being dropped.
    timer: Option<Timer>,
}

impl Timeouts {
    pub fn new(length: Duration) -> Self {
        Self { length, free: Mutex::default() }
    }

    pub fn begin(&self, now: Instant) -> Timeout<'_> {
        let end = now + self.length;
        let timer = self.free().pop().unwrap_or_else(|| Box::pin(sleep_until(end)));
        Timeout { all: self, end, timer: Some(timer) }
    }

    fn free(&self) -> MutexGuard<'_, Vec<Timer>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Timeout<'_> {
    /// Counts from `begin` instead; tells whether that leaves any time.
    pub fn begin_at(&mut self, begin: Instant) -> bool {
        self.end = begin + self.all.length;
        self.end > Instant::now()
    }
}

impl Future for Timeout<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let end = self.end;
        let timer = self.timer.as_mut().expect("there until it is dropped");
        loop {
            ready!(timer.as_mut().poll(cx));
            if end <= Instant::now() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(end);
        }
    }
}

impl Drop for Timeout<'_> {
    fn drop(&mut self) {
        self.all.free().extend(self.timer.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_millis(60);

    #[tokio::test]
    async fn a_timer_used_again_keeps_the_later_limit() {
        let timeouts = Timeouts::new(LENGTH);
        let first = timeouts.begin(Instant::now());
        let part = tokio::time::timeout(LENGTH / 2, first).await;
        assert!(part.is_err(), "it was over too early");
        // Now the timer is armed for too early, and then it has fired.
        for _ in 0..2 {
            assert_eq!(timeouts.free().len(), 1);
            let begun = Instant::now();
            timeouts.begin(begun).await;
            assert!(begun.elapsed() >= LENGTH);
        }
    }

    #[tokio::test]
    async fn a_limit_may_be_counted_from_later() {
        let timeouts = Timeouts::new(LENGTH);
        let start = Instant::now();
        let mut limit = timeouts.begin(start);
        (&mut limit).await;
        assert!(!limit.begin_at(start));
        let later = Instant::now();
        assert!(limit.begin_at(later));
        limit.await;
        assert!(later.elapsed() >= LENGTH);
    }
}
