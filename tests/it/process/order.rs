//! What is there first, and what comes later.

use std::time::{Duration, Instant};

use serde_json::json;
use sqlx::{Connection as _, PgConnection};

use super::{LATE, Process, Setup, alone};
use crate::support::{TestDatabase, postgres, redis};

const LOGIN: &str = "/api/v1/auth/login";

/// RELIABILITY G-08.
#[tokio::test]
async fn it_starts_before_its_database_and_its_redis_whichever_comes_first() {
    let _alone = alone().await;
    let Some(mut database) = postgres::Server::install() else { return };
    let Some(mut redis) = redis::Server::start() else { return };
    for (name, database_first) in [("one", true), ("two", false)] {
        // Made beforehand, since the server is to be away at the start.
        database.kill();
        database.start().await;
        execute(&database.url("postgres"), &format!("CREATE DATABASE {name}")).await;
        database.kill();
        redis.kill();
        let setup =
            Setup::bare().set("DATABASE_URL", &database.url(name)).set("REDIS_URL", &redis.url());
        let mut process = setup.listen().await;
        without_database(&process).await;
        if database_first {
            comes(&mut database, &process).await;
            let health = process.client().get("/health").await.expect(200);
            assert_eq!(health.json["services"]["cache"], "degraded");
            redis.restart();
        } else {
            redis.restart();
            without_database(&process).await;
            comes(&mut database, &process).await;
        }
        let used = async || {
            let health = process.client().get("/health").await.expect(200);
            health.json["status"] == "healthy" && written_to(&redis.url(), &process).await
        };
        process.until("using Redis", Duration::from_secs(8), used).await;
        process.stop(Duration::from_secs(3)).await;
    }
    database.kill();
    let setup = Setup::bare().set("DATABASE_URL", &database.url("one"));
    let mut process = setup.listen().await;
    // In the middle of an attempt, and while it pauses between two.
    for pause in [0, 400] {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        process.stop(Duration::from_secs(2)).await;
        process = setup.listen().await;
    }
}

async fn without_database(process: &Process) {
    assert_eq!(process.status("/health/live").await, Some(200));
    assert_eq!(process.status("/health/ready").await, Some(503));
    assert_eq!(process.status("/health").await, Some(503));
    let body = json!({ "username": "admin", "password": "correct horse" });
    let start = Instant::now();
    let refused = process.client().post(LOGIN, body).await.expect_problem(503, "unavailable");
    refused.header("retry-after");
    let proxied = process.client().get("/api/v1/proxy/x").await.expect_problem(503, "unavailable");
    proxied.header("retry-after");
    assert!(start.elapsed() < Duration::from_secs(1) + LATE, "{:?}", start.elapsed());
    assert_eq!(process.password(), None);
}

async fn comes(database: &mut postgres::Server, process: &Process) {
    database.start().await;
    let start = Instant::now();
    process.ready(Duration::from_secs(5)).await;
    println!("ready {:?} after Postgres accepted", start.elapsed());
    let password = process.password().expect("the first admin was made");
    process.token("admin", &password).await;
}

/// A request that counts against a limit leaves its counter in Redis.
async fn written_to(url: &str, process: &Process) -> bool {
    process.client().get("/api/v1/proxy/x").await;
    let client = ::redis::Client::open(url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let keys: u64 = ::redis::cmd("DBSIZE").query_async(&mut connection).await.unwrap();
    keys > 0
}

/// RELIABILITY G-63 and G-150 among processes.
#[tokio::test]
async fn of_three_that_start_at_once_one_migrates_and_one_makes_the_admin() {
    const ROUNDS: usize = 5;
    let _alone = alone().await;
    let mut schemas = vec![];
    for _ in 0..ROUNDS {
        let database = TestDatabase::fresh().await;
        let TestDatabase::Postgres { .. } = &database else {
            eprintln!("skipped: SQLite belongs to one process");
            return;
        };
        let url = secrecy::ExposeSecret::expose_secret(&database.config().url).to_owned();
        let setup = |_| {
            let setup = Setup::bare().set("DATABASE_URL", &url);
            setup.set("AUTH_SECRET_KEY", "a shared key of Zebras, 0123456789!")
        };
        let setups = [1, 2, 3].map(setup);
        let (a, b, c) = tokio::join!(setups[0].serve(), setups[1].serve(), setups[2].serve());
        let processes = [a, b, c];
        let passwords: Vec<_> = processes.iter().filter_map(Process::password).collect();
        let [password] = &*passwords else { panic!("{passwords:?}") };
        for process in &processes {
            process.token("admin", password).await;
        }
        schemas.push(schema(&url).await);
    }
    assert!(schemas.iter().all(|schema| *schema == schemas[0]), "{schemas:#?}");
    assert!(schemas[0].iter().any(|column| column == "users.id uuid"), "{:#?}", schemas[0]);
}

async fn schema(url: &str) -> Vec<String> {
    const SQL: &str = "
        SELECT table_name || '.' || column_name || ' ' || data_type FROM information_schema.columns
        WHERE table_schema = 'public'
        UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
        UNION ALL SELECT 'migration ' || version FROM _sqlx_migrations WHERE success
        ORDER BY 1";
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::query_scalar(SQL).fetch_all(&mut connection).await.unwrap()
}

async fn execute(url: &str, sql: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::query(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
}
