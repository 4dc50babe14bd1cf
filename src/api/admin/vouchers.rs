//! `/admin/vouchers`: codes that become money or access tokens.

use axum::{
    Json as JsonBody,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;
use validator::Validate;

use crate::{
    api::{
        ApiRouter, AppState,
        actor::By,
        csv,
        error::{ApiResult, Problem},
        extract::{Admin, Json, Moderator, Path, Query},
        idempotency::to_the_end,
        page::{PageQuery, PageResponse},
    },
    domain::{
        id::{BatchId, UserId, VoucherId},
        voucher::{Gift, Voucher},
    },
    services::vouchers::{Batch, NewVouchers, VoucherFilter, codes_as_csv},
};

pub(super) fn router() -> ApiRouter {
    ApiRouter::new().routes(routes!(create_vouchers, list_vouchers)).routes(routes!(revoke_voucher))
}

#[derive(Debug, Deserialize, ToSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct CreateVouchersRequest {
    /// How many codes. Default: 1.
    #[schema(example = 1, minimum = 1, maximum = 1000)]
    count: Option<u32>,
    /// What each gives, in minor units. Either this or `duration_hours`.
    #[schema(example = 500, minimum = 1, maximum = 1_000_000_000_000i64)]
    amount_minor: Option<i64>,
    /// The length of the access token that each gives. Either this or
    /// `amount_minor`.
    #[schema(example = json!(null), minimum = 1, maximum = 87600)]
    duration_hours: Option<u32>,
    /// With `duration_hours`: the one upstream that the token opens. Default: all.
    #[schema(example = json!(null))]
    upstream: Option<String>,
    /// From when on it cannot be redeemed. Default: never.
    #[schema(example = "2099-01-01T00:00:00Z")]
    expires_at: Option<DateTime<Utc>>,
    /// How often each code can be redeemed. Default: 1.
    #[schema(example = 1, minimum = 1)]
    max_uses: Option<u32>,
    /// How often by one user. Default: 1.
    #[schema(example = 1, minimum = 1)]
    max_uses_per_user: Option<u32>,
    /// For operators.
    #[schema(example = "spring campaign", max_length = 500)]
    note: Option<String>,
}

