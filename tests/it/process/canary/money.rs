//! Access tokens, vouchers and the key that seals: made, used and ended.

use base64::{Engine as _, engine::general_purpose};
use http::Method;
use serde_json::{Value, json};

use super::{Answers, CHANGED, MARKER, NEXT_SEALING, Planted, resealing};
use crate::{
    process::{Process, Ran, Setup},
    support::{Answer, Client},
};

const MINE: &str = "/api/v1/tokens/my-tokens";
const PURCHASE: &str = "/api/v1/tokens/purchase";
const REDEEM: &str = "/api/v1/wallet/redeem";
const VOUCHERS: &str = "/api/v1/admin/vouchers";
const STATUS: &str = "/api/v1/tokens/status";
const PROXY: &str = "/api/v1/proxy/pass?a=b";

fn items(list: &Value) -> &[Value] {
    list.as_array().unwrap()
}

fn text<'a>(item: &'a Value, field: &str) -> &'a str {
    item[field].as_str().unwrap_or_else(|| panic!("no text {field} in {item}"))
}

/// The codes in the first column of a table.
fn codes(table: &[u8]) -> Vec<String> {
    let mut reader = csv::Reader::from_reader(table);
    reader.records().map(|record| record.unwrap()[0].to_owned()).collect()
}

/// All that the API does with them, by a person and by an admin.
pub async fn money(
    nobody: &Client,
    person: &Client,
    admin: &Client,
    planted: &mut Planted,
    answers: &mut Answers,
) {
    let codes = vouchers(admin, planted, answers).await;
    let [balance, token, revoked, unused] = &codes[..] else { panic!("{codes:?}") };
    let redeem = async |code: &str| person.post(REDEEM, json!({ "code": code })).await;
    answers.keep(&redeem(balance).await.expect(200));
    let given = redeem(&token.to_lowercase()).await.expect(200);
    planted.add("access token", text(&given.json["token"], "token"));
    // Once more, one that was withdrawn, and one that there never was.
    answers.keep(&redeem(balance).await.expect(409));
    answers.keep(&redeem(revoked).await.expect(409));
    let wrong = "ZZZZ-YYYY-XXXX-WWWW";
    planted.add_code(wrong);
    answers.keep(&redeem(wrong).await.expect(404));
    // In the wrong places.
    answers.keep(&person.post_empty(&format!("{REDEEM}?code={unused}")).await);
    answers.keep(&person.post(REDEEM, json!({ "kode": unused })).await);
    let broken = format!("{{\"code\": \"{unused}\"").into();
    answers.keep(&person.send(Method::POST, REDEEM, Some("application/json"), broken).await);

    let repeatable = person.with("idempotency-key", "canary");
    let mut bought = vec![];
    for client in [&repeatable, &repeatable, person, person] {
        let answer = client.post(PURCHASE, json!({ "duration_hours": 24 })).await.expect(201);
        planted.add("access token", answer.text("token"));
        bought.push(answer);
    }
    assert_eq!(bought[0].text("token"), bought[1].text("token"));
    for item in items(&person.get(MINE).await.expect(200).json["items"]) {
        planted.add("access token", text(item, "token"));
    }
    let used = bought[0].text("token").to_owned();
    use_of(nobody, &used, answers).await;
    for (path, ended) in [("revoke", &bought[0]), ("refund", &bought[2])] {
        let path = format!("/api/v1/tokens/{}/{path}", ended.text("token_id"));
        let answer = person.post_empty(&path).await.expect(200);
        assert_eq!(answer.text("token_id"), ended.text("token_id"));
        refused(nobody, ended.text("token"), answers).await;
    }
    let refund = format!("/api/v1/tokens/{}/refund", bought[0].text("token_id"));
    answers.keep(&person.post_empty(&refund).await.expect(409));

    let id = person.get("/api/v1/users/me").await.expect(200).text("id").to_owned();
    let grant = json!({ "user_id": id, "duration_hours": 7 });
    let granted = admin.post("/api/v1/admin/tokens", grant).await.expect(201);
    planted.add("access token", granted.text("token"));
    use_of(nobody, granted.text("token"), answers).await;
    let path = format!("/api/v1/admin/tokens/{}/revoke", granted.text("token_id"));
    answers.keep(&admin.post_empty(&path).await.expect(200));
    refused(nobody, granted.text("token"), answers).await;
    let credit = json!({ "amount_minor": 700, "reason": MARKER });
    let path = format!("/api/v1/admin/users/{id}/wallet");
    let repeatable = admin.with("idempotency-key", "canary");
    answers.keep(&repeatable.post(&format!("{path}/credit"), credit).await.expect(201));
    for path in [&*path, "/api/v1/admin/tokens", VOUCHERS] {
        answers.keep(&admin.get(path).await.expect(200));
    }
    for path in ["/api/v1/wallet", "/api/v1/wallet/transactions", "/api/v1/wallet/statement"] {
        answers.keep(&person.get(path).await.expect(200));
    }
}

