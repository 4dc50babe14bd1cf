//! A typed cache: memory, then Redis, then the truth.
//!
//! A change must be visible at once, so a fill that began before the change
//! loses even if it ends after it (G-86): an invalidation leaves a tombstone,
//! and keeping a value and checking for tombstones is one step under a lock.
//! The lock is never taken by [`Cache::peek`], the hot path.

use std::{fmt::Display, future::Future, hash::Hash, str::FromStr, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::timeout;

use super::{
    flight::LoadFailed,
    held::{CacheInner, Fill},
    hub::{Change, HubInner},
    shared,
};

/// How long the truth may take where there is a copy that may stand for it.
const PATIENCE: Duration = Duration::from_millis(250);
/// A key that changes during every load is handed out without being kept.
const LOADS: usize = 4;

/// Ties a value to its key and lifetimes, so that neither can be mixed up at a
/// call site.
///
/// In Redis a value is a JSON object that begins with the member `version`, so
/// that is the first field of what is serialised.
pub trait Cached: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// `FromStr` must be the inverse of `Display`: a key travels between
    /// instances as text.
    type Key: Hash + Eq + Clone + Display + FromStr + Send + Sync + 'static;
    /// Bump the number when the shape changes; old entries then simply expire.
    const NAMESPACE: &'static str;
    /// How long an entry is used from memory: also the longest that a missed
    /// invalidation may matter.
    const FRESH: Duration;
    /// How long an entry is kept in Redis, unless it says otherwise itself. That
    /// it changed is remembered there for this long, and an invalidation that
    /// could not be delivered is repeated for as long.
    const SHARED: Duration;
    /// How long "there is no such thing" is remembered, in memory only.
    const NEGATIVE: Duration;

    /// Grows with every change of the row.
    fn version(&self) -> i64;

    /// The name of a copy in Redis.
    fn shared_name(key: &Self::Key) -> String {
        format!("tollgate:cache:{}:{key}", Self::NAMESPACE)
    }

    /// How long this very value may stay in Redis. `None`: in memory only.
    fn shared_for(&self, _now: DateTime<Utc>) -> Option<Duration> {
        Some(Self::SHARED)
    }

    /// How long ago it was read from the truth, for values that say so: the
    /// time spent in Redis then counts towards [`Cached::FRESH`]. `None`: at an
    /// instant that is still to come, so it cannot be told.
    fn age(&self, _now: DateTime<Utc>) -> Option<Duration> {
        Some(Duration::ZERO)
    }
}

/// What memory knows.
#[derive(Debug)]
pub enum Peek<T> {
    Hit(Arc<T>),
    /// Known not to exist.
    Absent,
    /// Not known here: ask [`Cache::get_or_load`].
    Miss,
}

/// What Redis has.
enum Shared<T> {
    /// Good, and in memory now.
    Good(Arc<T>),
    /// A copy of this version that is not to be used.
    Useless(i64),
    Nothing,
}

/// Copies of one kind of value. Cheap to clone.
pub struct Cache<T: Cached> {
    inner: Arc<CacheInner<T>>,
    hub: Arc<HubInner>,
}

impl<T: Cached> Clone for Cache<T> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), hub: Arc::clone(&self.hub) }
    }
}

impl<T: Cached> Cache<T> {
    pub(super) fn over(inner: Arc<CacheInner<T>>, hub: Arc<HubInner>) -> Self {
        Self { inner, hub }
    }

    /// What memory knows, without waiting and without allocating.
    pub fn peek(&self, key: &T::Key) -> Peek<T> {
        let found = self.inner.peek(key);
        if !matches!(found, Peek::Miss) {
            self.inner.levels.memory.increment(1);
        }
        found
    }

    /// From memory, else from Redis, else from `load`, which must read the
    /// truth. One caller per key and instance loads while others wait for it.
    /// `load` runs again when the key was invalidated meanwhile, so the answer
    /// is never older than an invalidation that preceded it; its error is
    /// returned as it is, to those who waited as [`LoadFailed`], and nothing is
    /// kept. Dropping the future is harmless.
    pub async fn get_or_load<E, F, Fut>(&self, key: &T::Key, load: F) -> Result<Option<Arc<T>>, E>
    where
        E: From<LoadFailed>,
        F: Fn() -> Fut,
        Fut: Future<Output = Result<Option<T>, E>>,
    {
        match self.peek(key) {
            Peek::Hit(value) => return Ok(Some(value)),
            Peek::Absent => return Ok(None),
            Peek::Miss => {}
        }
        if self.hub.truth.is_away()
            && let Some(value) = self.past_its_time(key)
        {
            self.inner.levels.stale.increment(1);
            return Ok(Some(value));
        }
        let ticket = self.inner.flights.join(key);
        let _turn = match ticket.lead().await {
            Ok(turn) => turn,
            Err(failed) => return self.past_its_time(key).map(Some).ok_or(failed.into()),
        };
        match self.peek(key) {
            Peek::Hit(value) => return Ok(Some(value)),
            Peek::Absent => return Ok(None),
            Peek::Miss => {}
        }
        let useless = match self.read_shared(key).await {
            Shared::Good(found) => {
                self.inner.levels.redis.increment(1);
                return Ok(Some(found));
            }
            Shared::Useless(version) => Some(version),
            Shared::Nothing => None,
        };
        self.inner.levels.database.increment(1);
        let loading = self.load(key, useless, load);
        let failed = if self.past_its_time(key).is_none() {
            match loading.await {
                Ok(loaded) => return Ok(loaded),
                Err(error) => Some(error),
            }
        } else {
            match timeout(PATIENCE, loading).await {
                Ok(Ok(loaded)) => return Ok(loaded),
                Ok(Err(error)) => Some(error),
                Err(_) => None,
            }
        };
        ticket.fail();
        // It may have been evicted meanwhile.
        match (self.past_its_time(key), failed) {
            (Some(value), _) => {
                self.hub.truth.lost();
                self.inner.levels.stale.increment(1);
                Ok(Some(value))
            }
            (None, Some(error)) => Err(error),
            (None, None) => Err(LoadFailed.into()),
        }
    }

