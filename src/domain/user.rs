//! People who can sign in, and what they may do.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::id::UserId;

/// An account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub id: UserId,
    /// As the user wrote it; unique without regard to case.
    pub username: String,
    /// As the user wrote it; unique without regard to case.
    pub email: String,
    pub full_name: Option<String>,
    pub roles: Roles,
    /// A disabled account keeps its data; none of its credentials work.
    pub is_active: bool,
    /// Grows with every change that a cached copy must not miss.
    pub version: i64,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// One thing that an account may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    User,
    /// Reads what admins read, changes nothing.
    Moderator,
    Admin,
}

impl Role {
    pub const ALL: [Self; 3] = [Self::User, Self::Moderator, Self::Admin];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Moderator => "moderator",
            Self::Admin => "admin",
        }
    }

    const fn bit(self) -> i64 {
        match self {
            Self::User => 1,
            Self::Moderator => 2,
            Self::Admin => 4,
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("expected one of user, moderator, admin")]
pub struct UnknownRole;

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or(UnknownRole)
    }
}

/// A set of roles; a bit mask in the database, a list of names elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, sqlx::Type)]
#[sqlx(transparent)]
pub struct Roles(i64);

impl Roles {
    /// What a registered account begins with.
    pub const USER: Self = Self(Role::User.bit());

    #[must_use]
    pub fn with(self, role: Role) -> Self {
        Self(self.0 | role.bit())
    }

    #[must_use]
    pub fn without(self, role: Role) -> Self {
        Self(self.0 & !role.bit())
    }

    pub fn has(self, role: Role) -> bool {
        self.0 & role.bit() != 0
    }

    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL.into_iter().filter(move |role| self.has(*role))
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        roles.into_iter().fold(Self(0), Self::with)
    }
}

/// Comma-separated, for the `X-Roles` field.
impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, role) in self.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            f.write_str(role.as_str())?;
        }
        Ok(())
    }
}

impl Serialize for Roles {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Roles {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::<Role>::deserialize(deserializer).map(|roles| roles.into_iter().collect())
    }
}

/// Fewest and most characters of a username.
pub const USERNAME_CHARS: std::ops::RangeInclusive<usize> = 3..=64;

/// Whether the text can be a username: letters, digits, `.`, `_`, `-` of
/// ASCII. Without `@`, so that a login name is a username or an e-mail address
/// but never both; ASCII, so that it travels in a header field as it is.
pub fn is_username(text: &str) -> bool {
    USERNAME_CHARS.contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// A user together with what only the owner and an export may see.
#[derive(Clone, Debug)]
pub struct NewUser {
    pub username: String,
    pub email: String,
    pub full_name: Option<String>,
    pub roles: Roles,
    /// A disabled account is made for later.
    pub is_active: bool,
}
