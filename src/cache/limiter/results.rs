//! How decisions went, for operators.

use metrics::{Counter, counter};

use crate::domain::limit::{Decision, Subject};

/// By tier, in the order of [`Subject::TIERS`].
pub(super) struct Results {
    admitted: [Counter; Subject::TIERS.len()],
    refused: [Counter; Subject::TIERS.len()],
}

impl Results {
    pub(super) fn new() -> Self {
        let by = |decision| {
            Subject::TIERS.map(|tier| {
                let labels = [("tier", tier), ("decision", decision)];
                counter!("tollgate_limit_results_total", &labels)
            })
        };
        Self { admitted: by("admitted"), refused: by("refused") }
    }

    /// Counts one, unless it was only asked what would be.
    pub(super) fn count(&self, decision: &Decision, cost: u64) {
        let (counters, state) = match decision {
            Decision::Admitted(Some(state)) => (&self.admitted, state),
            Decision::Refused(state) => (&self.refused, state),
            Decision::Admitted(None) | Decision::NeedsSeed => return,
        };
        if let Some(at) = Subject::TIERS.iter().position(|tier| *tier == state.tier)
            && cost > 0
        {
            counters[at].increment(1);
        }
    }
}
