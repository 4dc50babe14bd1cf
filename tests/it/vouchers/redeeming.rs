//! A code becomes money or a token, as often as it may and not once more, and
//! is not to be guessed.

use bytes::Bytes;
use chrono::TimeDelta;
use futures_util::future::join_all;
use http::Method;
use serde_json::json;

use super::{one, redeem};
use crate::{
    support::{Client, TestApp, UNLIMITED, some_address, unique},
    wallet::{balance, differences},
};

const WRONG: &str = "7G3K-9QXN-4T2V-WM8D";

#[tokio::test]
async fn a_code_becomes_a_balance() {
    let app = TestApp::unlimited().await;
    let (admin, ada) = (app.admin().await, app.user("ada").await);
    let (id, code) = one(&admin, json!({ "amount_minor": 500 })).await;
    let redeemed = redeem(&ada, &code).await.expect(200);
    let expected =
        json!({ "kind": "balance", "amount_minor": 500, "balance_minor": 500, "currency": "EUR" });
    assert_eq!(redeemed.json, expected);
    assert_eq!(balance(&ada).await, 500);
    let all = ada.get("/api/v1/wallet/transactions").await.expect(200);
    let booked = &all.json["items"][0];
    assert_eq!((&booked["kind"], &booked["voucher_id"]), (&json!("credit"), &json!(id)));
    assert!(!all.json.to_string().contains(&code));
    redeem(&ada, &code).await.expect_problem(409, "voucher_used_up");
    redeem(&app.user("grace").await, &code).await.expect_problem(409, "voucher_used_up");
    assert_eq!(balance(&ada).await, 500);
    assert_eq!(differences(&app).await, [""; 0]);
}

#[tokio::test]
async fn a_code_becomes_a_token() {
    let app = TestApp::unlimited().await;
    let (admin, ada) = (app.admin().await, app.user("ada").await);
    let upstream = app.app.config.upstreams[0].name;
    let (_, code) = one(&admin, json!({ "duration_hours": 48, "upstream": upstream })).await;
    let redeemed = redeem(&ada, &code).await.expect(200);
    assert_eq!(redeemed.json["kind"], "token");
    assert_eq!(redeemed.json.as_object().unwrap().len(), 2, "{redeemed:?}");
    let token = &redeemed.json["token"];
    let text = token["token"].as_str().unwrap();
    assert!(text.starts_with("tga_") && text.len() == 68, "{text}");
    assert!(text.starts_with(token["token_prefix"].as_str().unwrap()));
    for (field, value) in [
        ("duration_hours", json!(48)),
        ("upstream", json!(upstream)),
        ("price_minor", json!(0)),
        ("status", json!("unused")),
        ("is_active", json!(true)),
        ("activated_at", json!(null)),
        ("expires_at", json!(null)),
        ("revoked_at", json!(null)),
    ] {
        assert_eq!(token[field], value, "{field}");
    }
    assert_eq!(balance(&ada).await, 0);
    assert_eq!(differences(&app).await, [""; 0]);
}

#[tokio::test]
async fn a_code_is_understood_however_it_is_typed() {
    let app = TestApp::unlimited().await;
    let (admin, ada) = (app.admin().await, app.user("ada").await);
    let (_, code) =
        one(&admin, json!({ "amount_minor": 1, "max_uses": 50, "max_uses_per_user": 50 })).await;
    let typed = [
        code.clone(),
        code.to_lowercase(),
        code.replace('-', ""),
        code.replace('-', " "),
        format!("  {code}\t\n"),
        code.replace('0', "o").replace('1', "l"),
        code.replace('0', "O").replace('1', "I"),
    ];
    for (number, typed) in typed.iter().enumerate() {
        let redeemed = redeem(&ada, typed).await.expect(200);
        assert_eq!(redeemed.json["balance_minor"], number + 1, "{typed}");
    }
    for wrong in ["", &"7".repeat(101)] {
        redeem(&ada, wrong).await.expect_problem(422, "validation_failed");
    }
    let unknown = ["x", "7G3K", "7G3K-9QXN-4T2V-WM8", WRONG];
    for wrong in unknown {
        redeem(&ada, wrong).await.expect_problem(404, "voucher_unknown");
    }
    assert_eq!(balance(&ada).await, i64::try_from(typed.len()).unwrap());
}

