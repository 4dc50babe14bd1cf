//! `tollgate wallet`: money of accounts, and the ledger behind it.

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::{
    Exit,
    offline::Offline,
    output::{self, Format, Table},
};
use crate::{
    config::Config,
    domain::{
        id::{TransactionId, UserId},
        idempotency::IdempotencyKey,
        ledger::is_reason,
        money::Amount,
    },
    services::wallet::{Difference, Statement, Verification},
};

#[derive(Debug, Subcommand)]
pub enum WalletCommand {
    /// Put money into an account's wallet.
    Credit(CreditArgs),
    /// Work the whole ledger out again; exit code 1 and one line for everything
    /// that differs. Mends nothing.
    Verify,
    /// Print an account's transactions as CSV, oldest first.
    Statement(StatementArgs),
}

#[derive(Debug, Args)]
pub struct CreditArgs {
    /// Whose wallet it is.
    #[arg(long, value_name = "USERNAME")]
    pub user: String,
    /// In minor units: 1250 are 12.50 of a currency with cents.
    #[arg(long, value_name = "MINOR")]
    pub amount: Amount,
    /// Shown to the user.
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Run again with the same key, nothing is booked twice.
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
}

#[derive(Debug, Args)]
pub struct StatementArgs {
    /// Whose wallet it is.
    #[arg(long, value_name = "USERNAME")]
    pub user: String,
    /// From this instant on, RFC 3339: 2026-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME")]
    pub from: Option<DateTime<Utc>>,
    /// Before this instant.
    #[arg(long, value_name = "TIME")]
    pub to: Option<DateTime<Utc>>,
}

#[derive(Serialize)]
struct Row {
    id: TransactionId,
    user_id: UserId,
    amount_minor: i64,
    balance_after_minor: i64,
    currency: String,
    created_at: DateTime<Utc>,
}

pub async fn run(config: Config, command: WalletCommand, format: Format) -> anyhow::Result<Exit> {
    let offline = Offline::ready(config).await?;
    let exit = match command {
        WalletCommand::Credit(args) => {
            output::print(format, &credit(&offline, args).await?, table)?;
            Exit::Done
        }
        WalletCommand::Verify => verify(&offline, format).await?,
        WalletCommand::Statement(args) => {
            statement(&offline, args).await?;
            Exit::Done
        }
    };
    offline.close().await;
    Ok(exit)
}

async fn credit(offline: &Offline, args: CreditArgs) -> anyhow::Result<Row> {
    let CreditArgs { user, amount, reason, idempotency_key } = args;
    anyhow::ensure!(
        is_reason(&reason),
        "the reason must have 1 to 500 characters, none of them control characters"
    );
    let key = idempotency_key.as_deref().map(IdempotencyKey::parse).transpose();
    let key = key.map_err(|error| anyhow::anyhow!("the idempotency key: {error}"))?;
    let services = offline.services();
    services.wallet.settle_currency().await?;
    let user = services.accounts.find(&user).await?;
    let booked = services.wallet.credit(offline.by(), user.id, amount, reason, key).await?;
    Ok(Row {
        id: booked.id,
        user_id: booked.user_id,
        amount_minor: booked.amount_minor,
        balance_after_minor: booked.balance_after_minor,
        currency: services.wallet.currency().to_string(),
        created_at: booked.created_at,
    })
}

fn table(row: &Row) -> Table {
    let mut table = Table::new(["ID", "AMOUNT", "BALANCE", "CURRENCY"]);
    table.row([
        row.id.to_string(),
        row.amount_minor.to_string(),
        row.balance_after_minor.to_string(),
        row.currency.clone(),
    ]);
    table
}

/// Lines are printed as they are found, in JSON one object each: there may be
/// more than fit into memory. What was looked at comes last.
async fn verify(offline: &Offline, format: Format) -> anyhow::Result<Exit> {
    #[derive(Serialize)]
    #[serde(rename_all = "snake_case")]
    enum Line<'a> {
        Difference(&'a Difference),
        Verified(&'a Verification),
    }

    let mut unprinted = Ok(());
    let mut print = |line: Line<'_>| {
        let text = match (format, &line) {
            (Format::Json, line) => serde_json::to_string(line).expect("plain values are JSON"),
            (Format::Table, Line::Difference(difference)) => difference.to_string(),
            (Format::Table, Line::Verified(done)) => summary(done),
        };
        if unprinted.is_ok() {
            unprinted = output::write(format!("{}\n", output::on_one_line(&text)).as_bytes());
        }
    };
    let wallet = &offline.services().wallet;
    let done = wallet.verify_and_note(|difference| print(Line::Difference(&difference))).await?;
    print(Line::Verified(&done));
    unprinted?;
    Ok(if done.differences == 0 { Exit::Done } else { Exit::Refused })
}

fn summary(done: &Verification) -> String {
    let Verification { wallets, transactions, passes, differences, .. } = done;
    format!(
        "{wallets} wallets, {transactions} transactions and {passes} tokens: \
         {differences} differences"
    )
}

async fn statement(offline: &Offline, args: StatementArgs) -> anyhow::Result<()> {
    let StatementArgs { user, from, to } = args;
    let user = offline.services().accounts.find(&user).await?;
    let mut statement = Statement::new(user.id, from, to);
    while let Some(part) = offline.services().wallet.statement_part(&mut statement).await? {
        output::write(&part)?;
    }
    Ok(())
}
