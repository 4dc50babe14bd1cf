//! Postgres dies, or falls silent, under load (RELIABILITY G-04, G-20, G-21).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::task::JoinHandle;

use super::{LATE, PASSWORD, Process, Setup, alone};
use crate::support::{Client, assert_in_time, postgres};

/// How long the database is away: shorter than copies of credentials live (10 s).
/// Those of the load are made just before.
const AWAY: Duration = Duration::from_secs(4);

/// Proxied requests, one after the other, and what became of them.
struct Load {
    stop: Arc<AtomicBool>,
    good: Arc<AtomicUsize>,
    task: JoinHandle<Vec<String>>,
}

impl Load {
    fn start(keyed: Client) -> Self {
        let (stop, good) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let task = tokio::spawn({
            let (stop, good) = (stop.clone(), good.clone());
            async move {
                let (mut bad, mut taken) = (vec![], vec![]);
                while !stop.load(SeqCst) {
                    let start = Instant::now();
                    let answer = keyed.get("/api/v1/proxy/load").await;
                    let took = start.elapsed();
                    match answer.status.as_u16() {
                        200 => {
                            good.fetch_add(1, SeqCst);
                            taken.push(took);
                        }
                        _ => bad.push(format!("{took:?}: {answer:?}")),
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                assert_in_time(Duration::from_secs(1), &taken, "a request");
                bad
            }
        });
        Self { stop, good, task }
    }

    fn good(&self) -> usize {
        self.good.load(SeqCst)
    }

    /// Ends it; how many were good, and the others.
    async fn end(self) -> (usize, Vec<String>) {
        self.stop.store(true, SeqCst);
        let bad = self.task.await.unwrap();
        (self.good.load(SeqCst), bad)
    }
}

/// What happens to the server and back.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Away {
    Killed,
    Frozen,
}

#[tokio::test]
async fn without_the_database_known_keys_work_and_no_usage_is_lost() {
    let _alone = alone().await;
    let Some(mut database) = postgres::Server::install() else { return };
    database.start().await;
    let mut setup = Setup::sqlite().set("DATABASE_URL", &database.url("postgres"));
    if let Some(redis) = crate::support::redis::shared_url() {
        setup = setup.set("REDIS_URL", &redis);
    }
    let process = setup.serve().await;
    for away in [Away::Killed, Away::Frozen] {
        let admin = process.admin().await;
        // An account of its own: the admin's was copied at some earlier time.
        let name = crate::support::unique("load");
        let email = format!("{name}@example.com");
        let account = json!({ "username": name, "email": email, "password": PASSWORD });
        process.client().post("/api/v1/auth/register", account).await.expect(201);
        let user = process.client().with_bearer(&process.token(&name, PASSWORD).await);
        let (id, key) = process.key(&user).await;
        let load = Load::start(process.client().with_key(&key));
        process.until("under load", AWAY, async || load.good() > 5).await;

        let begin = Instant::now();
        match away {
            Away::Killed => database.kill(),
            Away::Frozen => database.freeze(),
        }
        let before = load.good();
        let refused = tokio::join!(
            refuses(&process, async |client| {
                let login = json!({ "username": "admin", "password": PASSWORD });
                client.post("/api/v1/auth/login", login).await
            }),
            refuses(&process, async |_| admin.get("/api/v1/keys").await),
            refuses(&process, async |_| {
                admin.post("/api/v1/keys", json!({ "name": "new" })).await
            }),
        );
        println!("{away:?}: refused after {refused:?}");
        assert_eq!(process.status("/health/ready").await, Some(503));
        assert_eq!(process.status("/health/live").await, Some(200));
        tokio::time::sleep(AWAY.saturating_sub(begin.elapsed())).await;
        let served = load.good() - before;
        match away {
            Away::Killed => database.start().await,
            Away::Frozen => database.thaw(),
        }
        let back = Instant::now();
        process.ready(Duration::from_secs(10)).await;
        process.admin().await;
        println!("{away:?}: {served} served meanwhile; back after {:?}", back.elapsed());
        assert!(back.elapsed() < Duration::from_secs(10) + LATE);
        assert!(served > 20, "only {served} served while the database was away");

        let (good, bad) = load.end().await;
        assert!(bad.is_empty(), "{} of {good} failed: {}", bad.len(), bad[0]);
        let path = format!("/api/v1/keys/{id}");
        let recorded = async || {
            let detail = admin.get(&path).await.expect(200);
            usize::try_from(detail.json["usage"]["totals"]["requests"].as_u64().unwrap()).unwrap()
        };
        process.until("written", Duration::from_secs(5), async || recorded().await >= good).await;
        // Nor may a batch be added twice that was written before it was noticed.
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert_eq!(recorded().await, good, "{away:?}");
    }
}

/// Answers 503 soon and says when to come back; how soon.
async fn refuses(
    process: &Process,
    ask: impl AsyncFn(Client) -> crate::support::Answer,
) -> Duration {
    let start = Instant::now();
    let answer = ask(process.client()).await.expect_problem(503, "unavailable");
    let took = start.elapsed();
    answer.header("retry-after");
    assert!(took < Duration::from_secs(3) + LATE, "{took:?}: {answer:?}");
    took
}
