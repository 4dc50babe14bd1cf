//! `GET /tokens/status`: what an access token says about itself.

use axum::{Json as JsonBody, extract::State, http::HeaderMap};
use utoipa_axum::routes;

use super::AccessTokenResponse;
use crate::{
    api::AppState,
    api::{
        ApiRouter,
        error::{ApiError, ApiResult, ErrorCode},
    },
    domain::pass::Pass,
    gateway::credentials,
};

pub fn router() -> ApiRouter {
    ApiRouter::new().routes(routes!(get_token_status))
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
    responses((status = OK, body = AccessTokenResponse)),
)]
async fn get_token_status(
    State(state): State<AppState>,
    headers: HeaderMap,
) -> ApiResult<JsonBody<AccessTokenResponse>> {
    let text = credentials::read(&headers)?.access_token.ok_or_else(|| {
        ApiError::new(ErrorCode::Unauthenticated, "the field X-Access-Token is needed")
    })?;
    let pass = state.services.access.status(text).await?;
    Ok(JsonBody(AccessTokenResponse::new(Pass::clone(&pass), state.services.clock.now())))
}
