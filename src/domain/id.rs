//! Typed identifiers: a plain UUIDv7 on the wire and in the database.
//!
//! One type per resource, so that a [`UserId`] where an [`ApiKeyId`] is due
//! does not compile.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};
use uuid::{NoContext, Timestamp, Uuid};

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, sqlx::Type,
            serde::Serialize, serde::Deserialize,
        )]
        #[sqlx(transparent)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Stands for "none" where a column is part of a primary key and
            /// therefore cannot be null. Never a real id: those are version 7.
            pub const NIL: Self = Self(Uuid::nil());

            /// Makes an id that sorts by `at`, the caller's clock.
            pub fn new(at: DateTime<Utc>) -> Self {
                let seconds = u64::try_from(at.timestamp()).expect("clock is past 1970");
                let stamp = Timestamp::from_unix(NoContext, seconds, at.timestamp_subsec_nanos());
                Self(Uuid::new_v7(stamp))
            }

            /// Before all ids that were made at `at` or later, and behind those of
            /// the milliseconds before.
            pub fn least_of(at: DateTime<Utc>) -> Self {
                let ms = u64::try_from(at.timestamp_millis()).unwrap_or(0).min((1 << 48) - 1);
                Self(Uuid::from_u64_pair(ms << 16, 0))
            }

            /// `None` for [`Self::NIL`].
            pub fn non_nil(self) -> Option<Self> {
                (!self.0.is_nil()).then_some(self)
            }

            pub fn as_uuid(self) -> Uuid {
                self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::try_parse(text).map(Self)
            }
        }
    };
}

id_type!(
    /// A person who can sign in.
    UserId
);
id_type!(
    /// A long-lived credential owned by a user.
    ApiKeyId
);
id_type!(
    /// One login of a user; the `sid` of its JWTs.
    SessionId
);
id_type!(
    /// One refresh token of a login session.
    RefreshTokenId
);
id_type!(
    /// One JWT; its `jti`.
    JwtId
);
id_type!(
    /// One recorded request.
    RecordId
);
id_type!(
    /// Where a recorded request stands in the log: in the order of completion,
    /// strictly so within one instance.
    LogPlace
);
id_type!(
    /// One open stream: the id that its request will be recorded with.
    StreamId
);
id_type!(
    /// A time pass.
    PassId
);
id_type!(
    /// One movement of money, as its wallet sees it.
    TransactionId
);
id_type!(
    /// A code that grants something.
    VoucherId
);
id_type!(
    /// Vouchers that were made together.
    BatchId
);
id_type!(
    /// One use of a voucher.
    RedemptionId
);
id_type!(
    /// A conversation of a visitor.
    ChatSessionId
);
id_type!(
    /// One side's turn in a conversation.
    ChatMessageId
);
id_type!(
    /// A process that writes answers of conversations down.
    ChatWriterId
);
