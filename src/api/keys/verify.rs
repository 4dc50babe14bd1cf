//! `POST /keys/verify`: for an application that checks keys itself.

use axum::{Json as JsonBody, extract::State, http::HeaderMap};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::routes;
use validator::Validate;

use crate::{
    api::AppState,
    api::{
        ApiRouter,
        error::ApiResult,
        extract::{Client, Json},
        secret::Secret,
    },
    domain::{
        id::{ApiKeyId, UserId},
        limit::TierState,
    },
    gateway::rate_headers,
    services::api_keys::{Verification, VerifyOutcome},
};

pub fn router() -> ApiRouter {
    ApiRouter::new().routes(routes!(verify_key))
}

#[derive(Debug, Deserialize, ToSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct VerifyKeyRequest {
    #[schema(value_type = String, example = "tg_0dPtW1NSqjrWsKUhJRrKSYLqAmUqFHSbzVDf5yhtUnY1Qtl2Ca")]
    key: Secret,
    /// A scope that the key must hold.
    #[schema(example = "images:write", max_length = 200)]
    #[validate(length(max = 200, message = "must have at most 200 characters"))]
    scope: Option<String>,
    /// How many requests it counts as; 0 only looks. Default: 1.
    #[schema(example = 1, minimum = 0, maximum = 1000)]
    #[validate(range(max = 1000, message = "must be at most 1000"))]
    cost: Option<u32>,
}

/// Why a key is good or not.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum VerifyCode {
    Valid,
    NotFound,
    Disabled,
    Expired,
    InsufficientScope,
    RateLimited,
    QuotaExceeded,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct VerifyKeyResponse {
    valid: bool,
    code: VerifyCode,
    #[schema(value_type = Option<uuid::Uuid>, required = true)]
    key_id: Option<ApiKeyId>,
    #[schema(value_type = Option<uuid::Uuid>, required = true)]
    user_id: Option<UserId>,
    /// What the key may do; empty for every scope.
    scopes: Vec<String>,
    /// The limit nearest to its end; null where there is none.
    #[schema(required = true)]
    ratelimit: Option<RateLimitState>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct RateLimitState {
    #[schema(example = 60)]
    limit: u64,
    #[schema(example = 59)]
    remaining: u64,
    /// Epoch seconds at which quota comes back.
    #[schema(example = 1_767_225_600)]
    reset: i64,
}

impl From<VerifyOutcome> for VerifyCode {
    fn from(outcome: VerifyOutcome) -> Self {
        match outcome {
            VerifyOutcome::Valid => Self::Valid,
            VerifyOutcome::NotFound => Self::NotFound,
            VerifyOutcome::Disabled => Self::Disabled,
            VerifyOutcome::Expired => Self::Expired,
            VerifyOutcome::InsufficientScope => Self::InsufficientScope,
            VerifyOutcome::RateLimited => Self::RateLimited,
            VerifyOutcome::QuotaExceeded => Self::QuotaExceeded,
        }
    }
}

impl VerifyKeyResponse {
    fn new(verification: Verification, now: i64) -> Self {
        let Verification { outcome, key, limit } = verification;
        let ratelimit = limit.map(|TierState { limit, remaining, reset_in_ms, .. }| {
            let wait = i64::try_from(reset_in_ms.div_ceil(1000)).unwrap_or(i64::MAX / 2);
            RateLimitState { limit, remaining, reset: now + wait }
        });
        Self {
            valid: outcome == VerifyOutcome::Valid,
            code: outcome.into(),
            key_id: key.as_ref().map(|key| key.id),
            user_id: key.as_ref().map(|key| key.user_id),
            scopes: key.map(|key| key.scopes.clone()).unwrap_or_default(),
            ratelimit,
        }
    }
}

/// Check a key and charge its limits.
///
/// The key is the credential: no other is needed. 200 when the question was
/// understood; `code` says why a key is not valid. Texts that are no key count
/// against the limit of the asking address, keys only against their own.
#[utoipa::path(
    post,
    path = "/keys/verify",
    tag = "keys",
    security(()),
    request_body = VerifyKeyRequest,
    responses((status = OK, body = VerifyKeyResponse)),
)]
async fn verify_key(
    State(state): State<AppState>,
    Client(client): Client,
    Json(request): Json<VerifyKeyRequest>,
) -> ApiResult<(HeaderMap, JsonBody<VerifyKeyResponse>)> {
    let VerifyKeyRequest { key, scope, cost } = request;
    let cost = u64::from(cost.unwrap_or(1));
    let request_id = &client.request_id;
    let found = state
        .services
        .api_keys
        .verify(key.0.expose_secret(), scope.as_deref(), cost, request_id)
        .await?;
    let now = state.services.clock.now();
    let mut headers = HeaderMap::new();
    if found.outcome == VerifyOutcome::NotFound
        && let Some(limit) = state.services.limits.admit_api(None, client.address).await?
    {
        rate_headers::set(&mut headers, &limit, now);
    }
    Ok((headers, JsonBody(VerifyKeyResponse::new(found, now.timestamp()))))
}
