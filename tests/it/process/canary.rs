//! Secrets stay where they belong (RELIABILITY G-142, G-143): every kind of
//! them is planted, used, and then looked for in everything that is written,
//! at the most talkative level of logging.
//!
//! | planted | by |
//! |---|---|
//! | passwords (right, wrong, new, of the first admin: given and made up), API keys, login and refresh tokens, login cookies, access tokens, vouchers, socket tickets, assertions, chat cookies, workflow tokens | what is used in [`tour`], [`money`], [`sockets`], [`outside`] |
//! | signing, sealing and session keys and those before, passwords of the database, Redis and the upstream, keys of the workflow and the collector, `METRICS_TOKEN` | settings |
//! | `Authorization`, cookies and queries of others | fields of requests |
//!
//! | looked at | where a secret may be |
//! |---|---|
//! | standard output (what journald gets), log files, packed ones too | |
//! | standard error | a made-up password of the first admin, once |
//! | `DATA_DIR`: database with its log, journal, anchors | `secrets/`, which is not looked at |
//! | a dump of the database, Redis' keys, its commands and its RDB file | hashes, which are none of the forms |
//! | answers, error bodies, `/metrics`, exports of usage, audit, an account and a wallet | what a route exists to hand out, once |
//! | what commands print | the same |
//! | what upstream, workflow and collector are sent | each its own credential |
//!
//! Each with errors of upstream, workflow, database and Redis, and with a panic.

mod money;
mod outside;
mod panicking;
mod planted;
mod sinks;
mod sockets;
mod tour;

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use secrecy::ExposeSecret as _;

use self::{
    money::{commands, rotated},
    outside::Outside,
    planted::{Answers, Planted},
    sinks::{Files, RedisLog},
    tour::{errors, tour},
};
use super::{PATIENCE, Process, Setup};
use crate::support::{TestDatabase, postgres, redis, websocket::Upstream};

const ADMIN: &str = "Canary-admin-Qm7vTz2";
const PERSON: &str = "Canary-person-8xKpWd4";
const WRONG: &str = "Canary-wrong-Lz3uRf9";
const CHANGED: &str = "Canary-changed-Hy6sNb1";
const SIGNING: &str = "Canary-signing-Jc5gVe8-of-40-Zebras-12";
const PREVIOUS: &str = "Canary-previous-Ua2hMo7-of-31-Okapis-9";
/// Seals what is shown again; the other one takes its place.
const SEALING: &str = "Canary-sealing-Bk8nRw3-of-25-Lemurs-7";
const NEXT_SEALING: &str = "Canary-resealing-Dv5yLp6-of-58-Quokkas-4";
const BASIC: &str = "Canary-basic-Ti4qXs6";
const METRICS: &str = "Canary-metrics-Pg9wDk3";
const DATABASE: &str = "Canary-database-Fe1jYb5";
const COOKIE: &str = "Canary-cookie-Ro8zCl2";
const CLIENT_BASIC: &str = "Canary-client-Vn6tEa4";
const SESSION: &str = "Canary-session-Ns2fGq9-of-63-Tapirs-5";
const WORKFLOW: &str = "Canary-workflow-Kd6rBv1";
const OTLP: &str = "Canary-collector-Xe8hTm4";
const QUERY: &str = "Canary-query-Zp3jUw7";
const FIXED: [&str; 17] = [
    ADMIN,
    PERSON,
    WRONG,
    CHANGED,
    SIGNING,
    PREVIOUS,
    SEALING,
    NEXT_SEALING,
    BASIC,
    METRICS,
    DATABASE,
    COOKIE,
    CLIENT_BASIC,
    SESSION,
    WORKFLOW,
    OTLP,
    QUERY,
];
/// No secret: it must be found where it was written.
const MARKER: &str = "Canary-marker-Wn5cJx8";
const STOP: Duration = Duration::from_secs(10);

#[tokio::test]
async fn no_secret_is_written_anywhere_on_sqlite() {
    on_sqlite(talkative(Setup::bare())).await;
}

/// With keys of the other kind, which sign what upstreams are told.
#[tokio::test]
async fn no_secret_is_written_anywhere_where_upstreams_are_told_who_asks() {
    let key = include_str!("../jwt/keys/current.pem");
    let setup = talkative(Setup::bare())
        .set("AUTH_ALGORITHM", "RS256")
        .set("AUTH_PRIVATE_KEY", key)
        .set("UPSTREAM_ASSERTION", "true");
    let mut planted = on_sqlite(setup).await;
    planted.0.retain(|(name, _)| *name == "assertion");
    // A login, a key, a pass, and what they have sockets by.
    assert!(planted.0.len() > 3, "{}", planted.0.len());
}

