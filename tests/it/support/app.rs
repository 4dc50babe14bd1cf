//! A whole instance, serving on a port of its own.
//!
//! On SQLite and memory by default; on Postgres when `TEST_DATABASE_URL` is
//! set, with Redis when `TEST_REDIS_URL` is. Every [`TestApp`] has a client
//! address of its own, which it claims by `X-Forwarded-For`, so that tests
//! which share a Redis do not share limits by address.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::json;
use tempfile::TempDir;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tollgate::{
    app::{App, AppBuilder},
    cache::RedisDeadlines,
    config::{Config, RedisConfig, Sources},
    domain::clock::{FakeClock, SharedClock, SystemClock},
    jobs, server,
    services::upstreams::resolver::{SharedResolver, SystemResolver},
};

use super::{Answer, Client, TestDatabase, redis::PATIENT};

pub const PASSWORD: &str = "correct horse battery";

/// No limits by address.
pub const UNLIMITED: [(&str, &str); 2] =
    [("RATE_LIMIT_PER_MINUTE", "0"), ("RATE_LIMIT_PER_HOUR", "0")];

pub struct TestApp {
    pub app: Arc<App>,
    pub base: String,
    /// The address that its clients come from.
    pub address: Ipv4Addr,
    pub running: Option<server::Running>,
    _jobs: [AbortOnDropHandle<()>; 4],
    _data: TempDir,
    /// What a reload reads; a test may change it.
    pub sources: Arc<Mutex<Sources>>,
    /// Shared by instances on one database; dropped with the last.
    pub database: Arc<TestDatabase>,
}

/// What a test may want different.
pub struct Options {
    pub clock: SharedClock,
    pub database: Option<Arc<TestDatabase>>,
    /// Without Redis even where there is one: only limits in memory follow the
    /// clock.
    pub in_memory: bool,
    /// Hears of no change but by messages over Redis.
    pub deaf: bool,
    /// What upstreams' names are looked up with.
    pub resolver: SharedResolver,
    /// How long Redis is waited for; by itself as the program does where the
    /// settings name a server, and [`PATIENT`] with the one that tests share,
    /// which is always well.
    pub redis_waits: Option<RedisDeadlines>,
    /// Names and values as in the environment; `FILE` is the text of
    /// `tollgate.toml`.
    pub settings: Vec<(&'static str, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            database: None,
            in_memory: false,
            deaf: false,
            resolver: Arc::new(SystemResolver),
            redis_waits: None,
            settings: vec![],
        }
    }
}

impl TestApp {
    pub async fn start() -> Self {
        Self::with(Options::default()).await
    }

