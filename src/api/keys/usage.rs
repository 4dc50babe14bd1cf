//! A key's usage at a glance.

use serde::Serialize;
use utoipa::ToSchema;

use crate::{api::usage::TotalsResponse, services::usage::KeyUsage};

#[derive(Debug, Serialize, ToSchema)]
pub struct KeyUsageResponse {
    /// As long as usage is kept.
    totals: TotalsResponse,
    /// Since midnight UTC.
    today: TotalsResponse,
    /// Today and the 29 days before.
    last_30_days: TotalsResponse,
}

impl From<KeyUsage> for KeyUsageResponse {
    fn from(usage: KeyUsage) -> Self {
        let KeyUsage { totals, today, last_30_days } = usage;
        Self { totals: totals.into(), today: today.into(), last_30_days: last_30_days.into() }
    }
}
