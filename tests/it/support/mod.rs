//! The test harness.

pub mod app;
pub mod books;
pub mod client;
pub mod database;
pub mod fault;
pub mod http2;
pub mod postgres;
pub mod raw;
pub mod recorder;
pub mod redis;
pub mod websocket;

use chrono::{DateTime, Utc};

pub use self::{
    app::{Options, PASSWORD, TestApp, UNLIMITED},
    client::{Answer, Client},
    database::TestDatabase,
};

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
