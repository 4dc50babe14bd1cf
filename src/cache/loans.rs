//! Places that all instances share: each has some on loan, and gives out those.
//!
//! Redis keeps who has how many, each for [`LIFE`]: what an instance that is dead had
//! comes back by itself. A loan is renewed once a second, with as many places as were
//! taken at once since the last time, so Redis is not asked request by request; it
//! grows by lots that are larger the larger it is. Whoever finds none tells the
//! others, who give back at once what they do not use.
//!
//! An instance that Redis does not answer has its share of the places, like every
//! other: until then those of before go on, so for as long as these take there may be
//! more at once than there should.

use std::{
    collections::HashMap,
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use redis::Script;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{
    CacheHub,
    limiter::name_of,
    redis::RedisStore,
    slots::{Cap, Slots},
};
use crate::domain::limit::Subject;

static PLACES: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("places.lua")));

/// How long places are lent.
pub const LIFE: Duration = Duration::from_secs(3);
/// Given up so long before they expire at the server: clocks drift.
const MARGIN: Duration = Duration::from_millis(200);
/// A lot is at most this part of all places.
const LOT: u32 = 8;
/// After others were told that none is left it is asked again so much later.
const PAUSES: [Duration; 3] =
    [Duration::from_millis(5), Duration::from_millis(15), Duration::from_millis(40)];
/// So many answers may be late before Redis is taken for away.
const LATE: u32 = 1;
/// Nobody is asked for so long after there was none, or no answer.
const FULL: Duration = Duration::from_millis(100);

/// What one subject has on loan here.
#[derive(Debug)]
pub(super) struct Loan {
    pub lent: u32,
    /// Until when.
    pub until: Instant,
    /// Most that were taken at once since it was renewed.
    pub peak: u32,
    /// All were taken, by whomever; not asked again until then.
    full_until: Instant,
    /// Redis did not answer; not asked again until then.
    away_until: Instant,
    /// While Redis is asked: closed when it has answered.
    asking: Option<watch::Receiver<()>>,
    /// What it was lent of.
    most: u32,
}

impl Loan {
    fn new(now: Instant) -> Self {
        Self {
            lent: 0,
            until: now,
            peak: 0,
            full_until: now,
            away_until: now,
            asking: None,
            most: 0,
        }
    }

    /// How many may be taken at once.
    pub fn usable(&self, now: Instant) -> u32 {
        if now < self.until { self.lent } else { 0 }
    }
}

/// What became of asking for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It is worth looking again.
    Lent,
    Full,
    /// Redis does not answer.
    Away,
}

pub(super) struct Loans {
    redis: Arc<RedisStore>,
    hub: CacheHub,
    /// Of the next call; a later one of the same process is larger.
    calls: AtomicU64,
    /// Whose keys others may name.
    names: Mutex<HashMap<String, Subject>>,
}

impl Loans {
    pub fn new(redis: Arc<RedisStore>, hub: CacheHub) -> Self {
        Self { redis, hub, calls: AtomicU64::new(1), names: Mutex::default() }
    }

    pub fn are_away(&self) -> bool {
        self.redis.is_degraded()
    }

    /// Of `most`, while Redis is away.
    pub fn share(&self, most: u32) -> u32 {
        let instances = u32::try_from(self.hub.instances().max(1)).unwrap_or(u32::MAX);
        (most / instances).max(1).min(most)
    }

    fn names(&self) -> MutexGuard<'_, HashMap<String, Subject>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wants so many in all; how many it has then.
    async fn ask(&self, subject: &Subject, wanted: u32, taken: u32, most: u32) -> Option<u32> {
        let mut script = PLACES.prepare_invoke();
        script.key(key_of(subject)).arg(self.hub.instance());
        script.arg(self.calls.fetch_add(1, Relaxed)).arg(wanted).arg(taken).arg(most);
        script.arg(u64::try_from(LIFE.as_millis()).unwrap_or(u64::MAX));
        let invoke = |mut connection| async move { script.invoke_async(&mut connection).await };
        self.redis.call("places", invoke).await
    }
}

fn key_of(subject: &Subject) -> String {
    name_of(subject).replacen("tollgate:limit:", "tollgate:places:", 1)
}

/// Ends the asking of one subject, however it ends.
struct Asking<'s> {
    slots: &'s Slots,
    subject: Subject,
    /// Closing it wakes those who wait.
    _wake: watch::Sender<()>,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.slots.with(&self.subject, |count| {
            if let Some(loan) = &mut count.loan {
                loan.asking = None;
            }
        });
    }
}

