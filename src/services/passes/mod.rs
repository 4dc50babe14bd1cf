//! Time passes: sold, given, listed, begun, ended, refunded.
//!
//! Every change of money is one transaction with its ledger entry and its
//! idempotency record ([`super::once`]). A pass's first use and its end are
//! single conditional statements, so of callers that race one wins; caches
//! learn of it after the commit.

mod refund;
mod sale;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::json;

use super::{
    AuditService, CredentialCache, UpstreamService,
    once::{self, KeyReused, Passing},
    sealer::{CannotOpen, Sealer},
};
/// What passes can be listed by.
pub use crate::repositories::PassFilter;
use crate::{
    config::{PassesConfig, WalletConfig},
    domain::{
        audit::{Action, Actor, Event},
        clock::SharedClock,
        id::{PassId, UserId},
        money::Currency,
        page::{Page, PageRequest},
        pass::{NotRefundable, Origin, Pass, Sealed, Status},
        token::{PlainToken, TokenHash},
    },
    repositories::{Database, Repositories as _, StoreError, Tx},
};

/// How often a change is tried again when another one came first.
const RETRIES: usize = 5;

/// A pass with its text, as its owner sees it.
#[derive(Debug)]
pub struct OwnedPass {
    pub pass: Pass,
    /// `None`: the key that sealed it is not configured any more.
    pub token: Option<PlainToken>,
}

/// What [`PassService::reseal`] did.
#[derive(Debug, Default)]
pub struct Resealed {
    /// How many texts are sealed with the current key now that were not.
    pub done: u64,
    /// Those that no configured key opens. They stay as they are.
    pub left: Vec<(PassId, CannotOpen)>,
}

/// What somebody wants to buy or give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub duration_hours: u32,
    /// The one upstream it is to open. `None`: all.
    pub upstream: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum PassError {
    #[error("a token of {0} hours is not offered")]
    NotOffered(u32),
    #[error("there is no upstream of this name")]
    NoSuchUpstream,
    #[error("the balance is too low: {missing_minor} more minor units are needed")]
    BalanceTooLow { balance_minor: i64, missing_minor: i64 },
    #[error("no such token")]
    NotFound,
    #[error("no such user")]
    NoSuchUser,
    #[error(transparent)]
    NotRefundable(#[from] NotRefundable),
    #[error("a wallet holds no more than that")]
    WalletFull,
    #[error("the token is being changed by somebody else")]
    Conflict,
    #[error(transparent)]
    KeyReused(#[from] KeyReused),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Passing for PassError {
    fn store(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error) => Some(error),
            _ => None,
        }
    }
}

/// For whom a pass is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// That user's passes and no others.
    User(UserId),
    /// An admin: every pass.
    Anyone,
}

impl Holder {
    fn filter(self) -> Option<UserId> {
        match self {
            Self::User(id) => Some(id),
            Self::Anyone => None,
        }
    }
}

pub struct PassService {
    db: Database,
    clock: SharedClock,
    cache: CredentialCache,
    sealer: Arc<Sealer>,
    config: PassesConfig,
    currency: Currency,
    /// What a pass may be bound to.
    upstreams: Arc<UpstreamService>,
    audit: Arc<AuditService>,
}

/// What a [`PassService`] is built from.
pub struct Parts<'a> {
    pub db: Database,
    pub clock: SharedClock,
    pub cache: CredentialCache,
    pub sealer: Arc<Sealer>,
    pub config: &'a PassesConfig,
    pub wallet: &'a WalletConfig,
    pub upstreams: Arc<UpstreamService>,
    pub audit: Arc<AuditService>,
}

/// A pass that was made but not stored.
struct Draft {
    pass: Pass,
    token: PlainToken,
    sealed: Sealed,
}

impl PassService {
    pub fn new(parts: Parts<'_>) -> Self {
        let Parts { db, clock, cache, sealer, config, wallet, upstreams, audit } = parts;
        let (config, currency) = (config.clone(), wallet.currency);
        Self { db, clock, cache, sealer, config, currency, upstreams, audit }
    }

    /// What is sold: hours and minor units, by length.
    pub fn prices(&self) -> &[(u32, i64)] {
        &self.config.prices
    }

    pub fn currency(&self) -> Currency {
        self.currency
    }

    /// A user's own passes with their texts, newest first.
    pub async fn list_own(
        &self,
        user: UserId,
        status: Vec<Status>,
        page: PageRequest,
    ) -> Result<Page<OwnedPass>, PassError> {
        let filter = PassFilter { user_id: Some(user), status };
        let now = self.clock.now();
        let page = self.db.session().await?.passes().list(&filter, now, page).await?;
        Ok(page.map(|(pass, sealed)| self.with_text(pass, &sealed)))
    }

    /// Anybody's passes without their texts, newest first.
    pub async fn list(
        &self,
        filter: &PassFilter,
        page: PageRequest,
    ) -> Result<Page<Pass>, PassError> {
        let now = self.clock.now();
        let page = self.db.session().await?.passes().list(filter, now, page).await?;
        Ok(page.map(|(pass, _)| pass))
    }

    /// Ends a pass: no instance admits it any more. What was paid for it stays
    /// paid. Ending one that has ended changes nothing.
    pub async fn revoke(
        &self,
        by: &Actor,
        holder: Holder,
        id: PassId,
    ) -> Result<OwnedPass, PassError> {
        for _ in 0..RETRIES {
            match once::settle(|| self.try_revoke(by, holder, id)).await {
                Err(PassError::Conflict) => {}
                settled => return settled,
            }
        }
        Err(PassError::Conflict)
    }

