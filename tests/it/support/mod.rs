//! The test harness.

pub mod app;
pub mod client;
pub mod database;
pub mod postgres;
pub mod raw;
pub mod recorder;
pub mod redis;

use chrono::{DateTime, Utc};

pub use self::{
    app::{Options, PASSWORD, TestApp},
    client::{Answer, Client},
    database::TestDatabase,
};

/// 2026-01-01T00:00:00Z, the instant every test starts at.
pub fn epoch() -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_225_600, 0).unwrap()
}
