//! Every refusal is a whole problem, as all errors are.

use http::Method;

use super::{ADMIN, Customer, HOUR, PURCHASE, path, shop};
use crate::problems;

#[tokio::test]
async fn every_refusal_is_a_whole_problem() {
    let (app, _) = shop(&[]).await;
    let ada = Customer::with(&app, HOUR).await;
    ada.buy_as("k", 168).await.expect(201);
    let token = ada.buy(168).await.json;
    ada.client.post_empty(&path(&token, "refund")).await.expect(200);
    let keyed = ada.client.with("idempotency-key", "k");
    let spaced = ada.client.with("idempotency-key", "two words");
    let refund = path(&token, "refund");
    for (client, path, body, status, code) in [
        (&ada.client, PURCHASE, r#"{"duration_hours":24}"#, 402, "balance_too_low"),
        (&ada.client, PURCHASE, r#"{"duration_hours":12}"#, 400, "duration_not_offered"),
        (&ada.client, PURCHASE, r#"{"duration_hours":1,"upstream":"x"}"#, 422, "validation_failed"),
        (&ada.client, PURCHASE, r#"{"duration_hours":1e309}"#, 400, "invalid_json"),
        (&keyed, PURCHASE, r#"{"duration_hours":1}"#, 422, "idempotency_key_reused"),
        (&spaced, PURCHASE, r#"{"duration_hours":1}"#, 400, "invalid_idempotency_key"),
        (&ada.client, &refund, "", 409, "not_refundable"),
        (&ada.client, "/api/v1/tokens/x/revoke", "", 404, "not_found"),
        (&ada.client, ADMIN, "{}", 403, "role_required"),
        (&ada.client, "/api/v1/tokens/my-tokens", "{}", 405, "method_not_allowed"),
    ] {
        let media = (!body.is_empty()).then_some("application/json");
        let answer = client.send(Method::POST, path, media, body.into()).await;
        let answer = answer.expect_problem(status, code);
        problems::check(&answer, path);
    }
    assert_eq!(ada.balance(&app).await, HOUR);
}
