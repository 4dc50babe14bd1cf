use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};

use chrono::{DateTime, TimeDelta};
use serde::Deserialize;
use tokio::sync::Barrier;

use super::{super::held::CAPACITY, *};
use crate::{
    cache::CacheHub,
    domain::clock::{Clock as _, FakeClock},
};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Row {
    version: i64,
}

impl Cached for Row {
    type Key = u64;
    const NAMESPACE: &'static str = "row:1";
    const FRESH: Duration = Duration::from_secs(10);
    const SHARED: Duration = Duration::from_mins(1);
    const NEGATIVE: Duration = Duration::from_secs(5);

    fn version(&self) -> i64 {
        self.version
    }
}

fn cache() -> (Arc<FakeClock>, Cache<Row>) {
    let clock = FakeClock::starting_at(DateTime::from_timestamp(1_800_000_000, 0).unwrap());
    (clock.clone(), CacheHub::new(clock, None).cache())
}

async fn get(cache: &Cache<Row>, key: u64, row: Option<i64>) -> Option<i64> {
    let load = || async { Ok::<_, LoadFailed>(row.map(|version| Row { version })) };
    cache.get_or_load(&key, load).await.unwrap().map(|row| row.version)
}

#[tokio::test]
async fn entries_live_as_long_as_their_kind_says() {
    let (clock, cache) = cache();
    assert_eq!(get(&cache, 1, Some(1)).await, Some(1));
    assert_eq!(get(&cache, 2, None).await, None);
    clock.advance(TimeDelta::milliseconds(4_999));
    assert!(matches!(cache.peek(&1), Peek::Hit(row) if row.version == 1));
    assert!(matches!(cache.peek(&2), Peek::Absent));
    clock.advance(TimeDelta::milliseconds(1));
    assert!(matches!(cache.peek(&2), Peek::Miss));
    clock.advance(TimeDelta::seconds(5));
    assert!(matches!(cache.peek(&1), Peek::Miss));
    assert_eq!(get(&cache, 1, Some(3)).await, Some(3));
}

/// Says when it was read.
#[derive(Debug, Serialize, Deserialize)]
struct Dated {
    version: i64,
    read_at: DateTime<Utc>,
}

impl Cached for Dated {
    type Key = u64;
    const NAMESPACE: &'static str = "dated:1";
    const FRESH: Duration = Duration::from_secs(10);
    const SHARED: Duration = Duration::from_mins(1);
    const NEGATIVE: Duration = Duration::from_secs(5);

    fn version(&self) -> i64 {
        self.version
    }

    fn age(&self, now: DateTime<Utc>) -> Option<Duration> {
        (now - self.read_at).to_std().ok()
    }
}

/// What it took to come here counts, also where the process is younger than
/// that.
#[tokio::test]
async fn a_value_that_was_read_long_ago_is_kept_for_the_rest() {
    let clock = FakeClock::starting_at(DateTime::from_timestamp(1, 0).unwrap());
    let cache: Cache<Dated> = CacheHub::new(clock.clone(), None).cache();
    let keep = async |key, seconds| {
        let read_at = clock.now() - TimeDelta::seconds(seconds);
        let load = || async { Ok::<_, LoadFailed>(Some(Dated { version: 1, read_at })) };
        cache.get_or_load(&key, load).await.unwrap().unwrap();
    };
    keep(1, 7).await;
    keep(2, 10).await;
    // Read in the future: not older than a new one.
    keep(3, -1).await;
    assert!(matches!(cache.peek(&2), Peek::Miss));
    clock.advance(TimeDelta::milliseconds(2_999));
    assert!(matches!(cache.peek(&1), Peek::Hit(_)));
    clock.advance(TimeDelta::milliseconds(1));
    assert!(matches!(cache.peek(&1), Peek::Miss));
    clock.advance(TimeDelta::milliseconds(6_999));
    assert!(matches!(cache.peek(&3), Peek::Hit(_)));
    clock.advance(TimeDelta::milliseconds(1));
    assert!(matches!(cache.peek(&3), Peek::Miss));
}

#[tokio::test]
async fn only_a_copy_that_is_older_than_what_was_seen_goes() {
    let (_, cache) = cache();
    get(&cache, 1, Some(2)).await;
    cache.outdate(&1, 2);
    assert!(matches!(cache.peek(&1), Peek::Hit(_)));
    cache.outdate(&1, 3);
    assert!(matches!(cache.peek(&1), Peek::Miss));
    // A load that read the old row does not bring it back.
    get(&cache, 1, Some(2)).await;
    assert!(matches!(cache.peek(&1), Peek::Miss));
}