/// Two batches, as JSON and as a table. The codes: for a balance, for a token,
/// one that is withdrawn, and one more.
async fn vouchers(admin: &Client, planted: &mut Planted, answers: &mut Answers) -> Vec<String> {
    let batch = json!({ "count": 2, "amount_minor": 2000, "note": "canary" });
    let balances = admin.post(VOUCHERS, batch).await.expect(201);
    let batch = json!({ "count": 2, "duration_hours": 5 });
    let table = admin.with("accept", "text/csv").post(VOUCHERS, batch).await.expect(201);
    answers.keep_text(&format!("{:?} {:?}", balances.headers, table.headers));
    let (balances, tokens) = (items(&balances.json["items"]), codes(&table.body));
    let revoke = format!("{VOUCHERS}/{}/revoke", text(&balances[1], "id"));
    answers.keep(&admin.post_empty(&revoke).await.expect(200));
    let all = vec![
        text(&balances[0], "code").to_owned(),
        tokens[0].clone(),
        text(&balances[1], "code").to_owned(),
        tokens[1].clone(),
    ];
    for code in &all {
        planted.add_code(code);
    }
    all
}

/// Of an access token that opens the door.
async fn use_of(nobody: &Client, token: &str, answers: &mut Answers) {
    let holder = nobody.with("x-access-token", token);
    answers.keep(&holder.get(STATUS).await.expect(200));
    for _ in 0..2 {
        let answer = holder.get(PROXY).await;
        assert!([200, 502, 503].contains(&answer.status.as_u16()), "{answer:?}");
        answers.keep(&answer);
    }
    answers.keep(&holder.get(STATUS).await.expect(200));
    answers.keep(&holder.get("/api/v1/wallet").await.expect_problem(403, "login_required"));
    misplaced(nobody, token, answers).await;
}

/// Wherever else one might put it.
async fn misplaced(nobody: &Client, token: &str, answers: &mut Answers) {
    for path in [
        format!("{PROXY}&access_token={token}"),
        format!("{STATUS}?token={token}"),
        format!("/api/v1/tokens/{token}/revoke"),
        format!("/api/v1/keys/%74{}", &token[1..]),
        format!("/api/v1/proxy/files/{token}"),
    ] {
        answers.keep(&nobody.get(&path).await.expect_problem(400, "credential_in_url"));
    }
    answers.keep(&nobody.with_bearer(token).get(PROXY).await);
    answers.keep(&nobody.with_key(token).get(PROXY).await);
    let basic = general_purpose::STANDARD.encode(format!("token:{token}"));
    answers.keep(&nobody.with("authorization", &format!("Basic {basic}")).get(PROXY).await);
    let twice = nobody.with("x-access-token", token).with("x-access-token", token);
    answers.keep(&twice.get(STATUS).await.expect(400));
    answers.keep(&nobody.post("/api/v1/keys/verify", json!({ "key": token })).await);
}

/// Of one that is none, and of one that has ended.
async fn refused(nobody: &Client, token: &str, answers: &mut Answers) {
    let mut wrong = token.to_owned();
    // Its check digits hold no more.
    wrong.truncate(token.len() - 1);
    for (token, status) in [(token, 200), (&wrong, 401)] {
        let holder = nobody.with("x-access-token", token);
        answers.keep(&holder.get(PROXY).await.expect(401));
        answers.keep(&holder.get(STATUS).await.expect(status));
    }
}

