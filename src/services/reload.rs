//! Reads the settings again while the process runs.
//!
//! All or nothing: what is wrong anywhere in them leaves everything as it was.
//! What is under way keeps what it began with; nothing is cut.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use super::{AuditService, Keyring, LimitService, StoreError, UpstreamService};
use crate::{
    config::{AuthConfig, Config, ConfigError, Given, Problem, Sources},
    domain::audit::{Action, Actor, Event},
};
use secrecy::SecretString;
use serde_json::json;

/// Settings that are taken over; every other needs a restart.
const LIVE: [&str; 7] = [
    "AUTH_ALGORITHM",
    "AUTH_SECRET_KEY",
    "AUTH_PRIVATE_KEY",
    "AUTH_PREVIOUS_SECRET_KEYS",
    "AUTH_PREVIOUS_PUBLIC_KEYS",
    "AUTH_PUBLIC_PATHS",
    "AUTH_REQUIRE_AUTH",
];
/// The same for all that begin so.
const LIVE_PREFIXES: [&str; 2] = ["UPSTREAM_", "RATE_LIMIT_"];

/// How the settings are read.
pub type Read = Box<dyn Fn() -> Sources + Send + Sync>;
/// Where the material of the signing key comes from.
pub type Material = fn(&AuthConfig, &std::path::Path) -> anyhow::Result<SecretString>;

pub struct Parts {
    /// `None`: they cannot be read again.
    pub read: Option<Read>,
    pub material: Material,
    pub data_dir: PathBuf,
    pub keyring: Arc<Keyring>,
    pub upstreams: Arc<UpstreamService>,
    pub limits: Arc<LimitService>,
    pub audit: Arc<AuditService>,
}

pub struct ReloadService {
    parts: Parts,
    /// As they were read at the start and at the last reload. Held during one.
    in_force: Mutex<InForce>,
}

struct InForce {
    /// What the parts of the process work with that a reload does not reach.
    started: Given,
    live: Given,
}

/// What reading the settings again came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Settings and upstreams that are in force now and were not before.
    pub changed: Vec<String>,
    /// Settings that are not as at the start, and need one.
    pub restart_needed: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    #[error(transparent)]
    Invalid(#[from] ConfigError),
    /// The keys that the settings name cannot be used. The cause is for the log.
    #[error("the signing keys cannot be used")]
    Keys(#[source] anyhow::Error),
    #[error("this process cannot read its settings again")]
    Unsupported,
}

impl ReloadError {
    /// Names and what was expected; never a value.
    pub fn problems(&self) -> Vec<Problem> {
        match self {
            Self::Invalid(error) => error.problems().to_vec(),
            Self::Keys(_) => vec![Problem::new("auth", "expected signing keys that can be used")],
            Self::Unsupported => vec![],
        }
    }
}

impl ReloadService {
    pub fn new(parts: Parts) -> Self {
        let given = parts.read.as_ref().map(|read| Given::of(&read())).unwrap_or_default();
        let in_force = Mutex::new(InForce { started: given.clone(), live: given });
        Self { parts, in_force }
    }

    /// Reads the settings and puts in force what of them can change. Reads
    /// files: to be called where that may take a moment.
    pub fn reload(&self) -> Result<Reloaded, ReloadError> {
        let Parts { read, material, data_dir, keyring, upstreams, limits, .. } = &self.parts;
        let read = read.as_ref().ok_or(ReloadError::Unsupported)?;
        // One at a time, so that the later of two is what holds in the end.
        let mut in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        let sources = read();
        let config = Config::load(&sources)?;
        let material = material(&config.auth, data_dir).map_err(ReloadError::Keys)?;
        // The last step that can fail is the first that changes anything.
        keyring
            .replace(&config.auth, &material)
            .map_err(|error| ReloadError::Keys(error.into()))?;
        let changed_upstreams = upstreams.replace(&config.upstreams);
        limits.replace(config.limits);

        let given = Given::of(&sources);
        let differing = given.differing(&in_force.live);
        let changed = differing.into_iter().filter(|name| is_live(name)).map(str::to_owned);
        let changed = changed.chain(changed_upstreams).collect::<BTreeSet<_>>();
        let differing = given.differing(&in_force.started);
        let restart_needed = differing.into_iter().filter(|name| !is_live(name));
        let restart_needed = restart_needed.map(str::to_owned).collect();
        in_force.live = given;
        Ok(Reloaded { changed: changed.into_iter().collect(), restart_needed })
    }

    /// Notes a reload in the audit log: names, never values.
    pub async fn note(&self, by: &Actor, done: &Reloaded) -> Result<(), StoreError> {
        let Reloaded { changed, restart_needed } = done;
        let state = json!({ "changed": changed, "restart_needed": restart_needed });
        let event = Event::of_all(Action::SettingsReloaded, "settings").after(state);
        self.parts.audit.note(by, event).await
    }
}

fn is_live(name: &str) -> bool {
    LIVE.contains(&name) || LIVE_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}
