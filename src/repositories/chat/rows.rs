//! Rows of conversations, and what they stand for.

use chrono::{DateTime, Utc};

use super::super::{StoreError, StoreResult, row::token_hash};
use crate::domain::{
    chat::{AnswerFailure, ChatMessage, ChatSession, Fingerprint, MessageState, Piece, Speaker},
    id::{ChatMessageId, ChatSessionId, ChatWriterId, UserId},
};

#[derive(sqlx::FromRow)]
pub(super) struct SessionRow {
    id: ChatSessionId,
    hash: Vec<u8>,
    previous_hash: Option<Vec<u8>>,
    previous_until: Option<DateTime<Utc>>,
    origin: String,
    origin_domain: String,
    page_url: Option<String>,
    browser: Vec<u8>,
    network: Vec<u8>,
    user_id: Option<UserId>,
    created_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
    messages: i64,
    version: i64,
}

#[derive(sqlx::FromRow)]
pub(super) struct MessageRow {
    id: ChatMessageId,
    session_id: ChatSessionId,
    position: i64,
    role: String,
    status: String,
    client_id: Option<String>,
    content: String,
    page_url: Option<String>,
    failure: Option<String>,
    writer: Option<ChatWriterId>,
    lease_until: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
}

#[derive(sqlx::FromRow)]
pub(super) struct PieceRow {
    message_id: ChatMessageId,
    number: i64,
    content: String,
}

fn digest(column: &'static str, bytes: &[u8]) -> StoreResult<[u8; 16]> {
    bytes.try_into().map_err(|error| StoreError::corrupt(column, error))
}

impl TryFrom<SessionRow> for ChatSession {
    type Error = StoreError;

    fn try_from(row: SessionRow) -> StoreResult<Self> {
        let previous = row.previous_hash.as_deref().map(token_hash).transpose()?;
        Ok(Self {
            id: row.id,
            hash: token_hash(&row.hash)?,
            previous: previous.zip(row.previous_until),
            origin: row.origin,
            origin_domain: row.origin_domain,
            page_url: row.page_url,
            print: Fingerprint {
                browser: digest("browser", &row.browser)?,
                network: digest("network", &row.network)?,
            },
            user_id: row.user_id,
            created_at: row.created_at,
            expires_at: row.expires_at,
            ended_at: row.ended_at,
            messages: row.messages,
            version: row.version,
        })
    }
}

impl TryFrom<MessageRow> for ChatMessage {
    type Error = StoreError;

    fn try_from(row: MessageRow) -> StoreResult<Self> {
        let corrupt = |column| StoreError::corrupt(column, "none of ours");
        let speaker = Speaker::parse(&row.role).ok_or_else(|| corrupt("role"))?;
        let state = match (row.status.as_str(), row.writer, row.lease_until) {
            ("complete", ..) => MessageState::Complete,
            ("streaming", Some(writer), Some(lease_until)) => {
                MessageState::Streaming { writer, lease_until }
            }
            ("failed", ..) => {
                let failure = row.failure.as_deref().and_then(AnswerFailure::parse);
                MessageState::Failed(failure.ok_or_else(|| corrupt("failure"))?)
            }
            _ => return Err(corrupt("status")),
        };
        Ok(Self {
            id: row.id,
            session_id: row.session_id,
            position: row.position,
            speaker,
            state,
            client_id: row.client_id,
            content: row.content,
            page_url: row.page_url,
            created_at: row.created_at,
            finished_at: row.finished_at,
        })
    }
}

impl From<PieceRow> for Piece {
    fn from(row: PieceRow) -> Self {
        let PieceRow { message_id, number, content } = row;
        Self { message_id, number, content }
    }
}
