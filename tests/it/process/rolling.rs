//! Instances behind nginx are restarted one after the other while requests come
//! at a steady rate, and none of them fails (RELIABILITY G-62).
//!
//! The load is open: each request is sent at its time, whatever became of those
//! before it. Every third one is a `POST`, which a balancer sends once. With
//! `TOLLGATE_TORTURE=1` it is 100,000 requests at 500 a second.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{Client as Pool, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{interval, sleep, timeout},
};

use super::{PATIENCE, Process, Setup, alone, upstream::Slow};
use crate::forward_auth::proxies::program;

const INSTANCES: usize = 3;
/// How long an instance says that it is not ready before its port closes.
const DELAY: &str = "1";
/// Between two restarts, so that nginx has found the first one again.
const PAUSE: Duration = Duration::from_secs(3);

/// nginx with the example's upstream block before the instances.
struct Balancer {
    base: String,
    child: Child,
    folder: tempfile::TempDir,
}

impl Balancer {
    /// `None` where nginx is not installed.
    async fn before(ports: &[u16]) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let own = free_address().await;
        let server = |port| format!("server 127.0.0.1:{port} max_fails=1 fail_timeout=2s;\n");
        let servers = ports.iter().map(server).collect::<Vec<_>>().concat();
        // Nothing is sent twice but what nginx sends twice by itself.
        let config = format!(
            "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log stderr error;\n\
             worker_rlimit_nofile 8192;\nevents {{ worker_connections 4096; }}\n\
             http {{\naccess_log off;\nclient_body_temp_path body;\nproxy_temp_path proxy;\n\
             fastcgi_temp_path f;\nuwsgi_temp_path u;\nscgi_temp_path s;\n\
             upstream tollgate {{\n{servers}keepalive 64;\n}}\n\
             server {{\nlisten {own};\nkeepalive_requests 1000000;\nlocation / {{\n\
             proxy_pass http://tollgate;\nproxy_http_version 1.1;\nproxy_set_header Connection '';\n\
             proxy_set_header Host $http_host;\n\
             proxy_set_header X-Forwarded-For $remote_addr;\n}}\n}}\n}}\n"
        );
        std::fs::write(folder.path().join("nginx.conf"), config).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new(program("nginx")?);
        command.args(["-c", "nginx.conf", "-e", "stderr", "-p"]).arg(folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let balancer =
            Self { base: format!("http://{own}"), child: command.spawn().unwrap(), folder };
        let start = Instant::now();
        while TcpStream::connect(own).await.is_err() {
            assert!(start.elapsed() < PATIENCE, "nginx does not start: {}", balancer.log());
            sleep(Duration::from_millis(20)).await;
        }
        Some(balancer)
    }

    fn log(&self) -> String {
        let log: PathBuf = self.folder.path().join("log");
        std::fs::read_to_string(log).unwrap()
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn free_address() -> SocketAddr {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    free.local_addr().unwrap()
}

/// What became of the requests.
#[derive(Default)]
struct Outcome {
    answered: usize,
    /// How often, by what.
    failed: BTreeMap<String, usize>,
    latencies: Vec<Duration>,
}

impl Outcome {
    fn percentile(&self, share: f64) -> Duration {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index"
        )]
        let at = ((sorted.len() - 1) as f64 * share) as usize;
        sorted[at]
    }
}

type Sender = Pool<HttpConnector, Full<Bytes>>;

async fn one(pool: Sender, url: String, key: Arc<str>, number: usize) -> Result<(), String> {
    let method = if number.is_multiple_of(3) { "POST" } else { "GET" };
    let request = Request::builder().method(method).uri(url).header("x-api-key", &*key);
    let request = request.body(Full::default()).unwrap();
    let asking = async {
        let response =
            pool.request(request).await.map_err(|error| format!("{method}: {error:?}"))?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|e| format!("{method}: {e:?}"))?;
        let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        if status == 200 { Ok(()) } else { Err(format!("{method}: {status} {body}")) }
    };
    timeout(PATIENCE, asking).await.unwrap_or_else(|_| Err(format!("{method}: no answer")))
}

