//! `tollgate audit`: who did what, printed, and the proof that it is all there.

use std::path::Path;

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::{
    Exit,
    offline::Offline,
    output::{self, Format},
};
use crate::{
    config::Config,
    domain::audit::AuditRow,
    services::audit::{Anchor, ReAnchorError, Verified},
};

#[derive(Clone, Debug, Subcommand)]
pub enum AuditCommand {
    /// Walk the whole log, also while instances run; exit code 1 and the first
    /// bad row if it is not what was written.
    Verify(VerifyArgs),
    /// Seal the ends of the log anew after `SECRETS_KEY` was lost, or take a database
    /// that was put back on purpose for the right one. Rows that were changed or are
    /// missing stay so: then it refuses.
    ReAnchor(ReAnchorArgs),
    /// Print the log, a line of JSON for each row, oldest first.
    Export,
}

#[derive(Clone, Debug, Args)]
pub struct VerifyArgs {
    /// A row that was written down elsewhere, as a verification and the log of an
    /// instance tell them: shows also that the log was not put back as a whole.
    #[arg(long, value_name = "SEQ:HASH", value_parser = anchor)]
    pub anchor: Option<Anchor>,
}

#[derive(Clone, Debug, Args)]
pub struct ReAnchorArgs {
    /// Why, for the log.
    #[arg(long)]
    pub reason: String,
}

fn anchor(text: &str) -> Result<Anchor, &'static str> {
    Anchor::parse(text).ok_or("expected a number, a colon and 64 hexadecimal digits")
}

pub async fn run(config: Config, command: AuditCommand, format: Format) -> anyhow::Result<Exit> {
    let folder = config.data_dir.clone();
    let offline = Offline::ready(config).await?;
    let exit = match command {
        AuditCommand::Verify(args) => verify(&offline, args, &folder, format).await?,
        AuditCommand::ReAnchor(args) => re_anchor(&offline, &args, &folder).await?,
        AuditCommand::Export => export(&offline).await?,
    };
    offline.close().await;
    Ok(exit)
}

/// Holds the log to the anchor that is given, else to the one that an instance kept
/// in this data directory.
async fn verify(
    offline: &Offline,
    args: VerifyArgs,
    folder: &Path,
    format: Format,
) -> anyhow::Result<Exit> {
    let audit = &offline.services().audit;
    let mut done = audit.verify(args.anchor).await?;
    if let (None, None) = (done.fault, args.anchor)
        && let Some(kept) = Anchor::kept(folder).await?
        // One that is past its retention says nothing.
        && kept.seq > done.dropped
    {
        done = audit.verify(Some(kept)).await?;
    }
    match format {
        Format::Json => output::json(&done)?,
        Format::Table => output::write(format!("{}\n", told(&done)).as_bytes())?,
    }
    Ok(if done.fault.is_none() { Exit::Done } else { Exit::Refused })
}

async fn re_anchor(offline: &Offline, args: &ReAnchorArgs, folder: &Path) -> anyhow::Result<Exit> {
    let audit = &offline.services().audit;
    match audit.re_anchor(offline.by(), &args.reason).await {
        Ok(before) => {
            audit.replace_anchor(folder).await?;
            let before = before.map_or_else(String::new, |fault| format!("; before: {fault}"));
            output::write(format!("the ends of the log are sealed anew{before}\n").as_bytes())?;
            Ok(Exit::Done)
        }
        Err(ReAnchorError::Store(error)) => Err(error.into()),
        Err(refused) => {
            eprintln!("tollgate: {refused}");
            Ok(Exit::Refused)
        }
    }
}

fn told(done: &Verified) -> String {
    let Verified { rows, dropped, last, hash, fault } = done;
    let dropped = match dropped {
        0 => String::new(),
        dropped => format!(", behind {dropped} that are past their retention"),
    };
    match fault {
        None => format!("{rows} rows are as they were written{dropped}; the last is {last}:{hash}"),
        Some(fault) => format!("{fault}; {rows} rows before it are good{dropped}"),
    }
}

#[derive(Serialize)]
struct Line<'a> {
    seq: i64,
    at: DateTime<Utc>,
    actor_kind: &'a str,
    actor_id: Option<uuid::Uuid>,
    actor_name: &'a str,
    address: Option<&'a str>,
    user_agent: Option<&'a str>,
    request_id: Option<&'a str>,
    action: &'a str,
    target_kind: &'a str,
    target_id: Option<&'a str>,
    /// The very text that was hashed.
    before: Option<&'a str>,
    after: Option<&'a str>,
    previous_hash: String,
    hash: String,
    key_id: &'a str,
    seal: String,
}

impl<'a> Line<'a> {
    fn new(row: &'a AuditRow) -> Self {
        Self {
            seq: row.seq,
            at: row.at,
            actor_kind: &row.actor_kind,
            actor_id: row.actor_id,
            actor_name: &row.actor_name,
            address: row.address.as_deref(),
            user_agent: row.user_agent.as_deref(),
            request_id: row.request_id.as_deref(),
            action: &row.action,
            target_kind: &row.target_kind,
            target_id: row.target_id.as_deref(),
            before: row.before.as_deref(),
            after: row.after.as_deref(),
            previous_hash: hex::encode(row.previous),
            hash: hex::encode(row.hash),
            key_id: &row.key,
            seal: hex::encode(row.seal),
        }
    }
}

async fn export(offline: &Offline) -> anyhow::Result<Exit> {
    let mut seq = 0;
    loop {
        let rows = offline.services().audit.after(seq).await?;
        let Some(last) = rows.last() else { return Ok(Exit::Done) };
        seq = last.seq;
        let mut text = vec![];
        for row in &rows {
            serde_json::to_writer(&mut text, &Line::new(row))?;
            text.push(b'\n');
        }
        output::write(&text)?;
    }
}