    async fn try_revoke(
        &self,
        by: &Actor,
        holder: Holder,
        id: PassId,
    ) -> Result<OwnedPass, PassError> {
        let now = self.clock.now();
        let mut tx = self.db.begin().await?;
        let found = tx.passes().find(id, holder.filter()).await?;
        let (pass, sealed) = found.ok_or(PassError::NotFound)?;
        let hash = tx.passes().hash(id).await?.ok_or(PassError::NotFound)?;
        if pass.status(now).is_usable() {
            let ended = tx.passes().end(id, pass.version, None, now).await?;
            let ended = ended.ok_or(PassError::Conflict)?;
            let event = Event::new(Action::TokenRevoked, "token", id).before(state(&pass));
            self.audit.commit(tx, by, event).await?;
            self.cache.pass_changed(&hash, ended.version).await;
            return Ok(self.with_text(ended, &sealed));
        }
        // Others may want the connection while a slow Redis is told.
        drop(tx);
        // Whoever ended it may not have come to tell the caches.
        self.cache.pass_changed(&hash, pass.version).await;
        Ok(self.with_text(pass, &sealed))
    }

    /// Begins the time of an unused pass, or reads when somebody else began it.
    /// Only for a request that was admitted. `None` if it was ended meanwhile.
    pub async fn activate(&self, hash: &TokenHash, id: PassId) -> Result<Option<Pass>, StoreError> {
        let now = self.clock.now();
        let mut tx = self.db.begin().await?;
        if let Some(pass) = tx.passes().activate(id, now).await? {
            tx.commit().await?;
            self.cache.pass_changed(hash, pass.version).await;
            // So that others find it in Redis from its first use on. If that
            // fails now, the next use does it.
            let _ = self.cache.pass(hash).await;
            return Ok(Some(pass));
        }
        // Somebody else came first, or it was ended: our copy was out of date.
        let found = tx.passes().find(id, None).await?.map(|(pass, _)| pass);
        if let Some(pass) = &found {
            self.cache.pass_met(hash, pass.version);
        }
        Ok(found.filter(|pass| pass.status(now).is_usable()))
    }

    /// Seals every text again that another key sealed. Stopping it half-way
    /// loses nothing, and running it again does the rest, among it what an
    /// instance that does not have the current key yet seals meanwhile.
    pub async fn reseal(&self, by: &Actor) -> Result<Resealed, PassError> {
        const BATCH: u32 = 200;
        let (mut after, mut all) = (None, Resealed::default());
        loop {
            let mut tx = self.db.begin().await?;
            let batch = tx.passes().sealed_otherwise(self.sealer.key_id(), after, BATCH).await?;
            let Some((last, _)) = batch.last() else {
                drop(tx);
                let state = json!({ "resealed": all.done, "left": all.left.len() });
                let event = Event::of_all(Action::SecretsRotated, "secrets").after(state);
                self.audit.rotated(by, event).await?;
                return Ok(all);
            };
            after = Some(*last);
            let (mut done, mut left) = (0, vec![]);
            for (id, old) in &batch {
                match self.sealer.open(id.as_uuid().as_bytes(), old) {
                    Ok(text) => {
                        let new = self.seal(*id, &PlainToken::from_text(text));
                        done += u64::from(tx.passes().reseal(*id, old, &new).await?);
                    }
                    Err(error) => left.push((*id, error)),
                }
            }
            tx.commit().await?;
            all.done += done;
            all.left.extend(left);
        }
    }

    fn draft(
        &self,
        user: UserId,
        order: Order,
        origin: Origin,
        price: i64,
        at: DateTime<Utc>,
    ) -> Draft {
        let token = PlainToken::pass(&mut rand::rng());
        let pass = Pass {
            id: PassId::new(at),
            user_id: user,
            prefix: token.display_prefix(),
            duration_hours: order.duration_hours,
            upstream: order.upstream,
            origin,
            price_minor: price,
            refunded_minor: None,
            created_at: at,
            activated_at: None,
            revoked_at: None,
            version: 1,
        };
        let sealed = self.seal(pass.id, &token);
        Draft { pass, token, sealed }
    }

    /// A pass as a gift, in the giver's transaction; `order` was checked.
    pub(super) async fn give(
        &self,
        tx: &mut Tx,
        user: UserId,
        order: Order,
        origin: Origin,
        at: DateTime<Utc>,
    ) -> Result<OwnedPass, StoreError> {
        let Draft { pass, token, sealed } = self.draft(user, order, origin, 0, at);
        tx.passes().insert(&pass, &token.hash(), &sealed).await?;
        Ok(OwnedPass { pass, token: Some(token) })
    }

    /// Whether a pass may be bound to it.
    pub(super) fn check_upstream(&self, upstream: Option<&str>) -> Result<(), PassError> {
        match upstream {
            Some(name) if !self.upstreams.is_known(name) => Err(PassError::NoSuchUpstream),
            _ => Ok(()),
        }
    }

    fn seal(&self, id: PassId, token: &PlainToken) -> Sealed {
        self.sealer.seal(id.as_uuid().as_bytes(), token.expose())
    }

    fn with_text(&self, pass: Pass, sealed: &Sealed) -> OwnedPass {
        let text = self.sealer.open(pass.id.as_uuid().as_bytes(), sealed);
        let token = text.map(PlainToken::from_text).inspect_err(|error| {
            tracing::warn!(pass_id = %pass.id, %error, "its owner cannot read it");
        });
        OwnedPass { pass, token: token.ok() }
    }
}

/// What may be told of a pass.
fn state(pass: &Pass) -> serde_json::Value {
    let Pass { user_id, prefix, duration_hours, upstream, origin, price_minor, .. } = pass;
    json!({
        "user_id": user_id,
        "prefix": prefix,
        "duration_hours": duration_hours,
        "upstream": upstream,
        "origin": origin,
        "price_minor": price_minor,
        "activated_at": pass.activated_at,
    })
}
