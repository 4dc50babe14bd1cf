//! `tollgate tokens`: access tokens, given and ended.

use chrono::{DateTime, Utc};
use clap::{
    Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use serde::Serialize;

use super::{
    Exit,
    offline::Offline,
    output::{self, Format, Table},
};
use crate::{
    config::Config,
    domain::{
        id::{PassId, UserId},
        page::PageRequest,
        pass::{MAX_HOURS, Origin, Pass, Status},
    },
    services::passes::{Holder, Order, OwnedPass, PassFilter},
};

#[derive(Debug, Subcommand)]
pub enum TokensCommand {
    /// Give an account a token for nothing; its text is printed once.
    Grant(GrantTokenArgs),
    /// List tokens, the newest first.
    List {
        /// Only this account's.
        #[arg(long, value_name = "USERNAME")]
        user: Option<String>,
        /// Only those in this state.
        #[arg(long, value_parser = state())]
        status: Option<Status>,
    },
    /// End a token; it stops working at once.
    Revoke { id: PassId },
}

#[derive(Debug, Args)]
pub struct GrantTokenArgs {
    /// Whose it is to be.
    #[arg(long, value_name = "USERNAME")]
    pub user: String,
    /// How long it lasts from its first use.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_HOURS)))]
    pub hours: u32,
    /// The one upstream it opens. Without: all.
    #[arg(long, value_name = "NAME")]
    pub upstream: Option<String>,
}

fn state() -> impl TypedValueParser<Value = Status> {
    let names = PossibleValuesParser::new(Status::ALL.map(Status::as_str));
    names.try_map(|text| Status::parse(&text).ok_or("no state of a token"))
}

#[derive(Serialize)]
struct Row {
    token_id: PassId,
    token_prefix: String,
    user_id: UserId,
    duration_hours: u32,
    upstream: Option<String>,
    origin: Origin,
    status: Status,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    /// Only right after it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

impl Row {
    fn new(pass: Pass, now: DateTime<Utc>, text: Option<String>) -> Self {
        let (status, expires_at) = (pass.status(now), pass.expires_at());
        let Pass { id, user_id, prefix, duration_hours, upstream, origin, created_at, .. } = pass;
        Self {
            token_id: id,
            token_prefix: prefix,
            user_id,
            duration_hours,
            upstream,
            origin,
            status,
            created_at,
            expires_at,
            token: text,
        }
    }
}

pub async fn run(config: Config, command: TokensCommand, format: Format) -> anyhow::Result<Exit> {
    let offline = Offline::ready(config).await?;
    let rows = match command {
        TokensCommand::Grant(args) => vec![grant(&offline, args).await?],
        TokensCommand::List { user, status } => list(&offline, user, status).await?,
        TokensCommand::Revoke { id } => {
            let ended = offline.services().passes.revoke(offline.by(), Holder::Anyone, id).await?;
            vec![Row::new(ended.pass, offline.services().clock.now(), None)]
        }
    };
    output::print(format, &rows, table)?;
    offline.close().await;
    Ok(Exit::Done)
}

async fn grant(offline: &Offline, args: GrantTokenArgs) -> anyhow::Result<Row> {
    let GrantTokenArgs { user, hours, upstream } = args;
    let user = offline.services().accounts.find(&user).await?;
    let order = Order { duration_hours: hours, upstream };
    let given = offline.services().passes.grant(offline.by(), user.id, order, None).await?;
    let OwnedPass { pass, token } = given;
    let text = token.map(|token| token.expose().to_owned());
    Ok(Row::new(pass, offline.services().clock.now(), text))
}

async fn list(
    offline: &Offline,
    user: Option<String>,
    status: Option<Status>,
) -> anyhow::Result<Vec<Row>> {
    let user_id = match user {
        Some(name) => Some(offline.services().accounts.find(&name).await?.id),
        None => None,
    };
    let filter = PassFilter { user_id, status: status.into_iter().collect() };
    let mut rows = vec![];
    let mut page = PageRequest::FIRST;
    loop {
        let found = offline.services().passes.list(&filter, page).await?;
        let now = offline.services().clock.now();
        rows.extend(found.items.into_iter().map(|pass| Row::new(pass, now, None)));
        let Some(cursor) = found.next else { return Ok(rows) };
        page.after = Some(cursor);
    }
}

fn table(rows: &Vec<Row>) -> Table {
    let mut table =
        Table::new(["ID", "PREFIX", "USER", "HOURS", "UPSTREAM", "STATUS", "EXPIRES", "TOKEN"]);
    for row in rows {
        table.row([
            row.token_id.to_string().as_str(),
            &row.token_prefix,
            &row.user_id.to_string(),
            &row.duration_hours.to_string(),
            row.upstream.as_deref().unwrap_or_default(),
            row.status.as_str(),
            &row.expires_at.map_or_else(String::new, |at| at.to_rfc3339()),
            row.token.as_deref().unwrap_or_default(),
        ]);
    }
    table
}
