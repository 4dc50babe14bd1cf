//! `/admin/tokens`: everybody's access tokens. Their texts are their owners':
//! none is shown here but the one that was just given.

use axum::{Json as JsonBody, extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;
use validator::Validate;

use crate::{
    api::AppState,
    api::{
        ApiRouter,
        actor::By,
        error::{ApiResult, Problem},
        extract::{Admin, Json, Moderator, Path, Query},
        idempotency::{OptionalKey, to_the_end},
        page::{PageQuery, PageResponse},
        tokens::{AccessTokenResponse, TokenStatus},
    },
    domain::{
        id::{PassId, UserId},
        pass::{Pass, Status},
    },
    services::passes::{Holder, Order, OwnedPass, PassFilter},
};

pub(super) fn router() -> ApiRouter {
    ApiRouter::new().routes(routes!(list_tokens, grant_token)).routes(routes!(revoke_anyones_token))
}

#[derive(Debug, Deserialize, IntoParams, Validate)]
#[into_params(parameter_in = Query)]
pub struct ListTokensQuery {
    /// Tokens of this user.
    #[param(value_type = Option<uuid::Uuid>)]
    user_id: Option<UserId>,
    #[param(inline)]
    status: Option<TokenStatus>,
}

impl From<ListTokensQuery> for PassFilter {
    fn from(query: ListTokensQuery) -> Self {
        let ListTokensQuery { user_id, status } = query;
        Self { user_id, status: status.map(Status::from).into_iter().collect() }
    }
}

#[derive(Debug, Deserialize, ToSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct GrantTokenRequest {
    /// Whose it is to be.
    #[schema(value_type = uuid::Uuid)]
    user_id: UserId,
    /// Any length up to ten years.
    #[schema(example = 48, minimum = 1, maximum = 87_600)]
    #[validate(range(min = 1, max = 87_600, message = "must be 1 to 87600"))]
    duration_hours: u32,
    /// The one upstream it is to open. Default: all.
    #[schema(example = json!(null))]
    upstream: Option<String>,
}

/// An access token, without its text.
#[derive(Debug, Serialize, ToSchema)]
pub struct AdminTokenResponse {
    #[schema(value_type = uuid::Uuid)]
    user_id: UserId,
    #[serde(flatten)]
    details: AccessTokenResponse,
}

impl AdminTokenResponse {
    /// As it is at `now`.
    fn new(pass: Pass, now: DateTime<Utc>) -> Self {
        Self { user_id: pass.user_id, details: AccessTokenResponse::new(pass, now) }
    }
}

/// An access token that was just given.
#[derive(Debug, Serialize, ToSchema)]
pub struct GrantedTokenResponse {
    #[serde(flatten)]
    details: AdminTokenResponse,
    /// Shown here once; its owner can list it. Null only when an old request is
    /// repeated after the key that sealed it is gone.
    #[schema(
        required = true,
        example = "tga_3fKpVxq0c9nD-7mJ2sYtB5hGz8RkW1LeUaQi_6oXTvFrPd4CuNbEyMwSjZgHlOIA"
    )]
    token: Option<String>,
}

/// List everybody's access tokens, newest first. Needs the role admin or
/// moderator.
#[utoipa::path(
    get,
    path = "/admin/tokens",
    tag = "admin",
    security(("jwt" = [])),
    params(ListTokensQuery, PageQuery),
    responses((status = OK, body = PageResponse<AdminTokenResponse>)),
)]
async fn list_tokens(
    State(state): State<AppState>,
    _: Moderator,
    Query(query): Query<ListTokensQuery>,
    Query(page): Query<PageQuery>,
) -> ApiResult<JsonBody<PageResponse<AdminTokenResponse>>> {
    let page = state.services.passes.list(&query.into(), page.request()?).await?;
    let now = state.services.clock.now();
    Ok(JsonBody(PageResponse::of(page, |pass| AdminTokenResponse::new(pass, now))))
}

/// Give somebody an access token for nothing. Needs the role admin.
///
/// Repeated with the same `Idempotency-Key` it gives nothing more and answers
/// the token as it was then.
#[utoipa::path(
    post,
    path = "/admin/tokens",
    tag = "admin",
    security(("jwt" = [])),
    params(OptionalKey),
    request_body = GrantTokenRequest,
    responses(
        (status = CREATED, body = GrantedTokenResponse),
        (status = BAD_REQUEST, body = Problem, description = "`invalid_idempotency_key`"),
        (status = NOT_FOUND, body = Problem, description = "no user with this `user_id`"),
        (status = UNPROCESSABLE_ENTITY, body = Problem,
            description = "`idempotency_key_reused`, `validation_failed`"),
    ),
)]
async fn grant_token(
    State(state): State<AppState>,
    _: Admin,
    By(by): By,
    OptionalKey(key): OptionalKey,
    Json(request): Json<GrantTokenRequest>,
) -> ApiResult<(StatusCode, JsonBody<GrantedTokenResponse>)> {
    let GrantTokenRequest { user_id, duration_hours, upstream } = request;
    let passes = state.services.passes.clone();
    let order = Order { duration_hours, upstream };
    let given = to_the_end(async move { passes.grant(&by, user_id, order, key).await }).await?;
    let OwnedPass { pass, token } = given;
    let given = GrantedTokenResponse {
        details: AdminTokenResponse::new(pass, state.services.clock.now()),
        token: token.map(|token| token.expose().to_owned()),
    };
    Ok((StatusCode::CREATED, JsonBody(given)))
}

/// End somebody's access token; it stops working on every instance. Ending it
/// again changes nothing. Needs the role admin.
#[utoipa::path(
    post,
    path = "/admin/tokens/{id}/revoke",
    tag = "admin",
    security(("jwt" = [])),
    params(("id" = uuid::Uuid, Path)),
    responses(
        (status = OK, body = AdminTokenResponse),
        (status = NOT_FOUND, body = Problem),
        (status = CONFLICT, body = Problem, description = "`conflict`"),
    ),
)]
async fn revoke_anyones_token(
    State(state): State<AppState>,
    _: Admin,
    By(by): By,
    Path(id): Path<PassId>,
) -> ApiResult<JsonBody<AdminTokenResponse>> {
    let passes = state.services.passes.clone();
    let ended = to_the_end(async move { passes.revoke(&by, Holder::Anyone, id).await }).await?;
    Ok(JsonBody(AdminTokenResponse::new(ended.pass, state.services.clock.now())))
}
