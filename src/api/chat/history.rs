//! What was said, for the visitor and for operators: read, exported, deleted.

use axum::{
    Json as JsonBody,
    extract::{FromRequestParts, State},
    http::{HeaderMap, StatusCode, header, request::Parts},
    response::Response,
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::{
    takeout::{self, Frame},
    visitor::{Guest, Visitor},
};
use crate::{
    api::{
        ApiRouter, AppState,
        actor::By,
        error::{ApiError, ApiResult, Problem},
        extract::{Admin, Moderator, Path, Query},
        idempotency::to_the_end,
        page::{PageQuery, PageResponse},
    },
    domain::{
        audit::Actor,
        chat::{ChatMessage, ChatSession, MessageState},
        id::{ChatMessageId, ChatSessionId},
    },
    services::chat::ChatError,
};

pub(super) fn router() -> ApiRouter {
    ApiRouter::new().routes(routes!(get_chat_history, delete_chat)).routes(routes!(export_chat))
}

/// One side's turn.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatMessageResponse {
    #[schema(value_type = uuid::Uuid)]
    id: ChatMessageId,
    /// `user` or `assistant`.
    #[schema(example = "assistant")]
    role: &'static str,
    /// Text, never markup.
    #[schema(example = "Yes, in all sizes.")]
    content: String,
    created_at: DateTime<Utc>,
    /// `streaming` while it comes, `complete`, or `failed`.
    #[schema(example = "complete")]
    status: &'static str,
    finished_at: Option<DateTime<Utc>>,
    /// How it failed: `failed`, `timed_out`, `unavailable` or `interrupted`.
    failure: Option<&'static str>,
    #[schema(example = "m-17")]
    client_message_id: Option<String>,
}

impl From<ChatMessage> for ChatMessageResponse {
    fn from(message: ChatMessage) -> Self {
        Self {
            id: message.id,
            role: message.speaker.as_str(),
            status: message.state.as_str(),
            failure: match message.state {
                MessageState::Failed(failure) => Some(failure.as_str()),
                MessageState::Streaming { .. } | MessageState::Complete => None,
            },
            content: message.content,
            created_at: message.created_at,
            finished_at: message.finished_at,
            client_message_id: message.client_id,
        }
    }
}

/// All that is kept of a conversation.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatExport {
    #[schema(value_type = uuid::Uuid)]
    session_id: ChatSessionId,
    #[schema(example = "https://shop.example.com")]
    origin: String,
    page_url: Option<String>,
    created_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
    /// Oldest first.
    messages: Vec<ChatMessageResponse>,
}

impl From<ChatSession> for ChatExport {
    /// What was said is written behind it.
    fn from(session: ChatSession) -> Self {
        Self {
            session_id: session.id,
            origin: session.origin,
            page_url: session.page_url,
            created_at: session.created_at,
            expires_at: session.expires_at,
            ended_at: session.ended_at,
            messages: vec![],
        }
    }
}

/// Somebody who may see a conversation.
enum Reader {
    Visitor(ChatSessionId),
    Operator(Box<Actor>),
}

fn check(own: ChatSessionId, id: ChatSessionId) -> Result<(), ChatError> {
    if own == id { Ok(()) } else { Err(ChatError::NotFound) }
}

impl Reader {
    /// The operator, where it is one.
    fn of(self, id: ChatSessionId) -> Result<Option<Actor>, ChatError> {
        match self {
            Self::Visitor(own) => check(own, id).map(|()| None),
            Self::Operator(by) => Ok(Some(*by)),
        }
    }
}

impl FromRequestParts<AppState> for Reader {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let _ = Guest::from_request_parts(parts, state).await?;
        if Moderator::from_request_parts(parts, state).await.is_ok() {
            let By(by) = By::from_request_parts(parts, state).await?;
            return Ok(Self::Operator(Box::new(by)));
        }
        let visitor = Visitor::from_request_parts(parts, state).await?;
        Ok(Self::Visitor(visitor.visit.id))
    }
}

/// Somebody who may delete one.
enum Owner {
    Visitor(Box<Visitor>),
    Admin(Actor),
}

impl FromRequestParts<AppState> for Owner {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let _ = Guest::from_request_parts(parts, state).await?;
        if Admin::from_request_parts(parts, state).await.is_ok() {
            return By::from_request_parts(parts, state).await.map(|By(by)| Self::Admin(by));
        }
        Visitor::from_request_parts(parts, state).await.map(Box::new).map(Self::Visitor)
    }
}

/// Read what was said, newest first.
///
/// The visitor's own conversation; any of them for the roles admin and moderator.
/// Where messages are long a page has fewer than `limit`: about 4 MiB of text.
#[utoipa::path(
    get,
    path = "/chat/history/{id}",
    tag = "chat",
    security(("chat_session" = []), ("jwt" = [])),
    params(("id" = uuid::Uuid, Path, description = "`session_id`"), PageQuery),
    responses(
        (status = OK, body = PageResponse<ChatMessageResponse>),
        (status = NOT_FOUND, body = Problem),
    ),
)]
async fn get_chat_history(
    State(state): State<AppState>,
    reader: Reader,
    Path(id): Path<ChatSessionId>,
    Query(page): Query<PageQuery>,
) -> ApiResult<JsonBody<PageResponse<ChatMessageResponse>>> {
    reader.of(id)?;
    let page = state.services.chat.history(id, page.request()?).await?;
    Ok(JsonBody(PageResponse::of(page, ChatMessageResponse::from)))
}

/// Get everything that is kept of a conversation, as one file.
///
/// Sent as it is read: where that fails half-way the answer breaks off, so what
/// ends properly is whole. The visitor's own; any of them for the roles admin and
/// moderator, which the audit log has.
#[utoipa::path(
    get,
    path = "/chat/export/{id}",
    tag = "chat",
    security(("chat_session" = []), ("jwt" = [])),
    params(("id" = uuid::Uuid, Path, description = "`session_id`")),
    responses((status = OK, body = ChatExport), (status = NOT_FOUND, body = Problem)),
)]
async fn export_chat(
    State(state): State<AppState>,
    reader: Reader,
    Path(id): Path<ChatSessionId>,
) -> ApiResult<Response> {
    let by = reader.of(id)?;
    let takeout = state.services.chat.export(id, by.as_ref()).await?;
    Ok(takeout::file(takeout, Frame::default()))
}

/// Delete a conversation for good, and end its session.
///
/// The visitor's own; any of them for the role admin.
#[utoipa::path(
    delete,
    path = "/chat/history/{id}",
    tag = "chat",
    security(("chat_session" = []), ("jwt" = [])),
    params(("id" = uuid::Uuid, Path, description = "`session_id`")),
    responses((status = NO_CONTENT), (status = NOT_FOUND, body = Problem)),
)]
async fn delete_chat(
    State(state): State<AppState>,
    owner: Owner,
    Path(id): Path<ChatSessionId>,
) -> ApiResult<(StatusCode, HeaderMap)> {
    let mut headers = HeaderMap::new();
    let by = match owner {
        Owner::Visitor(visitor) => {
            check(visitor.visit.id, id)?;
            let Visitor { guest, jar, .. } = *visitor;
            headers.insert(header::SET_COOKIE, guest.clear(jar, &state.visitors));
            None
        }
        Owner::Admin(by) => Some(by),
    };
    let chat = state.services.chat.clone();
    to_the_end(async move { chat.delete(id, by.as_ref()).await }).await?;
    Ok((StatusCode::NO_CONTENT, headers))
}
