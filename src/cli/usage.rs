//! `tollgate usage`: what was used and is not in the database yet, and what is, as a
//! file.

use std::path::PathBuf;

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use serde::{
    Serialize,
    de::{DeserializeOwned, IntoDeserializer as _},
};

use super::{
    Exit,
    offline::Offline,
    output::{self, Format, Table},
};
use crate::{
    api::usage_file::{
        ExportFile, ExportQuery, FormatName, GroupOfAllName, IntervalName, KindName,
    },
    config::Config,
    services::usage::Orphan,
};

#[derive(Clone, Debug, Subcommand)]
pub enum UsageCommand {
    /// Add what a process left that was killed and will not come back, from its
    /// folder in `DATA_DIR/journal` or a copy of that. A second time adds nothing.
    Drain {
        /// The folder; its name must be as it was.
        #[arg(required = true)]
        folders: Vec<PathBuf>,
    },
    /// Print everybody's usage as a file, like `/api/v1/usage/export`; also while
    /// instances run.
    Export(ExportArgs),
}

#[derive(Clone, Debug, Args)]
pub struct ExportArgs {
    /// csv (the default) or ndjson.
    #[arg(long, value_parser = named::<FormatName>)]
    format: Option<FormatName>,
    /// usage (the default: sums) or requests (one by one).
    #[arg(long, value_parser = named::<KindName>)]
    kind: Option<KindName>,
    /// From when, such as 2026-01-01T00:00:00Z; 30 days before the end by default.
    #[arg(long)]
    from: Option<DateTime<Utc>>,
    /// Until when; now by default.
    #[arg(long)]
    to: Option<DateTime<Utc>>,
    /// Of sums: day (the default) or hour.
    #[arg(long, value_parser = named::<IntervalName>)]
    interval: Option<IntervalName>,
    /// Of sums: user, key, token, upstream or route.
    #[arg(long, value_parser = named::<GroupOfAllName>)]
    group_by: Option<GroupOfAllName>,
}

/// As the API calls it.
fn named<T: DeserializeOwned>(text: &str) -> Result<T, serde::de::value::Error> {
    T::deserialize(text.into_deserializer())
}

#[derive(Serialize)]
struct Drained {
    folder: PathBuf,
    /// Records that were added.
    records: usize,
}

pub async fn run(config: Config, command: UsageCommand, format: Format) -> anyhow::Result<Exit> {
    let offline = Offline::ready(config).await?;
    let folders = match command {
        UsageCommand::Drain { folders } => folders,
        UsageCommand::Export(args) => {
            let done = export(&offline, args).await;
            offline.close().await;
            return done;
        }
    };
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

async fn export(offline: &Offline, args: ExportArgs) -> anyhow::Result<Exit> {
    let ExportArgs { format, kind, from, to, interval, group_by } = args;
    let query = ExportQuery { format, kind, from, to, interval, group_by };
    let services = offline.services();
    let Ok(mut file) = ExportFile::new(&services.usage, &query, services.clock.now()) else {
        anyhow::bail!("--from must lie before --to, and 10,000 intervals before it at the most");
    };
    while let Some(rows) = file.next().await? {
        output::write(&rows)?;
    }
    Ok(Exit::Done)
}
