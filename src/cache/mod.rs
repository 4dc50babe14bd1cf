//! Disposable copies and counters, in memory and in Redis.
//!
//! | part | promise |
//! |---|---|
//! | [`Cache`] | what is true is in the database; a copy is never older than its lifetime, and a change evicts it everywhere |
//! | [`CacheHub`] | carries changes between instances; a lost message costs freshness within the lifetime, never longer |
//! | [`Limiter`] | no window ever admits more than its limit; what holds without Redis is configured |
//! | [`Slots`] | never more requests at once than a limit says, over all instances |
//! | [`RedisStore`] | no call waits longer than its deadline, and none waits on a server known to be away |
//!
//! Nothing here may be the only place where something true is kept: every entry
//! expires, and losing Redis costs time or precision within a stated bound.

mod breaker;
mod flight;
mod held;
mod hub;
mod limiter;
mod loans;
mod redis;
mod roster;
mod shared;
mod slots;
mod truth;
mod typed;

pub use self::{
    flight::LoadFailed,
    hub::CacheHub,
    limiter::{Limiter, LimiterStats},
    loans::Asked,
    redis::{Deadlines as RedisDeadlines, InvalidRedisUrl, RedisStats, RedisStore},
    slots::{Cap, Permit, Refused, Slots},
    typed::{Cache, Cached, Peek},
};
