//! The compiled program as a process: started, signalled, killed, and asked
//! over its socket, its output and its exit code.
//!
//! Each test has a folder of its own that is the working directory, and none of
//! the environment of the test. The port is 0; where it listens is read from the
//! log.

mod audit;
mod backpressure;
mod bombs;
mod canary;
mod chat;
mod commands;
mod crash;
mod crowded;
mod deploy;
mod logs;
mod metrics;
mod money_crash;
mod order;
mod outage;
mod overload;
mod reload;
mod reload_under_load;
mod rolling;
mod sockets;
mod start;
mod stop;
mod streams;
mod tokens;
mod traces;
pub mod upstream;
mod usage_crash;
mod usage_room;
mod wallet;

use std::{
    collections::BTreeMap,
    io::{Read, Write as _},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::{client::legacy::Client as Pool, rt::TokioExecutor};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{Mutex as AsyncMutex, MutexGuard};

use crate::support::{Answer, Client, LATE, TestDatabase};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tollgate");
/// The longest that anything here is waited for that should take moments.
const PATIENCE: Duration = Duration::from_secs(30);
/// The first admin's, where it is configured.
const PASSWORD: &str = "correct horse battery";

/// Taken by tests that measure time or start many processes, so that they do
/// not disturb each other.
pub async fn alone() -> MutexGuard<'static, ()> {
    static ONE: AsyncMutex<()> = AsyncMutex::const_new(());
    ONE.lock().await
}

/// Where and with what settings the program runs. Clones share the folder.
#[derive(Clone)]
struct Setup {
    folder: Arc<TempDir>,
    environment: BTreeMap<String, String>,
    /// Kept while it is used; `None` where the file in the folder is.
    database: Option<Arc<TestDatabase>>,
}

