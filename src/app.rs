//! Wires the process together: the only module that names every concrete part.

use std::{path::Path, sync::Arc};

use anyhow::Context as _;
use axum::http::HeaderValue;
use secrecy::{ExposeSecret as _, SecretString};

use crate::{
    api::{self, AppState, ChatPages, MetricsState, Site},
    cache::{CacheHub, Limiter, RedisDeadlines, RedisStore},
    config::{Algorithm, AuthConfig, Config, SecretsConfig, Sources, secrets},
    domain::clock::{SharedClock, SystemClock},
    gateway::{CollectorClient, DemoWorkflow, WebhookClient},
    repositories::Database,
    server,
    services::{
        self, Keyring, Sealer, Services,
        bootstrap::generate_password,
        keyring::generate_ed25519_pem,
        reload::Read,
        upstreams::resolver::{SharedResolver, SystemResolver},
    },
    telemetry::{LogLevel, metrics_handle, trace::Tracer},
};

/// All parts of the process, connected but not yet doing anything.
pub struct App {
    pub config: Arc<Config>,
    pub db: Database,
    pub hub: CacheHub,
    pub limiter: Limiter,
    pub redis: Option<Arc<RedisStore>>,
    pub services: Services,
    pub state: AppState,
    /// `None`: there are no traces.
    pub tracer: Option<Arc<Tracer>>,
}

/// Everything a test may want to replace, with production defaults.
pub struct AppBuilder {
    config: Config,
    clock: SharedClock,
    resolver: SharedResolver,
    redis_waits: RedisDeadlines,
    read: Option<Read>,
    log_level: Option<Arc<LogLevel>>,
}

impl AppBuilder {
    pub fn new(config: Config) -> Self {
        Self {
            config,
            clock: Arc::new(SystemClock),
            resolver: Arc::new(SystemResolver),
            redis_waits: RedisDeadlines::default(),
            read: None,
            log_level: None,
        }
    }

    /// How the settings are read again while the process runs.
    #[must_use]
    pub fn reading(mut self, read: impl Fn() -> Sources + Send + Sync + 'static) -> Self {
        self.read = Some(Box::new(read));
        self
    }

    /// What can be said about the log while the process runs.
    #[must_use]
    pub fn log_level(mut self, level: Arc<LogLevel>) -> Self {
        self.log_level = Some(level);
        self
    }

    /// What upstreams' names are looked up with.
    #[must_use]
    pub fn resolver(mut self, resolver: SharedResolver) -> Self {
        self.resolver = resolver;
        self
    }

    /// How long Redis is waited for.
    #[must_use]
    pub fn redis_waits(mut self, deadlines: RedisDeadlines) -> Self {
        self.redis_waits = deadlines;
        self
    }

