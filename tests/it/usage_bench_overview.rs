//! How long an overview takes where there is a year of a hundred million requests,
//! and a million of accounts, passes and sales: `make bench-usage`;
//! `docs/usage-queries.md` has what it said.

use std::time::{Duration, Instant};

use chrono::TimeDelta;

use crate::{
    support::{PASSWORD, TestDatabase},
    usage_bench::{Filled, YEAR, began, is_wanted},
};

const MANY: u32 = 1_000_000;

/// A million of each. Ids sort by time, as those of the program do; the accounts of
/// the last month are a tenth.
async fn fill(database: &TestDatabase) {
    let postgres = matches!(database, TestDatabase::Postgres { .. });
    let step = TimeDelta::days(365).num_milliseconds() / i64::from(MANY);
    let first = began().timestamp_millis();
    let at = began().to_rfc3339();
    let (id, hash, blob, yes, revenue) = if postgres {
        (
            "(lpad(to_hex(ms), 12, '0') || '7000800' || lpad(to_hex(n), 13, '0'))::uuid",
            "sha256(convert_to(n::text, 'UTF8'))",
            "decode(repeat('00', 120), 'hex')",
            "TRUE",
            "'00000000-0000-0000-0000-000000000001'::uuid",
        )
    } else {
        (
            "unhex(printf('%012x7000800%013x', ms, n))",
            "unhex(printf('%064x', n))",
            "zeroblob(120)",
            "1",
            "x'00000000000000000000000000000001'",
        )
    };
    let numbers = if postgres {
        format!(
            "SELECT n, {first} + n::bigint * {step} AS ms FROM generate_series(0, {MANY} - 1) AS n"
        )
    } else {
        format!(
            "SELECT n, {first} + n * {step} AS ms FROM (
                 WITH RECURSIVE s(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM s WHERE n < {MANY} - 1)
                 SELECT n FROM s)"
        )
    };
    let no = if postgres { "FALSE" } else { "0" };
    let password = "repeat('x', 97)";
    let password = if postgres { password } else { "printf('%097d', 0)" };
    for sql in [
        format!(
            "INSERT INTO users SELECT {id}, 'user' || n, 'user' || n, 'user' || n || '@example.com',
                 'user' || n || '@example.com', NULL, {password}, 1,
                 CASE WHEN n % 50 = 0 THEN {no} ELSE {yes} END, 1, '{at}', '{at}'
             FROM ({numbers}) AS numbers"
        ),
        // A twentieth is unused, a hundredth runs.
        format!(
            "INSERT INTO passes (id, user_id, hash, sealed, sealing_key, prefix, duration_hours,
                 origin, price_minor, created_at, activated_us, version)
             SELECT {id}, {id}, {hash}, {blob}, 'key', 'tga_Abcd', 24, 'purchase', 500, '{at}',
                 CASE WHEN n % 20 = 0 THEN NULL
                     WHEN n % 100 = 1 THEN {first} * 1000 + 364 * 86400000000
                     ELSE ms * 1000 - 40 * 86400000000 END, 1
             FROM ({numbers}) AS numbers"
        ),
        format!(
            "INSERT INTO ledger_accounts (id, kind, balance_minor, seq, created_at)
             SELECT {id}, 'wallet', 0, 1, '{at}' FROM ({numbers}) AS numbers"
        ),
        format!(
            "INSERT INTO ledger_transactions (id, wallet_id, seq, kind, amount_minor,
                 balance_after_minor, pass_id, created_at, hash)
             SELECT {id}, {id}, 1, 'purchase', -500, 0, {id}, '{at}', {hash}
             FROM ({numbers}) AS numbers"
        ),
        format!("INSERT INTO ledger_entries SELECT {id}, {id}, -500 FROM ({numbers}) AS numbers"),
        format!(
            "INSERT INTO ledger_entries SELECT {id}, {revenue}, 500 FROM ({numbers}) AS numbers"
        ),
    ] {
        database.execute(sql).await;
    }
    if postgres {
        database.execute("VACUUM ANALYZE").await;
    } else {
        database.execute("ANALYZE").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overview_of_a_hundred_million_requests_and_a_million_accounts() {
    if !is_wanted() {
        return;
    }
    let filled = Filled::with(YEAR).await;
    fill(&filled.app.database).await;
    // Both have lives of their own: what a minute does to the one, eleven do to both.
    for (what, passes) in [
        ("nothing is held", TimeDelta::minutes(11)),
        ("the counts are held, and the sums are not", TimeDelta::seconds(70)),
        ("held", TimeDelta::zero()),
    ] {
        let mut times = vec![];
        for _ in 0..7 {
            // What is found out behind an answer is done by then.
            tokio::time::sleep(Duration::from_millis(700)).await;
            filled.clock.advance(passes);
            // A login does not last as long.
            let admin = filled.app.log_in("admin", PASSWORD).await;
            let started = Instant::now();
            let answer = admin.get("/api/v1/admin/overview").await.expect(200);
            times.push(started.elapsed());
            assert_eq!(answer.json["unavailable"], serde_json::json!([]));
            assert!(answer.json["users"]["total"].as_u64().unwrap() > u64::from(MANY));
        }
        times.sort_unstable();
        let (median, worst) = (times[3].as_secs_f64() * 1000.0, times[6].as_secs_f64() * 1000.0);
        println!("| `/admin/overview`, {what} | {median:.0} ms | {worst:.0} ms at most |");
    }
}
