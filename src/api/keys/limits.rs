//! The named limits of a key, as they are said.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    domain::rates::{NamedLimit, OnStoreLoss},
    services::key_input::LimitInput,
};

/// One of several limits of a key.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyLimit {
    /// What a refusal by it names; each once.
    #[schema(example = "burst", pattern = "^[a-z0-9_-]{1,64}$")]
    name: String,
    #[schema(example = 5, minimum = 1)]
    limit: u64,
    /// All slide but the month, which is the calendar's in UTC.
    #[schema(example = "second", pattern = "^(second|minute|hour|day|month)$")]
    window: String,
    /// What holds while the instances cannot share their counts. Default: as
    /// configured for keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "share", pattern = "^(share|deny|allow)$")]
    on_store_loss: Option<String>,
}

pub(super) fn inputs(limits: Vec<KeyLimit>) -> Vec<LimitInput> {
    let input = |KeyLimit { name, limit, window, on_store_loss }: KeyLimit| LimitInput {
        name,
        limit,
        window,
        on_store_loss,
    };
    limits.into_iter().map(input).collect()
}

impl From<NamedLimit> for KeyLimit {
    fn from(limit: NamedLimit) -> Self {
        let NamedLimit { name, limit, window, on_store_loss } = limit;
        Self {
            name: name.into(),
            limit,
            window: window.as_str().to_owned(),
            on_store_loss: on_store_loss.map(OnStoreLoss::as_str).map(str::to_owned),
        }
    }
}
