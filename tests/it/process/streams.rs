//! Many streams at once, and how they end with the process (RELIABILITY G-61,
//! G-126).

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::{LATE, Process, Setup, alone};
use crate::support::raw::{Answer, Raw};

const HELLO: &str = "data: hello\n\n";
const STREAMS: usize = 1000;
/// Of memory, for each.
const SHARE: usize = 64 * 1024;

/// Begins a stream in answer to every request, and leaves it open; ends those
/// under `/download` after a while.
async fn source() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let open = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&open);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                count.fetch_add(1, SeqCst);
                let _ = stream(socket).await;
                count.fetch_sub(1, SeqCst);
            });
        }
    });
    (url, open)
}

async fn stream(mut socket: TcpStream) -> std::io::Result<()> {
    let mut request = vec![];
    while !request.ends_with(b"\r\n\r\n") {
        if socket.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let download = String::from_utf8_lossy(&request).contains("/download");
    let kind = if download { "text/plain" } else { "text/event-stream" };
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked");
    let body = format!("{:x}\r\n{HELLO}\r\n", HELLO.len());
    socket.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await?;
    if download {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        return socket.write_all(b"3\r\nend\r\n0\r\n\r\n").await;
    }
    socket.read_to_end(&mut request).await.map(drop)
}

async fn begin(process: &Process, path: &str, key: &str) -> Raw {
    let address: SocketAddr = process.base.trim_start_matches("http://").parse().unwrap();
    let mut raw = Raw::connect(address).await;
    let path = format!("/api/v1/proxy{path}");
    raw.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\n\r\n")).await;
    raw.until(HELLO.as_bytes()).await;
    raw
}

fn told(code: &str) -> String {
    format!("{HELLO}event: tollgate.end\ndata: {{\"code\":\"{code}\"}}\n\n")
}

/// Bytes of the process that are in memory.
pub fn memory(process: &Process) -> usize {
    let path = format!("/proc/{}/status", process.child.id());
    let status = std::fs::read_to_string(path).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// Most files that a process here may have open.
pub fn descriptors() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap_or(usize::MAX)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_streams_are_cheap_and_a_revocation_ends_its_own() {
    if descriptors() < 3 * STREAMS {
        eprintln!("skipped: `ulimit -n` allows fewer than {} open files", 3 * STREAMS);
        return;
    }
    let _alone = alone().await;
    let (url, open) = source().await;
    let mut setup = Setup::shared().await.set("UPSTREAM_URL", &url);
    for tier in ["USER", "KEY"] {
        for window in ["MINUTE", "HOUR"] {
            setup = setup.set(&format!("RATE_LIMIT_{tier}_PER_{window}"), "0");
        }
    }
    let process = setup.serve().await;
    let admin = process.admin().await;
    let ((id, revoked), (_, kept)) = (process.key(&admin).await, process.key(&admin).await);
    // What the first of its kind needs is no stream's.
    drop(begin(&process, "/events", &kept).await);
    process.until("closed", super::PATIENCE, async || open.load(SeqCst) == 0).await;

    let before = memory(&process);
    let (mut ending, mut staying) = (vec![], vec![]);
    for _ in 0..STREAMS / 2 {
        ending.push(begin(&process, "/events", &revoked).await);
        staying.push(begin(&process, "/events", &kept).await);
    }
    assert_eq!(open.load(SeqCst), STREAMS);
    let each = memory(&process).saturating_sub(before) / STREAMS;
    println!("{each} bytes for each of {STREAMS} streams");
    assert!(each <= SHARE, "{each} bytes for each stream");

    admin.delete(&format!("/api/v1/keys/{id}")).await.expect(204);
    let deleted = Instant::now();
    let mut ended = JoinSet::new();
    for mut raw in ending {
        ended.spawn(async move { (raw.answer().await.unwrap(), deleted.elapsed()) });
    }
    let ended: Vec<(Answer, Duration)> = ended.join_all().await;
    let last = ended.iter().map(|(_, after)| *after).max().unwrap();
    println!("the last of {} had ended after {last:?}", ended.len());
    assert!(ended.iter().all(|(answer, _)| answer.complete && answer.text() == told("revoked")));
    // The machine may be late, which the test itself keeps busy.
    assert!(last < Duration::from_secs(1) + LATE, "{last:?}");
    let half = async || open.load(SeqCst) == STREAMS / 2;
    process.until("closed upstream", Duration::from_secs(2), half).await;
    drop(staying);
    process.until("closed", Duration::from_secs(5), async || open.load(SeqCst) == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn event_streams_are_told_and_downloads_finished_when_the_process_stops() {
    let _alone = alone().await;
    let (url, _) = source().await;
    let setup = Setup::shared().await.set("UPSTREAM_URL", &url);
    let mut process = setup.serve().await;
    let (_, key) = process.key(&process.admin().await).await;
    let mut events = vec![];
    for _ in 0..20 {
        events.push(begin(&process, "/events", &key).await);
    }
    let mut download = begin(&process, "/download", &key).await;
    process.signal("-TERM");
    let told_at = Instant::now();
    for mut raw in events {
        let answer = raw.answer().await.unwrap();
        assert_eq!((answer.text(), answer.complete), (&*told("going_away"), true));
    }
    assert!(told_at.elapsed() < Duration::from_secs(1) + LATE, "{:?}", told_at.elapsed());
    let answer = download.answer().await.unwrap();
    assert_eq!((answer.text(), answer.complete), (&*format!("{HELLO}end"), true));
    let status = process.ended(Duration::from_secs(3)).await;
    assert_eq!(status.code(), Some(0), "{process:?}");
    assert_eq!(process.logged("stopped").unwrap()["drained"], true);
    // The usage of those that were cut is there, too.
    let process = setup.serve().await;
    let log = process.admin().await.get("/api/v1/usage/requests?all=true").await.expect(200);
    let items = log.json["items"].as_array().unwrap();
    let of = |outcome: &str| items.iter().filter(|item| item["outcome"] == outcome).count();
    assert_eq!((of("cut"), of("completed"), items.len()), (20, 1, 21), "{items:?}");
    assert!(items.iter().all(|item| item["bytes_out"] != json!(0)), "{items:?}");
}