impl Slots {
    /// Asks the others for a place of this subject, of which there is none here.
    pub async fn ask_for(&self, cap: &Cap) -> Asked {
        let Some(loans) = self.loans() else { return Asked::Full };
        let now = Instant::now();
        let (wake, woken) = watch::channel(());
        // Whoever asks, and how many are wanted; or somebody else asks already.
        let begun = self.with(&cap.subject, |count| {
            let used = count.used;
            let loan = count.loan.get_or_insert_with(|| Loan::new(now));
            if now < loan.away_until {
                return Err(Ok(Asked::Away));
            }
            if now < loan.full_until {
                return Err(Ok(Asked::Full));
            }
            if let Some(asking) = &loan.asking {
                return Err(Err(asking.clone()));
            }
            loan.asking = Some(woken);
            loan.most = cap.most;
            let lot = loan.usable(now).min(cap.most / LOT).max(1);
            Ok(used.max(loan.usable(now)).saturating_add(lot).min(cap.most))
        });
        let wanted = match begun {
            Ok(wanted) => wanted,
            Err(Ok(known)) => return known,
            Err(Err(mut other)) => {
                // Closed, which is what is waited for.
                let _ = other.changed().await;
                return Asked::Lent;
            }
        };
        let asking = Asking { slots: self, subject: cap.subject, _wake: wake };
        loans.names().insert(key_of(&cap.subject), cap.subject);
        let (mut heard, mut missed) = (false, 0);
        for pause in [None].into_iter().chain(PAUSES.map(Some)) {
            if let Some(pause) = pause {
                sleep(pause).await;
            }
            match self.renew_one(loans, &asking.subject, wanted, cap.most).await {
                Some((has, used)) if has > used => return Asked::Lent,
                Some(_) if !std::mem::replace(&mut heard, true) => {
                    loans.hub.want(&key_of(&cap.subject)).await;
                }
                Some(_) => {}
                None if loans.are_away() => return Asked::Away,
                // One answer that is late does not make it away: the others may
                // have all places, and a share of them would be too many.
                None => missed += 1,
            }
            if missed > LATE {
                break;
            }
        }
        if !heard {
            return self.away(&cap.subject);
        }
        self.with(&cap.subject, |count| {
            if let Some(loan) = &mut count.loan {
                loan.full_until = Instant::now() + FULL;
            }
        });
        Asked::Full
    }

    /// Redis does not answer for this subject: those who come next need not wait, too.
    fn away(&self, subject: &Subject) -> Asked {
        self.with(subject, |count| {
            if let Some(loan) = &mut count.loan {
                loan.away_until = Instant::now() + FULL;
            }
        });
        Asked::Away
    }

    /// One call, of whoever asks for this subject: places here now, and how many of
    /// them are taken. `None` when Redis did not answer.
    async fn renew_one(
        &self,
        loans: &Loans,
        subject: &Subject,
        wanted: u32,
        most: u32,
    ) -> Option<(u32, u32)> {
        let taken = self.count(subject);
        // Counted from before: the server counts from later.
        let until = Instant::now() + LIFE - MARGIN;
        let has = loans.ask(subject, wanted.max(taken), taken, most).await?;
        Some(self.with(subject, |count| {
            let loan = count.loan.get_or_insert_with(|| Loan::new(until));
            (loan.lent, loan.until) = (has, until);
            (has, count.used)
        }))
    }

    /// Renews what is in use and gives back the rest. For a job, every second.
    pub async fn renew(&self) {
        let Some(loans) = self.loans() else { return };
        if loans.are_away() {
            return;
        }
        let names: Vec<_> = loans.names().values().copied().collect();
        for chunk in names.chunks(64) {
            let all = chunk.iter().map(|subject| self.renew_loan(loans, subject));
            futures_util::future::join_all(all).await;
        }
    }

    /// Keeps as many as were taken at once of late.
    async fn renew_loan(&self, loans: &Loans, subject: &Subject) {
        let (wake, woken) = watch::channel(());
        let wanted = self.with(subject, |count| {
            let used = count.used;
            let loan = count.loan.as_mut()?;
            if loan.asking.is_some() {
                return None;
            }
            let kept = used.max(loan.peak);
            if loan.lent == 0 && kept == 0 {
                count.loan = None;
                return Some((0, 0, false));
            }
            loan.peak = used;
            // Not used any more before it is said to be free.
            loan.lent = loan.lent.min(kept);
            loan.asking = Some(woken);
            Some((kept, loan.most, true))
        });
        match wanted {
            None => {}
            Some((_, _, false)) => {
                loans.names().remove(&key_of(subject));
                // Somebody may have been lent places since it was found unused.
                if self.with(subject, |count| count.loan.is_some()) {
                    loans.names().insert(key_of(subject), *subject);
                }
            }
            Some((kept, most, true)) => {
                let _asking = Asking { slots: self, subject: *subject, _wake: wake };
                self.renew_one(loans, subject, kept, most).await;
            }
        }
    }

    /// Another instance has none left: what is not used here is given back now.
    fn give_back(&self, key: &str) {
        let Some(loans) = self.loans() else { return };
        let Some(subject) = loans.names().get(key).copied() else { return };
        let has_idle = self.with(&subject, |count| {
            let used = count.used;
            count.loan.as_mut().is_some_and(|loan| {
                let idle = loan.lent > used;
                loan.peak = used;
                idle
            })
        });
        if has_idle {
            let slots = self.clone();
            tokio::spawn(async move {
                let Some(loans) = slots.loans() else { return };
                slots.renew_loan(loans, &subject).await;
            });
        }
    }

    /// Listens to what other instances want.
    pub(super) fn listen(&self, hub: &CacheHub) {
        let counts = Arc::downgrade(&self.0);
        hub.on_wanted(move |key| {
            if let Some(counts) = Weak::upgrade(&counts) {
                Self(counts).give_back(key);
            }
        });
    }
}
