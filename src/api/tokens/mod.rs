//! `/tokens`: access tokens, which are time passes.

mod status;

pub(super) use self::status::router as public;
