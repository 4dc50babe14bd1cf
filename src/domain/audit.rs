//! The audit log: who did what, and the chain that shows that it was not
//! changed afterwards.
//!
//! A row's hash covers the row and the hash of the row before it, so that none
//! can be changed, removed, swapped or put in between without all that follow
//! being made again. What keeps somebody from doing just that is a seal with a
//! key outside the database, which is not made here.

use std::{borrow::Cow, net::IpAddr};

use chrono::{DateTime, Utc};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{
    id::UserId,
    principal::Principal,
    text::clean,
    user::{Roles, User},
};

/// Most characters of a user agent.
const MAX_AGENT: usize = 256;
/// Most characters of any other text from outside.
const MAX_TEXT: usize = 128;
/// Longest JSON of a state; of a longer one only its length is kept.
const MAX_STATE: usize = 16 * 1024;
/// Begins what is hashed: another layout gets another one.
const LAYOUT: &[u8] = b"tollgate audit row 1\n";

/// SHA-256.
pub type Hash = [u8; 32];

/// What the first row follows.
pub const GENESIS: Hash = [0; 32];

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
    ConnectionCut = "connection.cut",
    SettingsReloaded = "settings.reloaded",
    SecretsRotated = "secrets.rotated",
    /// Rows past their retention were dropped.
    AuditPruned = "audit.pruned",
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
    pub fn new(action: Action, kind: &'static str, id: impl ToString) -> Self {
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

/// A row as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// From 1, without gaps.
    pub seq: i64,
    pub at: DateTime<Utc>,
    pub actor_kind: String,
    pub actor_id: Option<Uuid>,
    pub actor_name: String,
    pub address: Option<String>,
    pub user_agent: Option<String>,
    pub request_id: Option<String>,
    pub action: String,
    pub target_kind: String,
    pub target_id: Option<String>,
    /// JSON, byte for byte as it was hashed.
    pub before: Option<String>,
    pub after: Option<String>,
    /// The hash of the row before it.
    pub previous: Hash,
    pub hash: Hash,
    /// The key that made `seal`; not a secret.
    pub key: String,
    pub seal: Hash,
}

/// A row without its place in the chain: that is known only once no other can
/// come before it.
#[derive(Clone, Debug)]
pub struct Unplaced(AuditRow);

impl Unplaced {
    pub fn new(by: &Actor, event: Event, at: DateTime<Utc>) -> Self {
        let Actor { kind, id, name, origin } = by;
        let Event { action, target, before, after } = event;
        let short = |text: &String| clean(text, MAX_TEXT);
        Self(AuditRow {
            seq: 0,
            at,
            actor_kind: kind.as_str().to_owned(),
            actor_id: id.map(UserId::as_uuid),
            actor_name: clean(name, MAX_TEXT),
            address: origin.address.map(|address| address.to_string()),
            user_agent: origin.user_agent.as_ref().map(|text| clean(text, MAX_AGENT)),
            request_id: origin.request_id.as_ref().map(short),
            action: action.as_str().to_owned(),
            target_kind: target.kind.to_owned(),
            target_id: target.id.as_ref().map(short),
            before: before.as_ref().map(state),
            after: after.as_ref().map(state),
            previous: GENESIS,
            hash: GENESIS,
            key: String::new(),
            seal: GENESIS,
        })
    }

    /// Behind the row that is the last one now; without a seal.
    pub fn placed(self, last: i64, previous: Hash) -> AuditRow {
        let mut row = AuditRow { seq: last + 1, previous, ..self.0 };
        row.hash = row.own_hash();
        row
    }
}

impl AuditRow {
    /// What its hash must be: SHA-256 of the layout's name, the previous hash
    /// and every field in the order of this struct. A field is its length in
    /// four bytes, the highest first, and its bytes; numbers are eight bytes
    /// long, times are microseconds since 1970, and a field that is missing has
    /// the length 2^32 - 1. No two rows are written alike.
    pub fn own_hash(&self) -> Hash {
        let mut hasher = Sha256::new();
        hasher.update(LAYOUT);
        hasher.update(self.previous);
        let mut field = |bytes: Option<&[u8]>| {
            let length = bytes.map_or(u32::MAX, |bytes| {
                u32::try_from(bytes.len()).expect("no field is that long")
            });
            hasher.update(length.to_be_bytes());
            hasher.update(bytes.unwrap_or_default());
        };
        let text = |text: &'_ Option<String>| text.as_ref().map(|text| text.clone().into_bytes());
        field(Some(&self.seq.to_be_bytes()));
        field(Some(&self.at.timestamp_micros().to_be_bytes()));
        field(Some(self.actor_kind.as_bytes()));
        field(self.actor_id.as_ref().map(|id| id.as_bytes().as_slice()));
        field(Some(self.actor_name.as_bytes()));
        field(text(&self.address).as_deref());
        field(text(&self.user_agent).as_deref());
        field(text(&self.request_id).as_deref());
        field(Some(self.action.as_bytes()));
        field(Some(self.target_kind.as_bytes()));
        field(text(&self.target_id).as_deref());
        field(text(&self.before).as_deref());
        field(text(&self.after).as_deref());
        hasher.finalize().into()
    }
}