    #[must_use]
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }

    /// Connects the parts. Neither the database nor Redis needs to be up.
    ///
    /// # Errors
    /// A secret that cannot be read or written, or a key that is not one.
    pub async fn build(self) -> anyhow::Result<App> {
        let Self { config, clock, resolver, read, redis_waits, log_level } = self;
        let log_level = log_level.unwrap_or_else(|| LogLevel::detached(&config.log.level));
        // First: whoever keeps handles of metrics takes them when it is made.
        metrics_handle();
        let db = Database::open(&config.database).await?;
        let redis = match &config.redis {
            Some(redis) => Some(RedisStore::open_within(redis.url.expose_secret(), redis_waits)?),
            None => None,
        };
        let hub = CacheHub::new(clock.clone(), redis.clone());
        let limiter = match &redis {
            None => Limiter::memory(clock.clone()),
            Some(redis) => {
                let hub = hub.clone();
                Limiter::shared(clock.clone(), redis.clone(), move || hub.instances())
            }
        };
        let material = signing_material(&config.auth, &config.data_dir)?;
        let keyring = Arc::new(Keyring::new(&config.auth, &material)?);
        let sealer = Arc::new(sealer(&config.secrets, &config.data_dir)?);
        let chat_secret = match &config.chat.visitors.secret_key {
            Some(secret) => secret.clone(),
            None => kept(&config.data_dir, "chat-hs256", long_secret)?,
        };
        let webhook = config.chat.webhook.as_ref().map(|webhook| {
            if webhook.upstream.is_echo() {
                return Arc::new(DemoWorkflow) as Arc<dyn services::chat::Webhook>;
            }
            Arc::new(WebhookClient::new(webhook, clock.clone(), resolver.clone()))
        });
        let tracer = config.traces.as_ref().map(|traces| {
            Tracer::start(traces, CollectorClient::new(traces, clock.clone(), resolver.clone()))
        });
        let services = Services::new(services::Parts {
            config: &config,
            db: db.clone(),
            redis: redis.clone(),
            hub: &hub,
            limiter: limiter.clone(),
            keyring,
            sealer,
            chat_secret,
            webhook,
            resolver,
            read,
            material: signing_material,
            log_level,
            clock,
        });
        let allowed_origins = header_values(&config.allowed_origins)?;
        let chat_origins = header_values(&config.chat_origins())?;
        let visitors = Arc::new(config.chat.visitors.clone());
        let metrics = MetricsState {
            token: config.metrics.token.clone(),
            apart: config.metrics.port.is_some(),
        };
        let prefix = config.upstreams.first().map_or("", |upstream| upstream.mount.prefix());
        let site = Arc::new(Site::new(&config.server, prefix));
        let chat_pages = Arc::new(ChatPages::new(&config));
        let state = AppState {
            services: services.clone(),
            metrics,
            site,
            chat_pages,
            visitors,
            chat_origins,
            allowed_origins,
        };
        Ok(App { config: Arc::new(config), db, hub, limiter, redis, services, state, tracer })
    }
}

impl App {
    /// What the server needs of it.
    pub fn server_parts(&self) -> server::Parts {
        server::Parts {
            services: self.services.clone(),
            clock: self.services.clock.clone(),
            router: api::router(&self.state),
            ours: self.ours(),
            tracer: self.tracer.clone(),
        }
    }

    /// What is not an upstream's. Of chats only where there are some: their short
    /// paths are names that an upstream may have, too.
    fn ours(&self) -> server::Ours {
        let pages = Arc::clone(&self.state.chat_pages);
        Arc::new(move |path| api::is_ours(path) || pages.has(path))
    }
}

fn header_values(origins: &[String]) -> anyhow::Result<Arc<[HeaderValue]>> {
    let value = |origin: &String| HeaderValue::from_str(origin).context("ALLOWED_ORIGINS");
    origins.iter().map(value).collect()
}

/// What seals texts: as configured, or with a key that was made at the first
/// start and is kept in the data directory.
fn sealer(config: &SecretsConfig, dir: &Path) -> anyhow::Result<Sealer> {
    let key = match &config.key {
        Some(key) => key.clone(),
        None => kept(dir, "sealing", long_secret)?,
    };
    Ok(Sealer::new(&key, &config.previous))
}

/// The secret of this name in the data directory, made if there is none.
fn kept(dir: &Path, name: &str, make: fn() -> String) -> anyhow::Result<SecretString> {
    secrets::load_or_create(dir, name, make)
        .with_context(|| format!("the secret {name} in {}", dir.display()))
}

/// 274 random bits.
fn long_secret() -> String {
    let parts = [generate_password(0), generate_password(0)];
    parts.iter().map(SecretString::expose_secret).collect()
}

/// What JWTs are signed with: as configured, or what was made at the first
/// start and is kept in the data directory.
fn signing_material(config: &AuthConfig, dir: &Path) -> anyhow::Result<SecretString> {
    let AuthConfig { algorithm, secret_key, private_key, .. } = config;
    Ok(match (algorithm, secret_key, private_key) {
        (Algorithm::Hs256, Some(secret), _) => secret.clone(),
        (Algorithm::Hs256, None, _) => kept(dir, "jwt-hs256", long_secret)?,
        (_, _, Some(pem)) => pem.clone(),
        (_, _, None) => kept(dir, "jwt-ed25519.pem", || generate_ed25519_pem(rand::random()))?,
    })
}
