//! What is said and answered about access tokens.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use validator::Validate;

use crate::{
    domain::{
        id::PassId,
        pass::{Origin, Pass, Status},
    },
    services::passes::{Order, OwnedPass, PassService},
};

/// One length that is sold.
#[derive(Debug, Serialize, ToSchema)]
pub struct PriceResponse {
    #[schema(example = 24)]
    duration_hours: u32,
    /// In minor units; 0: free.
    #[schema(example = 500, minimum = 0)]
    price_minor: i64,
}

/// What is sold.
#[derive(Debug, Serialize, ToSchema)]
pub struct PricingResponse {
    #[schema(example = "EUR")]
    currency: String,
    /// By length, the shortest first.
    items: Vec<PriceResponse>,
}

impl PricingResponse {
    pub(super) fn of(passes: &PassService) -> Self {
        let item = |(duration_hours, price_minor)| PriceResponse { duration_hours, price_minor };
        Self {
            currency: passes.currency().to_string(),
            items: passes.prices().iter().copied().map(item).collect(),
        }
    }
}

#[derive(Debug, Deserialize, ToSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct PurchaseTokenRequest {
    /// One of those in `GET /tokens/pricing`.
    #[schema(example = 24, minimum = 1, maximum = 87_600)]
    duration_hours: u32,
    /// The one upstream it is to open. Default: all.
    #[schema(example = json!(null))]
    upstream: Option<String>,
}

impl From<PurchaseTokenRequest> for Order {
    fn from(request: PurchaseTokenRequest) -> Self {
        let PurchaseTokenRequest { duration_hours, upstream } = request;
        Self { duration_hours, upstream }
    }
}

#[derive(Debug, Deserialize, IntoParams, Validate)]
#[into_params(parameter_in = Query)]
pub struct ListMyTokensQuery {
    /// True: only those that are unused or active.
    active_only: Option<bool>,
}

impl ListMyTokensQuery {
    /// States to list; none means all.
    pub(super) fn states(&self) -> Vec<Status> {
        match self.active_only {
            Some(true) => Status::ALL.into_iter().filter(|status| status.is_usable()).collect(),
            Some(false) | None => vec![],
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TokenStatus {
    /// Its time has not begun.
    Unused,
    Active,
    Expired,
    Revoked,
    Refunded,
}

impl From<Status> for TokenStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Unused => Self::Unused,
            Status::Active => Self::Active,
            Status::Expired => Self::Expired,
            Status::Revoked => Self::Revoked,
            Status::Refunded => Self::Refunded,
        }
    }
}

impl From<TokenStatus> for Status {
    fn from(status: TokenStatus) -> Self {
        match status {
            TokenStatus::Unused => Self::Unused,
            TokenStatus::Active => Self::Active,
            TokenStatus::Expired => Self::Expired,
            TokenStatus::Revoked => Self::Revoked,
            TokenStatus::Refunded => Self::Refunded,
        }
    }
}

/// How its owner came to a token.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TokenOrigin {
    Purchase,
    /// An admin gave it.
    Grant,
    Voucher,
    /// The trial of a new account.
    Registration,
}

impl From<Origin> for TokenOrigin {
    fn from(origin: Origin) -> Self {
        match origin {
            Origin::Purchase => Self::Purchase,
            Origin::Grant => Self::Grant,
            Origin::Voucher => Self::Voucher,
            Origin::Registration => Self::Registration,
        }
    }
}

/// An access token, without its text.
#[derive(Debug, Serialize, ToSchema)]
pub struct AccessTokenResponse {
    #[schema(value_type = uuid::Uuid)]
    token_id: PassId,
    /// The first characters of the text, for recognition.
    #[schema(example = "tga_3fKp")]
    token_prefix: String,
    #[schema(example = 24)]
    duration_hours: u32,
    /// The one upstream it opens; null: all.
    #[schema(required = true)]
    upstream: Option<String>,
    #[schema(inline)]
    origin: TokenOrigin,
    /// What was paid, in minor units.
    #[schema(example = 500, minimum = 0)]
    price_minor: i64,
    /// What came back, in minor units; null unless it was refunded.
    #[schema(required = true, minimum = 0)]
    refunded_minor: Option<i64>,
    #[schema(inline)]
    status: TokenStatus,
    /// Whether it opens anything: it is unused or active.
    is_active: bool,
    created_at: DateTime<Utc>,
    /// Its first admitted use.
    #[schema(required = true)]
    activated_at: Option<DateTime<Utc>>,
    /// `activated_at` and `duration_hours`; null before its first use. At this
    /// instant it is over.
    #[schema(required = true)]
    expires_at: Option<DateTime<Utc>>,
    #[schema(required = true)]
    revoked_at: Option<DateTime<Utc>>,
}

impl AccessTokenResponse {
    /// As it is at `now`.
    pub fn new(pass: Pass, now: DateTime<Utc>) -> Self {
        let (status, expires_at) = (pass.status(now), pass.expires_at());
        let Pass {
            id,
            user_id: _,
            prefix,
            duration_hours,
            upstream,
            origin,
            price_minor,
            refunded_minor,
            created_at,
            activated_at,
            revoked_at,
            version: _,
        } = pass;
        Self {
            token_id: id,
            token_prefix: prefix,
            duration_hours,
            upstream,
            origin: origin.into(),
            price_minor,
            refunded_minor,
            status: status.into(),
            is_active: status.is_usable(),
            created_at,
            activated_at,
            expires_at,
            revoked_at,
        }
    }
}

/// An access token as its owner sees it.
#[derive(Debug, Serialize, ToSchema)]
pub struct OwnTokenResponse {
    #[serde(flatten)]
    details: AccessTokenResponse,
    /// To be sent as `X-Access-Token`. Null if the key that it was sealed with
    /// is not configured any more; it works still.
    #[schema(
        required = true,
        example = "tga_3fKpVxq0c9nD-7mJ2sYtB5hGz8RkW1LeUaQi_6oXTvFrPd4CuNbEyMwSjZgHlOIA"
    )]
    token: Option<String>,
}

impl OwnTokenResponse {
    /// As it is at `now`.
    pub fn new(owned: OwnedPass, now: DateTime<Utc>) -> Self {
        let OwnedPass { pass, token } = owned;
        Self {
            details: AccessTokenResponse::new(pass, now),
            token: token.map(|token| token.expose().to_owned()),
        }
    }
}
