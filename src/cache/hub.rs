//! Makes the caches and carries invalidations between instances.
//!
//! Messages are hints that save time: one that is lost leaves an old copy for
//! at most its lifetime. Whenever messages may have been missed, every copy in
//! memory is dropped. What could not be sent is repeated until the copies that
//! it would have evicted have expired on their own.

use std::{
    any::{Any, TypeId},
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::broadcast,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    breaker,
    held::CacheInner,
    redis::RedisStore,
    shared,
    truth::Truth,
    typed::{Cache, Cached},
};
use crate::domain::clock::SharedClock;

const BEAT_EVERY: Duration = Duration::from_secs(3);
/// Nothing heard for this long, own beats included: the connection is dead.
const SILENCE: Duration = Duration::from_secs(9);
/// An instance counts for this long after its last beat.
const PRESENCE: Duration = Duration::from_secs(10);
const REPEAT_EVERY: Duration = Duration::from_millis(500);
/// Changes waiting for Redis. Beyond it the copies' lifetime is the bound.
const OUTBOX: usize = 10_000;
/// Answers of other instances that whoever waits for one may be behind.
const ANSWERS: usize = 64;

/// One evicted key, as the other instances are told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Change {
    namespace: String,
    key: String,
    version: i64,
    /// Of the copy in Redis.
    #[serde(skip)]
    name: String,
    #[serde(skip)]
    life: Duration,
}

impl Change {
    pub(super) fn new<T: Cached>(key: &T::Key, version: i64) -> Self {
        Self {
            namespace: T::NAMESPACE.to_owned(),
            key: key.to_string(),
            version,
            name: T::shared_name(key),
            life: T::SHARED,
        }
    }
}

/// A beat, or a beat with more.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Message {
    instance: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    change: Option<Change>,
    /// A stream that is to be ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cut: Option<Uuid>,
    /// One that was, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    was_cut: Option<Uuid>,
    /// Places of this kind that whoever does not use them is to give back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wanted: Option<String>,
}

/// What the hub can do to a cache whose type it does not know.
trait Member: Send + Sync {
    fn evict(&self, key: &str, version: i64);
    fn clear(&self);
}

impl<T: Cached> Member for CacheInner<T> {
    fn evict(&self, key: &str, version: i64) {
        match key.parse() {
            Ok(key) => Self::evict(self, &key, version),
            // Not a key of this version of the program: anything may be meant.
            Err(_) => Self::clear(self),
        }
    }

    fn clear(&self) {
        Self::clear(self);
    }
}

struct Registered {
    kind: TypeId,
    member: Arc<dyn Member>,
    typed: Arc<dyn Any + Send + Sync>,
}

type OnCut = Box<dyn Fn(Uuid) -> bool + Send + Sync>;
type OnWanted = Box<dyn Fn(&str) + Send + Sync>;

pub(super) struct HubInner {
    pub(super) instance: String,
    clock: SharedClock,
    redis: Option<Arc<RedisStore>>,
    caches: Mutex<HashMap<&'static str, Registered>>,
    outbox: Mutex<HashMap<String, (Change, Instant)>>,
    instances: AtomicUsize,
    pub(super) truth: Truth,
    pub(super) on_cut: OnceLock<OnCut>,
    pub(super) on_wanted: OnceLock<OnWanted>,
    /// Streams that other instances have ended for this one.
    pub(super) answers: broadcast::Sender<Uuid>,
}

/// The caches of this instance and their link to those of the others. Cheap to
/// clone.
#[derive(Clone)]
pub struct CacheHub(Arc<HubInner>);

impl CacheHub {
    /// Without Redis the caches are in memory only.
    pub fn new(clock: SharedClock, redis: Option<Arc<RedisStore>>) -> Self {
        Self(Arc::new(HubInner {
            instance: format!("{:016x}", rand::random::<u64>()),
            clock,
            redis,
            caches: Mutex::default(),
            outbox: Mutex::default(),
            instances: AtomicUsize::new(1),
            truth: Truth::default(),
            on_cut: OnceLock::new(),
            on_wanted: OnceLock::new(),
            answers: broadcast::Sender::new(ANSWERS),
        }))
    }

