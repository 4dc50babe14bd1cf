//! What is wrong with a configuration.

use std::fmt;

/// One fault: the name as the operator wrote it and what was expected. Never
/// the value, which may be a secret.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    pub name: String,
    pub expected: String,
}

/// Every fault there is, found in one go. Never empty.
#[derive(Debug, thiserror::Error)]
pub struct ConfigError(Vec<Problem>);

impl Problem {
    pub fn new(name: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { name: name.into(), expected: expected.into() }
    }
}

impl ConfigError {
    pub(super) fn new(problems: Vec<Problem>) -> Self {
        Self(problems)
    }

    pub fn problems(&self) -> &[Problem] {
        &self.0
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.expected)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("invalid configuration")?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}
