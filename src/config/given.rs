//! What was given, kept to be compared with what is given later. It cannot be
//! looked at: it holds secrets.

use std::collections::BTreeSet;

use super::{settings::Settings, sources::Sources, table::KEYS};

/// The text of every setting, as one reading of the sources found it.
#[derive(Clone, Default)]
pub struct Given(Settings);

impl Given {
    pub fn of(sources: &Sources) -> Self {
        // Whoever loads the same sources is told what is wrong with them.
        Self(Settings::collect(sources, &mut vec![]).0)
    }

    /// The settings, by their names in the environment, that are not the same in
    /// `other`; the tables of upstreams are none.
    pub fn differing(&self, other: &Self) -> BTreeSet<&'static str> {
        let text = |given: &Self, env| given.0.get(env).map(|setting| setting.text.clone());
        let names = KEYS.iter().map(|key| key.env);
        names.filter(|env| text(self, env) != text(other, env)).collect()
    }
}
