//! A wallet's history as a table for a spreadsheet.

use chrono::{DateTime, SecondsFormat, Utc};

use super::{WalletError, WalletService};
use crate::{
    domain::{id::UserId, ledger::Transaction},
    repositories::Repositories as _,
    services::sheet::{Sheet, text},
};

/// Transactions of one part.
const ROWS: u32 = 500;

const HEADER: [&str; 10] = [
    "created_at",
    "id",
    "kind",
    "amount_minor",
    "balance_after_minor",
    "currency",
    "token_id",
    "voucher_id",
    "reverses_id",
    "reason",
];

/// Which part of a wallet's history, and how far it was read.
#[derive(Clone, Copy, Debug)]
pub struct Statement {
    user: UserId,
    /// From this instant on.
    from: Option<DateTime<Utc>>,
    /// Before this one.
    to: Option<DateTime<Utc>>,
    /// Behind this transaction; `None` before the first part.
    seq: Option<i64>,
}

impl Statement {
    pub fn new(user: UserId, from: Option<DateTime<Utc>>, to: Option<DateTime<Utc>>) -> Self {
        Self { user, from, to, seq: None }
    }
}

impl WalletService {
    /// The next part of the statement as CSV, oldest transactions first, the
    /// header before all; `None` behind the last one. A part is a few hundred
    /// lines, however long the history is.
    pub async fn statement_part(
        &self,
        statement: &mut Statement,
    ) -> Result<Option<Vec<u8>>, WalletError> {
        let Statement { user, from, to, seq } = *statement;
        let mut session = self.db.session().await?;
        let behind = seq.unwrap_or(0);
        let page = session.ledger().statement(user, behind, from, to, ROWS).await?;
        statement.seq = Some(page.last().map_or(behind, |last| last.seq));
        if page.is_empty() && seq.is_some() {
            return Ok(None);
        }
        let mut sheet = Sheet::default();
        if seq.is_none() {
            sheet.row(HEADER);
        }
        for booked in &page {
            sheet.row(self.line(booked));
        }
        Ok(Some(sheet.into_bytes()))
    }

    fn line(&self, booked: &Transaction) -> [String; 10] {
        fn id(id: Option<impl ToString>) -> String {
            id.map(|id| id.to_string()).unwrap_or_default()
        }
        [
            booked.created_at.to_rfc3339_opts(SecondsFormat::AutoSi, true),
            booked.id.to_string(),
            booked.kind.as_str().to_owned(),
            booked.amount_minor.to_string(),
            booked.balance_after_minor.to_string(),
            self.currency.to_string(),
            id(booked.pass_id),
            id(booked.voucher_id),
            id(booked.reverses_id),
            text(booked.reason.as_deref().unwrap_or_default()).into_owned(),
        ]
    }
}
