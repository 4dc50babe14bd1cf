//! Types and rules with no I/O. Depends on nothing else in the crate.
//!
//! What is decided here is decided from values alone: a rule that needs the
//! time takes it as a parameter, a rule that needs a row is a service's.

pub mod address;
pub mod answer;
pub mod api_key;
pub mod audit;
pub mod change;
pub mod chat;
pub mod clock;
pub mod destination;
pub mod id;
pub mod idempotency;
pub mod kill;
pub mod ledger;
pub mod limit;
pub mod login;
pub mod money;
pub mod origin;
pub mod page;
pub mod pass;
pub mod password;
pub mod policy;
pub mod principal;
pub mod rates;
pub mod route;
pub mod span;
pub mod stream;
pub mod text;
pub mod ticket;
pub mod token;
pub mod usage;
pub mod user;
pub mod voucher;
pub mod window;
