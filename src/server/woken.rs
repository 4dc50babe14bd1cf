//! A future that is only polled when it has something to say.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

/// Polls what it holds once, and again only after that asked for it; so waiting
/// for it beside something busy costs next to nothing.
///
/// To be used where a poll is dear: a cancellation token takes a lock for each.
#[derive(Debug)]
pub struct Woken<F> {
    inner: F,
    signal: Arc<Signal>,
    waker: Waker,
    /// The task that is woken, as the signal knows it.
    task: Waker,
}

#[derive(Debug)]
struct Signal {
    raised: AtomicBool,
    task: Mutex<Waker>,
}

impl<F> Woken<F> {
    pub fn new(inner: F) -> Self {
        let task = Waker::noop();
        let signal =
            Arc::new(Signal { raised: AtomicBool::new(true), task: Mutex::new(task.clone()) });
        Self { inner, waker: Waker::from(Arc::clone(&signal)), signal, task: task.clone() }
    }
}

impl<F: Future + Unpin> Future for Woken<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        if !this.task.will_wake(cx.waker()) {
            this.task.clone_from(cx.waker());
            this.signal.wakes(cx.waker());
        }
        // Before it is polled: what is said meanwhile is heard the next time.
        if !this.signal.raised.load(Ordering::Acquire)
            || !this.signal.raised.swap(false, Ordering::AcqRel)
        {
            return Poll::Pending;
        }
        Pin::new(&mut this.inner).poll(&mut Context::from_waker(&this.waker))
    }
}

impl Signal {
    fn wakes(&self, task: &Waker) {
        self.task.lock().unwrap_or_else(PoisonError::into_inner).clone_from(task);
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.raised.store(true, Ordering::Release);
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).clone();
        task.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, pin::pin, task::ready, time::Duration};

    use tokio::sync::oneshot;

    use super::*;

    /// Waits for `told` beside something that is polled again and again; how
    /// often `told` was polled by then.
    async fn polls_of(mut told: oneshot::Receiver<()>) -> usize {
        let mut polls = 0;
        let counted = poll_fn(|cx| {
            polls += 1;
            ready!(Pin::new(&mut told).poll(cx)).expect("it is told");
            Poll::Ready(())
        });
        {
            let counted = pin!(counted);
            let mut counted = Woken::new(counted);
            loop {
                tokio::select! {
                    biased;
                    () = &mut counted => break,
                    () = tokio::task::yield_now() => {}
                }
            }
        }
        polls
    }

    #[tokio::test]
    async fn what_says_nothing_is_polled_once_and_then_when_it_speaks() {
        let (tell, told) = oneshot::channel();
        let waiting = tokio::spawn(polls_of(told));
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        tell.send(()).unwrap();
        let polls = tokio::time::timeout(Duration::from_secs(5), waiting).await;
        assert_eq!(polls.unwrap().unwrap(), 2);
    }

    /// What is ready from the start is seen without being woken.
    #[tokio::test]
    async fn the_first_poll_asks() {
        let (tell, told) = oneshot::channel();
        tell.send(()).unwrap();
        assert_eq!(polls_of(told).await, 1);
    }

    /// Polled by one task and then awaited by another, it wakes the latter.
    #[tokio::test]
    async fn it_wakes_the_task_that_asked_last() {
        let (tell, told) = oneshot::channel::<()>();
        let mut woken = Woken::new(told);
        let first = Pin::new(&mut woken).poll(&mut Context::from_waker(Waker::noop()));
        assert!(first.is_pending());
        let waiting = tokio::spawn(woken);
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        tell.send(()).unwrap();
        let told = tokio::time::timeout(Duration::from_secs(5), waiting).await;
        told.unwrap().unwrap().unwrap();
    }
}
