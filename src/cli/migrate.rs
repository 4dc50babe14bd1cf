//! `tollgate migrate`: the schema.

use serde::Serialize;

use super::{
    Exit, MigrateCommand,
    offline::Offline,
    output::{self, Format, Table},
};
use crate::{config::Config, repositories::MigrationStatus};

#[derive(Serialize)]
struct Row {
    version: i64,
    description: String,
    applied: bool,
}

impl From<MigrationStatus> for Row {
    fn from(status: MigrationStatus) -> Self {
        let MigrationStatus { version, description, applied } = status;
        Self { version, description, applied }
    }
}

pub async fn run(config: Config, command: MigrateCommand, format: Format) -> anyhow::Result<Exit> {
    let offline = Offline::open(config).await?;
    if matches!(command, MigrateCommand::Up) {
        offline.app.db.migrate().await?;
    }
    let rows = offline.app.db.migration_status().await?;
    let rows: Vec<Row> = rows.into_iter().map(Row::from).collect();
    output::print(format, &rows, |rows| {
        let mut table = Table::new(["VERSION", "DESCRIPTION", "APPLIED"]);
        for Row { version, description, applied } in rows {
            let applied = if *applied { "yes" } else { "no" };
            table.row([&version.to_string(), description.as_str(), applied]);
        }
        table
    })?;
    offline.close().await;
    Ok(Exit::Done)
}
