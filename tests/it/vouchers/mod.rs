//! Vouchers: made by operators, redeemed by users.

mod making;
mod redeeming;

use serde_json::{Value, json};

use crate::support::{Answer, Client};

/// Makes vouchers as the admin; the answer.
pub async fn make(admin: &Client, fields: Value) -> Answer {
    admin.post("/api/v1/admin/vouchers", fields).await
}

/// One voucher: its id and its code.
pub async fn one(admin: &Client, fields: Value) -> (String, String) {
    let made = make(admin, fields).await.expect(201);
    let item = &made.json["items"][0];
    let text = |field: &str| item[field].as_str().unwrap().to_owned();
    (text("id"), text("code"))
}

pub async fn redeem(user: &Client, code: &str) -> Answer {
    user.post("/api/v1/wallet/redeem", json!({ "code": code })).await
}
