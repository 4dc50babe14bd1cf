//! `tollgate audit`: who did what, printed, and the proof that it is all there.

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
    services::audit::{Anchor, Verified},
};

#[derive(Clone, Debug, Subcommand)]
pub enum AuditCommand {
    /// Walk the whole log, also while instances run; exit code 1 and the first
    /// bad row if it is not what was written.
    Verify(VerifyArgs),
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

fn anchor(text: &str) -> Result<Anchor, &'static str> {
    const EXPECTED: &str = "expected a number, a colon and 64 hexadecimal digits";
    let (seq, hash) = text.split_once(':').ok_or(EXPECTED)?;
    let seq = seq.parse().map_err(|_| EXPECTED)?;
    let hash: Vec<u8> = hex::decode(hash).map_err(|_| EXPECTED)?;
    Ok(Anchor { seq, hash: hash.try_into().map_err(|_| EXPECTED)? })
}

pub async fn run(config: Config, command: AuditCommand, format: Format) -> anyhow::Result<Exit> {
    let offline = Offline::ready(config).await?;
    let exit = match command {
        AuditCommand::Verify(args) => verify(&offline, args, format).await?,
        AuditCommand::Export => export(&offline).await?,
    };
    offline.close().await;
    Ok(exit)
}

async fn verify(offline: &Offline, args: VerifyArgs, format: Format) -> anyhow::Result<Exit> {
    let done = offline.services().audit.verify(args.anchor).await?;
    match format {
        Format::Json => output::json(&done)?,
        Format::Table => output::write(format!("{}\n", told(&done)).as_bytes())?,
    }
    Ok(if done.fault.is_none() { Exit::Done } else { Exit::Refused })
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
