//! A batch as a table for whoever prints or sends the codes.

use chrono::SecondsFormat;

use super::Batch;
use crate::{
    domain::{money::Currency, voucher::Gift},
    services::sheet::{Sheet, text},
};

const HEADER: [&str; 11] = [
    "code",
    "id",
    "batch_id",
    "amount_minor",
    "currency",
    "duration_hours",
    "upstream",
    "expires_at",
    "max_uses",
    "max_uses_per_user",
    "note",
];

/// The batch as CSV, the codes in clear.
pub fn codes_as_csv(batch: &Batch, currency: Currency) -> Vec<u8> {
    let mut sheet = Sheet::default();
    sheet.row(HEADER);
    for (voucher, code) in &batch.vouchers {
        let (amount, of, hours, upstream) = match &voucher.gift {
            Gift::Balance(minor) => {
                (minor.to_string(), currency.to_string(), String::new(), String::new())
            }
            Gift::Pass { duration_hours, upstream } => (
                String::new(),
                String::new(),
                duration_hours.to_string(),
                upstream.clone().unwrap_or_default(),
            ),
        };
        let expires = voucher.expires_at;
        sheet.row([
            code.expose().to_owned(),
            voucher.id.to_string(),
            batch.id.to_string(),
            amount,
            of,
            hours,
            text(&upstream).into_owned(),
            expires.map(|at| at.to_rfc3339_opts(SecondsFormat::AutoSi, true)).unwrap_or_default(),
            voucher.max_uses.to_string(),
            voucher.max_uses_per_user.to_string(),
            text(voucher.note.as_deref().unwrap_or_default()).into_owned(),
        ]);
    }
    sheet.into_bytes()
}
