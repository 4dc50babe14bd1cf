//! What the product does. One struct per capability; no HTTP types, no SQL.
//!
//! A service owns the unit of work: it opens the transaction, calls the
//! repositories, commits, and only then tells caches and other instances.
//! Every service is cheap to share and built once, in [`Services::new`].

pub mod access;
pub mod accounts;
pub mod api_keys;
pub mod assertion;
pub mod audit;
pub mod bootstrap;
pub mod browser;
pub mod changes;
pub mod chat;
pub mod claims;
pub mod credentials;
pub mod door;
pub mod forms;
pub mod gifts;
pub mod health;
pub mod key_input;
pub mod keyring;
pub mod limits;
pub mod log_level;
pub mod login_throttle;
pub mod logins;
mod observe;
pub mod once;
pub mod overview;
mod pass_copy;
pub mod passes;
pub mod passwords;
pub mod refresh;
pub mod reload;
pub mod room;
pub mod sealer;
pub mod sheet;
pub mod streams;
pub mod tickets;
pub mod upstreams;
pub mod usage;
pub mod vouchers;
pub mod wallet;

use std::sync::Arc;

use secrecy::SecretString;

pub use self::{
    access::AccessService, accounts::AccountService, api_keys::ApiKeyService, audit::AuditService,
    browser::BrowserService, changes::ChangeService, chat::ChatService,
    credentials::CredentialCache, health::HealthService, keyring::Keyring, limits::LimitService,
    log_level::LogLevelService, logins::LoginService, overview::OverviewService,
    passes::PassService, passwords::Passwords, reload::ReloadService, sealer::Sealer,
    streams::StreamService, tickets::TicketService, upstreams::UpstreamService,
    usage::UsageService, vouchers::VoucherService, wallet::WalletService,
};
use self::{
    gifts::Gifts, login_throttle::LoginThrottle, room::Room, upstreams::resolver::SharedResolver,
};
/// Every service error wraps this one, so callers may name it without reaching
/// past the services.
pub use crate::repositories::StoreError;
use crate::{
    cache::{CacheHub, Limiter, RedisStore, Slots},
    config::Config,
    domain::clock::SharedClock,
    repositories::Database,
    telemetry::LogLevel,
};

/// Every service of the process, built once at start-up.
#[derive(Clone)]
pub struct Services {
    pub access: Arc<AccessService>,
    pub accounts: Arc<AccountService>,
    pub api_keys: Arc<ApiKeyService>,
    pub audit: Arc<AuditService>,
    pub browser: Arc<BrowserService>,
    pub changes: Arc<ChangeService>,
    pub chat: Arc<ChatService>,
    pub health: Arc<HealthService>,
    pub limits: Arc<LimitService>,
    pub log_level: Arc<LogLevelService>,
    pub logins: Arc<LoginService>,
    pub overview: Arc<OverviewService>,
    pub passes: Arc<PassService>,
    pub tickets: Arc<TicketService>,
    pub vouchers: Arc<VoucherService>,
    pub wallet: Arc<WalletService>,
    pub streams: Arc<StreamService>,
    pub upstreams: Arc<UpstreamService>,
    pub usage: Arc<UsageService>,
    pub reload: Arc<ReloadService>,
    /// What may be under way at once.
    pub room: Arc<Room>,
    pub keyring: Arc<Keyring>,
    passwords: Arc<Passwords>,
    pub clock: SharedClock,
}

/// What the services are built from.
pub struct Parts<'a> {
    pub config: &'a Config,
    pub db: Database,
    pub redis: Option<Arc<RedisStore>>,
    pub hub: &'a CacheHub,
    pub limiter: Limiter,
    pub keyring: Arc<Keyring>,
    pub sealer: Arc<Sealer>,
    /// Of chats: what signs, and the way to the workflow.
    pub chat_secret: SecretString,
    pub webhook: Option<Arc<dyn chat::Webhook>>,
    pub resolver: SharedResolver,
    /// How the settings are read again, if they can be.
    pub read: Option<reload::Read>,
    pub material: reload::Material,
    pub log_level: Arc<LogLevel>,
    pub clock: SharedClock,
}

