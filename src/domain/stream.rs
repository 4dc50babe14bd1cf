//! What is open for long: event streams, sockets, long answers and uploads.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::id::{ApiKeyId, PassId, SessionId, StreamId, UserId};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamKind {
    /// An answer of `text/event-stream`.
    Sse,
    Websocket,
    /// Any other answer that is long or of unknown length.
    Download,
    /// A request's body that is still coming.
    Upload,
}

impl StreamKind {
    pub const ALL: [Self; 4] = [Self::Sse, Self::Websocket, Self::Download, Self::Upload];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sse => "sse",
            Self::Websocket => "websocket",
            Self::Download => "download",
            Self::Upload => "upload",
        }
    }
}

/// What went through a stream so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Data messages of a socket.
    pub messages_in: u64,
    /// Data messages of a socket, or events.
    pub messages_out: u64,
}

/// An open stream as one instance shows it to the others and to operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamInfo {
    pub id: StreamId,
    /// Where it is open.
    pub instance: String,
    pub kind: StreamKind,
    pub user_id: Option<UserId>,
    pub username: Option<String>,
    pub key_id: Option<ApiKeyId>,
    /// Of the time pass.
    pub token_id: Option<PassId>,
    pub session_id: Option<SessionId>,
    pub upstream: String,
    /// The canonical path without its query, cut to 512 characters.
    pub path: String,
    pub address: IpAddr,
    pub opened_at: DateTime<Utc>,
    #[serde(flatten)]
    pub passed: Passed,
}
