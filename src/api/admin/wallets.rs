//! `/admin/users/{id}/wallet`: everybody's money.

use axum::{Json as JsonBody, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::routes;
use validator::Validate;

use crate::{
    api::{
        ApiRouter, AppState,
        actor::By,
        error::{ApiResult, Problem},
        extract::{Admin, Json, Moderator, Path},
        idempotency::{RequiredKey, to_the_end},
        validate,
        wallet::{BookedTransactionResponse, WalletResponse},
    },
    domain::{id::UserId, money::Amount},
};

/// Transactions that are shown with a balance.
const RECENT: u32 = 20;

pub(super) fn router() -> ApiRouter {
    ApiRouter::new().routes(routes!(get_user_wallet)).routes(routes!(credit_wallet))
}

#[derive(Debug, Serialize, ToSchema)]
pub struct UserWalletResponse {
    #[serde(flatten)]
    wallet: WalletResponse,
    /// The last transactions, newest first, at most 20.
    recent: Vec<BookedTransactionResponse>,
}

#[derive(Debug, Deserialize, ToSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct CreditRequest {
    /// In minor units.
    #[schema(value_type = i64, example = 1250, minimum = 1, maximum = 1_000_000_000_000i64)]
    amount_minor: Amount,
    /// Shown to the user.
    #[schema(example = "bank transfer of 3 May", min_length = 1, max_length = 500)]
    #[validate(custom(function = validate::reason))]
    reason: String,
}

/// Read an account's wallet, also when the account is gone. Needs the role admin
/// or moderator.
#[utoipa::path(
    get,
    path = "/admin/users/{id}/wallet",
    tag = "admin",
    security(("jwt" = [])),
    params(("id" = uuid::Uuid, Path)),
    responses((status = OK, body = UserWalletResponse), (status = NOT_FOUND, body = Problem)),
)]
async fn get_user_wallet(
    State(state): State<AppState>,
    _: Moderator,
    Path(id): Path<UserId>,
) -> ApiResult<JsonBody<UserWalletResponse>> {
    let (balance, recent) = state.services.wallet.of_user(id, RECENT).await?;
    let wallet = WalletResponse::new(balance, state.services.wallet.currency());
    let recent = recent.into_iter().map(BookedTransactionResponse::from).collect();
    Ok(JsonBody(UserWalletResponse { wallet, recent }))
}

/// Put money into an account's wallet. Needs the role admin.
#[utoipa::path(
    post,
    path = "/admin/users/{id}/wallet/credit",
    tag = "admin",
    security(("jwt" = [])),
    params(("id" = uuid::Uuid, Path), RequiredKey),
    request_body = CreditRequest,
    responses(
        (status = CREATED, body = BookedTransactionResponse),
        (status = NOT_FOUND, body = Problem),
        (status = CONFLICT, body = Problem, description = "`wallet_full`"),
    ),
)]
async fn credit_wallet(
    State(state): State<AppState>,
    _: Admin,
    By(by): By,
    Path(id): Path<UserId>,
    RequiredKey(key): RequiredKey,
    Json(request): Json<CreditRequest>,
) -> ApiResult<(StatusCode, JsonBody<BookedTransactionResponse>)> {
    let CreditRequest { amount_minor, reason } = request;
    let wallet = state.services.wallet.clone();
    let booked =
        to_the_end(async move { wallet.credit(&by, id, amount_minor, reason, Some(key)).await });
    Ok((StatusCode::CREATED, JsonBody(booked.await?.into())))
}
