//! Every command: its exit code, and what it prints for programs.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{LATE, PASSWORD, Ran, Setup};

pub(super) const JSON: [&str; 2] = ["--output", "json"];

/// Nothing listens there.
async fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

async fn json(setup: &Setup, arguments: &[&str], input: &str) -> Value {
    setup.run(&[arguments, &JSON].concat(), input).await.expect(0).json()
}

#[tokio::test]
async fn the_settings_are_checked_and_shown() {
    let good = Setup::sqlite().set("AUTH_SECRET_KEY", "a key of 47 Zebras and 12 Okapis!");
    assert_eq!(
        json(&good, &["config", "check"], "").await,
        json!({ "valid": true, "problems": [] })
    );
    assert_eq!(
        good.run(&["config", "check"], "").await.expect(0).stdout,
        "The configuration is valid.\n"
    );
    let shown = json(&good, &["config", "show"], "").await;
    let port = shown.as_array().unwrap().iter().find(|setting| setting["name"] == "SERVER_PORT");
    assert_eq!(port.unwrap()["origin"], "environment");
    assert!(!shown.to_string().contains("Zebras") && !shown.to_string().contains(PASSWORD));
    let example = good.run(&["config", "example"], "").await.expect(0).stdout;
    assert_eq!(example, include_str!("../../../.env.example"));

    let bad = Setup::sqlite().set("SERVER_PORT", "all").set("AUTH_ISSUR", "me");
    let ran = bad.run(&["config", "check", "--output", "json"], "").await.expect(1);
    assert_eq!(ran.json()["problems"].as_array().unwrap().len(), 2, "{ran:?}");
    assert_eq!(ran.stderr.lines().count(), 2, "{ran:?}");
}

#[tokio::test]
async fn the_schema_is_brought_up_and_reported() {
    let setup = Setup::shared().await;
    let versions = async |command| json(&setup, &["migrate", command], "").await;
    let before = versions("status").await;
    let all = |status: &Value, applied: bool| {
        let rows = status.as_array().unwrap();
        !rows.is_empty() && rows.iter().all(|row| row["applied"] == applied)
    };
    assert!(all(&before, false), "{before}");
    assert!(all(&versions("status").await, false), "asking changes nothing");
    assert!(all(&versions("up").await, true));
    assert!(all(&versions("up").await, true));
    assert!(all(&versions("status").await, true));
    let table = setup.run(&["migrate", "status"], "").await.expect(0).stdout;
    assert!(table.starts_with("VERSION"), "{table}");
}

#[tokio::test]
async fn accounts_are_made_listed_and_changed() {
    let setup = Setup::shared().await;
    let create = ["users", "create", "--username", "alice", "--email", "alice@example.com"];
    let made = json(&setup, &create, "").await;
    let password = made[0]["password"].as_str().unwrap().to_owned();
    assert_eq!(made[0]["roles"], json!(["user"]));
    // The same again, a bad name, a bad address, a bad password.
    refused(setup.run(&create, "").await, "taken");
    let other = |name, email| ["users", "create", "--username", name, "--email", email];
    refused(setup.run(&other("a", "a@example.com"), "").await, "username");
    refused(setup.run(&other("bobby", "nowhere"), "").await, "e-mail");
    let stdin = [&other("bobby", "bob@example.com")[..], &["--password-stdin"]].concat();
    refused(setup.run(&stdin, "password\n").await, "password");
    refused(setup.run(&stdin, "").await, "standard input");
    let made =
        json(&setup, &[&stdin[..], &["--role", "moderator"]].concat(), "bob's own words\n").await;
    assert_eq!(made[0].get("password"), None, "it is not printed back");
    assert_eq!(made[0]["roles"], json!(["user", "moderator"]));

    let granted = json(&setup, &["users", "grant-role", "alice", "admin"], "").await;
    assert_eq!(granted[0]["roles"], json!(["user", "admin"]));
    refused(setup.run(&["users", "grant-role", "nobody", "admin"], "").await, "no such");
    let listed = json(&setup, &["users", "list"], "").await;
    let names: Vec<_> = listed.as_array().unwrap().iter().map(|row| &row["username"]).collect();
    assert_eq!(names.len(), 2, "{listed}");

    let mut process = setup.serve().await;
    assert_eq!(process.password(), None, "there is an admin");
    let alice = process.client().with_bearer(&process.token("alice", &password).await);
    alice.get("/api/v1/users/me").await.expect(200);
    process.token("bobby", "bob's own words").await;
    let changed = json(&setup, &["users", "set-password", "alice"], "").await;
    let login = async |password: &str| {
        let body = json!({ "username": "alice", "password": password });
        process.client().post("/api/v1/auth/login", body).await.status
    };
    assert_eq!(login(&password).await, 401);
    assert_eq!(login(changed[0]["password"].as_str().unwrap()).await, 200);
    refused(
        setup.run(&["users", "set-password", "alice", "--password-stdin"], "12345678").await,
        "password",
    );
    refused(setup.run(&["users", "set-password", "nobody"], "").await, "no such");
    process.stop(Duration::from_secs(3)).await;
}

