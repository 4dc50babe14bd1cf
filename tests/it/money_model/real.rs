//! The services, seen as the model sees them.

use std::{net::Ipv4Addr, sync::Arc};
use tollgate::domain::audit::{self, Actor, SYSTEM};

use chrono::{DateTime, TimeDelta, Utc};
use secrecy::ExposeSecret as _;
use tollgate::{
    domain::{
        clock::{Clock as _, FakeClock},
        id::{BatchId, PassId, UserId, VoucherId},
        idempotency::IdempotencyKey,
        ledger::Transaction,
        money::Amount,
        page::PageRequest,
        pass::Pass,
        user::{Roles, User},
        voucher::{self, Gift, generate_code, hash_code},
    },
    repositories::Repositories as _,
    services::{
        passes::{Holder, Order, OwnedPass, PassError},
        vouchers::{Redeemed, VoucherError},
        wallet::WalletError,
    },
};

use super::model::{Act, Answer, Booked, PRICES, PassSeen, VOUCHERS};
use crate::support::{Options, TestApp, books::Books, epoch, unique};

/// One instance, and what of the running case it must know.
pub struct Real {
    app: TestApp,
    clock: Arc<FakeClock>,
    pub books: Books,
    start: DateTime<Utc>,
    admin: UserId,
    users: Vec<UserId>,
    codes: Vec<String>,
    /// In the order of their making, with their texts.
    passes: Vec<(PassId, String)>,
}

impl Real {
    /// With this policy of refunds.
    pub async fn start(refund: &str) -> Self {
        let mut settings = vec![("TOKEN_REFUND", refund.to_owned())];
        let names = ["TOKEN_PRICE_1H", "TOKEN_PRICE_12H", "TOKEN_PRICE_24H", "TOKEN_PRICE_168H"];
        settings.extend(names.into_iter().zip(PRICES.map(|(_, price)| price.to_string())));
        let clock = FakeClock::starting_at(epoch());
        let options = Options { clock: clock.clone(), settings, ..Options::default() };
        let app = TestApp::with(options).await;
        let books = Books::open(app.database.config().url.expose_secret()).await;
        let start = epoch();
        let (users, codes, passes) = (vec![], vec![], vec![]);
        Self { app, clock, books, start, admin: UserId::NIL, users, codes, passes }
    }

    /// Makes what a case begins with.
    pub async fn begin(&mut self) {
        self.start = self.clock.now();
        self.admin = UserId::new(self.start);
        self.passes.clear();
        let users: Vec<User> = (0..2).map(|_| user(self.start)).collect();
        self.users = users.iter().map(|user| user.id).collect();
        self.codes.clear();
        let mut tx = self.app.app.db.begin().await.unwrap();
        for user in &users {
            tx.users().insert(user, "no password").await.unwrap();
        }
        for voucher in VOUCHERS {
            let code = generate_code(&mut rand::rng()).expose().to_owned();
            let gift = match voucher.money {
                Some(minor) => Gift::Balance(minor),
                None => Gift::Pass { duration_hours: voucher.hours, upstream: None },
            };
            let voucher = voucher::Voucher {
                id: VoucherId::new(self.start),
                prefix: code[..4].to_owned(),
                batch_id: BatchId::new(self.start),
                note: None,
                gift,
                expires_at: voucher.expires.map(|end| self.start + TimeDelta::minutes(end)),
                max_uses: voucher.uses,
                max_uses_per_user: voucher.per_user,
                uses: 0,
                created_by: None,
                created_at: self.start,
                revoked_at: voucher.revoked.then_some(self.start),
            };
            tx.vouchers().insert(&voucher, &hash_code(&code).unwrap()).await.unwrap();
            self.codes.push(code);
        }
        tx.commit().await.unwrap();
    }

    pub fn wait(&self, minutes: i64) {
        self.clock.advance(TimeDelta::minutes(minutes));
    }

    pub async fn balance(&self, user: usize) -> i64 {
        self.app.app.services.wallet.balance(self.users[user]).await.unwrap()
    }

