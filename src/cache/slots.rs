//! How many requests of somebody are under way.
//!
//! A request takes a place in every count that it is under, or in none, and
//! gives them back when its [`Permit`] is dropped: however it ends, also by a
//! panic. What is not under way takes no memory. With Redis the places are those of
//! all instances together, see [`super::loans`].

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::time::Instant;

use super::{
    CacheHub,
    limiter::shard_of,
    loans::{Loan, Loans},
    redis::RedisStore,
};
use crate::domain::limit::Subject;

const SHARDS: usize = 16;

/// At most so many requests of a subject at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cap {
    pub subject: Subject,
    pub most: u32,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// As many as may be are under way.
    Full(Cap),
    /// None is left of those that were lent: others may have one.
    Short(Cap),
}

/// What of a subject is under way.
#[derive(Debug, Default)]
pub(super) struct Count {
    pub used: u32,
    /// Where instances share places, and some were asked for.
    pub loan: Option<Loan>,
}

#[derive(Default)]
pub(super) struct Counts {
    shards: [Mutex<HashMap<Subject, Count>>; SHARDS],
    loans: Option<Loans>,
}

/// Cheap to clone.
#[derive(Clone, Default)]
pub struct Slots(pub(super) Arc<Counts>);

/// The places of one request.
pub struct Permit {
    counts: Arc<Counts>,
    subjects: Box<[Subject]>,
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("subjects", &self.subjects).finish_non_exhaustive()
    }
}

/// By what a place is given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Limit,
    Loan,
    Share,
}

impl Slots {
    /// Places that the instances of this hub share.
    pub fn shared(redis: Arc<RedisStore>, hub: &CacheHub) -> Self {
        let loans = Some(Loans::new(redis, hub.clone()));
        let this = Self(Arc::new(Counts { shards: Default::default(), loans }));
        this.listen(hub);
        this
    }

    /// Takes a place in each, or says which of them has none: the first one.
    pub fn enter(&self, caps: &[Cap]) -> Result<Permit, Refused> {
        let by = match self.loans() {
            None => By::Limit,
            Some(loans) if loans.are_away() => By::Share,
            Some(_) => By::Loan,
        };
        self.enter_by(by, caps)
    }

    /// The same without asking anybody.
    pub fn enter_alone(&self, caps: &[Cap]) -> Result<Permit, Refused> {
        self.enter_by(By::Share, caps)
    }

    fn enter_by(&self, by: By, caps: &[Cap]) -> Result<Permit, Refused> {
        let now = (by == By::Loan).then(Instant::now);
        let mut locked = self.0.lock(caps.iter().map(|cap| &cap.subject));
        for cap in caps {
            let count = counts_of(&mut locked, &cap.subject).get(&cap.subject);
            let used = count.map_or(0, |count| count.used);
            let most = match (by, self.loans()) {
                (By::Share, Some(loans)) => loans.share(cap.most),
                _ => cap.most,
            };
            if used >= most {
                return Err(Refused::Full(*cap));
            }
            let loan = count.and_then(|count| count.loan.as_ref());
            if now.is_some_and(|now| used >= loan.map_or(0, |loan| loan.usable(now))) {
                return Err(Refused::Short(*cap));
            }
        }
        for cap in caps {
            let count = counts_of(&mut locked, &cap.subject).entry(cap.subject).or_default();
            count.used += 1;
            if let Some(loan) = &mut count.loan {
                loan.peak = loan.peak.max(count.used);
            }
        }
        let subjects = caps.iter().map(|cap| cap.subject).collect();
        Ok(Permit { counts: Arc::clone(&self.0), subjects })
    }

    /// How many of this subject are under way here.
    pub fn count(&self, subject: &Subject) -> u32 {
        let shard = self.0.shard(shard_of(subject));
        shard.get(subject).map_or(0, |count| count.used)
    }

    /// Subjects of which something is under way here.
    pub fn subjects(&self) -> usize {
        let used = |shard: &Shard| shard.values().filter(|count| count.used > 0).count();
        (0..SHARDS).map(|index| used(&self.0.shard(index))).sum()
    }

    pub(super) fn loans(&self) -> Option<&Loans> {
        self.0.loans.as_ref()
    }

