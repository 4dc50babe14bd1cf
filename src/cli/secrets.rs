//! `tollgate secrets`: the key that seals what its owner may read again.
//!
//! To change it: put the new one into `SECRETS_KEY` and the old one into
//! `SECRETS_PREVIOUS_KEYS`, restart every instance, rotate, and then drop the
//! old one. Nothing need be stopped meanwhile: an instance that lacks a key
//! shows no text for what is sealed with it, and everything works still.

use clap::Subcommand;
use serde::Serialize;

use super::{
    Exit,
    offline::Offline,
    output::{self, Format, Table},
};
use crate::{config::Config, domain::id::PassId, services::passes::Resealed};

#[derive(Clone, Copy, Debug, Subcommand)]
pub enum SecretsCommand {
    /// Seal everything with `SECRETS_KEY` that an older key sealed; exit code 1
    /// if some of it does not open.
    Rotate,
}

#[derive(Serialize)]
struct Report {
    /// How many were sealed again.
    resealed: u64,
    left: Vec<Left>,
}

/// An access token whose text stays sealed with a key that is not configured.
#[derive(Serialize)]
struct Left {
    token_id: PassId,
    /// Which key sealed it; not a secret.
    sealing_key: String,
}

impl From<Resealed> for Report {
    fn from(all: Resealed) -> Self {
        let left = |(token_id, error): (PassId, crate::services::sealer::CannotOpen)| Left {
            token_id,
            sealing_key: error.key,
        };
        Self { resealed: all.done, left: all.left.into_iter().map(left).collect() }
    }
}

pub async fn run(config: Config, command: SecretsCommand, format: Format) -> anyhow::Result<Exit> {
    let offline = Offline::ready(config).await?;
    let report: Report = match command {
        SecretsCommand::Rotate => offline.services().passes.reseal(offline.by()).await?.into(),
    };
    offline.close().await;
    output::print(format, &report, table)?;
    let left = report.left.len();
    if left == 0 {
        return Ok(Exit::Done);
    }
    eprintln!(
        "tollgate: {left} texts were left as they are: no key in SECRETS_KEY and \
         SECRETS_PREVIOUS_KEYS opens them"
    );
    Ok(Exit::Refused)
}

fn table(report: &Report) -> Table {
    let mut table = Table::new(["TOKENS", "SEALED WITH"]);
    table.row([report.resealed.to_string().as_str(), "the current key, by now"]);
    for Left { token_id, sealing_key } in &report.left {
        table.row([token_id.to_string(), format!("{sealing_key}, which is not configured")]);
    }
    table
}
