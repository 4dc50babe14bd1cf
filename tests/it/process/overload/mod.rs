//! Far more than can be served, for long, from clients that do not wait for
//! answers (RELIABILITY G-41, G-42, G-46), and a process that may open few files
//! (G-47).
//!
//! `TOLLGATE_TORTURE` attacks for two minutes each and holds the program to the
//! figures of the release build; without it the bounds are those of an
//! unoptimised one on a machine that does other things too.

mod files;
mod load;
mod memory;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use self::load::{Load, Report};
use super::{Process, Setup, alone, attempt, upstream::Slow};
use crate::support::LATE;

const RECOVERY: Duration = Duration::from_secs(10);

/// What must hold.
struct Bounds {
    span: Duration,
    /// Of what is served at most without overload, per cent.
    goodput: u32,
    /// How many times as long as on an idle machine an answer may take.
    slower: u32,
    refusals: Duration,
    probes: Duration,
}

fn bounds() -> Bounds {
    let strict = std::env::var_os("TOLLGATE_TORTURE").is_some();
    let late = if strict { Duration::ZERO } else { LATE };
    Bounds {
        span: Duration::from_secs(if strict { 120 } else { 4 }),
        goodput: if strict { 80 } else { 40 },
        slower: if strict { 5 } else { 10 },
        refusals: Duration::from_millis(50) + late,
        probes: Duration::from_millis(500) + late,
    }
}

fn address(process: &Process) -> SocketAddr {
    process.base.strip_prefix("http://").unwrap().parse().unwrap()
}

/// Resident memory, KiB.
fn memory(process: &Process) -> u64 {
    let status = format!("/proc/{}/status", process.child.id());
    let status = std::fs::read_to_string(status).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// The sum of these counters.
async fn refused(process: &Process, reason: &str) -> u64 {
    let url = format!("{}/metrics", process.base);
    let metrics = attempt("GET", &url, &[], "").await.expect("an answer");
    let label = format!("reason=\"{reason}\"");
    let text = String::from_utf8(metrics.body.to_vec()).unwrap();
    let lines = text.lines().filter(|line| line.starts_with("tollgate_refused_total"));
    let values = lines.filter(|line| line.contains(&label));
    values.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

/// Asks for this again and again, each time on a connection of its own, until it
/// is dropped: how long each took, or `None` where there was no good answer.
struct Probing {
    taken: Arc<Mutex<Vec<Option<Duration>>>>,
    _asking: AbortOnDropHandle<()>,
}

impl Probing {
    fn start(process: &Process, path: &str) -> Self {
        let (url, taken) = (format!("{}{path}", process.base), Arc::<Mutex<Vec<_>>>::default());
        let into = taken.clone();
        let asking = tokio::spawn(async move {
            loop {
                let start = Instant::now();
                let answer = attempt("GET", &url, &[], "").await;
                let good = answer.is_some_and(|answer| answer.status == 200);
                into.lock().unwrap().push(good.then(|| start.elapsed()));
                sleep(Duration::from_millis(100)).await;
            }
        });
        Self { taken, _asking: AbortOnDropHandle::new(asking) }
    }

    #[track_caller]
    fn assert_within(self, limit: Duration) {
        let taken = self.taken.lock().unwrap();
        println!("probes: {}, longest {:?}", taken.len(), taken.iter().max());
        let good = |taken: &Option<Duration>| taken.is_some_and(|taken| taken <= limit);
        assert!(!taken.is_empty() && taken.iter().all(good), "{taken:?}");
    }
}

async fn gateway(upstream: &str, settings: &[(&str, &str)]) -> Process {
    let setup = Setup::sqlite()
        .set("SERVER_WORKERS", "1")
        .set("LOG_LEVEL", "warn,tollgate::cli=info")
        .set("UPSTREAM_URL", upstream)
        .set("UPSTREAM_MOUNT", "/")
        .set("UPSTREAM_AUTH", "public");
    settings.iter().fold(setup, |setup, (name, value)| setup.set(name, value)).serve().await
}

/// What both kinds of overload must not do; `most` is what is served per second
/// at best, `calm` what an idle gateway shows.
async fn attack(process: &Process, load: Load, most: f64, calm: &Report) -> Report {
    let bounds = bounds();
    // At work, since a pool of connections is no growth.
    let before = memory(process);
    let probes = ["/health/live", "/metrics"].map(|path| Probing::start(process, path));
    let report = load.run(bounds.span).await;
    let after = memory(process);
    println!("{report}; {before} KiB before, {after} KiB after");
    for probing in probes {
        probing.assert_within(bounds.probes);
    }
    assert!(after <= 2 * before + 32 * 1024, "{before} KiB before, {after} KiB after");
    let goodput = report.served_per_second();
    assert!(goodput * 100.0 >= most * f64::from(bounds.goodput), "{goodput} of {most}");
    assert!(report.refused() > 0);
    // The figures of an idle gateway again, soon.
    let over = Instant::now();
    loop {
        let again = load.at(load.rate / 50.0).run(Duration::from_secs(1)).await;
        println!("{:?} afterwards: {again}", over.elapsed());
        let whole = (again.refused(), again.broken) == (0, 0);
        if whole && again.served(99) <= calm.served(99) * bounds.slower {
            return report;
        }
        assert!(over.elapsed() < RECOVERY + 2 * LATE, "{again}");
    }
}

/// The upstream is what cannot do more: whoever does not fit is told at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_times_of_what_the_upstream_can_do() {
    const AT_ONCE: u32 = 32;
    const TAKES: Duration = Duration::from_millis(100);
    let _alone = alone().await;
    let bounds = bounds();
    let slow = Slow::start(TAKES).await;
    let at_once = AT_ONCE.to_string();
    let process = gateway(&slow.url(), &[("SERVER_MAX_IN_FLIGHT", &at_once)]).await;
    let most = f64::from(AT_ONCE) / TAKES.as_secs_f64();
    let load = Load { address: address(&process), rate: most * 10.0, connections: 400 };
    let calm = load.at(most / 2.0).run(Duration::from_secs(2)).await;
    println!("calm: {calm}");
    assert_eq!((calm.refused(), calm.broken), (0, 0));
    let report = attack(&process, load, most, &calm).await;
    assert_eq!(report.broken, 0);
    let (idle, busy) = (calm.served(99), report.served(99));
    assert!(busy <= idle * bounds.slower, "{idle:?} became {busy:?}");
    assert!(report.turned_away(99) <= bounds.refusals, "{:?}", report.turned_away(99));
    assert!(refused(&process, "in_flight").await > 0);
}

/// The gateway itself is: it does what it can, and leaves the rest where it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_times_of_what_a_worker_can_do() {
    let _alone = alone().await;
    let upstream = Slow::start(Duration::ZERO).await;
    // An unoptimised one is slow enough to be overloaded from here.
    let process = gateway(&upstream.url(), &[("SERVER_MAX_LAG_SECONDS", "0.05")]).await;
    let load = Load { address: address(&process), rate: 50.0, connections: 1500 };
    let calm = load.run(Duration::from_secs(2)).await;
    println!("calm: {calm}");
    // As many as it is given, one after the other on few connections.
    let full = Load { rate: 1e6, connections: 32, ..load };
    let most = full.run(Duration::from_secs(3)).await.served_per_second();
    println!("at most {most:.0} per second");
    attack(&process, load.at(most * 10.0), most, &calm).await;
    assert!(refused(&process, "lag").await > 0);
}
