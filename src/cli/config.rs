//! `tollgate config`: the settings, without starting anything.

use serde::Serialize;

use super::{
    ConfigCommand, Exit,
    output::{self, Format, Table},
};
use crate::config::{Config, ConfigError, Effective, Problem, Sources, env_example};

/// What `config check --output json` prints.
#[derive(Serialize)]
struct Verdict<'a> {
    valid: bool,
    problems: &'a [Problem],
}

/// Problems go to standard error, one line each, in every format.
pub fn run(sources: &Sources, command: ConfigCommand, format: Format) -> anyhow::Result<Exit> {
    match command {
        ConfigCommand::Example => {
            output::write(env_example().as_bytes())?;
            Ok(Exit::Done)
        }
        ConfigCommand::Check => {
            let error = Config::load(sources).err();
            let problems = error.as_ref().map_or(&[][..], ConfigError::problems);
            let verdict = Verdict { valid: problems.is_empty(), problems };
            match (&error, format) {
                (None, Format::Table) => output::write(b"The configuration is valid.\n")?,
                (Some(_), Format::Table) => {}
                (_, Format::Json) => output::json(&verdict)?,
            }
            Ok(error.map_or(Exit::Done, |error| refuse(&error)))
        }
        ConfigCommand::Show => match Config::load_with_origins(sources) {
            Ok((_, settings)) => {
                output::print(format, &settings, table)?;
                Ok(Exit::Done)
            }
            Err(error) => Ok(refuse(&error)),
        },
    }
}

/// Reports a configuration that cannot be used.
pub fn refuse(error: &ConfigError) -> Exit {
    for problem in error.problems() {
        eprintln!("{}", output::on_one_line(&problem.to_string()));
    }
    Exit::Refused
}

fn table(settings: &Vec<Effective>) -> Table {
    let mut table = Table::new(["SETTING", "VALUE", "FROM"]);
    for Effective { name, path: _, value, origin } in settings {
        table.row([name, value.as_str(), origin.as_str()]);
    }
    table
}
