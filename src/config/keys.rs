//! What a setting is called, and everything that follows from its name.
//!
//! One rule joins the two spellings: `SERVER_PORT` in the environment is
//! `[server] port` in the file. [`KEYS`] is the only list
//! of settings; reading, the detection of unknown names, `.env.example` and
//! `tollgate config show` all go by it. No value is looked at here.

use super::table::KEYS;

/// The sections of the file, in the order of `.env.example`.
pub const SECTIONS: [&str; 19] = [
    "server",
    "data",
    "database",
    "redis",
    "auth",
    "admin",
    "upstream",
    "rate_limit",
    "token",
    "wallet",
    "secrets",
    "chat",
    "session",
    "usage",
    "audit",
    "log",
    "metrics",
    "otel",
    "allowed",
];

/// Sections whose prefix is too common a word to claim every environment
/// variable that begins with it.
const SHARED_PREFIXES: [&str; 7] =
    ["data", "allowed", "token", "secrets", "chat", "session", "otel"];

/// One setting.
#[derive(Debug)]
pub struct Key {
    /// The name in the environment.
    pub env: &'static str,
    pub aliases: &'static [Alias],
    pub kind: Kind,
    /// As an operator would write it; empty: none, or worked out at start-up.
    pub default: &'static str,
    /// One line for `.env.example`.
    pub doc: &'static str,
}

/// Another name for a setting, taken over from systems this one replaces.
#[derive(Debug)]
pub struct Alias {
    pub env: &'static str,
    /// How many of the key's units one unit of the alias is.
    pub scale: u32,
}

/// How a value is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Shown as it is; surrounding white space does not count.
    Plain,
    /// May carry a password, which is masked.
    Url,
    /// Never shown.
    Secret,
    /// Public, but too long for a line: only its size is shown.
    Pem,
}

/// What a name given by the operator stands for.
#[derive(Clone, Copy, Debug)]
pub struct Named {
    pub key: &'static Key,
    pub scale: u32,
    /// The value is the path of a file that holds the value.
    pub is_path: bool,
}

impl Key {
    /// Part of the file's `[section]`.
    pub fn section(&self) -> &'static str {
        SECTIONS
            .into_iter()
            .find(|section| path_in(section, self.env).is_some())
            .expect("the table's tests check that every key has a section")
    }

    /// The name in the file: `server.port`.
    pub fn path(&self) -> String {
        path_in(self.section(), self.env).expect("the section was found by this")
    }

    /// Whether the value can come from a file named by `<NAME>_FILE`.
    pub fn has_file_variant(&self) -> bool {
        self.kind != Kind::Plain
    }

    /// Every name in the environment, with the scale of its unit.
    fn names(&self) -> impl Iterator<Item = (&'static str, u32)> {
        std::iter::once((self.env, 1)).chain(self.aliases.iter().map(|a| (a.env, a.scale)))
    }
}

/// The key of this environment name; `None` for a name that is not in the
/// table.
pub fn find(env: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.env == env)
}

/// What an environment variable of this name would set.
pub fn by_env(name: &str) -> Option<Named> {
    by(|env| env == name, |env| name.strip_suffix("_FILE") == Some(env))
}

/// What this name in the file would set. An alias counts where it lies in the
/// section of its key.
pub fn by_path(path: &str) -> Option<Named> {
    let is = |env: &str, path: &str| {
        SECTIONS.into_iter().any(|section| path_in(section, env).as_deref() == Some(path))
    };
    by(|env| is(env, path), |env| path.strip_suffix("_file").is_some_and(|path| is(env, path)))
}

/// Whether the environment variable must be one of ours, going by its prefix.
pub fn is_claimed(name: &str) -> bool {
    SECTIONS
        .into_iter()
        .filter(|section| !SHARED_PREFIXES.contains(section))
        .any(|section| path_in(section, name).is_some())
}

/// The known name most like `name`, if one is near enough to have been meant.
pub fn nearest_env(name: &str) -> Option<String> {
    let names = KEYS.iter().flat_map(Key::names).map(|(env, _)| env.to_owned());
    nearest(name, names)
}

/// As [`nearest_env`], among the names of the file.
pub fn nearest_path(path: &str) -> Option<String> {
    nearest(path, KEYS.iter().map(Key::path))
}

fn by(is: impl Fn(&str) -> bool, is_file_of: impl Fn(&str) -> bool) -> Option<Named> {
    KEYS.iter().find_map(|key| {
        key.names().find_map(|(env, scale)| {
            let is_path = key.has_file_variant() && is_file_of(env);
            (is_path || is(env)).then_some(Named { key, scale, is_path })
        })
    })
}

fn path_in(section: &str, env: &str) -> Option<String> {
    let (prefix, rest) = env.split_at_checked(section.len())?;
    let rest = rest.strip_prefix('_').filter(|rest| !rest.is_empty())?;
    prefix.eq(&section.to_uppercase()).then(|| format!("{section}.{}", rest.to_lowercase()))
}

pub(super) fn nearest(name: &str, known: impl Iterator<Item = String>) -> Option<String> {
    // A third of the letters wrong is another word, not a slip.
    let most = (name.len() / 3).min(4);
    known
        .map(|known| (distance(name, &known), known))
        .filter(|(distance, _)| *distance <= most)
        .min()
        .map(|(_, known)| known)
}

/// Levenshtein distance in bytes; names are ASCII.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_one_name_per_place_and_a_section() {
        let mut names: Vec<_> = KEYS.iter().flat_map(Key::names).map(|(env, _)| env).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        for key in KEYS {
            assert_eq!(by_path(&key.path()).unwrap().key.env, key.env);
            assert_eq!(by_env(key.env).unwrap().key.env, key.env);
        }
    }

    #[test]
    fn only_long_or_secret_values_come_from_files() {
        assert!(by_env("AUTH_SECRET_KEY_FILE").unwrap().is_path);
        assert!(by_env("JWT_SECRET_KEY_FILE").unwrap().is_path);
        assert!(by_path("auth.secret_key_file").unwrap().is_path);
        assert!(by_env("SERVER_PORT_FILE").is_none());
    }

    #[test]
    fn an_alias_is_in_the_file_only_within_its_section() {
        assert_eq!(by_path("auth.token_expiry_hours").unwrap().scale, 60);
        assert!(by_path("secret.key").is_none());
        assert!(by_path("rate.limit_per_minute").is_none());
        assert!(by_path("rate_limit.per_minute").is_some());
    }

    #[test]
    fn a_hint_is_a_likely_slip() {
        assert_eq!(nearest_env("SERVER_PROT").as_deref(), Some("SERVER_PORT"));
        assert_eq!(nearest_path("server.prot").as_deref(), Some("server.port"));
        assert_eq!(nearest_env("SERVER_WALLPAPER_COLOUR"), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
