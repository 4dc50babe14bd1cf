//! `/admin/metrics`: what is open and what was refused, for people and pages; all
//! other figures are in `/metrics`.

use std::collections::BTreeMap;

use axum::{Json as JsonBody, extract::State};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::{
    api::{ApiRouter, AppState, extract::Moderator},
    cache::LimiterStats,
    domain::stream::StreamKind,
    services::Services,
};

pub(super) fn router() -> ApiRouter {
    ApiRouter::new().routes(routes!(get_admin_metrics))
}

/// Figures of one instance: the one that answers.
#[derive(Debug, Serialize, ToSchema)]
pub struct AdminMetrics {
    #[schema(example = "9f86d081884c7d65")]
    instance: String,
    /// Instances that are heard of, this one included; 1 without Redis.
    #[schema(example = 2)]
    instances: usize,
    connections: ConnectionMetrics,
    rate_limits: RateLimitMetrics,
}

/// What is open for long; one by one in `GET /admin/connections`.
#[derive(Debug, Serialize, ToSchema)]
pub struct ConnectionMetrics {
    #[schema(example = 12)]
    open: usize,
    /// `SERVER_MAX_STREAMS`.
    #[schema(example = 10_000)]
    limit: usize,
    event_streams: usize,
    websockets: usize,
    downloads: usize,
    uploads: usize,
    /// Answers of the workflow that are under way, whoever reads them.
    chat_answers: usize,
    /// `CHAT_MAX_ANSWERS`.
    #[schema(example = 1000)]
    chat_answers_limit: usize,
}

/// What became of requests under limits, since the start.
#[derive(Debug, Serialize, ToSchema)]
pub struct RateLimitMetrics {
    /// Whether all instances count together, in Redis.
    shared: bool,
    /// Whose requests are counted in memory here.
    #[schema(example = 40)]
    subjects: usize,
    /// Refusals by what the limit is about: `address`, `user`, `key`, …; without
    /// those that refused nothing.
    #[schema(example = json!({ "address": 3 }))]
    refused: BTreeMap<&'static str, u64>,
    /// How decisions over shared counters came about; null where they are not shared.
    #[schema(required = true)]
    decisions: Option<DecisionMetrics>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct DecisionMetrics {
    /// By an answer of Redis.
    by_store: u64,
    /// By a permit that was leased from it.
    by_lease: u64,
    /// By a refusal that was remembered.
    by_refusal: u64,
    /// Alone, because Redis did not answer.
    in_memory: u64,
}

impl From<LimiterStats> for DecisionMetrics {
    fn from(stats: LimiterStats) -> Self {
        let LimiterStats { by_store, by_lease, by_refusal, in_memory, .. } = stats;
        Self { by_store, by_lease, by_refusal, in_memory }
    }
}

impl AdminMetrics {
    fn of(services: &Services) -> Self {
        let (instance, instances) = services.streams.instances();
        let count = |kind| services.streams.count(kind);
        Self {
            instance: instance.to_owned(),
            instances,
            connections: ConnectionMetrics {
                open: StreamKind::ALL.into_iter().map(count).sum(),
                limit: services.streams.most(),
                event_streams: count(StreamKind::Sse),
                websockets: count(StreamKind::Websocket),
                downloads: count(StreamKind::Download),
                uploads: count(StreamKind::Upload),
                chat_answers: services.chat.under_way(),
                chat_answers_limit: services.chat.most(),
            },
            rate_limits: RateLimitMetrics {
                shared: services.limits.stats().is_some(),
                subjects: services.limits.subjects(),
                refused: services.limits.refused().filter(|(_, refused)| *refused > 0).collect(),
                decisions: services.limits.stats().map(DecisionMetrics::from),
            },
        }
    }
}

/// Read what is open on this instance and what its limits refused. Needs the role
/// admin or moderator.
#[utoipa::path(
    get,
    path = "/admin/metrics",
    tag = "admin",
    security(("jwt" = [])),
    responses((status = OK, body = AdminMetrics)),
)]
async fn get_admin_metrics(State(state): State<AppState>, _: Moderator) -> JsonBody<AdminMetrics> {
    JsonBody(AdminMetrics::of(&state.services))
}
