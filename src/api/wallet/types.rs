//! What is said and answered about money.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use validator::Validate;

use crate::{
    api::{tokens::OwnTokenResponse, validate},
    domain::{
        id::{PassId, TransactionId, UserId, VoucherId},
        ledger::{Kind, Transaction},
        money::Currency,
    },
    services::vouchers::Redeemed,
};

#[derive(Debug, Serialize, ToSchema)]
pub struct WalletResponse {
    /// In minor units: cents of a currency that has them.
    #[schema(example = 1250, minimum = 0)]
    pub balance_minor: i64,
    #[schema(example = "EUR")]
    pub currency: String,
}

impl WalletResponse {
    pub fn new(balance_minor: i64, currency: Currency) -> Self {
        Self { balance_minor, currency: currency.to_string() }
    }
}

/// Why a wallet changed.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TransactionKind {
    Purchase,
    Refund,
    Credit,
    Topup,
    Adjustment,
}

impl From<Kind> for TransactionKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Purchase => Self::Purchase,
            Kind::Refund => Self::Refund,
            Kind::Credit => Self::Credit,
            Kind::Topup => Self::Topup,
            Kind::Adjustment => Self::Adjustment,
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub struct TransactionResponse {
    #[schema(value_type = uuid::Uuid)]
    id: TransactionId,
    #[schema(inline)]
    kind: TransactionKind,
    /// What it did to the wallet: below 0 for what was spent.
    #[schema(example = -500)]
    amount_minor: i64,
    #[schema(example = 750, minimum = 0)]
    balance_after_minor: i64,
    /// The access token that was bought or refunded.
    #[schema(value_type = Option<uuid::Uuid>, required = true)]
    token_id: Option<PassId>,
    #[schema(value_type = Option<uuid::Uuid>, required = true)]
    voucher_id: Option<VoucherId>,
    /// The purchase that a refund gives back.
    #[schema(value_type = Option<uuid::Uuid>, required = true)]
    reverses_id: Option<TransactionId>,
    #[schema(required = true)]
    reason: Option<String>,
    created_at: DateTime<Utc>,
}

impl From<Transaction> for TransactionResponse {
    fn from(booked: Transaction) -> Self {
        Self {
            id: booked.id,
            kind: booked.kind.into(),
            amount_minor: booked.amount_minor,
            balance_after_minor: booked.balance_after_minor,
            token_id: booked.pass_id,
            voucher_id: booked.voucher_id,
            reverses_id: booked.reverses_id,
            reason: booked.reason,
            created_at: booked.created_at,
        }
    }
}

/// A transaction as an operator sees it.
#[derive(Debug, Serialize, ToSchema)]
pub struct BookedTransactionResponse {
    #[serde(flatten)]
    transaction: TransactionResponse,
    #[schema(value_type = uuid::Uuid)]
    user_id: UserId,
    /// Who did it; null for the user, and for the command line.
    #[schema(value_type = Option<uuid::Uuid>, required = true)]
    actor_id: Option<UserId>,
}

impl From<Transaction> for BookedTransactionResponse {
    fn from(booked: Transaction) -> Self {
        let (user_id, actor_id) = (booked.user_id, booked.actor_id);
        Self { transaction: booked.into(), user_id, actor_id }
    }
}

#[derive(Debug, Deserialize, IntoParams, Validate)]
#[into_params(parameter_in = Query)]
pub struct StatementQuery {
    /// From this instant on. Default: from the beginning.
    #[param(example = "2026-01-01T00:00:00Z")]
    #[validate(custom(function = validate::instant))]
    pub from: Option<DateTime<Utc>>,
    /// Before this instant. Default: to the end.
    #[param(example = "2027-01-01T00:00:00Z")]
    #[validate(custom(function = validate::instant))]
    pub to: Option<DateTime<Utc>>,
}

#[derive(Debug, Deserialize, ToSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct RedeemRequest {
    /// In any case, with or without dashes and spaces.
    #[schema(example = "7G3K-9QXN-4T2V-WM8D", min_length = 1, max_length = 100)]
    #[validate(length(min = 1, max = 100, message = "must have 1 to 100 characters"))]
    pub code: String,
}

/// What a voucher became.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RedeemedKind {
    Balance,
    Token,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct RedeemedResponse {
    #[schema(inline)]
    kind: RedeemedKind,
    /// What came into the wallet; only with `balance`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, example = 500, minimum = 1)]
    amount_minor: Option<i64>,
    /// What the wallet held afterwards; only with `balance`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, example = 1250, minimum = 0)]
    balance_minor: Option<i64>,
    /// Only with `balance`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, example = "EUR")]
    currency: Option<String>,
    /// Only with `token`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    token: Option<OwnTokenResponse>,
}

impl RedeemedResponse {
    pub fn new(redeemed: Redeemed, currency: Currency, now: DateTime<Utc>) -> Self {
        match redeemed {
            Redeemed::Balance(booked) => Self {
                kind: RedeemedKind::Balance,
                amount_minor: Some(booked.amount_minor),
                balance_minor: Some(booked.balance_after_minor),
                currency: Some(currency.to_string()),
                token: None,
            },
            Redeemed::Pass(given) => Self {
                kind: RedeemedKind::Token,
                amount_minor: None,
                balance_minor: None,
                currency: None,
                token: Some(OwnTokenResponse::new(given, now)),
            },
        }
    }
}
