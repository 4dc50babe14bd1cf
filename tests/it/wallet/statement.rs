//! The statement: CSV that a spreadsheet opens and runs nothing of.

use chrono::TimeDelta;
use serde_json::json;
use tollgate::domain::audit::SYSTEM;

use super::{PRICED, buy, credit, id_of};
use crate::support::{Answer, TestApp};

fn rows(answer: &Answer) -> Vec<Vec<String>> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(&answer.body[..]);
    reader.records().map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect()
}

#[tokio::test]
async fn a_statement_is_a_table_of_everything_oldest_first() {
    let app = TestApp::configured(PRICED).await;
    let (admin, ada) = (app.admin().await, app.user("ada").await);
    let id = id_of(&ada).await;
    let empty = ada.get("/api/v1/wallet/statement").await.expect(200);
    assert_eq!(rows(&empty).len(), 1, "the header stands alone");

    credit(&admin, &id, json!(1000), "cash, \"in hand\"").await.expect(201);
    let pass = buy(&app, &id, 24).await;
    let answer = ada.get("/api/v1/wallet/statement").await.expect(200);
    assert_eq!(answer.header("content-type"), "text/csv; charset=utf-8; header=present");
    assert_eq!(answer.header("content-disposition"), "attachment; filename=\"statement.csv\"");
    assert_eq!(answer.header("cache-control"), "no-store");
    let text = std::str::from_utf8(&answer.body).unwrap();
    assert_eq!(text.matches("\r\n").count(), text.lines().count(), "RFC 4180 ends lines with CRLF");
    let all = rows(&answer);
    let header = "created_at,id,kind,amount_minor,balance_after_minor,currency,token_id,voucher_id,\
                  reverses_id,reason";
    assert_eq!(all[0].join(","), header);
    assert_eq!(all[1][2..6], ["credit", "1000", "1000", "EUR"]);
    assert_eq!(all[1][9], "cash, \"in hand\"");
    assert_eq!(all[2][2..6], ["purchase", "-300", "700", "EUR"]);
    assert_eq!(all[2][6], pass.pass.id.to_string());
    assert_eq!(all.len(), 3);
}

#[tokio::test]
async fn what_an_admin_typed_is_no_formula() {
    let app = TestApp::unlimited().await;
    let (admin, ada) = (app.admin().await, app.user("ada").await);
    let id = id_of(&ada).await;
    let typed =
        ["=cmd|'/c calc'!A1", "+1", "-1+1", "@SUM(A1)", "=HYPERLINK(\"http://x\",\"y\")", "a=b"];
    for reason in typed {
        credit(&admin, &id, json!(1), reason).await.expect(201);
    }
    let all = rows(&ada.get("/api/v1/wallet/statement").await.expect(200));
    for (row, reason) in all[1..].iter().zip(typed) {
        let cell = if reason.starts_with('a') { reason.to_owned() } else { format!("'{reason}") };
        assert_eq!(row[9], cell);
    }
    assert_eq!(all.len(), 1 + typed.len());
}

#[tokio::test]
async fn a_statement_can_be_cut_at_two_instants_and_is_whole_over_many_parts() {
    let (app, clock) = TestApp::with_clock().await;
    let ada = app.user("ada").await;
    let id = id_of(&ada).await.parse().unwrap();
    let wallet = &app.app.services.wallet;
    let one = "1".parse().unwrap();
    // More than one part has.
    for _ in 0..1203 {
        wallet.credit(&SYSTEM, id, one, "step".to_owned(), None).await.unwrap();
        clock.advance(TimeDelta::milliseconds(500));
    }
    let start = crate::support::epoch();
    let iso = |ms| (start + TimeDelta::milliseconds(ms)).to_rfc3339().replace('+', "%2B");
    for (query, expected) in [
        (String::new(), 1..=1203),
        (format!("?from={}", iso(600_000)), 1201..=1203),
        (format!("?to={}", iso(1000)), 1..=2),
        (format!("?from={}&to={}", iso(500), iso(1001)), 2..=3),
        (format!("?from={}", iso(599_999)), 1201..=1203),
    ] {
        let answer = ada.get(&format!("/api/v1/wallet/statement{query}")).await.expect(200);
        let all = rows(&answer);
        let balances: Vec<i64> = all[1..].iter().map(|row| row[4].parse().unwrap()).collect();
        assert_eq!(balances, expected.collect::<Vec<_>>(), "{query}");
    }
    let none = ada.get(&format!("/api/v1/wallet/statement?to={}", iso(0))).await.expect(200);
    assert_eq!(rows(&none).len(), 1);
    for wrong in [
        "from=yesterday",
        "to=2026-13-01T00:00:00Z",
        "from=1969-01-01T00:00:00Z",
        "to=%2B10000-01-01T00:00:00Z",
    ] {
        let path = format!("/api/v1/wallet/statement?{wrong}");
        ada.get(&path).await.expect_problem(422, "validation_failed");
    }
}
