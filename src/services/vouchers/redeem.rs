//! A code becomes money or a pass.
//!
//! Guessing is throttled by user and by address: an attempt is charged before
//! the look-up, so that guesses in parallel do not slip through, and given back
//! when the code was good.

use std::net::IpAddr;

use serde_json::json;

use super::{VoucherError, VoucherService};
use crate::{
    domain::{
        address::network_of,
        audit::{Action, Actor, Event},
        id::{RedemptionId, TransactionId, UserId},
        idempotency::{Claim, IdempotencyKey, RequestHash},
        ledger::{Account, Kind, Movement, Transaction},
        limit::{Decision, Subject, Tier, Window},
        pass::Origin,
        token::TokenHash,
        voucher::{Gift, Voucher, hash_code},
    },
    failpoint,
    repositories::{Redemption, Repositories as _, StoreError, Tx},
    services::{
        once,
        passes::{Order, OwnedPass},
        wallet,
    },
};

/// Wrong codes.
const PER_USER_MINUTE: u64 = 5;
const PER_USER_DAY: u64 = 50;
const PER_ADDRESS_MINUTE: u64 = 20;

/// What a voucher became.
#[derive(Debug)]
pub enum Redeemed {
    Balance(Transaction),
    Pass(OwnedPass),
}

impl VoucherService {
    /// Redeems a code. Asked again with the same key it answers the same and
    /// gives nothing.
    pub async fn redeem(
        &self,
        by: &Actor,
        user: UserId,
        address: IpAddr,
        code: &str,
        key: Option<IdempotencyKey>,
    ) -> Result<Redeemed, VoucherError> {
        let tier = Tier::new;
        let tiers = [
            tier(Subject::Redeem(user), Window::MINUTE, PER_USER_MINUTE),
            tier(Subject::Redeem(user), Window::DAY, PER_USER_DAY),
            tier(Subject::RedeemAddress(network_of(address)), Window::MINUTE, PER_ADDRESS_MINUTE),
        ];
        if let Decision::Refused(state) = self.limiter.decide(&tiers, 1, None).await {
            return Err(VoucherError::Throttled(state));
        }
        let redeemed = match hash_code(code) {
            Some(hash) => self.redeem_hash(by, user, &hash, key).await,
            None => Err(VoucherError::Unknown),
        };
        // Only what looks like guessing stays charged.
        if !matches!(redeemed, Err(VoucherError::Unknown)) {
            self.limiter.refund(&tiers, 1).await;
        }
        redeemed
    }

    async fn redeem_hash(
        &self,
        by: &Actor,
        user: UserId,
        hash: &TokenHash,
        key: Option<IdempotencyKey>,
    ) -> Result<Redeemed, VoucherError> {
        let claim = once::claim(user, key, RequestHash::of("redeem", &[hash]));
        let id = RedemptionId::new(self.clock.now());
        once::settle(|| self.try_redeem(by, &claim, id, hash)).await
    }

    async fn try_redeem(
        &self,
        by: &Actor,
        claim: &Claim,
        id: RedemptionId,
        hash: &TokenHash,
    ) -> Result<Redeemed, VoucherError> {
        let (now, user) = (self.clock.now(), claim.user_id);
        let mut tx = self.db.begin().await?;
        failpoint::reach("redeem.begun").await;
        let outcome = tx.idempotency().claim(claim, id.as_uuid(), now).await?;
        if let Some(before) = once::done_before(outcome)? {
            return self.as_redeemed(tx, user, before).await;
        }
        failpoint::reach("redeem.claimed").await;
        let found = tx.vouchers().find_by_hash(hash).await?;
        let voucher = found.ok_or(VoucherError::Unknown)?;
        if !tx.vouchers().take_use(voucher.id, now).await? {
            let voucher = tx.vouchers().find(voucher.id).await?.unwrap_or(voucher);
            return Err(why_not(&voucher));
        }
        let taken = tx.vouchers().uses_by(voucher.id, user).await?;
        if taken >= u64::from(voucher.max_uses_per_user) {
            return Err(VoucherError::Redeemed);
        }
        failpoint::reach("redeem.taken").await;
        let redeemed = self.hand_out(&mut tx, &voucher, user).await?;
        failpoint::reach("redeem.given").await;
        let (transaction_id, pass_id) = match &redeemed {
            Redeemed::Balance(booked) => (Some(booked.id), None),
            Redeemed::Pass(given) => (None, Some(given.pass.id)),
        };
        let redemption = Redemption {
            id,
            voucher_id: voucher.id,
            user_id: user,
            transaction_id,
            pass_id,
            created_at: now,
        };
        tx.vouchers().insert_redemption(&redemption).await?;
        failpoint::reach("redeem.recorded").await;
        let event = Event::new(Action::VoucherRedeemed, "voucher", voucher.id).after(json!({
            "prefix": voucher.prefix, "transaction_id": transaction_id, "token_id": pass_id,
        }));
        self.audit.commit(tx, by, event).await?;
        failpoint::reach("redeem.committed").await;
        Ok(redeemed)
    }

    async fn hand_out(
        &self,
        tx: &mut Tx,
        voucher: &Voucher,
        user: UserId,
    ) -> Result<Redeemed, VoucherError> {
        let now = self.clock.now();
        match &voucher.gift {
            Gift::Balance(minor) => {
                let movement = Movement {
                    id: TransactionId::new(now),
                    user_id: user,
                    kind: Kind::Credit,
                    amount_minor: *minor,
                    counter: Account::Promotion,
                    pass_id: None,
                    voucher_id: Some(voucher.id),
                    reverses_id: None,
                    reason: Some(format!("voucher {}", voucher.prefix)),
                    actor_id: None,
                    at: now,
                };
                let booked = wallet::deposit(tx, movement).await?;
                Ok(Redeemed::Balance(booked.ok_or(VoucherError::WalletFull)?))
            }
            Gift::Pass { duration_hours, upstream } => {
                let order = Order { duration_hours: *duration_hours, upstream: upstream.clone() };
                let given = self.passes.give(tx, user, order, Origin::Voucher, now).await?;
                Ok(Redeemed::Pass(given))
            }
        }
    }

    /// What the first answer said.
    async fn as_redeemed(
        &self,
        mut tx: Tx,
        user: UserId,
        id: RedemptionId,
    ) -> Result<Redeemed, VoucherError> {
        let missing = || StoreError::inconsistent("a voucher was claimed but not redeemed");
        let before = tx.vouchers().find_redemption(id).await?.ok_or_else(missing)?;
        if let Some(id) = before.transaction_id {
            return Ok(Redeemed::Balance(tx.ledger().find(id).await?.ok_or_else(missing)?));
        }
        let id = before.pass_id.ok_or_else(missing)?;
        Ok(Redeemed::Pass(self.passes.as_given(tx, user, id).await?.ok_or_else(missing)?))
    }
}

/// Why none of its uses could be taken.
fn why_not(voucher: &Voucher) -> VoucherError {
    if voucher.revoked_at.is_some() {
        VoucherError::Revoked
    } else if voucher.uses >= voucher.max_uses {
        VoucherError::UsedUp
    } else {
        VoucherError::Expired
    }
}
