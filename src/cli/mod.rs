//! The command line: what can be asked for. What a command does is in the file
//! of its name, and there it calls the services that the API calls.
//!
//! Passwords and keys are never arguments: those stand in the list of
//! processes and in the shell's history. They come from standard input or are
//! generated.

mod account;
pub mod audit;
pub mod config;
mod healthcheck;
pub mod keys;
mod migrate;
mod offline;
mod openapi;
pub mod output;
pub mod secrets;
mod serve;
pub mod tokens;
pub mod usage;
mod users;
pub mod vouchers;
pub mod wallet;

use std::{net::IpAddr, path::PathBuf, process::ExitCode};

use clap::{Args, CommandFactory, Parser, Subcommand, error::ErrorKind};
use clap_complete::Shell;

use crate::{
    config::{Config, Sources},
    domain::user::Role,
    repositories::{MigrateError, StoreError},
};
use audit::AuditCommand;
use keys::KeysCommand;
use output::Format;
use secrets::SecretsCommand;
use tokens::TokensCommand;
use usage::UsageCommand;
use vouchers::VouchersCommand;
use wallet::WalletCommand;

/// A self-hosted access gateway: accounts, keys, limits and metering in front
/// of any HTTP backend.
#[derive(Debug, Parser)]
#[command(name = "tollgate", version, about)]
pub struct Cli {
    /// Settings to read instead of ./tollgate.toml.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How results are printed.
    #[arg(long, global = true, value_enum, default_value_t)]
    pub output: Format,
    #[command(flatten)]
    pub serve: ServeArgs,
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve requests; also what happens without a command.
    Serve(ServeArgs),
    /// Bring the database's schema up to date, or tell how far it is.
    #[command(subcommand)]
    Migrate(MigrateCommand),
    /// Check or show the settings; starts nothing.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Manage accounts.
    #[command(subcommand)]
    Users(UsersCommand),
    /// Manage API keys.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Manage access tokens.
    #[command(subcommand)]
    Tokens(TokensCommand),
    /// Change the key that access tokens are sealed with for their owners.
    #[command(subcommand)]
    Secrets(SecretsCommand),
    /// Add the usage that a killed process left.
    #[command(subcommand)]
    Usage(UsageCommand),
    /// Put money into wallets, show and verify the ledger.
    #[command(subcommand)]
    Wallet(WalletCommand),
    /// Verify or print the audit log.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Make codes that become money or access tokens.
    #[command(subcommand)]
    Vouchers(VouchersCommand),
    /// Print the OpenAPI document.
    Openapi,
    /// Ask a running instance whether it is ready.
    Healthcheck(HealthcheckArgs),
    /// Print a completion script for a shell.
    Completions { shell: Shell },
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct ServeArgs {
    /// Address to listen on (`SERVER_HOST`).
    #[arg(long)]
    pub host: Option<IpAddr>,
    /// Port to listen on (`SERVER_PORT`).
    #[arg(long)]
    pub port: Option<u16>,
    /// The backend also answers callers without a credential (`UPSTREAM_AUTH=optional`).
    #[arg(long, conflicts_with = "require_api_auth")]
    pub enable_api_auth: bool,
    /// The backend answers only callers with a credential (`UPSTREAM_AUTH=required`).
    #[arg(long)]
    pub require_api_auth: bool,
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub enum MigrateCommand {
    /// Apply what is missing.
    Up,
    /// List what is applied and what is missing.
    Status,
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Report every problem; exit code 1 if there is one.
    Check,
    /// Print the settings in force and where each comes from, secrets masked.
    Show,
    /// Print a commented .env file with every setting.
    Example,
}

#[derive(Debug, Subcommand)]
pub enum UsersCommand {
    /// Make an account.
    Create(CreateUserArgs),
    /// List accounts.
    List,
    /// Give an account a new password; ends its logins.
    SetPassword {
        username: String,
        #[command(flatten)]
        password: PasswordArgs,
    },
    /// Give an account a role.
    GrantRole { username: String, role: Role },
}

#[derive(Debug, Args)]
pub struct CreateUserArgs {
    #[arg(long)]
    pub username: String,
    #[arg(long)]
    pub email: String,
    #[arg(long)]
    pub full_name: Option<String>,
    /// May be repeated. Without: user.
    #[arg(long = "role", value_name = "ROLE")]
    pub roles: Vec<Role>,
    #[command(flatten)]
    pub password: PasswordArgs,
}

#[derive(Clone, Copy, Debug, Args)]
pub struct PasswordArgs {
    /// Read the password from standard input. Without: it is generated and
    /// printed.
    #[arg(long)]
    pub password_stdin: bool,
}

#[derive(Debug, Args)]
pub struct HealthcheckArgs {
    /// Where it listens. Without: the configured address.
    #[arg(long)]
    pub url: Option<String>,
}

/// How a command ended; the process' exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Done = 0,
    /// It was understood but not done.
    Refused = 1,
    /// It was not understood.
    Usage = 2,
    /// The database or the instance did not answer.
    Unreachable = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl ServeArgs {
    /// The flags as the topmost layer of settings.
    pub fn overrides(&self) -> Vec<(&'static str, String)> {
        let auth = match (self.enable_api_auth, self.require_api_auth) {
            (true, _) => Some("optional".to_owned()),
            (_, true) => Some("required".to_owned()),
            _ => None,
        };
        [
            ("SERVER_HOST", self.host.map(|host| host.to_string())),
            ("SERVER_PORT", self.port.map(|port| port.to_string())),
            ("UPSTREAM_AUTH", auth),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
    }
}

impl Cli {
    /// Flags of `serve` in front of another command would be ignored silently.
    pub fn check(&self) -> Result<(), clap::Error> {
        if self.command.is_some() && self.serve != ServeArgs::default() {
            let message = "flags of `serve` stand behind `serve`, or alone";
            return Err(Self::command().error(ErrorKind::ArgumentConflict, message));
        }
        Ok(())
    }

    fn overrides(&self) -> Vec<(&'static str, String)> {
        match &self.command {
            Some(Command::Serve(args)) => args.overrides(),
            _ => self.serve.overrides(),
        }
    }
}

/// Does what was asked for.
pub fn run(cli: Cli) -> anyhow::Result<Exit> {
    if let Err(error) = cli.check() {
        error.print()?;
        return Ok(Exit::Usage);
    }
    let (file, overrides) = (cli.config.clone(), cli.overrides());
    let read = move || Sources::of_process(file.as_deref(), overrides.clone());
    let sources = read();
    let Cli { command, output, .. } = cli;
    match command {
        Some(Command::Config(command)) => config::run(&sources, command, output),
        Some(Command::Completions { shell }) => completions(shell),
        Some(Command::Openapi) => openapi::run(),
        command => {
            let config = match Config::load(&sources) {
                Ok(config) => config,
                Err(error) => return Ok(config::refuse(&error)),
            };
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            let done = runtime.block_on(with_config(config, read, command, output));
            // Nothing that still runs is waited for: all that mattered has ended.
            runtime.shutdown_background();
            done
        }
    }
}

async fn with_config(
    config: Config,
    read: impl Fn() -> Sources + Send + Sync + 'static,
    command: Option<Command>,
    output: Format,
) -> anyhow::Result<Exit> {
    let done = match command {
        None | Some(Command::Serve(_)) => return serve::run(config, read).await,
        Some(Command::Healthcheck(args)) => return healthcheck::run(&config, args).await,
        Some(Command::Migrate(command)) => migrate::run(config, command, output).await,
        Some(Command::Users(command)) => users::run(config, command, output).await,
        Some(Command::Keys(command)) => keys::run(config, command, output).await,
        Some(Command::Tokens(command)) => tokens::run(config, command, output).await,
        Some(Command::Usage(command)) => usage::run(config, command, output).await,
        Some(Command::Secrets(command)) => secrets::run(config, command, output).await,
        Some(Command::Wallet(command)) => wallet::run(config, command, output).await,
        Some(Command::Audit(command)) => audit::run(config, command, output).await,
        Some(Command::Vouchers(command)) => vouchers::run(config, command, output).await,
        Some(Command::Config(_) | Command::Completions { .. } | Command::Openapi) => {
            unreachable!("these need no configuration")
        }
    };
    match done {
        Err(error) if is_unreachable(&error) => {
            eprintln!("tollgate: {error:#}");
            Ok(Exit::Unreachable)
        }
        done => done,
    }
}

/// The database did not answer, as opposed to having refused.
fn is_unreachable(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        matches!(cause.downcast_ref(), Some(StoreError::Unavailable(_)))
            || matches!(cause.downcast_ref(), Some(MigrateError::Unavailable(_)))
    })
}

fn completions(shell: Shell) -> anyhow::Result<Exit> {
    let mut script = vec![];
    clap_complete::generate(shell, &mut Cli::command(), "tollgate", &mut script);
    output::write(&script)?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace()).and_then(|cli| cli.check().map(|()| cli))
    }

    #[test]
    fn the_definitions_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serve_is_the_default_and_takes_its_flags_either_way() {
        for line in ["tollgate --port 9000", "tollgate serve --port 9000"] {
            assert_eq!(parse(line).unwrap().overrides(), [("SERVER_PORT", "9000".into())]);
        }
        let optional = parse("tollgate --enable-api-auth").unwrap().overrides();
        assert_eq!(optional, [("UPSTREAM_AUTH", "optional".to_owned())]);
        let required = parse("tollgate --require-api-auth").unwrap().overrides();
        assert_eq!(required, [("UPSTREAM_AUTH", "required".to_owned())]);
    }

    #[test]
    fn every_command_of_the_manual_is_understood() {
        for line in [
            "tollgate --config a.toml --output json config show",
            "tollgate config check --output json",
            "tollgate migrate up",
            "tollgate migrate status",
            "tollgate users create --username a --email a@b --role admin --role user --password-stdin",
            "tollgate users list",
            "tollgate users set-password a --password-stdin",
            "tollgate users grant-role a moderator",
            "tollgate keys create --user a --name ci --scope read --scope write --rate-limit 5 \
             --rate-limit-per-minute 1 --expires-at 2030-01-31T12:00:00Z",
            "tollgate keys list --user a",
            "tollgate keys revoke 01890a5d-ac96-774b-bcce-b302099a8057",
            "tollgate keys verify",
            "tollgate tokens grant --user a --hours 48 --upstream default",
            "tollgate tokens list --user a --status unused",
            "tollgate tokens revoke 01890a5d-ac96-774b-bcce-b302099a8057",
            "tollgate secrets rotate",
            "tollgate audit verify --anchor 7:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "tollgate audit export",
            "tollgate audit re-anchor --reason lost",
            "tollgate openapi",
            "tollgate healthcheck --url http://127.0.0.1:8080",
            "tollgate completions bash",
        ] {
            assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
        }
    }

    #[test]
    fn what_would_be_ignored_or_exposed_is_refused() {
        for line in [
            "tollgate --port 1 users list",
            "tollgate --enable-api-auth --require-api-auth",
            "tollgate keys verify tg_text",
            "tollgate users set-password a hunter2",
            "tollgate users grant-role a king",
            "tollgate keys revoke 7",
            "tollgate keys create --user a --name b --expires-at tomorrow",
            "tollgate tokens grant --user a --hours 0",
            "tollgate tokens grant --user a --hours 87601",
            "tollgate tokens list --status sold",
            "tollgate audit verify --anchor 7",
            "tollgate audit re-anchor",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
