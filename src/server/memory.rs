//! Notices that the process is about to have more memory than it may, and says
//! what to leave. Killed for want of memory it would lose everything that is
//! under way; refusing what is new loses nothing.
//!
//! The limit is that of the control group, as a container or a service unit has
//! one, or `SERVER_MAX_MEMORY_BYTES`. Pages of files do not count: the kernel takes
//! them back when it needs them.

mod source;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    time::Duration,
};

use metrics::gauge;
use tokio::{task::spawn_blocking, time::sleep};

use self::source::Source;
use super::observe::Excess;
use crate::{config::MemoryLimit, services::room::Class};

const SAMPLE_EVERY: Duration = Duration::from_millis(100);
/// Of the limit, per cent: from here on proxied requests and chats are refused
/// (as Envoy's overload manager does by default, RELIABILITY G-45).
const SCARCE: u64 = 95;
/// From here on everything but probes is, and new connections end after one answer.
const OUT: u64 = 98;
/// It must be so much less before it is well again, so that it does not alternate.
const RELIEF: u64 = 3;

/// How the process fares, for all workers.
#[derive(Debug, Default)]
pub struct Memory(AtomicU8);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum Level {
    Enough,
    Scarce,
    Out,
}

impl Memory {
    /// Whether there is too little for one more request of this kind.
    pub fn refuses(&self, class: Class) -> Option<Excess> {
        let level = self.0.load(Relaxed);
        let least = match class {
            Class::Probe => return None,
            Class::Proxied | Class::Chat => Level::Scarce,
            // Whoever looks into it or logs in comes before the traffic.
            Class::Ours => Level::Out,
        };
        (level >= least as u8).then_some(Excess::Memory)
    }

    /// Whether a new connection is one too many to be kept.
    pub fn is_out(&self) -> bool {
        self.0.load(Relaxed) >= Level::Out as u8
    }

    /// Looks again and again. Ends at once where nothing limits the process.
    pub async fn watch(self: Arc<Self>, limit: MemoryLimit) {
        let find = move || Source::find(limit);
        let Ok(Some(mut source)) = spawn_blocking(find).await else { return };
        let used = gauge!("tollgate_memory_used_ratio");
        let mut level = Level::Enough;
        loop {
            // The files are the kernel's, yet reading some of them takes a moment.
            let sampling = spawn_blocking(move || (source.sample(), source));
            let Ok((sample, back)) = sampling.await else { return };
            source = back;
            // Nothing is refused for what is not known.
            let mut next = Level::Enough;
            if let Some((bytes, most)) = sample {
                #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
                used.set(bytes as f64 / most.max(1) as f64);
                next = level.after(bytes, most);
                if next != level {
                    tell(next, bytes, most);
                }
            }
            level = next;
            self.0.store(level as u8, Relaxed);
            sleep(SAMPLE_EVERY).await;
        }
    }
}

impl Level {
    fn after(self, bytes: u64, most: u64) -> Self {
        let reaches =
            |percent: u64| u128::from(bytes) * 100 >= u128::from(most) * u128::from(percent);
        let holds =
            |level: Self, from: u64| reaches(if self >= level { from - RELIEF } else { from });
        if holds(Self::Out, OUT) {
            Self::Out
        } else if holds(Self::Scarce, SCARCE) {
            Self::Scarce
        } else {
            Self::Enough
        }
    }
}

fn tell(level: Level, bytes: u64, most: u64) {
    match level {
        Level::Enough => tracing::info!(bytes, most, "there is enough memory again"),
        Level::Scarce => {
            tracing::warn!(bytes, most, "memory is scarce; proxied requests are refused");
        }
        Level::Out => {
            tracing::error!(bytes, most, "memory is nearly used up; all but probes is refused");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_begin_at_their_part_of_the_limit_and_end_a_little_below() {
        let mut level = Level::Enough;
        for (bytes, expected) in [
            (949, Level::Enough),
            (950, Level::Scarce),
            (920, Level::Scarce),
            (979, Level::Scarce),
            (980, Level::Out),
            (950, Level::Out),
            (949, Level::Scarce),
            (919, Level::Enough),
            (5000, Level::Out),
            (0, Level::Enough),
        ] {
            level = level.after(bytes, 1000);
            assert_eq!(level, expected, "{bytes}");
        }
    }

    #[test]
    fn probes_are_answered_for_longest_and_traffic_is_refused_first() {
        let memory = Memory::default();
        for (level, refused) in [
            (Level::Enough, &[][..]),
            (Level::Scarce, &[Class::Proxied, Class::Chat]),
            (Level::Out, &[Class::Proxied, Class::Chat, Class::Ours]),
        ] {
            memory.0.store(level as u8, Relaxed);
            for class in [Class::Proxied, Class::Chat, Class::Ours, Class::Probe] {
                let is = memory.refuses(class).is_some();
                assert_eq!(is, refused.contains(&class), "{level:?} {class:?}");
            }
        }
    }
}
