//! Tollgate: a self-hosted access gateway.
//!
//! Accounts, API keys, limits and metering in front of any HTTP backend.
//! Dependencies point one way:
//!
//! ```text
//! main -> cli -> app -> { server, api, gateway, jobs } -> services -> { repositories, cache } -> domain
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`domain`] | types and rules, no I/O |
//! | [`repositories`] | SQL, once for both engines |
//! | [`journal`] | usage on disk until the database has it |
//! | [`cache`] | disposable copies and counters, in memory and in Redis |
//! | [`services`] | what the product does: accounts, logins, keys, limits, usage |
//! | [`api`] | our own HTTP routes and their OpenAPI document |
//! | [`gateway`] | the proxied request |
//! | [`server`] | sockets, and which of the two a request goes to |
//! | [`jobs`] | background work |
//! | [`config`] | settings, checked before anything starts |
//! | [`failpoint`] | where tests stop the process |
//! | [`app`] | wires all of it together |

pub mod api;
pub mod app;
pub mod cache;
pub mod cli;
pub mod config;
pub mod domain;
pub mod failpoint;
pub mod gateway;
pub mod jobs;
pub mod journal;
pub mod repositories;
pub mod server;
pub mod services;
pub mod shutdown;
pub mod telemetry;
