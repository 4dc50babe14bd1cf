//! `/metrics`: Prometheus text.

use axum::{
    extract::State,
    http::{HeaderMap, header},
    response::IntoResponse,
};
use secrecy::ExposeSecret as _;
use subtle::ConstantTimeEq as _;
use utoipa_axum::routes;

use super::{
    ApiRouter,
    error::{ApiResult, ErrorCode},
};
use crate::{api::AppState, telemetry::metrics_text};

pub(super) fn router() -> ApiRouter {
    ApiRouter::new().routes(routes!(get_metrics))
}

/// Metrics for Prometheus. Needs `METRICS_TOKEN` as a bearer token where that
/// is set.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operations",
    security(()),
    responses(
        (status = OK, body = String, content_type = "text/plain; version=0.0.4"),
        (status = UNAUTHORIZED, body = super::error::Problem),
    ),
)]
async fn get_metrics(
    State(state): State<AppState>,
    headers: HeaderMap,
) -> ApiResult<impl IntoResponse> {
    if let Some(token) = &state.metrics.token {
        let presented =
            headers.get(header::AUTHORIZATION).map_or(&b""[..], |value| value.as_bytes());
        let presented = presented.strip_prefix(b"Bearer ").unwrap_or_default();
        if !bool::from(presented.ct_eq(token.expose_secret().as_bytes())) {
            return Err(ErrorCode::InvalidCredential.into());
        }
    }
    state.services.observe();
    let text = metrics_text();
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text))
}
