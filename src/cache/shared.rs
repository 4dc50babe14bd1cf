//! The copies in Redis: a version, a colon, and JSON; nothing after the colon
//! is a tombstone.
//!
//! Both scripts refuse to go back to an older version, so a slow writer never
//! undoes a newer one. A key is one slot of a cluster by itself.

use std::{sync::LazyLock, time::Duration};

use redis::Script;

use super::redis::RedisStore;
use std::sync::Arc;

/// Messages between instances.
pub(super) const CHANNEL: &str = "tollgate:invalidate";

/// Keeps a value unless something newer is kept. A tombstone of the same
/// version is the change that this value already shows.
static PUT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local held = redis.call('GET', KEYS[1])
        local version = held and tonumber(string.match(held, '^(%-?%d+):'))
        if version and version > tonumber(ARGV[1]) then return 0 end
        redis.call('SET', KEYS[1], ARGV[1] .. ':' .. ARGV[2], 'PX', ARGV[3])
        return 1",
    )
});

/// Replaces a value by a tombstone and tells the other instances, in one step.
static BURY: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local held = redis.call('GET', KEYS[1])
        local version = held and tonumber(string.match(held, '^(%-?%d+):'))
        if not version or version <= tonumber(ARGV[1]) then
            redis.call('SET', KEYS[1], ARGV[1] .. ':', 'PX', ARGV[2])
        end
        redis.call('PUBLISH', ARGV[3], ARGV[4])
        return 1",
    )
});

pub(super) fn name(namespace: &str, key: &str) -> String {
    format!("tollgate:cache:{namespace}:{key}")
}

/// The version and the JSON kept under `name`; `None` for nothing, a tombstone
/// or a store that is away.
pub(super) async fn get(redis: &Arc<RedisStore>, name: &str) -> Option<(i64, String)> {
    let read = |mut connection| async move {
        redis::cmd("GET").arg(name).query_async::<Option<String>>(&mut connection).await
    };
    let held = redis.call("cache read", read).await??;
    let (version, body) = held.split_once(':')?;
    (!body.is_empty()).then(|| Some((version.parse().ok()?, body.to_owned())))?
}

pub(super) async fn put(
    redis: &Arc<RedisStore>,
    name: &str,
    version: i64,
    body: &str,
    life: Duration,
) {
    let mut script = PUT.prepare_invoke();
    script.key(name).arg(version).arg(body).arg(millis(life));
    let write = |mut connection| async move { script.invoke_async::<()>(&mut connection).await };
    redis.call("cache write", write).await;
}

/// Whether the tombstone was set and `message` was published.
pub(super) async fn bury(
    redis: &Arc<RedisStore>,
    name: &str,
    version: i64,
    life: Duration,
    message: &str,
) -> bool {
    let mut script = BURY.prepare_invoke();
    script.key(name).arg(version).arg(millis(life)).arg(CHANNEL).arg(message);
    let write = |mut connection| async move { script.invoke_async::<()>(&mut connection).await };
    redis.call("cache invalidation", write).await.is_some()
}

pub(super) async fn publish(redis: &Arc<RedisStore>, message: &str) {
    let send = |mut connection| async move {
        redis::cmd("PUBLISH").arg(CHANNEL).arg(message).exec_async(&mut connection).await
    };
    redis.call("heartbeat", send).await;
}

fn millis(life: Duration) -> u64 {
    u64::try_from(life.as_millis()).unwrap_or(u64::MAX).max(1)
}