impl Services {
    pub fn new(parts: Parts<'_>) -> Self {
        let Parts { config, db, redis, hub, limiter, keyring, sealer, clock, .. } = parts;
        let passwords = Arc::new(Passwords::start(&config.auth));
        let cache = CredentialCache::new(db.clone(), hub, clock.clone());
        hub.bound_staleness(config.auth.staleness);
        let changes = ChangeService::new(db.clone(), hub.clone(), cache.clone(), clock.clone());
        let audit = AuditService::new(db.clone(), clock.clone(), &sealer, config.audit);
        let audit = Arc::new(audit);
        let usage = usage_of(config, db.clone(), clock.clone());
        let limits = limits_of(config, redis.as_ref(), hub, limiter.clone(), &db, &clock);
        let chat = ChatService::new(chat::Parts {
            config: &config.chat,
            secret: &parts.chat_secret,
            allowed_origins: &config.chat_origins(),
            issuer: &config.auth.issuer,
            webhook: parts.webhook,
            db: db.clone(),
            clock: clock.clone(),
            hub,
            audit: audit.clone(),
            limits: limits.clone(),
            usage: usage.clone(),
        });
        let upstreams =
            Arc::new(UpstreamService::new(&config.upstreams, clock.clone(), parts.resolver));
        let passes = Arc::new(PassService::new(passes::Parts {
            db: db.clone(),
            clock: clock.clone(),
            cache: cache.clone(),
            sealer: sealer.clone(),
            config: &config.passes,
            wallet: &config.wallet,
            upstreams: upstreams.clone(),
            audit: audit.clone(),
        }));
        let access = Arc::new(AccessService::new(cache.clone(), keyring.clone(), clock.clone()));
        let people = People {
            config,
            db: &db,
            clock: &clock,
            cache: &cache,
            limiter: &limiter,
            passwords: &passwords,
            keyring: &keyring,
            audit: &audit,
        };
        let accounts = people.accounts(Gifts::new(passes.clone(), config));
        let vouchers = people.vouchers(&passes);
        let logins = people.logins();
        let browser = people.browser(&logins, &access, &sealer);
        let tickets = TicketService::new(db.clone(), clock.clone(), access.clone());
        let reload = Arc::new(ReloadService::new(reload::Parts {
            read: parts.read,
            material: parts.material,
            data_dir: config.data_dir.clone(),
            keyring: keyring.clone(),
            upstreams: upstreams.clone(),
            limits: limits.clone(),
            audit: audit.clone(),
        }));
        let streams = streams_of(config, hub, (&access, &audit), &clock);
        let wallet = WalletService::new(db.clone(), clock.clone(), &config.wallet, audit.clone());
        Self {
            reload,
            log_level: Arc::new(LogLevelService::new(
                parts.log_level,
                audit.clone(),
                clock.clone(),
            )),
            tickets: Arc::new(tickets),
            wallet: Arc::new(wallet),
            vouchers,
            passes,
            streams,
            room: Room::new(config.server.max_in_flight),
            access,
            browser,
            changes: Arc::new(changes),
            chat,
            api_keys: Arc::new(ApiKeyService::new(
                db.clone(),
                clock.clone(),
                cache,
                limits.clone(),
                usage.clone(),
                audit.clone(),
            )),
            audit,
            overview: overview_of(config, &db, &clock, (&usage, &upstreams)),
            health: Arc::new(HealthService::new(db, redis, upstreams.clone(), clock.clone())),
            logins,
            accounts,
            limits,
            upstreams,
            usage,
            keyring,
            passwords,
            clock,
        }
    }
}

fn limits_of(
    config: &Config,
    redis: Option<&Arc<RedisStore>>,
    hub: &CacheHub,
    limiter: Limiter,
    db: &Database,
    clock: &SharedClock,
) -> Arc<LimitService> {
    let slots = redis.map(|redis| Slots::shared(redis.clone(), hub)).unwrap_or_default();
    let rules = config.limits.clone();
    Arc::new(LimitService::new(limiter, slots, rules, db.clone(), clock.clone()))
}

fn streams_of(
    config: &Config,
    hub: &CacheHub,
    (access, audit): (&Arc<AccessService>, &Arc<AuditService>),
    clock: &SharedClock,
) -> Arc<StreamService> {
    let most = config.server.max_streams;
    StreamService::new(access.clone(), hub, clock.clone(), most, audit.clone())
}

fn overview_of(
    config: &Config,
    db: &Database,
    clock: &SharedClock,
    (usage, upstreams): (&Arc<UsageService>, &Arc<UpstreamService>),
) -> Arc<OverviewService> {
    Arc::new(OverviewService::new(overview::Parts {
        db: db.clone(),
        clock: clock.clone(),
        usage: usage.clone(),
        upstreams: upstreams.clone(),
        currency: config.wallet.currency,
    }))
}

fn usage_of(config: &Config, db: Database, clock: SharedClock) -> Arc<UsageService> {
    // The workers, and one for everybody else.
    let lanes = config.server.workers + 1;
    Arc::new(UsageService::new(db, clock, &config.usage, lanes))
}

/// What the services of people are built from: accounts, logins, vouchers.
struct People<'a> {
    config: &'a Config,
    db: &'a Database,
    clock: &'a SharedClock,
    cache: &'a CredentialCache,
    limiter: &'a Limiter,
    passwords: &'a Arc<Passwords>,
    keyring: &'a Arc<Keyring>,
    audit: &'a Arc<AuditService>,
}

impl People<'_> {
    fn accounts(&self, gifts: Gifts) -> Arc<AccountService> {
        Arc::new(AccountService::new(accounts::Parts {
            db: self.db.clone(),
            clock: self.clock.clone(),
            cache: self.cache.clone(),
            passwords: self.passwords.clone(),
            throttle: LoginThrottle::new(self.limiter.clone()),
            gifts,
            audit: self.audit.clone(),
            config: &self.config.auth,
        }))
    }

    fn vouchers(&self, passes: &Arc<PassService>) -> Arc<VoucherService> {
        Arc::new(VoucherService::new(
            self.db.clone(),
            self.clock.clone(),
            self.limiter.clone(),
            passes.clone(),
            self.audit.clone(),
        ))
    }

    fn logins(&self) -> Arc<LoginService> {
        Arc::new(LoginService::new(logins::Parts {
            db: self.db.clone(),
            clock: self.clock.clone(),
            cache: self.cache.clone(),
            passwords: self.passwords.clone(),
            keyring: self.keyring.clone(),
            limiter: self.limiter.clone(),
            audit: self.audit.clone(),
            token_life: self.config.auth.token_life,
        }))
    }

    fn browser(
        &self,
        logins: &Arc<LoginService>,
        access: &Arc<AccessService>,
        sealer: &Arc<Sealer>,
    ) -> Arc<BrowserService> {
        Arc::new(BrowserService::new(browser::Parts {
            logins: logins.clone(),
            access: access.clone(),
            keyring: self.keyring.clone(),
            throttle: LoginThrottle::new(self.limiter.clone()),
            forms: forms::Forms::new(sealer, self.clock.clone()),
            audit: self.audit.clone(),
            clock: self.clock.clone(),
        }))
    }
}
