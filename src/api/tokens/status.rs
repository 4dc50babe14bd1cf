//! `GET /tokens/status`: what an access token says about itself.

use axum::{Json as JsonBody, extract::State, http::HeaderMap};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::{
    api::AppState,
    api::{
        ApiRouter,
        error::{ApiError, ApiResult, ErrorCode},
    },
    domain::{
        id::PassId,
        pass::{Pass, Status},
    },
    gateway::credentials,
};

pub fn router() -> ApiRouter {
    ApiRouter::new().routes(routes!(get_token_status))
}

/// What an access token is good for now.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TokenState {
    /// Its time has not begun.
    Unused,
    Active,
    Expired,
    Revoked,
    Refunded,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct TokenStatusResponse {
    #[schema(value_type = uuid::Uuid)]
    token_id: PassId,
    /// The first characters of the text.
    #[schema(example = "tga_w7Qb")]
    token_prefix: String,
    #[schema(example = 24)]
    duration_hours: u32,
    /// The one upstream it opens; null for all.
    #[schema(required = true)]
    upstream: Option<String>,
    status: TokenState,
    /// Whether it opens anything: it is unused or active.
    is_active: bool,
    created_at: DateTime<Utc>,
    /// Its first admitted use; null before.
    #[schema(required = true)]
    activated_at: Option<DateTime<Utc>>,
    /// It is dead at this instant; null before its first use.
    #[schema(required = true)]
    expires_at: Option<DateTime<Utc>>,
    #[schema(required = true)]
    revoked_at: Option<DateTime<Utc>>,
}

impl From<Status> for TokenState {
    fn from(status: Status) -> Self {
        match status {
            Status::Unused => Self::Unused,
            Status::Active => Self::Active,
            Status::Expired => Self::Expired,
            Status::Revoked => Self::Revoked,
            Status::Refunded => Self::Refunded,
        }
    }
}

impl TokenStatusResponse {
    fn new(pass: &Pass, now: DateTime<Utc>) -> Self {
        let status = pass.status(now);
        let Pass { id, prefix, duration_hours, upstream, created_at, .. } = pass;
        Self {
            token_id: *id,
            token_prefix: prefix.clone(),
            duration_hours: *duration_hours,
            upstream: upstream.clone(),
            status: status.into(),
            is_active: status.is_usable(),
            created_at: *created_at,
            activated_at: pass.activated_at,
            expires_at: pass.expires_at(),
            revoked_at: pass.revoked_at,
        }
    }
}

/// Look at an access token without using it.
///
/// Its time does not begin, and one that has ended is described like any other.
/// Counts against the limit of the asking address.
#[utoipa::path(
    get,
    path = "/tokens/status",
    tag = "tokens",
    security(("access_token" = [])),
    responses((status = OK, body = TokenStatusResponse)),
)]
async fn get_token_status(
    State(state): State<AppState>,
    headers: HeaderMap,
) -> ApiResult<JsonBody<TokenStatusResponse>> {
    let text = credentials::read(&headers)?.access_token.ok_or_else(|| {
        ApiError::new(ErrorCode::Unauthenticated, "the field X-Access-Token is needed")
    })?;
    let pass = state.services.access.status(text).await?;
    Ok(JsonBody(TokenStatusResponse::new(&pass, state.services.clock.now())))
}
