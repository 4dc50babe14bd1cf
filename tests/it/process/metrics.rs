//! `/metrics`, and which hosts are answered.

use std::{collections::HashMap, io::Write as _, net::TcpListener, process::Stdio};

use tollgate::telemetry::catalog::{Kind, METRICS};

use super::{PASSWORD, Process, Setup, attempt};
use crate::support::promtool;

const TOKEN: &str = "k3Jq0ZxW-metrics-81";

#[tokio::test]
async fn the_metrics_need_their_token_where_one_is_set() {
    let open = Setup::sqlite().serve().await;
    let metrics = open.client().get("/metrics").await.expect(200);
    let text = String::from_utf8(metrics.body.to_vec()).unwrap();
    assert!(text.contains("tollgate_http_requests_total{"), "{text}");
    assert!(metrics.header("content-type").starts_with("text/plain; version=0.0.4"));

    let closed = Setup::sqlite().set("METRICS_TOKEN", TOKEN).serve().await;
    let client = closed.client();
    client.with_bearer(TOKEN).get("/metrics").await.expect(200);
    let key = closed.key(&closed.admin().await).await.1;
    let login = closed.token("admin", PASSWORD).await;
    for wrong in ["", TOKEN.strip_suffix('1').unwrap(), &format!("{TOKEN}1"), &key, &login] {
        let refused = client.with_bearer(wrong).get("/metrics").await;
        let refused = refused.expect_problem(401, "invalid_credential");
        refused.header("www-authenticate");
    }
    client.get("/metrics").await.expect(401);
    client.with("authorization", &format!("Basic {TOKEN}")).get("/metrics").await.expect(401);
}

#[tokio::test]
async fn the_metrics_can_have_a_port_of_their_own() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let setup = Setup::sqlite()
        .set("METRICS_PORT", &port.to_string())
        .set("METRICS_TOKEN", TOKEN)
        .set("SERVER_TRUSTED_HOSTS", "gate.example.com");
    let process = setup.serve_as("gate.example.com").await;
    let bearer = format!("Bearer {TOKEN}");
    let own = format!("http://127.0.0.1:{port}");
    let get = async |url: String, bearer: &str| {
        let fields = [("authorization", bearer), ("x-request-id", "scrape-1")];
        attempt("GET", &url, &fields, "").await.unwrap()
    };
    let metrics = get(format!("{own}/metrics"), &bearer).await.expect(200);
    let text = String::from_utf8(metrics.body.to_vec()).unwrap();
    assert!(text.contains("tollgate_http_requests_total{"), "{text}");
    assert_eq!(metrics.header("x-request-id"), "scrape-1");
    let refused = get(format!("{own}/metrics"), "Bearer nonsense").await;
    let refused = refused.expect_problem(401, "invalid_credential");
    assert_eq!(refused.json["request_id"], "scrape-1");
    for path in ["/", "/health", "/api/v1/users/me", "/api/v1/proxy/x", "/api/docs"] {
        get(format!("{own}{path}"), &bearer).await.expect_problem(404, "not_found");
    }
    let wrong = attempt("POST", &format!("{own}/metrics"), &[], "").await.unwrap();
    wrong.expect_problem(405, "method_not_allowed");

    let host = [("host", "gate.example.com"), ("authorization", &*bearer)];
    let main = attempt("GET", &format!("{}/metrics", process.base), &host, "").await.unwrap();
    main.expect_problem(404, "not_found");
}

#[tokio::test]
async fn only_trusted_hosts_are_answered() {
    let setup = Setup::sqlite().set("SERVER_TRUSTED_HOSTS", "gate.example.com,[::1]");
    let process = setup.serve_as("gate.example.com").await;
    for path in ["/health/live", "/api/v1/users/me", "/api/v1/proxy/x", "/nothing"] {
        let url = format!("{}{path}", process.base);
        for host in ["gate.example.com", "GATE.example.com:8443", "[::1]:80"] {
            let answer = attempt("GET", &url, &[("host", host)], "").await.unwrap();
            assert_ne!(answer.json["code"], "invalid_host", "{host}: {answer:?}");
        }
        for host in ["127.0.0.1", "evil.example.com", "gate.example.com.evil.example"] {
            // What a stranger claims to have been asked for is no better.
            let fields = [("host", host), ("x-forwarded-host", "gate.example.com")];
            let answer = attempt("GET", &url, &fields, "").await.unwrap();
            answer.expect_problem(400, "invalid_host");
        }
    }
    // The container's own probe asks the loopback, which is not on the list.
    let port = process.base.rsplit(':').next().unwrap();
    let probe = setup.clone().set("SERVER_PORT", port);
    probe.run(&["healthcheck"], "").await.expect(0);
}