    /// The cache of `T`; the same one at every call.
    ///
    /// # Panics
    ///
    /// When two types claim one namespace.
    pub fn cache<T: Cached>(&self) -> Cache<T> {
        let mut caches = lock(&self.0.caches);
        let entry = caches.entry(T::NAMESPACE).or_insert_with(|| {
            let inner = Arc::new(CacheInner::<T>::new(Arc::clone(&self.0.clock)));
            Registered { kind: TypeId::of::<T>(), member: inner.clone(), typed: inner }
        });
        assert_eq!(entry.kind, TypeId::of::<T>(), "two types share namespace {}", T::NAMESPACE);
        let inner = Arc::clone(&entry.typed).downcast().expect("the type was compared above");
        Cache::over(inner, Arc::clone(&self.0))
    }

    /// Instances heard within the last 10 s, this one included; never 0. Stays
    /// as it was while nothing can be heard.
    pub fn instances(&self) -> usize {
        self.0.instances.load(Ordering::Relaxed)
    }

    /// How long copies may be used while the truth cannot be asked.
    pub fn bound_staleness(&self, bound: Duration) {
        self.0.truth.bound(bound);
    }

    /// For how long that is.
    pub fn staleness(&self) -> Duration {
        self.0.truth.bounded_by()
    }

    /// What had changed at `at_us`, monotonic microseconds, is known to all caches.
    pub fn in_sync(&self, at_us: u64) {
        self.0.truth.asked(at_us);
    }

    /// The truth does not answer: copies stand for it meanwhile.
    pub fn out_of_sync(&self) {
        self.0.truth.lost();
    }

    /// How long ago all changes were known; `None` before the first time.
    pub fn sync_age(&self) -> Option<Duration> {
        self.0.truth.age(self.0.clock.monotonic_us())
    }

    /// Changes may have been missed: forgets every copy in memory.
    pub fn forget(&self) {
        self.0.clear();
    }

    pub(super) fn inner(&self) -> &HubInner {
        &self.0
    }

    /// Listens, beats and repeats what could not be sent, until `shutdown`.
    pub async fn run(&self, shutdown: CancellationToken) {
        let hub = &self.0;
        let Some(redis) = hub.redis() else { return shutdown.cancelled().await };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = hub.listen(&redis) => {}
            () = hub.repeat(&redis) => {}
        }
    }
}

impl HubInner {
    pub(super) fn redis(&self) -> Option<Arc<RedisStore>> {
        self.redis.clone()
    }

    /// Notes that others must be told, so that a caller who gives up after the
    /// commit does not keep it to itself.
    pub(super) fn announce(&self, change: &Change) {
        if self.redis.is_none() {
            return;
        }
        let mut outbox = lock(&self.outbox);
        if outbox.get(&change.name).is_some_and(|(waiting, _)| waiting.version > change.version) {
            return;
        }
        if outbox.len() < OUTBOX {
            outbox.insert(change.name.clone(), (change.clone(), Instant::now()));
        } else {
            tracing::warn!("too many invalidations wait for redis, copies there may be outdated");
        }
    }

    pub(super) async fn deliver(&self, change: &Change) {
        let Some(redis) = &self.redis else { return };
        let Change { name, version, life, .. } = change;
        let message = self.message(Message { change: Some(change.clone()), ..Message::default() });
        if shared::bury(redis, name, *version, *life, Some(&message)).await {
            let mut outbox = lock(&self.outbox);
            if outbox.get(name).is_some_and(|(waiting, _)| waiting.version <= *version) {
                outbox.remove(name);
            }
        }
    }

    pub(super) fn cut_message(&self, id: Uuid) -> String {
        self.message(Message { cut: Some(id), ..Message::default() })
    }

    pub(super) fn wanted_message(&self, key: &str) -> String {
        self.message(Message { wanted: Some(key.to_owned()), ..Message::default() })
    }

    fn message(&self, message: Message) -> String {
        let message = Message { instance: self.instance.clone(), ..message };
        serde_json::to_string(&message).expect("strings and numbers are JSON")
    }

