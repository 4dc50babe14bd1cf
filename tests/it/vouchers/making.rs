//! Operators make vouchers, list them without their codes, and withdraw them.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use serde_json::{Value, json};
use tollgate::domain::money::MAX_AMOUNT;

use super::{make, one, redeem};
use crate::support::{TestApp, epoch};

#[tokio::test]
async fn a_batch_is_made_at_once_and_its_codes_are_shown_once() {
    let app = TestApp::unlimited().await;
    let admin = app.admin().await;
    let ends = epoch() + TimeDelta::days(36_500);
    let made = make(
        &admin,
        json!({ "count": 250, "amount_minor": 500, "expires_at": ends, "note": "fair", "max_uses": 2,
            "max_uses_per_user": 2 }),
    );
    let made = made.await.expect(201);
    assert_eq!(made.header("cache-control"), "no-store");
    let items = made.json["items"].as_array().unwrap();
    let codes: BTreeSet<_> = items.iter().map(|item| item["code"].as_str().unwrap()).collect();
    assert_eq!((items.len(), codes.len()), (250, 250));
    let me = admin.get("/api/v1/users/me").await.expect(200);
    for item in items {
        let code = item["code"].as_str().unwrap();
        assert_eq!(item["prefix"], code[..4]);
        assert_eq!(item["batch_id"], made.json["batch_id"]);
        for (field, value) in [
            ("amount_minor", json!(500)),
            ("duration_hours", json!(null)),
            ("upstream", json!(null)),
            ("max_uses", json!(2)),
            ("max_uses_per_user", json!(2)),
            ("uses", json!(0)),
            ("note", json!("fair")),
            ("created_by", me.json["id"].clone()),
            ("revoked_at", json!(null)),
        ] {
            assert_eq!(item[field], value, "{field}");
        }
    }
    one(&admin, json!({ "duration_hours": 1 })).await;

    let batch = made.text("batch_id");
    let path = format!("/api/v1/admin/vouchers?batch_id={batch}&limit=200");
    let first = admin.get(&path).await.expect(200);
    let next = format!("{path}&cursor={}", first.text("next_cursor"));
    let rest = admin.get(&next).await.expect(200);
    let listed =
        [&first, &rest].map(|page| page.json["items"].as_array().unwrap().clone()).concat();
    assert_eq!(listed.len(), 250);
    let ids = |items: &[Value]| -> BTreeSet<String> {
        items.iter().map(|item| item["id"].to_string()).collect()
    };
    assert_eq!(ids(&listed), ids(items));
    assert!(listed.iter().all(|item| item.get("code").is_none()));
    let all = admin.get("/api/v1/admin/vouchers?limit=1").await.expect(200);
    assert_eq!(all.json["items"][0]["duration_hours"], 1);
    for wrong in ["batch_id=7", "limit=0"] {
        let path = format!("/api/v1/admin/vouchers?{wrong}");
        admin.get(&path).await.expect_problem(422, "validation_failed");
    }
}

#[tokio::test]
async fn a_batch_is_a_table_for_those_who_ask_for_one() {
    let app = TestApp::unlimited().await;
    let (admin, ada) = (app.admin().await, app.user("ada").await);
    let asked = admin.with("accept", "text/csv");
    let fields = json!({ "count": 3, "amount_minor": 5, "note": "=HYPERLINK(\"http://x\",\"y\")" });
    let made = make(&asked, fields).await.expect(201);
    assert_eq!(made.header("content-type"), "text/csv; charset=utf-8; header=present");
    let name = made.header("content-disposition");
    assert!(
        name.starts_with("attachment; filename=\"vouchers-") && name.ends_with(".csv\""),
        "{name}"
    );
    let mut reader = csv::Reader::from_reader(&made.body[..]);
    let header: Vec<_> = reader.headers().unwrap().iter().map(str::to_owned).collect();
    assert_eq!(
        header.join(","),
        "code,id,batch_id,amount_minor,currency,duration_hours,upstream,expires_at,max_uses,\
         max_uses_per_user,note"
    );
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 3);
    for row in &rows {
        assert_eq!((&row[3], &row[4], &row[8]), ("5", "EUR", "1"));
        assert_eq!(&row[10], "'=HYPERLINK(\"http://x\",\"y\")");
        redeem(&ada, &row[0]).await.expect(200);
    }
    let refused = make(&asked, json!({})).await.expect_problem(422, "validation_failed");
    assert_eq!(refused.json["errors"][0]["field"], "amount_minor");
}

