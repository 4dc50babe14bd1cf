//! SQL and nothing else. Every query is written once and runs on both engines.
//!
//! A repository borrows a [`DbConn`], so the caller decides whether calls share
//! a transaction. Repositories never open, commit or roll back anything, never
//! read a clock and never check permissions. What is not found is `Ok(None)`;
//! a conditional change that did not apply is `Ok(false)` or `Ok(None)`.
//!
//! Reads go through [`Database::session`], or [`Database::snapshot`] where several
//! must agree, changes through [`Database::begin`]: on SQLite only that can write. After an error a transaction is only good
//! for being dropped, since Postgres refuses every further statement in it.
//!
//! To add a repository: a file here with a struct that holds a `DbConn`, one
//! method in [`Repositories`], its tables in both migration sets with the same
//! constraint names, and a test of each method in `tests/it/storage`, which
//! runs on both engines.

mod api_keys;
mod audit;
mod chat;
mod connecting;
mod connection;
mod counts;
mod credential_changes;
mod database;
mod error;
mod idempotency;
mod ledger;
mod lock;
mod login_sessions;
mod migrations;
mod passes;
mod refresh_tokens;
mod row;
mod settings;
mod stream_tickets;
mod transaction;
mod usage;
mod users;
mod vouchers;

pub use self::{
    api_keys::{ApiKeys, KeyFilter},
    audit::{Audit, AuditFilter, End, Ends},
    chat::{Chat, ChatFilter, Opened},
    connection::{DbConn, Repositories, Session, Tx},
    counts::{Counts, PassCounts, Sales, UserCounts},
    credential_changes::CredentialChanges,
    database::{ChangeListener, Database, PoolStatus},
    error::{StoreError, StoreResult},
    idempotency::{ClaimOutcome, Idempotency},
    ledger::{Balance, EntrySum, Ledger, LedgerEntry, PassAccount, Reference, WalletRow},
    lock::{InstanceLock, LockError},
    login_sessions::LoginSessions,
    migrations::{MigrateError, MigrationStatus},
    passes::{PassFilter, Passes},
    refresh_tokens::RefreshTokens,
    settings::{Settings, Turn},
    stream_tickets::StreamTickets,
    usage::{
        Asker, GroupValue, LOGGED_TOGETHER, PIECE, RequestFilter, RolledUp, Usage, UsageFilter,
        UsageGroup, UsageOf, UsageRow, Volume,
    },
    users::{UserFilter, Users},
    vouchers::{Redemption, VoucherFilter, Vouchers},
};