    /// Changes what is known of a subject.
    pub(super) fn with<T>(&self, subject: &Subject, change: impl FnOnce(&mut Count) -> T) -> T {
        let mut shard = self.0.shard(shard_of(subject));
        let count = shard.entry(*subject).or_default();
        let changed = change(count);
        if count.is_over() {
            shard.remove(subject);
        }
        changed
    }
}

impl Count {
    fn is_over(&self) -> bool {
        self.used == 0 && self.loan.is_none()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        for subject in &self.subjects {
            let mut shard = self.counts.shard(shard_of(subject));
            if let Some(count) = shard.get_mut(subject) {
                count.used -= 1;
                if count.is_over() {
                    shard.remove(subject);
                }
            }
        }
    }
}

type Shard = HashMap<Subject, Count>;
type Locked<'a> = [Option<MutexGuard<'a, Shard>>; SHARDS];

impl Counts {
    fn shard(&self, index: usize) -> MutexGuard<'_, Shard> {
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All at once and in one order, so that none waits for another in turn.
    fn lock<'s>(&self, subjects: impl Iterator<Item = &'s Subject>) -> Locked<'_> {
        let mut left = subjects.fold(0u32, |set, subject| set | 1 << shard_of(subject));
        let mut locked = [const { None }; SHARDS];
        while left != 0 {
            let index = left.trailing_zeros() as usize;
            locked[index] = Some(self.shard(index));
            left &= left - 1;
        }
        locked
    }
}

fn counts_of<'a>(locked: &'a mut Locked<'_>, subject: &Subject) -> &'a mut Shard {
    locked[shard_of(subject)].as_mut().expect("every shard was locked")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    use super::*;
    use crate::domain::id::{ApiKeyId, UserId};

    fn user() -> Subject {
        Subject::User(UserId::from(uuid::Uuid::from_u128(7)))
    }

    fn key(n: u128) -> Subject {
        let id = ApiKeyId::from(uuid::Uuid::from_u128(n));
        Subject::Key { id, owner: UserId::from(uuid::Uuid::from_u128(7)) }
    }

    #[test]
    fn places_are_taken_together_or_not_at_all() {
        let slots = Slots::default();
        let caps = [Cap { subject: user(), most: 2 }, Cap { subject: key(9), most: 1 }];
        let first = slots.enter(&caps).unwrap();
        assert_eq!(slots.enter(&caps).unwrap_err(), Refused::Full(caps[1]));
        assert_eq!([slots.count(&user()), slots.count(&key(9))], [1, 1]);
        let other = [caps[0], Cap { subject: key(10), most: 1 }];
        let second = slots.enter(&other).unwrap();
        drop(first);
        // The limit was lowered below what is under way.
        let less = [Cap { most: 1, ..caps[0] }];
        assert_eq!(slots.enter(&less).unwrap_err(), Refused::Full(less[0]));
        drop(second);
        assert_eq!(slots.subjects(), 0);
        assert!(slots.enter(&less).is_ok());
    }

    #[test]
    fn a_panic_gives_places_back() {
        let slots = Slots::default();
        let held = slots.clone();
        let thread = std::thread::spawn(move || {
            let _permit = held.enter(&[Cap { subject: user(), most: 1 }]).unwrap();
            panic!("on purpose");
        });
        assert!(thread.join().is_err());
        assert_eq!(slots.subjects(), 0);
    }

    #[test]
    fn eight_threads_never_hold_more_than_the_limit() {
        let (slots, most) = (Slots::default(), AtomicU32::new(0));
        let held = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (slots, most, held) = (&slots, &most, &held);
                scope.spawn(move || {
                    let caps =
                        [Cap { subject: user(), most: 3 }, Cap { subject: key(thread), most: 1 }];
                    for _ in 0..2_000 {
                        if let Ok(_permit) = slots.enter(&caps) {
                            most.fetch_max(held.fetch_add(1, SeqCst) + 1, SeqCst);
                            std::thread::yield_now();
                            held.fetch_sub(1, SeqCst);
                        }
                    }
                });
            }
        });
        assert!((1..=3).contains(&most.into_inner()));
        assert_eq!(slots.subjects(), 0);
    }
}
