//! Traces of a real process: what a collector costs that is not there, and what is
//! told at the end.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{LATE, PATIENCE, Process, Setup};
use crate::support::{otlp::Receiver, recorder::Reply};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const LOST: &str = "the collector of traces did not take spans";
const SECRET: &str = "let-me-in-5d9c";

fn traced(receiver: &Receiver, delay: &str) -> Setup {
    Setup::sqlite()
        .set("UPSTREAM_AUTH", "public")
        .set("OTEL_EXPORTER_OTLP_ENDPOINT", &receiver.url())
        .set("OTEL_EXPORTER_OTLP_HEADERS", &format!("authorization=Bearer%20{SECRET}"))
        .set("OTEL_BSP_SCHEDULE_DELAY", delay)
}

async fn ask(process: &Process, times: usize) {
    let client = process.client();
    let client = client.with("traceparent", &format!("00-{TRACE}-00f067aa0ba902b7-01"));
    for _ in 0..times {
        client.get("/api/v1/proxy/x").await.expect(200);
    }
}

#[tokio::test]
async fn a_stop_tells_what_has_not_been_told() {
    let receiver = Receiver::start().await;
    let mut process = traced(&receiver, "600000").serve().await;
    ask(&process, 3).await;
    assert!(receiver.deliveries().is_empty());
    let in_log = |line: &Value| line["logger"] == "access" && line["trace_id"] == TRACE;
    let logged = async || process.log().iter().filter(|line| in_log(line)).count() == 3;
    process.until("logged", PATIENCE, logged).await;
    process.stop(Duration::from_secs(5)).await;
    let spans = receiver.spans();
    let servers = spans.iter().filter(|span| span.is_server() && span.trace == TRACE);
    assert_eq!(servers.count(), 3, "{spans:#?}");
    assert!(receiver.deliveries()[0].head.contains(SECRET));
    assert!(!process.stdout.all().contains(SECRET));
}

#[tokio::test]
async fn a_stop_waits_two_seconds_for_a_collector_that_hangs() {
    let receiver = Receiver::saying(|_| Reply::Hang).await;
    let mut process = traced(&receiver, "10").serve().await;
    ask(&process, 3).await;
    receiver.until(1, |_| true).await;
    let start = Instant::now();
    process.stop(Duration::from_secs(10)).await;
    assert!(start.elapsed() < Duration::from_secs(4) + LATE, "{:?}", start.elapsed());
    assert!(process.logged("the collector of traces did not take the last spans").is_some());
}

/// Whatever it says: one line for all of them, a count, and no secret.
#[tokio::test]
async fn a_collector_that_refuses_is_one_line_of_the_log() {
    for (answer, reason) in [("401 Unauthorized", "refused"), ("500 Oops", "refused")] {
        let receiver = Receiver::saying(move |_| {
            let head = format!("HTTP/1.1 {answer}\r\ncontent-length: {}\r\n\r\n", SECRET.len());
            Reply::Send(format!("{head}{SECRET}").into_bytes())
        })
        .await;
        let process = traced(&receiver, "1").set("LOG_LEVEL", "TRACE").serve().await;
        for asked in 1..=5 {
            ask(&process, 1).await;
            let refused = async || receiver.deliveries().len() >= asked;
            process.until("refused", PATIENCE, refused).await;
        }
        let lost = |name: &str, text: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.map_or(0, |count| count.trim().parse::<u64>().unwrap())
        };
        let name = "tollgate_trace_spans_dropped_total{reason=\"failed\"}";
        let counted = async || {
            let metrics = process.client().get("/metrics").await.expect(200);
            lost(name, std::str::from_utf8(&metrics.body).unwrap()) >= 5
        };
        process.until("counted", PATIENCE, counted).await;
        let lines: Vec<_> =
            process.log().into_iter().filter(|line| line["message"] == LOST).collect();
        let [line] = &*lines else { panic!("{lines:?}") };
        assert_eq!((&line["level"], &line["reason"]), (&"WARN".into(), &reason.into()), "{line}");
        assert_eq!(line["status"], answer[..3].parse::<u16>().unwrap());
        assert!(!process.stdout.so_far().contains(SECRET), "{process:?}");
    }
}

/// As the settings say, and shown by no command.
#[tokio::test]
async fn a_secret_of_the_collector_is_shown_nowhere() {
    let receiver = Receiver::start().await;
    let setup = traced(&receiver, "10");
    for line in ["config show", "config check", "config show --output json"] {
        let ran = setup.run(&line.split(' ').collect::<Vec<_>>(), "").await.expect(0);
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert!(!said.contains(SECRET) && !said.contains("let-me-in"), "{said}");
        assert!(line.contains("check") || said.contains("********"), "{said}");
    }
    setup.write("headers", &format!("authorization=Bearer%20{SECRET}-from-a-file\n"));
    let mut from_file = setup.set("OTEL_EXPORTER_OTLP_HEADERS_FILE", "headers");
    from_file.environment.remove("OTEL_EXPORTER_OTLP_HEADERS");
    let process = from_file.serve().await;
    ask(&process, 1).await;
    receiver.until(1, |_| true).await;
    let sent = receiver.deliveries()[0].all("authorization")[0].to_owned();
    assert_eq!(sent, format!("Bearer {SECRET}-from-a-file"));
}