async fn scrape(process: &Process) -> String {
    let metrics = process.client().get("/metrics").await.expect(200);
    String::from_utf8(metrics.body.to_vec()).unwrap()
}

/// What a series shows; 0 where it is not there yet.
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().unwrap())
}

/// Some of everything: keys, limits, an upstream, logins, and what is refused.
async fn visit(process: &Process) {
    let admin = process.admin().await;
    let (_, key) = process.key(&admin).await;
    let caller = process.client().with("x-api-key", &key);
    for _ in 0..3 {
        caller.get("/api/v1/proxy/hello").await.expect(200);
    }
    caller.get("/api/v1/nothing").await.expect(404);
    caller.post("/api/v1/proxy/echo", serde_json::json!({ "sent": true })).await.expect(200);
}

#[tokio::test]
async fn every_metric_that_is_shown_is_listed_with_its_kind_and_explained() {
    let process = Setup::shared().await.serve().await;
    visit(&process).await;
    let text = scrape(&process).await;
    let listed: HashMap<_, _> = METRICS.iter().map(|metric| (metric.name, metric)).collect();
    let mut shown = 0;
    for line in text.lines() {
        let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|it| it.split_once(' '))
        else {
            continue;
        };
        let metric = listed.get(name).unwrap_or_else(|| panic!("{name} is not listed"));
        let expected = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        assert_eq!(kind, expected, "{name}");
        assert!(text.contains(&format!("# HELP {name} {}", metric.help)), "{name}");
        shown += 1;
    }
    assert!(shown > 30, "{shown}: {text}");
    // Labels too: a new one must be thought of before it is shown.
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, labels)) = line.split_once('{') else { continue };
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let metric = listed.get(name).or_else(|| listed.get(base?)).unwrap();
        let labels = labels.split_once("} ").unwrap().0;
        for label in labels.split("\",").filter_map(|label| label.split_once('=')) {
            let known = metric.labels.split(", ").any(|known| known == label.0);
            assert!(known || label.0 == "le", "{line}");
        }
    }
}

#[tokio::test]
async fn what_happened_is_in_the_metrics() {
    let process = Setup::sqlite().serve().await;
    let before = scrape(&process).await;
    visit(&process).await;
    let after = scrape(&process).await;
    for (series, least) in [
        (r#"tollgate_http_requests_total{surface="gateway",upstream="echo",status="2xx"}"#, 4.0),
        (r#"tollgate_http_requests_total{surface="api",upstream="",status="4xx"}"#, 1.0),
        (r#"tollgate_http_request_bytes_total{surface="gateway",upstream="echo"}"#, 10.0),
        (r#"tollgate_http_response_bytes_total{surface="gateway",upstream="echo"}"#, 10.0),
        (r#"tollgate_cache_lookups_total{cache="key",level="database"}"#, 1.0),
        (r#"tollgate_cache_lookups_total{cache="key",level="memory"}"#, 3.0),
        (r#"tollgate_database_call_duration_seconds_count{operation="api_keys"}"#, 1.0),
        (r#"tollgate_database_call_duration_seconds_count{operation="commit"}"#, 1.0),
        (r#"tollgate_limit_results_total{tier="login",decision="admitted"}"#, 1.0),
        ("tollgate_argon2_duration_seconds_count", 1.0),
        ("tollgate_journal_records_total", 4.0),
    ] {
        let more = value(&after, series) - value(&before, series);
        assert!(more >= least, "{series}: {more}\n{after}");
    }
    for (series, least) in [
        (r#"tollgate_database_connections_max{pool="writer"}"#, 1.0),
        ("process_resident_memory_bytes", 1e6),
        ("process_open_fds", 5.0),
        ("process_max_fds", 5.0),
        ("process_start_time_seconds", 1.6e9),
        ("process_cpu_seconds_total", 0.001),
        ("tollgate_phase", 1.0),
    ] {
        assert!(value(&after, series) >= least, "{series}\n{after}");
    }
}

#[tokio::test]
async fn the_checker_of_prometheus_finds_nothing_to_say() {
    let Some(mut command) = promtool() else { return };
    command.args(["check", "metrics"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut checker = command.spawn().unwrap();
    let process = Setup::shared().await.serve().await;
    visit(&process).await;
    let text = scrape(&process).await;
    checker.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let said = checker.wait_with_output().unwrap();
    let words = [said.stdout, said.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    assert!(said.status.success() && words.trim().is_empty(), "{words}");
}
