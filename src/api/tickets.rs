//! `/auth/ticket`: what opens a WebSocket from a script.

use axum::{Json as JsonBody, extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::routes;
use validator::Validate;

use super::{
    ApiRouter,
    error::{ApiError, ApiResult, ErrorCode, Problem},
    extract::{Holder, Json},
    validate,
};
use crate::{
    api::AppState, gateway::path, services::access::AccessError, services::tickets::TicketError,
};

pub(super) fn router() -> ApiRouter {
    ApiRouter::new().routes(routes!(create_ticket))
}

#[derive(Debug, Deserialize, ToSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct TicketRequest {
    /// The whole path of the WebSocket, as it will be asked for, without its
    /// query.
    #[schema(example = "/api/v1/proxy/ws", max_length = 4096, pattern = "^/")]
    #[validate(custom(function = validate::url_path))]
    path: String,
}

#[derive(Serialize, ToSchema)]
pub struct TicketResponse {
    /// Good for one use, as `?ticket=` of that path.
    #[schema(example = "tgt_5Xk2rV…")]
    ticket: String,
    expires_at: DateTime<Utc>,
}

/// Get a ticket for one WebSocket.
///
/// For scripts, which can send no header field with a WebSocket. It opens the
/// path once, within 30 seconds, for whoever the credential of this request
/// stands for; an access token's time does not begin with it.
#[utoipa::path(
    post,
    path = "/auth/ticket",
    tag = "auth",
    security(("jwt" = []), ("api_key" = []), ("access_token" = [])),
    request_body = TicketRequest,
    responses(
        (status = CREATED, body = TicketResponse),
        (status = TOO_MANY_REQUESTS, body = Problem, description = "`too_many_tickets`"),
    ),
)]
async fn create_ticket(
    State(state): State<AppState>,
    Holder(principal): Holder,
    Json(request): Json<TicketRequest>,
) -> ApiResult<(StatusCode, JsonBody<TicketResponse>)> {
    let path = path::canonical(&request.path).map_err(|_| ErrorCode::AmbiguousPath)?.into_owned();
    let issued = state.services.tickets.issue(&principal, path).await?;
    let ticket = issued.token.expose().to_owned();
    Ok((StatusCode::CREATED, JsonBody(TicketResponse { ticket, expires_at: issued.expires_at })))
}

impl From<TicketError> for ApiError {
    fn from(error: TicketError) -> Self {
        let detail = error.to_string();
        match error {
            TicketError::Store(store) => store.into(),
            TicketError::NoUser => AccessError::Invalid.into(),
            TicketError::TooMany { retry_after } => {
                // Rounded up: to come too early is to be refused again.
                let seconds = retry_after.num_seconds().cast_unsigned() + 1;
                Self::new(ErrorCode::TooManyTickets, detail).retry_after(seconds)
            }
        }
    }
}
