//! `tollgate keys`: API keys.

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use secrecy::ExposeSecret as _;
use serde::Serialize;

use super::{
    Exit,
    offline::{Offline, secret_from_stdin},
    output::{self, Format, Table},
};
use crate::{
    config::Config,
    domain::{
        api_key::ApiKey,
        id::{ApiKeyId, UserId},
        page::PageRequest,
    },
    services::{
        api_keys::ApiKeyError,
        api_keys::{KeyFilter, Owner, VerifyOutcome},
        key_input::{FieldError, KeyChange},
    },
};

#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Make a key; its text is printed once.
    Create(CreateKeyArgs),
    /// List keys.
    List {
        /// Only this account's.
        #[arg(long, value_name = "USERNAME")]
        user: Option<String>,
    },
    /// Delete a key; it stops working at once.
    Revoke { id: ApiKeyId },
    /// Tell whether the key on standard input is good; exit code 1 if not.
    Verify,
}

#[derive(Debug, Args)]
pub struct CreateKeyArgs {
    /// Whose key it is.
    #[arg(long, value_name = "USERNAME")]
    pub user: String,
    #[arg(long)]
    pub name: String,
    /// May be repeated. Without: every scope.
    #[arg(long = "scope", value_name = "SCOPE")]
    pub scopes: Vec<String>,
    /// Requests per hour.
    #[arg(long, value_name = "N")]
    pub rate_limit: Option<u32>,
    /// Requests per minute.
    #[arg(long, value_name = "N")]
    pub rate_limit_per_minute: Option<u32>,
    /// RFC 3339, 2030-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME")]
    pub expires_at: Option<DateTime<Utc>>,
}

#[derive(Serialize)]
struct Row {
    id: ApiKeyId,
    name: String,
    prefix: String,
    user_id: UserId,
    is_active: bool,
    expires_at: Option<DateTime<Utc>>,
    last_used_at: Option<DateTime<Utc>>,
    /// Only right after it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

impl Row {
    fn new(key: ApiKey, text: Option<String>) -> Self {
        let ApiKey { id, name, prefix, user_id, is_active, expires_at, last_used_at, .. } = key;
        Self { id, name, prefix, user_id, is_active, expires_at, last_used_at, key: text }
    }
}

pub async fn run(config: Config, command: KeysCommand, format: Format) -> anyhow::Result<Exit> {
    let offline = Offline::ready(config).await?;
    let exit = match command {
        KeysCommand::Create(args) => {
            let row = create(&offline, args).await?;
            output::print(format, &vec![row], table)?;
            Exit::Done
        }
        KeysCommand::List { user } => {
            output::print(format, &list(&offline, user).await?, table)?;
            Exit::Done
        }
        KeysCommand::Revoke { id } => {
            offline.services().api_keys.delete(offline.by(), Owner::Anyone, id).await?;
            Exit::Done
        }
        KeysCommand::Verify => verify(&offline, format).await?,
    };
    offline.close().await;
    Ok(exit)
}

async fn create(offline: &Offline, args: CreateKeyArgs) -> anyhow::Result<Row> {
    let CreateKeyArgs { user, name, scopes, rate_limit, rate_limit_per_minute, expires_at } = args;
    let user = offline.services().accounts.find(&user).await?;
    let fields = KeyChange {
        name: Some(name),
        scopes: Some(scopes),
        rate_limit: rate_limit.map(Some),
        rate_limit_per_minute: rate_limit_per_minute.map(Some),
        expires_at: expires_at.map(Some),
        ..KeyChange::default()
    };
    match offline.services().api_keys.issue(offline.by(), user.id, fields).await {
        Ok(issued) => Ok(Row::new(issued.key, Some(issued.token.expose().to_owned()))),
        Err(ApiKeyError::Invalid(wrong)) => {
            let line = |FieldError { field, message }: &FieldError| format!("{field} {message}");
            let lines: Vec<_> = wrong.iter().map(line).collect();
            anyhow::bail!(lines.join("; "))
        }
        Err(error) => Err(error.into()),
    }
}

async fn list(offline: &Offline, user: Option<String>) -> anyhow::Result<Vec<Row>> {
    let user_id = match user {
        Some(name) => Some(offline.services().accounts.find(&name).await?.id),
        None => None,
    };
    let mut rows = vec![];
    let mut page = PageRequest::FIRST;
    loop {
        let filter = KeyFilter { user_id, ..KeyFilter::default() };
        let found = offline.services().api_keys.list(Owner::Anyone, filter, page).await?;
        rows.extend(found.items.into_iter().map(|key| Row::new(key, None)));
        let Some(cursor) = found.next else { return Ok(rows) };
        page.after = Some(cursor);
    }
}

async fn verify(offline: &Offline, format: Format) -> anyhow::Result<Exit> {
    #[derive(Serialize)]
    struct Verdict {
        valid: bool,
        code: &'static str,
    }

    let text = secret_from_stdin()?;
    // A cost of 0: a look from the command line uses nothing up.
    let found = offline.services().api_keys.verify(text.expose_secret(), None, 0, "cli").await?;
    let valid = found.outcome == VerifyOutcome::Valid;
    let verdict = Verdict { valid, code: found.outcome.as_str() };
    output::print(format, &verdict, |verdict| {
        let mut table = Table::new(["VALID", "CODE"]);
        table.row([if verdict.valid { "yes" } else { "no" }, verdict.code]);
        table
    })?;
    Ok(if valid { Exit::Done } else { Exit::Refused })
}

fn table(rows: &Vec<Row>) -> Table {
    let mut table = Table::new(["ID", "NAME", "PREFIX", "ACTIVE", "EXPIRES", "LAST USED", "KEY"]);
    let time = |at: Option<DateTime<Utc>>| at.map_or_else(String::new, |at| at.to_rfc3339());
    for row in rows {
        table.row([
            row.id.to_string().as_str(),
            &row.name,
            &row.prefix,
            if row.is_active { "yes" } else { "no" },
            &time(row.expires_at),
            &time(row.last_used_at),
            row.key.as_deref().unwrap_or_default(),
        ]);
    }
    table
}
