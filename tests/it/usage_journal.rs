//! The journal against what may happen to its files, its neighbours and the way
//! to the database.

use std::{
    fs::{self, File},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::TimeDelta;
use sqlx::postgres::PgConnectOptions;
use tempfile::TempDir;
use tollgate::{
    config::{JournalConfig, OnFull, UsageConfig},
    domain::{
        clock::{Clock as _, SystemClock},
        id::{LogPlace, RecordId},
        usage::{Outcome, UsageRecord},
    },
    repositories::{Database, UsageFilter},
    services::usage::{ReportQuery, UsageService},
};

use crate::support::{
    TestDatabase,
    fault::{Faults, Proxy},
};

/// One machine: a folder that processes share, and a database.
struct Machine {
    data: TempDir,
    db: Database,
    database: TestDatabase,
}

impl Machine {
    async fn new() -> Self {
        let database = TestDatabase::fresh().await;
        let db = database.connect().await;
        Self { data: tempfile::tempdir().unwrap(), db, database }
    }

    fn folder(&self) -> PathBuf {
        self.data.path().join("journal")
    }

    /// A process, as far as its usage is concerned; it dies when dropped.
    fn process(&self) -> UsageService {
        self.process_over(self.db.clone())
    }

    fn process_over(&self, db: Database) -> UsageService {
        let journal =
            JournalConfig { folder: self.folder(), max_bytes: 1 << 30, on_full: OnFull::Block };
        let config = UsageConfig { retention_days: 400, request_log_max: 10_000, journal };
        let usage = UsageService::new(db, Arc::new(SystemClock), &config, 4);
        usage.journal().open().unwrap();
        usage
    }

    /// A process that recorded so many requests and died; its folder.
    fn dead(&self, requests: usize) -> PathBuf {
        let usage = self.process();
        record(&usage, requests);
        self.folder().join(usage.journal().id().to_string())
    }

    async fn counted(&self) -> u64 {
        counted(&self.process_of_no_journal()).await
    }

    fn process_of_no_journal(&self) -> UsageService {
        let folder = self.data.path().join("unused");
        let journal = JournalConfig { folder, max_bytes: 1 << 20, on_full: OnFull::Block };
        let config = UsageConfig { retention_days: 400, request_log_max: 10_000, journal };
        UsageService::new(self.db.clone(), Arc::new(SystemClock), &config, 1)
    }
}

fn record(usage: &UsageService, requests: usize) {
    for _ in 0..requests {
        let at = SystemClock.now();
        usage.journal().reserve().unwrap().record(
            UsageRecord {
                id: RecordId::new(at),
                request_id: "r".to_owned(),
                at,
                method: "GET".into(),
                path: "/api/v1/proxy/hello".to_owned(),
                status: 200,
                outcome: Outcome::Completed,
                duration_us: 1000,
                bytes_in: 0,
                bytes_out: 0,
                user_id: None,
                key_id: None,
                pass_id: None,
                upstream: "echo".into(),
                route: "/**".into(),
                is_stream: false,
                messages: 0,
                place: LogPlace::NIL,
            },
            0,
        );
    }
}

async fn counted(usage: &UsageService) -> u64 {
    let now = SystemClock.now();
    let (from, to) = (now - TimeDelta::hours(3), now + TimeDelta::hours(3));
    let filter = UsageFilter { user_id: None, key_id: None, upstream: None, from, to };
    let query = ReportQuery { filter, interval: None, group: None };
    usage.report(&query).await.unwrap().totals.sum.requests
}

/// The files of a journal, the largest last.
fn segments(folder: &PathBuf) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|name| name == "seg")).collect();
    files.sort_by_key(|path| fs::metadata(path).unwrap().len());
    files
}

/// What a long outage gathered is taken in while new usage comes (G-05).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_records_left_behind_are_taken_in_once() {
    const LEFT: usize = 100_000;
    let machine = Machine::new().await;
    machine.dead(LEFT);
    let usage = machine.process();
    let start = Instant::now();
    let (adopted, ()) = tokio::join!(usage.adopt(), async {
        for _ in 0..10 {
            record(&usage, 100);
            // A writer that waits for another's lock may give up; it tries again.
            let _ = usage.flush().await;
        }
    });
    assert_eq!(adopted.unwrap(), LEFT);
    println!("{LEFT} records were taken in within {:?}", start.elapsed());
    usage.flush().await.unwrap();
    assert_eq!(usage.adopt().await.unwrap(), 0);
    assert_eq!(machine.counted().await, LEFT as u64 + 1000);
    assert_eq!(fs::read_dir(machine.folder()).unwrap().count(), 1, "only our own is left");
}

