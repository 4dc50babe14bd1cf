//! `tollgate audit`, who ran a command, and what a kill leaves of a change and
//! its row.

use std::time::Duration;

use serde_json::{Value, json};
use tollgate::failpoint;

use super::{PATIENCE, Setup, alone, attempt};
use crate::support::TestDatabase;

/// The log as `audit export` prints it.
async fn exported(setup: &Setup) -> Vec<Value> {
    let printed = setup.run(&["audit", "export"], "").await.expect(0).stdout;
    printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn verified(setup: &Setup, exit: i32, arguments: &[&str]) -> Value {
    let arguments = [&["audit", "verify", "--output", "json"], arguments].concat();
    setup.run(&arguments, "").await.expect(exit).json()
}

#[tokio::test]
async fn commands_are_in_the_log_with_who_ran_them() {
    let setup = Setup::shared().await;
    let create = ["users", "create", "--username", "alice", "--email", "alice@example.com"];
    setup.run(&create, "").await.expect(0);
    setup.run(&["users", "set-password", "alice"], "").await.expect(0);
    setup.run(&["users", "grant-role", "alice", "moderator"], "").await.expect(0);
    let made = ["keys", "create", "--user", "alice", "--name", "ci", "--output", "json"];
    let made = setup.run(&made, "").await.expect(0).json();
    setup.run(&["keys", "revoke", made[0]["id"].as_str().unwrap()], "").await.expect(0);
    let grant = ["tokens", "grant", "--user", "alice", "--hours", "5", "--output", "json"];
    let granted = setup.run(&grant, "").await.expect(0).json();
    setup.run(&["tokens", "revoke", granted[0]["token_id"].as_str().unwrap()], "").await.expect(0);
    let vouchers = ["vouchers", "create", "--amount", "5", "--output", "json"];
    let vouchers = setup.run(&vouchers, "").await.expect(0).json();
    setup.run(&["vouchers", "revoke", vouchers[0]["id"].as_str().unwrap()], "").await.expect(0);
    let credit = ["wallet", "credit", "--user", "alice", "--amount", "5", "--reason", "r"];
    setup.run(&credit, "").await.expect(0);
    setup.run(&["secrets", "rotate"], "").await.expect(0);
    for reads in [&["users", "list"][..], &["wallet", "verify"], &["audit", "verify"]] {
        setup.run(reads, "").await.expect(0);
    }

    let rows = exported(&setup).await;
    let actions: Vec<_> = rows.iter().map(|row| row["action"].as_str().unwrap()).collect();
    let expected = [
        "account.created",
        "password.set",
        "account.access_changed",
        "key.created",
        "key.deleted",
        "token.granted",
        "token.revoked",
        "voucher.created",
        "voucher.revoked",
        "wallet.credited",
        "secrets.rotated",
    ];
    assert_eq!(actions, expected);
    for row in &rows {
        assert_eq!(row["actor_kind"], "command", "{row}");
        let name = row["actor_name"].as_str().unwrap();
        assert!(!name.is_empty() && name != "tollgate", "{row}");
    }
    let text = setup.run(&["audit", "export"], "").await.stdout;
    assert!(!text.contains(made[0]["key"].as_str().unwrap()), "{text}");
}

#[tokio::test]
async fn the_log_is_verified_beside_a_running_instance_and_without_one() {
    let setup = Setup::shared().await;
    let mut process = setup.serve().await;
    process.admin().await;
    let good = verified(&setup, 0, &[]).await;
    assert_eq!((&good["rows"], &good["fault"]), (&json!(2), &Value::Null));
    let anchor = format!("2:{}", good["hash"].as_str().unwrap());
    verified(&setup, 0, &["--anchor", &anchor]).await;
    let later = format!("9:{}", good["hash"].as_str().unwrap());
    let cut = verified(&setup, 1, &["--anchor", &later]).await;
    assert_eq!(cut["fault"], json!({ "seq": 3, "kind": "cut_off" }));
    process.stop(Duration::from_secs(3)).await;

    let database = setup.database.as_ref().unwrap();
    let allow = match **database {
        TestDatabase::Postgres { .. } => "ALTER TABLE audit_log DISABLE TRIGGER USER",
        TestDatabase::Sqlite(_) => "DROP TRIGGER audit_log_not_updated",
    };
    database.execute(allow).await;
    database.execute("UPDATE audit_log SET actor_name = 'mallory' WHERE seq = 2").await;
    let bad = verified(&setup, 1, &[]).await;
    assert_eq!(bad["fault"], json!({ "seq": 2, "kind": "changed" }));
    let told = setup.run(&["audit", "verify"], "").await.expect(1).stdout;
    assert_eq!(told, "row 2 was changed or swapped; 1 rows before it are good\n");
}

#[tokio::test]
async fn a_kill_leaves_a_change_and_its_row_or_neither() {
    let _alone = alone().await;
    for name in failpoint::AUDIT {
        let setup = Setup::shared().await;
        let mut process = setup.serve().await;
        let token = process.token("admin", super::PASSWORD).await;
        process.stop(Duration::from_secs(3)).await;
        let before = exported(&setup).await.len();

        let mut process = setup.clone().set("TOLLGATE_FAILPOINT", name).serve().await;
        let url = format!("{}/api/v1/keys", process.base);
        let bearer = format!("Bearer {token}");
        let asking = tokio::spawn(async move {
            let fields = [("authorization", &*bearer), ("content-type", "application/json")];
            attempt("POST", &url, &fields, r#"{"name":"k"}"#).await
        });
        let line = format!("failpoint {name}\n");
        process.until(name, PATIENCE, async || process.stderr.so_far().contains(&line)).await;
        process.kill();
        assert!(asking.await.unwrap().is_none(), "{name}: it was answered");

        let keys = setup.run(&["keys", "list", "--output", "json"], "").await.expect(0).json();
        let done = usize::from(name.ends_with(".committed"));
        assert_eq!(keys.as_array().unwrap().len(), done, "{name}");
        let rows = exported(&setup).await;
        assert_eq!(rows.len(), before + done, "{name}");
        if done == 1 {
            assert_eq!(rows[before]["action"], "key.created", "{name}");
            assert_eq!(rows[before]["target_id"], keys[0]["id"], "{name}");
        }
        assert_eq!(verified(&setup, 0, &[]).await["fault"], Value::Null, "{name}");
    }
}
