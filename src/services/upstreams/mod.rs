//! The upstreams in force, and how their targets fare.
//!
//! One list for the process. It is replaced as a whole when the settings are
//! read again: requests under way keep what they began with, and a target that
//! stays keeps its state.

mod balance;
mod breaker;
pub mod resolver;
mod target;
mod window;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

pub use self::{
    balance::Unavailable,
    breaker::BreakerState,
    target::{
        Connected, FailureKind, IdleConnections, InFlight, Pending, TargetState, TargetStatus,
    },
};
use self::{resolver::SharedResolver, window::Window};
use crate::{
    config::{TargetConfig, UpstreamConfig, Upstreams},
    domain::clock::SharedClock,
    services::health::Condition,
    telemetry::Traffic,
};

/// Retries that are allowed however few requests there are.
const RETRIES_AT_LEAST: u64 = 3;
/// One retry for so many requests.
const REQUESTS_PER_RETRY: u64 = 5;

/// One upstream with its targets.
pub struct UpstreamState {
    pub config: Arc<UpstreamConfig>,
    /// Empty: the built-in echo.
    pub targets: Vec<Arc<TargetState>>,
    pub resolver: SharedResolver,
    /// What is sent there.
    pub traffic: Arc<Traffic>,
    clock: SharedClock,
    retries: Window,
    retried: AtomicU64,
}

/// All of them at one time.
#[derive(Default)]
pub struct Directory {
    /// Grows with each replacement.
    pub generation: u64,
    pub upstreams: Vec<Arc<UpstreamState>>,
}

pub struct UpstreamService {
    current: ArcSwap<Directory>,
    generation: AtomicU64,
    replaced: Notify,
    clock: SharedClock,
    resolver: SharedResolver,
}

impl UpstreamService {
    pub fn new(configs: &Upstreams, clock: SharedClock, resolver: SharedResolver) -> Self {
        let this = Self {
            current: ArcSwap::default(),
            generation: AtomicU64::default(),
            replaced: Notify::default(),
            clock,
            resolver,
        };
        _ = this.replace(configs);
        this
    }

    /// Puts these in force for requests that come from now on. The names of
    /// those that are new, different or gone, as `upstreams.name`.
    pub fn replace(&self, configs: &Upstreams) -> Vec<String> {
        let before = self.current.load_full();
        let generation = before.generation + 1;
        let upstreams: Vec<_> = configs.iter().map(|config| self.state(config, &before)).collect();
        let missing = |state: &&Arc<UpstreamState>, from: &[Arc<UpstreamState>]| {
            !from.iter().any(|other| Arc::ptr_eq(other, state))
        };
        let new = upstreams.iter().filter(|state| missing(state, &before.upstreams));
        let gone = before.upstreams.iter().filter(|state| missing(state, &upstreams));
        let names = new.chain(gone).map(|state| format!("upstreams.{}", state.config.name));
        let changed = names.collect();
        self.current.store(Arc::new(Directory { generation, upstreams }));
        self.generation.store(generation, Ordering::Release);
        self.replaced.notify_waiters();
        changed
    }

    pub fn current(&self) -> Arc<Directory> {
        self.current.load_full()
    }

    /// Which [`Directory`] is in force; cheap enough for every request.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Waits until another than this one is in force.
    pub async fn replaced(&self, generation: u64) {
        loop {
            let replaced = self.replaced.notified();
            if self.generation() != generation {
                return;
            }
            replaced.await;
        }
    }

    /// Whether an upstream of this name is in force.
    pub fn is_known(&self, name: &str) -> bool {
        self.current.load().upstreams.iter().any(|upstream| upstream.config.name == name)
    }

    /// How all of them are: down if one has no target left that would be asked.
    pub fn condition(&self) -> Condition {
        let mut condition = Condition::Up;
        for upstream in &self.current.load().upstreams {
            let available = upstream.targets.iter().filter(|target| target.is_available()).count();
            match (available, upstream.targets.len()) {
                (available, all) if available == all => {}
                (0, _) => return Condition::Down,
                _ => condition = Condition::Degraded,
            }
        }
        condition
    }

    /// Nothing of an upstream that stays as it is changes; a target that stays
    /// keeps its counts also where the rest of its upstream changes.
    fn state(&self, config: &Arc<UpstreamConfig>, before: &Directory) -> Arc<UpstreamState> {
        let known = before.upstreams.iter().find(|known| known.config.name == config.name);
        if let Some(same) = known.filter(|known| known.config == *config) {
            return Arc::clone(same);
        }
        let target = |target: &TargetConfig| {
            let mut known = known.into_iter().flat_map(|upstream| &upstream.targets);
            let state = known.find(|state| state.config == *target).cloned().unwrap_or_else(|| {
                Arc::new(TargetState::new(target, config.name, self.clock.clone()))
            });
            if config.health.is_none() {
                state.unchecked();
            }
            state
        };
        Arc::new(UpstreamState {
            targets: config.targets.iter().map(target).collect(),
            config: Arc::clone(config),
            resolver: self.resolver.clone(),
            traffic: Traffic::of_upstream(config.name),
            clock: self.clock.clone(),
            retries: Window::default(),
            retried: AtomicU64::default(),
        })
    }
}

impl UpstreamState {
    /// Whether a connection that was not made may be tried again. Of an upstream
    /// that is down, retries would only double the load.
    pub fn may_retry(&self) -> bool {
        let now = self.clock.monotonic_us();
        let requests: u64 = self.targets.iter().map(|target| target.breaker.exchanges(now)).sum();
        let most = RETRIES_AT_LEAST.max(requests / REQUESTS_PER_RETRY);
        let may = self.retries.counts(now).all < most;
        if may {
            self.retries.add(now, false);
            self.retried.fetch_add(1, Ordering::Relaxed);
        }
        may
    }

    /// Connections that were tried again, since the start.
    pub fn retried(&self) -> u64 {
        self.retried.load(Ordering::Relaxed)
    }
}
