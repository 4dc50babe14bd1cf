//! Storage of usage: sums per hour for reports and billing, and the most recent
//! requests one by one.
//!
//! Nothing here refers to users or keys by foreign key: what was used stays
//! countable after they are gone.

mod journals;
mod prune;
mod read;
mod requests;
mod write;

use chrono::{DateTime, Utc};

use super::DbConn;
use crate::domain::{
    id::{ApiKeyId, UserId},
    usage::Totals,
};

pub struct Usage<'c> {
    conn: DbConn<'c>,
}

/// Which usage is summed up.
#[derive(Clone, Debug)]
pub struct UsageFilter {
    pub user_id: Option<UserId>,
    pub key_id: Option<ApiKeyId>,
    pub upstream: Option<String>,
    /// The first hour, inclusive.
    pub from: DateTime<Utc>,
    /// The end, exclusive.
    pub to: DateTime<Utc>,
}

/// What the sums of an hour are split by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageGroup {
    Key,
    User,
    Upstream,
    Status,
}

/// The share of an hour that a row is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupValue {
    /// `None`: without a key.
    Key(Option<ApiKeyId>),
    /// `None`: without an account.
    User(Option<UserId>),
    Upstream(String),
    /// 2 for 200..=299 and so on.
    Status(i16),
}

/// The sums of one hour, or of one group within it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRow {
    pub hour: DateTime<Utc>,
    /// `None` when nothing was asked to be told apart.
    pub group: Option<GroupValue>,
    pub totals: Totals,
}

/// Which recent requests a list shows; all by default.
#[derive(Clone, Debug, Default)]
pub struct RequestFilter {
    pub user_id: Option<UserId>,
    pub key_id: Option<ApiKeyId>,
}

impl<'c> Usage<'c> {
    pub(super) fn new(conn: DbConn<'c>) -> Self {
        Self { conn }
    }
}