/// Nobody takes the journal of one that lives, and several that look for the
/// dead add each of them once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neighbours_take_only_what_is_dead_and_only_once() {
    let machine = Machine::new().await;
    let processes = [machine.process(), machine.process(), machine.process()];
    for usage in &processes {
        record(usage, 10);
        assert_eq!(usage.adopt().await.unwrap(), 0);
    }
    assert_eq!(machine.counted().await, 0);
    let [a, b, c] = processes;
    drop(c);
    for _ in 0..5 {
        machine.dead(20);
    }
    // One that fails to get a lock in time has added nothing, and tries again.
    for _ in 0..3 {
        let _ = tokio::join!(a.adopt(), b.adopt());
    }
    assert_eq!(machine.counted().await, 110);
    for usage in [&a, &b] {
        usage.flush().await.unwrap();
        usage.journal().close();
    }
    assert_eq!(machine.counted().await, 130);
    assert_eq!(fs::read_dir(machine.folder()).unwrap().count(), 0);
}

/// A folder that cannot be read, and one that cannot be removed, are told of
/// again and again; the others are added, and nothing twice.
#[tokio::test]
async fn a_folder_with_a_fault_holds_up_no_other() {
    let machine = Machine::new().await;
    let unreadable = machine.dead(10);
    fs::remove_file(unreadable.join("lock")).unwrap();
    fs::create_dir(unreadable.join("lock")).unwrap();
    let stubborn = machine.dead(10);
    fs::create_dir(stubborn.join("a folder")).unwrap();
    machine.dead(10);
    let usage = machine.process();
    for _ in 0..3 {
        usage.adopt().await.unwrap_err();
        assert_eq!(machine.counted().await, 20);
    }
    fs::remove_dir(unreadable.join("lock")).unwrap();
    File::create(unreadable.join("lock")).unwrap();
    fs::remove_dir(stubborn.join("a folder")).unwrap();
    assert_eq!(usage.adopt().await.unwrap(), 10);
    assert_eq!(machine.counted().await, 30);
}

/// Files that a fault cut short while they are written to: what they lack is
/// lost and counted, and all that comes is recorded.
#[tokio::test]
async fn a_file_that_lost_its_end_holds_up_nothing() {
    let machine = Machine::new().await;
    let usage = machine.process();
    let folder = machine.folder().join(usage.journal().id().to_string());
    record(&usage, 100);
    let file = segments(&folder).pop().unwrap();
    let length = fs::metadata(&file).unwrap().len();
    File::options().write(true).open(&file).unwrap().set_len(length / 2 - 10).unwrap();
    let flush = || tokio::time::timeout(Duration::from_secs(10), usage.flush());
    let added = flush().await.expect("it ends").unwrap();
    assert_eq!(added, 49);
    assert!(usage.journal().damaged() > length / 2 - 10, "{}", usage.journal().damaged());
    assert!(usage.journal().is_drained());
    record(&usage, 7);
    assert_eq!(flush().await.expect("it ends").unwrap(), 7);
    assert_eq!(machine.counted().await, 56);
}

/// The database has committed, and its answer is lost: what it has is not added
/// again, and nothing is left out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_to_a_commit_adds_nothing_twice() {
    let machine = Machine::new().await;
    let TestDatabase::Postgres { server, name } = &machine.database else { return };
    let options: PgConnectOptions = server.parse().unwrap();
    let address = format!("{}:{}", options.get_host(), options.get_port());
    let proxy = Proxy::start(address.clone()).await;
    let server = server.replace(&address, &proxy.address().to_string());
    let proxied = TestDatabase::Postgres { server, name: name.clone() };
    let usage = machine.process_over(proxied.open().await);
    // The one behind the proxy drops it.
    std::mem::forget(proxied);
    let mut recorded = 0;
    for _ in 0..20 {
        record(&usage, 10);
        recorded += 10;
        proxy.set(Faults { cut_after: Some(b"COMMIT"), ..Faults::default() });
        let cuts = proxy.fired().cuts;
        usage.flush().await.unwrap_err();
        assert!(proxy.fired().cuts > cuts);
        record(&usage, 1);
        recorded += 1;
        proxy.set(Faults::default());
        usage.flush().await.unwrap();
        assert!(usage.journal().is_drained());
        assert_eq!(machine.counted().await, recorded);
    }
}
