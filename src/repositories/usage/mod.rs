//! Storage of usage: sums per hour, day and month for reports and billing, and the
//! most recent requests one by one.
//!
//! What is used is added to the hours that tell everything apart, and to nothing
//! else; when an hour is over, [`Usage::roll_up`] makes the rest of it.
//!
//! Nothing here refers to users or keys by foreign key: what was used stays
//! countable after they are gone.

mod cells;
mod journals;
mod latency;
mod prune;
mod read;
mod requests;
mod roll_up;
mod volume;
mod write;

use chrono::{DateTime, Utc};

pub use self::{
    requests::LOGGED_TOGETHER,
    roll_up::{PIECE, RolledUp},
    volume::{Asker, Volume},
};
use super::DbConn;
use crate::domain::{
    id::{ApiKeyId, PassId, UserId},
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
    /// The first hour, inclusive; counted from its beginning.
    pub from: DateTime<Utc>,
    /// The end, exclusive; an hour that it lies in is counted whole.
    pub to: DateTime<Utc>,
}

/// Whose usage a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageOf<'a> {
    User(UserId),
    Key(ApiKeyId),
    Pass(PassId),
    Upstream(&'a str),
    /// A user's at one upstream.
    UserAt(UserId, &'a str),
}

/// What sums are split by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageGroup {
    Key,
    User,
    Pass,
    Upstream,
    Route,
    Status,
}

/// The share of a bucket of time that a row is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupValue {
    /// `None`: without a key.
    Key(Option<ApiKeyId>),
    /// `None`: without an account.
    User(Option<UserId>),
    /// `None`: without a pass.
    Pass(Option<PassId>),
    Upstream(String),
    /// Of an upstream; the pattern.
    Route(String, String),
    /// 2 for 200..=299 and so on.
    Status(i16),
}

/// The sums of one bucket of time, or of one group within it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRow {
    pub start: DateTime<Utc>,
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
