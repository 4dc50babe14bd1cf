//! `/auth/sessions`: where I am logged in.

use axum::{Json as JsonBody, extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::{
    ApiRouter,
    actor::By,
    error::{ApiResult, Problem},
    extract::{LoginUser, Path, Query},
    idempotency::to_the_end,
    page::{PageQuery, PageResponse},
};
use crate::{
    api::AppState,
    domain::{id::SessionId, login::LoginSession},
};

pub(super) fn router() -> ApiRouter {
    ApiRouter::new().routes(routes!(list_sessions)).routes(routes!(end_session))
}

#[derive(Debug, Serialize, ToSchema)]
pub struct SessionResponse {
    #[schema(value_type = uuid::Uuid)]
    id: SessionId,
    /// The `User-Agent` it was begun with.
    #[schema(required = true, example = "curl/8.5.0")]
    device: Option<String>,
    #[schema(required = true, example = "192.0.2.7")]
    address: Option<String>,
    created_at: DateTime<Utc>,
    /// Moves at login and at each refresh.
    last_used_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    /// Whether this very request belongs to it.
    is_current: bool,
}

impl SessionResponse {
    pub(super) fn new(session: LoginSession, current: SessionId) -> Self {
        let LoginSession { id, device, address, created_at, last_used_at, expires_at, .. } =
            session;
        let is_current = id == current;
        Self { id, device, address, created_at, last_used_at, expires_at, is_current }
    }
}

/// List my login sessions, newest first.
#[utoipa::path(
    get,
    path = "/auth/sessions",
    tag = "auth",
    security(("jwt" = [])),
    params(PageQuery),
    responses((status = OK, body = PageResponse<SessionResponse>)),
)]
async fn list_sessions(
    State(state): State<AppState>,
    user: LoginUser,
    Query(page): Query<PageQuery>,
) -> ApiResult<JsonBody<PageResponse<SessionResponse>>> {
    let page = state.services.logins.sessions(user.id(), page.request()?).await?;
    Ok(JsonBody(PageResponse::of(page, |session| SessionResponse::new(session, user.session))))
}

/// End one of my login sessions.
#[utoipa::path(
    delete,
    path = "/auth/sessions/{id}",
    tag = "auth",
    security(("jwt" = [])),
    params(("id" = uuid::Uuid, Path)),
    responses((status = NO_CONTENT), (status = NOT_FOUND, body = Problem)),
)]
async fn end_session(
    State(state): State<AppState>,
    user: LoginUser,
    By(by): By,
    Path(id): Path<SessionId>,
) -> ApiResult<StatusCode> {
    let logins = state.services.logins;
    to_the_end(async move { logins.end(&by, user.id(), id).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}