#[tokio::test]
async fn keys_are_made_listed_verified_and_revoked_under_a_running_server() {
    let setup = Setup::shared().await;
    let process = setup.serve().await;
    let create =
        ["keys", "create", "--user", "admin", "--name", "ci", "--rate-limit-per-minute", "9"];
    let made = json(&setup, &create, "").await;
    let (id, key) = (made[0]["id"].as_str().unwrap(), made[0]["key"].as_str().unwrap());
    let keyed = process.client().with_key(key);
    let remaining = |answer: &crate::support::Answer| -> u64 {
        answer.header("x-ratelimit-remaining").parse().unwrap()
    };
    let first = keyed.get("/api/v1/proxy/x").await.expect(200);
    assert_eq!(first.header("x-ratelimit-limit"), "9");

    let valid = json!({ "valid": true, "code": "valid" });
    for _ in 0..3 {
        assert_eq!(json(&setup, &["keys", "verify"], &format!("{key}\n")).await, valid);
    }
    let second = keyed.get("/api/v1/proxy/x").await.expect(200);
    assert_eq!(remaining(&second), remaining(&first) - 1, "a look costs nothing");
    let mut listed = json(&setup, &["keys", "list", "--user", "admin"], "").await;
    assert_eq!(listed[0].get("key"), None);
    listed = json(&setup, &["keys", "list"], "").await;
    assert_eq!(listed[0]["id"], id);
    for text in ["tg_nonsense", &format!("tg_{}", "a".repeat(49))] {
        let ran = setup.run(&[&["keys", "verify"][..], &JSON].concat(), text).await.expect(1);
        assert_eq!(ran.json()["valid"], false, "{ran:?}");
        assert!(!ran.stderr.contains(text), "{ran:?}");
    }
    refused(setup.run(&["keys", "verify"], "").await, "standard input");
    refused(setup.run(&["keys", "create", "--user", "nobody", "--name", "x"], "").await, "no such");
    refused(setup.run(&["keys", "create", "--user", "admin", "--name", ""], "").await, "name");

    setup.run(&["keys", "revoke", id], "").await.expect(0);
    let revoked = Instant::now();
    refused(setup.run(&["keys", "revoke", id], "").await, "no such");
    setup.run(&["keys", "verify"], key).await.expect(1);
    let gone = async || keyed.get("/api/v1/proxy/x").await.status == 401;
    // Without Redis nobody tells the server: its copy lives for 10 s.
    process.until("revoked", Duration::from_secs(12), gone).await;
    println!("revoked after {:?}", revoked.elapsed());
    let limit = if setup.environment.contains_key("REDIS_URL") { 2 } else { 12 };
    assert!(revoked.elapsed() < Duration::from_secs(limit) + LATE, "{:?}", revoked.elapsed());
}

#[tokio::test]
async fn the_document_is_the_one_that_is_served() {
    let setup = Setup::sqlite();
    // Neither a good configuration nor a database is needed to print it.
    let printed = Setup::bare().set("SERVER_PORT", "x").run(&["openapi"], "").await.expect(0);
    let served = setup.serve().await.client().get("/api/openapi.json").await.expect(200);
    assert_eq!(printed.json(), served.json);
    assert_eq!(served.json["openapi"], "3.1.0");
}

#[tokio::test]
async fn the_healthcheck_tells_ready_from_not_ready_from_not_there() {
    let port = closed_port().await;
    let setup = Setup::sqlite().set("SERVER_PORT", &port.to_string());
    setup.run(&["healthcheck"], "").await.expect(3);
    let mut process = setup.serve().await;
    setup.run(&["healthcheck"], "").await.expect(0);
    let url = process.base.clone();
    Setup::bare().run(&["healthcheck", "--url", &format!("{url}/")], "").await.expect(0);
    process.stop(Duration::from_secs(3)).await;

    let away = format!("postgres://nobody@127.0.0.1:{}/x", closed_port().await);
    let waiting = setup.clone().set("DATABASE_URL", &away).listen().await;
    setup.run(&["healthcheck"], "").await.expect(1);
    waiting.signal("-STOP");
    let silent = setup.run(&["healthcheck"], "").await.expect(3);
    assert!(silent.took < Duration::from_secs(6) + LATE, "{silent:?}");
}

