//! `/tokens`: access tokens of the user who is logged in. Others' are under
//! `/admin/tokens`.

mod status;
mod types;

use axum::{Json as JsonBody, extract::State, http::StatusCode};
use utoipa_axum::routes;

pub use self::types::{AccessTokenResponse, OwnTokenResponse, TokenStatus};
use self::types::{ListMyTokensQuery, PricingResponse, PurchaseTokenRequest};
use super::{
    ApiRouter,
    actor::By,
    error::{ApiResult, Problem},
    extract::{Json, LoginUser, Path, Query},
    idempotency::{OptionalKey, to_the_end},
    page::{PageQuery, PageResponse},
};
use crate::{api::AppState, domain::id::PassId, services::passes::Holder};

/// Routes that need no login.
pub(super) fn public() -> ApiRouter {
    ApiRouter::new().routes(routes!(get_pricing)).merge(status::router())
}

/// Routes for somebody who is logged in.
pub(super) fn router() -> ApiRouter {
    ApiRouter::new()
        .routes(routes!(purchase_token))
        .routes(routes!(list_my_tokens))
        .routes(routes!(revoke_token))
        .routes(routes!(refund_token))
}

/// Read what access tokens are sold, and for how much.
#[utoipa::path(
    get,
    path = "/tokens/pricing",
    tag = "tokens",
    security(()),
    responses((status = OK, body = PricingResponse)),
)]
async fn get_pricing(State(state): State<AppState>) -> JsonBody<PricingResponse> {
    JsonBody(PricingResponse::of(&state.services.passes))
}

/// Buy an access token from my wallet. Its time begins with its first use.
///
/// Repeated with the same `Idempotency-Key` it buys nothing more and answers
/// the token as it was then.
#[utoipa::path(
    post,
    path = "/tokens/purchase",
    tag = "tokens",
    security(("jwt" = [])),
    params(OptionalKey),
    request_body = PurchaseTokenRequest,
    responses(
        (status = CREATED, body = OwnTokenResponse),
        (status = BAD_REQUEST, body = Problem,
            description = "`duration_not_offered`, `invalid_idempotency_key`"),
        (status = PAYMENT_REQUIRED, body = Problem,
            description = "`balance_too_low`; `missing_minor` is what the wallet lacks"),
        (status = UNPROCESSABLE_ENTITY, body = Problem,
            description = "`idempotency_key_reused`, `validation_failed`"),
    ),
)]
async fn purchase_token(
    State(state): State<AppState>,
    user: LoginUser,
    By(by): By,
    OptionalKey(key): OptionalKey,
    Json(request): Json<PurchaseTokenRequest>,
) -> ApiResult<(StatusCode, JsonBody<OwnTokenResponse>)> {
    let (passes, user) = (state.services.passes.clone(), user.id());
    let bought =
        to_the_end(async move { passes.purchase(&by, user, request.into(), key).await }).await?;
    let bought = OwnTokenResponse::new(bought, state.services.clock.now());
    Ok((StatusCode::CREATED, JsonBody(bought)))
}

/// List my access tokens with their texts, newest first.
#[utoipa::path(
    get,
    path = "/tokens/my-tokens",
    tag = "tokens",
    security(("jwt" = [])),
    params(ListMyTokensQuery, PageQuery),
    responses((status = OK, body = PageResponse<OwnTokenResponse>)),
)]
async fn list_my_tokens(
    State(state): State<AppState>,
    user: LoginUser,
    Query(query): Query<ListMyTokensQuery>,
    Query(page): Query<PageQuery>,
) -> ApiResult<JsonBody<PageResponse<OwnTokenResponse>>> {
    let page = page.request()?;
    let page = state.services.passes.list_own(user.id(), query.states(), page).await?;
    let now = state.services.clock.now();
    Ok(JsonBody(PageResponse::of(page, |owned| OwnTokenResponse::new(owned, now))))
}

/// End one of my access tokens, without a refund; it stops working on every
/// instance. Ending it again changes nothing.
#[utoipa::path(
    post,
    path = "/tokens/{id}/revoke",
    tag = "tokens",
    security(("jwt" = [])),
    params(("id" = uuid::Uuid, Path)),
    responses(
        (status = OK, body = OwnTokenResponse),
        (status = NOT_FOUND, body = Problem),
        (status = CONFLICT, body = Problem, description = "`conflict`"),
    ),
)]
async fn revoke_token(
    State(state): State<AppState>,
    user: LoginUser,
    By(by): By,
    Path(id): Path<PassId>,
) -> ApiResult<JsonBody<OwnTokenResponse>> {
    let (passes, holder) = (state.services.passes.clone(), Holder::User(user.id()));
    let ended = to_the_end(async move { passes.revoke(&by, holder, id).await }).await?;
    Ok(JsonBody(OwnTokenResponse::new(ended, state.services.clock.now())))
}

/// Give one of my access tokens back; it stops working on every instance.
///
/// An unused one comes back in full; of an active one, where the policy is
/// `pro_rata`, the whole hours that have not begun. Once only.
#[utoipa::path(
    post,
    path = "/tokens/{id}/refund",
    tag = "tokens",
    security(("jwt" = [])),
    params(("id" = uuid::Uuid, Path), OptionalKey),
    responses(
        (status = OK, body = OwnTokenResponse),
        (status = BAD_REQUEST, body = Problem, description = "`invalid_idempotency_key`"),
        (status = NOT_FOUND, body = Problem),
        (status = CONFLICT, body = Problem, description = "`not_refundable`, `conflict`"),
        (status = UNPROCESSABLE_ENTITY, body = Problem,
            description = "`idempotency_key_reused`"),
    ),
)]
async fn refund_token(
    State(state): State<AppState>,
    user: LoginUser,
    By(by): By,
    Path(id): Path<PassId>,
    OptionalKey(key): OptionalKey,
) -> ApiResult<JsonBody<OwnTokenResponse>> {
    let (passes, user) = (state.services.passes.clone(), user.id());
    let refunded = to_the_end(async move { passes.refund(&by, user, id, key).await }).await?;
    Ok(JsonBody(OwnTokenResponse::new(refunded, state.services.clock.now())))
}
