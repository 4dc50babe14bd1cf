//! What passes, wallets and vouchers can fail with, as codes; see
//! [`super::error_map`].

use super::error::{ApiError, ErrorCode, FieldProblem};
use crate::services::{
    once::KeyReused, passes::PassError, vouchers::VoucherError, wallet::WalletError,
};

impl From<KeyReused> for ApiError {
    fn from(error: KeyReused) -> Self {
        Self::new(ErrorCode::IdempotencyKeyReused, error.to_string())
    }
}

impl From<PassError> for ApiError {
    fn from(error: PassError) -> Self {
        let detail = error.to_string();
        let code = match error {
            PassError::Store(store) => return store.into(),
            PassError::KeyReused(reused) => return reused.into(),
            PassError::NoSuchUpstream => return unknown_upstream(),
            PassError::BalanceTooLow { balance_minor, missing_minor } => {
                return Self::balance_too_low(detail, balance_minor, missing_minor);
            }
            PassError::NotOffered(_) => ErrorCode::DurationNotOffered,
            PassError::NotFound | PassError::NoSuchUser => ErrorCode::NotFound,
            PassError::NotRefundable(_) => ErrorCode::NotRefundable,
            PassError::WalletFull => ErrorCode::WalletFull,
            PassError::Conflict => ErrorCode::Conflict,
        };
        Self::new(code, detail)
    }
}

impl From<WalletError> for ApiError {
    fn from(error: WalletError) -> Self {
        let code = match error {
            WalletError::Store(store) => return store.into(),
            WalletError::KeyReused(reused) => return reused.into(),
            WalletError::NoSuchUser => ErrorCode::NotFound,
            WalletError::Full => ErrorCode::WalletFull,
        };
        Self::new(code, error.to_string())
    }
}

impl From<VoucherError> for ApiError {
    fn from(error: VoucherError) -> Self {
        let code = match error {
            VoucherError::Store(store) => return store.into(),
            VoucherError::KeyReused(reused) => return reused.into(),
            VoucherError::Throttled(state) => {
                let detail = VoucherError::Throttled(state.clone()).to_string();
                return Self::limited(ErrorCode::RedeemThrottled, detail, state);
            }
            VoucherError::Invalid(fields) => return Self::refused_fields(fields),
            VoucherError::NotFound => ErrorCode::NotFound,
            VoucherError::Unknown => ErrorCode::VoucherUnknown,
            VoucherError::Expired => ErrorCode::VoucherExpired,
            VoucherError::Revoked => ErrorCode::VoucherRevoked,
            VoucherError::UsedUp => ErrorCode::VoucherUsedUp,
            VoucherError::Redeemed => ErrorCode::VoucherRedeemed,
            VoucherError::WalletFull => ErrorCode::WalletFull,
        };
        Self::new(code, error.to_string())
    }
}

fn unknown_upstream() -> ApiError {
    ApiError::invalid_fields(vec![FieldProblem {
        field: "upstream".to_owned(),
        code: "unknown".to_owned(),
        message: "there is no upstream of this name".to_owned(),
    }])
}
