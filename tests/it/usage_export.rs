//! Usage as a file.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use tollgate::{
    domain::{
        id::{LogPlace, RecordId},
        usage::{Outcome, UsageRecord},
    },
    repositories::Repositories as _,
};
use uuid::Uuid;

use crate::support::{Answer, Client, TestApp, epoch, raw::Raw};

const HELLO: &str = "/api/v1/proxy/hello";
const EXPORT: &str = "/api/v1/usage/export";
const DAY: &str = "from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z";

fn lines(answer: &Answer) -> Vec<Value> {
    let text = std::str::from_utf8(&answer.body).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn cells(answer: &Answer) -> Vec<Vec<String>> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(&answer.body[..]);
    reader.records().map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect()
}

async fn export(client: &Client, query: &str) -> Answer {
    client.get(&format!("{EXPORT}?{DAY}&{query}")).await.expect(200)
}

/// A log that is longer than what sockets hold.
async fn log(app: &TestApp, from: i64, count: i64) {
    let record = |number: i64| {
        let at: DateTime<Utc> = epoch() + TimeDelta::milliseconds(number);
        UsageRecord {
            id: RecordId::new(at),
            request_id: number.to_string(),
            at,
            method: "GET".into(),
            path: format!("/{}", "x".repeat(500)),
            status: 200,
            outcome: Outcome::Completed,
            duration_us: 0,
            bytes_in: 0,
            bytes_out: 0,
            user_id: None,
            key_id: None,
            pass_id: None,
            upstream: "echo".into(),
            route: "/**".into(),
            is_stream: false,
            messages: 0,
            place: LogPlace::at(at.timestamp_micros().unsigned_abs(), Uuid::nil()),
        }
    };
    for start in (from..from + count).step_by(1000) {
        let records: Vec<_> = (start..(start + 1000).min(from + count)).map(record).collect();
        let mut tx = app.app.db.begin().await.unwrap();
        tx.usage().log_requests(&records).await.unwrap();
        tx.commit().await.unwrap();
    }
}

const LONG: i64 = 20_000;

/// The request for an export as it is sent, by somebody who is logged in.
async fn asking(app: &TestApp, query: &str) -> String {
    let pair = app.login("admin", crate::support::PASSWORD).await.expect(200);
    let token = pair.text("access_token").to_owned();
    format!(
        "GET {EXPORT}?{DAY}&{query} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\r\n"
    )
}

async fn begin(app: &TestApp, request: &str) -> Raw {
    let mut reader = Raw::connect(app.running.as_ref().unwrap().address()).await;
    reader.send(request).await;
    reader.until(b"\r\n\r\n").await;
    reader
}

#[tokio::test]
async fn a_file_has_the_rows_of_the_report() {
    let (app, clock) = TestApp::with_clock().await;
    let (id, key) = app.key(&app.admin().await, json!({ "name": "k" })).await;
    for _ in 0..3 {
        clock.advance(TimeDelta::minutes(40));
        key.get(HELLO).await.expect(200);
    }
    app.flush().await;
    let admin = app.admin().await;
    for query in [
        "interval=day",
        "interval=hour",
        "interval=day&group_by=key",
        "interval=hour&group_by=route",
    ] {
        let report = admin.get(&format!("/api/v1/usage/all?{DAY}&{query}")).await.expect(200);
        let expected = report.json["items"].as_array().unwrap();
        assert!(!expected.is_empty());
        let file = export(&admin, &format!("format=ndjson&{query}")).await;
        assert_eq!(&lines(&file), expected, "{query}");
        assert_eq!(file.header("content-type"), "application/x-ndjson");
        let disposition = "attachment; filename=\"usage-2026-01-01-2026-01-02.ndjson\"";
        assert_eq!(file.header("content-disposition"), disposition);

        let file = export(&admin, query).await;
        assert_eq!(file.header("content-type"), "text/csv; charset=utf-8; header=present");
        let rows = cells(&file);
        assert_eq!(rows.len(), expected.len() + 1);
        for (row, item) in rows[1..].iter().zip(expected) {
            for (name, cell) in rows[0].iter().zip(row) {
                let value = match name.strip_prefix("duration_ms_") {
                    Some(name) => &item["duration_ms"][name],
                    None => &item[name],
                };
                match value {
                    Value::Null => assert_eq!(cell, "", "{name}"),
                    Value::String(text) => assert_eq!(cell, text, "{name}"),
                    // serde_json may read the last digit of a float otherwise.
                    number => {
                        let (cell, number): (f64, _) = (cell.parse().unwrap(), number.as_f64());
                        let off = (cell - number.unwrap()).abs();
                        assert!(off <= cell.abs() * 1e-12, "{name}: {cell}, {number:?}");
                    }
                }
            }
        }
    }
    let file = export(&admin, "kind=requests&format=ndjson").await;
    let mut log = admin.get("/api/v1/usage/requests?all=true").await.expect(200).json["items"]
        .as_array()
        .unwrap()
        .clone();
    log.reverse();
    assert_eq!(lines(&file), log);
    assert_eq!(lines(&file)[0]["key_id"], json!(id));
    let rows = cells(&export(&admin, "kind=requests").await);
    assert_eq!(rows.len(), 4);
    assert_eq!(rows[0].len(), rows[1].len());
    // Nothing to tell is a file, too.
    let none = "from=2025-01-01T00:00:00Z&to=2025-02-01T00:00:00Z&group_by=user";
    let empty = admin.get(&format!("{EXPORT}?{none}")).await.expect(200);
    assert_eq!(cells(&empty).len(), 1);
}