impl Setup {
    /// Nothing configured but the port.
    fn bare() -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let setup = Self { folder, environment: BTreeMap::new(), database: None };
        // Unoptimised, beside other tests, it would often be late.
        setup.set("SERVER_PORT", "0").set("SERVER_MAX_LAG_SECONDS", "0")
    }

    /// With a known admin, without limits by address, on SQLite.
    fn sqlite() -> Self {
        Self::bare()
            .set("ADMIN_PASSWORD", PASSWORD)
            .set("RATE_LIMIT_PER_MINUTE", "0")
            .set("RATE_LIMIT_PER_HOUR", "0")
            .set("SERVER_WORKERS", "2")
    }

    /// The same on Postgres and Redis where the tests have them.
    async fn shared() -> Self {
        let database = TestDatabase::fresh().await;
        let mut setup = Self::sqlite().set("DATABASE_URL", database.config().url.expose_secret());
        if let Some(redis) = crate::support::redis::shared_url() {
            setup = setup.set("REDIS_URL", &redis);
        }
        Self { database: Some(Arc::new(database)), ..setup }
    }

    fn set(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file into the folder.
    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).unwrap();
    }

    fn spawn(&self, arguments: &[&str]) -> Process {
        self.spawn_by(Command::new(PROGRAM).args(arguments))
    }

    fn spawn_by(&self, command: &mut Command) -> Process {
        let mut child = command
            .current_dir(self.path())
            .env_clear()
            .envs(&self.environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = Captured::of(child.stdout.take().unwrap());
        let stderr = Captured::of(child.stderr.take().unwrap());
        Process {
            child,
            stdout,
            stderr,
            base: String::new(),
            spawned: Instant::now(),
            _setup: self.clone(),
        }
    }

    /// Runs a command to its end.
    async fn run(&self, arguments: &[&str], input: &str) -> Ran {
        let mut process = self.spawn(arguments);
        // A command that refuses early does not read it.
        let _ = process.child.stdin.take().unwrap().write_all(input.as_bytes());
        let status = process.ended(PATIENCE).await;
        Ran {
            code: status.code(),
            stdout: process.stdout.all(),
            stderr: process.stderr.all(),
            took: process.spawned.elapsed(),
        }
    }

    /// Starts to serve and waits until it listens.
    async fn listen(&self) -> Process {
        self.listen_by(Command::new(PROGRAM).arg("serve")).await
    }

    async fn listen_by(&self, command: &mut Command) -> Process {
        let mut process = self.spawn_by(command);
        drop(process.child.stdin.take());
        let address = loop {
            if let Some(record) = process.logged("listening") {
                break record["address"].as_str().unwrap().to_owned();
            }
            assert!(process.spawned.elapsed() < PATIENCE, "it does not listen: {process:?}");
            assert!(process.child.try_wait().unwrap().is_none(), "it ended: {process:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        process.base = format!("http://{address}");
        process
    }

    /// Starts to serve and waits until it is ready.
    async fn serve(&self) -> Process {
        let process = self.listen().await;
        process.ready(PATIENCE).await;
        process
    }

    /// The same where only this host is answered.
    async fn serve_as(&self, host: &str) -> Process {
        let process = self.listen().await;
        let url = format!("{}/health/ready", process.base);
        let ready = async || {
            let answer = attempt("GET", &url, &[("host", host)], "").await;
            answer.is_some_and(|answer| answer.status == 200)
        };
        process.until("ready", PATIENCE, ready).await;
        process
    }
}

/// A command that has ended.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
    took: Duration,
}

impl Ran {
    #[track_caller]
    fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A running program; killed when dropped.
struct Process {
    child: Child,
    stdout: Captured,
    stderr: Captured,
    /// Where it listens.
    base: String,
    spawned: Instant,
    /// Its folder and database must outlive it.
    _setup: Setup,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\nstdout:\n{}\nstderr:\n{}", self.stdout.so_far(), self.stderr.so_far())
    }
}

impl Process {
    fn client(&self) -> Client {
        Client::new(&self.base)
    }

    /// Logs in; the access token.
    async fn token(&self, name: &str, password: &str) -> String {
        let body = json!({ "username": name, "password": password });
        let pair = self.client().post("/api/v1/auth/login", body).await.expect(200);
        pair.text("access_token").to_owned()
    }

    /// The configured admin, logged in.
    async fn admin(&self) -> Client {
        self.client().with_bearer(&self.token("admin", PASSWORD).await)
    }

    /// Makes a key of the caller's: its id and its text.
    async fn key(&self, caller: &Client) -> (String, String) {
        let issued = caller.post("/api/v1/keys", json!({ "name": "test" })).await.expect(201);
        (issued.text("id").to_owned(), issued.text("key").to_owned())
    }

    async fn status(&self, path: &str) -> Option<u16> {
        Some(attempt("GET", &format!("{}{path}", self.base), &[], "").await?.status.as_u16())
    }

    async fn ready(&self, patience: Duration) {
        self.until("ready", patience, async || self.status("/health/ready").await == Some(200))
            .await;
    }

    /// Asks again and again, until it is so; a busy machine may be late.
    async fn until(&self, what: &str, patience: Duration, so: impl AsyncFn() -> bool) {
        let (start, patience) = (Instant::now(), patience + LATE);
        while !so().await {
            assert!(start.elapsed() < patience, "not {what} within {patience:?}: {self:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The records of the log; every line must be one.
    fn log(&self) -> Vec<Value> {
        let text = self.stdout.so_far();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let record = |line: &str| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
        };
        whole.lines().map(record).collect()
    }

    /// The last record with this message.
    fn logged(&self, message: &str) -> Option<Value> {
        self.log().into_iter().rfind(|record| record["message"] == message)
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// SIGKILL, and gone.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end, of which a busy machine may be late.
    async fn ended(&mut self, patience: Duration) -> ExitStatus {
        let (start, patience) = (Instant::now(), patience + LATE);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < patience, "it does not end within {patience:?}: {self:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// SIGTERM, and its end with code 0 within this time.
    async fn stop(&mut self, patience: Duration) {
        self.signal("-TERM");
        let status = self.ended(patience).await;
        assert_eq!(status.code(), Some(0), "{self:?}");
    }

    /// The password of the first admin, from what it printed.
    fn password(&self) -> Option<String> {
        let text = self.stderr.so_far();
        let (_, rest) = text.split_once("password  ")?;
        Some(rest.split_whitespace().next()?.to_owned())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended; and a stopped one ends by this too.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let log = self.stdout.so_far();
            let bad =
                |line: &&str| ["\"ERROR\"", "\"WARN\""].iter().any(|level| line.contains(level));
            for line in log.lines().filter(bad) {
                eprintln!("{line}");
            }
        }
    }
}

/// What a process has written, read by a thread.
struct Captured {
    text: Arc<Mutex<Vec<u8>>>,
    reader: Option<thread::JoinHandle<()>>,
}

impl Captured {
    fn of(mut pipe: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(vec![]));
        let into = text.clone();
        let reader = thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            while let Ok(read @ 1..) = pipe.read(&mut buffer) {
                into.lock().unwrap().extend_from_slice(&buffer[..read]);
            }
        });
        Self { text, reader: Some(reader) }
    }

    fn so_far(&self) -> String {
        String::from_utf8(self.text.lock().unwrap().clone()).unwrap()
    }

    /// Everything, once the process has ended.
    fn all(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        self.so_far()
    }
}

/// One request on a connection of its own; `None` if no whole answer comes.
async fn attempt(method: &str, url: &str, fields: &[(&str, &str)], body: &str) -> Option<Answer> {
    let pool: Pool<_, Full<Bytes>> = Pool::builder(TokioExecutor::new()).build_http();
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let body = Full::from(body.to_owned());
    let response = pool.request(request.body(body).unwrap()).await.ok()?;
    let (parts, body) = response.into_parts();
    let body = body.collect().await.ok()?.to_bytes();
    let json = serde_json::from_slice(&body).unwrap_or(Value::Null);
    Some(Answer { status: parts.status, headers: parts.headers, body, json })
}