#[tokio::test]
async fn completions_help_and_the_version_need_nothing() {
    let setup = Setup::bare().set("SERVER_PORT", "x");
    for (shell, part) in
        [("bash", "complete -F"), ("zsh", "#compdef tollgate"), ("fish", "complete -c tollgate")]
    {
        let script = setup.run(&["completions", shell], "").await.expect(0).stdout;
        assert!(script.contains(part) && script.contains("healthcheck"), "{shell}");
    }
    assert!(setup.run(&["--help"], "").await.expect(0).stdout.contains("Usage: tollgate"));
    let version = setup.run(&["--version"], "").await.expect(0).stdout;
    assert_eq!(version, format!("tollgate {}\n", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn what_is_not_understood_ends_with_2_and_what_is_not_reached_with_3() {
    let setup = Setup::sqlite();
    for line in [
        "dance",
        "--port 1 users list",
        "serve --port x",
        "keys revoke 7",
        "users create",
        "users",
        "tokens revoke 7",
        "tokens list --status sold",
        "tokens grant --user a --hours 0",
        "secrets",
    ] {
        let arguments: Vec<_> = line.split(' ').collect();
        let ran = setup.run(&arguments, "").await.expect(2);
        assert!(ran.stderr.contains("--help") && ran.stdout.is_empty(), "{ran:?}");
    }
    assert_eq!(std::fs::read_dir(setup.path()).unwrap().count(), 0);

    let away = format!("postgres://nobody:hunter2@127.0.0.1:{}/x", closed_port().await);
    let setup = setup.set("DATABASE_URL", &away);
    let key = "01890a5d-ac96-774b-bcce-b302099a8057";
    for line in [
        "migrate up",
        "migrate status",
        "users list",
        "keys list",
        &format!("keys revoke {key}"),
        "tokens list",
        &format!("tokens revoke {key}"),
        "secrets rotate",
    ] {
        let arguments: Vec<_> = line.split(' ').collect();
        let ran = setup.run(&arguments, "").await.expect(3);
        assert!(ran.stderr.contains("unreachable") && ran.stdout.is_empty(), "{ran:?}");
        assert!(!ran.stderr.contains("hunter2"), "{ran:?}");
        assert!(ran.took < Duration::from_secs(4) + LATE, "{ran:?}");
    }
}

#[track_caller]
pub(super) fn refused(ran: Ran, because: &str) {
    let ran = ran.expect(1);
    assert!(ran.stderr.to_lowercase().contains(because), "no {because:?} in {ran:?}");
    assert_eq!(ran.stdout, "", "{ran:?}");
}

/// The same as over HTTP, as it is read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usage_is_printed_as_a_file() {
    let setup = Setup::shared().await;
    let mut process = setup.serve().await;
    let admin = process.admin().await;
    let (_, key) = process.key(&admin).await;
    let client = process.client().with_key(&key);
    for _ in 0..3 {
        client.get("/api/v1/proxy/hello").await.expect(200);
    }
    process.stop(super::PATIENCE).await;
    let export = async |rest: &[&str]| {
        setup.run(&[&["usage", "export"], rest].concat(), "").await.expect(0).stdout
    };
    let sheet = export(&["--group-by", "key", "--interval", "hour"]).await;
    let rows: Vec<_> = sheet.lines().collect();
    assert!(rows[0].starts_with("start,group,requests,rejected"), "{sheet}");
    let requests = rows[1..].iter().map(|row| row.split(',').nth(2).unwrap());
    assert_eq!(requests.map(|text| text.parse::<u32>().unwrap()).sum::<u32>(), 3, "{sheet}");
    let log = export(&["--kind", "requests", "--format", "ndjson"]).await;
    let paths = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    assert_eq!(paths.filter(|line| line["path"] == "/api/v1/proxy/hello").count(), 3, "{log}");
    assert_eq!(export(&["--to", "2020-01-01T00:00:00Z", "--format", "ndjson"]).await, "");
    for wrong in [["--format", "xls"], ["--from", "2999-01-01T00:00:00Z"]] {
        let ran = setup.run(&[&["usage", "export"][..], &wrong].concat(), "").await;
        assert!(ran.code != Some(0) && ran.stdout.is_empty(), "{ran:?}");
    }
}