    /// A copy that would be looked up again, if it may be used without: all changes
    /// were known here not long ago, and this was none of them.
    fn past_its_time(&self, key: &T::Key) -> Option<Arc<T>> {
        let slot = self.inner.memory.get(key)?;
        slot.value.filter(|_| self.hub.allows_copies())
    }

    /// To be called after the commit that changed the row to `version`; for a
    /// row that was deleted, one more than its last version.
    ///
    /// This instance stops using older copies at once, even if the returned
    /// future is never polled. The future tells Redis and the other instances;
    /// what it cannot deliver now [`CacheHub::run`](super::CacheHub::run)
    /// repeats. Doing it twice is harmless.
    pub fn invalidate(
        &self,
        key: &T::Key,
        version: i64,
    ) -> impl Future<Output = ()> + Send + use<T> {
        self.inner.evict(key, version);
        let change = Change::new::<T>(key, version);
        self.hub.announce(&change);
        let hub = Arc::clone(&self.hub);
        async move { hub.deliver(&change).await }
    }

    /// Something of at least this version was seen elsewhere: an older copy of
    /// this instance goes. Nobody else is told.
    pub fn outdate(&self, key: &T::Key, version: i64) {
        if matches!(self.inner.peek(key), Peek::Hit(value) if value.version() < version) {
            self.inner.evict(key, version);
        }
    }

    /// The row has `version` now, as is heard from the truth itself: older copies of
    /// this instance go, and loads that began before lose. Nobody else is told.
    /// Doing it twice does nothing.
    pub fn heard(&self, key: &T::Key, version: i64) {
        let known = match self.inner.peek(key) {
            Peek::Hit(value) => value.version() >= version,
            Peek::Absent => false,
            Peek::Miss => self.inner.tombstone(key).is_some_and(|held| held.version >= version),
        };
        if !known {
            self.inner.evict(key, version);
        }
    }

    async fn load<E, F, Fut>(
        &self,
        key: &T::Key,
        useless: Option<i64>,
        load: F,
    ) -> Result<Option<Arc<T>>, E>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<Option<T>, E>>,
    {
        let mut loaded = None;
        for _ in 0..LOADS {
            let started = self.inner.tick();
            loaded = load().await?.map(Arc::new);
            match self.inner.fill(key, loaded.clone(), started) {
                Fill::Kept => {
                    self.write_shared(key, loaded.as_deref(), useless).await;
                    break;
                }
                Fill::Outdated => break,
                Fill::Overtaken => {}
            }
        }
        Ok(loaded)
    }

    async fn read_shared(&self, key: &T::Key) -> Shared<T> {
        let Some(redis) = self.hub.redis() else { return Shared::Nothing };
        let started = self.inner.tick();
        let Some((version, body)) = shared::get(&redis, &T::shared_name(key)).await else {
            return Shared::Nothing;
        };
        let value = serde_json::from_str(&body).ok().filter(|value| self.is_good(value));
        let Some(value) = value.map(Arc::new) else { return Shared::Useless(version) };
        match self.inner.fill(key, Some(Arc::clone(&value)), started) {
            Fill::Kept => Shared::Good(value),
            Fill::Overtaken | Fill::Outdated => Shared::Useless(version),
        }
    }

    fn is_good(&self, value: &T) -> bool {
        value.age(self.inner.clock.now()).is_some_and(|age| age < T::FRESH)
    }

    /// Writes a value that was loaded, or takes away what is there in its place.
    async fn write_shared(&self, key: &T::Key, value: Option<&T>, useless: Option<i64>) {
        let Some(redis) = self.hub.redis() else { return };
        let name = T::shared_name(key);
        let life = value.and_then(|value| Some((value, value.shared_for(self.inner.clock.now())?)));
        match (life, useless) {
            (Some((value, life)), _) => {
                let Ok(body) = serde_json::to_string(value) else { return };
                debug_assert!(shared::is_copy(value.version(), &body), "version first: {name}");
                shared::put(&redis, &name, value.version(), &body, life).await;
            }
            // Whoever changed it could not reach Redis in time.
            (None, Some(version)) => {
                shared::bury(&redis, &name, version, T::SHARED, None).await;
            }
            (None, None) => {}
        }
    }
}

#[cfg(test)]
#[path = "typed_tests.rs"]
mod tests;
