//! The test harness.

pub mod app;
pub mod books;
pub mod client;
pub mod database;
pub mod fault;
pub mod http2;
pub mod journal;
pub mod otlp;
pub mod postgres;
pub mod raw;
pub mod recorder;
pub mod redis;
pub mod websocket;

use std::{io::Write as _, process::Command, time::Duration};

use chrono::{DateTime, Utc};

pub use self::{
    app::{Options, PASSWORD, TestApp, UNLIMITED},
    client::{Answer, Client},
    database::TestDatabase,
};

/// How late a busy machine may be with what is promised within a second or a
/// few. Whatever the promise is kept by, without it nothing would come for
/// longer than this: copies live for five seconds, connections for a minute.
pub const LATE: Duration = Duration::from_millis(2500);

/// What happened several times was in time: most of it within its limit, and
/// all of it but for what a busy machine adds.
#[track_caller]
pub fn assert_in_time(limit: Duration, taken: &[Duration], what: &str) {
    let mut sorted = taken.to_vec();
    sorted.sort_unstable();
    let (median, worst) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() - 1]);
    assert!(median <= limit && worst <= limit + LATE, "{what}: {taken:?}");
}

/// 2026-01-01T00:00:00Z, the instant every test starts at.
pub fn epoch() -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_225_600, 0).unwrap()
}

/// A name that no other test uses: limits on logins are counted by name, and
/// tests may share a Redis.
pub fn unique(stem: &str) -> String {
    format!("{stem}{:08x}", rand::random::<u32>())
}

/// An address that no other test uses.
pub fn some_address() -> String {
    std::net::Ipv4Addr::from_bits(0x0b00_0000 | rand::random::<u32>() >> 8).to_string()
}

/// Prometheus' own checker; `None` where it is not installed, which is said where
/// nobody overlooks it. `make test` installs it and names it.
pub fn promtool() -> Option<Command> {
    if let Some(program) = std::env::var_os("TEST_PROMTOOL") {
        return Some(Command::new(program));
    }
    let is_there = Command::new("promtool").arg("--version").output().is_ok();
    if !is_there {
        // Past the capture of what tests print.
        let note = "SKIPPED: no promtool (package prometheus), so nothing holds this against it\n";
        _ = std::io::stderr().write_all(note.as_bytes());
    }
    is_there.then(|| Command::new("promtool"))
}
