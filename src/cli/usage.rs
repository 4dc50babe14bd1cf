//! `tollgate usage`: what was used and is not in the database yet.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Subcommand;
use serde::Serialize;

use super::{
    Exit,
    offline::Offline,
    output::{self, Format, Table},
};
use crate::{config::Config, services::usage::Orphan};

#[derive(Clone, Debug, Subcommand)]
pub enum UsageCommand {
    /// Add what a process left that was killed and will not come back, from its
    /// folder in `DATA_DIR/journal` or a copy of that. A second time adds nothing.
    Drain {
        /// The folder; its name must be as it was.
        #[arg(required = true)]
        folders: Vec<PathBuf>,
    },
}

#[derive(Serialize)]
struct Drained {
    folder: PathBuf,
    /// Records that were added.
    records: usize,
}

pub async fn run(config: Config, command: UsageCommand, format: Format) -> anyhow::Result<Exit> {
    let UsageCommand::Drain { folders } = command;
    let offline = Offline::ready(config).await?;
    let usage = &offline.services().usage;
    let mut all = vec![];
    for folder in folders {
        let orphan = Orphan::take(&folder).with_context(|| folder.display().to_string())?;
        let orphan = orphan.with_context(|| {
            format!("{} is no journal, or its process still runs", folder.display())
        })?;
        let records = usage.add_orphan(&orphan).await?;
        all.push(Drained { folder, records });
    }
    offline.close().await;
    output::print(format, &all, |all| {
        let mut table = Table::new(["FOLDER", "RECORDS ADDED"]);
        for Drained { folder, records } in all {
            table.row([folder.display().to_string(), records.to_string()]);
        }
        table
    })?;
    Ok(Exit::Done)
}