#[tokio::test]
async fn uses_are_counted_in_all_and_by_user() {
    let app = TestApp::unlimited().await;
    let admin = app.admin().await;
    let (ada, grace, joan) =
        (app.user("ada").await, app.user("grace").await, app.user("joan").await);
    let fields = json!({ "amount_minor": 10, "max_uses": 4, "max_uses_per_user": 2 });
    let (_, code) = one(&admin, fields).await;
    for user in [&ada, &grace] {
        redeem(user, &code).await.expect(200);
    }
    redeem(&ada, &code).await.expect(200);
    redeem(&ada, &code).await.expect_problem(409, "voucher_redeemed");
    redeem(&grace, &code).await.expect(200);
    redeem(&joan, &code).await.expect_problem(409, "voucher_used_up");
    assert_eq!((balance(&ada).await, balance(&grace).await, balance(&joan).await), (20, 20, 0));
    // What was refused took nothing.
    let listed = admin.get("/api/v1/admin/vouchers").await.expect(200);
    assert_eq!(listed.json["items"][0]["uses"], 4);
}

#[tokio::test]
async fn a_code_ends_at_its_instant_and_when_it_is_withdrawn() {
    let (app, clock) = TestApp::in_memory(UNLIMITED).await;
    let (admin, ada) = (app.admin().await, app.user("ada").await);
    let ends = crate::support::epoch() + TimeDelta::seconds(60);
    let many =
        json!({ "amount_minor": 1, "expires_at": ends, "max_uses": 9, "max_uses_per_user": 9 });
    let (_, code) = one(&admin, many).await;
    clock.advance(TimeDelta::milliseconds(59_999));
    redeem(&ada, &code).await.expect(200);
    clock.advance(TimeDelta::milliseconds(1));
    redeem(&ada, &code).await.expect_problem(409, "voucher_expired");

    let (id, code) =
        one(&admin, json!({ "amount_minor": 1, "max_uses": 9, "max_uses_per_user": 9 })).await;
    redeem(&ada, &code).await.expect(200);
    admin.post_empty(&format!("/api/v1/admin/vouchers/{id}/revoke")).await.expect(200);
    redeem(&ada, &code).await.expect_problem(409, "voucher_revoked");
    assert_eq!(balance(&ada).await, 2);
}

#[tokio::test]
async fn a_repeated_request_is_answered_alike_and_gives_once() {
    let app = TestApp::unlimited().await;
    let (admin, ada, grace) = (app.admin().await, app.user("ada").await, app.user("grace").await);
    let many = |fields: serde_json::Value| {
        let mut fields = fields;
        fields["max_uses"] = json!(9);
        fields["max_uses_per_user"] = json!(9);
        fields
    };
    for (fields, other) in [
        (many(json!({ "amount_minor": 5 })), "amount"),
        (many(json!({ "duration_hours": 5 })), "token"),
    ] {
        let (_, code) = one(&admin, fields).await;
        let keyed = ada.with("idempotency-key", other);
        let first = redeem(&keyed, &code).await.expect(200);
        for _ in 0..3 {
            assert_eq!(redeem(&keyed, &code.to_lowercase()).await.expect(200).json, first.json);
        }
        redeem(&keyed, WRONG).await.expect_problem(422, "idempotency_key_reused");
        // Somebody else's key of the same name is another.
        let theirs = redeem(&grace.with("idempotency-key", other), &code).await.expect(200);
        if other == "token" {
            assert_ne!(theirs.json["token"]["token"], first.json["token"]["token"]);
        }
    }
    assert_eq!((balance(&ada).await, balance(&grace).await), (5, 5));
    let done = app.app.services.wallet.verify(|_| {}).await.unwrap();
    assert_eq!((done.passes, done.differences), (2, 0));
    let twice = ada.with("idempotency-key", "a").with("idempotency-key", "b");
    redeem(&twice, WRONG).await.expect_problem(400, "invalid_idempotency_key");
}

fn from(user: &Client, address: &str) -> Client {
    user.with("x-forwarded-for", address)
}

/// Logged in from an address of its own, however many fields of the name there
/// are in a request.
async fn guesser(app: &TestApp) -> Client {
    let name = unique("guesser");
    app.register(&name).await;
    let pair = app.login(&name, crate::support::PASSWORD).await.expect(200);
    from(&Client::new(&app.base).with_bearer(pair.text("access_token")), &some_address())
}