fn state(value: &serde_json::Value) -> String {
    let text = value.to_string();
    if text.len() <= MAX_STATE {
        return text;
    }
    serde_json::json!({ "left_out_bytes": text.len() }).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row() -> AuditRow {
        let origin = Origin {
            address: Some([192, 0, 2, 7].into()),
            user_agent: Some("curl".to_owned()),
            request_id: Some("r".to_owned()),
        };
        let actor = Actor::user(Uuid::nil().into(), "ada", origin);
        let event = Event::new(Action::KeyCreated, "key", 7).after(json!({ "name": "k" }));
        let at = DateTime::from_timestamp(1_767_225_600, 0).unwrap();
        Unplaced::new(&actor, event, at).placed(0, GENESIS)
    }

    /// The layout is for ever: rows that are stored must stay good.
    #[test]
    fn the_hash_of_a_row_is_fixed() {
        assert_eq!(
            hex::encode(row().hash),
            "fb52ef4a5d482538e95384ee519ebeb73992eca998594d002e889f29307433a9"
        );
    }

    #[test]
    fn every_field_counts_and_a_missing_one_is_not_an_empty_one() {
        type Change = fn(&mut AuditRow);
        let changes: [Change; 17] = [
            |row| row.seq += 1,
            |row| row.at += chrono::TimeDelta::microseconds(1),
            |row| row.actor_kind = "system".into(),
            |row| row.actor_id = None,
            |row| row.actor_name = "adA".into(),
            |row| row.address = None,
            |row| row.user_agent = Some(String::new()),
            |row| row.user_agent = None,
            |row| row.request_id = None,
            |row| row.action = "key.deleted".into(),
            |row| row.target_kind = "kez".into(),
            |row| row.target_id = None,
            |row| row.before = Some(String::new()),
            |row| row.after = None,
            |row| row.previous[31] ^= 1,
            // Moved from one field to the next.
            |row| (row.action, row.target_kind) = ("key.create".into(), "dkey".into()),
            |row| (row.before, row.after) = (row.after.take(), None),
        ];
        let mut seen = vec![row().hash];
        for (at, change) in changes.into_iter().enumerate() {
            let mut changed = row();
            change(&mut changed);
            let hash = changed.own_hash();
            assert!(!seen.contains(&hash), "change {at}");
            seen.push(hash);
        }
    }

    #[test]
    fn texts_from_outside_are_short_and_on_one_line() {
        let origin = Origin {
            user_agent: Some(format!("a\r\n\x1b[2J{}", "x".repeat(1 << 20))),
            request_id: Some("i".repeat(1000)),
            ..Origin::default()
        };
        let actor = Actor::user(Uuid::nil().into(), "ada", origin);
        let event = Event::new(Action::KeyCreated, "key", "k\n".repeat(1000))
            .after(json!({ "text": "y".repeat(1 << 20) }));
        let row = Unplaced::new(&actor, event, DateTime::UNIX_EPOCH).placed(0, GENESIS);
        let agent = row.user_agent.unwrap();
        assert!(agent.starts_with("a[2Jx") && agent.len() == MAX_AGENT, "{agent}");
        assert_eq!(row.request_id.unwrap().len(), MAX_TEXT);
        assert_eq!(row.target_id.unwrap().len(), MAX_TEXT);
        assert_eq!(row.after.unwrap(), r#"{"left_out_bytes":1048587}"#);
    }

    #[test]
    fn only_what_differs_is_told_of_a_change() {
        let event = Event::new(Action::KeyUpdated, "key", 1)
            .changed(json!({ "a": 1, "b": 2, "c": 3 }), json!({ "a": 1, "b": 3, "d": 4 }));
        assert_eq!(event.before, Some(json!({ "b": 2, "c": 3 })));
        assert_eq!(event.after, Some(json!({ "b": 3, "d": 4 })));
    }

    #[test]
    fn actions_have_names_of_their_own() {
        let mut names: Vec<_> = Action::ALL.iter().map(|action| action.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Action::ALL.len());
    }
}
