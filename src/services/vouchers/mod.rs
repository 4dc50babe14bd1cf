//! Vouchers: codes that become money or passes.

mod make;
mod redeem;
mod table;

use std::sync::Arc;

pub use self::{
    make::{Batch, NewVouchers, VoucherFilter},
    redeem::Redeemed,
    table::codes_as_csv,
};
use super::{
    AuditService, PassService,
    key_input::FieldError,
    once::{KeyReused, Passing},
};
use crate::{
    cache::Limiter,
    domain::{clock::SharedClock, limit::TierState},
    repositories::{Database, StoreError},
};

#[derive(Debug, thiserror::Error)]
pub enum VoucherError {
    /// Also for what cannot be a code.
    #[error("there is no such voucher")]
    Unknown,
    /// No voucher has this id.
    #[error("no such voucher")]
    NotFound,
    #[error("the voucher has expired")]
    Expired,
    #[error("the voucher was withdrawn")]
    Revoked,
    #[error("the voucher is used up")]
    UsedUp,
    /// By this user, as often as one user may.
    #[error("you have redeemed this voucher")]
    Redeemed,
    /// What was to be made cannot be.
    #[error("some fields are not valid")]
    Invalid(Vec<FieldError>),
    #[error("a wallet holds no more than that")]
    WalletFull,
    #[error("too many codes were tried")]
    Throttled(TierState),
    #[error(transparent)]
    KeyReused(#[from] KeyReused),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Passing for VoucherError {
    fn store(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error) => Some(error),
            _ => None,
        }
    }
}

pub struct VoucherService {
    db: Database,
    clock: SharedClock,
    limiter: Limiter,
    passes: Arc<PassService>,
    audit: Arc<AuditService>,
}

impl VoucherService {
    pub fn new(
        db: Database,
        clock: SharedClock,
        limiter: Limiter,
        passes: Arc<PassService>,
        audit: Arc<AuditService>,
    ) -> Self {
        Self { db, clock, limiter, passes, audit }
    }
}
