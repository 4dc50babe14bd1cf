//! `/admin/log-level`: what the instance that answers writes to its log.

use std::time::Duration;

use axum::{Json as JsonBody, extract::State};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::routes;
use validator::Validate;

use crate::{
    api::{
        ApiRouter, AppState,
        actor::By,
        error::ApiResult,
        extract::{Admin, Json, Moderator},
        idempotency::to_the_end,
        validate,
    },
    services::log_level::LevelShown,
};

/// An hour, in seconds.
const USUAL: u32 = 3600;

pub(super) fn router() -> ApiRouter {
    ApiRouter::new().routes(routes!(get_log_level, set_log_level))
}

#[derive(Debug, Deserialize, ToSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct SetLogLevelRequest {
    /// A level, or directives of targets and levels.
    #[schema(example = "info,tollgate::gateway=debug", min_length = 1, max_length = 500)]
    #[validate(
        length(min = 1, max = 500, message = "must have 1 to 500 characters"),
        custom(function = validate::log_level)
    )]
    level: String,
    /// After so many seconds what is configured holds again.
    #[serde(default = "usual")]
    #[schema(default = 3600, example = 900, minimum = 1, maximum = 86_400)]
    #[validate(range(min = 1, max = 86_400, message = "must be 1 to 86400"))]
    expires_in_seconds: u32,
}

fn usual() -> u32 {
    USUAL
}

#[derive(Debug, Serialize, ToSchema)]
pub struct LogLevelResponse {
    #[schema(example = "info,tollgate::gateway=debug")]
    level: String,
    /// What holds after it, and after a restart.
    #[schema(example = "INFO")]
    configured: String,
    /// Null: what is in force is what is configured.
    #[schema(required = true)]
    expires_at: Option<DateTime<Utc>>,
}

impl From<LevelShown> for LogLevelResponse {
    fn from(shown: LevelShown) -> Self {
        let LevelShown { level, configured, expires_at } = shown;
        Self { level, configured, expires_at }
    }
}

/// Read what the instance that answers writes to its log. Needs the role admin or
/// moderator.
#[utoipa::path(
    get,
    path = "/admin/log-level",
    tag = "admin",
    security(("jwt" = [])),
    responses((status = OK, body = LogLevelResponse)),
)]
async fn get_log_level(State(state): State<AppState>, _: Moderator) -> JsonBody<LogLevelResponse> {
    JsonBody(state.services.log_level.shown().into())
}

/// Change for a while what the instance that answers writes to its log; other
/// instances are not told. Needs the role admin.
#[utoipa::path(
    put,
    path = "/admin/log-level",
    tag = "admin",
    security(("jwt" = [])),
    request_body = SetLogLevelRequest,
    responses((status = OK, body = LogLevelResponse)),
)]
async fn set_log_level(
    State(state): State<AppState>,
    _: Admin,
    By(by): By,
    Json(request): Json<SetLogLevelRequest>,
) -> ApiResult<JsonBody<LogLevelResponse>> {
    let SetLogLevelRequest { level, expires_in_seconds } = request;
    let service = state.services.log_level.clone();
    let span = Duration::from_secs(u64::from(expires_in_seconds));
    let shown = to_the_end(async move { service.set(&by, &level, span).await }).await?;
    Ok(JsonBody(shown.into()))
}
