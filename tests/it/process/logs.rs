//! What it writes about a request.

use std::{
    fs,
    net::TcpListener,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{PASSWORD, PATIENCE, PROGRAM, Process, Setup, alone, attempt, upstream::Slow};

/// The access lines of the request with this id.
fn lines(process: &Process, id: &str) -> Vec<Value> {
    let records = process.log().into_iter();
    records.filter(|line| line["logger"] == "access" && line["request_id"] == id).collect()
}

#[tokio::test]
async fn every_request_leaves_one_line_that_a_program_can_read() {
    let slow = Slow::start(Duration::from_millis(30)).await;
    let setup = Setup::shared().await.set("UPSTREAM_URL", &slow.url());
    let mut process = setup.serve().await;
    let admin = process.admin().await;
    let (key_id, key) = process.key(&admin).await;
    for (id, method, path, status) in [
        ("a-1", "GET", "/health/live?deep=yes", 200),
        ("a-2", "GET", "/api/v1/proxy/some/%41/where?token_of=joy", 200),
        ("a-3", "GET", "/api/v1/nothing?x=1", 404),
        ("a-4", "DELETE", "/api/v1/keys", 405),
        ("a-5", "GET", "/api/v1/proxy/a%2fb", 400),
        ("a-6", "GET", "/api/v1/usage", 200),
    ] {
        let url = format!("{}{path}", process.base);
        let fields = [("x-request-id", id), ("x-api-key", &*key)];
        let answer = attempt(method, &url, &fields, "").await.unwrap().expect(status);
        assert_eq!(answer.header("x-request-id"), id);
        process
            .until("logged", Duration::from_secs(2), async || !lines(&process, id).is_empty())
            .await;
        let found = lines(&process, id);
        let [line] = &*found else { panic!("{found:?}") };
        assert_eq!(line["method"], method);
        assert_eq!(line["status"], status);
        assert_eq!(line["level"], "INFO");
        assert!(line["module"].is_string() && line["line"].is_u64(), "{line}");
        assert!(line["bytes_in"].is_u64() && line["bytes_out"].is_u64(), "{line}");
        assert!(line["duration_ms"].is_f64(), "{line}");
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'), "{line}");
        let logged = line["path"].as_str().unwrap();
        assert!(!logged.contains('?') && !line.to_string().contains("joy"), "{line}");
        if id == "a-2" {
            assert_eq!(logged, "/api/v1/proxy/some/A/where");
            assert_eq!(line["key_id"], *key_id);
            assert_eq!(line["upstream"], "default");
            assert!(line["duration_ms"].as_f64().unwrap() >= 30.0, "{line}");
        }
    }
    process.stop(Duration::from_secs(5)).await;
    // Every line of standard output is a record: `log` would have failed.
    assert!(process.log().len() > 6);
}

#[tokio::test]
async fn a_hostile_request_stays_on_its_line() {
    let process = Setup::sqlite().serve().await;
    let agent = "x".repeat(6000);
    let body = json!({ "username": "a\n{\"level\":\"ERROR\"}", "password": PASSWORD });
    let url = format!("{}/api/v1/auth/login", process.base);
    let media = [("content-type", "application/json"), ("user-agent", &*agent)];
    attempt("POST", &url, &media, &body.to_string()).await.unwrap().expect(401);
    for path in ["/%0a%0d%1b[2Jx", "/a%00b"] {
        attempt("GET", &format!("{}{path}", process.base), &[], "").await.unwrap();
    }
    process
        .until("logged", Duration::from_secs(2), async || {
            process.log().iter().filter(|line| line["logger"] == "access").count() >= 4
        })
        .await;
    assert!(!process.stdout.so_far().contains('\u{1b}'));
    assert!(process.log().iter().all(|line| line["level"] != "ERROR"));
}

#[tokio::test]
async fn lines_for_people_are_written_where_they_are_asked_for() {
    let setup = Setup::sqlite().set("LOG_JSON_OUTPUT", "false");
    let mut process = setup.spawn(&["serve"]);
    let stdout = async || process.stdout.so_far().contains("ready");
    process.until("ready", super::PATIENCE, stdout).await;
    assert!(process.stdout.so_far().lines().all(|line| !line.starts_with('{')));
    assert!(!process.stdout.so_far().contains('\u{1b}'), "colours without a terminal");
    process.stop(Duration::from_secs(3)).await;
}

#[tokio::test]
async fn the_log_goes_to_a_file_as_well_and_all_of_it_is_there_at_the_end() {
    let setup = Setup::sqlite().set("LOG_FILE", "logs/tollgate.log");
    let mut process = setup.serve().await;
    for _ in 0..20 {
        process.client().get("/health/live").await.expect(200);
    }
    process.stop(Duration::from_secs(5)).await;
    let file = fs::read_to_string(setup.path().join("logs/tollgate.log")).unwrap();
    // Each has its own time, and threads may overtake each other between the two.
    let messages = |text: &str| {
        let record = |line| serde_json::from_str::<Value>(line).unwrap()["message"].to_string();
        let mut messages: Vec<_> = text.lines().map(record).collect();
        messages.sort_unstable();
        messages
    };
    assert_eq!(messages(&file), messages(&process.stdout.all()));
    assert_eq!(process.log().last().unwrap()["message"], "stopped");
}

/// G-56: the pipe is full, and requests go on.
#[tokio::test]
async fn a_reader_that_stands_still_holds_up_no_request() {
    const REQUESTS: usize = 2000;
    let _alone = alone().await;
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let setup = Setup::sqlite().set("SERVER_PORT", &port.to_string());
    // Nobody ever reads what it writes.
    let mut child = Command::new(PROGRAM)
        .arg("serve")
        .current_dir(setup.path())
        .env_clear()
        .envs(&setup.environment)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let base = format!("http://127.0.0.1:{port}");
    let start = Instant::now();
    while attempt("GET", &format!("{base}/health/ready"), &[], "")
        .await
        .is_none_or(|a| a.status != 200)
    {
        assert!(start.elapsed() < PATIENCE, "it does not start");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let url = format!("{base}/health/live");
    // A pipe holds 64 KiB: a line each is more than that in the first half.
    let mut halves = [vec![], vec![]];
    for half in &mut halves {
        for _ in 0..REQUESTS / 2 {
            let start = Instant::now();
            let answer = attempt("GET", &url, &[], "").await;
            assert!(answer.is_some_and(|answer| answer.status == 200), "it stands still");
            half.push(start.elapsed());
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let p99 = halves.map(|mut half| {
        half.sort_unstable();
        half[half.len() * 99 / 100]
    });
    println!("p99 before and after the pipe was full: {p99:?}");
    // What a busy machine costs both halves alike is not the pipe's.
    assert!(p99[1] <= p99[0] * 3 + Duration::from_millis(5), "{p99:?}");
}

#[tokio::test]
async fn what_is_logged_can_be_changed_for_a_while() {
    let setup =
        Setup::shared().await.set("LOG_LEVEL", "WARN,tollgate::cli=info,tollgate::jobs=info");
    let process = setup.serve().await;
    let admin = process.admin().await;
    let path = "/api/v1/admin/log-level";
    let shown = admin.get(path).await.expect(200);
    assert!(shown.json["expires_at"].is_null(), "{shown:?}");
    assert_eq!(shown.json["level"], shown.json["configured"]);
    let access = || process.log().iter().filter(|line| line["logger"] == "access").count();
    let operations = || process.log().iter().filter(|line| line["logger"] == "operation").count();
    assert_eq!((access(), operations()), (0, 0));

    let wanted = json!({ "level": "warn,access=info,operation=debug,tollgate=info",
        "expires_in_seconds": 3 });
    let changed = admin.put(path, wanted.clone()).await.expect(200);
    assert_eq!(changed.json["level"], wanted["level"]);
    assert!(changed.json["expires_at"].is_string());
    admin.get("/api/v1/users/me").await.expect(200);
    admin.get("/api/v1/admin/users").await.expect(200);
    process.until("logged", PATIENCE, async || access() > 0 && operations() > 1).await;
    let ended = process.log().into_iter().find(|line| line["message"] == "ended").unwrap();
    assert!(ended["duration_ms"].is_f64() && ended["operation"].is_string(), "{ended}");
    let message = "the level of the log is as configured again";
    let over = async || admin.get(path).await.expect(200).json["expires_at"].is_null();
    process.until("over", PATIENCE, over).await;
    assert!(process.logged(message).is_none(), "it is said at a level that is off again");
    let before = access();
    admin.get("/api/v1/users/me").await.expect(200);
    assert_eq!(access(), before);

    for bad in ["verbose", "tollgate=loud", "", &"a=info,".repeat(200)] {
        let refused = admin.put(path, json!({ "level": bad })).await;
        refused.expect_problem(422, "validation_failed");
    }
    let rows = admin.get("/api/v1/admin/audit?action=log_level.changed").await.expect(200);
    assert_eq!(rows.json["items"].as_array().unwrap().len(), 1, "{rows:?}");
}
