//! Caches of several instances that share one Redis.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};
use tokio_util::sync::{CancellationToken, DropGuard};
use tollgate::{
    cache::{Cache, CacheHub, Cached, LoadFailed, Peek, RedisStore},
    domain::clock::SystemClock,
};

use crate::support::{
    LATE,
    redis::{Server, connect, connect_patiently},
};

/// How long a change may be unknown elsewhere, and what a busy machine adds.
const SOON: Duration = Duration::from_secs(1).saturating_add(LATE);

#[derive(Debug, Serialize, Deserialize)]
struct Row {
    version: i64,
}

impl Cached for Row {
    type Key = String;
    const NAMESPACE: &'static str = "test-row:1";
    // Long, so that only an invalidation can end a copy within a test.
    const FRESH: Duration = Duration::from_mins(10);
    const SHARED: Duration = Duration::from_mins(10);
    const NEGATIVE: Duration = Duration::from_mins(10);

    fn version(&self) -> i64 {
        self.version
    }
}

struct Instance {
    hub: CacheHub,
    cache: Cache<Row>,
    _stop: DropGuard,
}

fn instance(redis: Arc<RedisStore>) -> Instance {
    let hub = CacheHub::new(Arc::new(SystemClock), Some(redis));
    let shutdown = CancellationToken::new();
    let (running, token) = (hub.clone(), shutdown.clone());
    tokio::spawn(async move { running.run(token).await });
    Instance { cache: hub.cache(), hub, _stop: shutdown.drop_guard() }
}

impl Instance {
    /// From memory or Redis, else the row that is in the "database".
    async fn get(&self, key: &str, row: Option<i64>) -> Option<i64> {
        let load = || async { Ok::<_, LoadFailed>(row.map(|version| Row { version })) };
        let found = self.cache.get_or_load(&key.to_owned(), load).await;
        found.unwrap().map(|row| row.version)
    }

    fn knows(&self, key: &str) -> bool {
        !matches!(self.cache.peek(&key.to_owned()), Peek::Miss)
    }

    async fn invalidate(&self, key: &str, version: i64) {
        self.cache.invalidate(&key.to_owned(), version).await;
    }
}

/// How long it took.
async fn until(within: Duration, what: &str, condition: impl Fn() -> bool) -> Duration {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < within, "not within {within:?}: {what}");
        sleep(Duration::from_millis(5)).await;
    }
    start.elapsed()
}

/// Of a server that nothing is done to: what is told it is told.
async fn well(server: &Server) -> Arc<RedisStore> {
    connect_patiently(&server.url()).await
}

/// Both have subscribed and hear each other.
async fn pair(a: Arc<RedisStore>, b: Arc<RedisStore>) -> (Instance, Instance) {
    let (a, b) = (instance(a), instance(b));
    let both = || a.hub.instances() == 2 && b.hub.instances() == 2;
    until(Duration::from_secs(30), "two instances", both).await;
    (a, b)
}

/// One change is seen everywhere within a second (G-85), in memory and in
/// Redis; for a row that came, changed and went.
#[tokio::test]
async fn an_invalidation_reaches_the_other_instance() {
    let Some(server) = Server::start() else { return };
    let (a, b) = pair(well(&server).await, well(&server).await).await;
    assert_eq!((a.get("k", None).await, b.get("k", None).await), (None, None));
    a.invalidate("k", 1).await;
    until(SOON, "a new row", || !b.knows("k")).await;

    assert_eq!(a.get("k", Some(1)).await, Some(1));
    assert_eq!(b.get("k", None).await, Some(1), "from redis, not from its own load");
    a.invalidate("k", 2).await;
    assert!(!a.knows("k"));
    until(SOON, "a changed row", || !b.knows("k")).await;
    // A slow writer elsewhere cannot put the old row back into Redis.
    let (slow, fresh) = (well(&server).await, well(&server).await);
    let (slow, fresh) = (instance(slow), instance(fresh));
    let all = || slow.hub.instances() == 4 && fresh.hub.instances() == 4;
    until(Duration::from_secs(30), "four instances", all).await;
    slow.get("k", Some(1)).await;
    assert_eq!(fresh.get("k", None).await, None);
    assert_eq!(b.get("k", Some(2)).await, Some(2));

    b.invalidate("k", 3).await;
    until(SOON, "a deleted row", || !a.knows("k")).await;
    assert_eq!(a.get("k", None).await, None);
}

/// Messages may be missed while there is no subscription, so every copy goes.
#[tokio::test]
async fn a_broken_subscription_is_renewed_and_the_copies_go() {
    let Some(server) = Server::start() else { return };
    let (a, b) = pair(well(&server).await, well(&server).await).await;
    a.get("k", Some(1)).await;
    b.get("k", Some(1)).await;
    server.command(&["FLUSHALL"]).await;
    server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    until(2 * SOON, "cleared", || !a.knows("k") && !b.knows("k")).await;
    assert_eq!((a.hub.instances(), b.hub.instances()), (2, 2));
    b.get("k", Some(2)).await;
    assert_eq!(a.get("k", None).await, Some(2));
    a.invalidate("k", 3).await;
    until(SOON, "heard again", || !b.knows("k")).await;
}

/// What could not be told is told later (G-16, G-18); a server that hangs
/// without a word is noticed by its silence.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalidation_survives_a_redis_that_is_away() {
    let Some(server) = Server::start() else { return };
    let url = server.url();
    let (a, b) = pair(connect(&url).await, connect(&url).await).await;
    for key in ["dropped", "awaited"] {
        a.get(key, Some(1)).await;
        b.get(key, Some(1)).await;
    }
    server.stop();
    let start = Instant::now();
    a.invalidate("awaited", 2).await;
    drop(a.cache.invalidate(&"dropped".to_owned(), 2));
    assert!(start.elapsed() < LATE, "{:?}", start.elapsed());
    assert!(!a.knows("awaited") && !a.knows("dropped"));
    sleep(Duration::from_secs(2)).await;
    assert_eq!(a.hub.instances(), 2, "frozen");
    server.resume();
    let told = || !b.knows("awaited") && !b.knows("dropped");
    until(2 * SOON, "told later", told).await;
    assert_eq!(b.get("dropped", Some(2)).await, Some(2), "and not the old one from redis");
}