#[tokio::test]
async fn a_cell_that_a_client_made_up_is_no_formula() {
    let (app, _clock) = TestApp::with_clock().await;
    let admin = app.admin().await;
    let (_, key) = app.key(&admin, json!({ "name": "k" })).await;
    let formulas = ["=1+1", "+1", "-1", "@SUM(A1)", "=HYPERLINK(\"http://a.example\")"];
    for formula in formulas {
        key.clone().with("x-request-id", formula).get(HELLO).await.expect(200);
    }
    let method = http::Method::from_bytes(b"-A1").unwrap();
    key.send(method, HELLO, None, bytes::Bytes::new()).await;
    app.flush().await;
    let rows = cells(&export(&admin, "kind=requests").await);
    let column = |name: &str| rows[0].iter().position(|cell| cell == name).unwrap();
    let (ids, methods) = (column("request_id"), column("method"));
    for (row, formula) in rows[1..].iter().zip(formulas) {
        assert_eq!(row[ids], format!("'{formula}"));
    }
    assert_eq!(rows.last().unwrap()[methods], "'-A1");
    for cell in rows.iter().flatten() {
        assert!(!cell.starts_with(['=', '+', '-', '@', '\t', '\r']), "{cell}");
    }
}

#[tokio::test]
async fn exports_are_for_admins_and_of_sensible_spans() {
    let app = TestApp::start().await;
    let (admin, user) = (app.admin().await, app.user("ada").await);
    let (_, key) = app.key(&admin, json!({ "name": "k" })).await;
    user.get(EXPORT).await.expect_problem(403, "role_required");
    key.get(EXPORT).await.expect(403);
    app.anonymous().get(EXPORT).await.expect(401);
    for query in [
        "format=xlsx",
        "kind=keys",
        "interval=month",
        "group_by=colour",
        "from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z",
        "interval=hour&from=2000-01-01T00:00:00Z",
    ] {
        let answer = admin.get(&format!("{EXPORT}?{query}")).await;
        answer.expect_problem(422, "validation_failed");
    }
}

/// More of them than there are connections to the database.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers_hold_no_connection_to_the_database() {
    let (app, _clock) = TestApp::with_clock().await;
    log(&app, 0, LONG).await;
    let request = asking(&app, "kind=requests&format=ndjson").await;
    let mut readers = vec![];
    for _ in 0..12 {
        readers.push(begin(&app, &request).await);
    }
    // Until nobody is handed anything more.
    let mut before = app.app.db.acquired();
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = app.app.db.acquired();
        if now == before {
            break;
        }
        before = now;
    }
    let mut sessions = vec![];
    for _ in 0..4 {
        sessions.push(app.app.db.session().await.unwrap());
    }
    drop(sessions);
    // None was read to its end, and each goes on where it stood.
    let mut answer = readers.pop().unwrap();
    let answer = answer.answer().await.unwrap();
    assert!(answer.complete && before < app.app.db.acquired());
    let found = answer.text().lines().count();
    assert_eq!(found, usize::try_from(LONG).unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_meanwhile_repeats_and_hides_no_row() {
    let (app, _clock) = TestApp::with_clock().await;
    log(&app, 0, LONG).await;
    let request = asking(&app, "kind=requests&format=ndjson").await;
    let mut reader = begin(&app, &request).await;
    // Behind where the reader is, and in front of it.
    log(&app, LONG, 2000).await;
    let answer = reader.answer().await.unwrap();
    assert!(answer.complete);
    let numbers: Vec<i64> = answer
        .text()
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["request_id"]
                .as_str()
                .unwrap()
                .parse()
                .unwrap()
        })
        .collect();
    assert!(numbers.len() >= usize::try_from(LONG).unwrap());
    assert!(numbers.iter().copied().eq(0..i64::try_from(numbers.len()).unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_that_fails_half_way_has_no_proper_end() {
    let (app, _clock) = TestApp::with_clock().await;
    log(&app, 0, LONG).await;
    let request = asking(&app, "kind=requests&format=ndjson").await;
    let mut reader = begin(&app, &request).await;
    app.app.db.close().await;
    let answer = reader.answer().await.unwrap();
    assert!(!answer.complete, "{} lines", answer.text().lines().count());
    // One that cannot begin is told so.
    let mut late = Raw::connect(app.running.as_ref().unwrap().address()).await;
    late.send(&request).await;
    assert_eq!(late.answer().await.unwrap().status, 503);
}
