//! kill -9 under metered load (RELIABILITY G-01, G-03, G-06).

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use serde_json::Value;
use tokio::task::JoinSet;
use tollgate::failpoint;

use super::{PATIENCE, Process, Setup, alone};
use crate::{money_races::rounds, streams::FREE, support::Client};

/// Requests that each round confirms, at least, before the kill.
const EACH: usize = 150;

/// Without any limit, and with a log that holds every request.
async fn setup() -> Setup {
    let setup = Setup::shared().await.set("USAGE_REQUEST_LOG_MAX", "1000000");
    FREE.iter().fold(setup, |setup, (name, value)| setup.set(name, value))
}

fn journals(setup: &Setup) -> Vec<PathBuf> {
    let folder = setup.path().join("data/journal");
    let Ok(entries) = fs::read_dir(folder) else { return vec![] };
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// Until what the processes before this one left is in the database.
async fn adopted(process: &Process, setup: &Setup) {
    process.until("adopted", PATIENCE, async || journals(setup).len() == 1).await;
}

/// How often each path is in the log of requests.
async fn logged(admin: &Client) -> BTreeMap<String, usize> {
    let mut paths = BTreeMap::new();
    let mut url = "/api/v1/usage/requests?all=true&limit=200".to_owned();
    loop {
        let page = admin.get(&url).await.expect(200);
        for item in page.json["items"].as_array().unwrap() {
            *paths.entry(item["path"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        let Value::String(cursor) = &page.json["next_cursor"] else { return paths };
        url = format!("/api/v1/usage/requests?all=true&limit=200&cursor={cursor}");
    }
}

async fn counted(admin: &Client) -> usize {
    let all = admin.get("/api/v1/usage/all").await.expect(200);
    usize::try_from(all.json["totals"]["requests"].as_u64().unwrap()).unwrap()
}

/// `TOLLGATE_RACE_ROUNDS` sets how often it is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_is_counted_once_wherever_it_is_killed() {
    let _alone = alone().await;
    let setup = setup().await;
    let answered: Arc<Mutex<Vec<String>>> = Arc::default();
    let mut key = None;
    for round in 0..rounds(5) {
        let mut process = setup.serve().await;
        if key.is_none() {
            key = Some(process.key(&process.admin().await).await.1);
        }
        let key = key.clone().unwrap();
        let dead = Arc::new(AtomicBool::new(false));
        let before = answered.lock().unwrap().len();
        let mut clients = JoinSet::new();
        for client in 0..8 {
            let (answered, dead) = (answered.clone(), dead.clone());
            let caller = process.client().with_key(&key);
            clients.spawn(async move {
                for number in 0.. {
                    let path = format!("/api/v1/proxy/{round}-{client}-{number}");
                    // Its kill breaks what is under way.
                    match caller.try_get(&path).await {
                        Some(answer) => {
                            assert_eq!(answer.status, 200, "{answer:?}");
                            answered.lock().unwrap().push(path);
                        }
                        None if dead.load(SeqCst) => return,
                        None => tokio::time::sleep(Duration::from_millis(5)).await,
                    }
                }
            });
        }
        let enough = async || answered.lock().unwrap().len() >= before + EACH;
        process.until("asked", PATIENCE, enough).await;
        process.kill();
        dead.store(true, SeqCst);
        clients.join_all().await;
    }
    let process = setup.serve().await;
    adopted(&process, &setup).await;
    let admin = process.admin().await;
    let logged = logged(&admin).await;
    let answered = std::mem::take(&mut *answered.lock().unwrap());
    println!("{} requests were answered, {} are recorded", answered.len(), logged.len());
    let lost: Vec<_> = answered.iter().filter(|path| !logged.contains_key(*path)).collect();
    assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), answered.len());
    let doubled: Vec<_> = logged.iter().filter(|(_, times)| **times != 1).collect();
    assert!(doubled.is_empty(), "{doubled:?}");
    assert_eq!(counted(&admin).await, logged.len());
}

/// An end in order, in the middle of the load: what was answered is in the
/// database before the process is gone, and no folder is left (RELIABILITY G-61).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_before_a_stop_is_counted_by_it() {
    let _alone = alone().await;
    let setup = setup().await;
    let (mut answered, mut key) = (0, None);
    for _ in 0..rounds(3) {
        let mut process = setup.serve().await;
        if key.is_none() {
            key = Some(process.key(&process.admin().await).await.1);
        }
        let count = Arc::new(AtomicUsize::new(0));
        let mut clients = JoinSet::new();
        for _ in 0..8 {
            let (caller, count) = (process.client().with_key(key.as_ref().unwrap()), count.clone());
            clients.spawn(async move {
                // Until the port is closed.
                while let Some(answer) = caller.try_get("/api/v1/proxy/hello").await {
                    assert_eq!(answer.status, 200, "{answer:?}");
                    count.fetch_add(1, SeqCst);
                }
            });
        }
        process.until("asked", PATIENCE, async || count.load(SeqCst) >= EACH).await;
        process.signal("-TERM");
        assert_eq!(process.ended(PATIENCE).await.code(), Some(0), "{process:?}");
        clients.join_all().await;
        assert_eq!(journals(&setup), Vec::<PathBuf>::new());
        answered += count.load(SeqCst);
    }
    let process = setup.serve().await;
    assert_eq!(counted(&process.admin().await).await, answered);
}

