//! `tollgate wallet` and `tollgate vouchers`, the job that verifies the ledger,
//! and the start that a wrong currency ends.

use std::time::Duration;

use serde_json::{Value, json};

use super::{PATIENCE, Setup};

async fn json(setup: &Setup, arguments: &[&str]) -> Value {
    setup.run(&[arguments, &["--output", "json"]].concat(), "").await.expect(0).json()
}

const CREDIT: [&str; 8] =
    ["wallet", "credit", "--user", "admin", "--amount", "500", "--reason", "=paid in cash"];

#[tokio::test]
async fn wallets_are_credited_and_shown() {
    let setup = Setup::shared().await;
    let mut process = setup.serve().await;
    let booked = json(&setup, &CREDIT).await;
    assert_eq!((&booked["amount_minor"], &booked["currency"]), (&json!(500), &json!("EUR")));
    let keyed = [&CREDIT[..], &["--idempotency-key", "pay-1"]].concat();
    let first = json(&setup, &keyed).await;
    assert_eq!(first["balance_after_minor"], 1000);
    assert_eq!(json(&setup, &keyed).await, first, "the same key books nothing again");
    let wallet = process.admin().await.get("/api/v1/wallet").await.expect(200);
    assert_eq!(wallet.json["balance_minor"], 1000);

    let statement = ["wallet", "statement", "--user", "admin"];
    let printed = setup.run(&statement, "").await.expect(0).stdout;
    assert_eq!(printed.matches("\r\n").count(), 3, "{printed}");
    assert_eq!(printed.matches(",'=paid in cash\r\n").count(), 2, "{printed}");
    let none = [&statement[..], &["--to", "2020-01-01T00:00:00Z"]].concat();
    assert_eq!(setup.run(&none, "").await.expect(0).stdout.matches("\r\n").count(), 1);

    for (at, value, because) in
        [(3, "nobody", "no such user"), (7, "", "the reason"), (7, "a\nb", "the reason")]
    {
        let mut arguments = CREDIT;
        arguments[at] = value;
        let refused = setup.run(&arguments, "").await.expect(1);
        assert!(refused.stderr.contains(because), "{refused:?}");
    }
    let twice = [&keyed[..9], &["a b"]].concat();
    assert!(setup.run(&twice, "").await.expect(1).stderr.contains("idempotency key"));
    for amount in ["0", "-5", "1.5", "1000000000001", "5e2"] {
        let mut arguments = CREDIT;
        arguments[5] = amount;
        setup.run(&arguments, "").await.expect(2);
    }
    process.stop(Duration::from_secs(3)).await;
}

#[tokio::test]
async fn vouchers_are_made_listed_and_withdrawn() {
    let setup = Setup::shared().await;
    let mut process = setup.serve().await;
    let admin = process.admin().await;
    let create = ["vouchers", "create", "--amount", "300", "--count", "2", "--note", "fair"];
    let made = json(&setup, &create).await;
    let redeem =
        async |code: &Value| admin.post("/api/v1/wallet/redeem", json!({ "code": code })).await;
    redeem(&made[0]["code"]).await.expect(200);
    let listed =
        json(&setup, &["vouchers", "list", "--batch", made[0]["batch_id"].as_str().unwrap()]).await;
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert!(listed.as_array().unwrap().iter().all(|row| row.get("code").is_none()));
    let id = made[1]["id"].as_str().unwrap();
    for _ in 0..2 {
        setup.run(&["vouchers", "revoke", id], "").await.expect(0);
    }
    redeem(&made[1]["code"]).await.expect_problem(409, "voucher_revoked");

    let table = setup.run(&["vouchers", "create", "--hours", "24", "--csv"], "").await.expect(0);
    let line = table.stdout.lines().nth(1).unwrap();
    let token = redeem(&json!(line.split(',').next().unwrap())).await.expect(200);
    assert_eq!(token.json["token"]["duration_hours"], 24);

    for line in [
        "vouchers create",
        "vouchers create --amount 5 --hours 5",
        "vouchers create --amount 0",
        "vouchers revoke 7",
    ] {
        let arguments: Vec<_> = line.split(' ').collect();
        setup.run(&arguments, "").await.expect(2);
    }
    for (line, because) in [
        ("vouchers create --amount 5 --count 1001", "count"),
        ("vouchers create --hours 5 --upstream nowhere", "upstream"),
        ("vouchers create --amount 5 --upstream default", "upstream"),
        ("vouchers create --amount 5 --expires-at 2020-01-01T00:00:00Z", "expires_at"),
        ("vouchers revoke 01890a5d-ac96-774b-bcce-b302099a8057", "no such"),
    ] {
        let arguments: Vec<_> = line.split(' ').collect();
        let refused = setup.run(&arguments, "").await.expect(1);
        assert!(refused.stderr.contains(because), "{refused:?}");
    }
    process.stop(Duration::from_secs(3)).await;
}

