//! What instances show each other, and what they ask of each other.
//!
//! A picture is a text under the instance's name that expires by itself. A
//! request to cut goes to all who listen; the one who could do it answers.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::broadcast::error::RecvError,
    time::{Instant, timeout_at},
};
use uuid::Uuid;

use super::{CacheHub, RedisStore, shared};

/// Names of the instances that show something. In braces, so that a cluster
/// keeps all of it in one place.
const NAMES: &str = "{tollgate:streams}";
/// How long the names are kept after the last was added.
const NAMES_LIFE: Duration = Duration::from_mins(1);
/// How long an instance may take to answer.
const ANSWER: Duration = Duration::from_secs(1);

fn name_of(instance: &str) -> String {
    format!("{NAMES}:{instance}")
}

impl CacheHub {
    /// Who this is among the instances.
    pub fn instance(&self) -> &str {
        &self.inner().instance
    }

    /// Lets the other instances see this for so long.
    pub async fn show(&self, picture: &str, life: Duration) {
        let Some(redis) = self.inner().redis() else { return };
        let mut write = redis::pipe();
        write.cmd("SET").arg(name_of(self.instance())).arg(picture);
        write.arg("PX").arg(u64::try_from(life.as_millis()).unwrap_or(u64::MAX)).ignore();
        write.sadd(NAMES, self.instance()).ignore();
        write.cmd("EXPIRE").arg(NAMES).arg(NAMES_LIFE.as_secs()).ignore();
        let write = |mut connection| async move { write.exec_async(&mut connection).await };
        redis.call("streams shown", write).await;
    }

    /// Takes back what was shown.
    pub async fn hide(&self) {
        let Some(redis) = self.inner().redis() else { return };
        let mut write = redis::pipe();
        write.del(name_of(self.instance())).ignore().srem(NAMES, self.instance()).ignore();
        let write = |mut connection| async move { write.exec_async(&mut connection).await };
        redis.call("streams hidden", write).await;
    }

    /// What the other instances show; nothing while they cannot be asked.
    pub async fn shown_elsewhere(&self) -> Vec<String> {
        match self.inner().redis() {
            Some(redis) => read(&redis, self.instance()).await.unwrap_or_default(),
            None => vec![],
        }
    }

    /// Sets who ends a stream of this instance and tells whether it was there.
    ///
    /// # Panics
    ///
    /// When it was set before.
    pub fn on_cut(&self, cut: impl Fn(Uuid) -> bool + Send + Sync + 'static) {
        assert!(self.inner().on_cut.set(Box::new(cut)).is_ok(), "there is one list of streams");
    }

    /// Sets who gives back places that others want.
    ///
    /// # Panics
    ///
    /// When it was set before.
    pub(super) fn on_wanted(&self, give_back: impl Fn(&str) + Send + Sync + 'static) {
        let set = self.inner().on_wanted.set(Box::new(give_back));
        assert!(set.is_ok(), "there is one count of places");
    }

    /// Asks the other instances for places that they do not use.
    pub(super) async fn want(&self, key: &str) {
        let hub = self.inner();
        if let Some(redis) = hub.redis() {
            shared::publish(&redis, &hub.wanted_message(key)).await;
        }
    }

    /// Asks the other instances to end a stream; whether one of them had it.
    /// `None` if they cannot be asked.
    pub async fn cut_elsewhere(&self, id: Uuid) -> Option<bool> {
        let hub = self.inner();
        let Some(redis) = hub.redis() else { return Some(false) };
        let mut answers = hub.answers.subscribe();
        if !shared::publish(&redis, &hub.cut_message(id)).await {
            return None;
        }
        let deadline = Instant::now() + ANSWER;
        loop {
            match timeout_at(deadline, answers.recv()).await {
                Ok(Ok(answered)) if answered == id => return Some(true),
                Ok(Ok(_) | Err(RecvError::Lagged(_))) => {}
                Ok(Err(RecvError::Closed)) | Err(_) => return Some(false),
            }
        }
    }
}

async fn read(redis: &Arc<RedisStore>, own: &str) -> Option<Vec<String>> {
    let names = |mut connection| async move {
        redis::cmd("SMEMBERS").arg(NAMES).query_async::<Vec<String>>(&mut connection).await
    };
    let mut names = redis.call("instances", names).await?;
    names.retain(|name| name != own);
    if names.is_empty() {
        return Some(vec![]);
    }
    let mut get = redis::cmd("MGET");
    for name in &names {
        get.arg(name_of(name));
    }
    let pictures = |mut connection| async move {
        get.query_async::<Vec<Option<String>>>(&mut connection).await
    };
    let pictures = redis.call("streams elsewhere", pictures).await?;
    Some(pictures.into_iter().flatten().collect())
}
