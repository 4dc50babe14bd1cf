//! The upstreams in force, and how their targets fare.
//!
//! One list for the process. It is replaced as a whole when the settings are
//! read again: requests under way keep what they began with, and a target that
//! stays keeps its state.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use arc_swap::ArcSwap;

use crate::config::{TargetConfig, UpstreamConfig, Upstreams};

/// One upstream with its targets.
#[derive(Debug)]
pub struct UpstreamState {
    pub config: Arc<UpstreamConfig>,
    /// Empty: the built-in echo.
    pub targets: Vec<Arc<TargetState>>,
}

/// One server of an upstream, as this instance sees it.
#[derive(Debug)]
pub struct TargetState {
    pub config: TargetConfig,
    in_flight: AtomicUsize,
}

/// All of them at one time.
#[derive(Debug, Default)]
pub struct Directory {
    /// Grows with each replacement.
    pub generation: u64,
    pub upstreams: Vec<Arc<UpstreamState>>,
}

#[derive(Debug)]
pub struct UpstreamService {
    current: ArcSwap<Directory>,
    generation: AtomicU64,
}

/// Counts an exchange with a target while it lives.
#[derive(Debug)]
pub struct InFlight(Arc<TargetState>);

impl UpstreamService {
    pub fn new(configs: &Upstreams) -> Self {
        let upstreams = states(configs, &Directory::default());
        Self {
            current: ArcSwap::from_pointee(Directory { generation: 1, upstreams }),
            generation: AtomicU64::new(1),
        }
    }

    /// Puts these in force for requests that come from now on.
    pub fn replace(&self, configs: &Upstreams) {
        let before = self.current.load_full();
        let generation = before.generation + 1;
        let upstreams = states(configs, &before);
        self.current.store(Arc::new(Directory { generation, upstreams }));
        self.generation.store(generation, Ordering::Release);
    }

    pub fn current(&self) -> Arc<Directory> {
        self.current.load_full()
    }

    /// Which [`Directory`] is in force; cheap enough for every request.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Whether an upstream of this name is in force.
    pub fn is_known(&self, name: &str) -> bool {
        self.current.load().upstreams.iter().any(|upstream| upstream.config.name == name)
    }
}

impl TargetState {
    fn new(config: &TargetConfig) -> Self {
        Self { config: config.clone(), in_flight: AtomicUsize::new(0) }
    }

    /// Exchanges of this instance under way.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts one more, until the answer is dropped.
    pub fn enter(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

fn states(configs: &Upstreams, before: &Directory) -> Vec<Arc<UpstreamState>> {
    let known = |name: &str, target: &TargetConfig| {
        let upstream = before.upstreams.iter().find(|upstream| upstream.config.name == name)?;
        upstream.targets.iter().find(|state| state.config == *target).cloned()
    };
    let state = |config: &Arc<UpstreamConfig>| {
        let target = |target: &TargetConfig| {
            known(config.name, target).unwrap_or_else(|| Arc::new(TargetState::new(target)))
        };
        let targets = config.targets.iter().map(target).collect();
        Arc::new(UpstreamState { config: Arc::clone(config), targets })
    };
    configs.iter().map(state).collect()
}