#[tokio::test]
async fn an_invalidation_works_even_if_its_future_is_dropped() {
    let (_, cache) = cache();
    get(&cache, 1, Some(1)).await;
    drop(cache.invalidate(&1, 2));
    assert!(matches!(cache.peek(&1), Peek::Miss));
    // A replica that lags answers with the old row: it is not kept.
    assert_eq!(get(&cache, 1, Some(1)).await, Some(1));
    assert!(matches!(cache.peek(&1), Peek::Miss));
    get(&cache, 1, Some(2)).await;
    assert!(matches!(cache.peek(&1), Peek::Hit(_)));
}

/// The load has read the old row when the row changes (G-86).
#[tokio::test]
async fn a_fill_that_was_overtaken_loads_again() {
    for before in [Some(1), None] {
        let (_, cache) = cache();
        let loads = AtomicUsize::new(0);
        let load = async || {
            let first = loads.fetch_add(1, Ordering::Relaxed) == 0;
            let row = if first { before } else { Some(2) };
            if first {
                cache.invalidate(&1, 2).await;
            }
            Ok::<_, LoadFailed>(row.map(|version| Row { version }))
        };
        let got = cache.get_or_load(&1, load).await.unwrap();
        assert_eq!(got.as_deref(), Some(&Row { version: 2 }));
        assert_eq!(loads.into_inner(), 2);
        assert!(matches!(cache.peek(&1), Peek::Hit(row) if row.version == 2));
    }
}

#[tokio::test]
async fn a_clearing_overtakes_loads_under_way() {
    let (_, cache) = cache();
    let loads = AtomicUsize::new(0);
    let load = async || {
        if loads.fetch_add(1, Ordering::Relaxed) == 0 {
            cache.inner.clear();
        }
        Ok::<_, LoadFailed>(Some(Row { version: 1 }))
    };
    cache.get_or_load(&1, load).await.unwrap();
    assert_eq!(loads.into_inner(), 2);
}

/// 10,000 rounds of two readers against a writer, on real threads: what a
/// reader sees after the writer is done is never older than what it wrote.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_reader_ever_sees_an_invalidated_row() {
    let (_, cache) = cache();
    let truth = Arc::new(AtomicI64::new(1));
    let invalidated = Arc::new(AtomicI64::new(1));
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (cache, truth) = (cache.clone(), Arc::clone(&truth));
            let (invalidated, done) = (Arc::clone(&invalidated), Arc::clone(&done));
            tokio::spawn(async move {
                let mut stale = 0;
                while !done.load(Ordering::Acquire) {
                    let oldest = invalidated.load(Ordering::SeqCst);
                    let seen = match cache.peek(&1) {
                        Peek::Hit(row) => row.version,
                        _ => load_slowly(&cache, &truth).await,
                    };
                    stale += usize::from(seen < oldest);
                    tokio::task::yield_now().await;
                }
                stale
            })
        })
        .collect();
    for version in 2..10_002 {
        truth.store(version, Ordering::SeqCst);
        cache.invalidate(&1, version).await;
        invalidated.store(version, Ordering::SeqCst);
        tokio::task::yield_now().await;
    }
    done.store(true, Ordering::Release);
    for reader in readers {
        assert_eq!(reader.await.unwrap(), 0);
    }
    assert_eq!(load_slowly(&cache, &truth).await, 10_001);
}

async fn load_slowly(cache: &Cache<Row>, truth: &AtomicI64) -> i64 {
    let load = || async {
        let version = truth.load(Ordering::SeqCst);
        tokio::task::yield_now().await;
        Ok::<_, LoadFailed>(Some(Row { version }))
    };
    cache.get_or_load(&1, load).await.unwrap().unwrap().version
}

#[tokio::test]
async fn many_askers_load_once_and_a_cancelled_leader_is_replaced() {
    let (_, cache) = cache();
    let loads = Arc::new(AtomicUsize::new(0));
    let gate = Arc::new(Barrier::new(2));
    let ask = |hang: bool| {
        let (cache, loads, gate) = (cache.clone(), Arc::clone(&loads), Arc::clone(&gate));
        tokio::spawn(async move {
            let load = async || {
                loads.fetch_add(1, Ordering::Relaxed);
                if hang {
                    gate.wait().await;
                    std::future::pending::<()>().await;
                }
                tokio::task::yield_now().await;
                Ok::<_, LoadFailed>(Some(Row { version: 1 }))
            };
            cache.get_or_load(&1, load).await.unwrap()
        })
    };
    let leader = ask(true);
    gate.wait().await;
    let others: Vec<_> = (0..100).map(|_| ask(false)).collect();
    tokio::task::yield_now().await;
    leader.abort();
    for other in others {
        assert!(other.await.unwrap().is_some());
    }
    assert_eq!(loads.load(Ordering::Relaxed), 2);
    assert_eq!(cache.inner.flights.len(), 0);
}