    async fn repeat(&self, redis: &RedisStore) {
        loop {
            time::sleep(REPEAT_EVERY).await;
            let waiting: Vec<Change> = {
                let mut outbox = lock(&self.outbox);
                outbox.retain(|_, (change, since)| since.elapsed() < change.life);
                outbox.values().map(|(change, _)| change.clone()).collect()
            };
            for change in waiting {
                if redis.is_degraded() {
                    break;
                }
                self.deliver(&change).await;
            }
        }
    }

    async fn listen(&self, redis: &Arc<RedisStore>) {
        let mut failed = 0;
        loop {
            match self.listen_once(redis).await {
                Ok(()) => failed = 0,
                Err(error) => tracing::debug!(%error, "cannot subscribe to invalidations"),
            }
            time::sleep(breaker::pause(failed, rand::random())).await;
            failed += 1;
        }
    }

    /// Ends well when a working subscription broke.
    async fn listen_once(&self, redis: &Arc<RedisStore>) -> redis::RedisResult<()> {
        let mut messages = redis.subscribe(shared::CHANNEL).await?;
        // Only now: from here on nothing is missed, but before it was.
        self.clear();
        tracing::info!("listening to invalidations");
        let mut present = Presence::new(self.instances.load(Ordering::Relaxed));
        let mut beat = time::interval(BEAT_EVERY);
        let mut stream = messages.on_message();
        loop {
            tokio::select! {
                message = stream.next() => {
                    let Some(message) = message else { break };
                    if let Some(reply) = self.receive(message.get_payload_bytes(), &mut present) {
                        shared::publish(redis, &self.message(reply)).await;
                    }
                }
                _ = beat.tick() => {
                    shared::publish(redis, &self.message(Message::default())).await;
                }
                () = time::sleep_until(present.last + SILENCE) => break,
            }
            self.instances.store(present.count(), Ordering::Relaxed);
        }
        tracing::warn!("the subscription to invalidations broke, subscribing again");
        Ok(())
    }

    /// What is to be answered, if anything.
    fn receive(&self, payload: &[u8], present: &mut Presence) -> Option<Message> {
        // Another version of the program may say more than we understand.
        let Ok(message) = serde_json::from_slice::<Message>(payload) else {
            self.clear();
            return None;
        };
        let own = message.instance == self.instance;
        present.heard(message.instance);
        if own {
            return None;
        }
        if let Some(change) = message.change {
            let member = lock(&self.caches)
                .get(change.namespace.as_str())
                .map(|entry| Arc::clone(&entry.member));
            if let Some(member) = member {
                member.evict(&change.key, change.version);
            }
        }
        if let Some(id) = message.was_cut {
            // Nobody may wait for it any more.
            let _ = self.answers.send(id);
        }
        if let (Some(key), Some(give_back)) = (message.wanted, self.on_wanted.get()) {
            give_back(&key);
        }
        let cut = message.cut.filter(|id| self.on_cut.get().is_some_and(|cut| cut(*id)));
        cut.map(|id| Message { was_cut: Some(id), ..Message::default() })
    }

    /// Whether a copy that is past its time may be used instead of the truth.
    pub(super) fn allows_copies(&self) -> bool {
        self.truth.allows_copies(self.clock.monotonic_us())
    }

    fn clear(&self) {
        for entry in lock(&self.caches).values() {
            entry.member.clear();
        }
    }
}

/// Who was heard on one subscription.
struct Presence {
    last: Instant,
    heard: HashMap<String, Instant>,
    /// The count before this subscription holds until all had time to beat.
    before: usize,
    since: Instant,
}

impl Presence {
    fn new(before: usize) -> Self {
        let now = Instant::now();
        Self { last: now, heard: HashMap::new(), before, since: now }
    }

    fn heard(&mut self, instance: String) {
        self.last = Instant::now();
        self.heard.insert(instance, self.last);
        self.heard.retain(|_, at| at.elapsed() < PRESENCE);
    }

    fn count(&self) -> usize {
        let heard = self.heard.values().filter(|at| at.elapsed() < PRESENCE).count().max(1);
        if self.since.elapsed() < PRESENCE { heard.max(self.before) } else { heard }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
