//! What is costly to find out, kept for a while.
//!
//! However many ask, one finds it out. What is a little old is answered at once
//! and found out anew behind it, so that nobody waits for what somebody else saw
//! a minute ago; what is older is waited for.

use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};

/// How long what could not be found out whole is held: long enough that those who
/// waited for it do not all ask again.
const FAILED: TimeDelta = TimeDelta::seconds(1);

/// What may be held.
pub trait Findings: Send + Sync + 'static {
    /// Whether nothing of it is missing.
    fn is_whole(&self) -> bool;
}

/// A value, and when it was found out.
pub struct Found<T> {
    pub at: DateTime<Utc>,
    pub value: T,
}

/// How long a value is held.
#[derive(Clone, Copy, Debug)]
pub struct Lives {
    /// Answered as it is.
    pub fresh: TimeDelta,
    /// Answered, and found out anew.
    pub good: TimeDelta,
}

pub struct Held<T> {
    lives: Lives,
    last: Mutex<Option<Arc<Found<T>>>>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl<T: Findings> Held<T> {
    pub fn new(lives: Lives) -> Arc<Self> {
        Arc::new(Self { lives, last: Mutex::default(), turn: Arc::default() })
    }

    /// The value as it is at `now`, or was a little before; `find` finds it out.
    pub async fn get<F>(
        self: &Arc<Self>,
        now: DateTime<Utc>,
        find: impl FnOnce() -> F,
    ) -> Arc<Found<T>>
    where
        F: Future<Output = T> + Send + 'static,
    {
        if let Some(last) = self.within(now, |lives| lives.fresh) {
            return last;
        }
        if let Some(last) = self.within(now, |lives| lives.good) {
            if let Ok(turn) = self.turn.clone().try_lock_owned() {
                let (this, finding) = (Arc::clone(self), find());
                tokio::spawn(async move {
                    this.hold(now, finding.await);
                    drop(turn);
                });
            }
            return last;
        }
        let _turn = self.turn.lock().await;
        // Somebody may have found it out meanwhile.
        if let Some(last) = self.within(now, |lives| lives.good) {
            return last;
        }
        let value = find().await;
        self.hold(now, value)
    }

    /// The last one if it is not older than that, nor of a clock that was wrong.
    fn within(
        &self,
        now: DateTime<Utc>,
        life: impl FnOnce(Lives) -> TimeDelta,
    ) -> Option<Arc<Found<T>>> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let life = if last.value.is_whole() { life(self.lives) } else { FAILED };
        ((now - last.at).abs() < life).then_some(last)
    }

    fn hold(&self, at: DateTime<Utc>, value: T) -> Arc<Found<T>> {
        let found = Arc::new(Found { at, value });
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&found));
        found
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    struct Number(u32, bool);

    impl Findings for Number {
        fn is_whole(&self) -> bool {
            self.1
        }
    }

    const LIVES: Lives = Lives { fresh: TimeDelta::seconds(10), good: TimeDelta::seconds(60) };

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(1_000_000 + seconds)
    }

    #[tokio::test]
    async fn what_is_fresh_is_answered_what_is_good_too_and_what_is_old_is_waited_for() {
        let (held, asked) = (Held::new(LIVES), Arc::new(AtomicU32::new(0)));
        let ask = async |seconds: i64, whole: bool| {
            let asked = asked.clone();
            let find = async move { Number(asked.fetch_add(1, Ordering::Relaxed) + 1, whole) };
            let found = held.get(at(seconds), || find).await;
            (found.value.0, (found.at - at(0)).num_seconds())
        };
        assert_eq!(ask(0, true).await, (1, 0));
        assert_eq!(ask(9, true).await, (1, 0));
        // Answered as it was; whoever asks then has the new one.
        assert_eq!(ask(30, true).await, (1, 0));
        while asked.load(Ordering::Relaxed) < 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(ask(31, true).await, (2, 30));
        assert_eq!(ask(200, false).await, (3, 200), "too old to be answered");
        assert_eq!(ask(200, true).await, (3, 200), "nor asked for again at once");
        assert_eq!(ask(201, true).await, (4, 201), "not whole, and found out again soon");
        assert_eq!(ask(-5000, true).await, (5, -5000), "of a clock that went back");
    }

    #[tokio::test]
    async fn of_many_who_ask_at_once_one_finds_it_out() {
        let (held, asked) = (Held::new(LIVES), AtomicU32::new(0));
        let ask = async || {
            let number = held.get(at(0), || {
                asked.fetch_add(1, Ordering::Relaxed);
                async {
                    tokio::task::yield_now().await;
                    Number(7, true)
                }
            });
            assert_eq!(number.await.value.0, 7);
        };
        tokio::join!(ask(), ask(), ask(), ask());
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }
}
