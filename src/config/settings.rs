//! All layers made into one: for every setting the text that holds, where it
//! came from and how the operator spelled it. Texts are not interpreted here.

use std::{collections::BTreeMap, fs, path::Path};

use super::{
    keys::{self, Key, Kind, Named},
    problem::Problem,
    sources::Sources,
    text::{self, Given},
    unsupported,
};

/// The layer that had the last word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    Default,
    File,
    #[serde(rename = ".env")]
    Dotenv,
    Environment,
    Flag,
}

/// One setting that was given. No `Debug`: the text may be a secret.
#[derive(Clone)]
pub(super) struct Setting {
    pub text: String,
    pub origin: Origin,
    /// The name as the operator wrote it.
    pub written: String,
}

/// Everything that was given, by the key's environment name.
#[derive(Clone, Default)]
pub(super) struct Settings(BTreeMap<&'static str, Setting>);

impl Origin {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Dotenv => ".env",
            Self::Environment => "environment",
            Self::Flag => "flag",
        }
    }
}

impl Settings {
    /// Merges the layers; beside the settings, the tables of the upstreams.
    /// Whatever cannot be used is a problem and is left out.
    pub fn collect(sources: &Sources, problems: &mut Vec<Problem>) -> (Self, Vec<toml::Table>) {
        let file = sources.file.as_deref().map(|text| text::from_toml(text, problems));
        let (file, upstreams) = file.unwrap_or_default();
        let dotenv = sources.dotenv.as_deref().map(|text| text::from_dotenv(text, problems));
        let environment = sources
            .environment
            .iter()
            .map(|(name, text)| Given { name: name.clone(), text: text.clone() });
        let flags = sources
            .overrides
            .iter()
            .map(|(name, text)| Given { name: (*name).to_owned(), text: text.clone() });

        let mut settings = Self::default();
        settings.add(Origin::File, file, problems);
        settings.add(Origin::Dotenv, dotenv.unwrap_or_default(), problems);
        settings.add(Origin::Environment, environment.collect(), problems);
        settings.add(Origin::Flag, flags.collect(), problems);
        (settings, upstreams)
    }

    pub fn get(&self, env: &str) -> Option<&Setting> {
        self.0.get(env)
    }

    /// Names that mean the same setting are compared within a layer only: a
    /// later layer may spell a setting differently and still replaces it.
    fn add(&mut self, origin: Origin, given: Vec<Given>, problems: &mut Vec<Problem>) {
        let mut layer: BTreeMap<&'static str, Vec<(Named, Setting)>> = BTreeMap::new();
        for Given { name, text } in given {
            let Some(named) = recognise(origin, &name, &text, problems) else { continue };
            let Some(text) = value_of(&named, &name, text, problems) else { continue };
            let setting = Setting { text, origin, written: name };
            layer.entry(named.key.env).or_default().push((named, setting));
        }
        for (env, settings) in layer {
            if let Some(setting) = agreed(settings, problems) {
                self.0.insert(env, setting);
            }
        }
    }
}

/// The key that a name stands for. `None` for what is not ours and for what is
/// reported as a problem.
fn recognise(origin: Origin, name: &str, text: &str, problems: &mut Vec<Problem>) -> Option<Named> {
    let in_file = origin == Origin::File;
    if !in_file && unsupported::is_injected(name, text) {
        return None;
    }
    let named = if in_file { keys::by_path(name) } else { keys::by_env(name) };
    if named.is_some() {
        return named;
    }
    let env = if in_file { name.replace('.', "_").to_uppercase() } else { name.to_owned() };
    let expected = if unsupported::is_later(&env) {
        if text.is_empty() {
            return None;
        }
        "is not supported by this version".to_owned()
    } else if in_file || keys::is_claimed(name) {
        let hint = if in_file { keys::nearest_path(name) } else { keys::nearest_env(name) };
        hint.map_or_else(
            || "is not a known setting".to_owned(),
            |hint| format!("is not a known setting; did you mean {hint}?"),
        )
    } else {
        return None;
    };
    problems.push(Problem::new(name, expected));
    None
}

/// The text of a setting: read from its file where the name says so, without
/// insignificant white space, in the key's own unit. `None`: nothing was given.
fn value_of(
    named: &Named,
    name: &str,
    text: String,
    problems: &mut Vec<Problem>,
) -> Option<String> {
    if text.trim().is_empty() {
        return None;
    }
    let text = if named.is_path {
        match read(Path::new(text.trim())) {
            Ok(text) => text,
            Err(reason) => {
                problems.push(Problem::new(name, reason));
                return None;
            }
        }
    } else {
        text
    };
    let text = if named.key.kind == Kind::Secret { text } else { text.trim().to_owned() };
    if named.scale == 1 {
        return Some(text);
    }
    // What is no number is left for the parser of the key, which says so.
    let scaled = text.parse::<f64>().map(|number| (number * f64::from(named.scale)).to_string());
    Some(scaled.unwrap_or(text))
}

fn read(path: &Path) -> Result<String, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    // Editors and `echo` end a file with a line break that nobody meant.
    let text = text.trim_end_matches(['\n', '\r']);
    if text.is_empty() { Err("the file is empty".to_owned()) } else { Ok(text.to_owned()) }
}

/// One of several ways to give the same setting in the same layer, provided
/// that they do not contradict each other.
fn agreed(settings: Vec<(Named, Setting)>, problems: &mut Vec<Problem>) -> Option<Setting> {
    let mut settings = settings.into_iter();
    let (named, first) = settings.next()?;
    for (other, setting) in settings {
        let both = format!("{} and {}", first.written, setting.written);
        if named.is_path != other.is_path {
            problems.push(Problem::new(both, "expected one of the two, not both"));
        } else if !same(named.key, &first.text, &setting.text) {
            problems.push(Problem::new(both, "mean the same setting but differ"));
        }
    }
    Some(first)
}

fn same(key: &Key, a: &str, b: &str) -> bool {
    let number = |text: &str| text.parse::<f64>().ok();
    let is_number = key.aliases.iter().any(|alias| alias.scale != 1);
    a == b || (is_number && number(a).is_some() && number(a) == number(b))
}
