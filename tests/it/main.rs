//! One integration-test binary: one link step, shared helpers, parallel tests.
#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod accounts;
mod admin;
mod architecture;
mod authorisation;
mod bootstrap;
mod cache;
mod config;
mod flush;
mod gateway;
mod jwt;
mod limiter;
mod logins;
mod openapi;
mod panics;
mod problems;
mod refresh;
mod storage;
mod support;
mod throttle;
mod tour;
