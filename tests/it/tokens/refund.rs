//! What comes back of a token, and what ending one does.

use chrono::TimeDelta;
use serde_json::{Value, json};
use tollgate::{
    domain::{id::UserId, ledger::Kind},
    repositories::Repositories,
};

use super::{Customer, DAY, activate, path, shop};
use crate::support::PASSWORD;

/// What a token of a day has been through when its owner wants the money back.
#[derive(Clone, Copy, Debug)]
enum Life {
    Unused,
    /// In use for so many seconds.
    Used(i64),
    Revoked,
    Refunded,
}

#[tokio::test]
async fn what_comes_back_is_what_the_policy_says() {
    use Life::{Refunded, Revoked, Unused, Used};
    const IN_FULL: Option<i64> = Some(DAY);
    let day = 24 * 3600;
    let cases = [
        ("never", vec![(Unused, None), (Used(1), None), (Revoked, None), (Used(day), None)]),
        (
            "unused",
            vec![
                (Unused, IN_FULL),
                (Used(0), None),
                (Used(day), None),
                (Revoked, None),
                (Refunded, None),
            ],
        ),
        (
            "pro_rata",
            vec![
                (Unused, IN_FULL),
                (Used(0), Some(DAY * 23 / 24)),
                (Used(3600), Some(DAY * 23 / 24)),
                (Used(3601), Some(DAY * 22 / 24)),
                (Used(12 * 3600), Some(DAY / 2)),
                (Used(day - 3600), Some(DAY / 24)),
                (Used(day - 1), Some(0)),
                (Used(day), None),
                (Revoked, None),
                (Refunded, None),
            ],
        ),
    ];
    for (policy, lives) in cases {
        let (app, clock) = shop(&[("TOKEN_REFUND", policy)]).await;
        let ada = Customer::with(&app, 100 * DAY).await;
        for (life, expected) in lives {
            let client = app.log_in(&ada.name, PASSWORD).await;
            let token = client.post(super::PURCHASE, json!({ "duration_hours": 24 })).await.json;
            match life {
                Unused => clock.advance(TimeDelta::days(40)),
                Used(seconds) => {
                    activate(&app, &token).await.unwrap();
                    clock.advance(TimeDelta::seconds(seconds));
                }
                Revoked => drop(client.post_empty(&path(&token, "revoke")).await.expect(200)),
                Refunded => drop(client.post_empty(&path(&token, "refund")).await.expect(200)),
            }
            let client = app.log_in(&ada.name, PASSWORD).await;
            let (before, booked) = (ada.balance(&app).await, ada.ledger(&app).await.len());
            let answer = client.post_empty(&path(&token, "refund")).await;
            let gained = ada.balance(&app).await - before;
            let case = format!("{policy} {life:?}: {answer:?}");
            if let Some(back) = expected {
                assert_eq!(answer.status, 200, "{case}");
                assert_eq!(answer.json["refunded_minor"], back, "{case}");
                assert_eq!(answer.json["status"], "refunded", "{case}");
                assert_eq!(answer.json["is_active"], false, "{case}");
                assert_eq!(gained, back, "{case}");
                assert!(activate(&app, &token).await.is_none(), "{case}");
                client.post_empty(&path(&token, "refund")).await.expect(409);
                assert_eq!(ada.balance(&app).await - before, back, "once only: {case}");
                let entries = usize::from(back > 0);
                assert_eq!(ada.ledger(&app).await.len(), booked + entries, "{case}");
            } else {
                answer.expect_problem(409, "not_refundable");
                assert_eq!((gained, ada.ledger(&app).await.len()), (0, booked), "{case}");
            }
        }
    }
}

