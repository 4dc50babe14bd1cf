//! Conversations of visitors: sessions, messages, and what may be said.

use chrono::{DateTime, TimeDelta, Utc};
use unicode_normalization::UnicodeNormalization as _;

use super::{
    id::{ChatMessageId, ChatSessionId, ChatWriterId, UserId},
    token::TokenHash,
};

/// How long the cookie of before is good after a renewal: for what a browser
/// sent meanwhile, and for an answer that got lost.
pub const PREVIOUS_FOR: TimeDelta = TimeDelta::seconds(60);
/// How long the answer of a process that says nothing any more is waited for.
pub const LEASE: TimeDelta = TimeDelta::seconds(30);
/// Longest name that a client may give a message, bytes.
pub const CLIENT_ID_BYTES: usize = 128;

/// A visitor's conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatSession {
    pub id: ChatSessionId,
    /// Of what the cookie holds.
    pub hash: TokenHash,
    /// The one before, and until when it is good.
    pub previous: Option<(TokenHash, DateTime<Utc>)>,
    /// The page's, as the browser names it.
    pub origin: String,
    /// Its host.
    pub origin_domain: String,
    pub page_url: Option<String>,
    pub print: Fingerprint,
    /// Who was logged in where it began.
    pub user_id: Option<UserId>,
    pub created_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
    /// So far, of both sides.
    pub messages: i64,
    pub version: i64,
}

/// What a browser is known by again: keyed digests, so that nothing can be read
/// from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    pub browser: [u8; 16],
    pub network: [u8; 16],
}

/// How much of it must stay the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// The page's origin alone.
    Origin,
    /// Also what the browser says about itself.
    Browser,
    /// Also the network that it is in.
    Network,
}

impl Binding {
    pub fn holds(self, made: &Fingerprint, seen: &Fingerprint) -> bool {
        match self {
            Self::Origin => true,
            Self::Browser => made.browser == seen.browser,
            Self::Network => made == seen,
        }
    }
}

/// How long sessions live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// Without being used.
    pub idle: TimeDelta,
    /// However much they are used.
    pub absolute: TimeDelta,
}

impl Lifetimes {
    /// When a session ends that is used now.
    pub fn end(self, created_at: DateTime<Utc>, now: DateTime<Utc>) -> DateTime<Utc> {
        (now + self.idle).min(created_at + self.absolute)
    }

    /// Whether a session that is used now is to be renewed: past half its life,
    /// and only where that makes it longer.
    pub fn is_due(self, session: &ChatSession, now: DateTime<Utc>) -> bool {
        session.expires_at - now <= self.idle / 2
            && self.end(session.created_at, now) > session.expires_at
    }
}

impl ChatSession {
    /// The end of a session that is to go with all that was said in it.
    pub const CONDEMNED: DateTime<Utc> = DateTime::UNIX_EPOCH;

    pub fn is_live(&self, now: DateTime<Utc>) -> bool {
        self.ended_at.is_none() && now < self.expires_at
    }

    /// Whether what a cookie holds opens it.
    pub fn opens(&self, hash: &TokenHash, now: DateTime<Utc>) -> bool {
        self.hash == *hash
            || self.previous.as_ref().is_some_and(|(old, until)| old == hash && now < *until)
    }
}

/// Whose turn it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    User,
    Assistant,
}

impl Speaker {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::User, Self::Assistant].into_iter().find(|one| one.as_str() == text)
    }
}

/// How an answer failed, as far as visitors are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerFailure {
    /// The workflow, or the way to it.
    Failed,
    TimedOut,
    /// It failed so often of late that it was not asked.
    Unavailable,
    /// Whoever wrote it down ended before it did.
    Interrupted,
}

impl AnswerFailure {
    const ALL: [Self; 4] = [Self::Failed, Self::TimedOut, Self::Unavailable, Self::Interrupted];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Unavailable => "unavailable",
            Self::Interrupted => "interrupted",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == text)
    }
}

/// How far a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageState {
    /// An answer that is under way.
    Streaming {
        writer: ChatWriterId,
        lease_until: DateTime<Utc>,
    },
    Complete,
    Failed(AnswerFailure),
}

impl MessageState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Streaming { .. } => "streaming",
            Self::Complete => "complete",
            Self::Failed(_) => "failed",
        }
    }

    /// Whether more may come.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Streaming { .. })
    }
}

/// One side's turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatMessage {
    pub id: ChatMessageId,
    pub session_id: ChatSessionId,
    /// Within its session, from 1. An answer stands behind its question.
    pub position: i64,
    pub speaker: Speaker,
    pub state: MessageState,
    /// What the visitor's page calls it.
    pub client_id: Option<String>,
    /// Text, never markup. Of an answer under way only what [`Piece`]s lack.
    pub content: String,
    pub page_url: Option<String>,
    pub created_at: DateTime<Utc>,
    pub finished_at: Option<DateTime<Utc>>,
}

