//! A limit, as whoever is refused by it is told.

use serde::Serialize;
use utoipa::ToSchema;

use crate::{domain::limit::TierState, services::limits::Rule};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct LimitProblem {
    /// As its owner calls it, else its window.
    #[schema(example = "burst")]
    pub name: String,
    /// What it is about: `address`, `user`, `key`, `token`, `upstream`, ….
    #[schema(example = "key")]
    pub of: String,
    #[schema(example = 60)]
    pub limit: u64,
    /// A month counts as 31 days.
    #[schema(example = 60)]
    pub window_seconds: u32,
}

impl From<&TierState> for LimitProblem {
    fn from(state: &TierState) -> Self {
        Self {
            name: state.name().to_owned(),
            of: state.tier.to_owned(),
            limit: state.limit,
            window_seconds: state.window.seconds(),
        }
    }
}

impl From<&Rule> for LimitProblem {
    fn from(rule: &Rule) -> Self {
        let Rule { of, name, window, limit } = rule;
        let name = name.as_ref().map_or(window.name(), |name| name.as_str());
        Self {
            name: name.to_owned(),
            of: (*of).to_owned(),
            limit: *limit,
            window_seconds: window.seconds(),
        }
    }
}
