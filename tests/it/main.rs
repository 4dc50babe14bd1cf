//! One integration-test binary: one link step, shared helpers, parallel tests.
#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod accounts;
mod admin;
mod architecture;
mod authorisation;
mod bootstrap;
mod cache;
mod config;
mod cors;
mod flush;
mod gateway;
mod hot_path;
mod instances;
mod jwt;
mod key_rules;
mod keys;
mod limiter;
mod limits;
mod logins;
mod money_faults;
mod money_model;
mod money_races;
mod openapi;
mod panics;
mod problems;
mod process;
mod redis_faults;
mod refresh;
mod storage;
mod support;
mod throttle;
mod tokens;
mod tour;
mod usage;
mod usage_kept;
mod verify;
