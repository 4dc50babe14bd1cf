//! A Postgres that has no connection left: all of ours wait for something, or
//! others have taken the server's (RELIABILITY G-22, G-23).

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use sqlx::{Connection as _, Executor as _, PgConnection};

use super::{LATE, PASSWORD, Process, Setup, alone};
use crate::support::postgres::Server;

/// As `PostgreSQL` has it (53300).
const TOO_MANY: &str = "sorry, too many clients already";

/// Proxied requests for so long, all of which must be answered, and soon.
async fn served(process: &Process, key: &str, span: Duration) -> usize {
    let (client, begun, mut served) = (process.client().with_key(key), Instant::now(), 0);
    while begun.elapsed() < span {
        let asked = Instant::now();
        client.get("/api/v1/proxy/hello").await.expect(200);
        assert!(asked.elapsed() < LATE, "{:?}", asked.elapsed());
        served += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    served
}

#[tokio::test]
async fn with_all_connections_in_use_requests_that_need_none_go_on() {
    let _alone = alone().await;
    let Some(mut database) = Server::install() else { return };
    database.start().await;
    let url = database.url("postgres");
    let setup = Setup::sqlite().set("DATABASE_URL", &url).set("DATABASE_MAX_CONNECTIONS", "3");
    let process = setup.serve().await;
    let admin = process.admin().await;
    let (_, key) = process.key(&admin).await;
    process.client().with_key(&key).get("/api/v1/proxy/hello").await.expect(200);
    admin.get("/api/v1/keys").await.expect(200);

    // Who reads keys waits for this.
    let mut other = PgConnection::connect(&url).await.unwrap();
    other.execute("BEGIN; LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let lists = join_all((0..100).map(|_| async {
        let asked = Instant::now();
        let answer = admin.get("/api/v1/keys").await;
        (answer, asked.elapsed())
    }));
    let span = Duration::from_secs(4);
    let (lists, served) = tokio::join!(lists, served(&process, &key, span));
    assert!(served > 20, "only {served}");
    for (answer, took) in &lists {
        assert_eq!(answer.status, 503, "{answer:?}");
        answer.header("retry-after");
        // 2 s for a connection and 5 s for its answer, at the most.
        assert!(*took < Duration::from_secs(7) + LATE, "{took:?}");
    }
    let soon = lists.iter().filter(|(_, took)| *took < Duration::from_secs(2) + LATE).count();
    assert!(soon >= 90, "{soon} were refused as soon as none came free");

    other.execute("COMMIT").await.unwrap();
    let lists = async || admin.get("/api/v1/keys").await.status == 200;
    process.until("back", Duration::from_secs(5), lists).await;
}

#[tokio::test]
async fn instances_that_find_no_place_on_the_server_try_on_in_moderation() {
    const INSTANCES: u32 = 3;
    let _alone = alone().await;
    let Some(mut database) = Server::install() else { return };
    database.start().await;
    let url = database.url("postgres");
    // A role that gets none of the places that are kept for the superuser.
    let mut other = PgConnection::connect(&url).await.unwrap();
    other.execute("CREATE ROLE gate LOGIN; ALTER DATABASE postgres OWNER TO gate").await.unwrap();
    other.execute("GRANT ALL ON SCHEMA public TO gate").await.unwrap();
    let setup = || Setup::sqlite().set("DATABASE_URL", &url.replace("postgres@", "gate@"));
    let mut processes = vec![];
    for _ in 0..INSTANCES {
        processes.push(setup().serve().await);
    }
    let admin = processes[0].admin().await;
    let (_, key) = processes[0].key(&admin).await;
    for process in &processes {
        process.client().with_key(&key).get("/api/v1/proxy/hello").await.expect(200);
    }

    // One each, so that all stay in touch with what changes, and no more.
    other.execute("ALTER ROLE gate CONNECTION LIMIT 4").await.unwrap();
    other
        .execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'gate'")
        .await
        .unwrap();
    let before = database.log();
    let (begun, span) = (Instant::now(), Duration::from_secs(6));
    let work = join_all(processes.iter().map(|process| async {
        let logins = join_all((0..8).map(|_| async {
            let client = process.client();
            while begun.elapsed() < span {
                let login = json!({ "username": "admin", "password": PASSWORD });
                let answer = client.post("/api/v1/auth/login", login).await;
                assert!([200, 429, 503].contains(&answer.status.as_u16()), "{answer:?}");
            }
        }));
        tokio::join!(served(process, &key, span), logins).0
    }));
    let served = work.await;
    let log = database.log();
    let tried = log[before.len()..].matches("too many connections for role").count();
    let tried = tried + log[before.len()..].matches(TOO_MANY).count();
    println!("{tried} refused attempts to connect in {span:?}, {served:?} served");
    assert!(tried > 0, "there was room for all");
    let most = 10 * usize::try_from(INSTANCES).unwrap() * usize::try_from(span.as_secs()).unwrap();
    assert!(tried <= most, "{tried} of {most}");

    other.execute("ALTER ROLE gate CONNECTION LIMIT -1").await.unwrap();
    for process in &mut processes {
        process.ready(Duration::from_secs(10)).await;
        assert!(process.child.try_wait().unwrap().is_none(), "{process:?}");
        process.admin().await;
    }
}
