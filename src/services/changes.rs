//! Follows what changes of credentials, so that no copy of this instance outlives
//! a change that was made anywhere.
//!
//! Messages over Redis come sooner, but may be lost with it; what the database
//! tells is complete. It is asked each second, and at once when it says that
//! there is something.

use std::{collections::HashSet, time::Duration};

use metrics::histogram;
use tokio::{sync::Mutex, time::timeout};

use super::credentials::CredentialCache;
use crate::{
    cache::CacheHub,
    domain::{
        change::{ChangesSince, CredentialChange, Subject},
        clock::SharedClock,
    },
    repositories::{ChangeListener, Database, Repositories as _, StoreError, StoreResult},
};

/// Longest wait for an answer: then copies stand for the database.
const DEADLINE: Duration = Duration::from_secs(1);
/// How long changes are kept for instances that could not ask.
const KEPT: Duration = Duration::from_hours(1);
/// Who did not ask for so long may have missed some that are not kept any more.
const MISSED: Duration = Duration::from_mins(30);

pub struct ChangeService {
    db: Database,
    clock: SharedClock,
    hub: CacheHub,
    cache: CredentialCache,
    followed: Mutex<Followed>,
}

#[derive(Default)]
struct Followed {
    position: Option<i64>,
    /// Heard, but to be told again as long as older transactions run.
    heard: HashSet<i64>,
    is_lost: bool,
}

impl ChangeService {
    pub fn new(db: Database, hub: CacheHub, cache: CredentialCache, clock: SharedClock) -> Self {
        Self { db, clock, hub, cache, followed: Mutex::default() }
    }

    /// Asks what has changed and forgets the copies that are older. Where it cannot
    /// be asked, copies stand for the database from now on, within their bound.
    ///
    /// # Errors
    /// No answer within a second.
    pub async fn follow(&self) -> StoreResult<()> {
        let mut followed = self.followed.lock().await;
        let asked_us = self.clock.monotonic_us();
        let told = timeout(DEADLINE, self.since(followed.position)).await;
        let told = match told.unwrap_or_else(|_| Err(StoreError::timed_out())) {
            Ok(told) => told,
            Err(error) => {
                self.hub.out_of_sync();
                if !std::mem::replace(&mut followed.is_lost, true) {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "changes of credentials cannot be followed");
                }
                return Err(error);
            }
        };
        if followed.is_lost {
            tracing::info!("changes of credentials are followed again");
        }
        self.take(&mut followed, told);
        self.hub.in_sync(asked_us);
        Ok(())
    }

    async fn since(&self, position: Option<i64>) -> StoreResult<ChangesSince> {
        self.db.background().await?.credential_changes().since(position).await
    }

    fn take(&self, followed: &mut Followed, told: ChangesSince) {
        let ChangesSince { position, now_us, changes } = told;
        let missed = self.hub.sync_age().is_none_or(|age| age > MISSED)
            // Another server, or one that was set back.
            || followed.position.is_none_or(|before| position < before);
        let mut heard = HashSet::new();
        let mut known = true;
        for change in changes.as_deref().unwrap_or_default() {
            heard.insert(change.id);
            if !followed.heard.contains(&change.id) {
                known &= self.cache.heard(change);
                measure(change, now_us);
            }
        }
        if missed || !known || changes.is_none() {
            self.hub.forget();
        }
        *followed = Followed { position: Some(position), heard, is_lost: false };
    }

    /// Instances that this one knows of, itself included.
    pub fn instances(&self) -> usize {
        self.hub.instances()
    }

    /// How long ago all changes were known here; `None` before the first time.
    pub fn age(&self) -> Option<Duration> {
        self.hub.sync_age()
    }

    /// Listens to the database. `None`: it tells nobody.
    pub async fn listen(&self) -> StoreResult<Option<ChangeListener>> {
        self.db.listen().await
    }

    /// Lets every instance measure how long a change takes to reach it.
    pub async fn probe(&self) -> StoreResult<()> {
        let mut tx = self.db.begin().await?;
        tx.credential_changes().probe().await?;
        tx.commit().await
    }

    /// Forgets changes that everybody has heard of.
    pub async fn prune(&self) -> StoreResult<()> {
        let now_us = self.since(None).await?.now_us;
        let before_us = now_us - i64::try_from(KEPT.as_micros()).unwrap_or(i64::MAX);
        loop {
            let mut tx = self.db.begin().await?;
            let removed = tx.credential_changes().prune(before_us).await?;
            tx.commit().await?;
            if removed == 0 {
                return Ok(());
            }
        }
    }
}

/// From the change itself, before its commit, to here.
#[expect(clippy::cast_precision_loss, reason = "a histogram takes floats")]
fn measure(change: &CredentialChange, now_us: i64) {
    let kind = if change.subject == Subject::Probe { "probe" } else { "change" };
    let seconds = (now_us - change.changed_us).max(0) as f64 / 1e6;
    histogram!("tollgate_invalidation_delay_seconds", "kind" => kind).record(seconds);
}
