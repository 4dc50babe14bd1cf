//! What it writes about a request.

use std::time::Duration;

use serde_json::{Value, json};

use super::{PASSWORD, Process, Setup, attempt, upstream::Slow};

/// The access lines of the request with this id.
fn lines(process: &Process, id: &str) -> Vec<Value> {
    let records = process.log().into_iter();
    records.filter(|line| line["target"] == "access" && line["request.id"] == id).collect()
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
        assert!(line["duration_ms"].is_f64(), "{line}");
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'), "{line}");
        let logged = line["path"].as_str().unwrap();
        assert!(!logged.contains('?') && !line.to_string().contains("joy"), "{line}");
        if id == "a-2" {
            assert_eq!(logged, "/api/v1/proxy/some/A/where");
            assert_eq!(line["key.id"], *key_id);
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
            process.log().iter().filter(|line| line["target"] == "access").count() >= 4
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
