//! The disk of the journal is full (RELIABILITY G-54).

use std::{fs, io::Write as _, path::PathBuf, process::Command, time::Duration};

use super::{PATIENCE, Process, Setup, alone};
use crate::support::Client;

/// A file system of its own, taken away with the test.
struct Disk(PathBuf);

impl Disk {
    /// `None`, with a note, where the test may not mount one.
    fn mount(at: PathBuf) -> Option<Self> {
        fs::create_dir_all(&at).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=12m,mode=700", "tmpfs"])
            .arg(&at)
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(at));
        }
        eprintln!("skipped: no right to mount a file system");
        None
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// To the last byte.
    fn fill(&self) {
        let mut file = fs::File::options().create(true).append(true).open(self.filler()).unwrap();
        for size in [64 * 1024, 4096, 1] {
            while file.write_all(&vec![1; size]).is_ok() {}
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

async fn counted(admin: &Client) -> u64 {
    let all = admin.get("/api/v1/usage/all").await.expect(200);
    all.json["totals"]["requests"].as_u64().unwrap()
}

async fn metric(process: &Process, name: &str) -> f64 {
    let metrics = process.client().get("/metrics").await.expect(200);
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// Asks until the answer has this status, which a drain and a look at the disk
/// may precede; how often it was 200 before.
async fn until_status(caller: &Client, status: u16) -> u64 {
    let start = std::time::Instant::now();
    let mut served = 0;
    loop {
        let answer = caller.get("/api/v1/proxy/hello").await;
        if answer.status == status {
            return served + u64::from(status == 200);
        }
        served += u64::from(answer.status == 200);
        assert!(start.elapsed() < Duration::from_secs(5), "{answer:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn with_a_full_disk_nothing_is_served_that_is_not_recorded() {
    let _alone = alone().await;
    let setup = Setup::shared().await.set("RATE_LIMIT_KEY_PER_MINUTE", "0");
    let setup = setup.set("RATE_LIMIT_USER_PER_MINUTE", "0").set("RATE_LIMIT_KEY_PER_HOUR", "0");
    let setup = setup.set("RATE_LIMIT_USER_PER_HOUR", "0");
    let Some(disk) = Disk::mount(setup.path().join("data/journal")) else { return };
    let mut process = setup.serve().await;
    let admin = process.admin().await;
    let key = process.key(&admin).await.1;
    let caller = process.client().with_key(&key);
    let mut served = until_status(&caller, 200).await;
    for _ in 0..2 {
        disk.fill();
        // What is under way still finds room; then it is refused.
        served += until_status(&caller, 503).await;
        let refused = caller.get("/api/v1/proxy/hello").await.expect_problem(503, "overloaded");
        assert_eq!(refused.header("retry-after"), "1");
        assert!(metric(&process, "tollgate_journal_full").await > 0.5);
        // Routes of our own go on.
        admin.get("/api/v1/users/me").await.expect(200);
        disk.fill();
        tokio::time::sleep(Duration::from_millis(1200)).await;
        caller.get("/api/v1/proxy/hello").await.expect_problem(503, "overloaded");
        fs::remove_file(disk.filler()).unwrap();
        served += until_status(&caller, 200).await;
    }
    assert!(metric(&process, "tollgate_usage_dropped_total").await < 0.5);
    process.kill();
    let process = setup.serve().await;
    let admin = process.admin().await;
    let all = async || counted(&admin).await == served;
    process.until("counted", PATIENCE, all).await;
}

#[tokio::test]
async fn with_a_full_disk_an_operator_may_want_all_served() {
    let _alone = alone().await;
    let setup = Setup::shared().await.set("USAGE_JOURNAL_ON_FULL", "unmetered");
    let Some(disk) = Disk::mount(setup.path().join("data/journal")) else { return };
    let process = setup.serve().await;
    let key = process.key(&process.admin().await).await.1;
    let caller = process.client().with_key(&key);
    disk.fill();
    // More than what is left of the pages that it has.
    for _ in 0..60 {
        caller.get("/api/v1/proxy/hello").await.expect(200);
        disk.fill();
    }
    assert!(metric(&process, "tollgate_usage_dropped_total").await > 0.5);
    assert!(process.logged("the journal of usage cannot be written").is_some());
}
