//! `/keys`: API keys. Users manage their own, admins all of them.

mod limits;
mod types;
mod usage;
mod verify;

use axum::{Json as JsonBody, extract::State, http::StatusCode};
use chrono::TimeDelta;
use utoipa_axum::routes;

pub use self::types::KeyResponse;
use self::types::{
    CreateKeyRequest, IssuedKeyResponse, KeyDetailResponse, ListKeysQuery, RotateKeyRequest,
    UpdateKeyRequest,
};
use super::{
    ApiRouter,
    actor::By,
    error::{ApiError, ApiResult, ErrorCode, Problem},
    extract::{Json, LoginUser, OptionalJson, Path, Query},
    idempotency::to_the_end,
    page::{PageQuery, PageResponse},
};
use crate::{api::AppState, domain::id::ApiKeyId};

pub(super) fn router() -> ApiRouter {
    ApiRouter::new()
        .routes(routes!(create_key, list_keys))
        .routes(routes!(get_key, update_key, delete_key))
        .routes(routes!(rotate_key))
}

pub(super) use self::verify::router as public;

/// Create an API key. Its text is in this answer and nowhere else.
#[utoipa::path(
    post,
    path = "/keys",
    tag = "keys",
    security(("jwt" = [])),
    request_body = CreateKeyRequest,
    responses(
        (status = CREATED, body = IssuedKeyResponse),
        (status = NOT_FOUND, body = Problem, description = "no user with this `user_id`"),
    ),
)]
async fn create_key(
    State(state): State<AppState>,
    user: LoginUser,
    By(by): By,
    Json(request): Json<CreateKeyRequest>,
) -> ApiResult<(StatusCode, JsonBody<IssuedKeyResponse>)> {
    let (for_user, fields) = request.split();
    let owner = for_user.unwrap_or(user.id());
    if owner != user.id() && !user.is_admin() {
        return Err(ApiError::new(ErrorCode::RoleRequired, "only admins make keys for others"));
    }
    let issued = state.services.api_keys.issue(&by, owner, fields).await?;
    Ok((StatusCode::CREATED, JsonBody(issued.into())))
}

/// List keys, newest first: mine, or with the role admin or moderator all.
#[utoipa::path(
    get,
    path = "/keys",
    tag = "keys",
    security(("jwt" = [])),
    params(ListKeysQuery, PageQuery),
    responses((status = OK, body = PageResponse<KeyResponse>)),
)]
async fn list_keys(
    State(state): State<AppState>,
    user: LoginUser,
    Query(query): Query<ListKeysQuery>,
    Query(page): Query<PageQuery>,
) -> ApiResult<JsonBody<PageResponse<KeyResponse>>> {
    let page = page.request()?;
    let page = state.services.api_keys.list(user.reader(), query.into(), page).await?;
    Ok(JsonBody(PageResponse::of(page, KeyResponse::from)))
}

/// Read one key with its usage.
#[utoipa::path(
    get,
    path = "/keys/{id}",
    tag = "keys",
    security(("jwt" = [])),
    params(("id" = uuid::Uuid, Path)),
    responses((status = OK, body = KeyDetailResponse), (status = NOT_FOUND, body = Problem)),
)]
async fn get_key(
    State(state): State<AppState>,
    user: LoginUser,
    Path(id): Path<ApiKeyId>,
) -> ApiResult<JsonBody<KeyDetailResponse>> {
    let (key, usage) = state.services.api_keys.get_with_usage(user.reader(), id).await?;
    Ok(JsonBody(KeyDetailResponse::new(key, usage)))
}

/// Change a key. A field that is absent stays, null clears it.
#[utoipa::path(
    patch,
    path = "/keys/{id}",
    tag = "keys",
    security(("jwt" = [])),
    params(("id" = uuid::Uuid, Path)),
    request_body = UpdateKeyRequest,
    responses(
        (status = OK, body = KeyResponse),
        (status = NOT_FOUND, body = Problem),
        (status = CONFLICT, body = Problem, description = "`conflict`"),
    ),
)]
async fn update_key(
    State(state): State<AppState>,
    user: LoginUser,
    By(by): By,
    Path(id): Path<ApiKeyId>,
    Json(request): Json<UpdateKeyRequest>,
) -> ApiResult<JsonBody<KeyResponse>> {
    let (keys, owner) = (state.services.api_keys, user.owner());
    let key = to_the_end(async move { keys.update(&by, owner, id, request.into()).await }).await?;
    Ok(JsonBody(key.into()))
}

/// Delete a key: it stops working on every instance. Its usage stays.
#[utoipa::path(
    delete,
    path = "/keys/{id}",
    tag = "keys",
    security(("jwt" = [])),
    params(("id" = uuid::Uuid, Path)),
    responses((status = NO_CONTENT), (status = NOT_FOUND, body = Problem)),
)]
async fn delete_key(
    State(state): State<AppState>,
    user: LoginUser,
    By(by): By,
    Path(id): Path<ApiKeyId>,
) -> ApiResult<StatusCode> {
    let (keys, owner) = (state.services.api_keys, user.owner());
    to_the_end(async move { keys.delete(&by, owner, id).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Give a key a new text. The old one works until the grace period ends.
#[utoipa::path(
    post,
    path = "/keys/{id}/rotate",
    tag = "keys",
    security(("jwt" = [])),
    params(("id" = uuid::Uuid, Path)),
    request_body = Option<RotateKeyRequest>,
    responses((status = OK, body = IssuedKeyResponse), (status = NOT_FOUND, body = Problem)),
)]
async fn rotate_key(
    State(state): State<AppState>,
    user: LoginUser,
    By(by): By,
    Path(id): Path<ApiKeyId>,
    OptionalJson(request): OptionalJson<RotateKeyRequest>,
) -> ApiResult<JsonBody<IssuedKeyResponse>> {
    let grace = request.unwrap_or_default().grace_period_seconds.unwrap_or(0);
    let grace = TimeDelta::seconds(i64::from(grace));
    let (keys, owner) = (state.services.api_keys, user.owner());
    let issued = to_the_end(async move { keys.rotate(&by, owner, id, grace).await }).await?;
    Ok(JsonBody(issued.into()))
}
