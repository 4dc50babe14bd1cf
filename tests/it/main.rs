//! One integration-test binary: one link step, shared helpers, parallel tests.

mod cache;
mod limiter;
mod support;
