//! Redis for tests: the shared one that `TEST_REDIS_URL` names, and private
//! servers that a test may stop, kill and flush.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::time::timeout;
use tollgate::cache::{RedisDeadlines, RedisStore};

/// The shared server; tests must use keys of their own there.
pub fn shared_url() -> Option<String> {
    std::env::var("TEST_REDIS_URL").ok().filter(|url| !url.is_empty())
}

/// For tests that count exactly and break nothing: the server is well, so an
/// answer that comes late is the machine's doing, and is waited for.
pub const PATIENT: RedisDeadlines =
    RedisDeadlines { connect: Duration::from_secs(30), call: Duration::from_secs(30) };

/// Twice the 5 s within which a server that is back is promised to be used.
pub const BACK: Duration = Duration::from_secs(10);

/// A store that is connected.
pub async fn connect(url: &str) -> Arc<RedisStore> {
    let store = RedisStore::open(url).expect("a redis URL");
    timeout(PATIENT.connect, store.available()).await.expect("redis is found");
    store
}

/// The same, [`PATIENT`].
pub async fn connect_patiently(url: &str) -> Arc<RedisStore> {
    let store = RedisStore::open_within(url, PATIENT).expect("a redis URL");
    timeout(PATIENT.connect, store.available()).await.expect("redis is found");
    store
}

/// Waits for the server to be found again: by the first probe within the 5 s
/// that are promised, by the next where a busy machine was late for that one.
pub async fn regained(store: &RedisStore) {
    timeout(BACK, store.available()).await.expect("redis is found within 5 s");
}

/// What Redis itself answered: a call that missed its deadline on a busy
/// machine was answered by this instance alone, and is made again.
pub async fn answered<T>(store: &RedisStore, ask: impl AsyncFn() -> T) -> T {
    let missed = || store.stats().failures + store.stats().skipped;
    let asking = async {
        loop {
            let before = missed();
            let answer = ask().await;
            if missed() == before {
                return answer;
            }
        }
    };
    timeout(PATIENT.connect, asking).await.expect("redis answers")
}

/// A server of one test's own; gone when dropped.
pub struct Server {
    program: PathBuf,
    port: u16,
    child: Child,
    folder: TempDir,
}

impl Server {
    /// `None`, with a note, where no `redis-server` is installed.
    pub fn start() -> Option<Self> {
        let Some(program) = program() else {
            eprintln!("skipped: no redis-server, and TEST_REDIS_SERVER names none");
            return None;
        };
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = free.local_addr().expect("a bound port").port();
        drop(free);
        let folder = tempfile::tempdir().expect("a folder");
        let child = spawn(&program, port, &folder);
        let server = Self { program, port, child, folder };
        server.wait_until_it_listens();
        Some(server)
    }

    pub fn url(&self) -> String {
        format!("redis://{}/", self.address())
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// SIGSTOP: it accepts connections and never answers.
    pub fn stop(&self) {
        self.signal("-STOP");
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    pub fn kill(&mut self) {
        self.child.kill().expect("the server can be killed");
        self.child.wait().expect("the server ends");
    }

    /// After [`Self::kill`]: a new and empty one at the same address.
    pub fn restart(&mut self) {
        self.child = spawn(&self.program, self.port, &self.folder);
        self.wait_until_it_listens();
    }

    /// Sends one command on a connection of its own.
    pub async fn command(&self, words: &[&str]) {
        let client = redis::Client::open(self.url()).expect("a redis URL");
        let mut connection =
            client.get_multiplexed_async_connection().await.expect("redis answers");
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.exec_async(&mut connection).await.expect("redis obeys");
    }

    /// What `SAVE` wrote.
    pub fn file(&self) -> Vec<u8> {
        std::fs::read(self.folder.path().join("dump.rdb")).expect("it was saved")
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").arg(signal).arg(self.child.id().to_string()).status();
        assert!(status.expect("kill runs").success());
    }

    fn wait_until_it_listens(&self) {
        let (address, start) = (self.address(), Instant::now());
        while TcpStream::connect(address).is_err() {
            assert!(start.elapsed() < Duration::from_secs(30), "redis-server does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGKILL also ends a stopped process. Nothing can be done if it fails.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(program: &PathBuf, port: u16, folder: &TempDir) -> Child {
    Command::new(program)
        .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", ""])
        .arg("--dir")
        .arg(folder.path())
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server runs")
}

fn program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("TEST_REDIS_SERVER") {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join("redis-server")).find(|file| file.is_file())
}