/// A part of an answer that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    pub message_id: ChatMessageId,
    /// Bytes of the answer up to its end.
    pub number: i64,
    pub content: String,
}

/// What pieces, in the order of their numbers, hold behind the byte `at`, and the
/// byte up to which that goes. Pieces may overlap: whoever wrote one and was not
/// told so writes it again, with more.
pub fn joined(pieces: &[Piece], at: usize) -> (String, usize) {
    let (mut text, mut upto) = (String::new(), at);
    for Piece { number, content, .. } in pieces {
        let end = usize::try_from(*number).unwrap_or(usize::MAX);
        if end <= upto {
            continue;
        }
        let known = upto.saturating_sub(end.saturating_sub(content.len()));
        text.push_str(&content[content.floor_char_boundary(known)..]);
        upto = end;
    }
    (text, upto)
}

/// Why a message is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextRefusal {
    #[error("must not be empty")]
    Empty,
    #[error("must have at most {most} characters")]
    TooLong { most: usize },
    #[error("must not have control characters besides line feeds and tabs")]
    Control,
}

/// A message as it is kept: in the composed form (NFC), with line feeds, without
/// white space around it.
pub fn message_text(text: &str, most: usize) -> Result<String, TextRefusal> {
    // Composing makes nothing longer than this, so no more is looked at.
    if text.chars().nth(most.saturating_mul(4)).is_some() {
        return Err(TextRefusal::TooLong { most });
    }
    let text = text.replace("\r\n", "\n");
    if text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
        return Err(TextRefusal::Control);
    }
    let text: String = text.trim().nfc().collect();
    if text.is_empty() {
        Err(TextRefusal::Empty)
    } else if text.chars().nth(most).is_some() {
        Err(TextRefusal::TooLong { most })
    } else {
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_composed_text_within_bounds() {
        assert_eq!(message_text(" a\r\nb\t\n", 10).as_deref(), Ok("a\nb"));
        assert_eq!(message_text("u\u{308}", 1).as_deref(), Ok("ü"));
        assert_eq!(message_text("<b>&amp;", 10).as_deref(), Ok("<b>&amp;"));
        for (text, refusal) in [
            ("", TextRefusal::Empty),
            (" \n\t ", TextRefusal::Empty),
            ("abcde", TextRefusal::TooLong { most: 4 }),
            ("a\u{0}", TextRefusal::Control),
            ("a\u{1b}[31m", TextRefusal::Control),
            ("a\u{85}", TextRefusal::Control),
            ("a\rb", TextRefusal::Control),
        ] {
            assert_eq!(message_text(text, 4), Err(refusal), "{text:?}");
        }
    }

    #[test]
    fn pieces_that_overlap_are_read_once() {
        let piece = |number, content: &str| Piece {
            message_id: ChatMessageId::NIL,
            number,
            content: content.to_owned(),
        };
        let pieces = [piece(3, "aü"), piece(7, "aü😀"), piece(8, "b"), piece(10, "😀bcd")];
        for (at, text) in
            [(0, "aü😀bcd"), (1, "ü😀bcd"), (5, "😀bcd"), (7, "bcd"), (8, "cd"), (10, ""), (99, "")]
        {
            assert_eq!(joined(&pieces, at), (text.to_owned(), at.max(10)), "{at}");
        }
        assert_eq!(joined(&[], 4), (String::new(), 4));
    }

    #[test]
    fn a_session_is_renewed_past_half_its_life_and_never_beyond_its_end() {
        let lives = Lifetimes { idle: TimeDelta::hours(2), absolute: TimeDelta::hours(5) };
        let start = DateTime::from_timestamp(1_767_225_600, 0).unwrap();
        let at = |minutes| start + TimeDelta::minutes(minutes);
        assert_eq!(lives.end(start, at(0)), at(120));
        assert_eq!(lives.end(start, at(240)), at(300));
        let hash = TokenHash::from_bytes(&[1; 32]).unwrap();
        let old = TokenHash::from_bytes(&[2; 32]).unwrap();
        let mut session = ChatSession {
            id: ChatSessionId::NIL,
            hash,
            previous: None,
            origin: String::new(),
            origin_domain: String::new(),
            page_url: None,
            print: Fingerprint { browser: [0; 16], network: [0; 16] },
            user_id: None,
            created_at: start,
            expires_at: at(120),
            ended_at: None,
            messages: 0,
            version: 1,
        };
        assert!(!lives.is_due(&session, at(59)) && lives.is_due(&session, at(60)));
        assert!(session.is_live(at(119)) && !session.is_live(at(120)));
        session.expires_at = at(300);
        assert!(!lives.is_due(&session, at(299)));
        session.previous = Some((old, at(1)));
        assert!(session.opens(&hash, at(9)) && session.opens(&old, at(0)));
        assert!(!session.opens(&old, at(1)));
        session.ended_at = Some(at(1));
        assert!(!session.is_live(at(1)));
    }
}
