//! A process that may open only so many files (RELIABILITY G-47).

use std::{process::Command, time::Duration};

use tokio::{
    net::TcpStream,
    time::{Instant, sleep},
};

use super::{super::PROGRAM, Process, Setup, address, alone};

/// CPU time of the process so far.
fn worked(process: &Process) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.child.id())).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks = |at: usize| fields.split(' ').nth(at).unwrap().parse::<u64>().unwrap();
    // Hundredths of a second on every Linux.
    Duration::from_millis(10 * (ticks(11) + ticks(12)))
}

#[tokio::test]
async fn without_file_descriptors_it_waits_and_goes_on_when_there_are_some() {
    const SPAN: Duration = Duration::from_secs(3);
    let _alone = alone().await;
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 256 && exec \"$0\" serve", PROGRAM]);
    let process = Setup::sqlite().listen_by(&mut command).await;
    process.ready(super::super::PATIENCE).await;
    let address = address(&process);
    let mut held = vec![];
    for _ in 0..300 {
        held.push(TcpStream::connect(address).await.unwrap());
    }
    process
        .until("limited", SPAN, async || process.logged("cannot accept connections").is_some())
        .await;
    let before = worked(&process);
    sleep(SPAN).await;
    let worked = worked(&process).saturating_sub(before);
    let told = process.log().iter().filter(|line| line["level"] == "ERROR").count();
    println!("{worked:?} of CPU in {SPAN:?}, {told} errors");
    assert!(worked * 5 < SPAN, "{worked:?} in {SPAN:?}");
    assert!(told < 200, "{told} errors");
    drop(held);
    let start = Instant::now();
    let alive = async || process.status("/health/live").await == Some(200);
    process.until("well again", Duration::from_secs(2), alive).await;
    println!("well again after {:?}", start.elapsed());
}
