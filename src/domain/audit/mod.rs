//! The audit log: who did what, and the chain that shows that it was not
//! changed afterwards.
//!
//! A row's hash covers the row and the hash of the row before it, so that none
//! can be changed, removed, swapped or put in between without all that follow
//! being made again. What keeps somebody from doing just that is a seal with a
//! key outside the database, which is not made here.

mod row;

use std::{borrow::Cow, fmt, net::IpAddr};

pub use self::row::{AuditRow, GENESIS, Hash, Unplaced};
use super::{
    id::UserId,
    principal::Principal,
    text::clean,
    user::{Roles, User},
};

/// Most characters of a text from outside.
const MAX_TEXT: usize = 128;

/// Who acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActorKind {
    /// Somebody with an account.
    User,
    /// Whoever ran a command; the name is the operating system's.
    Command,
    /// The program by itself.
    System,
}

impl ActorKind {
    pub const ALL: [Self; 3] = [Self::User, Self::Command, Self::System];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Command => "command",
            Self::System => "system",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// From where a request came, and which.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    pub address: Option<IpAddr>,
    pub user_agent: Option<String>,
    pub request_id: Option<String>,
}

/// Who does something, and from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    pub kind: ActorKind,
    pub id: Option<UserId>,
    /// As it was then.
    pub name: Cow<'static, str>,
    pub origin: Origin,
}

/// The program by itself.
pub static SYSTEM: Actor = Actor {
    kind: ActorKind::System,
    id: None,
    name: Cow::Borrowed("tollgate"),
    origin: Origin { address: None, user_agent: None, request_id: None },
};

impl Actor {
    pub fn user(id: UserId, name: &str, origin: Origin) -> Self {
        Self { kind: ActorKind::User, id: Some(id), name: name.to_owned().into(), origin }
    }

    pub fn of(principal: &Principal, origin: Origin) -> Self {
        Self::user(principal.user_id(), &principal.account.username, origin)
    }

    /// Whoever ran a command.
    pub fn command(name: &str) -> Self {
        let name = clean(name, MAX_TEXT).into();
        Self { kind: ActorKind::Command, id: None, name, origin: Origin::default() }
    }
}

macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident = $text:literal),+ $(,)?) => {
        /// What was done.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Action {
            $($(#[$doc])* $name,)+
        }

        impl Action {
            pub const ALL: &[Self] = &[$(Self::$name),+];

            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

actions! {
    AccountRegistered = "account.registered",
    /// On an operator's word.
    AccountCreated = "account.created",
    AccountUpdated = "account.updated",
    /// Roles, or whether it is active.
    AccountAccessChanged = "account.access_changed",
    AccountExported = "account.exported",
    AccountDeleted = "account.deleted",
    /// By its owner.
    PasswordChanged = "password.changed",
    /// By an operator.
    PasswordSet = "password.set",
    LoginSucceeded = "login.succeeded",
    /// Those of a minute, counted.
    LoginsRefused = "login.refused",
    SessionEnded = "session.ended",
    SessionsEnded = "session.all_ended",
    /// A spent refresh token was presented again.
    SessionStolen = "session.reuse_detected",
    KeyCreated = "key.created",
    KeyUpdated = "key.updated",
    KeyRotated = "key.rotated",
    KeyDeleted = "key.deleted",
    TokenPurchased = "token.purchased",
    TokenGranted = "token.granted",
    TokenRevoked = "token.revoked",
    TokenRefunded = "token.refunded",
    WalletCredited = "wallet.credited",
    VouchersCreated = "voucher.created",
    VoucherRevoked = "voucher.revoked",
    VoucherRedeemed = "voucher.redeemed",
    /// By an operator; what a visitor does with a conversation is not on record.
    ChatSessionEnded = "chat_session.ended",
    ChatDeleted = "chat.deleted",
    ChatExported = "chat.exported",
    ConnectionCut = "connection.cut",
    SettingsReloaded = "settings.reloaded",
    /// On one instance, for a while.
    LogLevelChanged = "log_level.changed",
    SecretsRotated = "secrets.rotated",
    /// Rows past their retention were dropped.
    AuditPruned = "audit.pruned",
    /// The first row of a log of a system that was there before it.
    AuditBegun = "audit.begun",
    /// The key of the seals was lost, or an older state was put back, on purpose.
    AuditReAnchored = "audit.re_anchored",
}

/// What something was done to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub kind: &'static str,
    pub id: Option<String>,
}

/// One change, for the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub action: Action,
    pub target: Target,
    pub before: Option<serde_json::Value>,
    pub after: Option<serde_json::Value>,
}

impl Event {
    pub fn new(action: Action, kind: &'static str, id: impl fmt::Display + Copy) -> Self {
        let target = Target { kind, id: Some(id.to_string()) };
        Self { action, target, before: None, after: None }
    }

    /// Of something that there is one of.
    pub fn of_all(action: Action, kind: &'static str) -> Self {
        Self { action, target: Target { kind, id: None }, before: None, after: None }
    }

    #[must_use]
    pub fn before(mut self, state: serde_json::Value) -> Self {
        self.before = Some(state);
        self
    }

    #[must_use]
    pub fn after(mut self, state: serde_json::Value) -> Self {
        self.after = Some(state);
        self
    }

    /// Of two states only what is not the same in both.
    #[must_use]
    pub fn changed(self, mut before: serde_json::Value, mut after: serde_json::Value) -> Self {
        if let (Some(old), Some(new)) = (before.as_object_mut(), after.as_object_mut()) {
            let same: Vec<String> =
                old.keys().filter(|&name| new.get(name) == old.get(name)).cloned().collect();
            for name in &same {
                old.remove(name);
                new.remove(name);
            }
        }
        self.before(before).after(after)
    }

    /// Whether it is of two states that are the same.
    pub fn changes_nothing(&self) -> bool {
        let is_empty = |state: &Option<serde_json::Value>| {
            state
                .as_ref()
                .and_then(|state| state.as_object())
                .is_some_and(serde_json::Map::is_empty)
        };
        is_empty(&self.before) && is_empty(&self.after)
    }
}

/// What may be told of an account.
pub fn account_state(user: &User) -> serde_json::Value {
    serde_json::json!({
        "username": user.username,
        "email": user.email,
        "full_name": user.full_name,
        "roles": user.roles,
        "is_active": user.is_active,
    })
}

/// The same of what it may do.
pub fn access_state(roles: Roles, is_active: bool) -> serde_json::Value {
    serde_json::json!({ "roles": roles, "is_active": is_active })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_differs_is_told_of_a_change() {
        let event = Event::new(Action::KeyUpdated, "key", 1)
            .changed(json!({ "a": 1, "b": 2, "c": 3 }), json!({ "a": 1, "b": 3, "d": 4 }));
        assert_eq!(event.before, Some(json!({ "b": 2, "c": 3 })));
        assert_eq!(event.after, Some(json!({ "b": 3, "d": 4 })));
        assert!(!event.changes_nothing());
        let event = Event::new(Action::KeyUpdated, "key", 1);
        assert!(!event.changes_nothing(), "it is no change of a state");
        assert!(event.changed(json!({ "a": 1 }), json!({ "a": 1 })).changes_nothing());
    }

    #[test]
    fn actions_have_names_of_their_own() {
        let mut names: Vec<_> = Action::ALL.iter().map(|action| action.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Action::ALL.len());
    }
}
