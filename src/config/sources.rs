//! Where settings come from, as plain data: a test fills it in by hand and no
//! test touches the environment or the working directory of the process.

use std::{collections::BTreeMap, io, path::Path};

use super::problem::Problem;

const DEFAULT_FILE: &str = "tollgate.toml";
const DOTENV: &str = ".env";

/// The layers above the built-in defaults; later fields win.
#[derive(Clone, Default)]
pub struct Sources {
    /// The text of `tollgate.toml` or of the file named by `--config`.
    pub file: Option<String>,
    /// The text of `.env`.
    pub dotenv: Option<String>,
    pub environment: BTreeMap<String, String>,
    /// Environment names set by command-line flags.
    pub overrides: Vec<(&'static str, String)>,
    /// What could not be read at all.
    pub problems: Vec<Problem>,
}

impl Sources {
    /// The sources of this process: its environment, `.env` where the working
    /// directory has one, and the file. A file that was asked for must exist.
    pub fn of_process(file: Option<&Path>, overrides: Vec<(&'static str, String)>) -> Self {
        let mut sources = Self { overrides, ..Self::default() };
        sources.file = match file {
            Some(path) => sources.read("--config", path, true),
            None => sources.read(DEFAULT_FILE, Path::new(DEFAULT_FILE), false),
        };
        sources.dotenv = sources.read(DOTENV, Path::new(DOTENV), false);
        for (name, value) in std::env::vars_os() {
            // A name that is not UTF-8 cannot be one of ours.
            let Ok(name) = name.into_string() else { continue };
            match value.into_string() {
                Ok(value) => _ = sources.environment.insert(name, value),
                Err(_) if super::keys::by_env(&name).is_some() => {
                    sources.problems.push(Problem::new(name, "expected UTF-8"));
                }
                Err(_) => {}
            }
        }
        sources
    }

    fn read(&mut self, name: &str, path: &Path, must_exist: bool) -> Option<String> {
        match std::fs::read_to_string(path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !must_exist => None,
            Err(error) => {
                self.problems.push(Problem::new(name, format!("cannot be read: {error}")));
                None
            }
        }
    }
}
