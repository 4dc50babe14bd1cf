//! `tollgate users`: accounts.

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use secrecy::ExposeSecret as _;
use serde::Serialize;
use validator::ValidateEmail as _;

use super::{
    CreateUserArgs, Exit, UsersCommand,
    offline::{ChosenPassword, Offline},
    output::{self, Format, Table},
};
use crate::{
    config::Config,
    domain::{
        id::UserId,
        page::PageRequest,
        user::{NewUser, Roles, User, is_username},
    },
    services::accounts::UserFilter,
};

#[derive(Serialize)]
struct Row {
    id: UserId,
    username: String,
    email: String,
    roles: Roles,
    is_active: bool,
    created_at: DateTime<Utc>,
    /// Only right after it was generated.
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<String>,
}

impl Row {
    fn new(user: User, password: Option<String>) -> Self {
        let User { id, username, email, roles, is_active, created_at, .. } = user;
        Self { id, username, email, roles, is_active, created_at, password }
    }
}

pub async fn run(config: Config, command: UsersCommand, format: Format) -> anyhow::Result<Exit> {
    let offline = Offline::ready(config).await?;
    let rows = match command {
        UsersCommand::Create(args) => vec![create(&offline, args).await?],
        UsersCommand::List => list(&offline).await?,
        UsersCommand::SetPassword { username, password } => {
            let accounts = &offline.services().accounts;
            let password = ChosenPassword::read(password, &offline)?;
            let user = accounts.find(&username).await?;
            accounts.set_password(offline.by(), user.id, &password.text).await?;
            vec![Row::new(user, shown(&password))]
        }
        UsersCommand::GrantRole { username, role } => {
            let accounts = &offline.services().accounts;
            let user = accounts.find(&username).await?;
            accounts.grant_role(offline.by(), user.id, role).await?;
            vec![Row::new(accounts.get(user.id).await?, None)]
        }
    };
    output::print(format, &rows, table)?;
    offline.close().await;
    Ok(Exit::Done)
}

async fn create(offline: &Offline, args: CreateUserArgs) -> anyhow::Result<Row> {
    let CreateUserArgs { username, email, full_name, roles, password } = args;
    anyhow::ensure!(
        is_username(&username),
        "the username must have 3 to 64 letters, digits, dots, dashes or underscores"
    );
    anyhow::ensure!(email.len() <= 254 && email.validate_email(), "the e-mail address is not one");
    let roles = roles.into_iter().fold(Roles::USER, Roles::with);
    let password = ChosenPassword::read(password, offline)?;
    let new = NewUser { username, email, full_name, roles, is_active: true };
    let user = offline.services().accounts.create(offline.by(), new, &password.text).await?;
    Ok(Row::new(user, shown(&password)))
}

async fn list(offline: &Offline) -> anyhow::Result<Vec<Row>> {
    let mut rows = vec![];
    let mut page = PageRequest::FIRST;
    loop {
        let found = offline.services().accounts.list(&UserFilter::default(), page).await;
        let found = found.context("the accounts cannot be listed")?;
        rows.extend(found.items.into_iter().map(|user| Row::new(user, None)));
        let Some(cursor) = found.next else { return Ok(rows) };
        page.after = Some(cursor);
    }
}

fn shown(password: &ChosenPassword) -> Option<String> {
    password.generated.then(|| password.text.expose_secret().to_owned())
}

fn table(rows: &Vec<Row>) -> Table {
    let mut table = Table::new(["ID", "USERNAME", "E-MAIL", "ROLES", "ACTIVE", "PASSWORD"]);
    for row in rows {
        table.row([
            row.id.to_string().as_str(),
            &row.username,
            &row.email,
            &row.roles.to_string(),
            if row.is_active { "yes" } else { "no" },
            row.password.as_deref().unwrap_or_default(),
        ]);
    }
    table
}