/// A database that is away must not be asked by one waiter after the other.
#[tokio::test]
async fn waiters_of_a_failed_leader_do_not_queue() {
    let (_, cache) = cache();
    let asked = AtomicUsize::new(0);
    let ask = || async {
        let load = || async {
            asked.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(100)).await;
            Err::<Option<Row>, _>(LoadFailed)
        };
        cache.get_or_load(&1, load).await
    };
    let answers = futures_util::future::join_all((0..50).map(|_| ask())).await;
    assert!(answers.iter().all(Result::is_err));
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    assert_eq!(cache.inner.flights.len(), 0);
    assert_eq!(get(&cache, 1, Some(1)).await, Some(1));
}

/// Keys that do not exist cannot fill the memory (G-89).
#[tokio::test]
async fn a_flood_of_unknown_keys_is_bounded() {
    let (_, cache) = cache();
    for key in 0..150_000 {
        get(&cache, key, None).await;
        if key % 3 == 0 {
            cache.inner.evict(&key, 1);
        }
    }
    assert!(cache.inner.memory.len() <= CAPACITY);
    assert!(cache.inner.tombstones.len() <= CAPACITY);
}

#[tokio::test]
async fn what_is_heard_evicts_what_is_older_and_nothing_twice() {
    let (_, cache) = cache();
    get(&cache, 1, Some(2)).await;
    cache.heard(&1, 2);
    assert!(matches!(cache.peek(&1), Peek::Hit(_)), "it is known here");
    cache.heard(&1, 3);
    assert!(matches!(cache.peek(&1), Peek::Miss));
    let tick = cache.inner.tick();
    cache.heard(&1, 3);
    assert_eq!(cache.inner.tick(), tick, "loads under way go on");
    get(&cache, 1, Some(3)).await;
    cache.heard(&1, 3);
    assert!(matches!(cache.peek(&1), Peek::Hit(_)));
    // "Not there" has no version, and may be older.
    get(&cache, 2, None).await;
    cache.heard(&2, 1);
    assert!(matches!(cache.peek(&2), Peek::Miss));
}

/// Fresh for 10 s, and then for as long as the bound lets it.
#[tokio::test]
async fn a_copy_stands_for_a_truth_that_does_not_answer_within_the_bound() {
    let clock = FakeClock::starting_at(DateTime::from_timestamp(1, 0).unwrap());
    let hub = CacheHub::new(clock.clone(), None);
    let cache: Cache<Row> = hub.cache();
    get(&cache, 1, Some(1)).await;
    let loads = AtomicUsize::new(0);
    let fails = async || {
        loads.fetch_add(1, Ordering::Relaxed);
        Err::<Option<Row>, _>(LoadFailed)
    };
    clock.advance(TimeDelta::seconds(10));
    let got = cache.get_or_load(&1, fails).await;
    assert_eq!(got, Err(LoadFailed), "nobody knows what has changed");
    hub.in_sync(clock.monotonic_us());
    let hangs = async || std::future::pending::<Result<Option<Row>, LoadFailed>>().await;
    let got = cache.get_or_load(&1, hangs).await.unwrap();
    assert_eq!(got.as_deref(), Some(&Row { version: 1 }));
    // From now on it is not asked at all, for what is known.
    loads.store(0, Ordering::Relaxed);
    clock.advance(TimeDelta::milliseconds(59_999));
    let got = cache.get_or_load(&1, fails).await.unwrap();
    assert_eq!(got.as_deref(), Some(&Row { version: 1 }));
    assert_eq!(loads.load(Ordering::Relaxed), 0);
    assert_eq!(cache.get_or_load(&2, fails).await, Err(LoadFailed));
    clock.advance(TimeDelta::milliseconds(1));
    assert_eq!(cache.get_or_load(&1, fails).await, Err(LoadFailed), "the bound");
    // Once all is known again the truth is asked; what was evicted stays so.
    hub.in_sync(clock.monotonic_us());
    assert_eq!(get(&cache, 1, Some(1)).await, Some(1));
    clock.advance(TimeDelta::seconds(10));
    cache.heard(&1, 2);
    hub.out_of_sync();
    assert_eq!(cache.get_or_load(&1, fails).await, Err(LoadFailed));
}
