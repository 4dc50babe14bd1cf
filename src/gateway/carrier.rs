//! Uploads over HTTP/2, each of which hyper carries in a task of its own.
//!
//! Such a task waits for its upstream to take what the client sent, and asks the
//! body for nothing meanwhile: neither the body nor anybody else could end it. So
//! the task itself is held here, and dropped when what opened the door counts no
//! more, or when nothing of it is taken for too long after the answer has ended.
//! Before that end, the time limits of the answer are enough.
//!
//! All of it happens on one thread. Which body a task carries is known from the one
//! that was asked while the task was polled, or just before it was made.

use std::{
    cell::Cell,
    future::poll_fn,
    pin::pin,
    task::{Context, Poll, ready},
};

use hyper::rt::Executor;

use super::{http1::Patience, timer::StallTimer};

thread_local! {
    static ASKED: Cell<Option<Patience>> = const { Cell::new(None) };
}

/// A body was asked for more, and goes on.
pub(super) fn asked(patience: Patience) {
    ASKED.with(|asked| asked.set(Some(patience)));
}

fn take_asked() -> Option<Patience> {
    ASKED.with(Cell::take)
}

/// Runs what a connection of HTTP/2 needs run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Carrier;

impl<F> Executor<F> for Carrier
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, task: F) {
        // hyper asks a body once before it makes a task of it.
        let mut carried = take_asked().map(Carried::new);
        tokio::spawn(async move {
            let mut task = pin!(task);
            poll_fn(|cx| {
                take_asked();
                let polled = task.as_mut().poll(cx);
                if let Some(patience) = take_asked()
                    && carried.is_none()
                {
                    carried = Some(Carried::new(patience));
                }
                match &mut carried {
                    Some(carried) if polled.is_pending() => carried.poll_end(cx),
                    _ => polled.map(drop),
                }
            })
            .await;
        });
    }
}

/// The body of one task.
struct Carried {
    patience: Patience,
    timer: StallTimer,
    /// How much was taken of it, and whether its answer had ended, when the timer
    /// was set.
    state: (u64, bool),
}

impl Carried {
    fn new(patience: Patience) -> Self {
        let timer = StallTimer::new(patience.idle, None);
        Self { patience, timer, state: (0, false) }
    }

    /// Ready when it is not to go on.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(progress) = self.patience.progress.as_ref().filter(|it| !it.is_gone()) else {
            return Poll::Pending;
        };
        if let Poll::Ready(fault) = progress.poll_killed(cx) {
            progress.failed(fault);
            return Poll::Ready(());
        }
        loop {
            let state = (progress.bytes(), progress.outlives_answer());
            if std::mem::replace(&mut self.state, state) != state {
                self.timer.moved();
            }
            ready!(self.timer.poll(cx));
            if state.1 && state == (progress.bytes(), progress.outlives_answer()) {
                return Poll::Ready(());
            }
            self.timer.moved();
        }
    }
}

#[cfg(test)]
#[path = "carrier_tests.rs"]
mod tests;
