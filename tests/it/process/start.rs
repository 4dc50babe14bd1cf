//! From nothing to ready, and what prevents it.

use std::{os::unix::fs::PermissionsExt as _, time::Duration};

use serde_json::json;
use sqlx::{ConnectOptions as _, sqlite::SqliteConnectOptions};
use tokio::net::TcpListener;

use super::{LATE, PATIENCE, Setup, alone};

#[tokio::test]
async fn with_nothing_configured_it_serves_and_shows_the_admins_password_once() {
    let _alone = alone().await;
    let setup = Setup::bare();
    let mut process = setup.serve().await;
    let took = process.spawned.elapsed();
    let resident = resident_mib(process.child.id());
    println!("ready after {took:?}, {resident} MiB resident");
    assert!(took < Duration::from_secs(5) + LATE, "{took:?}");
    // 50 MiB are promised of the program that is installed; unoptimized code
    // and its tables alone take a multiple.
    let most = if cfg!(debug_assertions) { 200 } else { 50 };
    assert!(resident < most, "{resident} MiB");

    let password = process.password().expect("a password was printed");
    assert_eq!(process.stderr.so_far().matches(&password).count(), 1);
    assert!(!process.stdout.so_far().contains(&password), "it is in the log");
    let token = process.token("admin", &password).await;
    let me = process.client().with_bearer(&token).get("/api/v1/users/me").await.expect(200);
    assert_eq!(me.json["roles"], json!(["user", "admin"]));
    let docs = format!("{}/api/docs", process.base);
    assert!(process.stderr.so_far().contains(&docs), "{process:?}");
    for path in ["/api/redoc", "/api/openapi.json"] {
        process.client().get(path).await.expect(200);
    }
    let docs = process.client().get("/api/docs").await;
    assert!(docs.status.is_success() || docs.status.is_redirection(), "{docs:?}");

    let mode = |path: &str| {
        let found = std::fs::metadata(setup.path().join(path));
        found.unwrap_or_else(|error| panic!("{path}: {error}")).permissions().mode() & 0o777
    };
    assert_eq!((mode("data"), mode("data/secrets")), (0o700, 0o700));
    for file in ["tollgate.db", "tollgate.db-wal", "tollgate.db.lock", "secrets/jwt-hs256"] {
        assert_eq!(mode(&format!("data/{file}")), 0o600, "{file}");
    }

    process.stop(Duration::from_secs(3)).await;
    let again = setup.serve().await;
    assert_eq!(again.password(), None, "{again:?}");
    assert!(!again.stdout.so_far().contains("first admin"), "{again:?}");
    again.token("admin", &password).await;
    // The key that signs was kept as well.
    again.client().with_bearer(&token).get("/api/v1/users/me").await.expect(200);
}

#[tokio::test]
async fn a_second_server_on_the_same_file_gives_way_at_once() {
    let setup = Setup::sqlite();
    let mut first = setup.serve().await;
    let second = setup.run(&["serve"], "").await.expect(1);
    assert!(second.took < Duration::from_secs(2) + LATE, "{second:?}");
    assert!(second.stderr.contains("another Tollgate is running"), "{second:?}");
    assert_eq!(first.status("/health/ready").await, Some(200));
    first.admin().await;

    first.kill();
    assert!(setup.path().join("data/tollgate.db.lock").exists());
    setup.serve().await;
}

/// What waiting does not mend ends the process, and says why.
#[tokio::test]
async fn a_schema_that_cannot_be_migrated_ends_the_start_with_the_reason() {
    // Several times: whether the reason survives must not be a matter of luck.
    for _ in 0..4 {
        let setup = Setup::sqlite();
        std::fs::create_dir(setup.path().join("data")).unwrap();
        let file = setup.path().join("data/tollgate.db");
        let options = SqliteConnectOptions::new().filename(file).create_if_missing(true);
        let mut foreign = options.connect().await.unwrap();
        sqlx::query("CREATE TABLE users (somebody_elses TEXT)")
            .execute(&mut foreign)
            .await
            .unwrap();
        drop(foreign);
        let ran = setup.run(&["serve"], "").await.expect(1);
        assert!(ran.stderr.contains("users"), "{ran:?}");
    }
}

#[tokio::test]
async fn every_fault_of_the_settings_is_told_before_anything_is_touched() {
    let setup = Setup::sqlite()
        .set("SERVER_PROT", "80")
        .set("AUTH_SECRET_KEY", "changeme")
        .set("RATE_LIMIT_PER_HOUR", "many")
        .set("DATABASE_MAX_CONNECTIONS", "0");
    for command in [&["serve"][..], &["config", "check"], &["config", "show"], &["users", "list"]] {
        let ran = setup.run(command, "").await.expect(1);
        let names =
            ["SERVER_PROT", "AUTH_SECRET_KEY", "RATE_LIMIT_PER_HOUR", "DATABASE_MAX_CONNECTIONS"];
        for name in names {
            assert!(ran.stderr.contains(name), "{name}: {ran:?}");
        }
        assert!(!ran.stderr.contains("changeme"), "{ran:?}");
        assert_eq!(ran.stdout, "", "{ran:?}");
    }
    assert_eq!(std::fs::read_dir(setup.path()).unwrap().count(), 0, "nothing was made");
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let ran = Setup::sqlite().run(&["serve", "--port", &port], "").await.expect(1);
    assert!(ran.stderr.contains(&format!("cannot listen on 127.0.0.1:{port}")), "{ran:?}");
    // Also where the port of the metrics is the one that is taken.
    let ran = Setup::sqlite().set("METRICS_PORT", &port).run(&["serve"], "").await.expect(1);
    assert!(ran.stderr.contains(&format!("cannot listen on 127.0.0.1:{port}")), "{ran:?}");
    assert!(ran.took < PATIENCE / 4, "{ran:?}");
}

fn resident_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}
