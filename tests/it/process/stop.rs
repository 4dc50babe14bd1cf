//! How it ends (RELIABILITY G-61).

use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::{net::TcpStream, task::JoinSet};

use super::{Process, Setup, alone, attempt, upstream::Slow};

const IN_FLIGHT: usize = 40;

/// Sends requests and waits until the upstream has them all.
async fn under_way(
    process: &Process,
    slow: &Slow,
    key: &str,
    count: usize,
) -> JoinSet<Option<StatusCode>> {
    let before = slow.seen();
    let mut requests = JoinSet::new();
    for _ in 0..count {
        let (url, key) = (format!("{}/api/v1/proxy/slow", process.base), key.to_owned());
        requests.spawn(async move {
            let answer = attempt("GET", &url, &[("x-api-key", &key)], "").await;
            answer.map(|answer| answer.status)
        });
    }
    process.until("sent", super::PATIENCE, async || slow.seen() == before + count).await;
    requests
}

async fn accepts(process: &Process) -> bool {
    TcpStream::connect(process.base.trim_start_matches("http://")).await.is_ok()
}

/// What a second start finds of the requests of the first.
async fn recorded(setup: &Setup) -> serde_json::Value {
    let process = setup.serve().await;
    let usage = process.admin().await.get("/api/v1/usage/all").await.expect(200);
    usage.json["totals"].clone()
}

#[tokio::test]
async fn what_is_under_way_is_finished_and_its_usage_is_kept() {
    let _alone = alone().await;
    let slow = Slow::start(Duration::from_millis(1200)).await;
    let setup = Setup::shared().await.set("UPSTREAM_URL", &slow.url());
    let mut process = setup.serve().await;
    let (_, key) = process.key(&process.admin().await).await;
    let requests = under_way(&process, &slow, &key, IN_FLIGHT).await;

    process.signal("-TERM");
    process.until("closed", Duration::from_secs(1), async || !accepts(&process).await).await;
    let status = process.ended(Duration::from_secs(5)).await;
    let answers = requests.join_all().await;
    assert_eq!(answers, [Some(StatusCode::OK); IN_FLIGHT]);
    assert_eq!(status.code(), Some(0), "{process:?}");
    assert_eq!(process.logged("stopped").unwrap()["drained"], true);
    let totals = recorded(&setup).await;
    assert_eq!(totals["requests"], IN_FLIGHT);
    assert_eq!(totals["succeeded"], IN_FLIGHT);
}

#[tokio::test]
async fn what_takes_longer_than_the_grace_is_cut_and_counted() {
    let _alone = alone().await;
    let slow = Slow::start(Duration::from_mins(1)).await;
    let setup = Setup::shared()
        .await
        .set("UPSTREAM_URL", &slow.url())
        .set("SERVER_SHUTDOWN_GRACE_SECONDS", "1");
    let mut process = setup.serve().await;
    let (_, key) = process.key(&process.admin().await).await;
    let requests = under_way(&process, &slow, &key, 3).await;
    let start = Instant::now();
    process.stop(Duration::from_secs(2)).await;
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(requests.join_all().await, [None; 3], "cut, not answered");
    assert_eq!(process.logged("stopped").unwrap()["drained"], false);
    assert_eq!(recorded(&setup).await["requests"], 3);
}

#[tokio::test]
async fn a_second_signal_cuts_at_once() {
    let _alone = alone().await;
    let slow = Slow::start(Duration::from_mins(1)).await;
    let setup = Setup::shared()
        .await
        .set("UPSTREAM_URL", &slow.url())
        .set("SERVER_SHUTDOWN_GRACE_SECONDS", "60");
    let mut process = setup.serve().await;
    let (_, key) = process.key(&process.admin().await).await;
    let requests = under_way(&process, &slow, &key, 3).await;
    process.signal("-TERM");
    process.until("closed", Duration::from_secs(2), async || !accepts(&process).await).await;
    process.stop(Duration::from_secs(2)).await;
    assert_eq!(requests.join_all().await, [None; 3]);
    assert_eq!(recorded(&setup).await["requests"], 3);
}

/// So that a balancer, which asks every few seconds, sends nothing more.
#[tokio::test]
async fn it_is_not_ready_for_a_while_before_the_port_closes() {
    let setup = Setup::shared().await.set("SERVER_SHUTDOWN_DELAY_SECONDS", "5");
    let mut process = setup.serve().await;
    let (_, key) = process.key(&process.admin().await).await;
    let keyed = process.client().with_key(&key);
    let start = Instant::now();
    process.signal("-TERM");
    let draining = async || process.status("/health/ready").await == Some(503);
    process.until("draining", Duration::from_secs(1), draining).await;
    assert_eq!(process.status("/health/live").await, Some(200));
    keyed.get("/api/v1/proxy/x").await.expect(200);
    process.admin().await;
    let status = process.ended(Duration::from_secs(8)).await;
    assert_eq!(status.code(), Some(0));
    assert!(start.elapsed() >= Duration::from_secs(5), "{:?}", start.elapsed());
}
