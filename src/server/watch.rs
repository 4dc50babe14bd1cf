//! Answers that their clients do not take.
//!
//! hyper polls an answer's body only when there is room for more of it. Where a
//! client takes nothing (an HTTP/2 window of 0, a reader that pauses) the body
//! sleeps, and with it all that would end it: time limits, revocation, even the
//! registration as a stream. So every answer that is not over at once is looked
//! at by its worker each [`TICK`], and the task that carries it is ended where
//! the body does not end itself: of HTTP/2 the stream, which is reset, of
//! HTTP/1.1 the connection. That frees the upstream's connection too.
//!
//! All of one worker happens on one thread, so its list needs no lock. What a
//! task carries is known from the answer that was made while it was polled.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use futures_util::task::AtomicWaker;
use hyper::rt::Executor;
use tokio::time::{Instant, sleep};

use super::io::Connection;
use crate::gateway::{TOO_SLOW, Tether};

/// How often a worker looks at its answers. One that is due has as long to end
/// itself.
const TICK: Duration = Duration::from_millis(250);
/// More answers of one connection than this are not held for a client that takes
/// nothing of them for [`CROWD_AFTER`]: each holds a connection to an upstream.
const CROWD: usize = 16;
const CROWD_AFTER: Duration = Duration::from_secs(5);

thread_local! {
    static WORKER: Here = const { Here::new() };
}

/// What one worker's thread looks at.
struct Here {
    /// Looks so far: a clock that costs nothing to read.
    ticks: Cell<u32>,
    all: RefCell<Vec<Arc<Watch>>>,
    /// Made while the task under way was polled.
    made: Cell<Option<Arc<Watch>>>,
}

/// One answer under way.
#[derive(Debug)]
pub struct Watch {
    connection: Arc<Connection>,
    multiplexed: bool,
    tether: Option<Tether>,
    /// When it was polled last.
    polled: AtomicU32,
    /// It had nothing to hand on then, so it has timers of its own.
    waits: AtomicBool,
    /// Seen to be due at this tick; 0: never.
    due: AtomicU32,
    over: AtomicBool,
    /// Why it was cut.
    cut: OnceLock<&'static str>,
    /// Of the task that carries it.
    task: AtomicWaker,
}

impl Watch {
    /// To be called by the task that carries the answer.
    pub fn begin(
        connection: &Arc<Connection>,
        multiplexed: bool,
        tether: Option<Tether>,
    ) -> Arc<Self> {
        WORKER.with(|here| {
            let this = Arc::new(Self {
                connection: Arc::clone(connection),
                multiplexed,
                tether,
                polled: AtomicU32::new(here.ticks.get()),
                waits: AtomicBool::new(false),
                due: AtomicU32::new(0),
                over: AtomicBool::new(false),
                cut: OnceLock::new(),
                task: AtomicWaker::new(),
            });
            here.all.borrow_mut().push(Arc::clone(&this));
            here.made.set(Some(Arc::clone(&this)));
            this
        })
    }

    /// The body was polled, and has nothing to hand on for now if it `waits`.
    pub fn polled(&self, waits: bool) {
        self.polled.store(WORKER.with(|here| here.ticks.get()), Relaxed);
        self.waits.store(waits, Relaxed);
    }

    /// The answer is over; why it was cut, if it was.
    pub fn end(&self) -> Option<&'static str> {
        self.over.store(true, Relaxed);
        self.cut.get().copied()
    }

    /// How long its client has taken nothing of what there is.
    fn untaken(&self, tick: u32) -> Duration {
        if self.waits.load(Relaxed) { Duration::ZERO } else { self.unpolled(tick) }
    }

    fn unpolled(&self, tick: u32) -> Duration {
        TICK * tick.wrapping_sub(self.polled.load(Relaxed))
    }

    fn look(&self, tick: u32, now: Instant, patience: Duration) {
        let due = self.tether.as_ref().and_then(|tether| tether.due(now));
        let Some(why) = due.or_else(|| self.is_stuck(tick, patience).then_some(TOO_SLOW)) else {
            self.due.store(0, Relaxed);
            return;
        };
        if self.due.load(Relaxed) == 0 {
            // It may be able to end itself, which is more polite.
            self.due.store(tick, Relaxed);
            self.task.wake();
        } else {
            self.cut(why);
        }
    }

    fn is_stuck(&self, tick: u32, patience: Duration) -> bool {
        let limit = match &self.tether {
            _ if !self.waits.load(Relaxed) => patience,
            Some(tether) => tether.idle(),
            None => return false,
        };
        // More: a timer of its own comes first where there is one.
        self.unpolled(tick) > limit + TICK
    }

    fn cut(&self, why: &'static str) {
        if !self.over.load(Relaxed) && self.cut.set(why).is_ok() {
            if !self.multiplexed {
                // What the kernel has of it is not to arrive any more.
                self.connection.reset_at_close();
            }
            self.task.wake();
        }
    }
}

impl Here {
    const fn new() -> Self {
        Self { ticks: Cell::new(0), all: RefCell::new(vec![]), made: Cell::new(None) }
    }

    fn look(&self, patience: Duration) {
        // Never 0, which means never.
        let tick = self.ticks.get().checked_add(1).unwrap_or(1);
        self.ticks.set(tick);
        let now = Instant::now();
        let mut all = self.all.borrow_mut();
        all.retain(|watch| !watch.over.load(Relaxed));
        let mut crowds: HashMap<*const Connection, Vec<&Watch>> = HashMap::new();
        for watch in all.iter() {
            watch.look(tick, now, patience);
            if watch.multiplexed && watch.untaken(tick) >= CROWD_AFTER {
                crowds.entry(Arc::as_ptr(&watch.connection)).or_default().push(watch);
            }
        }
        for mut crowd in crowds.into_values().filter(|crowd| crowd.len() > CROWD) {
            crowd.sort_by_key(|watch| std::cmp::Reverse(watch.unpolled(tick)));
            let most = crowd.len() - CROWD;
            crowd.into_iter().take(most).for_each(|watch| watch.cut(TOO_SLOW));
        }
    }
}

/// Looks at the answers of this thread for ever; `patience` is how long a client
/// may take nothing.
pub async fn watch(patience: Duration) {
    loop {
        sleep(TICK).await;
        WORKER.with(|here| here.look(patience));
    }
}

/// Holds a task that carries answers, and ends it where one is to be cut.
#[derive(Debug, Default)]
pub struct Leash(Option<Arc<Watch>>);

impl Leash {
    /// What comes of it; `None` if it was cut, and is to be dropped.
    pub async fn hold<F: Future>(&mut self, mut task: Pin<&mut F>) -> Option<F::Output> {
        poll_fn(|cx| {
            if self.0.as_ref().is_some_and(|watch| watch.cut.get().is_some()) {
                return Poll::Ready(None);
            }
            let polled = task.as_mut().poll(cx);
            if let Some(made) = WORKER.with(|here| here.made.take()) {
                self.0 = Some(made);
            }
            match &self.0 {
                Some(watch) if watch.over.load(Relaxed) => self.0 = None,
                Some(watch) if polled.is_pending() => watch.task.register(cx.waker()),
                Some(_) | None => {}
            }
            polled.map(Some)
        })
        .await
    }
}

/// Runs the streams of HTTP/2, each held by a [`Leash`].
#[derive(Clone, Copy, Debug)]
pub struct Leashed;

impl<F> Executor<F> for Leashed
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, task: F) {
        tokio::spawn(async move {
            let _ = Leash::default().hold(pin!(task)).await;
        });
    }
}
