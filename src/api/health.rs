//! `/health`: for balancers, containers and people.

use axum::{Json as JsonBody, extract::State, http::StatusCode};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::ApiRouter;
use crate::{
    api::AppState,
    services::health::{Condition, LedgerCondition, Phase, Report},
};

pub(super) fn router() -> ApiRouter {
    ApiRouter::new()
        .routes(routes!(get_health))
        .routes(routes!(get_liveness))
        .routes(routes!(get_readiness))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    Healthy,
    Degraded,
    Unhealthy,
}

/// What the last verification of the ledger said. With `differences` an operator
/// has to look: `tollgate wallet verify`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LedgerHealth {
    Unverified,
    Verified,
    Differences,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ServicesHealth {
    #[schema(inline)]
    database: HealthStatus,
    #[schema(inline)]
    cache: HealthStatus,
    #[schema(inline)]
    upstreams: HealthStatus,
    #[schema(inline)]
    ledger: LedgerHealth,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct HealthResponse {
    #[schema(inline)]
    status: HealthStatus,
    #[schema(example = "0.1.0")]
    version: &'static str,
    uptime_seconds: u64,
    services: ServicesHealth,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ProbeResponse {
    #[schema(inline)]
    status: HealthStatus,
}

impl From<Condition> for HealthStatus {
    fn from(condition: Condition) -> Self {
        match condition {
            Condition::Up => Self::Healthy,
            Condition::Degraded => Self::Degraded,
            Condition::Down => Self::Unhealthy,
        }
    }
}

impl From<LedgerCondition> for LedgerHealth {
    fn from(condition: LedgerCondition) -> Self {
        match condition {
            LedgerCondition::Unverified => Self::Unverified,
            LedgerCondition::Verified => Self::Verified,
            LedgerCondition::Differences => Self::Differences,
        }
    }
}

impl From<Report> for HealthResponse {
    fn from(report: Report) -> Self {
        let Report { phase, uptime_seconds, database, cache, upstreams, ledger } = report;
        let services = ServicesHealth {
            database: database.into(),
            cache: cache.into(),
            upstreams: upstreams.into(),
            ledger: ledger.into(),
        };
        let status = match (phase, database) {
            (Phase::Serving, Condition::Up) => {
                let fine = [services.cache, services.upstreams]
                    .iter()
                    .all(|status| *status == HealthStatus::Healthy)
                    && services.ledger != LedgerHealth::Differences;
                if fine { HealthStatus::Healthy } else { HealthStatus::Degraded }
            }
            _ => HealthStatus::Unhealthy,
        };
        Self { status, version: env!("CARGO_PKG_VERSION"), uptime_seconds, services }
    }
}

/// How everything is. Asks every dependency.
#[utoipa::path(
    get,
    path = "/health",
    tag = "operations",
    security(()),
    responses(
        (status = OK, body = HealthResponse),
        (status = SERVICE_UNAVAILABLE, body = HealthResponse, description = "unhealthy"),
    ),
)]
async fn get_health(State(state): State<AppState>) -> (StatusCode, JsonBody<HealthResponse>) {
    let response = HealthResponse::from(state.services.health.report().await);
    let status = match response.status {
        HealthStatus::Healthy | HealthStatus::Degraded => StatusCode::OK,
        HealthStatus::Unhealthy => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, JsonBody(response))
}

/// Whether the process answers. Nothing else is asked.
#[utoipa::path(
    get,
    path = "/health/live",
    tag = "operations",
    security(()),
    responses((status = OK, body = ProbeResponse)),
)]
async fn get_liveness() -> JsonBody<ProbeResponse> {
    JsonBody(ProbeResponse { status: HealthStatus::Healthy })
}

/// Whether to send requests here: not while starting, draining or without the
/// database. `degraded` is ready: the ledger is not as it must be, and a person
/// has to look.
#[utoipa::path(
    get,
    path = "/health/ready",
    tag = "operations",
    security(()),
    responses(
        (status = OK, body = ProbeResponse),
        (status = SERVICE_UNAVAILABLE, body = ProbeResponse, description = "not now"),
    ),
)]
async fn get_readiness(State(state): State<AppState>) -> (StatusCode, JsonBody<ProbeResponse>) {
    let health = &state.services.health;
    let (code, status) = match (health.is_ready().await, health.ledger_condition()) {
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, HealthStatus::Unhealthy),
        (true, LedgerCondition::Differences) => (StatusCode::OK, HealthStatus::Degraded),
        (true, _) => (StatusCode::OK, HealthStatus::Healthy),
    };
    (code, JsonBody(ProbeResponse { status }))
}