/// What was planted then.
async fn on_sqlite(setup: Setup) -> Planted {
    let (upstream, outside) = (Upstream::start().await, Outside::start().await);
    let setup = outside.set(setup.set("UPSTREAM_URL", &upstream.url()));
    let mut process = setup.serve().await;
    let (mut planted, mut answers) = (Planted::fixed(), Answers::default());
    if let Some(pem) = setup.environment.get("AUTH_PRIVATE_KEY") {
        let lines = pem.lines().filter(|line| line.len() == 64);
        lines.for_each(|line| planted.add("signing key", line));
    }
    tour(&process, &mut planted, &mut answers).await;
    let mut files = Files::of(setup.path());
    commands(&resealing(&setup), &mut planted, &mut answers).await;
    // Before the stop, which folds the log into the file.
    files.read();
    rotated(&process, &setup, &mut planted, &mut answers).await;
    answers.keep(&process.client().with_bearer(METRICS).get("/metrics").await.expect(200));
    fill(&process, &setup).await;
    process.stop(STOP).await;
    files.read();

    outside.plant(&mut planted);
    let mut found = sockets::upstream(&upstream, &mut planted);
    found.extend(outside.search(&planted));
    found.extend(planted.found_in("the answers", answers.bytes()));
    files.expect(&["journal/", ".gz", "logs/tollgate.log"]);
    found.extend(files.search(&planted));
    found.extend(output(&process, &planted));
    assert!(found.is_empty(), "{} places:\n{}", found.len(), found.join("\n"));
    assert!(!files.search(&marker()).is_empty(), "the files were not searched");
    assert!(process.stdout.so_far().contains("\"TRACE\""), "it was not talkative");
    planted
}

/// What instances share: on `TEST_DATABASE_URL` where it is given.
#[tokio::test]
async fn no_secret_is_written_to_what_instances_share() {
    let Some(redis) = redis::Server::start() else { return };
    let (database, upstream) = (TestDatabase::fresh().await, Upstream::start().await);
    let outside = Outside::start().await;
    let log = RedisLog::start(&redis);
    let setup = talkative(Setup { database: Some(Arc::new(database)), ..Setup::bare() });
    let database = setup.database.clone().unwrap();
    let setup = setup
        .set("DATABASE_URL", database.config().url.expose_secret())
        .set("REDIS_URL", &redis.url())
        .set("UPSTREAM_URL", &upstream.url());
    let setup = outside.set(setup);
    let mut process = setup.serve().await;
    let (mut planted, mut answers) = (Planted::fixed(), Answers::default());
    tour(&process, &mut planted, &mut answers).await;
    // While what is cached is still there.
    let mut cached = sinks::redis_dump(&redis.url()).await;
    cached.extend(sinks::redis_file(&redis).await);
    let before = database.dump().await;
    commands(&resealing(&setup), &mut planted, &mut answers).await;
    rotated(&process, &setup, &mut planted, &mut answers).await;
    answers.keep(&process.client().with_bearer(METRICS).get("/metrics").await.expect(200));
    process.stop(STOP).await;

    outside.plant(&mut planted);
    let mut found = sockets::upstream(&upstream, &mut planted);
    found.extend(outside.search(&planted));
    found.extend(planted.found_in("the answers", answers.bytes()));
    found.extend(output(&process, &planted));
    found.extend(planted.found_in("the database", before.as_bytes()));
    found.extend(planted.found_in("the database, at last", database.dump().await.as_bytes()));
    found.extend(planted.found_in("Redis", &cached));
    found.extend(planted.found_in("Redis, at last", &sinks::redis_dump(&redis.url()).await));
    let said = log.until_now(&redis).await;
    found.extend(planted.found_in("what Redis was told", said.as_bytes()));
    assert!(found.is_empty(), "{} places:\n{}", found.len(), found.join("\n"));
    assert!(!marker().found_in("the database", before.as_bytes()).is_empty(), "{before}");
    assert!(said.contains("\"SET\"") && !cached.is_empty(), "{said}");
}