#[tokio::test]
async fn guesses_are_few_and_good_codes_are_free() {
    let app = TestApp::unlimited().await;
    let admin = app.admin().await;
    let guesser = guesser(&app).await;
    // Thirty good ones in a row are nothing to the limit of five.
    let many = json!({ "amount_minor": 1, "max_uses": 99, "max_uses_per_user": 99 });
    let (_, code) = one(&admin, many).await;
    for _ in 0..30 {
        redeem(&guesser, &code).await.expect(200);
    }
    // What exists but cannot be redeemed is no guess either.
    let (_, used) = one(&admin, json!({ "amount_minor": 1 })).await;
    redeem(&guesser, &used).await.expect(200);
    for _ in 0..10 {
        redeem(&guesser, &used).await.expect_problem(409, "voucher_used_up");
    }
    for number in 0..5 {
        // Nonsense counts like a code of the right form.
        let wrong = if number % 2 == 0 { WRONG } else { "nonsense" };
        redeem(&guesser, wrong).await.expect_problem(404, "voucher_unknown");
    }
    let refused = redeem(&guesser, WRONG).await.expect_problem(429, "redeem_throttled");
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=60).contains(&wait), "{refused:?}");
    // A good one is not read either: the answer would tell that it is good.
    redeem(&guesser, &code).await.expect_problem(429, "redeem_throttled");
    assert_eq!(balance(&guesser).await, 31);
}

#[tokio::test]
async fn guesses_in_parallel_do_not_slip_through() {
    let app = TestApp::unlimited().await;
    let guesser = guesser(&app).await;
    let answers = join_all((0..20).map(|_| redeem(&guesser, WRONG))).await;
    let read = answers.iter().filter(|answer| answer.status == 404).count();
    assert_eq!(read, 5);
    assert!(answers.iter().all(|answer| [404, 429].contains(&answer.status.as_u16())));
}

#[tokio::test]
async fn an_address_has_twenty_guesses_a_minute_over_all_users() {
    let app = TestApp::unlimited().await;
    let here = some_address();
    let mut read = 0;
    for _ in 0..6 {
        let name = unique("sock");
        app.register(&name).await;
        let pair = app.login(&name, crate::support::PASSWORD).await.expect(200);
        let user = from(&Client::new(&app.base).with_bearer(pair.text("access_token")), &here);
        for _ in 0..4 {
            read += usize::from(redeem(&user, WRONG).await.status == 404);
        }
    }
    assert_eq!(read, 20);
}

#[tokio::test]
async fn what_is_no_request_is_refused_before_it_counts() {
    let app = TestApp::unlimited().await;
    let ada = app.user("ada").await;
    let path = "/api/v1/wallet/redeem";
    for _ in 0..10 {
        ada.post(path, json!({})).await.expect_problem(422, "validation_failed");
        ada.post(path, json!({ "code": 7 })).await.expect_problem(422, "validation_failed");
        let not_json = Bytes::from_static(b"code=x");
        ada.send(Method::POST, path, Some("text/plain"), not_json).await.expect(415);
    }
    redeem(&ada, WRONG).await.expect_problem(404, "voucher_unknown");
}

#[tokio::test]
async fn no_code_is_anywhere_in_the_database() {
    let app = TestApp::unlimited().await;
    let (admin, ada) = (app.admin().await, app.user("ada").await);
    let mut codes = vec![];
    for fields in [json!({ "amount_minor": 5 }), json!({ "duration_hours": 5 })] {
        let (_, code) = one(&admin, fields).await;
        redeem(&ada.with("idempotency-key", &unique("k")), &code).await.expect(200);
        codes.push(code);
    }
    codes.push(one(&admin, json!({ "amount_minor": 5, "note": "unused" })).await.1);
    let dump = app.database.dump().await.to_lowercase();
    assert!(dump.contains("unused"), "the dump has what is kept");
    for code in codes {
        let bare = code.replace('-', "").to_lowercase();
        for form in [code.to_lowercase(), bare.clone(), hex::encode(bare), hex::encode(&code)] {
            assert!(!dump.contains(&form), "{form}");
        }
    }
}