async fn asks(process: &Process, key: &str, times: usize) {
    let caller = process.client().with_key(key);
    for _ in 0..times {
        caller.get("/api/v1/proxy/hello").await.expect(200);
    }
}

#[tokio::test]
async fn a_kill_at_any_point_of_the_drain_adds_nothing_twice() {
    let _alone = alone().await;
    let setup = setup().await;
    let mut process = setup.serve().await;
    let key = process.key(&process.admin().await).await.1;
    let mut expected = 0;
    for point in failpoint::USAGE {
        process.kill();
        let stopping = setup.clone().set("TOLLGATE_FAILPOINT", point);
        process = stopping.listen().await;
        let here = format!("failpoint {point}");
        let reached = async || process.stderr.so_far().contains(&here);
        if *point == "usage.adopted" {
            // Its own usage is drained beside what it found.
            process.until("at the point", PATIENCE, reached).await;
            continue;
        }
        process.ready(PATIENCE).await;
        asks(&process, &key, 20).await;
        expected += 20;
        process.until("at the point", PATIENCE, reached).await;
    }
    process.kill();
    let process = setup.serve().await;
    adopted(&process, &setup).await;
    assert_eq!(counted(&process.admin().await).await, expected);
}

/// What a bad disk did to one record is lost, told and counted; the others are
/// not.
#[tokio::test]
async fn only_what_is_damaged_is_lost() {
    let _alone = alone().await;
    let setup = setup().await;
    let stopping = setup.clone().set("TOLLGATE_FAILPOINT", "usage.begun");
    let mut process = stopping.serve().await;
    let key = process.key(&process.admin().await).await.1;
    asks(&process, &key, 20).await;
    process.kill();
    let [folder] = &journals(&setup)[..] else { panic!("{:?}", journals(&setup)) };
    let segments = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut segments: Vec<_> =
        segments.filter(|path| path.extension().is_some_and(|name| name == "seg")).collect();
    segments.sort_by_key(|path| fs::metadata(path).unwrap().len());
    let largest = segments.last().unwrap();
    let mut bytes = fs::read(largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    // And the end of another record, cut off by the kill.
    bytes.extend_from_slice(&[0x7a, 0xe1, 200, 0, 1, 2, 3]);
    fs::write(largest, bytes).unwrap();

    let process = setup.serve().await;
    adopted(&process, &setup).await;
    assert_eq!(counted(&process.admin().await).await, 19);
    assert!(process.logged("a part of the journal of usage was damaged and is lost").is_some());
    let metrics = process.client().get("/metrics").await.expect(200);
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    let line = text.lines().find(|line| line.starts_with("tollgate_journal_damaged_bytes_total"));
    let damaged: u64 = line.unwrap().rsplit(' ').next().unwrap().parse().unwrap();
    assert!((100..400).contains(&damaged), "{damaged}");
}

/// Another machine's journal is added by hand, once.
#[tokio::test]
async fn a_copy_of_a_journal_is_added_by_the_command_once() {
    let _alone = alone().await;
    let setup = setup().await;
    let stopping = setup.clone().set("TOLLGATE_FAILPOINT", "usage.begun");
    let mut process = stopping.serve().await;
    let key = process.key(&process.admin().await).await.1;
    asks(&process, &key, 20).await;
    let [folder] = &journals(&setup)[..] else { panic!("{:?}", journals(&setup)) };
    let name = folder.to_str().unwrap();
    let held = setup.run(&["usage", "drain", name], "").await.expect(1);
    assert!(held.stderr.contains("its process still runs"), "{held:?}");
    process.kill();
    let drain = ["usage", "drain", name, "--output", "json"];
    assert_eq!(setup.run(&drain, "").await.expect(0).json()[0]["records"], 20);
    assert_eq!(setup.run(&drain, "").await.expect(0).json()[0]["records"], 0);
    let process = setup.serve().await;
    adopted(&process, &setup).await;
    assert_eq!(counted(&process.admin().await).await, 20);
}