#[tokio::test]
async fn what_cannot_be_a_voucher_is_refused_with_every_wrong_field() {
    let app = TestApp::unlimited().await;
    let admin = app.admin().await;
    let past = epoch() - TimeDelta::days(365);
    for (fields, wrong) in [
        (json!({}), vec!["amount_minor"]),
        (json!({ "amount_minor": 5, "duration_hours": 5 }), vec!["amount_minor"]),
        (json!({ "amount_minor": 5, "upstream": "default" }), vec!["upstream"]),
        (json!({ "duration_hours": 5, "upstream": "nowhere" }), vec!["upstream"]),
        (json!({ "duration_hours": 0 }), vec!["duration_hours"]),
        (json!({ "duration_hours": 87_601 }), vec!["duration_hours"]),
        (json!({ "duration_hours": -1 }), vec!["duration_hours"]),
        (json!({ "amount_minor": 5, "count": 0 }), vec!["count"]),
        (json!({ "amount_minor": 5, "count": 1001 }), vec!["count"]),
        (json!({ "amount_minor": 5, "max_uses": 0 }), vec!["max_uses"]),
        (json!({ "amount_minor": 5, "max_uses": 2_147_483_648_u32 }), vec!["max_uses"]),
        (json!({ "amount_minor": 5, "max_uses_per_user": 0 }), vec!["max_uses_per_user"]),
        (json!({ "amount_minor": 5, "expires_at": past }), vec!["expires_at"]),
        (json!({ "amount_minor": 5, "expires_at": "tomorrow" }), vec!["expires_at"]),
        (json!({ "amount_minor": 5, "expires_at": "+10000-01-01T00:00:00Z" }), vec!["expires_at"]),
        (json!({ "amount_minor": 5, "note": "x".repeat(501) }), vec!["note"]),
        (json!({ "amount_minor": 5, "note": "a\u{0}b" }), vec!["note"]),
        (json!({ "amount_minor": 5, "code": "MINE" }), vec!["code"]),
        (
            json!({ "amount_minor": 0, "count": 0, "max_uses": 0, "note": "\n", "expires_at": past }),
            vec!["count", "amount_minor", "expires_at", "max_uses", "note"],
        ),
    ] {
        let refused = make(&admin, fields.clone()).await.expect_problem(422, "validation_failed");
        let named: BTreeSet<_> = refused.json["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e["field"].as_str().unwrap())
            .collect();
        let wrong: BTreeSet<_> = wrong.into_iter().collect();
        assert_eq!(json!(named), json!(wrong), "{fields}: {refused:?}");
    }
    // G-75.
    for amount in [
        "0",
        "-1",
        "1.5",
        "1e3",
        "1e309",
        "\"5\"",
        "true",
        "9223372036854775807",
        "9223372036854775808",
        "1000000000001",
    ] {
        let body = format!(r#"{{"amount_minor": {amount}}}"#);
        let media = Some("application/json");
        let path = "/api/v1/admin/vouchers";
        let answer = admin.send(http::Method::POST, path, media, body.into()).await;
        assert!(matches!(answer.status.as_u16(), 400 | 422), "{amount}: {answer:?}");
    }
    let none = admin.get("/api/v1/admin/vouchers").await.expect(200);
    assert_eq!(none.json["items"], json!([]));
    make(&admin, json!({ "amount_minor": MAX_AMOUNT, "count": 1000 })).await.expect(201);
}

#[tokio::test]
async fn a_voucher_is_withdrawn_once_and_for_all() {
    let app = TestApp::unlimited().await;
    let admin = app.admin().await;
    let (id, _) = one(&admin, json!({ "amount_minor": 5 })).await;
    let path = format!("/api/v1/admin/vouchers/{id}/revoke");
    let first = admin.post_empty(&path).await.expect(200);
    assert!(first.json["revoked_at"].is_string() && first.json.get("code").is_none());
    let again = admin.post_empty(&path).await.expect(200);
    assert_eq!(again.json, first.json);
    let unknown = format!("/api/v1/admin/vouchers/{}/revoke", uuid::Uuid::now_v7());
    admin.post_empty(&unknown).await.expect_problem(404, "not_found");
    admin.post_empty("/api/v1/admin/vouchers/7/revoke").await.expect_problem(404, "not_found");
}
