//! Limits by subject, window and name, quotas of passes, and requests at once,
//! as their callers meet them.

mod concurrent;
mod instances;
mod named;
mod passes;
mod places;
mod subjects;

const HELLO: &str = "/api/v1/proxy/hello";
