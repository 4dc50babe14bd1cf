//! `tollgate vouchers`: codes that become money or access tokens.

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
        id::{BatchId, VoucherId},
        money::Amount,
        page::PageRequest,
        voucher::{Gift, Voucher},
    },
    services::{
        key_input::FieldError,
        vouchers::{NewVouchers, VoucherError, VoucherFilter, codes_as_csv},
    },
};

#[derive(Debug, Subcommand)]
pub enum VouchersCommand {
    /// Make vouchers; their codes are printed once.
    Create(CreateVouchersArgs),
    /// List vouchers, without their codes.
    List {
        /// Only those that were made together.
        #[arg(long, value_name = "ID")]
        batch: Option<BatchId>,
    },
    /// Stop a voucher from being redeemed.
    Revoke { id: VoucherId },
}

#[derive(Debug, Args)]
pub struct CreateVouchersArgs {
    /// How many codes, at most 1000.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub count: u32,
    /// What each gives, in minor units.
    #[arg(long, value_name = "MINOR", required_unless_present = "hours", conflicts_with = "hours")]
    pub amount: Option<Amount>,
    /// The length of the access token that each gives.
    #[arg(long, value_name = "N")]
    pub hours: Option<u32>,
    /// The one upstream that the access token opens. Without: all.
    #[arg(long, value_name = "NAME")]
    pub upstream: Option<String>,
    /// From when on they cannot be redeemed, RFC 3339: 2030-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME")]
    pub expires_at: Option<DateTime<Utc>>,
    /// How often each can be redeemed.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub max_uses: u32,
    /// How often by one user.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub max_uses_per_user: u32,
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
    /// Print CSV.
    #[arg(long)]
    pub csv: bool,
}

#[derive(Serialize)]
struct Row {
    id: VoucherId,
    batch_id: BatchId,
    prefix: String,
    amount_minor: Option<i64>,
    duration_hours: Option<u32>,
    upstream: Option<String>,
    uses: u32,
    max_uses: u32,
    max_uses_per_user: u32,
    expires_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
    note: Option<String>,
    /// Only right after it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
}

impl Row {
    fn new(voucher: Voucher, code: Option<String>) -> Self {
        let (amount_minor, duration_hours, upstream) = match voucher.gift {
            Gift::Balance(minor) => (Some(minor), None, None),
            Gift::Pass { duration_hours, upstream } => (None, Some(duration_hours), upstream),
        };
        Self {
            id: voucher.id,
            batch_id: voucher.batch_id,
            prefix: voucher.prefix,
            amount_minor,
            duration_hours,
            upstream,
            uses: voucher.uses,
            max_uses: voucher.max_uses,
            max_uses_per_user: voucher.max_uses_per_user,
            expires_at: voucher.expires_at,
            revoked_at: voucher.revoked_at,
            note: voucher.note,
            code,
        }
    }
}

pub async fn run(config: Config, command: VouchersCommand, format: Format) -> anyhow::Result<Exit> {
    let offline = Offline::ready(config).await?;
    match command {
        VouchersCommand::Create(args) => create(&offline, args, format).await?,
        VouchersCommand::List { batch } => {
            output::print(format, &list(&offline, batch).await?, table)?;
        }
        VouchersCommand::Revoke { id } => {
            offline.services().vouchers.revoke(offline.by(), id).await?;
        }
    }
    offline.close().await;
    Ok(Exit::Done)
}

async fn create(offline: &Offline, args: CreateVouchersArgs, format: Format) -> anyhow::Result<()> {
    let services = offline.services();
    services.wallet.settle_currency().await?;
    let new = NewVouchers {
        count: args.count,
        amount_minor: args.amount.map(Amount::minor),
        duration_hours: args.hours,
        upstream: args.upstream,
        expires_at: args.expires_at,
        max_uses: args.max_uses,
        max_uses_per_user: args.max_uses_per_user,
        note: args.note,
    };
    let batch = match services.vouchers.make(offline.by(), new).await {
        Err(VoucherError::Invalid(wrong)) => {
            let line = |FieldError { field, message }: &FieldError| format!("{field} {message}");
            anyhow::bail!(wrong.iter().map(line).collect::<Vec<_>>().join("; "))
        }
        made => made?,
    };
    if args.csv {
        return Ok(output::write(&codes_as_csv(&batch, services.wallet.currency()))?);
    }
    let rows = batch.vouchers.into_iter();
    let rows = rows.map(|(voucher, code)| Row::new(voucher, Some(code.expose().to_owned())));
    Ok(output::print(format, &rows.collect(), table)?)
}

async fn list(offline: &Offline, batch_id: Option<BatchId>) -> anyhow::Result<Vec<Row>> {
    let mut rows = vec![];
    let mut next = Some(PageRequest::FIRST);
    while let Some(page) = next {
        let found = offline.services().vouchers.list(VoucherFilter { batch_id }, page).await?;
        next = page.followed_by(found.next);
        rows.extend(found.items.into_iter().map(|voucher| Row::new(voucher, None)));
    }
    Ok(rows)
}

fn table(rows: &Vec<Row>) -> Table {
    let mut table = Table::new(["ID", "BATCH", "PREFIX", "GIVES", "USES", "REVOKED", "CODE"]);
    for row in rows {
        let gives = match (row.amount_minor, row.duration_hours) {
            (Some(minor), _) => minor.to_string(),
            (None, hours) => format!("{} h", hours.unwrap_or_default()),
        };
        table.row([
            row.id.to_string().as_str(),
            &row.batch_id.to_string(),
            &row.prefix,
            &gives,
            &format!("{}/{}", row.uses, row.max_uses),
            if row.revoked_at.is_some() { "yes" } else { "no" },
            row.code.as_deref().unwrap_or_default(),
        ]);
    }
    table
}
