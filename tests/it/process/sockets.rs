//! Many sockets at once: what they cost, what ends them, what does not
//! (RELIABILITY G-61, G-66, G-126, G-128).

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use super::{
    LATE, Process, Setup, alone,
    reload::{READ, hang_up},
    streams::{descriptors, memory},
};
use crate::{
    money_races::rounds,
    support::{
        raw::Raw,
        websocket::{Upstream, Wire, ask},
    },
};

const PATH: &str = "/up/ws";
const SOCKETS: usize = 1000;
/// Of memory, for each.
const SHARE: usize = 64 * 1024;

fn settings(upstream: &Upstream, more: &str) -> String {
    let url = upstream.url();
    format!(
        "[[upstreams]]\nname = 'default'\nmount = '/up'\nurl = '{url}'\n{more}\n\
         websocket = {{ per_credential = 100000 }}\n"
    )
}

/// Without limits on how often a key may ask.
async fn setup(upstream: &Upstream) -> Setup {
    let mut setup = Setup::shared().await;
    for tier in ["USER", "KEY"] {
        for window in ["MINUTE", "HOUR"] {
            setup = setup.set(&format!("RATE_LIMIT_{tier}_PER_{window}"), "0");
        }
    }
    setup.write("tollgate.toml", &settings(upstream, ""));
    setup
}

fn address(process: &Process) -> SocketAddr {
    process.base.trim_start_matches("http://").parse().unwrap()
}

async fn open(process: &Process, key: &str) -> Wire {
    Wire::open(address(process), PATH, &format!("X-API-Key: {key}\r\n")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_sockets_are_cheap_survive_reloads_and_end_with_their_own_key() {
    if descriptors() < 3 * SOCKETS {
        eprintln!("skipped: `ulimit -n` allows fewer than {} open files", 3 * SOCKETS);
        return;
    }
    let _alone = alone().await;
    let upstream = Upstream::start().await;
    let setup = setup(&upstream).await;
    let process = setup.serve().await;
    let admin = process.admin().await;
    let ((id, revoked), (_, kept)) = (process.key(&admin).await, process.key(&admin).await);
    // What the first of its kind needs is no socket's.
    open(&process, &kept).await.echoes("first").await;
    upstream.until_open(0).await;

    let before = memory(&process);
    let (mut ending, mut staying) = (vec![], vec![]);
    for _ in 0..SOCKETS / 2 {
        for (key, open_ones) in [(&revoked, &mut ending), (&kept, &mut staying)] {
            let mut wire = open(&process, key).await;
            wire.echoes("hello").await;
            open_ones.push(wire);
        }
    }
    assert_eq!(upstream.open(), SOCKETS);
    let each = memory(&process).saturating_sub(before) / SOCKETS;
    println!("{each} bytes for each of {SOCKETS} sockets");
    assert!(each <= SHARE, "{each} bytes for each socket");

    for round in 0..20 {
        // Every other one changes something.
        setup.write("tollgate.toml", &settings(&upstream, &format!("max_pending = {}", round / 2)));
        hang_up(&process, READ).await;
    }
    assert_eq!(upstream.open(), SOCKETS);

    admin.delete(&format!("/api/v1/keys/{id}")).await.expect(204);
    let deleted = Instant::now();
    let mut ended = JoinSet::new();
    for mut wire in ending {
        ended.spawn(async move { (wire.closed().await, deleted.elapsed()) });
    }
    let ended = ended.join_all().await;
    let last = ended.iter().map(|(_, after)| *after).max().unwrap();
    println!("the last of {} had ended after {last:?}", ended.len());
    assert!(ended.iter().all(|(told, _)| *told == (1008, "revoked".to_owned())));
    // The machine may be late, which the test itself keeps busy.
    assert!(last < Duration::from_secs(1) + LATE, "{last:?}");
    upstream.until_open(SOCKETS / 2).await;
    for wire in &mut staying {
        wire.echoes("still").await;
    }
    drop(staying);
    upstream.until_open(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_are_told_and_recorded_when_the_process_stops() {
    const COUNT: usize = 100;
    let _alone = alone().await;
    let upstream = Upstream::start().await;
    let setup = setup(&upstream).await;
    let mut process = setup.serve().await;
    let (_, key) = process.key(&process.admin().await).await;
    let mut wires = vec![];
    for _ in 0..COUNT {
        let mut wire = open(&process, &key).await;
        wire.echoes("hello").await;
        wires.push(wire);
    }
    process.signal("-TERM");
    let signalled = Instant::now();
    // No client answers the close.
    for wire in &mut wires {
        assert_eq!(wire.closed().await, (1001, "going_away".to_owned()));
    }
    assert!(signalled.elapsed() < Duration::from_secs(1) + LATE, "{:?}", signalled.elapsed());
    let status = process.ended(Duration::from_secs(5)).await;
    println!("it ended after {:?}", signalled.elapsed());
    assert_eq!(status.code(), Some(0), "{process:?}");
    assert!(signalled.elapsed() < Duration::from_secs(4) + LATE, "{:?}", signalled.elapsed());
    assert_eq!(process.logged("stopped").unwrap()["drained"], true);
    assert_eq!(upstream.closes(), vec![1001; COUNT]);
    let process = setup.serve().await;
    let admin = process.admin().await;
    let log = admin.get("/api/v1/usage/requests?all=true&limit=200").await.expect(200);
    let items = log.json["items"].as_array().unwrap();
    assert_eq!(items.len(), COUNT);
    assert!(items.iter().all(|item| item["outcome"] == "cut" && item["bytes_in"] == 11));
    let usage = admin.get("/api/v1/usage/all").await.expect(200);
    assert_eq!(usage.json["totals"]["requests"], 2 * COUNT);
}

fn open_files(process: &Process) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", process.child.id())).unwrap().count()
}

/// `TOLLGATE_RACE_ROUNDS` sets how often.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_vanish_around_the_101_leave_nothing_open() {
    let _alone = alone().await;
    let upstream = Upstream::start().await;
    let setup = setup(&upstream).await;
    let process = setup.serve().await;
    let (_, key) = process.key(&process.admin().await).await;
    let request = ask(PATH, &format!("X-API-Key: {key}\r\n"));
    for _ in 0..20 {
        open(&process, &key).await.echoes("hello").await;
    }
    upstream.until_open(0).await;
    let before = open_files(&process);
    for round in 0..rounds(500) {
        if round % 3 == 0 {
            // Before it could be told, or just then.
            let mut raw = Raw::connect(address(&process)).await;
            raw.send(&request).await;
            if round % 2 == 0 {
                tokio::time::sleep(Duration::from_micros(round as u64 % 1500)).await;
            }
            raw.reset();
        } else {
            let asked = Wire::ask(address(&process), &request).await;
            assert_eq!(asked.status, 101);
            asked.wire.reset();
        }
    }
    let start = Instant::now();
    // A few for what the process does beside.
    process
        .until("closed", Duration::from_secs(5), async || open_files(&process) <= before + 2)
        .await;
    println!("{} files were open, {} after {:?}", before, open_files(&process), start.elapsed());
    upstream.until_open(0).await;
    open(&process, &key).await.echoes("hello").await;
}
