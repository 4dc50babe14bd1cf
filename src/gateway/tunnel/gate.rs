//! Whether a message may pass.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use super::{Passed, frame::Side};

/// Why a message is not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    OverLimit,
    /// It could not be found out.
    Unavailable,
}

/// Charges the client's messages, and sees what goes through.
pub trait Gate {
    /// Whether the client's next message may pass. Asked with the first frame of
    /// each, before a byte of it is sent on, and again whenever the task is woken
    /// until it is ready.
    fn poll_admit(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Refusal>>;

    /// What this side has sent so far, told whenever it has grown: a tunnel
    /// whose task is dropped has no other way to say.
    fn passed(&mut self, from: Side, so_far: Passed) {
        let _ = (from, so_far);
    }
}

/// Lets everything pass.
#[derive(Clone, Copy, Debug, Default)]
pub struct Open;

impl Gate for Open {
    fn poll_admit(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        Poll::Ready(Ok(()))
    }
}

/// Asks by a future, one for each message. Their memory is allocated once, with
/// the first message.
pub struct ByFuture<M, F, P> {
    make: M,
    asking: Option<Pin<Box<Option<F>>>>,
    passed: P,
}

impl<M, F, P> ByFuture<M, F, P>
where
    M: FnMut() -> F,
    F: Future<Output = Result<(), Refusal>>,
    P: FnMut(Side, Passed),
{
    pub fn new(make: M, passed: P) -> Self {
        Self { make, asking: None, passed }
    }
}

impl<M, F, P> Gate for ByFuture<M, F, P>
where
    M: FnMut() -> F,
    F: Future<Output = Result<(), Refusal>>,
    P: FnMut(Side, Passed),
{
    fn poll_admit(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        let place = self.asking.get_or_insert_with(|| Box::pin(None));
        if place.is_none() {
            place.set(Some((self.make)()));
        }
        let asked = place.as_mut().as_pin_mut().expect("set above");
        let answer = ready!(asked.poll(cx));
        place.set(None);
        Poll::Ready(answer)
    }

    fn passed(&mut self, from: Side, so_far: Passed) {
        (self.passed)(from, so_far);
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::poll_fn};

    use super::*;

    #[tokio::test]
    async fn every_message_is_asked_for_by_a_future_of_its_own() {
        let made = Cell::new(0);
        let mut gate = ByFuture::new(
            || {
                made.set(made.get() + 1);
                let number = made.get();
                async move {
                    for _ in 0..number {
                        tokio::task::yield_now().await;
                    }
                    if number < 3 { Ok(()) } else { Err(Refusal::OverLimit) }
                }
            },
            |_, _| {},
        );
        for expected in [Ok(()), Ok(()), Err(Refusal::OverLimit)] {
            assert_eq!(poll_fn(|cx| gate.poll_admit(cx)).await, expected);
        }
        assert_eq!(made.get(), 3);
    }
}
