//! Turns the text of settings into values and gathers what is wrong with them.

use std::collections::BTreeMap;

use secrecy::SecretString;

use super::{
    keys::{self, Kind},
    problem::Problem,
    settings::{Origin, Setting, Settings},
    table::KEYS,
};

/// What a parser answers: the value, or what was expected instead. The
/// expectation must not repeat the text.
pub(super) type Parsed<T> = Result<T, String>;

/// A setting as it is in force, for people to look at.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Effective {
    /// The name in the environment.
    pub name: &'static str,
    /// The name in the file.
    pub path: String,
    /// Empty: not set. Secrets are masked.
    pub value: String,
    pub origin: Origin,
}

pub(super) struct Reader<'s> {
    settings: &'s Settings,
    problems: Vec<Problem>,
    /// Values that were worked out because nothing was given.
    worked_out: BTreeMap<&'static str, String>,
}

impl<'s> Reader<'s> {
    pub fn new(settings: &'s Settings, problems: Vec<Problem>) -> Self {
        Self { settings, problems, worked_out: BTreeMap::new() }
    }

    /// The setting, or its default; `None` if there is neither or if it is
    /// wrong, which is then noted.
    pub fn optional<T>(&mut self, env: &str, parse: impl Fn(&str) -> Parsed<T>) -> Option<T> {
        let key = keys::find(env).expect("only keys of the table are read");
        if let Some(setting) = self.settings.get(env) {
            match parse(&setting.text) {
                Ok(value) => return Some(value),
                Err(expected) => self.problems.push(Problem::new(&setting.written, expected)),
            }
        }
        // Goes on with the default after a problem too, to find the others.
        (!key.default.is_empty()).then(|| {
            parse(key.default).unwrap_or_else(|expected| panic!("default of {env}: {expected}"))
        })
    }

    /// As [`Reader::optional`], for a key whose default is in the table.
    pub fn required<T>(&mut self, env: &str, parse: impl Fn(&str) -> Parsed<T>) -> T {
        self.optional(env, parse).expect("the key has a default in the table")
    }

    /// As [`Reader::optional`], with a default that was worked out; `text` is
    /// how it is shown.
    pub fn or<T>(
        &mut self,
        env: &'static str,
        (default, text): (T, String),
        parse: impl Fn(&str) -> Parsed<T>,
    ) -> T {
        if self.settings.get(env).is_none() {
            self.worked_out.insert(env, text);
        }
        self.optional(env, parse).unwrap_or(default)
    }

    /// A secret that has no default.
    pub fn secret(
        &mut self,
        env: &str,
        check: impl Fn(&str) -> Parsed<()>,
    ) -> Option<SecretString> {
        self.optional(env, |text| check(text).map(|()| SecretString::from(text)))
    }

    /// Whether, and where, the operator gave it.
    pub fn given(&self, env: &str) -> Option<&'s Setting> {
        self.settings.get(env)
    }

    /// Where to note what is wrong with what is no setting of the table.
    pub fn problems(&mut self) -> &mut Vec<Problem> {
        &mut self.problems
    }

    /// Notes a problem that several settings make together.
    pub fn refuse(&mut self, env: &'static str, expected: impl Into<String>) {
        let written = self.settings.get(env).map_or(env, |setting| &setting.written);
        self.problems.push(Problem::new(written, expected));
    }

    /// The effective settings, in the table's order, and all problems.
    pub fn finish(self) -> (Vec<Effective>, Vec<Problem>) {
        let effective = KEYS.iter().map(|key| {
            let given = self.settings.get(key.env);
            let worked_out = self.worked_out.get(key.env).map_or(key.default, String::as_str);
            Effective {
                name: key.env,
                path: key.path(),
                value: shown(key.kind, given.map_or(worked_out, |setting| &setting.text)),
                origin: given.map_or(Origin::Default, |setting| setting.origin),
            }
        });
        (effective.collect(), self.problems)
    }
}

const MASK: &str = "********";

fn shown(kind: Kind, text: &str) -> String {
    match kind {
        _ if text.is_empty() => String::new(),
        Kind::Plain => text.to_owned(),
        Kind::Secret => MASK.to_owned(),
        Kind::Pem => format!("({} bytes)", text.len()),
        Kind::Url => masked_url(text),
    }
}

/// Masks the password and every parameter that is called like one. Where a
/// password that was not percent-encoded makes the parts uncertain, everything
/// is masked.
fn masked_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return MASK.to_owned() };
    // The last `@` counts: an unescaped password may hold one.
    let (user, rest) = rest.rsplit_once('@').map_or((None, rest), |(a, b)| (Some(a), b));
    if user.is_some_and(|user| user.contains('?')) {
        return format!("{scheme}://{MASK}");
    }
    let user = match user.map(|user| user.split_once(':').ok_or(user)) {
        None => String::new(),
        Some(Ok((name, _))) => format!("{name}:{MASK}@"),
        Some(Err(name)) => format!("{name}@"),
    };
    let Some((place, query)) = rest.split_once('?') else {
        return format!("{scheme}://{user}{rest}");
    };
    let parameters: Vec<_> = query.split('&').map(masked_parameter).collect();
    format!("{scheme}://{user}{place}?{}", parameters.join("&"))
}

fn masked_parameter(parameter: &str) -> String {
    match parameter.split_once('=') {
        Some((name, _)) if name.to_lowercase().contains("pass") => format!("{name}={MASK}"),
        _ => parameter.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_urls_are_masked() {
        for (url, expected) in [
            ("postgres://gate:hunter2@db/gate", "postgres://gate:********@db/gate"),
            ("redis://:hunter2@cache:6379/1", "redis://:********@cache:6379/1"),
            ("postgres://gate:hunt/er@2@db/gate", "postgres://gate:********@db/gate"),
            ("postgres://gate@db/gate", "postgres://gate@db/gate"),
            ("sqlite://data/tollgate.db", "sqlite://data/tollgate.db"),
            (
                "postgres://db/gate?user=a&password=hunter2",
                "postgres://db/gate?user=a&password=********",
            ),
            ("postgres://gate:hunt?er2@db/gate", "postgres://********"),
            ("postgres://db/gate?password=hunt@er2", "postgres://********"),
            ("hunter2", "********"),
        ] {
            assert_eq!(masked_url(url), expected);
        }
    }
}
