//! One integration-test binary: one link step, shared helpers, parallel tests.

mod config;