#[tokio::test]
async fn no_secret_is_written_when_nothing_answers() {
    let Some(mut database) = postgres::Server::install() else { return };
    database.start().await;
    let url = database.url("postgres").replace("postgres@", &format!("postgres:{DATABASE}@"));
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let setup = talkative(Setup::bare())
        .set("DATABASE_URL", &url)
        .set("REDIS_URL", &format!("redis://:{DATABASE}@{closed}"))
        .set("UPSTREAM_URL", &format!("http://{closed}"))
        .set("CHAT_WEBHOOK_URL", &format!("http://{closed}/webhook"))
        .set("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{closed}"))
        .set("OTEL_BSP_SCHEDULE_DELAY", "100");
    let mut process = setup.serve().await;
    let (mut planted, mut answers) = (Planted::fixed(), Answers::default());
    tour(&process, &mut planted, &mut answers).await;
    database.kill();
    errors(&process, &planted, &mut answers).await;
    process.kill();
    let mut found = planted.found_in("the answers", answers.bytes());
    found.extend(output(&process, &planted));
    let leak = format!("{closed}");
    let is_leak = |part: &[u8]| part == leak.as_bytes();
    assert!(!answers.bytes().windows(leak.len()).any(is_leak), "an inner address in an answer");
    assert!(found.is_empty(), "{} places:\n{}", found.len(), found.join("\n"));

    // Nor by the commands.
    let setup = resealing(&setup);
    // At once, since each waits for the database.
    let lines = [
        "users list",
        "config show",
        "migrate up",
        "secrets rotate",
        "tokens list",
        "vouchers create --amount 5",
        "wallet verify",
        "audit verify",
        "audit export",
        "usage export --format csv",
    ];
    let ran = lines.map(|line| {
        let setup = &setup;
        async move { (line, setup.run(&line.split(' ').collect::<Vec<_>>(), "").await) }
    });
    for (line, ran) in join_all(ran).await {
        let text = format!("{}{}", ran.stdout, ran.stderr);
        let found = planted.found_in("the output", text.as_bytes());
        assert!(found.is_empty(), "{line}: {found:?}");
    }
}

fn talkative(setup: Setup) -> Setup {
    setup
        .set("LOG_LEVEL", "TRACE")
        .set("ADMIN_PASSWORD", ADMIN)
        .set("AUTH_SECRET_KEY", SIGNING)
        .set("AUTH_PREVIOUS_SECRET_KEYS", PREVIOUS)
        .set("SECRETS_KEY", SEALING)
        .set("UPSTREAM_BASIC_AUTH_USER", "gate")
        .set("UPSTREAM_BASIC_AUTH_PASSWORD", BASIC)
        .set("METRICS_TOKEN", METRICS)
        .set("SESSION_SECRET_KEY", SESSION)
        .set("CHAT_API_KEY", WORKFLOW)
        .set("ALLOWED_ORIGINS", crate::chat::ORIGIN)
        .set("OTEL_EXPORTER_OTLP_HEADERS", &format!("authorization=Bearer%20{OTLP}"))
        .set("LOG_FILE", "logs/tollgate.log")
        .set("LOG_MAX_SIZE_MB", "1")
        .set("LOG_MAX_FILES", "1000")
        .set("RATE_LIMIT_PER_MINUTE", "0")
        .set("RATE_LIMIT_PER_HOUR", "0")
        .set("TOKEN_PRICE_24H", "500")
        .set("TOKEN_TRIAL_HOURS", "1")
        .set("WALLET_STARTING_BALANCE", "1000")
}

/// What shows that a place was searched.
fn marker() -> Planted {
    Planted(vec![("marker", MARKER.to_owned())])
}

/// With another key that seals.
fn resealing(setup: &Setup) -> Setup {
    setup.clone().set("SECRETS_KEY", NEXT_SEALING).set("SECRETS_PREVIOUS_KEYS", SEALING)
}

/// Asks for things until the first file of the log is full and packed.
async fn fill(process: &Process, setup: &Setup) {
    let client = process.client().with("cookie", &format!("sid={COOKIE}")).with_bearer(WRONG);
    let packed = setup.path().join("logs/tollgate.log.1.gz");
    let asked = async || {
        for _ in 0..50 {
            client.get(&format!("/api/v1/users/me?q={QUERY}")).await.expect(401);
        }
        packed.exists()
    };
    process.until("packed", PATIENCE, asked).await;
}

fn output(process: &Process, planted: &Planted) -> Vec<String> {
    let mut found = planted.found_in("standard output", process.stdout.so_far().as_bytes());
    found.extend(planted.found_in("standard error", process.stderr.so_far().as_bytes()));
    found
}
