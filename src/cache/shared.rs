//! The copies in Redis: a JSON object whose first member is its `version`. One
//! that has no other member is a tombstone.
//!
//! Both scripts refuse to go back to an older version, so a slow writer never
//! undoes a newer one. A key is one slot of a cluster by itself.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use redis::Script;

use super::redis::RedisStore;

/// Messages between instances.
pub(super) const CHANNEL: &str = "tollgate:invalidate";

/// Keeps a value unless something newer is kept. A tombstone of the same
/// version is the change that this value already shows.
static PUT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r#"
        local held = redis.call('GET', KEYS[1])
        local version = held and tonumber(string.match(held, '^{"version":(%-?%d+)'))
        if version and version > tonumber(ARGV[1]) then return 0 end
        redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
        return 1"#,
    )
});

/// Replaces a value by a tombstone and tells the other instances, in one step.
static BURY: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r#"
        local held = redis.call('GET', KEYS[1])
        local version = held and tonumber(string.match(held, '^{"version":(%-?%d+)'))
        if not version or version <= tonumber(ARGV[1]) then
            redis.call('SET', KEYS[1], '{"version":' .. ARGV[1] .. '}', 'PX', ARGV[2])
        end
        if ARGV[4] then redis.call('PUBLISH', ARGV[3], ARGV[4]) end
        return 1"#,
    )
});

/// What every copy begins with, so that the scripts find its version without
/// reading the rest.
const VERSION: &str = r#"{"version":"#;

/// Whether a copy is written as it must be: version first, and more after it.
pub(super) fn is_copy(version: i64, body: &str) -> bool {
    read(body).is_some_and(|found| found == version)
}

/// The version of a copy; `None` for a tombstone and for what is neither.
fn read(body: &str) -> Option<i64> {
    let rest = body.strip_prefix(VERSION)?;
    let end = rest.find(|next: char| next != '-' && !next.is_ascii_digit())?;
    let (version, rest) = rest.split_at(end);
    let version = version.parse().ok()?;
    (rest.starts_with(',') && rest.ends_with('}')).then_some(version)
}

/// The version and the JSON kept under `name`; `None` for nothing, a tombstone
/// or a store that is away.
pub(super) async fn get(redis: &Arc<RedisStore>, name: &str) -> Option<(i64, String)> {
    let read_it = |mut connection| async move {
        redis::cmd("GET").arg(name).query_async::<Option<String>>(&mut connection).await
    };
    let held = redis.call("cache read", read_it).await??;
    Some((read(&held)?, held))
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

/// Whether the tombstone was set and `message`, if there is one, published.
pub(super) async fn bury(
    redis: &Arc<RedisStore>,
    name: &str,
    version: i64,
    life: Duration,
    message: Option<&str>,
) -> bool {
    let mut script = BURY.prepare_invoke();
    script.key(name).arg(version).arg(millis(life)).arg(CHANNEL);
    if let Some(message) = message {
        script.arg(message);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_told_from_a_tombstone_and_from_anything_else() {
        for (body, version) in [
            (r#"{"version":3,"a":1}"#, Some(3)),
            (r#"{"version":-3,"a":1}"#, Some(-3)),
            (r#"{"version":3}"#, None),
            (r#"{"version":3,"a":"#, None),
            (r#"{"version":3.5,"a":1}"#, None),
            (r#"{"version":,"a":1}"#, None),
            (r#"{"a":1,"version":3}"#, None),
            (r#"3:{"a":1}"#, None),
            ("", None),
        ] {
            assert_eq!(read(body), version, "{body}");
        }
    }
}