    pub async fn act(&mut self, by: usize, act: Act, key: Option<u8>) -> Answer {
        let services = self.app.app.services.clone();
        let user = self.users[by];
        let key = key.map(|key| IdempotencyKey::parse(&format!("key-{key}")).unwrap());
        match act {
            Act::Buy { hours } => {
                let order = Order { duration_hours: hours, upstream: None };
                self.pass(services.passes.purchase(&SYSTEM, user, order, key).await)
            }
            Act::Refund { pass } => {
                self.pass(services.passes.refund(&SYSTEM, user, self.id(pass), key).await)
            }
            Act::Revoke { pass, by_admin } => {
                let holder = if by_admin { Holder::Anyone } else { Holder::User(user) };
                self.pass(services.passes.revoke(&SYSTEM, holder, self.id(pass)).await)
            }
            Act::Activate { pass } => {
                let Some((id, text)) = self.passes.get(pass).cloned() else {
                    return Answer::NotFound;
                };
                let hash = tollgate::domain::token::TokenHash::of_pass(&text).unwrap();
                match services.passes.activate(&hash, id).await.unwrap() {
                    Some(pass) => Answer::Pass(self.seen(&pass)),
                    None => Answer::Ended,
                }
            }
            Act::Credit { minor } => {
                let (amount, reason) = (Amount::new(minor).unwrap(), "thanks".to_owned());
                let by = Actor::user(self.admin, "admin", audit::Origin::default());
                let credit = services.wallet.credit(&by, user, amount, reason, key);
                match credit.await {
                    Ok(booked) => Answer::Booked(line(&booked)),
                    Err(WalletError::KeyReused(_)) => Answer::KeyReused,
                    Err(other) => panic!("{other:?}"),
                }
            }
            Act::Redeem { voucher } => {
                let address = Ipv4Addr::from_bits(0x0b00_0000 | rand::random::<u32>() >> 8).into();
                let code = &self.codes[voucher];
                match services.vouchers.redeem(&SYSTEM, user, address, code, key).await {
                    Ok(Redeemed::Pass(given)) => self.pass(Ok(given)),
                    Ok(Redeemed::Balance(booked)) => Answer::Booked(line(&booked)),
                    Err(VoucherError::KeyReused(_)) => Answer::KeyReused,
                    Err(VoucherError::Expired) => Answer::VoucherExpired,
                    Err(VoucherError::UsedUp) => Answer::VoucherUsedUp,
                    Err(VoucherError::Revoked) => Answer::VoucherRevoked,
                    Err(VoucherError::Redeemed) => Answer::VoucherRedeemed,
                    Err(other) => panic!("{other:?}"),
                }
            }
        }
    }

    pub async fn passes_of(&mut self, user: usize) -> Vec<PassSeen> {
        let services = self.app.app.services.clone();
        let own = services.passes.list_own(self.users[user], vec![], PageRequest::FIRST);
        let mut seen = vec![];
        for owned in own.await.unwrap().items {
            match self.pass(Ok(owned)) {
                Answer::Pass(pass) => seen.push(pass),
                other => panic!("{other:?}"),
            }
        }
        // Those of one instant have no order.
        seen.sort_by_key(|pass| std::cmp::Reverse(pass.number));
        seen
    }

    /// Oldest first.
    pub async fn statement(&self, user: usize) -> Vec<Booked> {
        let wallet = &self.app.app.services.wallet;
        let page = wallet.transactions(self.users[user], PageRequest::FIRST).await.unwrap();
        page.items.iter().rev().map(line).collect()
    }

    fn id(&self, pass: usize) -> PassId {
        self.passes.get(pass).map_or_else(|| PassId::new(self.start), |(id, _)| *id)
    }

    fn pass(&mut self, answer: Result<OwnedPass, PassError>) -> Answer {
        let owned = match answer {
            Ok(owned) => owned,
            Err(PassError::NotFound) => return Answer::NotFound,
            Err(PassError::NotOffered(_)) => return Answer::NotOffered,
            Err(PassError::BalanceTooLow { balance_minor, missing_minor }) => {
                return Answer::TooLow { balance: balance_minor, missing: missing_minor };
            }
            Err(PassError::NotRefundable(why)) => return Answer::NotRefundable(why),
            Err(PassError::KeyReused(_)) => return Answer::KeyReused,
            Err(other) => panic!("{other:?}"),
        };
        let text = owned.token.unwrap().expose().to_owned();
        match self.passes.iter().find(|(id, _)| *id == owned.pass.id) {
            Some((_, first)) => assert_eq!(&text, first, "another text than before"),
            None => self.passes.push((owned.pass.id, text)),
        }
        Answer::Pass(self.seen(&owned.pass))
    }

    fn seen(&self, pass: &Pass) -> PassSeen {
        let minutes = |at: DateTime<Utc>| {
            let since = at - self.start;
            assert_eq!(since, TimeDelta::minutes(since.num_minutes()));
            since.num_minutes()
        };
        PassSeen {
            number: self.passes.iter().position(|(id, _)| *id == pass.id).unwrap(),
            owner: self.users.iter().position(|id| *id == pass.user_id).unwrap(),
            hours: pass.duration_hours,
            price: pass.price_minor,
            made: minutes(pass.created_at),
            began: pass.activated_at.map(minutes),
            ended: pass.revoked_at.map(minutes),
            refunded: pass.refunded_minor,
            status: pass.status(self.clock.now()),
        }
    }
}

fn user(at: DateTime<Utc>) -> User {
    let name = unique("modelled");
    User {
        id: UserId::new(at),
        email: format!("{name}@example.com"),
        username: name,
        full_name: None,
        roles: Roles::USER,
        is_active: true,
        version: 1,
        created_at: at,
        updated_at: at,
    }
}

fn line(booked: &Transaction) -> Booked {
    Booked {
        kind: booked.kind,
        amount: booked.amount_minor,
        balance: booked.balance_after_minor,
        number: booked.seq,
    }
}
