//! What every instance hears of the credentials that change.

use super::{
    id::{SessionId, UserId},
    token::TokenHash,
};

/// Whose copies are too old.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// An API key, by the digest of one of its texts.
    Key(TokenHash),
    Pass(TokenHash),
    Account(UserId),
    Session(SessionId),
    /// A chat session, by the digest of what one of its cookies holds.
    Chat(TokenHash),
    /// Nothing changed: somebody measures how long it takes to hear of it.
    Probe,
    /// What only a newer version of the program knows; it may be anything.
    Unknown,
}

/// One committed change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialChange {
    pub id: i64,
    pub subject: Subject,
    /// What the row has now; for one that is gone, more than it ever had.
    pub version: i64,
    /// Microseconds since 1970, by the database's clock.
    pub changed_us: i64,
}

/// What changed since somebody asked last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangesSince {
    /// From where to ask the next time.
    pub position: i64,
    /// The database's clock, microseconds since 1970.
    pub now_us: i64,
    /// In no order that matters; some may have been told before. `None`: too many
    /// to tell.
    pub changes: Option<Vec<CredentialChange>>,
}