/// RELIABILITY G-76.
#[tokio::test]
async fn a_ledger_that_is_wrong_is_told_by_the_command_the_log_the_metrics_and_health() {
    let setup = Setup::shared().await;
    let mut process = setup.serve().await;
    setup.run(&CREDIT, "").await.expect(0);
    let right = setup.run(&["wallet", "verify"], "").await.expect(0).stdout;
    assert_eq!(right, "1 wallets, 1 transactions and 0 tokens: 0 differences\n");
    process.stop(Duration::from_secs(3)).await;

    let database = setup.database.as_ref().unwrap();
    database.execute("UPDATE ledger_accounts SET balance_minor = 501 WHERE kind = 'wallet'").await;
    let wrong = setup.run(&["wallet", "verify"], "").await.expect(1).stdout;
    let lines: Vec<_> = wrong.lines().collect();
    assert_eq!(lines.len(), 2, "{wrong}");
    assert!(lines[0].starts_with("wallet "), "{wrong}");
    assert!(lines[0].ends_with(" balance: expected 500, found 501"), "{wrong}");
    assert!(lines[1].ends_with(": 1 differences"), "{wrong}");
    let lines = setup.run(&["wallet", "verify", "--output", "json"], "").await.expect(1).stdout;
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["difference"]["check"], "balance");
    assert_eq!(lines[1]["verified"]["differences"], 1);

    // As if nobody had verified it for an hour.
    database.execute("DELETE FROM settings WHERE name = 'ledger_verification'").await;
    let process = setup.serve().await;
    let told = async || {
        let metrics = process.client().get("/metrics").await.expect(200);
        String::from_utf8_lossy(&metrics.body).contains("tollgate_ledger_differences 1\n")
    };
    process.until("told", PATIENCE, told).await;
    let logged = process.logged("the ledger is wrong").unwrap();
    assert_eq!(logged["level"], "ERROR");
    assert!(logged.to_string().contains("balance: expected 500, found 501"), "{logged}");
    let metrics = process.client().get("/metrics").await.expect(200);
    let metrics = String::from_utf8_lossy(&metrics.body);
    let at = metrics.lines().find_map(|line| {
        line.strip_prefix("tollgate_ledger_verified_timestamp_seconds ")?.parse::<f64>().ok()
    });
    assert!(at.unwrap() > 1.7e9, "{metrics}");
    let health = process.client().get("/health").await.expect(200);
    assert_eq!(health.json["services"]["ledger"], "differences");
    assert_eq!(health.json["status"], "degraded");
    assert_eq!(process.client().get("/health/ready").await.expect(200).json["status"], "degraded");
}

#[tokio::test]
async fn a_currency_that_is_not_the_ledgers_ends_the_start() {
    let setup = Setup::shared().await;
    setup.run(&["migrate", "up"], "").await.expect(0);
    setup.clone().set("WALLET_CURRENCY", "USD").serve().await.stop(Duration::from_secs(3)).await;
    // Nothing was booked: it may change.
    let mut process = setup.serve().await;
    setup.run(&CREDIT, "").await.expect(0);
    process.stop(Duration::from_secs(3)).await;

    let dollars = setup.clone().set("WALLET_CURRENCY", "USD");
    for arguments in [&["serve"][..], &CREDIT[..], &["vouchers", "create", "--amount", "5"]] {
        let refused = dollars.run(arguments, "").await.expect(1);
        for part in ["WALLET_CURRENCY", "USD", "EUR"] {
            assert!(refused.stderr.contains(part), "{refused:?}");
        }
    }
    setup.serve().await.stop(Duration::from_secs(3)).await;
}
