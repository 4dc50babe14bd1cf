//! The copies in Redis: JSON objects whose first member is their `version`.
//!
//! A change takes the copy away and leaves its version in a grave beside it, so
//! that what can be found is always a copy. Both scripts refuse to go back to an
//! older version, so a slow writer never undoes a newer one. In a cluster, a
//! copy and its grave are in one slot.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use redis::Script;

use super::redis::RedisStore;

/// Messages between instances.
pub(super) const CHANNEL: &str = "tollgate:invalidate";

/// Keeps a value unless something newer is kept or was taken away. The change
/// whose version it has is one that it already shows.
static PUT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r#"
        local version = tonumber(ARGV[1])
        local gone = tonumber(redis.call('GET', KEYS[2]))
        if gone and gone > version then return 0 end
        local held = redis.call('GET', KEYS[1])
        held = held and tonumber(string.match(held, '^{"version":(%-?%d+)'))
        if held and held > version then return 0 end
        redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
        return 1"#,
    )
});

/// Takes a value away for good and tells the other instances, in one step.
static BURY: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r#"
        local version = tonumber(ARGV[1])
        local held = redis.call('GET', KEYS[1])
        held = held and tonumber(string.match(held, '^{"version":(%-?%d+)'))
        if not held or held <= version then redis.call('DEL', KEYS[1]) end
        local gone = tonumber(redis.call('GET', KEYS[2]))
        if not gone or gone <= version then
            redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
        end
        if ARGV[4] then redis.call('PUBLISH', ARGV[3], ARGV[4]) end
        return 1"#,
    )
});

/// Where it is kept what was last taken away from `name`. A cluster places a
/// key by what is in braces.
fn grave(name: &str) -> String {
    format!("tollgate:gone:{{{name}}}")
}

/// Whether a copy is written as it must be.
pub(super) fn is_copy(version: i64, body: &str) -> bool {
    read(body).is_some_and(|found| found == version)
}

/// The version of a copy, found as the scripts find it.
fn read(body: &str) -> Option<i64> {
    let rest = body.strip_prefix(r#"{"version":"#)?;
    let end = rest.find(|next: char| next != '-' && !next.is_ascii_digit())?;
    let (version, rest) = rest.split_at(end);
    rest.starts_with([',', '}']).then(|| version.parse().ok())?
}

/// The version and the JSON kept under `name`; `None` for nothing, for what is
/// no copy, and for a store that is away.
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
    script.key(name).key(grave(name)).arg(version).arg(body).arg(millis(life));
    let write = |mut connection| async move { script.invoke_async::<()>(&mut connection).await };
    redis.call("cache write", write).await;
}

/// Whether the value was taken away and `message`, if there is one, published.
pub(super) async fn bury(
    redis: &Arc<RedisStore>,
    name: &str,
    version: i64,
    life: Duration,
    message: Option<&str>,
) -> bool {
    let mut script = BURY.prepare_invoke();
    script.key(name).key(grave(name)).arg(version).arg(millis(life)).arg(CHANNEL);
    if let Some(message) = message {
        script.arg(message);
    }
    let write = |mut connection| async move { script.invoke_async::<()>(&mut connection).await };
    redis.call("cache invalidation", write).await.is_some()
}

/// Whether it was sent.
pub(super) async fn publish(redis: &Arc<RedisStore>, message: &str) -> bool {
    let send = |mut connection| async move {
        redis::cmd("PUBLISH").arg(CHANNEL).arg(message).exec_async(&mut connection).await
    };
    redis.call("message", send).await.is_some()
}

fn millis(life: Duration) -> u64 {
    u64::try_from(life.as_millis()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_where_the_scripts_read_it() {
        for (body, version) in [
            (r#"{"version":3,"a":1}"#, Some(3)),
            (r#"{"version":-3,"a":1}"#, Some(-3)),
            (r#"{"version":3}"#, Some(3)),
            (r#"{"version":3.5,"a":1}"#, None),
            (r#"{"version":,"a":1}"#, None),
            (r#"{"version":3"#, None),
            (r#"{"a":1,"version":3}"#, None),
            (r#"{ "version":3}"#, None),
            (r#"3:{"a":1}"#, None),
            ("", None),
        ] {
            assert_eq!(read(body), version, "{body}");
        }
    }
}
