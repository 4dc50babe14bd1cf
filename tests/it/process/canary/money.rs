//! Access tokens, voucher codes and the key that seals: what a customer and an
//! admin do with them, and all that is kept of it in Postgres and Redis.

use std::time::Duration;

use serde_json::json;

use super::{Answers, Planted, Slow, output, position, talkative, tour};
use crate::{
    process::{Process, Setup},
    support::{Client, redis::Server},
};

/// Vouchers made and redeemed, tokens bought, used and presented wherever they
/// do not belong.
pub(super) async fn spend(
    process: &Process,
    admin: &Client,
    person: &Client,
    planted: &mut Planted,
    answers: &mut Answers,
) {
    let mut tokens = vec![];
    for gift in [json!({ "amount_minor": 500 }), json!({ "duration_hours": 5 })] {
        let made = admin.post("/api/v1/admin/vouchers", gift).await.expect(201);
        let code = made.json["items"][0]["code"].as_str().unwrap();
        planted.add("voucher", code);
        planted.add("voucher", &code.replace('-', ""));
        let redeem = async |body| person.post("/api/v1/wallet/redeem", body).await;
        answers.keep(&redeem(json!({ "code": code, "kode": code })).await.expect(422));
        answers.keep(&redeem(json!({ "code": [code] })).await.expect(422));
        let redeemed = redeem(json!({ "code": code })).await.expect(200);
        match redeemed.json["token"]["token"].as_str() {
            Some(text) => tokens.push(text.to_owned()),
            None => answers.keep(&redeemed),
        }
        answers.keep(&redeem(json!({ "code": code })).await.expect(409));
    }
    let day = json!({ "duration_hours": 24 });
    let bought = person.post("/api/v1/tokens/purchase", day).await.expect(201);
    tokens.push(bought.text("token").to_owned());
    let client = process.client();
    for text in &tokens {
        planted.add("pass", text);
        let holder = client.with("x-access-token", text);
        for path in ["/api/v1/proxy/paid", "/api/v1/tokens/status", "/api/v1/wallet"] {
            answers.keep(&holder.get(path).await);
        }
        let url = format!("/api/v1/proxy/x?token={text}");
        answers.keep(&client.get(&url).await.expect_problem(400, "credential_in_url"));
        answers.keep(&client.with_bearer(text).get("/api/v1/wallet").await.expect(401));
    }
    for path in ["/api/v1/wallet/transactions", "/api/v1/wallet/statement"] {
        answers.keep(&person.get(path).await.expect(200));
    }
    for path in ["/api/v1/admin/tokens", "/api/v1/admin/vouchers"] {
        answers.keep(&admin.get(path).await.expect(200));
    }
    // One ends, the others stay where they are.
    person.post_empty(&format!("/api/v1/tokens/{}/revoke", bought.text("token_id"))).await;
}

/// All that is in a Redis, names and values.
async fn everything(server: &Server) -> Vec<u8> {
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let names: Vec<Vec<u8>> =
        redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
    let mut all = vec![];
    for name in names {
        let kind: String =
            redis::cmd("TYPE").arg(&name).query_async(&mut connection).await.unwrap();
        let mut read = match kind.as_str() {
            "string" => redis::cmd("GET"),
            "hash" => redis::cmd("HGETALL"),
            "set" => redis::cmd("SMEMBERS"),
            "zset" | "list" => redis::cmd(if kind == "zset" { "ZRANGE" } else { "LRANGE" }),
            // It ended meanwhile.
            "none" => continue,
            other => panic!("cannot read a {other}"),
        };
        read.arg(&name);
        if matches!(kind.as_str(), "zset" | "list") {
            read.arg(0).arg(-1);
        }
        let value: redis::Value = read.query_async(&mut connection).await.unwrap();
        all.extend_from_slice(&name);
        flatten(&value, &mut all);
        all.push(b'\n');
    }
    all
}

fn flatten(value: &redis::Value, all: &mut Vec<u8>) {
    match value {
        redis::Value::BulkString(bytes) => {
            all.push(b' ');
            all.extend_from_slice(bytes);
        }
        redis::Value::Array(items) | redis::Value::Set(items) => {
            items.iter().for_each(|item| flatten(item, all));
        }
        redis::Value::Map(items) => items.iter().for_each(|(name, item)| {
            flatten(name, all);
            flatten(item, all);
        }),
        other => all.extend(format!(" {other:?}").bytes()),
    }
}

#[tokio::test]
async fn no_secret_is_kept_in_postgres_or_redis() {
    let Some(redis) = Server::start() else { return };
    // The echo would answer with the cookie, as it is to.
    let slow = Slow::start(Duration::ZERO).await;
    let setup = talkative(Setup::shared().await)
        .set("REDIS_URL", &redis.url())
        .set("UPSTREAM_URL", &slow.url());
    let mut process = setup.serve().await;
    let (mut planted, mut answers) = (Planted::fixed(), Answers::default());
    tour(&process, &mut planted, &mut answers).await;
    let inside = everything(&redis).await;
    let mut found = planted.found_in("redis", &inside);
    let dump = setup.database.as_ref().unwrap().dump().await;
    found.extend(planted.found_in("the database", dump.as_bytes()));
    found.extend(planted.found_in("the answers", &answers.0));
    for part in ["active_token:", "duration_hours"] {
        assert!(position(&inside, part.as_bytes()).is_some(), "no copy of a token in Redis");
    }
    assert!(dump.contains("person"), "the dump has what is kept");
    process.stop(Duration::from_secs(10)).await;
    found.extend(output(&process, &planted));
    assert!(found.is_empty(), "{} places:\n{}", found.len(), found.join("\n"));
}