#[tokio::test]
async fn a_refund_reverses_its_purchase_in_the_ledger() {
    let (app, clock) = shop(&[]).await;
    let ada = Customer::with(&app, 5000).await;
    let (_, token) = (ada.buy(24).await, ada.buy(24).await.json);
    clock.advance(TimeDelta::seconds(90));
    let answer = ada.client.post_empty(&path(&token, "refund")).await.expect(200);
    assert_eq!(answer.json["revoked_at"], "2026-01-01T00:01:30Z");
    assert_eq!(answer.json["token"], token["token"]);

    let ledger = ada.ledger(&app).await;
    let purchase = ledger
        .iter()
        .find(|entry| entry.pass_id.is_some_and(|id| id.to_string() == token["token_id"]))
        .map(|refund| ledger.iter().find(|entry| Some(entry.id) == refund.reverses_id).unwrap())
        .unwrap();
    assert_eq!((purchase.kind, purchase.amount_minor), (Kind::Purchase, -DAY));
    let refund = &ledger[0];
    assert_eq!((refund.kind, refund.amount_minor), (Kind::Refund, DAY));
    assert_eq!((refund.balance_after_minor, refund.seq), (5000 - DAY, 4));
    assert_eq!(refund.pass_id, purchase.pass_id);
    let mut session = app.app.db.session().await.unwrap();
    let entries = session.ledger().entries(ada.id, 4, 4).await.unwrap();
    let mut sides: Vec<_> =
        entries.iter().map(|entry| (UserId::from(entry.account_id), entry.amount_minor)).collect();
    sides.sort_by_key(|(_, amount)| *amount);
    assert_eq!(sides, [(UserId::from(uuid::Uuid::from_u128(1)), -DAY), (ada.id, DAY)]);
}

#[tokio::test]
async fn what_cost_nothing_is_given_back_for_nothing() {
    let (app, _) = shop(&[]).await;
    let ada = Customer::with(&app, 0).await;
    let token = ada.buy(168).await.json;
    let answer = ada.client.post_empty(&path(&token, "refund")).await.expect(200);
    assert_eq!(
        (&answer.json["refunded_minor"], &answer.json["status"]),
        (&json!(0), &json!("refunded"))
    );
    assert_eq!(ada.ledger(&app).await, []);
    ada.client.post_empty(&path(&token, "refund")).await.expect_problem(409, "not_refundable");
}

#[tokio::test]
async fn a_token_is_ended_once_and_asking_again_changes_nothing() {
    let (app, clock) = shop(&[]).await;
    let ada = Customer::with(&app, 5000).await;
    let one = ada.buy(24).await.json;
    clock.advance(TimeDelta::seconds(1));
    let two = ada.buy(24).await.json;
    activate(&app, &one).await.unwrap();
    let revoked = ada.client.post_empty(&path(&one, "revoke")).await.expect(200);
    assert_eq!(revoked.json["status"], "revoked");
    assert_eq!(revoked.json["revoked_at"], "2026-01-01T00:00:01Z");
    assert_eq!(revoked.json["token"], one["token"]);
    assert!(activate(&app, &one).await.is_none());
    let refunded = ada.client.post_empty(&path(&two, "refund")).await.expect(200);
    clock.advance(TimeDelta::seconds(5));
    for (token, ended) in [(&one, &revoked), (&two, &refunded)] {
        for prefix in ["/api/v1", "/api"] {
            let path = path(token, "revoke").replace("/api/v1", prefix);
            assert_eq!(ada.client.post_empty(&path).await.expect(200).json, ended.json);
        }
    }
    assert_eq!(ada.balance(&app).await, 5000 - DAY, "a revoked one stays paid");
    assert_eq!(ada.tokens().await, [refunded.json, revoked.json].map(Value::from));
}

#[tokio::test]
async fn a_refund_that_does_not_fit_into_the_wallet_ends_nothing() {
    let (app, _clock) = shop(&[]).await;
    let ada = Customer::with(&app, DAY).await;
    let client = app.log_in(&ada.name, PASSWORD).await;
    let bought = client.post("/api/v1/tokens/purchase", json!({ "duration_hours": 24 })).await;
    let refund = path(&bought.expect(201).json, "refund");
    let fill = "UPDATE ledger_accounts SET balance_minor = 1000000000000000 WHERE kind = 'wallet'";
    app.database.execute(fill).await;
    client.post_empty(&refund).await.expect_problem(409, "wallet_full");
    let listed = client.get("/api/v1/tokens/my-tokens").await.expect(200);
    assert_eq!(listed.json["items"][0]["status"], "unused");
}