/// The same while nothing answers.
pub async fn money_fails(process: &Process, planted: &Planted, answers: &mut Answers) {
    let fails = |answer: Answer| {
        assert!(answer.status.as_u16() >= 400, "{answer:?}");
        answers.keep(&answer);
    };
    let client = process.client();
    // One of each, at once: every request waits for the database.
    let holder = client.with("x-access-token", planted.all("access token")[0]);
    let bearer = client.with_bearer(planted.all("login token")[0]);
    let code = planted.all("voucher")[0];
    let (proxied, status, bought, redeemed, made) = tokio::join!(
        holder.get(PROXY),
        holder.get(STATUS),
        bearer.post(PURCHASE, json!({ "duration_hours": 24 })),
        bearer.post(REDEEM, json!({ "code": code })),
        bearer.post(VOUCHERS, json!({ "count": 2, "amount_minor": 5 })),
    );
    [proxied, bought, redeemed, made].into_iter().for_each(fails);
    // What memory knows stands for the database.
    assert!([200, 503].contains(&status.status.as_u16()), "{status:?}");
    answers.keep(&status);
}

/// All that the commands do with them; the last one changes the key.
pub async fn commands(setup: &Setup, planted: &mut Planted, answers: &mut Answers) {
    let run = async |line: &str| -> Ran {
        setup.run(&line.split(' ').collect::<Vec<_>>(), "").await.expect(0)
    };
    // What is printed on purpose is not kept.
    let made = run("vouchers create --amount 300 --count 2 --output json").await;
    answers.keep_text(&made.stderr);
    for row in items(&made.json()) {
        planted.add_code(text(row, "code"));
    }
    let made = run("vouchers create --hours 24 --csv").await;
    answers.keep_text(&made.stderr);
    for code in codes(made.stdout.as_bytes()) {
        planted.add_code(&code);
    }
    let given = run("tokens grant --user person --hours 5 --output json").await;
    answers.keep_text(&given.stderr);
    let given = given.json();
    planted.add("access token", text(&given[0], "token"));
    let revoke = format!("tokens revoke {}", text(&given[0], "token_id"));
    for line in [
        &*revoke,
        "tokens list",
        "tokens list --output json",
        "vouchers list",
        "vouchers list --output json",
        "wallet credit --user person --amount 5 --reason canary",
        "wallet statement --user person",
        "wallet verify",
        "users list --output json",
        "keys list --output json",
        "config show",
        "config check",
        "usage export --format csv",
    ] {
        let ran = run(line).await;
        answers.keep_text(&format!("{}{}", ran.stdout, ran.stderr));
    }
    let log = run("audit export").await;
    let known = ["account.registered", "key.rotated", "token.purchased", "voucher.redeemed"];
    assert!(known.iter().all(|action| log.stdout.contains(action)), "{log:?}");
    let proof = run("audit verify").await;
    answers.keep_text(&format!("{}{}{}{}", log.stdout, log.stderr, proof.stdout, proof.stderr));
    let report = run("secrets rotate --output json").await;
    assert!(report.json()["resealed"].as_u64().unwrap() > 0, "{report:?}");
    answers.keep_text(&format!("{}{}", report.stdout, report.stderr));
}

/// An instance that has not got the new key yet, and a rotation that lacks the
/// old one.
pub async fn rotated(
    process: &Process,
    setup: &Setup,
    planted: &mut Planted,
    answers: &mut Answers,
) {
    let nobody = process.client();
    let login = process.token("person", CHANGED).await;
    planted.add("login token", &login);
    let bearer = nobody.with_bearer(&login);
    let listed = bearer.get(MINE).await.expect(200);
    assert!(items(&listed.json["items"]).iter().any(|item| item["token"].is_null()), "{listed:?}");
    answers.keep(&listed);
    let bought = bearer.post(PURCHASE, json!({ "duration_hours": 24 })).await.expect(201);
    planted.add("access token", bought.text("token"));
    use_of(&nobody, bought.text("token"), answers).await;
    let lacking = setup.clone().set("SECRETS_KEY", NEXT_SEALING);
    for (setup, code) in [(lacking, 1), (resealing(setup), 0)] {
        let ran = setup.run(&["secrets", "rotate"], "").await.expect(code);
        answers.keep_text(&format!("{}{}", ran.stdout, ran.stderr));
    }
}
