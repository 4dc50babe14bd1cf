//! A Redis that is reached by a bad network costs a request little, and nothing
//! once it is given up (RELIABILITY G-11, G-12, G-19).

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use serde_json::json;
use tollgate::cache::RedisStats;

use crate::support::{
    Client, Options, TestApp, UNLIMITED,
    fault::{Faults, Fired, Proxy, Way},
    redis::{BACK, Server, regained},
};

const HELLO: &str = "/api/v1/proxy/hello";
/// Longest wait for one answer of Redis.
const ONE_WAIT: Duration = Duration::from_millis(50);
const CLIENTS: usize = 4;
/// Of each client: so many that the few requests which find out that Redis is
/// away are less than a hundredth.
const REQUESTS: usize = 300;
/// Between two requests of a client: the fault lasts for some probes.
const PAUSE: Duration = Duration::from_millis(5);
/// Failures that open the breaker, what is under way meanwhile, and what the
/// instance itself says to Redis.
const TO_GIVE_UP: u64 = 5 + CLIENTS as u64 + 2;

/// What Redis does to its callers.
#[derive(PartialEq)]
enum Then {
    /// No call and no probe is answered in time: it is given up once.
    Away,
    /// It comes and goes.
    Flaky,
}

struct Case {
    name: &'static str,
    faults: Faults,
    fired: fn(Fired) -> usize,
    then: Then,
}

fn answers(way: Way) -> Faults {
    Faults { to_client: way, ..Faults::default() }
}

fn late(millis: u64) -> Faults {
    answers(Way { latency: Duration::from_millis(millis), ..Way::default() })
}

fn cases() -> Vec<Case> {
    let slow = Way { bytes_per_second: Some(10_000), ..Way::default() };
    let lossy = Way { reset: 0.05, ..Way::default() };
    let silent = Way { swallow: true, ..Way::default() };
    let broken = Way { reset: 1.0, ..Way::default() };
    vec![
        Case {
            name: "200 ms late",
            faults: late(200),
            fired: |fired| fired.delayed,
            then: Then::Away,
        },
        Case {
            name: "75 ms late: a new connection is made in time, but no call",
            faults: late(75),
            fired: |fired| fired.delayed,
            then: Then::Away,
        },
        Case {
            name: "5 % of answers are resets",
            faults: answers(lossy),
            fired: |fired| fired.resets,
            then: Then::Flaky,
        },
        Case {
            name: "10 kB/s",
            faults: Faults { to_server: slow, to_client: slow, ..Faults::default() },
            fired: |fired| fired.throttled,
            then: Then::Flaky,
        },
        Case {
            name: "silent",
            faults: answers(silent),
            fired: |fired| fired.swallowed,
            then: Then::Away,
        },
        Case {
            name: "reset, then refused",
            faults: Faults { refuse: true, ..answers(broken) },
            fired: |fired| fired.refused,
            then: Then::Away,
        },
    ]
}

/// So many that none of them is ever asked about often enough to be leased to.
const KEYS: usize = 20;

/// An instance, and warm keys whose every request is decided in Redis.
struct Instance {
    app: TestApp,
    keys: Vec<Client>,
    next: AtomicUsize,
}

impl Instance {
    async fn on(redis: String) -> Self {
        let mut settings = UNLIMITED.map(|(name, value)| (name, value.to_owned())).to_vec();
        settings.push(("REDIS_URL", redis));
        let app = TestApp::with(Options { settings, ..Options::default() }).await;
        let user = app.user("ada").await;
        let mut keys = vec![];
        for n in 0..KEYS {
            let fields = json!({ "name": format!("k{n}"), "rate_limit_per_minute": 1_000_000 });
            let (_, key) = app.key(&user, fields).await;
            key.get(HELLO).await.expect(200);
            keys.push(key);
        }
        Self { app, keys, next: AtomicUsize::new(0) }
    }

    fn stats(&self) -> RedisStats {
        self.app.app.redis.as_ref().unwrap().stats()
    }

    async fn request(&self) -> Duration {
        let key = &self.keys[self.next.fetch_add(1, Ordering::Relaxed) % KEYS];
        let start = Instant::now();
        key.get(HELLO).await.expect(200);
        start.elapsed()
    }

    /// Whether Redis decides about each of some requests.
    async fn is_shared(&self) -> bool {
        let before = self.stats();
        for _ in 0..10 {
            self.request().await;
        }
        let after = self.stats();
        after.calls - before.calls >= 10
            && (after.failures, after.skipped) == (before.failures, before.skipped)
    }
}

fn p99(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all[all.len() * 99 / 100]
}

/// The slowest hundredth of some requests, told from what slowed all.
#[derive(Debug)]
struct Compared {
    hurt: Duration,
    /// Of the instance whose Redis is well.
    well: Duration,
    /// How late timers fired: a wait is ended by one.
    timer: Duration,
}

/// Every client asks `hurt` and `well` in turn: whatever else the machine does
/// meanwhile slows both alike, and what is left is due to Redis.
async fn compare(hurt: &Instance, well: &Instance) -> Compared {
    let one = async || {
        let mut all = vec![];
        for _ in 0..REQUESTS {
            let (hurt, well) = (hurt.request().await, well.request().await);
            let start = Instant::now();
            tokio::time::sleep(PAUSE).await;
            all.push((hurt, well, start.elapsed().saturating_sub(PAUSE)));
        }
        all
    };
    let all = join_all((0..CLIENTS).map(|_| one())).await.concat();
    Compared {
        hurt: p99(all.iter().map(|(hurt, ..)| *hurt).collect()),
        well: p99(all.iter().map(|(_, well, _)| *well).collect()),
        timer: p99(all.iter().map(|(.., timer)| *timer).collect()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_network_to_redis_costs_a_request_one_wait_at_the_most() {
    let Some(server) = Server::start() else { return };
    let proxy = Proxy::start(server.address().to_string()).await;
    let hurt = Instance::on(format!("redis://{}/", proxy.address())).await;
    let well = Instance::on(server.url()).await;
    for Case { name, faults, fired, then } in cases() {
        let (hits, before) = (fired(proxy.fired()), hurt.stats());
        proxy.set(faults);
        let p99 = compare(&hurt, &well).await;
        let (after, hits) = (hurt.stats(), fired(proxy.fired()) - hits);
        let failures = after.failures - before.failures;
        println!(
            "{name}: {p99:?}; {hits} hits, {failures} failures, {} skipped, {} connections",
            after.skipped - before.skipped,
            after.connections - before.connections,
        );
        assert!(hits > 0, "{name}: did not happen");
        assert!(p99.hurt <= p99.well + ONE_WAIT + p99.timer, "{name}: {p99:?}");
        if then == Then::Away {
            assert!(after.degraded, "{name}: not given up");
            assert!(failures <= TO_GIVE_UP, "{name}: {failures} calls waited");
            assert_eq!(after.connections, before.connections, "{name}: taken back");
        }

        proxy.set(Faults::default());
        let over = Instant::now();
        regained(hurt.app.app.redis.as_ref().unwrap()).await;
        while !hurt.is_shared().await {
            assert!(over.elapsed() < BACK, "{name}: not back yet");
        }
        println!("{name}: back after {:?}", over.elapsed());
        // One for calls and one for messages: none of those given up is left.
        while proxy.open() > 2 {
            assert!(over.elapsed() < BACK, "{name}: {} connections", proxy.open());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
