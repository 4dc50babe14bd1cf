//! Callers that want the same thing at once, each race over three instances on
//! one Postgres and Redis where there are both, else in one process.
//!
//! `TOLLGATE_RACE_ROUNDS` sets how often each is run (`make races`: 1,000).

mod ends;
mod purchases;
mod throughput;
mod wallets;

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};
use tollgate::domain::audit::SYSTEM;

use secrecy::ExposeSecret as _;
use tokio::sync::Barrier;
use tollgate::{
    domain::{
        clock::{Clock as _, SystemClock},
        id::{BatchId, UserId, VoucherId},
        idempotency::IdempotencyKey,
        money::Amount,
        page::PageRequest,
        token::TokenHash,
        user::{Roles, User},
        voucher::{Gift, Voucher, generate_code, hash_code},
    },
    repositories::Repositories as _,
    services::{
        Services,
        passes::{Order, OwnedPass, PassError},
    },
};

use crate::support::{TestApp, books::Books, unique};

/// Of a race in CI.
const ROUNDS: usize = 200;
/// Callers of a round.
const CALLERS: usize = 9;
/// Callers of the first round of the races that are known to need many.
const CROWD: usize = 100;
/// Minor units; a day costs this much.
pub const PRICE: i64 = 2400;

pub fn rounds(usual: usize) -> usize {
    match std::env::var("TOLLGATE_RACE_ROUNDS") {
        Ok(rounds) => rounds.parse().expect("TOLLGATE_RACE_ROUNDS is a number"),
        Err(_) => usual,
    }
}

/// The instances of a race; every round uses the same.
pub struct Rig {
    pub apps: Vec<TestApp>,
    next: AtomicUsize,
}

impl Rig {
    /// With this policy of refunds.
    pub async fn start(refund: &str) -> Self {
        let settings = settings(refund);
        match TestApp::instances(3, &settings).await {
            Some(apps) => Self::of(apps),
            None => Self::of(vec![TestApp::configured(settings).await]),
        }
    }

    /// These, which share a database.
    pub fn of(apps: Vec<TestApp>) -> Self {
        Self { apps, next: AtomicUsize::new(0) }
    }

    /// The services of one instance after the other.
    pub fn services(&self) -> Services {
        let number = self.next.fetch_add(1, Relaxed);
        self.apps[number % self.apps.len()].app.services.clone()
    }

    /// Somebody with this balance.
    pub async fn user(&self, balance: i64) -> UserId {
        let name = unique("racer");
        let at = SystemClock.now();
        let user = User {
            id: UserId::new(at),
            email: format!("{name}@example.com"),
            username: name,
            full_name: None,
            roles: Roles::USER,
            is_active: true,
            version: 1,
            created_at: at,
            updated_at: at,
        };
        let mut tx = self.apps[0].app.db.begin().await.unwrap();
        tx.users().insert(&user, "no password").await.unwrap();
        tx.commit().await.unwrap();
        if let Some(amount) = Amount::new(balance) {
            let wallet = self.services().wallet;
            wallet.credit(&SYSTEM, user.id, amount, "start".into(), None).await.unwrap();
        }
        user.id
    }

    pub async fn pass(&self, user: UserId) -> (OwnedPass, TokenHash) {
        let pass = self.services().passes.purchase(&SYSTEM, user, day(), None).await.unwrap();
        let hash = pass.token.as_ref().unwrap().hash();
        (pass, hash)
    }

    /// A voucher that may be used so often, by one user so often; its code.
    pub async fn voucher(&self, gift: Gift, uses: u32, per_user: u32) -> String {
        let code = generate_code(&mut rand::rng());
        let at = SystemClock.now();
        let voucher = Voucher {
            id: VoucherId::new(at),
            prefix: code.expose()[..4].to_owned(),
            batch_id: BatchId::new(at),
            note: None,
            gift,
            expires_at: None,
            max_uses: uses,
            max_uses_per_user: per_user,
            uses: 0,
            created_by: None,
            created_at: at,
            revoked_at: None,
        };
        let hash = hash_code(code.expose()).unwrap();
        let mut tx = self.apps[0].app.db.begin().await.unwrap();
        tx.vouchers().insert(&voucher, &hash).await.unwrap();
        tx.commit().await.unwrap();
        code.expose().to_owned()
    }

    /// Calls so often at once, by turns at the instances; what each answered.
    pub async fn race<T, F>(&self, callers: usize, call: impl Fn(usize, Services) -> F) -> Vec<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let barrier = Arc::new(Barrier::new(callers));
        let tasks: Vec<_> = (0..callers)
            .map(|number| {
                let (barrier, call) = (barrier.clone(), call(number, self.services()));
                tokio::spawn(async move {
                    barrier.wait().await;
                    call.await
                })
            })
            .collect();
        let mut answers = vec![];
        for task in tasks {
            answers.push(task.await.unwrap());
        }
        answers
    }

    pub async fn balance(&self, user: UserId) -> i64 {
        self.services().wallet.balance(user).await.unwrap()
    }

    /// How many passes and how many transactions the user has.
    pub async fn counts(&self, user: UserId) -> (usize, usize) {
        let services = self.services();
        let passes = services.passes.list_own(user, vec![], PageRequest::FIRST).await.unwrap();
        let booked = services.wallet.transactions(user, PageRequest::FIRST).await.unwrap();
        (passes.items.len(), booked.items.len())
    }

    pub async fn books(&self) -> Books {
        Books::open(self.apps[0].database.config().url.expose_secret()).await
    }
}

/// What an instance sells and gives back.
pub fn settings(refund: &str) -> [(&'static str, &str); 5] {
    const { assert!(PRICE == 2400) };
    [
        ("TOKEN_PRICE_1H", "0"),
        ("TOKEN_PRICE_24H", "2400"),
        ("TOKEN_PRICE_168H", "2400"),
        ("TOKEN_REFUND", refund),
        ("SECRETS_KEY", "a shared secret of Zebras, 0123456789!"),
    ]
}

pub fn day() -> Order {
    Order { duration_hours: 24, upstream: None }
}

/// Guesses at vouchers are counted by address too.
pub fn somewhere() -> IpAddr {
    Ipv4Addr::from_bits(0x0b00_0000 | rand::random::<u32>() >> 8).into()
}

pub fn some_key() -> IdempotencyKey {
    IdempotencyKey::fresh()
}

/// What a caller got to see of a pass.
pub fn seen(answer: Result<OwnedPass, PassError>) -> Result<String, PassError> {
    answer.map(|owned| format!("{:?} {}", owned.pass, owned.token.unwrap().expose()))
}
