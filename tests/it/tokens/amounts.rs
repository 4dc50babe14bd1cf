//! Numbers that are not whole, not numbers, or out of all bounds (RELIABILITY
//! G-75): refused, never rounded, never wrapped.

use http::Method;
use serde_json::Value;

use super::{ADMIN, Customer, PURCHASE, shop};

/// As they stand in the body, so that what no program would write is there too.
const NO_LENGTHS: [&str; 23] = [
    "-1",
    "-24",
    "1.5",
    "24.0",
    "2.4e1",
    "24e0",
    "1e309",
    "-1e309",
    "1e-400",
    "\"24\"",
    "\"\"",
    "null",
    "true",
    "[24]",
    "{}",
    "NaN",
    "Infinity",
    "0x18",
    "024",
    "+24",
    "4294967296",
    "9223372036854775807",
    "18446744073709551616",
];

#[tokio::test]
async fn a_length_that_is_no_whole_number_is_refused() {
    let (app, _) = shop(&[]).await;
    let ada = Customer::with(&app, 5000).await;
    let admin = app.admin().await;
    for number in NO_LENGTHS {
        let bought = format!(r#"{{"duration_hours":{number}}}"#);
        let given = format!(r#"{{"duration_hours":{number},"user_id":"{}"}}"#, ada.id);
        for (client, path, body) in [(&ada.client, PURCHASE, bought), (&admin, ADMIN, given)] {
            let json = serde_json::from_str::<Value>(&body).is_ok();
            let answer = client.send(Method::POST, path, Some("application/json"), body.into());
            let answer = answer.await;
            // Beyond what any parser reads, it is no JSON: 1e309 among them.
            let (status, code) =
                if json { (422, "validation_failed") } else { (400, "invalid_json") };
            let answer = answer.expect_problem(status, code);
            if json {
                assert_eq!(answer.json["errors"][0]["field"], "duration_hours", "{number}");
            }
        }
    }
    assert_eq!(ada.balance(&app).await, 5000);
    assert_eq!(ada.tokens().await, [Value::Null; 0]);
}

#[tokio::test]
async fn a_grant_has_any_length_up_to_ten_years() {
    let (app, clock) = shop(&[]).await;
    let ada = Customer::with(&app, 0).await;
    let admin = app.admin().await;
    let grant = async |hours: u32| {
        let body = serde_json::json!({ "user_id": ada.id, "duration_hours": hours });
        admin.post(ADMIN, body).await
    };
    for hours in [0, 87_601, u32::MAX] {
        let refused = grant(hours).await.expect_problem(422, "validation_failed");
        assert_eq!(refused.json["errors"][0]["field"], "duration_hours", "{hours}");
    }
    for hours in [1, 5, 12, 87_600] {
        let given = grant(hours).await.expect(201);
        assert_eq!(given.json["duration_hours"], hours);
        let pass = super::activate(&app, &given.json).await.unwrap();
        let lasts = pass.expires_at().unwrap() - pass.activated_at.unwrap();
        assert_eq!(lasts, chrono::TimeDelta::hours(i64::from(hours)));
        clock.advance(chrono::TimeDelta::seconds(1));
    }
    let last = &ada.tokens().await[0];
    assert_eq!(last["expires_at"], "2035-12-30T00:00:03Z", "the longest one ends in range");
}
