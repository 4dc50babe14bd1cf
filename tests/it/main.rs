//! One integration-test binary: one link step, shared helpers, parallel tests.
#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod architecture;
mod cache;
mod config;
mod flush;
mod gateway;
mod hot_path;
mod instances;
mod key_rules;
mod keys;
mod limiter;
mod limits;
mod openapi;
mod process;
mod storage;
mod support;
mod tour;
mod usage;
mod usage_kept;
mod verify;
