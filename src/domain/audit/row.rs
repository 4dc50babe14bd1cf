//! A row, and what its hash is made of.

use chrono::{DateTime, Utc};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{Actor, Event, MAX_TEXT};
use crate::domain::{id::UserId, text::clean};

/// Most characters of a user agent.
const MAX_AGENT: usize = 256;
/// Longest JSON of a state; of a longer one only its length is kept.
const MAX_STATE: usize = 16 * 1024;
/// Begins what is hashed: another layout gets another one.
const LAYOUT: &[u8] = b"tollgate audit row 1\n";

/// SHA-256.
pub type Hash = [u8; 32];

/// What the first row follows.
pub const GENESIS: Hash = [0; 32];

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

    use super::{
        super::{Action, Origin},
        *,
    };

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
            let mut other = row();
            change(&mut other);
            let hash = other.own_hash();
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
        let event = Event::new(Action::KeyCreated, "key", &*"k\n".repeat(1000))
            .after(json!({ "text": "y".repeat(1 << 20) }));
        let row = Unplaced::new(&actor, event, DateTime::UNIX_EPOCH).placed(0, GENESIS);
        let agent = row.user_agent.unwrap();
        assert!(agent.starts_with("a[2Jx") && agent.len() == MAX_AGENT, "{agent}");
        assert_eq!(row.request_id.unwrap().len(), MAX_TEXT);
        assert_eq!(row.target_id.unwrap().len(), MAX_TEXT);
        assert_eq!(row.after.unwrap(), r#"{"left_out_bytes":1048587}"#);
    }
}