/// Sends `count` requests, `per_second` a second.
async fn load(base: &str, key: &str, count: usize, per_second: u32) -> Outcome {
    let pool: Sender = Pool::builder(TokioExecutor::new()).build_http();
    let (key, outcome) = (Arc::<str>::from(key), Arc::new(Mutex::new(Outcome::default())));
    let mut clock = interval(Duration::from_secs(1) / per_second);
    let mut requests = JoinSet::new();
    for number in 0..count {
        clock.tick().await;
        let (pool, key, outcome) = (pool.clone(), Arc::clone(&key), Arc::clone(&outcome));
        let url = format!("{base}/api/v1/proxy/{number}");
        requests.spawn(async move {
            let start = Instant::now();
            let done = one(pool, url, key, number).await;
            let mut outcome = outcome.lock().unwrap();
            outcome.latencies.push(start.elapsed());
            match done {
                Ok(()) => outcome.answered += 1,
                Err(what) => *outcome.failed.entry(what).or_default() += 1,
            }
        });
        while requests.try_join_next().is_some() {}
    }
    while requests.join_next().await.is_some() {}
    std::mem::take(&mut outcome.lock().unwrap())
}

/// The ports of several instances on one database, and their settings.
async fn setups(upstream: &Slow) -> Vec<(u16, Setup)> {
    let shared = Setup::shared()
        .await
        .set("UPSTREAM_URL", &upstream.url())
        .set("AUTH_SECRET_KEY", "a shared key of Zebras, 0123456789!")
        .set("SECRETS_KEY", "another shared key of Okapis, 98765!")
        .set("SERVER_TRUSTED_PROXIES", "127.0.0.1/32")
        .set("SERVER_SHUTDOWN_DELAY_SECONDS", DELAY)
        .set("DATABASE_MAX_CONNECTIONS", "5")
        .set("LOG_LEVEL", "info,access=warn");
    let mut setups = vec![];
    for number in 0..INSTANCES {
        let port = free_address().await.port();
        let data = shared.path().join(format!("data-{number}"));
        let setup = shared.clone().set("SERVER_PORT", &port.to_string());
        setups.push((port, setup.set("DATA_DIR", data.to_str().unwrap())));
    }
    setups
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_instances_are_restarted_in_turn() {
    if std::env::var_os("TEST_DATABASE_URL").is_none() {
        eprintln!("skipped: several instances need Postgres and Redis");
        return;
    }
    let _alone = alone().await;
    let (count, per_second) =
        if std::env::var_os("TOLLGATE_TORTURE").is_some() { (100_000, 500) } else { (1500, 100) };
    let upstream = Slow::start(Duration::ZERO).await;
    let setups = setups(&upstream).await;
    let ports: Vec<u16> = setups.iter().map(|(port, _)| *port).collect();
    let Some(balancer) = Balancer::before(&ports).await else { return };
    let mut instances: Vec<Process> = vec![];
    for (_, setup) in &setups {
        instances.push(setup.serve().await);
    }
    let (_, key) = instances[0].key(&instances[0].admin().await).await;

    let base = balancer.base.clone();
    let sending = tokio::spawn(async move { load(&base, &key, count, per_second).await });
    let (mut restarts, mut at) = (0, 0);
    while !sending.is_finished() {
        sleep(PAUSE).await;
        // No restart that would outlast the load.
        if sending.is_finished() {
            break;
        }
        instances[at].stop(PATIENCE).await;
        instances[at] = setups[at].1.serve().await;
        restarts += 1;
        at = (at + 1) % INSTANCES;
    }
    let outcome = sending.await.unwrap();
    let (p50, p99, worst) =
        (outcome.percentile(0.5), outcome.percentile(0.99), outcome.percentile(1.0));
    println!(
        "{} of {count} requests at {per_second}/s answered with 200, {restarts} restarts of \
         {INSTANCES} instances; p50 {p50:?}, p99 {p99:?}, longest {worst:?}",
        outcome.answered
    );
    assert!(outcome.failed.is_empty(), "{:#?}\nnginx:\n{}", outcome.failed, balancer.log());
    assert_eq!(outcome.answered, count);
    assert!(restarts >= INSTANCES, "{restarts} restarts");
}
