//! Reads a table of the file, value by value, and gathers what is wrong.
//!
//! Values are parsed from text by the same parsers as settings; what was not
//! asked for when the table is finished is not a setting.

use std::{fs, time::Duration};

use super::{keys, problem::Problem, reader::Parsed, text::scalar};

pub(super) struct Table<'p> {
    values: toml::Table,
    /// How the operator would name it: `upstreams.comfy`.
    name: String,
    asked: Vec<&'static str>,
    problems: &'p mut Vec<Problem>,
}

impl<'p> Table<'p> {
    pub fn new(name: String, values: toml::Table, problems: &'p mut Vec<Problem>) -> Self {
        Self { values, name, asked: vec![], problems }
    }

    fn take(&mut self, key: &'static str) -> Option<toml::Value> {
        self.asked.push(key);
        self.values.remove(key)
    }

    pub fn refuse(&mut self, key: &str, expected: impl Into<String>) {
        self.problems.push(Problem::new(format!("{}.{key}", self.name), expected));
    }

    pub fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    pub fn is_list_of_tables(&self, key: &str) -> bool {
        let values = self.values.get(key).and_then(toml::Value::as_array);
        values.is_some_and(|values| values.iter().all(toml::Value::is_table))
    }

    /// A scalar; `None` if there is none or it is wrong.
    pub fn get<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Parsed<T>,
    ) -> Option<T> {
        let value = self.take(key)?;
        let Some(text) = scalar(&value) else {
            self.refuse(key, "expected text, a number or true/false");
            return None;
        };
        self.parsed(key, parse(&text))
    }

    /// As [`Table::get`]; a missing one is a problem too.
    pub fn need<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Parsed<T>,
    ) -> Option<T> {
        if !self.has(key) {
            self.refuse(key, "is needed");
        }
        self.get(key, parse)
    }

    /// A secret, in the file itself or in the file that `<key>_file` names.
    pub fn secret(
        &mut self,
        key: &'static str,
        key_file: &'static str,
    ) -> Option<secrecy::SecretString> {
        let file = self.file(key_file, |_| Ok(()));
        let plain = self.get(key, |text| Ok(text.to_owned()));
        if file.is_some() && plain.is_some() {
            self.refuse(key, format!("expected it or {key_file}, not both"));
        }
        file.or(plain).map(Into::into)
    }

    /// The text of the file that is named, without the line break at its end, if
    /// `check` finds nothing wrong with it.
    pub fn file(
        &mut self,
        key: &'static str,
        check: impl FnOnce(&str) -> Parsed<()>,
    ) -> Option<String> {
        let path = self.get(key, |text| Ok(text.to_owned()))?;
        let read = fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"));
        let text = read.map(|text| text.trim_end_matches(['\n', '\r']).to_owned());
        self.parsed(key, text.and_then(|text| check(&text).map(|()| text)))
    }

    /// A list, or one value for a list of one. `None` if there is none.
    pub fn list<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Parsed<T>,
    ) -> Option<Vec<T>> {
        let values = match self.take(key)? {
            toml::Value::Array(values) => values,
            value => vec![value],
        };
        let mut list = vec![];
        for value in &values {
            let item = scalar(value).ok_or_else(|| "expected a list of text".to_owned());
            list.extend(self.parsed(key, item.and_then(|text| parse(&text))));
        }
        Some(list)
    }

    /// What reads itself.
    pub fn other<T: serde::de::DeserializeOwned>(&mut self, key: &'static str) -> Option<T> {
        let value = self.take(key)?;
        let read = value.try_into().map_err(|error: toml::de::Error| error.message().to_owned());
        self.parsed(key, read)
    }

    /// A table within, read to its end by `read`.
    pub fn table<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Table<'_>) -> T,
    ) -> Option<T> {
        let toml::Value::Table(values) = self.take(key)? else {
            self.refuse(key, "expected a table");
            return None;
        };
        let mut table = Table::new(format!("{}.{key}", self.name), values, self.problems);
        let made = read(&mut table);
        table.finish();
        Some(made)
    }

    /// A list of tables within.
    pub fn tables<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Table<'_>) -> T,
    ) -> Vec<T> {
        let Some(value) = self.take(key) else { return vec![] };
        let toml::Value::Array(values) = value else {
            self.refuse(key, "expected a list of tables");
            return vec![];
        };
        let mut made = vec![];
        for (at, value) in values.into_iter().enumerate() {
            let name = format!("{}.{key}[{at}]", self.name);
            match value {
                toml::Value::Table(values) => {
                    let mut table = Table::new(name, values, self.problems);
                    made.push(read(&mut table));
                    table.finish();
                }
                _ => self.problems.push(Problem::new(name, "expected a table")),
            }
        }
        made
    }

    /// Names and texts of a table of the operator's own names.
    pub fn pairs(&mut self, key: &'static str) -> Vec<(String, String)> {
        let Some(value) = self.take(key) else { return vec![] };
        let toml::Value::Table(values) = value else {
            self.refuse(key, "expected a table of texts");
            return vec![];
        };
        let mut pairs = vec![];
        for (name, value) in values {
            match scalar(&value) {
                Some(text) => pairs.push((name, text)),
                None => self.refuse(key, format!("{name}: expected text")),
            }
        }
        pairs
    }

    /// Everything that was not asked for is a slip.
    pub fn finish(self) {
        for key in self.values.keys() {
            let known = self.asked.iter().map(|known| (*known).to_owned());
            let expected = keys::nearest(key, known).map_or_else(
                || "is not a known setting".to_owned(),
                |hint| format!("is not a known setting; did you mean {hint}?"),
            );
            self.problems.push(Problem::new(format!("{}.{key}", self.name), expected));
        }
    }

    fn parsed<T>(&mut self, key: &str, parsed: Parsed<T>) -> Option<T> {
        parsed.map_err(|expected| self.refuse(key, expected)).ok()
    }
}

/// Seconds of a range, fractions too.
pub(super) fn seconds(least: f64, most: f64) -> impl Fn(&str) -> Parsed<Duration> {
    super::values::seconds(least..=most)
}
