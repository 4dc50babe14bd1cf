//! Whether the process and what it leans on can do their work.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU8, Ordering},
};

use tokio::time::Instant;

use crate::{
    cache::{RedisStats, RedisStore},
    domain::clock::SharedClock,
    repositories::{Database, PoolStatus},
    services::{upstreams::UpstreamService, wallet::Verification},
};

/// Where the process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Migrations have not finished yet.
    Starting = 0,
    Serving = 1,
    /// On the way out: takes no new work from a balancer.
    Draining = 2,
}

/// One dependency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    Up,
    /// Works around a failure, within its stated bounds.
    Degraded,
    Down,
}

/// What the last verification of the ledger said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LedgerCondition {
    /// It was not verified yet.
    Unverified,
    Verified,
    /// It is not as it must be; a person has to look.
    Differences,
}

/// A look at everything at once.
#[derive(Clone, Debug)]
pub struct Report {
    pub phase: Phase,
    pub uptime_seconds: u64,
    pub database: Condition,
    pub cache: Condition,
    pub upstreams: Condition,
    pub ledger: LedgerCondition,
}

pub struct HealthService {
    db: Database,
    redis: Option<Arc<RedisStore>>,
    clock: SharedClock,
    started_us: u64,
    phase: AtomicU8,
    upstreams: Arc<UpstreamService>,
    ledger: Mutex<Option<Verification>>,
    /// When the database was asked last, and whether it answered.
    answered: tokio::sync::Mutex<Option<(Instant, bool)>>,
}

impl HealthService {
    pub fn new(
        db: Database,
        redis: Option<Arc<RedisStore>>,
        upstreams: Arc<UpstreamService>,
        clock: SharedClock,
    ) -> Self {
        let started_us = clock.monotonic_us();
        Self {
            db,
            redis,
            clock,
            started_us,
            phase: AtomicU8::new(Phase::Starting as u8),
            upstreams,
            ledger: Mutex::default(),
            answered: tokio::sync::Mutex::default(),
        }
    }

    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Serving,
            _ => Phase::Draining,
        }
    }

    /// Notes what the last verification of the ledger said, whoever made it.
    pub fn saw_ledger(&self, verified: Option<Verification>) {
        *self.ledger.lock().unwrap_or_else(PoisonError::into_inner) = verified;
    }

    /// The last verification of the ledger; `None` before the first.
    pub fn ledger(&self) -> Option<Verification> {
        *self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same as one word.
    pub fn ledger_condition(&self) -> LedgerCondition {
        match self.ledger() {
            None => LedgerCondition::Unverified,
            Some(Verification { differences: 0, .. }) => LedgerCondition::Verified,
            Some(_) => LedgerCondition::Differences,
        }
    }

    /// Asks every dependency but the upstreams, of which requests and checks tell.
    /// Bounded by their own deadlines.
    pub async fn report(&self) -> Report {
        let database = match self.db.ping().await {
            Ok(()) => Condition::Up,
            Err(_) => Condition::Down,
        };
        let cache = match &self.redis {
            None => Condition::Up,
            Some(redis) if redis.ping().await => Condition::Up,
            // Limits are held locally and copies are read from the database.
            Some(_) => Condition::Degraded,
        };
        let uptime_seconds = (self.clock.monotonic_us() - self.started_us) / 1_000_000;
        let upstreams = self.upstreams.condition();
        let ledger = self.ledger_condition();
        Report { phase: self.phase(), uptime_seconds, database, cache, upstreams, ledger }
    }

    /// How often the database was asked for a connection since the start.
    pub fn database_sessions(&self) -> u64 {
        self.db.acquired()
    }

    /// How full the pools of connections to the database are.
    pub fn database_pools(&self) -> Vec<PoolStatus> {
        self.db.pools()
    }

    /// `None` without Redis.
    pub fn redis_stats(&self) -> Option<RedisStats> {
        self.redis.as_ref().map(|redis| redis.stats())
    }

    /// Whether a balancer should send requests here. Of several that ask at once
    /// one asks the database.
    pub async fn is_ready(&self) -> bool {
        if self.phase() != Phase::Serving {
            return false;
        }
        let came = Instant::now();
        let mut last = self.answered.lock().await;
        // One that was begun since tells what ours would.
        if let Some((begun, answered)) = *last
            && begun >= came
        {
            return answered;
        }
        let begun = Instant::now();
        let answers = self.db.ping().await.is_ok();
        *last = Some((begun, answers));
        answers
    }
}
