//! `/wallet`: what I may spend, how it came to be, and codes that add to it.
//!
//! For people: an API key that leaked is not to show or move money.

mod types;

use axum::{Json as JsonBody, body::Body, extract::State, http::StatusCode, response::Response};
use futures_util::{StreamExt as _, stream};
use utoipa_axum::routes;

pub use self::types::{BookedTransactionResponse, TransactionResponse, WalletResponse};
use self::types::{RedeemRequest, RedeemedResponse, StatementQuery};
use super::{
    ApiRouter,
    actor::By,
    csv,
    error::{ApiResult, Problem},
    extract::{Client, Json, LoginUser, Query},
    idempotency::{OptionalKey, to_the_end},
    page::{PageQuery, PageResponse},
};
use crate::{
    api::AppState,
    services::wallet::{Statement, WalletError},
};

pub(super) fn router() -> ApiRouter {
    ApiRouter::new()
        .routes(routes!(get_wallet))
        .routes(routes!(list_transactions))
        .routes(routes!(get_statement))
        .routes(routes!(redeem_voucher))
}

/// What I may spend.
#[utoipa::path(
    get,
    path = "/wallet",
    tag = "wallet",
    security(("jwt" = [])),
    responses((status = OK, body = WalletResponse)),
)]
async fn get_wallet(
    State(state): State<AppState>,
    user: LoginUser,
) -> ApiResult<JsonBody<WalletResponse>> {
    let wallet = &state.services.wallet;
    let balance = wallet.balance(user.id()).await?;
    Ok(JsonBody(WalletResponse::new(balance, wallet.currency())))
}

/// What happened to my wallet, newest first.
#[utoipa::path(
    get,
    path = "/wallet/transactions",
    tag = "wallet",
    security(("jwt" = [])),
    params(PageQuery),
    responses((status = OK, body = PageResponse<TransactionResponse>)),
)]
async fn list_transactions(
    State(state): State<AppState>,
    user: LoginUser,
    Query(page): Query<PageQuery>,
) -> ApiResult<JsonBody<PageResponse<TransactionResponse>>> {
    let page = state.services.wallet.transactions(user.id(), page.request()?).await?;
    Ok(JsonBody(PageResponse::of(page, TransactionResponse::from)))
}

/// The same as a table for a spreadsheet, oldest first, whole or between two
/// instants.
#[utoipa::path(
    get,
    path = "/wallet/statement",
    tag = "wallet",
    security(("jwt" = [])),
    params(StatementQuery),
    responses((status = OK, body = String, content_type = "text/csv")),
)]
async fn get_statement(
    State(state): State<AppState>,
    user: LoginUser,
    Query(query): Query<StatementQuery>,
) -> ApiResult<Response> {
    let StatementQuery { from, to } = query;
    let wallet = state.services.wallet.clone();
    let mut statement = Statement::new(user.id(), from, to);
    // The first part before the status: what fails at once is a problem. Later
    // the body breaks off, which a client cannot take for its end.
    let first = wallet.statement_part(&mut statement).await?.unwrap_or_default();
    let rest = stream::try_unfold((wallet, statement), async |(wallet, mut statement)| {
        let part = wallet.statement_part(&mut statement).await?;
        Ok::<_, WalletError>(part.map(|part| (part, (wallet, statement))))
    });
    let body = Body::from_stream(stream::once(async { Ok(first) }).chain(rest));
    Ok(csv::attachment(StatusCode::OK, "statement.csv", body))
}

/// Redeem a voucher's code for a balance or an access token.
///
/// Wrong codes are limited: 5 a minute and 50 a day.
#[utoipa::path(
    post,
    path = "/wallet/redeem",
    tag = "wallet",
    security(("jwt" = [])),
    params(OptionalKey),
    request_body = RedeemRequest,
    responses(
        (status = OK, body = RedeemedResponse),
        (status = NOT_FOUND, body = Problem, description = "`voucher_unknown`"),
        (status = CONFLICT, body = Problem, description = "`voucher_expired`, \
            `voucher_revoked`, `voucher_used_up`, `voucher_redeemed`, `wallet_full`"),
        (status = TOO_MANY_REQUESTS, body = Problem, description = "`redeem_throttled`"),
    ),
)]
async fn redeem_voucher(
    State(state): State<AppState>,
    user: LoginUser,
    By(by): By,
    Client(client): Client,
    OptionalKey(key): OptionalKey,
    Json(request): Json<RedeemRequest>,
) -> ApiResult<JsonBody<RedeemedResponse>> {
    let vouchers = state.services.vouchers.clone();
    let id = user.id();
    let redeemed =
        to_the_end(
            async move { vouchers.redeem(&by, id, client.address, &request.code, key).await },
        )
        .await?;
    let (currency, now) = (state.services.wallet.currency(), state.services.clock.now());
    Ok(JsonBody(RedeemedResponse::new(redeemed, currency, now)))
}