    /// With settings as in the environment.
    pub async fn configured<const N: usize>(settings: [(&'static str, &str); N]) -> Self {
        let settings = settings.map(|(name, value)| (name, value.to_owned())).to_vec();
        Self::with(Options { settings, ..Options::default() }).await
    }

    /// Without limits by address, for tests that ask more often than a stranger
    /// may. Guesses at passwords are limited still.
    pub async fn unlimited() -> Self {
        Self::configured(UNLIMITED).await
    }

    /// With a clock that stands still until the test moves it. Limits in Redis
    /// do not follow it.
    pub async fn with_clock() -> (Self, Arc<FakeClock>) {
        let clock = FakeClock::starting_at(super::epoch());
        let options = Options { clock: clock.clone(), ..Options::default() };
        (Self::with(options).await, clock)
    }

    /// With a clock that the limits follow too, hence never with Redis.
    pub async fn in_memory<const N: usize>(
        settings: [(&'static str, &str); N],
    ) -> (Self, Arc<FakeClock>) {
        let clock = FakeClock::starting_at(super::epoch());
        let settings = settings.map(|(name, value)| (name, value.to_owned())).to_vec();
        let options =
            Options { clock: clock.clone(), in_memory: true, settings, ..Options::default() };
        (Self::with(options).await, clock)
    }

    /// `n` instances on one Postgres and one Redis; `None` without them.
    pub async fn instances(n: usize, settings: &[(&'static str, &str)]) -> Option<Vec<Self>> {
        Self::instances_waiting(n, settings, None).await
    }

    /// The same, where Redis is waited for so long.
    pub async fn instances_waiting(
        n: usize,
        settings: &[(&'static str, &str)],
        redis_waits: Option<RedisDeadlines>,
    ) -> Option<Vec<Self>> {
        std::env::var_os("TEST_REDIS_URL")?;
        Self::several(n, settings, false, redis_waits).await
    }

    /// `n` instances on one Postgres without Redis; `None` without Postgres.
    pub async fn without_redis(n: usize, settings: &[(&'static str, &str)]) -> Option<Vec<Self>> {
        Self::several(n, settings, true, None).await
    }

    async fn several(
        n: usize,
        settings: &[(&'static str, &str)],
        in_memory: bool,
        redis_waits: Option<RedisDeadlines>,
    ) -> Option<Vec<Self>> {
        std::env::var_os("TEST_DATABASE_URL")?;
        let database = Arc::new(TestDatabase::fresh().await);
        let mut settings: Vec<(&'static str, String)> =
            settings.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        settings.push(("AUTH_SECRET_KEY", "a shared key of Zebras, 0123456789!".to_owned()));
        let mut apps: Vec<Self> = vec![];
        for _ in 0..n {
            let options = Options {
                database: Some(database.clone()),
                settings: settings.clone(),
                redis_waits,
                in_memory,
                ..Options::default()
            };
            let mut app = Self::with(options).await;
            if let Some(first) = apps.first() {
                app.address = first.address;
            }
            apps.push(app);
        }
        Some(apps)
    }

    pub async fn with(options: Options) -> Self {
        let Options { clock, database, in_memory, deaf, resolver, redis_waits, settings } = options;
        let own_redis = settings.iter().any(|(name, _)| *name == "REDIS_URL");
        let usual = if own_redis { RedisDeadlines::default() } else { PATIENT };
        let database = match database {
            Some(database) => database,
            None => Arc::new(TestDatabase::fresh().await),
        };
        let data = tempfile::tempdir().unwrap();
        let sources = Arc::new(Mutex::new(sources(settings)));
        let mut config = config(&sources.lock().unwrap());
        if in_memory {
            config.redis = None;
        }
        config.data_dir = data.path().to_owned();
        config.usage.journal.folder = data.path().join("journal");
        config.database = database.config();
        let reread = sources.clone();
        let builder = AppBuilder::new(config).clock(clock).resolver(resolver);
        let builder = builder.redis_waits(redis_waits.unwrap_or(usual));
        let builder = builder.reading(move || reread.lock().unwrap().clone());
        let app = Arc::new(builder.build().await.unwrap());
        jobs::prepare(&app, |_| {}).await.unwrap();
        let hub = app.hub.clone();
        let hub = tokio::spawn(async move { hub.run(CancellationToken::new()).await });
        let streams = jobs::watch_streams(app.services.streams.clone(), CancellationToken::new());
        let streams = tokio::spawn(streams);
        let changes = app.services.changes.clone();
        let changes = tokio::spawn(async move {
            if !deaf {
                Box::pin(jobs::follow_changes(changes, CancellationToken::new())).await;
            }
        });
        let chats = jobs::keep_chats(app.services.chat.clone(), CancellationToken::new());
        let chats = tokio::spawn(chats);
        let running = server::start(&app.config, &app.server_parts()).unwrap();
        if let Some(redis) = &app.redis {
            tokio::time::timeout(Duration::from_secs(30), redis.available()).await.unwrap();
        }
        Self {
            base: format!("http://{}", running.address()),
            address: Ipv4Addr::from_bits(0x0a00_0000 | rand::random::<u32>() >> 8),
            app,
            running: Some(running),
            _jobs: [hub, streams, changes, chats].map(AbortOnDropHandle::new),
            _data: data,
            sources,
            database,
        }
    }

    pub fn anonymous(&self) -> Client {
        Client::new(&self.base).with("x-forwarded-for", &self.address.to_string())
    }

    /// Somebody who comes from another address.
    pub fn anonymous_from(&self, address: &str) -> Client {
        Client::new(&self.base).with("x-forwarded-for", address)
    }

    /// Registers `name` and logs in.
    pub async fn user(&self, name: &str) -> Client {
        self.register(name).await;
        self.log_in(name, PASSWORD).await
    }

    pub async fn register(&self, name: &str) -> Answer {
        let email = format!("{name}@example.com");
        let body = json!({ "username": name, "email": email, "password": PASSWORD });
        self.anonymous().post("/api/v1/auth/register", body).await.expect(201)
    }

    pub async fn log_in(&self, name: &str, password: &str) -> Client {
        let pair = self.login(name, password).await.expect(200);
        self.anonymous().with_bearer(pair.text("access_token"))
    }

    pub async fn login(&self, name: &str, password: &str) -> Answer {
        let body = json!({ "username": name, "password": password });
        self.anonymous().post("/api/v1/auth/login", body).await
    }

    /// The first admin, logged in.
    pub async fn admin(&self) -> Client {
        self.log_in("admin", PASSWORD).await
    }

    /// Makes a key with these fields for whoever `user` is; its text.
    pub async fn key(&self, user: &Client, fields: serde_json::Value) -> (String, Client) {
        let issued = user.post("/api/v1/keys", fields).await.expect(201);
        let text = issued.text("key").to_owned();
        let client = self.anonymous().with_key(&text);
        (issued.text("id").to_owned(), client)
    }

    /// Writes the usage that has gathered, as the job would.
    pub async fn flush(&self) {
        self.app.services.usage.flush().await.unwrap();
    }
}

/// The defaults, with a known admin.
fn sources(settings: Vec<(&'static str, String)>) -> Sources {
    let base = [
        ("SERVER_PORT", "0"),
        ("SERVER_WORKERS", "1"),
        ("SERVER_TRUSTED_PROXIES", "127.0.0.0/8"),
        // Unoptimised, beside other tests, it would often be late.
        ("SERVER_MAX_LAG_SECONDS", "0"),
        ("ADMIN_PASSWORD", PASSWORD),
    ];
    let mut environment: BTreeMap<String, String> =
        base.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    environment.extend(settings.into_iter().map(|(name, value)| (name.to_owned(), value)));
    Sources { file: environment.remove("FILE"), environment, ..Sources::default() }
}

/// Of these, but with cheap password hashes.
fn config(sources: &Sources) -> Config {
    let costs_are_given = sources.environment.keys().any(|name| name.starts_with("AUTH_ARGON2_"));
    let mut config = Config::load(sources).unwrap();
    if !costs_are_given {
        // Far below what the configuration accepts: a test is not a safe.
        config.auth.argon2_memory_kib = 64;
        config.auth.argon2_passes = 1;
    }
    if config.redis.is_none()
        && let Ok(url) = std::env::var("TEST_REDIS_URL")
    {
        config.redis = Some(RedisConfig { url: url.into() });
    }
    config
}