impl From<CreateVouchersRequest> for NewVouchers {
    fn from(request: CreateVouchersRequest) -> Self {
        Self {
            count: request.count.unwrap_or(1),
            amount_minor: request.amount_minor,
            duration_hours: request.duration_hours,
            upstream: request.upstream,
            expires_at: request.expires_at,
            max_uses: request.max_uses.unwrap_or(1),
            max_uses_per_user: request.max_uses_per_user.unwrap_or(1),
            note: request.note,
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub struct VoucherResponse {
    #[schema(value_type = uuid::Uuid)]
    id: VoucherId,
    #[schema(value_type = uuid::Uuid)]
    batch_id: BatchId,
    /// The first characters of the code.
    #[schema(example = "7G3K")]
    prefix: String,
    #[schema(required = true, example = 500)]
    amount_minor: Option<i64>,
    #[schema(required = true)]
    duration_hours: Option<u32>,
    #[schema(required = true)]
    upstream: Option<String>,
    #[schema(required = true)]
    expires_at: Option<DateTime<Utc>>,
    #[schema(example = 1)]
    max_uses: u32,
    #[schema(example = 1)]
    max_uses_per_user: u32,
    #[schema(example = 0)]
    uses: u32,
    #[schema(required = true)]
    note: Option<String>,
    /// Null: from the command line.
    #[schema(value_type = Option<uuid::Uuid>, required = true)]
    created_by: Option<UserId>,
    created_at: DateTime<Utc>,
    #[schema(required = true)]
    revoked_at: Option<DateTime<Utc>>,
}

impl From<Voucher> for VoucherResponse {
    fn from(voucher: Voucher) -> Self {
        let (amount_minor, duration_hours, upstream) = match voucher.gift {
            Gift::Balance(minor) => (Some(minor), None, None),
            Gift::Pass { duration_hours, upstream } => (None, Some(duration_hours), upstream),
        };
        Self {
            id: voucher.id,
            batch_id: voucher.batch_id,
            prefix: voucher.prefix,
            amount_minor,
            duration_hours,
            upstream,
            expires_at: voucher.expires_at,
            max_uses: voucher.max_uses,
            max_uses_per_user: voucher.max_uses_per_user,
            uses: voucher.uses,
            note: voucher.note,
            created_by: voucher.created_by,
            created_at: voucher.created_at,
            revoked_at: voucher.revoked_at,
        }
    }
}

/// A voucher with its code.
#[derive(Debug, Serialize, ToSchema)]
pub struct IssuedVoucherResponse {
    /// The only time that it is shown.
    #[schema(example = "7G3K-9QXN-4T2V-WM8D")]
    code: String,
    #[serde(flatten)]
    voucher: VoucherResponse,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct BatchResponse {
    #[schema(value_type = uuid::Uuid)]
    batch_id: BatchId,
    items: Vec<IssuedVoucherResponse>,
}

impl From<Batch> for BatchResponse {
    fn from(batch: Batch) -> Self {
        let items = batch.vouchers.into_iter().map(|(voucher, code)| IssuedVoucherResponse {
            code: code.expose().to_owned(),
            voucher: voucher.into(),
        });
        Self { batch_id: batch.id, items: items.collect() }
    }
}

#[derive(Debug, Deserialize, IntoParams, Validate)]
#[into_params(parameter_in = Query)]
pub struct ListVouchersQuery {
    /// Only those that were made together.
    #[param(value_type = Option<uuid::Uuid>)]
    batch_id: Option<BatchId>,
}

/// Make vouchers. Their codes are in this answer and nowhere else; as a table
/// with `Accept: text/csv`. Needs the role admin.
#[utoipa::path(
    post,
    path = "/admin/vouchers",
    tag = "admin",
    security(("jwt" = [])),
    request_body = CreateVouchersRequest,
    responses((status = CREATED, content(
        (BatchResponse = "application/json"),
        (String = "text/csv"),
    ))),
)]
async fn create_vouchers(
    State(state): State<AppState>,
    _: Admin,
    By(by): By,
    headers: HeaderMap,
    Json(request): Json<CreateVouchersRequest>,
) -> ApiResult<Response> {
    let vouchers = state.services.vouchers.clone();
    let batch = to_the_end(async move { vouchers.make(&by, request.into()).await }).await?;
    if csv::is_wanted(&headers) {
        let name = format!("vouchers-{}.csv", batch.id);
        let table = codes_as_csv(&batch, state.services.wallet.currency());
        return Ok(csv::attachment(StatusCode::CREATED, &name, table.into()));
    }
    Ok((StatusCode::CREATED, JsonBody(BatchResponse::from(batch))).into_response())
}

/// List vouchers without their codes, newest first. Needs the role admin or
/// moderator.
#[utoipa::path(
    get,
    path = "/admin/vouchers",
    tag = "admin",
    security(("jwt" = [])),
    params(ListVouchersQuery, PageQuery),
    responses((status = OK, body = PageResponse<VoucherResponse>)),
)]
async fn list_vouchers(
    State(state): State<AppState>,
    _: Moderator,
    Query(query): Query<ListVouchersQuery>,
    Query(page): Query<PageQuery>,
) -> ApiResult<JsonBody<PageResponse<VoucherResponse>>> {
    let filter = VoucherFilter { batch_id: query.batch_id };
    let page = state.services.vouchers.list(filter, page.request()?).await?;
    Ok(JsonBody(PageResponse::of(page, VoucherResponse::from)))
}

/// Stop a voucher from being redeemed. What was redeemed stays. Needs the role
/// admin.
#[utoipa::path(
    post,
    path = "/admin/vouchers/{id}/revoke",
    tag = "admin",
    security(("jwt" = [])),
    params(("id" = uuid::Uuid, Path)),
    responses((status = OK, body = VoucherResponse), (status = NOT_FOUND, body = Problem)),
)]
async fn revoke_voucher(
    State(state): State<AppState>,
    _: Admin,
    By(by): By,
    Path(id): Path<VoucherId>,
) -> ApiResult<JsonBody<VoucherResponse>> {
    let voucher = state.services.vouchers.revoke(&by, id).await?;
    Ok(JsonBody(voucher.into()))
}
